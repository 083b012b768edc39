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

#endif
