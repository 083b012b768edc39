/* SPDX-License-Identifier: MIT */
/* Days of a busy host in ledger and keep, read by read: hundreds of comms
 * that come and go, bursts, hours without a stall. Nothing grows, and the sums
 * are those of all rows. */
#include <time.h>

#include "plugin/keep.h"
#include "tests/unit/intervals.h"
#include "tests/unit/tap.h"

#define MOST_HOURS 96
/* An hour; since one before, as many names are known as ever. */
#define EARLY 25
#define LATE 46
#define REGULARS 300 /* names that come back; others do not */
#define MOST_NAMES (REGULARS + 200000)
#define DAY (24 * HOUR)

/* The linker hands these the allocations of the parts under test. */

static size_t allocations;

void *__real_malloc(size_t size);
void *__real_calloc(size_t num, size_t size);
void *__real_realloc(void *at, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t num, size_t size);
void *__wrap_realloc(void *at, size_t size);

void *__wrap_malloc(size_t size) {
  allocations++;
  return __real_malloc(size);
}

void *__wrap_calloc(size_t num, size_t size) {
  allocations++;
  return __real_calloc(num, size);
}

void *__wrap_realloc(void *at, size_t size) {
  allocations++;
  return __real_realloc(at, size);
}

/* The host */

static const struct ledger_options options = {
    .kinds = {[RECLAIM_DIRECT] = true, [RECLAIM_MEMCG] = true},
    .max_names = 20,
    .idle_intervals = 30,
    .new_names_per_hour = 20,
    .max_rows = MAX_ROWS,
    .selects = selects_all,
};

static uint64_t random_state;

static uint64_t random_below(uint64_t limit) {
  random_state = random_state * 6364136223846793005ULL + 1442695040888963407ULL;
  return (random_state >> 33) % limit;
}

struct life {
  struct ledger *ledger;
  struct keep *keep;
  struct interval interval;
  uint64_t now_ns, begin_ns;
  size_t next_name;
  struct ledger_counts rows;  /* of kind direct: all that was put in */
  struct ledger_counts names; /* what names with series got of it */
  uint64_t held_until_ns[MOST_NAMES];
  uint64_t births_ns[2000]; /* of names that a store did not know any more */
  size_t births_num, births;
  size_t reads, calm_reads;
  uint64_t cpu_ns[MOST_HOURS];
};

static void add_stalls(struct life *life, size_t name, uint64_t stalls,
                       uint64_t each_ns) {
  char text[16];
  snprintf(text, sizeof(text), "n%zu", name);
  struct reclaim_row *row = interval_add(&life->interval, RECLAIM_DIRECT, text,
                                         text, stalls, each_ns, name % 3);
  life->rows.stalls += row->stalls;
  life->rows.time_ns += row->time_ns;
  life->rows.pages += row->pages;
  life->rows.fruitless += row->fruitless;
  for (size_t i = 0; i < RECLAIM_BUCKETS; i++)
    life->rows.buckets[i] += row->buckets[i];
}

/* The second half of each sixth hour is calm. Else ten programs stall most of
 * the time, regulars now and then, a stranger in some intervals; and all of
 * them in the bursts, each of five reads. */
static void fill_interval(struct life *life) {
  uint64_t at_ns = life->now_ns - life->begin_ns;
  bool calm = at_ns / HOUR % 6 == 5 && at_ns % HOUR >= HOUR / 2;
  bool burst = life->reads % 400 < 5;
  life->interval.num = 0;
  if (calm)
    return;
  for (size_t i = 0; i < 10; i++)
    if (random_below(4) > 0)
      add_stalls(life, i, 1 + random_below(50), 1 + random_below(5 * MS));
  for (size_t i = 10; i < REGULARS; i++)
    if (random_below(burst ? 2 : 60) == 0)
      add_stalls(life, i, 1 + random_below(9), 1 + random_below(80 * MS));
  for (size_t i = 0; i < (burst ? 50 : 1); i++)
    if (random_below(3) == 0 && life->next_name < MOST_NAMES)
      add_stalls(life, life->next_name++, 1 + random_below(3),
                 1 + random_below(90 * MS));
}

static uint64_t cpu_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

static void read_interval(struct life *life) {
  uint64_t before_ns = cpu_ns();
  ledger_add_interval(life->ledger, life->interval.rows, life->interval.num,
                      life->now_ns);
  keep_update(life->keep, life->interval.rows, life->interval.num);
  life->cpu_ns[(life->now_ns - life->begin_ns) / HOUR] += cpu_ns() - before_ns;
}

