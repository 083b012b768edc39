/* SPDX-License-Identifier: MIT */
/* Carries events from the kernel to notifications, in a thread of its own:
 * collectd's read threads may all be held up on a host short of memory, which
 * is when events come, and a slow notification program would hold one up. */
#ifndef RECLAIM_WATCH_H
#define RECLAIM_WATCH_H

#include "plugin/bpf_source.h"
#include "plugin/config.h"

struct watch;

/* Starts the thread. `source` and `config` must outlive it; the thread only
 * collects the source's events. `interval_ns` is that of EventsPerInterval.
 * Returns 0 and a watch that the caller frees, or a negative errno. */
int watch_new(struct bpf_source *source, const struct config *config,
              uint64_t interval_ns, struct watch **watch);

/* Ends the thread: waits for a notification that is being dispatched. */
void watch_free(struct watch *watch);

#endif
