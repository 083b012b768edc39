/* SPDX-License-Identifier: MIT */
#include "tests/unit/collectd_stub.h"

#include "plugin/dispatch.h"
#include "tests/unit/intervals.h"
#include "tests/unit/tap.h"

#define NOW ((cdtime_t)1234567)

static struct interval interval;

static struct ledger *new_ledger(void) {
  struct ledger_options options = {.kinds = {[RECLAIM_DIRECT] = true},
                                   .max_names = 1,
                                   .idle_intervals = 30,
                                   .new_names_per_hour = 20,
                                   .max_rows = MAX_ROWS,
                                   .selects = selects_all};
  return ledger_new(&options);
}

static void stall(const char *name, uint64_t stalls, uint64_t each_ns,
                  uint64_t pages) {
  interval_add(&interval, RECLAIM_DIRECT, name, name, stalls, each_ns, pages);
}

static void read_and_dispatch(const struct config *config,
                              struct ledger *ledger) {
  ledger_add_interval(ledger, interval.rows, interval.num, 1);
  interval.num = 0;
  stub_reset();
  dispatch_ledger(config, ledger, 7, NOW);
}

static void is_derive(const char *identifier, derive_t wanted,
                      const char *what) {
  const struct stub_value *stub = stub_find(identifier);
  if (!ok(stub && stub->value.derive == wanted, "%s", what))
    printf("# %s: got %" PRIi64 ", wanted %" PRIi64 "\n", identifier,
           stub ? stub->value.derive : -1, wanted);
}

static void is_gauge(const char *identifier, double wanted, const char *what) {
  const struct stub_value *stub = stub_find(identifier);
  double difference = stub ? stub->value.gauge - wanted : NAN;
  if (!ok(difference < 1e-12 && difference > -1e-12, "%s", what))
    printf("# %s: got %g, wanted %g\n", identifier,
           stub ? stub->value.gauge : NAN, wanted);
}

static void test_default_series(void) {
  struct config config;
  config_init(&config);
  struct ledger *ledger = new_ledger();

  stall("java", 2, 3 * MS, 32);
  read_and_dispatch(&config, ledger);
  is_derive("reclaim/total_events-direct_total", 0,
            "a total's first value is 0");
  is_derive("reclaim-java/total_events-direct", 0, "so is a newborn name's");
  is_derive("reclaim/total_events-events_lost", 0, "so is that of health");
  is_gauge("reclaim/latency-direct_total_max", 0.003,
           "a gauge is what it is from the first");

  stall("java", 1, 2999999, 0);
  stall("sshd", 1, 1 * MS, 5);
  read_and_dispatch(&config, ledger);
  is_derive("reclaim/total_events-direct_total", 4, "stalls of all");
  is_derive("reclaim/total_time_in_ms-direct_total", 9,
            "time in ms, rounded down once");
  is_derive("reclaim/vmpage_action-direct_total", 69, "pages of all");
  is_derive("reclaim/total_events-direct_total_fruitless", 1,
            "fruitless stalls of all");
  is_gauge("reclaim/latency-direct_total_max", 0.002999999,
           "the longest of the interval in s");
  is_derive("reclaim-java/total_events-direct", 3, "stalls of a name");
  is_derive("reclaim-java/total_time_in_ms-direct", 8, "time of a name");
  is_derive("reclaim-java/vmpage_action-direct", 64, "pages of a name");
  is_derive("reclaim-_other/total_events-direct", 0, "_other is newborn");
  is_derive("reclaim/total_events-unattributed", 0, "unattributed");
  is_derive("reclaim/total_events-untimed", 0, "untimed");
  is_derive("reclaim/total_events-events_lost", 7, "events lost");
  is_gauge("reclaim/count-names", 1, "names with series");
  is_gauge("reclaim/count-rows", 2, "rows drained");
  is_u64(stub_values_num, 5 + 3 + 3 + 5, "and nothing else by default");

  bool one_time = true;
  for (size_t i = 0; i < stub_values_num; i++)
    one_time = one_time && stub_values[i].time == NOW;
  ok(one_time, "all values carry one time");

  read_and_dispatch(&config, ledger);
  is_derive("reclaim-java/total_events-direct", 3,
            "a calm name is dispatched all the same");
  is_derive("reclaim-_other/total_events-direct", 1, "_other counts");
  is_gauge("reclaim/latency-direct_total_max", 0, "0 s where none stalled");
  ledger_free(ledger);
  config_fini(&config);
}

