/* SPDX-License-Identifier: MIT */
/* Which raw comms find a row waiting for them in the next table, so that a
 * storm of new comms cannot push out the programs that have series. Pure. One
 * keep belongs to one thread at a time. */
#ifndef RECLAIM_KEEP_H
#define RECLAIM_KEEP_H

#include <stddef.h>

#include "plugin/ledger.h"

/* `max_rows`: rows of an interval at most, of which half are kept at most.
 * `idle_intervals`: how long a key without stalls is kept. NULL without
 * memory. The caller frees it. */
struct keep *keep_new(size_t max_rows, size_t idle_intervals);

/* Chooses anew from an interval's rows, as ledger_add_interval left them:
 * sorted, `held` set. Names take turns, each with its latest, then its most
 * stalled key first, so that a name with thousands of comms leaves room for
 * the others. Cannot fail. */
void keep_update(struct keep *keep, const struct ledger_row *rows,
                 size_t rows_num);

/* The chosen keys; the array is the keep's and valid until the next update. */
const struct reclaim_row_key *keep_keys(const struct keep *keep, size_t *num);

void keep_free(struct keep *keep);

#endif
