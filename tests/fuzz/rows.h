/* SPDX-License-Identifier: MIT */
/* Rows of an interval out of libFuzzer's bytes, as the kernel side and
 * inflight hand them over. */
#ifndef RECLAIM_FUZZ_ROWS_H
#define RECLAIM_FUZZ_ROWS_H

#include "plugin/ledger.h"
#include "tests/fuzz/fuzz.h"

#define ROWS_MAX 32
#define NAMES 12 /* different ones */

struct rows {
  struct reclaim_row_key keys[ROWS_MAX];
  struct reclaim_row counts[ROWS_MAX];
  struct ledger_row rows[ROWS_MAX];
  size_t num;
  uint64_t left; /* what may still be added up before counters are full */
};

static inline const char *row_name(size_t number) {
  static const char *const names[NAMES] = {
      "a",
      "b",
      "c",
      "unknown",
      "_gone",
      "java-with-a-long",
      "a-b",
      "B",
      "a-longer-name-1",
      "a-longer-name-2",
      "a-longer-name-10",
      "a-name-of-sixty-three-bytes-which-is-as-long-as-names-may-be-xx"};
  return names[number];
}

/* Counters are DERIVE of 63 bits: what a row adds never fills them. */
static inline uint64_t take_count(struct input *input, struct rows *rows) {
  uint64_t count = take_number(input);
  if (count > rows->left)
    count = rows->left;
  rows->left -= count;
  return count;
}

/* Buckets of at most as many stalls as there are, and a longest stall that the
 * highest of them allows or, as by a lost race, does not. */
static inline void take_times(struct input *input, struct rows *rows,
                              struct reclaim_row *row) {
  row->time_ns = take_count(input, rows);
  row->longest_ns = take_number(input) % (row->time_ns + 1);
  uint64_t untold = row->stalls;
  for (int i = 0; i < 3; i++) {
    uint64_t stalls = take_number(input) % (untold + 1);
    uint32_t *bucket = &row->buckets[take_one_of(input, RECLAIM_BUCKETS)];
    if (stalls > UINT32_MAX - *bucket)
      stalls = UINT32_MAX - *bucket;
    *bucket += (uint32_t)stalls;
    untold -= stalls;
  }
}

/* One stall, of few bytes: many of them make a story. */
static inline void take_stall(struct input *input, struct rows *rows,
                              struct reclaim_row *row) {
  uint64_t ns = 1ULL << take_one_of(input, 48);
  if (ns > rows->left)
    return;
  rows->left -= ns;
  *row = (struct reclaim_row){
      .stalls = 1, .time_ns = ns, .fruitless = 1, .longest_ns = ns};
}

static inline void take_row(struct input *input, struct rows *rows) {
  enum { EMPTY, SHARE, OVERFLOWED, USUAL, SIMPLE = 4 };
  size_t i = rows->num++;
  struct reclaim_row_key *key = &rows->keys[i];
  struct reclaim_row *row = &rows->counts[i];
  uint8_t form = take_byte(input);
  *key = (struct reclaim_row_key){.kind = form >> 4 & 7};
  key->kind %= RECLAIM_KINDS;
  *row = (struct reclaim_row){0};
  rows->rows[i] =
      (struct ledger_row){.kind = key->kind, .key = key, .row = row};
  size_t name = take_one_of(input, NAMES);
  strcpy(rows->rows[i].name, row_name(name));
  key->comm[0] = (char)('a' + name); /* several comms may have one name */
  key->comm[1] = (char)('0' + take_one_of(input, 3));

  switch (form & 3) {
  case EMPTY: /* of a key that was kept */
    return;
  case SHARE: /* of a stall under way */
    key->flags = RECLAIM_ROW_ALONE;
    row->time_ns = take_count(input, rows);
    row->longest_ns = take_number(input);
    return;
  case OVERFLOWED:
    *key = (struct reclaim_row_key){.kind = key->kind,
                                    .flags = RECLAIM_ROW_OVERFLOW};
    strcpy(rows->rows[i].name, "unknown");
  }
  if (form & SIMPLE) {
    take_stall(input, rows, row);
    return;
  }
  row->stalls = take_count(input, rows);
  if (row->stalls == 0) /* and so is all else */
    return;
  row->pages = take_count(input, rows);
  row->fruitless = take_number(input) % (row->stalls + 1);
  take_times(input, rows, row);
}

static inline void take_rows(struct input *input, struct rows *rows,
                             size_t max) {
  rows->num = 0;
  for (size_t num = take_one_of(input, max + 1); rows->num < num;)
    take_row(input, rows);
}

/* The ledger's own idea of options. `selects` gets `selected` as context. */
static inline struct ledger_options
take_ledger_options(struct input *input,
                    bool (*selects)(void *context, const char *name),
                    void *context) {
  static const uint64_t rates[] = {1, 3, 20, 3600, 100000};
  struct ledger_options options = {
      .max_names = 1 + take_one_of(input, 8),
      .idle_intervals = 2 + take_one_of(input, 4),
      .new_names_per_hour =
          rates[take_one_of(input, sizeof(rates) / sizeof(*rates))],
      .max_rows = ROWS_MAX,
      .selects = selects,
      .selects_context = context,
  };
  uint8_t kinds = take_byte(input);
  for (size_t kind = 0; kind < RECLAIM_KINDS; kind++)
    options.kinds[kind] = kinds >> kind & 1;
  return options;
}

/* How long an interval takes: from nothing to days. */
static inline uint64_t take_interval_ns(struct input *input) {
  uint8_t seconds = take_byte(input);
  if (seconds < 128)
    return seconds * 1000000000ULL;
  return take_u64(input) >> (16 + take_one_of(input, 48));
}

#endif
