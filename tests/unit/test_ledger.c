/* SPDX-License-Identifier: MIT */
#include "tests/unit/intervals.h"
#include "tests/unit/tap.h"

static const struct ledger_options defaults = {
    .kinds = {[RECLAIM_DIRECT] = true, [RECLAIM_MEMCG] = true},
    .max_names = 20,
    .idle_intervals = 30,
    .new_names_per_hour = 20,
    .max_rows = MAX_ROWS,
    .selects = selects_all,
};

/* A ledger and the interval that is being filled for it. */
struct bench {
  struct ledger *ledger;
  struct interval interval;
  uint64_t now_ns;
};

static struct bench *bench_new(const struct ledger_options *options) {
  struct bench *bench = calloc(1, sizeof(*bench));
  bench->ledger = ledger_new(options);
  bench->now_ns = 1000 * SECOND;
  return bench;
}

static void bench_free(struct bench *bench) {
  ledger_free(bench->ledger);
  free(bench);
}

static void stall(struct bench *bench, const char *name, uint64_t stalls,
                  uint64_t each_ns) {
  interval_add(&bench->interval, RECLAIM_DIRECT, name, name, stalls, each_ns,
               32);
}

static void read_after(struct bench *bench, uint64_t elapsed_ns) {
  bench->now_ns += elapsed_ns;
  ledger_add_interval(bench->ledger, bench->interval.rows, bench->interval.num,
                      bench->now_ns);
  bench->interval.num = 0;
}

static void read_now(struct bench *bench) { read_after(bench, 10 * SECOND); }

static const struct ledger_series *named(const struct bench *bench,
                                         const char *name) {
  return find_series(bench->ledger, RECLAIM_DIRECT, LEDGER_NAME, name);
}

static const struct ledger_series *total(const struct bench *bench) {
  return find_series(bench->ledger, RECLAIM_DIRECT, LEDGER_TOTAL, "");
}

static const struct ledger_series *other(const struct bench *bench) {
  return find_series(bench->ledger, RECLAIM_DIRECT, LEDGER_OTHER, "");
}

static void test_totals_and_births(void) {
  struct bench *bench = bench_new(&defaults);
  read_now(bench);
  size_t num;
  ledger_series(bench->ledger, &num);
  is_u64(num, 2, "a calm host has the totals of its kinds and nothing else");
  ok(total(bench)->newborn, "a total starts from 0 at the first read");
  ok(ledger_health(bench->ledger).newborn, "so do the health counters");
  ok(find_series(bench->ledger, RECLAIM_NODE, LEDGER_TOTAL, "") == NULL,
     "a kind that is off has no total");

  stall(bench, "java", 3, 2 * MS);
  read_now(bench);
  ok(named(bench, "java")->newborn, "a name is newborn at its first stall");
  is_u64(named(bench, "java")->sum.stalls, 3,
         "its first share is in its own series");
  ok(!total(bench)->newborn, "the total is not born again");
  ok(other(bench) == NULL, "_other is not born without need");

  read_now(bench);
  ok(!named(bench, "java")->newborn, "a name is newborn for one read");
  is_u64(named(bench, "java")->sum.stalls, 3, "and keeps its counter");
  is_u64(named(bench, "java")->interval.stalls, 0, "a calm interval is empty");
  is_u64(named(bench, "java")->longest_ns, 0, "and has no longest stall");
  bench_free(bench);
}

static void test_merging(void) {
  struct bench *bench = bench_new(&defaults);
  interval_add(&bench->interval, RECLAIM_DIRECT, "a.b", "a_b", 1, 5 * MS, 7);
  interval_add(&bench->interval, RECLAIM_DIRECT, "a:b", "a_b", 2, 3 * MS, 0);
  read_now(bench);
  size_t num;
  ledger_series(bench->ledger, &num);
  is_u64(num, 3, "comms that become one name have one series");
  const struct ledger_series *series = named(bench, "a_b");
  is_u64(series->sum.stalls, 3, "their stalls are added");
  is_u64(series->sum.time_ns, 11 * MS, "so is their time");
  is_u64(series->sum.pages, 7, "so are their pages");
  is_u64(series->sum.fruitless, 2, "so are their fruitless stalls");
  is_u64(series->longest_ns, 5 * MS, "the longest is the longest of both");
  bench_free(bench);
}

