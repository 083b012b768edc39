/* SPDX-License-Identifier: MIT */
/* What the BPF programs add up, and how an interval's rows come out. */
#include <sched.h>
#include <stdatomic.h>

#include "tests/bpf/bench.h"

#define SECOND_NS 1000000000ULL
#define HOUR_NS (3600 * SECOND_NS)

/* Begin words */

static struct reclaim_begin_words words;

static void read_words(const struct bench *bench) {
  __u32 zero = 0;
  bpf_map_lookup_elem(bench->node_words_fd, &zero, &words);
}

static void write_words(const struct bench *bench) {
  __u32 zero = 0;
  bpf_map_update_elem(bench->node_words_fd, &zero, &words, BPF_ANY);
}

static __u64 *my_word(__u32 probe) {
  __u32 tid = (__u32)syscall(SYS_gettid);
  return &words.word[(tid + probe) & (RECLAIM_BEGIN_WORDS - 1)];
}

static __u64 my_begin(__u32 probe, __u64 age_ns) {
  return (now_ns() - age_ns) << RECLAIM_OWNER_BITS |
         reclaim_owner((__u32)syscall(SYS_gettid), probe);
}

static __u64 strangers_word(__u64 age_ns) {
  return (now_ns() - age_ns) << RECLAIM_OWNER_BITS | RECLAIM_OWNER_MASK;
}

/* The tests */

static void test_a_stall(struct bench *bench) {
  set_comm("one-stall");
  __u64 outer_begin = now_ns();
  begin(bench, RECLAIM_NODE);
  __u64 inner_begin = now_ns();
  sleep_ms(4);
  __u64 inner_end = now_ns();
  end(bench, RECLAIM_NODE, 32);
  __u64 outer_end = now_ns();
  drain(bench);

  struct reclaim_row row = row_of(bench, "one-stall", RECLAIM_NODE);
  is_u64(row.stalls, 1, "a stall is counted");
  is_u64(row.pages, 32, "with its pages");
  is_u64(row.fruitless, 0, "as not fruitless");
  ok(row.time_ns >= inner_end - inner_begin &&
         row.time_ns <= outer_end - outer_begin,
     "with its time in ns");
  is_u64(row.longest_ns, row.time_ns, "which is the longest");
  is_u64(timed(row), 1, "and in one bucket");
  ok(row.buckets[5] + row.buckets[6] + row.buckets[7] + row.buckets[8] == 1 &&
         row.buckets[5] == 0,
     "of more than 3 ms");

  stall(bench, 0);
  drain(bench);
  row = row_of(bench, "one-stall", RECLAIM_NODE);
  is_u64(row.stalls, 1, "the next interval counts from 0");
  is_u64(row.fruitless, 1, "a stall without pages is fruitless");
  drain(bench);
  is_u64(row_of(bench, "one-stall", RECLAIM_NODE).stalls, 0,
         "an interval without stalls has none");
}

static void test_end_without_begin(struct bench *bench) {
  set_comm("no-begin");
  end(bench, RECLAIM_NODE, 7);
  drain(bench);
  struct reclaim_row row = row_of(bench, "no-begin", RECLAIM_NODE);
  is_u64(row.stalls, 1, "an end without begin is a stall");
  is_u64(row.pages, 7, "with pages");
  is_u64(row.time_ns, 0, "without time");
  is_u64(timed(row), 0, "and in no bucket");
}

static void test_begin_twice(struct bench *bench) {
  set_comm("two-begins");
  begin(bench, RECLAIM_NODE);
  sleep_ms(20);
  __u64 before = now_ns();
  begin(bench, RECLAIM_NODE);
  end(bench, RECLAIM_NODE, 1);
  __u64 at_most = now_ns() - before;
  end(bench, RECLAIM_NODE, 1);
  drain(bench);
  struct reclaim_row row = row_of(bench, "two-begins", RECLAIM_NODE);
  is_u64(row.stalls, 2, "each end is a stall");
  is_u64(timed(row), 1, "the second begin took the place of the first");
  ok(row.time_ns <= at_most, "and its time counts, not the first's");
}