/* What came out of the interval. */
static void look(struct life *life) {
  size_t num;
  const struct ledger_series *const *series = ledger_series(life->ledger, &num);
  for (size_t i = 0; i < num; i++) {
    if (series[i]->scope != LEDGER_NAME)
      continue;
    life->names.stalls += series[i]->interval.stalls;
    life->names.time_ns += series[i]->interval.time_ns;
    life->names.pages += series[i]->interval.pages;
    life->names.fruitless += series[i]->interval.fruitless;
    for (size_t b = 0; b < RECLAIM_BUCKETS; b++)
      life->names.buckets[b] += series[i]->interval.buckets[b];
    size_t name = strtoul(series[i]->name + 1, NULL, 10);
    life->births += series[i]->newborn;
    if (series[i]->newborn && life->held_until_ns[name] <= life->now_ns &&
        life->births_num < sizeof(life->births_ns) / sizeof(*life->births_ns))
      life->births_ns[life->births_num++] = life->now_ns;
    life->held_until_ns[name] = life->now_ns + DAY;
  }
}

/* The most births within an hour. */
static size_t most_births(const struct life *life) {
  size_t most = 0;
  for (size_t first = 0, end = 0; first < life->births_num; first++) {
    while (end < life->births_num &&
           life->births_ns[end] < life->births_ns[first] + HOUR)
      end++;
    if (end - first > most)
      most = end - first;
  }
  return most;
}

static void live(struct life *life, uint64_t interval_ns, uint64_t hours) {
  life->begin_ns = life->now_ns = 1000 * SECOND;
  life->next_name = REGULARS;
  for (; life->now_ns - life->begin_ns < hours * HOUR;
       life->now_ns += interval_ns) {
    fill_interval(life);
    read_interval(life);
    look(life);
    life->reads++;
    life->calm_reads += life->interval.num == 0;
  }
}

static void check_sums(const struct life *life) {
  const struct ledger_series *total =
      find_series(life->ledger, RECLAIM_DIRECT, LEDGER_TOTAL, "");
  const struct ledger_series *other =
      find_series(life->ledger, RECLAIM_DIRECT, LEDGER_OTHER, "");
  struct ledger_counts parts = other->sum;
  parts.stalls += life->names.stalls;
  parts.time_ns += life->names.time_ns;
  parts.pages += life->names.pages;
  parts.fruitless += life->names.fruitless;
  for (size_t i = 0; i < RECLAIM_BUCKETS; i++)
    parts.buckets[i] += life->names.buckets[i];
  ok(memcmp(&total->sum, &life->rows, sizeof(life->rows)) == 0,
     "the total has every row");
  ok(memcmp(&parts, &life->rows, sizeof(life->rows)) == 0,
     "and so have names and _other together");
}

/* A read that took a little longer each time would take thrice as long. */
static void check_time(const struct life *life, uint64_t late,
                       uint64_t reads_an_hour) {
  uint64_t early_ns = life->cpu_ns[EARLY], late_ns = life->cpu_ns[late];
  printf("# | %.1f us of CPU a read in hour %d, %.1f in hour %" PRIu64 "\n",
         (double)early_ns / 1e3 / (double)reads_an_hour, EARLY,
         (double)late_ns / 1e3 / (double)reads_an_hour, late);
  ok(late_ns < 2 * early_ns, "a read takes no longer in the last hours");
}

static void test_life(uint64_t interval_ns, uint64_t hours) {
  struct life *life = calloc(1, sizeof(*life));
  life->ledger = ledger_new(&options);
  life->keep = keep_new(MAX_ROWS, options.idle_intervals);
  random_state = interval_ns;
  size_t before = allocations;
  live(life, interval_ns, hours);
  size_t taken = allocations - before;

  size_t most = most_births(life);
  /* All at once, what is left for culprits, and the hour's. */
  size_t allowed = options.max_names + options.max_names / 4 + 1 +
                   options.new_names_per_hour;
  printf("# | %" PRIu64 " h at %" PRIu64 " s: %zu reads, %zu of them calm, %zu "
         "comms, %" PRIu64
         " stalls; %zu births, %zu of them new to a store, at "
         "most %zu an hour; %zu allocations\n",
         hours, (uint64_t)(interval_ns / SECOND), life->reads, life->calm_reads,
         life->next_name, life->rows.stalls, life->births, life->births_num,
         most, taken);
  ok(life->rows.stalls > 1000000 && life->births > 1000 &&
         life->calm_reads > 1000,
     "%zu reads, with bursts and calm hours", life->reads);
  check_sums(life);
  is_u64(taken, 0, "no read takes memory");
  ok(most <= allowed, "births stay within the hour's limit in every hour");
  ok(life->births_num > 5 * hours && life->births_num <= allowed + 20 * hours,
     "and in all of them together");
  if (hours > 2 * EARLY)
    check_time(life, hours - 2, HOUR / interval_ns);
  keep_free(life->keep);
  ledger_free(life->ledger);
  free(life);
}

int main(void) {
  test_life(10 * SECOND, MOST_HOURS);
  test_life(SECOND, 24);
  return done();
}