static void test_longest_is_at_least_its_bucket(void) {
  struct bench *bench = bench_new(&defaults);
  struct reclaim_row *row =
      interval_add(&bench->interval, RECLAIM_DIRECT, "a", "a", 1, 5 * MS, 7);
  row->longest_ns = 1; /* the kernel side lost a race */
  read_now(bench);
  is_u64(named(bench, "a")->longest_ns, 3 * MS + 1,
         "a lost maximum is made good from the histogram");
  bench_free(bench);
}

static void test_overflow_and_untimed(void) {
  struct bench *bench = bench_new(&defaults);
  read_now(bench);
  interval_add_overflow(&bench->interval, RECLAIM_DIRECT, 4, 2 * MS, 9);
  struct reclaim_row *row =
      interval_add(&bench->interval, RECLAIM_DIRECT, "a", "a", 2, 1 * MS, 7);
  row->stalls += 5; /* five that have no begin time */
  read_now(bench);
  is_u64(total(bench)->sum.stalls, 11, "overflowed stalls are in the total");
  is_u64(other(bench)->sum.stalls, 4, "and in _other");
  ok(other(bench)->newborn, "_other is newborn like a name");
  ok(named(bench, "unknown") == NULL, "and under no name");
  is_u64(ledger_health(bench->ledger).unattributed, 4, "and in unattributed");
  is_u64(ledger_health(bench->ledger).untimed, 5,
         "stalls without a time are in untimed");
  is_u64(ledger_health(bench->ledger).rows, 2, "both rows are counted");
  interval_add(&bench->interval, RECLAIM_DIRECT, "z", "z", 0, 0, 0);
  interval_add_overflow(&bench->interval, RECLAIM_MEMCG, 0, 0, 0);
  read_now(bench);
  ok(named(bench, "z") == NULL, "a row without stalls bears no name");
  is_u64(ledger_health(bench->ledger).rows, 0, "nor is it counted");
  ok(find_series(bench->ledger, RECLAIM_MEMCG, LEDGER_OTHER, "") == NULL,
     "an empty overflow row bears no _other");
  is_u64(other(bench)->sum.stalls, 4, "_other stays");
  bench_free(bench);
}

/* The share of a stall that has not ended. */
static void share(struct bench *bench, const char *name, uint64_t ns) {
  struct reclaim_row *row =
      interval_add(&bench->interval, RECLAIM_DIRECT, name, name, 0, 0, 0);
  row->time_ns = row->longest_ns = ns;
}

static void fill_places(struct bench *bench, size_t names, uint64_t each_ns) {
  for (size_t i = 0; i < names; i++) {
    char name[16];
    snprintf(name, sizeof(name), "busy%zu", i);
    stall(bench, name, 1, each_ns);
  }
}

static void test_places(void) {
  struct bench *bench = bench_new(&defaults);
  fill_places(bench, 25, 10 * MS);
  stall(bench, "zz-heavy", 1, 50 * MS);
  read_now(bench);
  is_u64(ledger_health(bench->ledger).names, 20, "MaxNames names have series");
  ok(named(bench, "zz-heavy"), "the largest stall time comes first");
  is_u64(other(bench)->sum.stalls, 6, "the rest is in _other");
  bench_free(bench);
}

static void test_stalls_under_way(void) {
  struct bench *bench = bench_new(&defaults);
  stall(bench, "java", 1, MS);
  stall(bench, "java", 1, MS);
  stall(bench, "sshd", 1, MS);
  read_now(bench);
  is_u64(ledger_health(bench->ledger).rows, 2,
         "a stall with a row of its own is no other comm");
  stall(bench, "java", 0, 0);
  stall(bench, "java", 1, MS);
  read_now(bench);
  is_u64(ledger_health(bench->ledger).rows, 1,
         "beside an empty row that waited for its comm it is counted");
  bench_free(bench);
  bench = bench_new(&defaults);
  read_now(bench);
  share(bench, "java", 10 * SECOND);
  read_now(bench);
  ok(named(bench, "java") && named(bench, "java")->newborn,
     "a stall under way bears a name");
  is_u64(named(bench, "java")->sum.time_ns, 10 * SECOND, "with its time");
  is_u64(named(bench, "java")->longest_ns, 10 * SECOND, "and age");
  is_u64(named(bench, "java")->sum.stalls, 0, "but without a stall");
  is_u64(total(bench)->sum.time_ns, 10 * SECOND, "its time is in the total");
  is_u64(ledger_health(bench->ledger).rows, 0, "it is no row of the kernel's");
  is_u64(ledger_health(bench->ledger).untimed, 0, "and not untimed");
  share(bench, "java", 10 * SECOND);
  bench->interval.counts[0].time_ns = 0; /* all was told already */
  read_now(bench);
  ok(named(bench, "java")->longest_ns == 10 * SECOND &&
         total(bench)->longest_ns == 10 * SECOND,
     "also in the rest of an interval it is the longest, of name and total");
  for (int i = 0; i < 40; i++) {
    fill_places(bench, 19, 1 * MS);
    share(bench, "java", 10 * SECOND);
    read_now(bench);
  }
  stall(bench, "new", 1, 1 * MS);
  share(bench, "newer", 1);
  read_now(bench);
  ok(named(bench, "java") && !named(bench, "new"),
     "a name is not idle while it stalls");
  is_u64(other(bench)->sum.time_ns, 1 * MS + 1,
         "without a place, the share is in _other");
  bench_free(bench);
}

