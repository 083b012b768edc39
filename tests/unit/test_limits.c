/* SPDX-License-Identifier: MIT */
/* Counters on their way through 2^32, 2^53 and near 2^63, from a row to what
 * is dispatched: to the unit, whatever a double or 32 bits could hold. */
#include "tests/unit/collectd_stub.h"

#include "plugin/dispatch.h"
#include "plugin/histogram.h"
#include "plugin/inflight.h"
#include "plugin/keep.h"
#include "tests/unit/intervals.h"
#include "tests/unit/tap.h"

#define NOW ((cdtime_t)1)
#define ODD_NS 999999ULL /* of 10 of these, 9 ms are whole */

/* The last is as far as a DERIVE goes in what the test adds. */
static const uint64_t limits[] = {1ULL << 32, 1ULL << 53, (1ULL << 63) - 12};

static struct interval interval;

static struct ledger *new_ledger(void) {
  struct ledger_options options = {.kinds = {[RECLAIM_DIRECT] = true},
                                   .max_names = 2,
                                   .idle_intervals = 2,
                                   .new_names_per_hour = 20,
                                   .max_rows = MAX_ROWS,
                                   .selects = selects_all};
  return ledger_new(&options);
}

static struct reclaim_row *add_row(const char *name) {
  return interval_add(&interval, RECLAIM_DIRECT, name, name, 0, 0, 0);
}

static void read_now(struct ledger *ledger) {
  ledger_add_interval(ledger, interval.rows, interval.num, SECOND);
  interval.num = 0;
}

static void is_derive(const char *identifier, uint64_t wanted,
                      const char *what) {
  const struct stub_value *stub = stub_find(identifier);
  if (!ok(stub && stub->value.derive >= 0 &&
              (uint64_t)stub->value.derive == wanted,
          "%s", what))
    printf("# %s: got %" PRIi64 ", wanted %" PRIu64 "\n", identifier,
           stub ? stub->value.derive : -1, wanted);
}

/* Each counter of a name and of the total, from just below the limit to beyond
 * it, by steps of one. */
static void test_counters(uint64_t limit) {
  struct config config;
  config_init(&config);
  config.report_fruitless = true;
  struct ledger *ledger = new_ledger();
  uint64_t count = limit - 5;
  *add_row("java") = (struct reclaim_row){
      .stalls = count, .time_ns = count, .pages = count, .fruitless = count};
  read_now(ledger);
  bool exact = true;
  for (int i = 0; i < 10; i++) {
    *add_row("java") = (struct reclaim_row){
        .stalls = 1, .time_ns = 1, .pages = 1, .fruitless = 1};
    read_now(ledger);
    count++;
    stub_reset();
    dispatch_ledger(&config, ledger, count, NOW);
    const struct ledger_series *java =
        find_series(ledger, RECLAIM_DIRECT, LEDGER_NAME, "java");
    exact = exact && java->sum.stalls == count && java->sum.time_ns == count &&
            java->sum.pages == count && java->sum.fruitless == count;
  }
  printf("# through %" PRIu64 "\n", limit);
  ok(exact, "sums grow by one at each step");
  is_derive("reclaim-java/total_events-direct", count, "stalls of a name");
  is_derive("reclaim/total_events-direct_total", count, "stalls of all");
  is_derive("reclaim/vmpage_action-direct_total", count, "pages");
  is_derive("reclaim/total_events-direct_total_fruitless", count, "fruitless");
  is_derive("reclaim/total_time_in_ms-direct_total", count / 1000000, "ms");
  is_derive("reclaim/total_events-untimed", count, "untimed");
  is_derive("reclaim/total_events-events_lost", count, "events lost");
  ledger_free(ledger);
  config_fini(&config);
}

