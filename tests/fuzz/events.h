/* SPDX-License-Identifier: MIT */
/* Stalls as the ring buffer has them, any bytes and numbers but for the kind,
 * which the programs set. */
#ifndef RECLAIM_FUZZ_EVENTS_H
#define RECLAIM_FUZZ_EVENTS_H

#include "bpf/reclaim_shared.h"
#include "tests/fuzz/fuzz.h"

/* CLOCK_MONOTONIC, for at most a century. */
static inline uint64_t take_clock_ns(struct input *input) {
  return take_number(input) >> 2;
}

static inline struct reclaim_event take_event(struct input *input) {
  struct reclaim_event event = {.unused = 0};
  event.key.kind = (uint32_t)take_one_of(input, RECLAIM_KINDS);
  event.key.flags = take_bool(input) ? RECLAIM_ROW_KTHREAD : 0;
  take_bytes(input, event.comm, sizeof(event.comm));
  if (take_bool(input))
    take_bytes(input, event.key.comm, sizeof(event.key.comm));
  else
    memcpy(event.key.comm, event.comm, sizeof(event.comm));
  event.end_ns = take_clock_ns(input);
  event.stall_ns = take_bool(input) ? take_number(input) : RECLAIM_UNTIMED;
  event.nr_reclaimed = take_number(input);
  event.cgroup_id = take_number(input);
  event.tid = (uint32_t)take_number(input);
  event.tgid = (uint32_t)take_number(input);
  event.order =
      take_bool(input) ? (uint32_t)take_number(input) : RECLAIM_ORDER_UNKNOWN;
  event.gfp_flags = (uint32_t)take_number(input);
  return event;
}

#endif
