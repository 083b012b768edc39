/* SPDX-License-Identifier: MIT */
/* Stalls under way: threads stall, and stall again, through tables as the
 * kernel side fills them; at each read each ns of each stall was told once. */
#include "plugin/inflight.h"
#include "plugin/kind.h"
#include "tests/fuzz/fuzz.h"

#define THREADS 4
#define ROWS_MAX 64
#define READS_MAX 64

struct thread {
  uint64_t begin_ns, end_ns; /* of the stall under way, or the next one */
  enum reclaim_kind kind;
  uint64_t ended_ns, ended; /* of all stalls that ended */
  uint64_t told_ns, told;   /* by rows and shares */
};

static struct thread threads[THREADS];
static size_t seen_max; /* stalls under way that a look can tell of */

/* One closed table, and what was seen at its end. */
static struct reclaim_row_key keys[ROWS_MAX];
static struct reclaim_row rows[ROWS_MAX];
static struct bpf_source_under_way under_way[THREADS];
static struct bpf_source_rows table;

static void plan(struct input *input, struct thread *thread) {
  uint8_t how = take_byte(input);
  uint64_t lasts = how & 1 ? take_byte(input) : take_one_of(input, 65536);
  thread->begin_ns = thread->end_ns + 1 + (how >> 2);
  thread->end_ns = thread->begin_ns + lasts;
}

static void count_stall(uint32_t number, bool alone, uint64_t ns) {
  struct reclaim_row_key key = {.kind = threads[number].kind};
  key.comm[0] = (char)number;
  key.comm[1] = 't';
  if (alone)
    key.flags = RECLAIM_ROW_ALONE | number << RECLAIM_ROW_PLACE_SHIFT;
  size_t at = 0;
  while (at < table.num && memcmp(&keys[at], &key, sizeof(key)) != 0)
    at++;
  if (at == table.num) {
    keys[table.num++] = key;
    rows[at] = (struct reclaim_row){.stalls = 0};
  }
  rows[at].stalls++;
  rows[at].time_ns += ns;
  if (ns > rows[at].longest_ns)
    rows[at].longest_ns = ns;
}

/* A look at the thread finds no stall that has ended by then. */
static void see(uint32_t number, uint64_t looked_ns) {
  const struct thread *thread = &threads[number];
  if (table.under_way_num == seen_max)
    return;
  struct bpf_source_under_way *stall = &under_way[table.under_way_num++];
  *stall =
      (struct bpf_source_under_way){.kind = thread->kind,
                                    .place = number,
                                    .tid = number,
                                    .begin_ns = thread->begin_ns,
                                    .confirmed = thread->end_ns >= looked_ns};
  if (stall->confirmed) {
    stall->key.comm[0] = (char)number;
    stall->key.comm[1] = 't';
  }
}

/* What happens from `before_ns`, when the table was opened, until it is closed:
 * some time behind its interval's end. */
static void fill_table(struct input *input, uint64_t before_ns,
                       uint64_t opened_ns, uint64_t closing_ns) {
  uint64_t looked_ns = opened_ns + take_byte(input) % (closing_ns + 1);
  table = (struct bpf_source_rows){.keys = keys,
                                   .rows = rows,
                                   .all_rows = true,
                                   .opened_ns = opened_ns,
                                   .under_way = under_way};
  for (uint32_t i = 0; i < THREADS; i++) {
    struct thread *thread = &threads[i];
    bool seen = false;
    for (; thread->end_ns < opened_ns + closing_ns && table.num < ROWS_MAX;
         plan(input, thread)) {
      uint64_t ns = thread->end_ns - thread->begin_ns;
      uint64_t marked_ns = thread->end_ns <= opened_ns ? before_ns : opened_ns;
      count_stall(i, thread->begin_ns < marked_ns, ns);
      thread->ended_ns += ns;
      thread->ended++;
      if (thread->begin_ns < opened_ns && thread->end_ns > opened_ns) {
        see(i, looked_ns);
        seen = true;
      }
    }
    if (thread->begin_ns < opened_ns && !seen)
      see(i, looked_ns);
  }
  table.all_under_way = table.under_way_num < seen_max;
}

