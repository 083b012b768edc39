/* SPDX-License-Identifier: MIT */
/* Clocks, that of the BPF programs (bpf_ktime_get_ns) before all. */
#ifndef RECLAIM_CLOCK_H
#define RECLAIM_CLOCK_H

#include <stdint.h>
#include <time.h>

/* A clock in ns. Cannot fail for those that Linux has; thread-safe. */
static inline uint64_t clock_ns(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* CLOCK_MONOTONIC in ns: it stands still while the machine sleeps. */
static inline uint64_t monotonic_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

/* What to add to monotonic_ns for the time of day. The clocks are read one
 * after the other, and a busy machine can come between: of some tries the
 * closest counts. Cannot fail; thread-safe. */
static inline int64_t wall_clock_offset_ns(void) {
  uint64_t least_ns = UINT64_MAX;
  int64_t offset_ns = 0;
  for (int attempt = 0; attempt < 5 && least_ns > 100000; attempt++) {
    uint64_t before_ns = monotonic_ns();
    uint64_t wall_ns = clock_ns(CLOCK_REALTIME);
    uint64_t took_ns = monotonic_ns() - before_ns;
    if (took_ns < least_ns) {
      least_ns = took_ns;
      offset_ns = (int64_t)(wall_ns - before_ns - took_ns / 2);
    }
  }
  return offset_ns;
}

#endif