static void test_neighbouring_words(struct bench *bench) {
  set_comm("crowded");
  read_words(bench);
  __u64 stranger = strangers_word(1000);
  *my_word(0) = stranger;
  write_words(bench);
  stall(bench, 1);
  drain(bench);
  is_u64(timed(row_of(bench, "crowded", RECLAIM_NODE)), 1,
         "two tids that share a word are both timed");
  read_words(bench);
  is_u64(*my_word(0), stranger, "and the other's word stays");

  for (__u32 probe = 0; probe < RECLAIM_BEGIN_PROBES; probe++)
    *my_word(probe) = stranger;
  write_words(bench);
  stall(bench, 1);
  drain(bench);
  struct reclaim_row row = row_of(bench, "crowded", RECLAIM_NODE);
  is_u64(row.stalls, 1, "without a free word a stall counts all the same");
  is_u64(timed(row), 0, "but untimed");
  read_words(bench);
  is_u64(*my_word(RECLAIM_BEGIN_PROBES - 1), stranger, "and takes nobody's");

  *my_word(2) = strangers_word(RECLAIM_STALE_NS(false) + 60000000000ULL);
  write_words(bench);
  stall(bench, 1);
  drain(bench);
  is_u64(timed(row_of(bench, "crowded", RECLAIM_NODE)), 1,
         "a word older than a day is taken over");

  /* An old word of this tid behind a free one must not time a later stall. */
  read_words(bench);
  *my_word(0) = 0;
  *my_word(1) = my_begin(1, HOUR_NS / 2);
  write_words(bench);
  stall(bench, 1);
  end(bench, RECLAIM_NODE, 1);
  drain(bench);
  row = row_of(bench, "crowded", RECLAIM_NODE);
  is_u64(timed(row), 1, "a begin replaces the tid's old word");
  ok(row.time_ns < HOUR_NS / 2, "so that it times nothing");
  for (__u32 probe = 0; probe < RECLAIM_BEGIN_PROBES; probe++)
    *my_word(probe) = 0;
  write_words(bench);
}

/* Any bytes, and each length after any other. */
static void test_comms(struct bench *bench) {
  enum { NUM = 150 };
  char comms[NUM][16];
  srand(1);
  for (int i = 0; i < NUM; i++) {
    int len = i % 16;
    memset(comms[i], 0, sizeof(comms[i]));
    for (int at = 0; at < len; at++)
      comms[i][at] = (char)(i < 32 ? 1 + 127 * (i % 3) : 1 + rand() % 255);
    set_comm(comms[i]);
    stall(bench, 1);
  }
  drain(bench);
  __u64 found = 0, pages = 0;
  for (int i = 0; i < NUM; i++)
    found += row_of(bench, comms[i], RECLAIM_NODE).stalls > 0;
  for (size_t i = 0; i < bench->rows.num; i++)
    pages += bench->rows.rows[i].pages;
  is_u64(found, NUM, "each comm has a row, whatever its bytes");
  is_u64(pages, NUM, "and there are no others");
}

static void test_nested_kinds(struct bench *bench) {
  set_comm("nested");
  begin(bench, RECLAIM_DIRECT);
  sleep_ms(5);
  begin(bench, RECLAIM_NODE);
  end(bench, RECLAIM_NODE, 1);
  sleep_ms(5);
  end(bench, RECLAIM_DIRECT, 2);
  drain(bench);
  struct reclaim_row outer = row_of(bench, "nested", RECLAIM_DIRECT);
  struct reclaim_row inner = row_of(bench, "nested", RECLAIM_NODE);
  ok(timed(outer) == 1 && outer.time_ns >= 10000000 && outer.pages == 2,
     "the outer of two nested kinds has all of its time");
  ok(timed(inner) == 1 && inner.time_ns < outer.time_ns && inner.pages == 1,
     "the inner has its own");
}

/* The later copies of the programs, second and third, are there on kernels that
 * preempt programs (7.0). */
