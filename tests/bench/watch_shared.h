/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What watch.bpf.c tells watch.c. */
#ifndef WATCH_SHARED_H
#define WATCH_SHARED_H

#define WATCH_CPUS 256 /* a power of two */

enum { WATCH_begin, WATCH_end, WATCH_EDGES };

/* Of one CPU, with cache lines of its own. */
struct watch_cpu {
  __u64 seen[WATCH_EDGES];
  __u64 timed[WATCH_EDGES];
  __u64 between_ns;      /* sum of those timed: between before and after */
  __u64 between_none_ns; /* between first and before */
  __u64 left_ns;
  __u64 nothing_ns;
  __u64 tid;
  __u64 unused[7];
};

#endif