static void hear(const struct bpf_source_rows *drained,
                 const struct inflight_shares *shares) {
  for (size_t i = 0; i < drained->num; i++) {
    struct thread *thread = &threads[(size_t)drained->keys[i].comm[0]];
    MUST(!(drained->keys[i].flags & RECLAIM_ROW_ALONE));
    thread->told_ns += drained->rows[i].time_ns;
    thread->told += drained->rows[i].stalls;
  }
  uint64_t pending = 0;
  for (size_t i = 0; i < shares->num; i++) {
    struct thread *thread = &threads[(size_t)shares->keys[i].comm[0]];
    MUST(shares->keys[i].flags & RECLAIM_ROW_ALONE);
    MUST(shares->rows[i].stalls == 0);
    MUST(shares->rows[i].time_ns <= shares->rows[i].longest_ns);
    MUST(shares->rows[i].longest_ns <= shares->oldest_ns[shares->keys[i].kind]);
    thread->told_ns += shares->rows[i].time_ns;
  }
  for (size_t kind = 0; kind < RECLAIM_KINDS; kind++)
    pending += shares->pending[kind];
  MUST(pending == shares->num);
}

static void check_told(uint64_t opened_ns, bool complete) {
  for (size_t i = 0; i < THREADS; i++) {
    const struct thread *thread = &threads[i];
    uint64_t true_ns =
        thread->ended_ns +
        (thread->begin_ns < opened_ns ? opened_ns - thread->begin_ns : 0);
    MUST(thread->told_ns <= true_ns && thread->told <= thread->ended);
    MUST(!complete ||
         (thread->told_ns == true_ns && thread->told == thread->ended));
  }
}

/* Some of the rows at first, the others with the same stalls later. Where not
 * all stalls are looked at, time is told late: the row of one that nobody
 * looked at may be taken for that of the stall behind it, which is told of when
 * it ends, or at the next read. (If that comes with late rows, it is taken
 * off.) */
static void read_table(struct inflight *inflight, size_t first) {
  struct inflight_shares shares;
  struct bpf_source_rows part = table;
  if (first < table.num && seen_max > THREADS) {
    part.num = first;
    part.all_rows = false;
    inflight_update(inflight, &part, &shares);
    hear(&part, &shares);
    check_told(table.opened_ns, false);
    part.keys += first;
    part.rows += first;
    part.num = table.num - first;
    part.all_rows = true;
  }
  inflight_update(inflight, &part, &shares);
  hear(&part, &shares);
  check_told(table.opened_ns, seen_max > THREADS);
}

/* Of megabytes, so that it is not made for each input: a table without stalls
 * makes it forget. */
static struct inflight *empty_inflight(void) {
  static struct inflight *inflight;
  struct inflight_shares shares;
  if (!inflight)
    inflight = inflight_new();
  table = (struct bpf_source_rows){.all_rows = true, .all_under_way = true};
  inflight_update(inflight, &table, &shares);
  return inflight;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct input input = {data, size};
  seen_max = 1 + take_one_of(&input, THREADS + 4);
  uint64_t opened_ns = 0, closing_ns = 1 + take_byte(&input);
  for (size_t i = 0; i < THREADS; i++) {
    threads[i] = (struct thread){
        .kind = take_bool(&input) ? RECLAIM_MEMCG : RECLAIM_MEMCG_PROACTIVE};
    plan(&input, &threads[i]);
  }
  struct inflight *inflight = empty_inflight();
  for (size_t read = 0; read < READS_MAX && input.left > 0; read++) {
    uint64_t before_ns = opened_ns;
    opened_ns += closing_ns + 1 + take_one_of(&input, 1024);
    fill_table(&input, before_ns, opened_ns, closing_ns);
    read_table(inflight, take_one_of(&input, 2 * ROWS_MAX));
  }
  return 0;
}