static void test_later_programs(struct bench *bench, int copy) {
  char name[32];
  snprintf(name, sizeof(name), "node_begin_%d", copy);
  int later_begin = find_program(name);
  snprintf(name, sizeof(name), "node_end_%d", copy);
  int later_end = find_program(name);
  if (later_end < 0) {
    skip("later programs", "this kernel does not preempt programs");
    return;
  }
  set_comm("twice");
  begin(bench, RECLAIM_NODE);
  run(later_begin, 0);
  end(bench, RECLAIM_NODE, 1);
  run(later_end, 1);
  drain(bench);
  struct reclaim_row row = row_of(bench, "twice", RECLAIM_NODE);
  ok(row.stalls == 1 && row.pages == 1 && timed(row) == 1,
     "a stall that two programs see counts once");

  begin(bench, RECLAIM_NODE);
  run(later_end, 2);
  drain(bench);
  row = row_of(bench, "twice", RECLAIM_NODE);
  ok(row.stalls == 1 && row.pages == 2 && timed(row) == 1,
     "a stall that the first end misses is counted by a later one");

  run(later_begin, 0);
  end(bench, RECLAIM_NODE, 3);
  run(later_end, 3);
  drain(bench);
  row = row_of(bench, "twice", RECLAIM_NODE);
  ok(row.stalls == 1 && timed(row) == 1,
     "a begin that the first misses is noted by a later one");

  begin(bench, RECLAIM_NODE);
  sleep_ms(2);
  run(later_begin, 0);
  end(bench, RECLAIM_NODE, 1);
  drain(bench);
  ok(row_of(bench, "twice", RECLAIM_NODE).time_ns >= 2000000,
     "a later begin leaves the first's time alone");

  read_words(bench);
  *my_word(0) = my_begin(0, HOUR_NS / 2);
  write_words(bench);
  run(later_begin, 0);
  end(bench, RECLAIM_NODE, 1);
  drain(bench);
  ok(row_of(bench, "twice", RECLAIM_NODE).time_ns < HOUR_NS / 2,
     "but not a time that an unseen end left behind");
  close(later_begin);
  close(later_end);
}

/* Runs an end on another CPU until that has nothing to do but its idle thread,
 * which is a kernel thread. Returns the thread's row. */
static struct reclaim_row stall_of_idle_thread(struct bench *bench) {
  for (int attempt = 0; attempt < 1000; attempt++) {
    __u64 args[3] = {1};
    LIBBPF_OPTS(bpf_test_run_opts, options, .ctx_in = args,
                .ctx_size_in = sizeof(args), .cpu = 1,
                .flags = BPF_F_TEST_RUN_ON_CPU);
    bpf_prog_test_run_opts(bench->end_fds[RECLAIM_NODE], &options);
    drain(bench);
    struct reclaim_row_key key = key_of("swapper/1", RECLAIM_NODE);
    key.flags = RECLAIM_ROW_KTHREAD;
    struct reclaim_row row = row_at(bench, key);
    if (row.stalls > 0)
      return row;
  }
  return (struct reclaim_row){0};
}

static void test_kernel_threads(struct bench *bench) {
  cpu_set_t first_cpu;
  CPU_ZERO(&first_cpu);
  CPU_SET(0, &first_cpu);
  cpu_set_t before;
  sched_getaffinity(0, sizeof(before), &before);
  if (sysconf(_SC_NPROCESSORS_ONLN) < 2 ||
      sched_setaffinity(0, sizeof(first_cpu), &first_cpu) != 0) {
    skip("kernel threads", "this machine has one CPU");
    return;
  }
  is_u64(stall_of_idle_thread(bench).stalls, 1,
         "a kernel thread's row says that it is one");
  sched_setaffinity(0, sizeof(before), &before);
}

static struct reclaim_row alone_row(const struct bench *bench,
                                    const char *comm) {
  struct reclaim_row_key key = key_of(comm, RECLAIM_NODE);
  __u32 place = (__u32)syscall(SYS_gettid) & (RECLAIM_BEGIN_WORDS - 1);
  key.flags = RECLAIM_ROW_ALONE | place << RECLAIM_ROW_PLACE_SHIFT;
  return row_at(bench, key);
}

static void test_under_way(struct bench *bench) {
  set_comm("waits");
  __u64 before = now_ns();
  begin(bench, RECLAIM_NODE);
  __u64 after = now_ns();
  drain(bench);
  const struct bpf_source_under_way *seen = bench->rows.under_way;
  ok(bench->rows.under_way_num == 1 && seen->kind == RECLAIM_NODE &&
         seen->tid == (__u32)syscall(SYS_gettid),
     "a stall under way is seen, and whose it is");
  __u64 begin_ns = seen->begin_ns;
  ok(begin_ns >= before && begin_ns <= after, "and since when");
  ok(bench->rows.opened_ns > after && bench->rows.opened_ns < now_ns(),
     "up to the interval's end");
  drain(bench);
  ok(bench->rows.under_way_num == 1 &&
         bench->rows.under_way->begin_ns == begin_ns,
     "and at each drain");
  __u64 before_end = now_ns();
  end(bench, RECLAIM_NODE, 3);
  __u64 after_end = now_ns();
  stall(bench, 4);
  drain(bench);
  is_u64(bench->rows.under_way_num, 0, "until it ends");
  struct reclaim_row row = alone_row(bench, "waits");
  ok(row.stalls == 1 && row.pages == 3 && row.time_ns >= before_end - after &&
         row.time_ns <= after_end - before,
     "then it has a row of its own, with all of its time");
  row = row_of(bench, "waits", RECLAIM_NODE);
  ok(row.stalls == 1 && row.pages == 4, "a stall behind it has not");

  /* Written by another CPU just after the clock was read. */
  begin(bench, RECLAIM_NODE);
  read_words(bench);
  *my_word(0) = strangers_word(0) + (5000000000ULL << RECLAIM_OWNER_BITS);
  write_words(bench);
  drain(bench);
  is_u64(bench->rows.under_way_num, 0, "a begin after that is not under way");
  *my_word(0) = 0;
  write_words(bench);
}

