/* SPDX-License-Identifier: MIT */
/* Rows of one interval, made by hand, for tests of ledger, keep and dispatch.
 */
#ifndef RECLAIM_INTERVALS_H
#define RECLAIM_INTERVALS_H

#include <stdio.h>
#include <string.h>

#include "plugin/ledger.h"

#define MS 1000000ULL
#define SECOND (1000 * MS)
#define HOUR (3600 * SECOND)
#define MAX_ROWS 512

struct interval {
  struct reclaim_row_key keys[MAX_ROWS];
  struct reclaim_row counts[MAX_ROWS];
  struct ledger_row rows[MAX_ROWS];
  size_t num;
};

/* A row of `stalls` stalls of `each_ns` that gave `pages` each. */
static inline struct reclaim_row *
interval_add(struct interval *interval, enum reclaim_kind kind,
             const char *comm, const char *name, uint64_t stalls,
             uint64_t each_ns, uint64_t pages) {
  size_t i = interval->num++;
  interval->keys[i] = (struct reclaim_row_key){.kind = kind};
  memcpy(interval->keys[i].comm, comm,
         strnlen(comm, sizeof(interval->keys[i].comm)));
  size_t bucket = 0;
  const uint64_t bounds[] = RECLAIM_BOUNDS_NS;
  while (bucket < RECLAIM_BOUNDS && each_ns > bounds[bucket])
    bucket++;
  interval->counts[i] = (struct reclaim_row){
      .stalls = stalls,
      .time_ns = stalls * each_ns,
      .pages = stalls * pages,
      .fruitless = pages == 0 ? stalls : 0,
      .longest_ns = stalls > 0 ? each_ns : 0,
  };
  interval->counts[i].buckets[bucket] = (__u32)stalls;
  interval->rows[i] = (struct ledger_row){
      .kind = kind, .key = &interval->keys[i], .row = &interval->counts[i]};
  snprintf(interval->rows[i].name, sizeof(interval->rows[i].name), "%s", name);
  return &interval->counts[i];
}

static inline void interval_add_overflow(struct interval *interval,
                                         enum reclaim_kind kind,
                                         uint64_t stalls, uint64_t each_ns,
                                         uint64_t pages) {
  interval_add(interval, kind, "", "unknown", stalls, each_ns, pages);
  interval->keys[interval->num - 1].flags = RECLAIM_ROW_OVERFLOW;
}

static inline bool selects_all(void *context, const char *name) {
  (void)context;
  return name[0] != '\0';
}

static inline const struct ledger_series *
find_series(const struct ledger *ledger, enum reclaim_kind kind,
            enum ledger_scope scope, const char *name) {
  size_t num;
  const struct ledger_series *const *series = ledger_series(ledger, &num);
  for (size_t i = 0; i < num; i++)
    if (series[i]->kind == kind && series[i]->scope == scope &&
        (scope != LEDGER_NAME || strcmp(series[i]->name, name) == 0))
      return series[i];
  return NULL;
}

#endif
