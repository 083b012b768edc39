/* SPDX-License-Identifier: MIT */
/* Single long stalls to notifications. Their text and meta data are a contract
 * with those who read them: README, Notifications. Used by one thread. */
#ifndef RECLAIM_NOTIFY_H
#define RECLAIM_NOTIFY_H

#include "plugin/cgroup.h"
#include "plugin/collectd_api.h"
#include "plugin/config.h"
#include "plugin/gfp.h"

struct notify {
  const struct config *config;
  uint64_t interval_ns;
  struct gfp_names gfp;
  struct cgroup_paths *cgroups; /* NULL: paths are not known */
  uint64_t interval_end_ns;     /* CLOCK_MONOTONIC */
  uint64_t lost_before;         /* at the last interval's end */
  size_t told;                  /* in this interval, as is what follows */
  size_t untold;
  struct reclaim_event longest_untold;
};

/* Begins the first interval now. `config` must outlive `notify`; the caller
 * ends it with notify_fini. */
void notify_init(struct notify *notify, const struct config *config,
                 uint64_t interval_ns, uint64_t now_ns);

/* Dispatches a notification of the stall, which ended at `time`, unless its
 * name is not selected; or counts it for the closing one, if EventsPerInterval
 * were dispatched already. */
void notify_stall(struct notify *notify, const struct reclaim_event *event,
                  cdtime_t time);

/* Ends the interval if it is over: what was not told one by one in it, or was
 * lost, is told in one notification. `lost` counts from the start of all. */
void notify_tick(struct notify *notify, uint64_t lost, uint64_t now_ns,
                 cdtime_t now);

/* Says in the log what was not told yet, and frees what notify holds. */
void notify_fini(struct notify *notify);

#endif