/* A stall whose begin word is as old as it would be: told while it goes on, and
 * when it ends. */
static void test_long_stall(struct bench *bench, const char *comm, __u64 ns,
                            size_t bucket) {
  set_comm(comm);
  begin(bench, RECLAIM_NODE);
  read_words(bench);
  *my_word(0) = my_begin(0, ns);
  write_words(bench);
  drain(bench);
  const struct bpf_source_under_way *seen = bench->rows.under_way;
  __u64 age_ns = bench->rows.under_way_num == 1
                     ? bench->rows.opened_ns - seen->begin_ns
                     : 0;
  bool mine = age_ns > 0 && seen->tid == (__u32)syscall(SYS_gettid);
  ok(mine && age_ns >= ns && age_ns < ns + 60 * SECOND_NS,
     "a stall of %s is under way with all its time", comm);
  end(bench, RECLAIM_NODE, 1);
  drain(bench);
  struct reclaim_row row = alone_row(bench, comm);
  if (row.stalls == 0) /* this machine has not been up so long */
    row = row_of(bench, comm, RECLAIM_NODE);
  if (!ok(row.time_ns >= ns && row.time_ns >= age_ns &&
              row.time_ns < ns + 60 * SECOND_NS &&
              row.longest_ns == row.time_ns,
          "and ends with it"))
    printf("# %llu ns of %llu\n", row.time_ns, ns);
  is_u64(row.buckets[bucket], 1, "in its bucket");
}

static void test_long_stalls(struct bench *bench) {
  test_long_stall(bench, "4 s", 4 * SECOND_NS, 12);
  test_long_stall(bench, "2^32 ns", 1ULL << 32, 12);
  test_long_stall(bench, "15 s", 15 * SECOND_NS, 13);
  test_long_stall(bench, "1 h", HOUR_NS, 13);
  test_long_stall(bench, "2^42 ns", 1ULL << 42, 13);
  test_long_stall(bench, "23 h", 23 * HOUR_NS, 13);
}

static struct bench *looking; /* a look has no context */
static bool ends;

static bool look(const struct bpf_source_under_way *stall,
                 struct reclaim_row_key *key) {
  snprintf(key->comm, sizeof(key->comm), "looked-at");
  if (ends)
    end(looking, stall->kind, 3);
  return !ends;
}

static void test_looks(void) {
  struct bpf_source_options options = defaults;
  options.look = look;
  struct bench bench;
  bench_init(&bench, &options);
  looking = &bench;
  set_comm("looked-at");
  begin(&bench, RECLAIM_NODE);
  ends = false;
  drain(&bench);
  const struct bpf_source_under_way *seen = bench.rows.under_way;
  ok(bench.rows.under_way_num == 1 && seen->confirmed,
     "a look confirms a stall");
  is_str(seen->key.comm, "looked-at", "and names it");

  ends = true;
  drain(&bench);
  ok(bench.rows.under_way_num == 1 && !bench.rows.under_way->confirmed,
     "one that ends before it is looked at is not confirmed");
  is_u64(alone_row(&bench, "looked-at").pages, 3, "but in the interval's rows");
  bench_fini(&bench);
}

