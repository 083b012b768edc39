/* SPDX-License-Identifier: MIT */
/* Series to collectd's values. Identifiers, types and units are a contract with
 * dashboards: README, Metrics. Called from the read callback only. */
#ifndef RECLAIM_DISPATCH_H
#define RECLAIM_DISPATCH_H

#include "plugin/collectd_api.h"
#include "plugin/config.h"
#include "plugin/host.h"
#include "plugin/ledger.h"

/* Dispatches each series of the ledger's last interval, and the plugin's
 * health, all with the time `now`. `events_lost` counts from the start. */
void dispatch_ledger(const struct config *config, const struct ledger *ledger,
                     uint64_t events_lost, cdtime_t now);

/* Dispatches how many tasks are stalled now, and for how long the first of them
 * has been: pending_operations-<kind>_total, duration-<kind>_total_oldest. */
void dispatch_under_way(enum reclaim_kind kind, uint64_t pending,
                        uint64_t oldest_ns, cdtime_t now);

/* Dispatches whether `kind` is attached: gauge-attached_<kind>, 1 or 0. */
void dispatch_attached(enum reclaim_kind kind, bool attached, cdtime_t now);

/* Dispatches what the kernel itself counts, as far as it does. */
void dispatch_host(const struct host_account *account, cdtime_t now);

/* Dispatches host_coverage: gauge-coverage. */
void dispatch_coverage(double coverage, cdtime_t now);

/* Dispatches how long the read took, in ns: duration-read. */
void dispatch_read_time(uint64_t took_ns, cdtime_t now);

#endif