static void test_idle_names_make_room(void) {
  struct ledger_options options = defaults;
  options.max_names = 2;
  options.idle_intervals = 3;
  options.new_names_per_hour = 100000;
  struct bench *bench = bench_new(&options);
  stall(bench, "a", 1, 10 * MS);
  stall(bench, "b", 1, 10 * MS);
  read_now(bench);
  stall(bench, "b", 1, 10 * MS);
  read_now(bench);
  for (int i = 0; i < 100; i++)
    read_now(bench);
  ok(named(bench, "a") && named(bench, "b"), "nobody ends without need");
  stall(bench, "c", 1, 1);
  read_now(bench);
  ok(!named(bench, "a") && named(bench, "b") && named(bench, "c"),
     "a newcomer takes the place of the one idle longest");
  stall(bench, "d", 1, 1);
  stall(bench, "c", 1, 1);
  read_now(bench);
  ok(!named(bench, "b") && named(bench, "d"), "then of the next");
  stall(bench, "e", 1, 1);
  read_now(bench);
  ok(!named(bench, "e") && named(bench, "c") && named(bench, "d"),
     "but not of one that stalled within IdleIntervals");
  is_u64(other(bench)->sum.stalls, 1, "and stays in _other");

  for (int i = 0; i < 5; i++)
    read_now(bench);
  stall(bench, "a", 2, 1);
  read_now(bench);
  is_u64(named(bench, "a")->sum.stalls, 2, "a name born again starts from 0");
  ok(named(bench, "a")->newborn, "and is newborn again");
  is_u64(other(bench)->sum.stalls, 1, "_other does not go down");
  bench_free(bench);
}

/* Whether the one holder makes room for a newcomer at its `idle`th read without
 * a stall, with IdleIntervals 3. */
static bool makes_room_at(int idle) {
  struct ledger_options options = defaults;
  options.max_names = 1;
  options.idle_intervals = 3;
  options.new_names_per_hour = 100000;
  struct bench *bench = bench_new(&options);
  stall(bench, "holder", 1, 10 * MS);
  read_now(bench);
  for (int i = 1; i < idle; i++)
    read_now(bench);
  stall(bench, "newcomer", 1, 1);
  read_now(bench);
  bool made_room = named(bench, "newcomer") != NULL;
  bench_free(bench);
  return made_room;
}

static void test_idle_intervals(void) {
  ok(!makes_room_at(2), "a name may not end before IdleIntervals");
  ok(makes_room_at(3), "but after them");
}

/* Reads until a late-comer has a series while it stalls 100 ms and the 20
 * holders `busy_ms` in each interval; 0 if that takes more than ten. */
static int reads_until_named(uint64_t busy_ms) {
  struct bench *bench = bench_new(&defaults);
  for (int i = 0; i < 5; i++) {
    fill_places(bench, 20, busy_ms * MS);
    read_now(bench);
  }
  int reads = 0;
  for (int i = 1; i <= 10 && reads == 0; i++) {
    fill_places(bench, 20, busy_ms * MS);
    stall(bench, "culprit", 1, 100 * MS);
    read_now(bench);
    if (named(bench, "culprit"))
      reads = i;
  }
  is_u64(ledger_health(bench->ledger).names, 20, "names stay within MaxNames");
  bench_free(bench);
  return reads;
}