static void test_throttle(void) {
  struct bpf_source_options options = defaults;
  options.kinds[RECLAIM_THROTTLE] = true;
  struct bench bench;
  bench_init(&bench, &options);
  if (!bpf_source_is_attached(bench.source, RECLAIM_THROTTLE)) {
    ok(bpf_source_is_absent(bench.source, RECLAIM_THROTTLE),
       "a kernel without throttling says so");
    bench_fini(&bench);
    return;
  }
  set_comm("throttled");
  run_with(bench.end_fds[RECLAIM_THROTTLE], 0, 100000, 12000);
  set_comm("kswapd0"); /* in vain: it is no kernel thread */
  run_with(bench.end_fds[RECLAIM_THROTTLE], 0, 100000, 4000);
  drain(&bench);
  struct reclaim_row row = row_of(&bench, "throttled", RECLAIM_THROTTLE);
  ok(row.stalls == 1 && row.time_ns == 12000000 && row.longest_ns == 12000000,
     "a throttling counts with the delay that it tells");
  ok(row.pages == 0 && row.fruitless == 0, "it is not about pages");
  is_u64(row.buckets[7], 1, "12 ms are in the bucket of 10 to 30 ms");
  is_u64(row_of(&bench, "kswapd0", RECLAIM_THROTTLE).stalls, 1,
         "a user cannot hide as kswapd");

  int copies[3] = {bench.end_fds[RECLAIM_THROTTLE],
                   find_program("throttle_end_2"),
                   find_program("throttle_end_3")};
  set_comm("thrice");
  for (int missed = 0; missed < 4 && copies[1] >= 0; missed++) {
    for (int copy = 0; copy < 3; copy++)
      if (copy >= missed || copy == 2)
        run_with(copies[copy], 0, 100000, 4000);
    drain(&bench);
    is_u64(row_of(&bench, "thrice", RECLAIM_THROTTLE).stalls, 1,
           "whichever programs see a throttling, it counts once");
  }
  if (copies[1] < 0)
    skip("later programs of throttle", "this kernel does not preempt programs");
  else
    close(copies[1]), close(copies[2]);
  bench_fini(&bench);
}

/* Marks of tasks in a write to memory.reclaim, by hand. */
static void set_mark(int marks_fd, __u32 tid) {
  static struct reclaim_proactive_tids tids;
  __u32 zero = 0;
  tids.tid[(__u32)syscall(SYS_gettid) & (RECLAIM_PROACTIVE_TIDS - 1)] = tid;
  bpf_map_update_elem(marks_fd, &zero, &tids, BPF_ANY);
}

static size_t count_under_way(const struct bench *bench,
                              enum reclaim_kind kind) {
  size_t num = 0;
  for (size_t i = 0; i < bench->rows.under_way_num; i++)
    num += bench->rows.under_way[i].kind == kind &&
           bench->rows.under_way[i].tid == (__u32)syscall(SYS_gettid);
  return num;
}

/* Of stalls that were under way at a drain. */
static __u64 pages_alone(const struct bench *bench, const char *comm,
                         enum reclaim_kind kind) {
  __u64 pages = 0;
  for (size_t i = 0; i < bench->rows.num; i++)
    if (bench->rows.keys[i].kind == kind &&
        bench->rows.keys[i].flags & RECLAIM_ROW_ALONE &&
        strncmp(bench->rows.keys[i].comm, comm, RECLAIM_COMM_SIZE) == 0)
      pages += bench->rows.rows[i].pages;
  return pages;
}