/* 2^53 ms are more than 64 bits of ns: the limit is one of ns. */
static void test_ms_are_rounded_once(uint64_t limit) {
  struct config config;
  config_init(&config);
  struct ledger *ledger = new_ledger();
  uint64_t ns = limit - 5 * ODD_NS;
  *add_row("java") = (struct reclaim_row){.stalls = 1, .time_ns = ns};
  read_now(ledger);
  bool exact = true;
  for (int i = 0; i < 10; i++) {
    *add_row("java") = (struct reclaim_row){.stalls = 1, .time_ns = ODD_NS};
    read_now(ledger);
    ns += ODD_NS;
    stub_reset();
    dispatch_ledger(&config, ledger, 0, NOW);
    const struct stub_value *ms =
        stub_find("reclaim-java/total_time_in_ms-direct");
    exact = exact && ms && (uint64_t)ms->value.derive == ns / 1000000;
  }
  ok(exact, "ms are the whole ms of all ns at %" PRIu64, limit);
  ledger_free(ledger);
  config_fini(&config);
}

/* A row's buckets have 32 bits; full rows, until the sum has passed 2^53. */
static void test_histogram(void) {
  struct config config;
  config_init(&config);
  config.histogram = CONFIG_HISTOGRAM_NAMES;
  struct ledger *ledger = new_ledger();
  uint64_t count = 0;
  for (int i = 0; i < 4100; i++) {
    for (int r = 0; r < MAX_ROWS; r++) {
      struct reclaim_row *row = add_row("java");
      row->stalls = row->buckets[3] = UINT32_MAX;
      count += UINT32_MAX;
    }
    read_now(ledger);
  }
  struct reclaim_row *row = add_row("java");
  row->stalls = row->buckets[RECLAIM_BOUNDS] = 1;
  row->longest_ns = 11 * SECOND;
  read_now(ledger);
  stub_reset();
  dispatch_ledger(&config, ledger, 0, NOW);
  ok(count > 1ULL << 53, "a bucket beyond 2^53");
  is_derive("reclaim-java/total_operations-direct_le_10s", count,
            "is exact, with all that it was filled with");
  is_derive("reclaim-java/total_operations-direct_le_inf", count + 1,
            "and one more is one more");
  is_derive("reclaim/total_events-untimed", 0, "none of them is untimed");
  ledger_free(ledger);
  config_fini(&config);
}

static void test_percentiles(void) {
  uint64_t buckets[RECLAIM_BUCKETS] = {[0] = 1ULL << 62, [6] = 1ULL << 61};
  double median = histogram_percentile_s(buckets, 9 * MS, 50);
  double p99 = histogram_percentile_s(buckets, 9 * MS, 99);
  ok(median == 1e-5 && p99 == 0.009, "percentiles of 2^62 stalls");
  buckets[6] = 0;
  buckets[RECLAIM_BOUNDS] = 1ULL << 61;
  ok(histogram_percentile_s(buckets, 1ULL << 53, 99) == 9007199.254740992,
     "and of stalls of 2^53 ns");
}

/* Of three names two have a place, in ledger and keep: those of the greater
 * times, by whatever bits these differ. */
static void test_ranks(uint64_t limit) {
  struct ledger *ledger = new_ledger();
  struct keep *keep = keep_new(4, 2);
  const char *names[] = {"a-least", "b-most", "c-more"};
  const uint64_t times_ns[] = {limit, limit + 2, limit + 1};
  for (size_t i = 0; i < 3; i++)
    *add_row(names[i]) =
        (struct reclaim_row){.stalls = 1, .time_ns = times_ns[i]};
  ledger_add_interval(ledger, interval.rows, interval.num, SECOND);
  ok(!find_series(ledger, RECLAIM_DIRECT, LEDGER_NAME, "a-least") &&
         find_series(ledger, RECLAIM_DIRECT, LEDGER_NAME, "c-more"),
     "names are told apart by 1 ns at %" PRIu64, limit);
  for (size_t i = 0; i < 3; i++)
    interval.rows[i].held = true;
  keep_update(keep, interval.rows, interval.num);
  interval.num = 0;
  size_t num;
  const struct reclaim_row_key *keys = keep_keys(keep, &num);
  ok(num == 2 && strcmp(keys[0].comm, "b-most") == 0 &&
         strcmp(keys[1].comm, "c-more") == 0,
     "so are those that keep a row");
  keep_free(keep);
  ledger_free(ledger);
}