static void test_the_culprit_is_never_hidden(void) {
  int reads = reads_until_named(10);
  ok(reads >= 1 && reads <= 4,
     "a heavy late-comer among 20 busy names is named within 4 reads");
  is_u64(reads_until_named(40), 3,
         "one of 2.5 times the smallest is named at its third read");
  is_u64(reads_until_named(60), 0,
         "one of less than twice the smallest is not");
}

static void test_the_displaced_go_to_other(void) {
  struct ledger_options options = defaults;
  options.max_names = 1;
  struct bench *bench = bench_new(&options);
  stall(bench, "small", 5, 1 * MS);
  read_now(bench);
  read_now(bench);
  stall(bench, "small", 3, 1 * MS);
  stall(bench, "big", 1, 100 * MS);
  read_after(bench, HOUR);
  ok(named(bench, "big") && !named(bench, "small"), "the bigger displaces");
  is_u64(other(bench)->interval.stalls, 3,
         "what the displaced did in that interval is in _other");
  bench_free(bench);
}

/* What a new series did first is dispatched one read late. */
static void test_newborns_are_not_displaced(void) {
  struct ledger_options options = defaults;
  options.max_names = 1;
  struct bench *bench = bench_new(&options);
  stall(bench, "small", 5, 1 * MS);
  read_now(bench);
  stall(bench, "big", 1, 100 * MS);
  read_now(bench);
  ok(named(bench, "small") && !named(bench, "small")->newborn &&
         named(bench, "small")->sum.stalls == 5,
     "a name keeps its place until its first share was dispatched");
  stall(bench, "big", 1, 100 * MS);
  read_now(bench);
  ok(named(bench, "big"), "and is displaced then");
  bench_free(bench);
}

static void test_empty_rows_of_the_displaced(void) {
  struct ledger_options options = defaults;
  options.max_names = 1;
  struct bench *bench = bench_new(&options);
  stall(bench, "small", 5, 1 * MS);
  read_now(bench);
  read_now(bench);
  stall(bench, "big", 1, 100 * MS);
  stall(bench, "small", 0, 0); /* its row was kept */
  read_now(bench);
  ok(named(bench, "big") && !other(bench),
     "a displaced name that did not stall bears no _other");
  bench_free(bench);
}

static void test_each_set_of_kinds(void) {
  for (unsigned set = 1; set < 1U << RECLAIM_KINDS; set++) {
    struct ledger_options options = defaults;
    for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++)
      options.kinds[kind] = set & 1U << kind;
    struct bench *bench = bench_new(&options);
    for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++) {
      interval_add_overflow(&bench->interval, kind, 0, 0, 0);
      interval_add(&bench->interval, kind, "a", "a", kind + 1, MS, 1);
    }
    read_now(bench);
    bool right = true;
    for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++) {
      const struct ledger_series *sum =
          find_series(bench->ledger, kind, LEDGER_TOTAL, "");
      right = right &&
              (options.kinds[kind] ? sum && sum->sum.stalls == kind + 1 : !sum);
    }
    ok(right, "set %u of kinds counts its own and nothing else", set);
    bench_free(bench);
  }
}

/* Who is idle, but not yet for IdleIntervals. */
static void test_the_idle_are_not_pushed_about(void) {
  struct ledger_options options = defaults;
  options.max_names = 1;
  struct bench *bench = bench_new(&options);
  stall(bench, "java", 1, 10 * SECOND);
  for (int i = 0; i < 10; i++)
    read_now(bench);
  stall(bench, "ls", 1, 1);
  read_now(bench);
  ok(named(bench, "java") && !named(bench, "ls"),
     "a short stall does not end a heavy name that is idle");
  for (int i = 0; i < 3; i++) {
    stall(bench, "leak", 1, 1 * MS);
    read_now(bench);
  }
  ok(named(bench, "leak"), "who stalls all the time takes its place");
  for (int i = 0; i < 10; i++)
    read_now(bench);
  stall(bench, "burst", 1, 100 * SECOND);
  read_now(bench);
  ok(named(bench, "burst"), "and so does one of more than twice its weight");
  bench_free(bench);
}