/* The programs of memcg; other tasks of this machine stall in it, too. */
static void test_proactive(bool with_memcg) {
  struct bpf_source_options options = defaults;
  options.kinds[RECLAIM_MEMCG] = with_memcg;
  options.kinds[RECLAIM_MEMCG_PROACTIVE] = true;
  struct bench bench;
  bench_init(&bench, &options);
  int marks = find_map("proactive_tids"),
      begin_fd = find_program("memcg_begin"),
      end_fd = find_program("memcg_end");
  if (!bpf_source_is_attached(bench.source, RECLAIM_MEMCG_PROACTIVE)) {
    ok(bpf_source_is_absent(bench.source, RECLAIM_MEMCG_PROACTIVE) &&
           bpf_source_is_attached(bench.source, RECLAIM_MEMCG) == with_memcg,
       "where proactive reclaim cannot be told, memcg is there all the same");
    skip("proactive reclaim", "this kernel cannot tell it");
  } else {
    const char *name = with_memcg ? "pro-beside" : "pro-alone";
    __u32 tid = (__u32)syscall(SYS_gettid);
    set_comm(name);
    is_u64(bpf_source_is_attached(bench.source, RECLAIM_MEMCG), with_memcg,
           "memcg_proactive is attached, memcg if wanted");
    run(begin_fd, 0);
    set_mark(marks, tid);
    drain(&bench);
    ok(count_under_way(&bench, RECLAIM_MEMCG_PROACTIVE) == 1 &&
           count_under_way(&bench, RECLAIM_MEMCG) == 0,
       "a stall of a marked task is under way as proactive");
    run(end_fd, 5);
    set_mark(marks, tid + RECLAIM_PROACTIVE_TIDS);
    run(begin_fd, 0);
    drain(&bench);
    ok(count_under_way(&bench, RECLAIM_MEMCG_PROACTIVE) == 0 &&
           count_under_way(&bench, RECLAIM_MEMCG) == with_memcg,
       "with another's mark it is not");
    is_u64(pages_alone(&bench, name, RECLAIM_MEMCG_PROACTIVE), 5,
           "the first has its row by itself");
    run(end_fd, 7);
    drain(&bench);
    ok(pages_alone(&bench, name, RECLAIM_MEMCG_PROACTIVE) == 0 &&
           pages_alone(&bench, name, RECLAIM_MEMCG) == (with_memcg ? 7 : 0),
       "so has the second, if memcg is wanted");
    set_mark(marks, 0);
    run(end_fd, 9);
    set_mark(marks, tid);
    run(begin_fd, 0);
    run(end_fd, 11);
    set_mark(marks, 0);
    drain(&bench);
    struct reclaim_row row = row_of(&bench, name, RECLAIM_MEMCG_PROACTIVE);
    ok(row.stalls == 1 && row.pages == 11 && timed(row) == 1,
       "what a marked task reclaims is proactive");
    struct reclaim_row of_limits = row_of(&bench, name, RECLAIM_MEMCG);
    is_u64(of_limits.pages, with_memcg ? 9 : 0, "the rest is memcg, if wanted");
  }
  close(marks), close(begin_fd), close(end_fd);
  bench_fini(&bench);
}

/* 5.10: whose a compaction is shows only in what was asked just before. */
static void test_compaction_unsaid(void) {
  struct bpf_source_options options = defaults;
  options.kinds[RECLAIM_COMPACT] = true;
  struct bench bench;
  bench_init(&bench, &options);
  int order = find_program("compact_order");
  if (order < 0) {
    skip("compaction by order", "this kernel tells whose a compaction is");
    bench_fini(&bench);
    return;
  }
  set_comm("compacts");
  run_with(order, 0, 9, 0);
  begin(&bench, RECLAIM_COMPACT);
  sleep_ms(2);
  end(&bench, RECLAIM_COMPACT, 0);
  run_with(order, 0, (__u64)-1, 0);
  begin(&bench, RECLAIM_COMPACT);
  end(&bench, RECLAIM_COMPACT, 0);
  drain(&bench);
  struct reclaim_row row = row_of(&bench, "compacts", RECLAIM_COMPACT);
  ok(row.stalls == 1 && timed(row) == 1 && row.time_ns >= 2000000,
     "a compaction for an order is a stall, one of all memory is none");
  close(order);
  bench_fini(&bench);
}

static void test_full_table(void) {
  struct bpf_source_options options = defaults;
  options.max_tracked = 64;
  struct bench bench;
  bench_init(&bench, &options);
  for (int i = 0; i < 200; i++) {
    char comm[16];
    snprintf(comm, sizeof(comm), "name-%d", i);
    set_comm(comm);
    stall(&bench, 3);
  }
  drain(&bench);
  struct reclaim_row overflow = overflow_row(&bench);
  __u64 stalls = 0, pages = 0, times = 0;
  size_t named = 0;
  for (size_t i = 0; i < bench.rows.num; i++) {
    stalls += bench.rows.rows[i].stalls;
    pages += bench.rows.rows[i].pages;
    times += timed(bench.rows.rows[i]);
    named += !(bench.rows.keys[i].flags & RECLAIM_ROW_OVERFLOW);
  }
  is_u64(named, 64, "a full table has MaxTracked names");
  is_u64(overflow.stalls, 200 - named, "further stalls are in the overflow");
  is_u64(stalls, 200, "no stall is lost");
  is_u64(pages, 600, "no page is lost");
  is_u64(times, 200, "no time is lost");
  stall(&bench, 1);
  drain(&bench);
  is_u64(overflow_row(&bench).stalls, 0, "the next interval has room again");
  bench_fini(&bench);
}