/* A stall that is seen at ages around the limit, and ends. */
static void test_under_way(uint64_t limit) {
  static const uint64_t begin_ns = 12345;
  struct inflight *inflight = inflight_new();
  struct inflight_shares shares;
  struct bpf_source_under_way stall = {
      .kind = RECLAIM_DIRECT, .begin_ns = begin_ns, .confirmed = true};
  uint64_t told = 0, age_ns = 0;
  bool exact = true;
  for (int i = 0; i < 10; i++) {
    age_ns = limit - 5 + (uint64_t)i;
    struct bpf_source_rows drained = {.all_rows = true,
                                      .all_under_way = true,
                                      .opened_ns = begin_ns + age_ns,
                                      .under_way = &stall,
                                      .under_way_num = 1};
    inflight_update(inflight, &drained, &shares);
    told += shares.rows[0].time_ns;
    exact = exact && told == age_ns && shares.rows[0].longest_ns == age_ns &&
            shares.oldest_ns[RECLAIM_DIRECT] == age_ns;
  }
  struct reclaim_row_key key = {.kind = RECLAIM_DIRECT,
                                .flags = RECLAIM_ROW_ALONE};
  struct reclaim_row row = {
      .stalls = 1, .time_ns = age_ns + 3, .longest_ns = age_ns + 3};
  struct bpf_source_rows drained = {.keys = &key,
                                    .rows = &row,
                                    .num = 1,
                                    .all_rows = true,
                                    .all_under_way = true,
                                    .opened_ns = begin_ns + age_ns + 4,
                                    .under_way = &stall};
  inflight_update(inflight, &drained, &shares);
  ok(exact && row.time_ns == 3 && row.longest_ns == age_ns + 3,
     "a stall under way for %" PRIu64 " ns is told to the ns", limit);
  inflight_free(inflight);
}

static void test_host(uint64_t limit) {
  char text[512];
  struct host_account account = {.has_allocstall = false};
  snprintf(text, sizeof(text),
           "allocstall_dma 1\nallocstall_normal %" PRIu64
           "\nallocstall_movable 2\ncompact_stall %" PRIu64
           "\noom_kill %" PRIu64 "\n",
           limit - 1, limit + 1, limit + 1);
  host_parse_vmstat(text, &account);
  snprintf(text, sizeof(text),
           "some avg10=0.00 avg60=0.00 avg300=0.00 total=%" PRIu64
           "\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=%" PRIu64 "\n",
           limit + 1, limit - 1);
  host_parse_pressure(text, &account);
  stub_reset();
  dispatch_host(&account, NOW);
  is_derive("reclaim/total_events-allocstall", limit + 2, "zones are added up");
  is_derive("reclaim/total_events-compact_stall", limit + 1, "compact_stall");
  is_derive("reclaim/total_events-oom_kill", limit + 1, "oom_kill");
  is_derive("reclaim/total_time_in_ms-psi_some", (limit + 1) / 1000, "PSI");
  is_derive("reclaim/total_time_in_ms-psi_full", (limit - 1) / 1000, "in ms");
}

int main(void) {
  for (size_t i = 0; i < sizeof(limits) / sizeof(*limits); i++) {
    test_counters(limits[i]);
    test_ms_are_rounded_once(limits[i]);
    test_ranks(limits[i]);
    test_under_way(limits[i]);
    test_host(limits[i]);
  }
  test_under_way(1ULL << 42);
  test_histogram();
  test_percentiles();
  return done();
}