static void test_optional_series(void) {
  struct config config;
  config_init(&config);
  config.report_fruitless = config.report_maximum = true;
  config.histogram = CONFIG_HISTOGRAM_NAMES;
  static struct config_percentile percentiles[] = {
      {.percent = 50, .suffix = "p50"}, {.percent = 99.9, .suffix = "p99_9"}};
  config.percentiles = percentiles;
  config.percentiles_num = 2;
  struct ledger *ledger = new_ledger();
  read_and_dispatch(&config, ledger);
  stall("java", 3, 20000, 0);
  stall("java", 1, 50 * MS, 1);
  read_and_dispatch(&config, ledger);
  is_gauge("reclaim-java/latency-direct_max", 0.05, "longest of a name");
  is_gauge("reclaim-java/latency-direct_p50", 30e-6, "median of a name");
  is_gauge("reclaim-java/latency-direct_p99_9", 0.05, "p99.9 of a name");
  is_gauge("reclaim/latency-direct_total_p50", 30e-6, "median of all");
  read_and_dispatch(&config, ledger);
  is_derive("reclaim-java/total_events-direct_fruitless", 3,
            "fruitless stalls of a name");
  is_derive("reclaim-java/total_operations-direct_le_10us", 0, "below 10 us");
  is_derive("reclaim-java/total_operations-direct_le_30us", 3, "below 30 us");
  is_derive("reclaim-java/total_operations-direct_le_30ms", 3, "below 30 ms");
  is_derive("reclaim-java/total_operations-direct_le_100ms", 4,
            "bounds are cumulative");
  is_derive("reclaim-java/total_operations-direct_le_inf", 4, "all");
  is_derive("reclaim/total_operations-direct_total_le_inf", 4, "in the total");
  is_gauge("reclaim-java/latency-direct_p50", 0, "0 where none stalled");

  config.histogram = CONFIG_HISTOGRAM_TOTAL;
  read_and_dispatch(&config, ledger);
  ok(stub_find("reclaim/total_operations-direct_total_le_1s") &&
         !stub_find("reclaim-java/total_operations-direct_le_1s"),
     "Histogram total leaves names out");
  ledger_free(ledger);
}

static void test_facts(void) {
  stub_reset();
  dispatch_attached(RECLAIM_MEMCG, true, NOW);
  dispatch_attached(RECLAIM_NODE, false, NOW);
  dispatch_read_time(2500000, NOW);
  dispatch_under_way(RECLAIM_COMPACT, 3, 1500000000, NOW);
  is_gauge("reclaim/pending_operations-compact_total", 3, "tasks stalled now");
  is_gauge("reclaim/duration-compact_total_oldest", 1.5,
           "and for how many s the first of them has been");
  is_gauge("reclaim/gauge-attached_memcg", 1, "an attached kind");
  is_gauge("reclaim/gauge-attached_node", 0, "one that is not");
  is_gauge("reclaim/duration-read", 0.0025, "the read's time in s");
}

static void test_host(void) {
  struct host_account account = {.has_allocstall = true,
                                 .allocstall = 5,
                                 .has_compact_stall = true,
                                 .compact_stall = 6,
                                 .has_psi_some = true,
                                 .psi_some_us = 7999,
                                 .has_psi_full = true,
                                 .psi_full_us = 8000};
  stub_reset();
  dispatch_host(&account, NOW);
  is_derive("reclaim/total_events-allocstall", 5, "allocstall");
  is_derive("reclaim/total_events-compact_stall", 6, "compact_stall");
  is_derive("reclaim/total_time_in_ms-psi_some", 7, "PSI in ms, rounded down");
  is_derive("reclaim/total_time_in_ms-psi_full", 8, "full PSI");
  is_u64(stub_values_num, 4, "what the kernel lacks is left out");
  account = (struct host_account){.has_oom_kill = true, .oom_kill = 2};
  stub_reset();
  dispatch_host(&account, NOW);
  is_derive("reclaim/total_events-oom_kill", 2, "oom_kill");
  is_u64(stub_values_num, 1, "and nothing else");
  dispatch_coverage(0.75, NOW);
  is_gauge("reclaim/gauge-coverage", 0.75, "coverage");
}

static void test_without_pages(void) {
  struct config config;
  config_init(&config);
  config.report_fruitless = true;
  struct ledger_options options = {.kinds = {[RECLAIM_COMPACT] = true},
                                   .max_names = 3,
                                   .idle_intervals = 3,
                                   .new_names_per_hour = 3,
                                   .max_rows = 3,
                                   .selects = selects_all};
  struct ledger *ledger = ledger_new(&options);
  interval_add(&interval, RECLAIM_COMPACT, "java", "java", 1, MS, 0);
  read_and_dispatch(&config, ledger);
  ok(stub_find("reclaim-java/total_events-compact") &&
         stub_find("reclaim/total_time_in_ms-compact_total") &&
         !stub_find("reclaim-java/vmpage_action-compact") &&
         !stub_find("reclaim-java/total_events-compact_fruitless") &&
         !stub_find("reclaim/total_events-compact_total_fruitless"),
     "a kind that reclaims nothing has no series of pages");
  ledger_free(ledger);
  config_fini(&config);
}

int main(void) {
  test_host();
  test_without_pages();
  test_default_series();
  test_optional_series();
  test_facts();
  return done();
}
