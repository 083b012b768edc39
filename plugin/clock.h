/* SPDX-License-Identifier: MIT */
/* The clock that the BPF programs read (bpf_ktime_get_ns). */
#ifndef RECLAIM_CLOCK_H
#define RECLAIM_CLOCK_H

#include <stdint.h>
#include <time.h>

/* CLOCK_MONOTONIC in ns: it stands still while the machine sleeps. Cannot fail;
 * thread-safe. */
static inline uint64_t monotonic_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* What to add to monotonic_ns for the time of day. The clocks are read one
 * after the other, and a busy machine can come between: of some tries the
 * closest counts. Cannot fail; thread-safe. */
static inline int64_t wall_clock_offset_ns(void) {
  uint64_t least_ns = UINT64_MAX;
  int64_t offset_ns = 0;
  for (int attempt = 0; attempt < 5 && least_ns > 100000; attempt++) {
    struct timespec wall;
    uint64_t before_ns = monotonic_ns();
    clock_gettime(CLOCK_REALTIME, &wall);
    uint64_t took_ns = monotonic_ns() - before_ns;
    if (took_ns < least_ns) {
      least_ns = took_ns;
      offset_ns = (int64_t)wall.tv_sec * 1000000000 + wall.tv_nsec -
                  (int64_t)(before_ns + took_ns / 2);
    }
  }
  return offset_ns;
}

#endif
