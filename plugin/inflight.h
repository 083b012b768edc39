/* SPDX-License-Identifier: MIT */
/* Tells the time of a stall while it passes, not when the stall ends: a minute
 * is not nothing for a minute and then sixty seconds at once. Pure. One thread
 * at a time. */
#ifndef RECLAIM_INFLIGHT_H
#define RECLAIM_INFLIGHT_H

#include "plugin/bpf_source.h"

struct inflight;

struct inflight_shares {
  /* Time of stalls under way that was not told yet: rows without stalls, with
   * the age so far as their longest. Keys have RECLAIM_ROW_ALONE. Owned by the
   * inflight, valid until the next update. */
  const struct reclaim_row_key *keys;
  const struct reclaim_row *rows;
  size_t num;                        /* at most BPF_SOURCE_MAX_UNDER_WAY */
  uint64_t pending[RECLAIM_KINDS];   /* tasks stalled at the interval's end */
  uint64_t oldest_ns[RECLAIM_KINDS]; /* age of the oldest of these, or 0 */
};

/* NULL without memory. The caller frees it. */
struct inflight *inflight_new(void);

/* Takes an interval: takes off each row what of its stall was told before, and
 * makes it look like any other row; and gives the shares of the stalls that are
 * still under way. Over any number of intervals, the time of rows and shares
 * together is that of the stalls, each ns once. Takes no memory, cannot fail.
 */
void inflight_update(struct inflight *inflight, struct bpf_source_rows *drained,
                     struct inflight_shares *shares);

void inflight_free(struct inflight *inflight);

#endif
