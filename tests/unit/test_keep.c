/* SPDX-License-Identifier: MIT */
#include "plugin/keep.h"
#include "tests/unit/intervals.h"
#include "tests/unit/tap.h"

static void add(struct interval *interval, const char *comm, const char *name,
                uint64_t stalls, uint64_t each_ns) {
  interval_add(interval, RECLAIM_DIRECT, comm, name, stalls, each_ns, 1);
  interval->rows[interval->num - 1].held = strcmp(name, "stranger") != 0;
}

static bool has(const struct keep *keep, const char *comm) {
  size_t num;
  const struct reclaim_row_key *keys = keep_keys(keep, &num);
  for (size_t i = 0; i < num; i++)
    if (strncmp(keys[i].comm, comm, RECLAIM_COMM_SIZE) == 0)
      return true;
  return false;
}

static size_t count(const struct keep *keep) {
  size_t num;
  keep_keys(keep, &num);
  return num;
}

static void update(struct keep *keep, struct interval *interval) {
  keep_update(keep, interval->rows, interval->num);
  interval->num = 0;
}

int main(void) {
  static struct interval interval;
  struct keep *keep = keep_new(40, 2);
  is_u64(count(keep), 0, "nothing is kept at first");

  add(&interval, "java", "java", 1, 5);
  add(&interval, "noise", "stranger", 1, 500);
  update(keep, &interval);
  ok(has(keep, "java"), "the comm of a name with series is kept");
  ok(!has(keep, "noise"), "that of others is not");

  add(&interval, "java", "java", 0, 0);
  add(&interval, "java", "java", 1, 5);
  add(&interval, "java", "java", 1, 5);
  update(keep, &interval);
  is_u64(count(keep), 1, "rows of one key are one");

  add(&interval, "java", "java", 1, 5);
  add(&interval, "waits", "waits", 0, 0);
  interval.keys[1].flags = RECLAIM_ROW_ALONE;
  update(keep, &interval);
  is_u64(count(keep), 1, "the share of a stall under way has no key to keep");

  for (int i = 0; i < 2; i++) {
    add(&interval, "java", "java", 0, 0);
    update(keep, &interval);
    ok(has(keep, "java"), "a comm without stalls is kept for a while");
  }
  add(&interval, "java", "java", 0, 0);
  update(keep, &interval);
  ok(!has(keep, "java"), "and given up after IdleIntervals");

  add(&interval, "java", "java", 1, 5);
  for (int i = 0; i < 30; i++) {
    char comm[16];
    snprintf(comm, sizeof(comm), "pool-%02d", i);
    add(&interval, comm, "pool", 1, i == 13 ? 900 : 10);
  }
  add(&interval, "sshd", "sshd", 1, 1);
  update(keep, &interval);
  is_u64(count(keep), 20, "half of the rows at most");
  ok(has(keep, "java") && has(keep, "sshd"),
     "a name of many comms leaves room for the others");
  ok(has(keep, "pool-13"), "and keeps its most stalled one");

  keep_free(keep);

  /* Two rows for four comms of one name. Empty rows are those kept before. */
  keep = keep_new(4, 9);
  const char *comms[] = {"d", "b", "c", "a"};
  for (int round = 0; round < 4; round++) {
    for (int i = 0; i < 4; i++)
      if (i == round || has(keep, comms[i]))
        add(&interval, comms[i], "n", i == round, 7);
    update(keep, &interval);
  }
  ok(has(keep, "a") && has(keep, "c"), "the latest to stall are kept");
  add(&interval, "c", "n", 0, 0);
  add(&interval, "a", "n", 0, 0);
  add(&interval, "z", "n", 1, 1);
  update(keep, &interval);
  ok(has(keep, "z") && has(keep, "a") && !has(keep, "c"),
     "and the one that is idle longest goes first");

  keep_free(keep);

  keep = keep_new(32, 3);
  for (int read = 0; read <= 4; read++) {
    for (int i = 0; i < 16; i++) {
      char comm[16];
      snprintf(comm, sizeof(comm), "k%02d", i * 7 % 16);
      if (read == 0 || has(keep, comm))
        add(&interval, comm, comm, read == 0, 1 + i * 5 % 16);
    }
    update(keep, &interval);
    if (read == 3)
      is_u64(count(keep), 16, "each key's idle intervals are remembered");
  }
  is_u64(count(keep), 0, "until there are too many");
  keep_free(keep);

  keep = keep_new(4, 9);
  interval_add(&interval, RECLAIM_DIRECT, "p", "n", 1, 5, 1);
  interval_add(&interval, RECLAIM_MEMCG, "q", "n", 1, 1, 1);
  interval_add(&interval, RECLAIM_DIRECT, "r", "n", 1, 3, 1);
  for (size_t i = 0; i < interval.num; i++)
    interval.rows[i].held = true;
  struct ledger_row middle = interval.rows[1];
  interval.rows[1] = interval.rows[2];
  interval.rows[2] = middle; /* sorted by kind */
  update(keep, &interval);
  ok(has(keep, "p") && has(keep, "q") && !has(keep, "r"),
     "a name has turns of its own in each kind");
  keep_free(keep);
  return done();
}