static void test_intermittent_names_do_not_alternate(void) {
  struct bench *bench = bench_new(&defaults);
  size_t births = 0;
  for (int i = 0; i < 600; i++) {
    char name[16];
    for (int n = i % 6; n < 30; n += 6) { /* each once in six reads */
      snprintf(name, sizeof(name), "n%d", n);
      stall(bench, name, 1, 10 * MS);
    }
    read_now(bench);
    for (int n = 0; n < 30; n++) {
      snprintf(name, sizeof(name), "n%d", n);
      births += named(bench, name) && named(bench, name)->newborn;
    }
  }
  is_u64(births, 20, "30 equal names that stall now and then stay as they are");
  bench_free(bench);
}

static void test_names_known_are_bounded(void) {
  struct ledger_options options = defaults;
  options.max_names = 1;
  options.idle_intervals = 2;
  options.new_names_per_hour = 100000;
  options.max_rows = 4;
  struct bench *bench = bench_new(&options);
  for (int i = 0; i < 500; i++) {
    char name[16];
    snprintf(name, sizeof(name), "n%03d", i * 7 % 500);
    stall(bench, name, 1, MS);
    for (int r = 0; r < 4; r++)
      read_now(bench);
  }
  is_u64(total(bench)->sum.stalls, 500,
         "no more ended names than there is "
         "room for are known");
  bench_free(bench);
}

static void test_several_displace_at_once(void) {
  struct ledger_options options = defaults;
  options.max_names = 3;
  options.new_names_per_hour = 100000;
  struct bench *bench = bench_new(&options);
  stall(bench, "s1", 1, 1 * MS);
  stall(bench, "s2", 1, 2 * MS);
  stall(bench, "s3", 1, 90 * MS);
  read_now(bench);
  read_now(bench);
  stall(bench, "c1", 1, 300 * MS);
  stall(bench, "c2", 1, 200 * MS);
  stall(bench, "c3", 1, 100 * MS);
  read_now(bench);
  ok(named(bench, "c1") && named(bench, "c2") && named(bench, "s3"),
     "several culprits displace the smallest, each another");
  is_u64(other(bench)->sum.stalls, 1, "and who is not twice as big waits");
  bench_free(bench);
}

static void test_births_cost(void) {
  struct ledger_options options = defaults;
  options.max_names = 3;
  options.idle_intervals = 2;
  options.new_names_per_hour = 4;
  struct bench *bench = bench_new(&options);
  char name[16];
  size_t births = 0;
  /* A new name each second, for two hours. */
  for (int i = 0; i < 7200; i++) {
    snprintf(name, sizeof(name), "n%d", i);
    stall(bench, name, 1, 1 * MS);
    read_after(bench, SECOND);
    births += named(bench, name) != NULL;
  }
  /* 3 at once, then one each 900 s; 7,199 s have passed since the first. */
  is_u64(births, 3 + 7, "births: MaxNames at once, NewNamesPerHour then");
  is_u64(total(bench)->sum.stalls, 7200, "and no stall is lost");
  bench_free(bench);
}

static void test_the_known_come_back_for_free(void) {
  struct ledger_options options = defaults;
  options.max_names = 1;
  options.idle_intervals = 2;
  options.new_names_per_hour = 1;
  struct bench *bench = bench_new(&options);
  stall(bench, "a", 1, 1 * MS);
  read_now(bench);
  read_now(bench);
  stall(bench, "b", 1, 1 * MS);
  read_now(bench);
  ok(!named(bench, "b"), "no token, no birth");
  stall(bench, "b", 1, 1 * MS);
  read_after(bench, HOUR);
  ok(named(bench, "b"), "a token an hour later");
  for (int i = 0; i < 3; i++)
    read_now(bench);
  stall(bench, "a", 1, 1 * MS);
  read_now(bench);
  ok(named(bench, "a"), "a name seen within the day needs no token");
  for (int i = 0; i < 3; i++)
    read_now(bench);
  stall(bench, "c", 1, 1 * MS);
  read_after(bench, 25 * HOUR);
  ok(named(bench, "c"), "a day later there is a token for a new name");
  for (int i = 0; i < 3; i++)
    read_now(bench);
  stall(bench, "b", 1, 1 * MS);
  read_now(bench);
  ok(!named(bench, "b"), "but none for one forgotten after a day");
  bench_free(bench);
}

static bool no_z(void *context, const char *name) {
  size_t *asked = context;
  ++*asked;
  return name[0] != 'z';
}