static void test_kept_rows(void) {
  struct bpf_source_options options = defaults;
  options.max_tracked = 64;
  struct bench bench;
  bench_init(&bench, &options);
  struct reclaim_row_key keep = key_of("kept", RECLAIM_NODE);
  drain_keeping(&bench, &keep, 1);
  for (int i = 0; i < 300; i++) {
    char comm[16];
    snprintf(comm, sizeof(comm), "storm-%d", i);
    set_comm(comm);
    stall(&bench, 1);
  }
  set_comm("kept");
  stall(&bench, 11);
  set_comm("not-kept");
  stall(&bench, 13);
  drain(&bench);
  is_u64(row_of(&bench, "kept", RECLAIM_NODE).pages, 11,
         "a kept name has its row in a storm of new ones");
  is_u64(row_of(&bench, "not-kept", RECLAIM_NODE).stalls, 0, "another has not");
  bench_fini(&bench);
}

static void *stall_as_worker(void *context) {
  set_comm("a-worker");
  stall(context, 5);
  return NULL;
}

static void test_process(void) {
  struct bpf_source_options options = defaults;
  options.group_by = RECLAIM_BY_PROCESS;
  struct bench bench;
  bench_init(&bench, &options);
  set_comm("fifteen-bytes-x");
  set_comm("leader"); /* what was behind the NUL must not be in the key */
  pthread_t thread;
  pthread_create(&thread, NULL, stall_as_worker, &bench);
  pthread_join(thread, NULL);
  drain(&bench);
  is_u64(row_of(&bench, "leader", RECLAIM_NODE).pages, 5,
         "by process, a thread's stall is its leader's");
  is_u64(row_of(&bench, "a-worker", RECLAIM_NODE).stalls, 0,
         "and not its own comm's");
  bench_fini(&bench);

  bench_init(&bench, &defaults);
  pthread_create(&thread, NULL, stall_as_worker, &bench);
  pthread_join(thread, NULL);
  drain(&bench);
  is_u64(row_of(&bench, "a-worker", RECLAIM_NODE).pages, 5,
         "by comm, it is the thread's");
  bench_fini(&bench);
}

struct shooter {
  const struct bench *bench;
  const atomic_bool *stop;
  int number;
  __u64 shots;
};

static void *shoot(void *context) {
  struct shooter *shooter = context;
  while (!*shooter->stop) {
    char comm[16];
    snprintf(comm, sizeof(comm), "shot-%d-%d", shooter->number,
             (int)(shooter->shots % 7));
    set_comm(comm);
    stall(shooter->bench, 3);
    shooter->shots++;
  }
  return NULL;
}

static void test_swap_under_fire(void) {
  struct bench bench;
  bench_init(&bench, &defaults);
  atomic_bool stop = false;
  struct shooter shooters[4];
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) {
    shooters[i] = (struct shooter){&bench, &stop, i, 0};
    pthread_create(&threads[i], NULL, shoot, &shooters[i]);
  }
  __u64 stalls = 0, pages = 0, times = 0, swaps = 0;
  for (bool last = false; !last;) {
    last = swaps == 100;
    if (last) {
      stop = true;
      for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    }
    drain(&bench);
    __u64 before = stalls;
    for (size_t i = 0; i < bench.rows.num; i++) {
      stalls += bench.rows.rows[i].stalls;
      pages += bench.rows.rows[i].pages;
      times += timed(bench.rows.rows[i]);
    }
    swaps += stalls > before; /* else the table may be open still */
  }
  __u64 shots = 0;
  for (int i = 0; i < 4; i++)
    shots += shooters[i].shots;
  printf("# %llu swaps during %llu stalls\n", swaps, shots);
  ok(shots > 1000, "many swaps during many stalls");
  is_u64(stalls, shots, "every stall is in one interval");
  is_u64(pages, 3 * shots, "so is every page");
  is_u64(times, shots, "so is every time");
  bench_fini(&bench);
}

/* Stalls now and then, and for some drains. */
static void *shoot_slowly(void *context) {
  struct shooter *shooter = context;
  unsigned seed = (unsigned)shooter->number;
  while (!*shooter->stop) {
    sleep_ms(rand_r(&seed) % 40);
    begin(shooter->bench, RECLAIM_NODE);
    sleep_ms(rand_r(&seed) % 40);
    end(shooter->bench, RECLAIM_NODE, 3);
    shooter->shots++;
  }
  return NULL;
}

