/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "keep.h"
#include "sort.h"

struct candidate {
  struct reclaim_row_key key;
  size_t turn; /* 0 for the first key of its name */
  size_t idle; /* intervals since the key's last stall */
  uint64_t time_ns;
};

struct keep {
  size_t max_rows;
  size_t idle_intervals;
  struct candidate *candidates; /* behind them, room to sort them */
  struct reclaim_row_key *keys; /* sorted */
  size_t *idle;                 /* of the key at the same place */
  size_t keys_num;
};

struct keep *keep_new(size_t max_rows, size_t idle_intervals) {
  struct keep *keep = calloc(1, sizeof(*keep));
  if (!keep)
    return NULL;
  keep->max_rows = max_rows;
  keep->idle_intervals = idle_intervals;
  keep->candidates = calloc(2 * max_rows, sizeof(*keep->candidates));
  keep->keys = calloc(max_rows, sizeof(*keep->keys));
  keep->idle = calloc(max_rows, sizeof(*keep->idle));
  if (!keep->candidates || !keep->keys || !keep->idle) {
    keep_free(keep);
    return NULL;
  }
  return keep;
}

void keep_free(struct keep *keep) {
  if (!keep)
    return;
  free(keep->candidates);
  free(keep->keys);
  free(keep->idle);
  free(keep);
}

static int compare_keys(const void *a, const void *b) {
  return memcmp(a, b, sizeof(struct reclaim_row_key));
}

static int compare_keys_of_candidates(const void *a, const void *b) {
  const struct candidate *left = a, *right = b;
  return compare_keys(&left->key, &right->key);
}

static int compare_claims(const void *a, const void *b) {
  const struct candidate *left = a, *right = b;
  if (left->turn != right->turn)
    return left->turn < right->turn ? -1 : 1;
  if (left->idle != right->idle)
    return left->idle < right->idle ? -1 : 1;
  if (left->time_ns != right->time_ns)
    return left->time_ns > right->time_ns ? -1 : 1;
  return compare_keys(&left->key, &right->key);
}

/* Not the share of a stall under way, whose key the kernel does not know. */
static bool is_kept(const struct keep *keep, const struct ledger_row *row,
                    size_t idle) {
  return row->held && !(row->key->flags & RECLAIM_ROW_ALONE) &&
         idle <= keep->idle_intervals;
}

static size_t idle_of(const struct keep *keep, const struct ledger_row *row) {
  if (row->row->stalls > 0)
    return 0;
  const struct reclaim_row_key *key = bsearch(
      row->key, keep->keys, keep->keys_num, sizeof(*keep->keys), compare_keys);
  return key ? keep->idle[key - keep->keys] + 1 : 1;
}

/* Stalls that were under way have rows of their own; rows are sorted by key. */
static bool is_same_key(const struct ledger_row *row,
                        const struct candidate *candidate) {
  return candidate && memcmp(row->key, &candidate->key, sizeof(*row->key)) == 0;
}

static void unite(struct candidate *candidate, const struct ledger_row *row,
                  size_t idle) {
  candidate->time_ns += row->row->time_ns;
  if (idle < candidate->idle)
    candidate->idle = idle;
}

static bool same_name(const struct ledger_row *a, const struct ledger_row *b) {
  return a->kind == b->kind && strcmp(a->name, b->name) == 0;
}

static void take_turns(struct candidate *of_one_name, size_t num) {
  sort_items(of_one_name, &of_one_name[num], num, sizeof(*of_one_name),
             compare_claims);
  for (size_t i = 0; i < num; i++)
    of_one_name[i].turn = i;
}

void keep_update(struct keep *keep, const struct ledger_row *rows,
                 size_t rows_num) {
  struct candidate *candidates = keep->candidates;
  size_t num = 0, first_of_name = 0;
  for (size_t i = 0; i < rows_num; i++) {
    size_t idle = idle_of(keep, &rows[i]);
    if (is_same_key(&rows[i],
                    num > first_of_name ? &candidates[num - 1] : NULL))
      unite(&candidates[num - 1], &rows[i], idle);
    else if (is_kept(keep, &rows[i], idle))
      candidates[num++] = (struct candidate){
          .key = *rows[i].key, .idle = idle, .time_ns = rows[i].row->time_ns};
    if (i + 1 == rows_num || !same_name(&rows[i], &rows[i + 1])) {
      take_turns(&candidates[first_of_name], num - first_of_name);
      first_of_name = num;
    }
  }

  sort_items(candidates, &candidates[num], num, sizeof(*candidates),
             compare_claims);
  keep->keys_num = num < keep->max_rows / 2 ? num : keep->max_rows / 2;
  sort_items(candidates, &candidates[num], keep->keys_num, sizeof(*candidates),
             compare_keys_of_candidates);
  for (size_t i = 0; i < keep->keys_num; i++) {
    keep->keys[i] = candidates[i].key;
    keep->idle[i] = candidates[i].idle;
  }
}

const struct reclaim_row_key *keep_keys(const struct keep *keep, size_t *num) {
  *num = keep->keys_num;
  return keep->keys;
}
