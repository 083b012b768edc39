/* SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "inflight.h"
#include "kind.h"
#include "sort.h"

/* A stall of which time was told. */
struct told {
  struct bpf_source_under_way stall;
  uint64_t ns;
  bool settled; /* its row came */
  bool dead;    /* a look found that it cannot be true */
};

struct inflight {
  struct told *told; /* sorted by words and place */
  size_t told_num;
  struct told *next; /* room for the next interval's */
  size_t next_num;
  bool *ended; /* of stalls under way: their row came already */
  uint64_t opened_ns;
  struct reclaim_row_key *keys;
  struct reclaim_row *rows;
};

struct inflight *inflight_new(void) {
  size_t max = BPF_SOURCE_MAX_UNDER_WAY;
  struct inflight *inflight = calloc(1, sizeof(*inflight));
  if (!inflight)
    return NULL;
  inflight->told = calloc(max, sizeof(*inflight->told));
  inflight->next = calloc(max, sizeof(*inflight->next));
  inflight->ended = calloc(max, sizeof(*inflight->ended));
  inflight->keys = calloc(max, sizeof(*inflight->keys));
  inflight->rows = calloc(max, sizeof(*inflight->rows));
  if (!inflight->told || !inflight->next || !inflight->ended ||
      !inflight->keys || !inflight->rows) {
    inflight_free(inflight);
    return NULL;
  }
  return inflight;
}

void inflight_free(struct inflight *inflight) {
  if (!inflight)
    return;
  free(inflight->told);
  free(inflight->next);
  free(inflight->ended);
  free(inflight->keys);
  free(inflight->rows);
  free(inflight);
}

/* Finding; both lists are sorted alike, and a `told` begins with its stall.
 * Kinds that share their words share places: a stall is found again also where
 * it is told as of another of them when it ends. */

static int compare_places(const void *a, const void *b) {
  const struct bpf_source_under_way *left = a, *right = b;
  enum reclaim_kind left_words = kind_words(left->kind);
  enum reclaim_kind right_words = kind_words(right->kind);
  if (left_words != right_words)
    return left_words < right_words ? -1 : 1;
  return left->place < right->place ? -1 : left->place > right->place;
}

static struct told *find_told(const struct inflight *inflight,
                              const struct bpf_source_under_way *at) {
  return bsearch(at, inflight->told, inflight->told_num,
                 sizeof(*inflight->told), compare_places);
}

static const struct bpf_source_under_way *
find_under_way(const struct bpf_source_rows *drained,
               const struct bpf_source_under_way *at) {
  if (drained->under_way_num == 0) /* there may be no list, either */
    return NULL;
  return bsearch(at, drained->under_way, drained->under_way_num,
                 sizeof(*drained->under_way), compare_places);
}

static bool is_told(const struct told *told,
                    const struct bpf_source_under_way *stall) {
  return told && told->stall.begin_ns == stall->begin_ns;
}

/* Rows of stalls that ended */

static void take_off(struct reclaim_row *row, uint64_t ns) {
  row->time_ns -= ns < row->time_ns ? ns : row->time_ns;
}

/* A row is of the stall that was told of at its place. A thread that stalls
 * again takes the same place, so that the stall seen there now can be another,
 * which may have ended as well before the table was closed. */
static void settle_row(struct inflight *inflight,
                       const struct bpf_source_rows *drained,
                       struct reclaim_row_key *key, struct reclaim_row *row) {
  struct bpf_source_under_way at = {
      .kind = key->kind, .place = key->flags >> RECLAIM_ROW_PLACE_SHIFT};
  struct told *told = find_told(inflight, &at);
  const struct bpf_source_under_way *seen = find_under_way(drained, &at);
  uint64_t stalls = row->stalls;
  bool is_same = seen && is_told(told, seen);

  if (told && !told->settled) {
    told->settled = true;
    stalls--;
  } else {
    told = NULL;
  }
  if (seen &&
      (is_same ||
       (stalls > 0 && row->longest_ns >= drained->opened_ns - seen->begin_ns)))
    inflight->ended[seen - drained->under_way] = true;
  if (told)
    take_off(row, told->ns);
  key->flags &= RECLAIM_ROW_KTHREAD;
}

static struct reclaim_row *find_overflow(const struct bpf_source_rows *drained,
                                         enum reclaim_kind kind) {
  for (size_t i = 0; i < drained->num; i++)
    if (drained->keys[i].kind == kind &&
        drained->keys[i].flags & RECLAIM_ROW_OVERFLOW)
      return &drained->rows[i];
  return NULL;
}

/* A stall that is neither under way nor in a row of its own ended when the
 * table was full, or the kernel hid its end; then what was told of it is all.
 * Where not all that are under way are known, it ended if its thread stalls
 * again. */
