/* SPDX-License-Identifier: MIT */
#include "plugin/snoop_sum.h"
#include "tests/unit/tap.h"

static struct reclaim_row_key key_of(const char *comm, uint32_t kind,
                                     uint32_t flags) {
  struct reclaim_row_key key = {.kind = kind, .flags = flags};
  memcpy(key.comm, comm, strnlen(comm, sizeof(key.comm)));
  return key;
}

static struct reclaim_row row_of(uint64_t stalls, uint64_t time_ns,
                                 size_t bucket) {
  struct reclaim_row row = {.stalls = stalls,
                            .time_ns = time_ns,
                            .pages = 10 * stalls,
                            .fruitless = 1,
                            .longest_ns = time_ns};
  row.buckets[bucket] = (uint32_t)stalls - 1; /* one is untimed */
  return row;
}

static const struct snoop_row *find(const struct snoop_sum *sum,
                                    const char *comm, uint32_t kind,
                                    bool others) {
  static const struct snoop_row none;
  for (size_t i = 0; i < sum->num; i++)
    if (strncmp(sum->rows[i].comm, comm, RECLAIM_COMM_SIZE) == 0 &&
        sum->rows[i].kind == kind && sum->rows[i].others == others)
      return &sum->rows[i];
  return &none;
}

static void test_adding(void) {
  struct snoop_sum sum = {0};
  struct reclaim_row_key keys[] = {
      key_of("dd", RECLAIM_MEMCG, 0),
      key_of("dd", RECLAIM_DIRECT, 0),
      key_of("dd", RECLAIM_MEMCG, RECLAIM_ROW_KTHREAD),
      key_of("cat", RECLAIM_MEMCG, 0),
      key_of("", RECLAIM_MEMCG, RECLAIM_ROW_OVERFLOW),
      key_of("", RECLAIM_MEMCG, 0),
  };
  struct reclaim_row rows[] = {row_of(3, 20200, 0), row_of(5, 30000, 2),
                               row_of(4, 200, 1),   {0},
                               row_of(7, 1, 0),     row_of(2, 2, 0)};
  snoop_sum_add(&sum, keys, rows, 6);
  is_u64(sum.num, 4, "a row per comm and kind, none without stalls");
  const struct snoop_row *dd = find(&sum, "dd", RECLAIM_MEMCG, false);
  is_u64(dd->stalls, 7, "a kernel thread of the same name is added");
  is_u64(dd->time_ns, 20400, "its time");
  is_u64(dd->pages, 70, "pages");
  is_u64(dd->fruitless, 2, "and fruitless stalls");
  ok(dd->buckets[0] == 2 && dd->buckets[1] == 3, "bucket by bucket");
  is_u64(dd->longest_ns, 20200, "the longest of both is kept");
  is_u64(find(&sum, "dd", RECLAIM_DIRECT, false)->longest_ns, 30001,
         "the longest is at least what its bucket says");
  is_u64(find(&sum, "", RECLAIM_MEMCG, true)->stalls, 7,
         "what overflowed is a row of its own");
  is_u64(find(&sum, "", RECLAIM_MEMCG, false)->stalls, 2,
         "apart from an empty comm");
  is_u64(snoop_sum_stalls(&sum), 21, "all stalls add up");
  is_u64(snoop_sum_untimed(&sum), 5, "so do those of unknown time");

  struct snoop_sum whole = {0};
  snoop_sum_merge(&whole, &sum);
  snoop_sum_merge(&whole, &sum);
  is_u64(whole.num, 4, "sums are merged row by row");
  is_u64(find(&whole, "dd", RECLAIM_MEMCG, false)->stalls, 14, "and added");
  snoop_sum_sort(&whole);
  ok(whole.rows[0].kind == RECLAIM_DIRECT && whole.rows[0].time_ns == 60000 &&
         whole.rows[1].time_ns == 40800 && whole.rows[3].time_ns == 2,
     "sorted, the most time comes first");
  snoop_sum_clear(&whole);
  is_u64(snoop_sum_stalls(&whole), 0, "a cleared sum is empty");
  snoop_sum_sort(&whole);
  snoop_sum_add(&whole, NULL, NULL, 0);
  is_u64(whole.num, 0, "nothing added is nothing");
  snoop_sum_clear(&whole);
  snoop_sum_clear(&sum);
}

/* 100,000 comms in the kernel's order, of which the last have most time. */
static void test_bound(void) {
  struct snoop_sum sum = {0};
  for (uint64_t i = 0; i < 100000; i += 1000) {
    struct reclaim_row_key keys[1000];
    struct reclaim_row rows[1000];
    for (uint64_t j = 0; j < 1000; j++) {
      char comm[16];
      snprintf(comm, sizeof(comm), "w%06" PRIu64, i + j);
      keys[j] = key_of(comm, RECLAIM_MEMCG, 0);
      rows[j] = row_of(1, i + j, 0);
    }
    snoop_sum_add(&sum, keys, rows, 1000);
  }
  ok(sum.num <= SNOOP_ROWS_MAX, "the number of rows is bounded");
  is_u64(snoop_sum_stalls(&sum), 100000, "no stall is lost by that");
  is_u64(find(&sum, "w099999", RECLAIM_MEMCG, false)->stalls, 1,
         "who has most time keeps the row");
  ok(find(&sum, "", RECLAIM_MEMCG, true)->stalls > 30000,
     "who has least is among the others");
  snoop_sum_clear(&sum);
}

int main(void) {
  test_adding();
  test_bound();
  return done();
}