static void test_selection(void) {
  size_t asked = 0;
  struct ledger_options options = defaults;
  options.selects = no_z;
  options.selects_context = &asked;
  struct bench *bench = bench_new(&options);
  for (int i = 0; i < 5; i++) {
    stall(bench, "zebra", 1, 900 * MS);
    stall(bench, "ant", 1, 1 * MS);
    read_now(bench);
  }
  ok(named(bench, "ant") && !named(bench, "zebra"),
     "names that are not selected have no series");
  is_u64(other(bench)->sum.stalls, 5, "their stalls are in _other");
  is_u64(total(bench)->sum.stalls, 10, "and in the total");
  is_u64(asked, 2, "each name is matched once");
  bench_free(bench);
}

/* Random rows against what must always hold */

static uint64_t random_state;

static uint64_t random_below(uint64_t limit) {
  random_state = random_state * 6364136223846793005ULL + 1442695040888963407ULL;
  return (random_state >> 33) % limit;
}

static void random_interval(struct interval *interval) {
  size_t num = random_below(200);
  interval->num = 0;
  for (size_t i = 0; i < num; i++) {
    enum reclaim_kind kind = random_below(2) ? RECLAIM_DIRECT : RECLAIM_MEMCG;
    uint64_t each_ns = 1 + random_below(1ULL << random_below(36));
    uint64_t stalls = random_below(50), pages = random_below(3) * 32;
    if (random_below(40) == 0) {
      interval_add_overflow(interval, kind, stalls, each_ns, pages);
      continue;
    }
    char comm[16], name[16];
    uint64_t who = random_below(4) ? random_below(12) : random_below(5000);
    snprintf(name, sizeof(name), "n%d", (int)who);
    snprintf(comm, sizeof(comm), "n%d-%d", (int)who, (int)random_below(4));
    interval_add(interval, kind, comm, name, stalls, each_ns, pages);
  }
}

static void add_counts(struct ledger_counts *sum,
                       const struct ledger_counts *part) {
  sum->stalls += part->stalls;
  sum->time_ns += part->time_ns;
  sum->pages += part->pages;
  sum->fruitless += part->fruitless;
  for (size_t i = 0; i < RECLAIM_BUCKETS; i++)
    sum->buckets[i] += part->buckets[i];
}

static struct ledger_counts rows_of_kind(const struct interval *interval,
                                         enum reclaim_kind kind) {
  struct ledger_counts sum = {0};
  for (size_t i = 0; i < interval->num; i++) {
    const struct reclaim_row *row = &interval->counts[i];
    if (interval->keys[i].kind != kind)
      continue;
    sum.stalls += row->stalls;
    sum.time_ns += row->time_ns;
    sum.pages += row->pages;
    sum.fruitless += row->fruitless;
    for (size_t b = 0; b < RECLAIM_BUCKETS; b++)
      sum.buckets[b] += row->buckets[b];
  }
  return sum;
}

static bool same_counts(const struct ledger_counts *a,
                        const struct ledger_counts *b) {
  return memcmp(a, b, sizeof(*a)) == 0;
}

/* Names and _other of `kind` add up to its total, and that to the rows. */
static bool sums_hold(const struct ledger *ledger,
                      const struct interval *interval, enum reclaim_kind kind) {
  struct ledger_counts parts = {0}, whole = rows_of_kind(interval, kind);
  size_t num;
  const struct ledger_series *const *series = ledger_series(ledger, &num);
  for (size_t i = 0; i < num; i++)
    if (series[i]->kind == kind && series[i]->scope != LEDGER_TOTAL)
      add_counts(&parts, &series[i]->interval);
  const struct ledger_series *all = find_series(ledger, kind, LEDGER_TOTAL, "");
  return same_counts(&parts, &whole) && same_counts(&all->interval, &whole);
}

/* Each series went on from where it was, and newborns from 0. */
static bool counters_go_on(const struct ledger *ledger,
                           const struct ledger_series *before,
                           size_t before_num) {
  size_t num;
  const struct ledger_series *const *series = ledger_series(ledger, &num);
  for (size_t i = 0; i < num; i++) {
    struct ledger_counts wanted = {0};
    for (size_t b = 0; b < before_num && !series[i]->newborn; b++)
      if (before[b].kind == series[i]->kind &&
          strcmp(before[b].name, series[i]->name) == 0)
        wanted = before[b].sum;
    add_counts(&wanted, &series[i]->interval);
    if (!same_counts(&wanted, &series[i]->sum))
      return false;
  }
  return true;
}

