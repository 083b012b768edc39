/* SPDX-License-Identifier: MIT */
/* Interval rows to cumulative series: totals, names with a series of their
 * own, and `_other`. Pure: the caller brings rows and time. One ledger belongs
 * to one thread at a time. */
#ifndef RECLAIM_LEDGER_H
#define RECLAIM_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/reclaim_shared.h"
#include "plugin/comm.h"

struct ledger_options {
  bool kinds[RECLAIM_KINDS];   /* kinds that get series at all */
  size_t max_names;            /* names with series, per kind */
  size_t idle_intervals;       /* reads without a stall until a name may end */
  uint64_t new_names_per_hour; /* births, per kind; up to max_names at once */
  size_t max_rows;             /* rows of one interval, at most */
  /* Whether `name` may have a series; asked once for each new name. */
  bool (*selects)(void *context, const char *name);
  void *selects_context;
};

/* One row of the closed table with its name. */
struct ledger_row {
  enum reclaim_kind kind;
  char name[COMM_NAME_SIZE];
  const struct reclaim_row_key *key; /* RECLAIM_ROW_OVERFLOW: no name */
  const struct reclaim_row *row;
  bool held; /* out: the name has a series after this interval */
};

struct ledger_counts {
  uint64_t stalls;
  uint64_t time_ns;
  uint64_t pages;
  uint64_t fruitless;
  uint64_t buckets[RECLAIM_BUCKETS];
};

enum ledger_scope { LEDGER_TOTAL, LEDGER_OTHER, LEDGER_NAME };

struct ledger_series {
  enum ledger_scope scope;
  enum reclaim_kind kind;
  char name[COMM_NAME_SIZE]; /* "" for the total, "_other" */
  /* This is the series' first interval: its counters are to be dispatched as
   * 0 now, and as they are from the next on, or the first share has no rate. */
  bool newborn;
  struct ledger_counts sum;      /* since the series began; never goes down */
  struct ledger_counts interval; /* of the last interval alone */
  uint64_t longest_ns;           /* of the last interval */
};

struct ledger_health {
  bool newborn;          /* as in ledger_series, for counters of health */
  uint64_t unattributed; /* stalls that found the table full, since start */
  uint64_t untimed;      /* stalls without a begin time, since start */
  size_t names;          /* (name, kind) pairs with a series */
  size_t rows;           /* rows of the last interval that had stalls */
};

/* Makes an empty ledger; `options` is copied, what its context points to must
 * outlive the ledger. NULL without memory. The caller frees it. */
struct ledger *ledger_new(const struct ledger_options *options);

/* Adds one interval. Sorts `rows` by kind, name and key, and sets their
 * `held`; rows of zeros count for nothing. At most `max_rows` rows.
 * `now_ns` is a monotonic clock. Takes no memory and cannot fail. What comes
 * out does not depend on the order of the rows. */
void ledger_add_interval(struct ledger *ledger, struct ledger_row *rows,
                         size_t rows_num, uint64_t now_ns);

/* The series by kind: total, `_other` once it was born, names in order. The
 * array is the ledger's and valid until the next interval. */
const struct ledger_series *const *ledger_series(const struct ledger *ledger,
                                                 size_t *num);

/* The stalls of a kind since the ledger was made. */
uint64_t ledger_stalls(const struct ledger *ledger, enum reclaim_kind kind);

struct ledger_health ledger_health(const struct ledger *ledger);

void ledger_free(struct ledger *ledger);

#endif