static void settle_vanished(const struct bpf_source_rows *drained,
                            const struct told *told) {
  const struct bpf_source_under_way *seen =
      find_under_way(drained, &told->stall);
  if (told->settled || (seen ? is_told(told, seen) : !drained->all_under_way))
    return;
  struct reclaim_row *overflow = find_overflow(drained, told->stall.kind);
  if (overflow && overflow->longest_ns >= told->ns)
    take_off(overflow, told->ns);
}

/* The rest of an interval comes with the same stalls under way as its first
 * rows: of some the row was among these. */
static void settle(struct inflight *inflight,
                   const struct bpf_source_rows *drained) {
  bool is_rest = drained->opened_ns == inflight->opened_ns;
  inflight->opened_ns = drained->opened_ns;
  for (size_t i = 0; !is_rest && i < drained->under_way_num; i++)
    inflight->ended[i] = false;
  for (size_t i = 0; i < drained->num; i++)
    if (drained->keys[i].flags & RECLAIM_ROW_ALONE)
      settle_row(inflight, drained, &drained->keys[i], &drained->rows[i]);
  for (size_t i = 0; drained->all_rows && i < inflight->told_num; i++)
    settle_vanished(drained, &inflight->told[i]);
}

/* Stalls under way */

static void share(struct inflight *inflight,
                  const struct bpf_source_under_way *stall, uint64_t told_ns,
                  uint64_t age_ns, struct inflight_shares *shares) {
  struct reclaim_row_key key = stall->key;
  key.kind = stall->kind;
  key.flags |= RECLAIM_ROW_ALONE;
  inflight->keys[shares->num] = key;
  inflight->rows[shares->num] =
      (struct reclaim_row){.time_ns = age_ns - told_ns, .longest_ns = age_ns};
  inflight->next[inflight->next_num++] =
      (struct told){.stall = *stall, .ns = age_ns};
  shares->num++;
  shares->pending[stall->kind]++;
  if (age_ns > shares->oldest_ns[stall->kind])
    shares->oldest_ns[stall->kind] = age_ns;
}

/* A stall that ended before its thread was looked at has a row, which is still
 * to come where not all rows came. Else the kernel hid its end, and the word is
 * nobody's stall, whatever the thread does later. */
static void bury(struct inflight *inflight,
                 const struct bpf_source_under_way *stall, uint64_t told_ns) {
  inflight->next[inflight->next_num++] =
      (struct told){.stall = *stall, .ns = told_ns, .dead = true};
}

/* Where another stall was told of in its place, and the row of that is still to
 * come, this one is told of when it came. */
static void update_stall(struct inflight *inflight,
                         const struct bpf_source_rows *drained,
                         const struct bpf_source_under_way *stall,
                         struct inflight_shares *shares) {
  const struct told *before = find_told(inflight, stall);
  bool is_known = is_told(before, stall);
  if (before && !is_known && !before->settled && !drained->all_rows)
    return;
  uint64_t told_ns = is_known ? before->ns : 0;
  if (stall->confirmed && !(is_known && before->dead))
    share(inflight, stall, told_ns, drained->opened_ns - stall->begin_ns,
          shares);
  else
    bury(inflight, stall, told_ns);
}

/* Where not all rows came, and of stalls that are not known to be under way or
 * to have ended, those that were told of are still to come.
 * What was told before is then needed no more, and is room to sort in. */
static void carry_over(struct inflight *inflight,
                       const struct bpf_source_rows *drained) {
  for (size_t i = 0; i < inflight->told_num; i++) {
    const struct told *told = &inflight->told[i];
    const struct bpf_source_under_way *seen =
        find_under_way(drained, &told->stall);
    bool is_open = !seen || (!drained->all_rows && !is_told(told, seen));
    if (!told->settled && is_open &&
        inflight->next_num < BPF_SOURCE_MAX_UNDER_WAY)
      inflight->next[inflight->next_num++] = *told;
  }
  sort_items(inflight->next, inflight->told, inflight->next_num,
             sizeof(*inflight->next), compare_places);
}

void inflight_update(struct inflight *inflight, struct bpf_source_rows *drained,
                     struct inflight_shares *shares) {
  *shares =
      (struct inflight_shares){.keys = inflight->keys, .rows = inflight->rows};
  settle(inflight, drained);
  inflight->next_num = 0;
  for (size_t i = 0; i < drained->under_way_num; i++)
    if (!inflight->ended[i])
      update_stall(inflight, drained, &drained->under_way[i], shares);
  if (!drained->all_rows || !drained->all_under_way)
    carry_over(inflight, drained);
  struct told *old = inflight->told;
  inflight->told = inflight->next;
  inflight->told_num = inflight->next_num;
  inflight->next = old;
}