static size_t copy_series(const struct ledger *ledger,
                          struct ledger_series *copies) {
  size_t num;
  const struct ledger_series *const *series = ledger_series(ledger, &num);
  for (size_t i = 0; i < num; i++)
    copies[i] = *series[i];
  return num;
}

static bool in_order(const struct ledger_series *series, size_t num) {
  for (size_t i = 1; i < num; i++) {
    const struct ledger_series *a = &series[i - 1], *b = &series[i];
    if (a->kind > b->kind || (a->kind == b->kind && a->scope > b->scope) ||
        (a->kind == b->kind && a->scope == LEDGER_NAME &&
         b->scope == LEDGER_NAME && strcmp(a->name, b->name) >= 0))
      return false;
  }
  return true;
}

static void test_random_intervals(void) {
  struct ledger_options options = defaults;
  options.max_names = 7;
  options.idle_intervals = 4;
  options.new_names_per_hour = 500;
  struct bench *bench = bench_new(&options);
  static struct ledger_series before[64];
  size_t before_num = 0;
  bool sums = true, monotone = true, bounded = true, ordered = true;
  random_state = 1;
  for (int i = 0; i < 5000; i++) {
    random_interval(&bench->interval);
    struct interval kept = bench->interval;
    read_now(bench);
    sums = sums && sums_hold(bench->ledger, &kept, RECLAIM_DIRECT) &&
           sums_hold(bench->ledger, &kept, RECLAIM_MEMCG);
    monotone = monotone && counters_go_on(bench->ledger, before, before_num);
    bounded = bounded && ledger_health(bench->ledger).names <= 2 * 7;
    before_num = copy_series(bench->ledger, before);
    ordered = ordered && in_order(before, before_num);
  }
  ok(sums, "names and _other equal the total and the rows, 5,000 times");
  ok(monotone, "no counter ever goes down or forgets");
  ok(bounded, "names stay within MaxNames for each kind");
  ok(ordered, "series come by kind, total, _other, name");
  ok(total(bench)->sum.stalls > 1000000, "with millions of stalls");
  bench_free(bench);
}

static void shuffle(struct interval *interval) {
  for (size_t i = interval->num; i > 1; i--) {
    size_t other_place = random_below(i);
    struct ledger_row row = interval->rows[i - 1];
    interval->rows[i - 1] = interval->rows[other_place];
    interval->rows[other_place] = row;
  }
}

static void test_order_does_not_matter(void) {
  struct ledger_options options = defaults;
  options.max_names = 5;
  options.idle_intervals = 2;
  options.new_names_per_hour = 500;
  struct bench *straight = bench_new(&options), *mixed = bench_new(&options);
  static struct ledger_series left[64], right[64];
  bool same = true;
  for (int i = 0; i < 300 && same; i++) {
    random_state = 1000 + (uint64_t)i;
    random_interval(&straight->interval);
    random_state = 1000 + (uint64_t)i;
    random_interval(&mixed->interval);
    shuffle(&mixed->interval);
    read_now(straight);
    read_now(mixed);
    memset(left, 0, sizeof(left));
    memset(right, 0, sizeof(right));
    size_t num = copy_series(straight->ledger, left);
    same = num == copy_series(mixed->ledger, right) &&
           memcmp(left, right, sizeof(left)) == 0;
  }
  ok(same, "the same rows in another order give the same series");
  bench_free(straight);
  bench_free(mixed);
}

int main(void) {
  test_stalls_under_way();
  test_totals_and_births();
  test_merging();
  test_longest_is_at_least_its_bucket();
  test_overflow_and_untimed();
  test_places();
  test_idle_names_make_room();
  test_idle_intervals();
  test_the_culprit_is_never_hidden();
  test_the_displaced_go_to_other();
  test_newborns_are_not_displaced();
  test_empty_rows_of_the_displaced();
  test_each_set_of_kinds();
  test_the_idle_are_not_pushed_about();
  test_intermittent_names_do_not_alternate();
  test_names_known_are_bounded();
  test_several_displace_at_once();
  test_births_cost();
  test_the_known_come_back_for_free();
  test_selection();
  test_random_intervals();
  test_order_does_not_matter();
  return done();
}