static void test_calm_intervals(void) {
  struct bench bench;
  bench_init(&bench, &defaults);
  const struct reclaim_row_key kept = key_of("kept", RECLAIM_NODE);
  drain_keeping(&bench, &kept, 1);
  drain_keeping(&bench, &kept, 1);
  ok(bench.rows.num == RECLAIM_KINDS + 1 && bench.rows.all_rows &&
         row_at(&bench, kept).stalls == 0,
     "without stalls, kept rows are there and zero");

  atomic_bool stop = false;
  struct shooter shooters[2];
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) {
    shooters[i] = (struct shooter){&bench, &stop, i, 0};
    pthread_create(&threads[i], NULL, shoot_slowly, &shooters[i]);
  }
  __u64 stalls = 0, calm = 0, under_way = 0, drains = 1000;
  for (__u64 i = 0; i <= drains; i++) {
    if (i == drains) {
      stop = true;
      for (int t = 0; t < 2; t++)
        pthread_join(threads[t], NULL);
    }
    drain_keeping(&bench, &kept, 1);
    __u64 now = 0;
    for (size_t r = 0; r < bench.rows.num; r++)
      now += bench.rows.rows[r].stalls;
    stalls += now;
    under_way += bench.rows.under_way_num > 0;
    calm += now == 0 && bench.rows.under_way_num == 0;
    sleep_ms(1);
  }
  printf("# of %llu drains, %llu calm, %llu with stalls under way\n", drains,
         calm, under_way);
  ok(calm > 10 && under_way > 10, "calm intervals and others");
  is_u64(stalls, shooters[0].shots + shooters[1].shots,
         "take turns, and every stall is in one");
  drain_keeping(&bench, &kept, 1);
  is_u64(bench.rows.under_way_num, 0, "nothing stays under way");
  bench_fini(&bench);
}

static int other_print(enum libbpf_print_level level, const char *format,
                       va_list args) {
  (void)level, (void)format, (void)args;
  return 0;
}

static void test_nothing_stays(void) {
  struct bench bench;
  libbpf_print_fn_t print = libbpf_set_print(other_print);
  bench_init(&bench, &defaults);
  ok(libbpf_set_print(print) == other_print,
     "libbpf's print function is put back");

  struct bpf_prog_info program = {0};
  struct bpf_map_info map = {0};
  __u32 size = sizeof(program);
  bpf_obj_get_info_by_fd(bench.end_fds[RECLAIM_NODE], &program, &size);
  size = sizeof(map);
  bpf_obj_get_info_by_fd(bench.node_words_fd, &map, &size);
  ok(program.id != 0 && map.id != 0, "programs and maps are there");
  bench_fini(&bench);
  /* The kernel frees behind a grace period. */
  int program_fd = 0, map_fd = 0;
  for (int i = 0; i < 100 && (program_fd >= 0 || map_fd >= 0); i++) {
    sleep_ms(20);
    program_fd = bpf_prog_get_fd_by_id(program.id);
    map_fd = bpf_map_get_fd_by_id(map.id);
    if (program_fd >= 0)
      close(program_fd);
    if (map_fd >= 0)
      close(map_fd);
  }
  ok(program_fd < 0 && map_fd < 0, "and gone when the source is freed");
}

int main(void) {
  need_live_tests();

  struct bench bench;
  bench_init(&bench, &defaults);
  ok(bpf_source_is_attached(bench.source, RECLAIM_NODE) &&
         bpf_source_is_attached(bench.source, RECLAIM_DIRECT),
     "the chosen kinds are attached");
  ok(!bpf_source_is_attached(bench.source, RECLAIM_MEMCG),
     "a kind that is off is not");
  test_a_stall(&bench);
  test_end_without_begin(&bench);
  test_begin_twice(&bench);
  test_neighbouring_words(&bench);
  test_comms(&bench);
  test_nested_kinds(&bench);
  test_later_programs(&bench, 2);
  test_later_programs(&bench, 3);
  test_under_way(&bench);
  test_long_stalls(&bench);
  test_kernel_threads(&bench);
  bench_fini(&bench);

  test_looks();
  test_throttle();
  test_proactive(true);
  test_proactive(false);
  test_compaction_unsaid();
  test_full_table();
  test_kept_rows();
  test_process();
  test_swap_under_fire();
  test_calm_intervals();
  test_nothing_stays();
  return done();
}
