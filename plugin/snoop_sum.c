/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "histogram.h"
#include "snoop_sum.h"

/* What makes two rows one. */
static int compare_keys(const void *left, const void *right) {
  const struct snoop_row *a = left, *b = right;
  if (a->others != b->others)
    return a->others ? 1 : -1;
  int order = memcmp(a->comm, b->comm, sizeof(a->comm));
  return order != 0 ? order : (a->kind > b->kind) - (a->kind < b->kind);
}

/* Rows of equal time stay in the order of their names. */
static int compare_times(const void *left, const void *right) {
  const struct snoop_row *a = left, *b = right;
  if (a->time_ns != b->time_ns)
    return a->time_ns < b->time_ns ? 1 : -1;
  if (a->stalls != b->stalls)
    return a->stalls < b->stalls ? 1 : -1;
  return compare_keys(a, b);
}

static void add_row(struct snoop_row *to, const struct snoop_row *row) {
  to->stalls += row->stalls;
  to->time_ns += row->time_ns;
  to->pages += row->pages;
  to->fruitless += row->fruitless;
  if (row->longest_ns > to->longest_ns)
    to->longest_ns = row->longest_ns;
  for (size_t i = 0; i < RECLAIM_BUCKETS; i++)
    to->buckets[i] += row->buckets[i];
}

static void unite_equal(struct snoop_sum *sum) {
  qsort(sum->rows, sum->num, sizeof(*sum->rows), compare_keys);
  size_t used = 0;
  for (size_t i = 0; i < sum->num; i++) {
    if (used > 0 && compare_keys(&sum->rows[used - 1], &sum->rows[i]) == 0)
      add_row(&sum->rows[used - 1], &sum->rows[i]);
    else
      sum->rows[used++] = sum->rows[i];
  }
  sum->num = used;
}

static void shorten(struct snoop_sum *sum) {
  if (sum->num <= SNOOP_ROWS_MAX)
    return;
  snoop_sum_sort(sum);
  for (size_t i = SNOOP_ROWS_MAX - RECLAIM_KINDS; i < sum->num; i++) {
    memset(sum->rows[i].comm, 0, sizeof(sum->rows[i].comm));
    sum->rows[i].others = true;
  }
  unite_equal(sum);
}

/* Room for `num` more rows, zeroed, behind the others; NULL: out of memory. */
static struct snoop_row *make_room(struct snoop_sum *sum, size_t num) {
  struct snoop_row *rows =
      realloc(sum->rows, (sum->num + num + 1) * sizeof(*rows));
  if (!rows)
    return NULL;
  sum->rows = rows;
  return memset(rows + sum->num, 0, num * sizeof(*rows));
}

static struct snoop_row row_of(const struct reclaim_row_key *key,
                               const struct reclaim_row *row) {
  struct snoop_row made = {.kind = key->kind,
                           .others = key->flags & RECLAIM_ROW_OVERFLOW,
                           .stalls = row->stalls,
                           .time_ns = row->time_ns,
                           .pages = row->pages,
                           .fruitless = row->fruitless,
                           .longest_ns = row->longest_ns};
  memcpy(made.comm, key->comm, sizeof(made.comm));
  for (size_t i = 0; i < RECLAIM_BUCKETS; i++)
    made.buckets[i] = row->buckets[i];
  /* The kernel side can miss the longest of two that end together. */
  uint64_t floor_ns = histogram_floor_ns(made.buckets);
  if (made.longest_ns < floor_ns)
    made.longest_ns = floor_ns;
  return made;
}

int snoop_sum_add(struct snoop_sum *sum, const struct reclaim_row_key *keys,
                  const struct reclaim_row *rows, size_t num) {
  struct snoop_row *more = make_room(sum, num);
  if (!more)
    return -ENOMEM;
  for (size_t i = 0; i < num; i++)
    if (rows[i].stalls > 0) {
      *more++ = row_of(&keys[i], &rows[i]);
      sum->num++;
    }
  unite_equal(sum);
  shorten(sum);
  return 0;
}

int snoop_sum_merge(struct snoop_sum *sum, const struct snoop_sum *more) {
  struct snoop_row *room = make_room(sum, more->num);
  if (!room)
    return -ENOMEM;
  for (size_t i = 0; i < more->num; i++)
    room[i] = more->rows[i];
  sum->num += more->num;
  unite_equal(sum);
  shorten(sum);
  return 0;
}

void snoop_sum_sort(struct snoop_sum *sum) {
  if (sum->num > 0)
    qsort(sum->rows, sum->num, sizeof(*sum->rows), compare_times);
}

uint64_t snoop_sum_stalls(const struct snoop_sum *sum) {
  uint64_t stalls = 0;
  for (size_t i = 0; i < sum->num; i++)
    stalls += sum->rows[i].stalls;
  return stalls;
}

uint64_t snoop_sum_untimed(const struct snoop_sum *sum) {
  uint64_t timed = 0;
  for (size_t i = 0; i < sum->num; i++)
    for (size_t bucket = 0; bucket < RECLAIM_BUCKETS; bucket++)
      timed += sum->rows[i].buckets[bucket];
  return snoop_sum_stalls(sum) - timed;
}

void snoop_sum_clear(struct snoop_sum *sum) {
  free(sum->rows);
  *sum = (struct snoop_sum){0};
}
