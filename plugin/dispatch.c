/* SPDX-License-Identifier: MIT */
#include "plugin/collectd_api.h"

#include "dispatch.h"
#include "histogram.h"
#include "kind.h"

/* snprintf would take longer than all the rest of a read without stalls. */
static void copy_name(char to[DATA_MAX_NAME_LEN], const char *from) {
  size_t len = strnlen(from, DATA_MAX_NAME_LEN - 1);
  memcpy(to, from, len);
  to[len] = '\0';
}

/* One value. `instance` is a name, or "" for totals and the host's facts; host
 * and interval are filled in by collectd. */
static void submit(const char *instance, const char *type,
                   const char *type_instance, value_t value, cdtime_t now) {
  value_list_t list = VALUE_LIST_INIT;
  list.values = &value;
  list.values_len = 1;
  list.time = now;
  copy_name(list.plugin, RECLAIM_PLUGIN);
  copy_name(list.plugin_instance, instance);
  copy_name(list.type, type);
  copy_name(list.type_instance, type_instance);
  plugin_dispatch_values(&list);
}

/* Values of one series: `direct`, `direct_max`; of a total `direct_total`,
 * `direct_total_max`. A total's type instance is its own, so that no sum over
 * instances counts twice. */
static void submit_of_series(const struct ledger_series *series,
                             const char *type, const char *suffix,
                             value_t value, cdtime_t now) {
  char type_instance[DATA_MAX_NAME_LEN];
  char *end = stpcpy(type_instance, kind_name(series->kind));
  if (series->scope == LEDGER_TOTAL)
    end = stpcpy(end, "_total");
  if (suffix[0])
    stpcpy(stpcpy(end, "_"), suffix);
  submit(series->name, type, type_instance, value, now);
}

/* collectd has no rate for the first value of a DERIVE: a newborn starts from
 * 0, and its first share is in the rate of the next read. */
static void submit_counter(const struct ledger_series *series, const char *type,
                           const char *suffix, uint64_t counter, cdtime_t now) {
  value_t value = {.derive = series->newborn ? 0 : (derive_t)counter};
  submit_of_series(series, type, suffix, value, now);
}

static void submit_gauge(const struct ledger_series *series, const char *type,
                         const char *suffix, double gauge, cdtime_t now) {
  submit_of_series(series, type, suffix, (value_t){.gauge = gauge}, now);
}

static void submit_histogram(const struct ledger_series *series, cdtime_t now) {
  uint64_t cumulative = 0;
  for (size_t i = 0; i < RECLAIM_BUCKETS; i++) {
    char suffix[16];
    snprintf(suffix, sizeof(suffix), "le_%s", histogram_bound_label(i));
    cumulative += series->sum.buckets[i];
    submit_counter(series, "total_operations", suffix, cumulative, now);
  }
}

static void dispatch_series(const struct config *config,
                            const struct ledger_series *series, cdtime_t now) {
  const struct ledger_counts *sum = &series->sum;
  bool total = series->scope == LEDGER_TOTAL;

  submit_counter(series, "total_events", "", sum->stalls, now);
  submit_counter(series, "total_time_in_ms", "", sum->time_ns / 1000000, now);
  if (kind_reclaims(series->kind))
    submit_counter(series, "vmpage_action", "", sum->pages, now);
  if (kind_reclaims(series->kind) && (total || config->report_fruitless))
    submit_counter(series, "total_events", "fruitless", sum->fruitless, now);
  if (total || config->report_maximum) {
    submit_gauge(series, "latency", "max", (double)series->longest_ns / 1e9,
                 now);
    for (size_t i = 0; i < config->percentiles_num; i++)
      submit_gauge(series, "latency", config->percentiles[i].suffix,
                   histogram_percentile_s(series->interval.buckets,
                                          series->longest_ns,
                                          config->percentiles[i].percent),
                   now);
  }
  if (config->histogram == CONFIG_HISTOGRAM_NAMES ||
      (total && config->histogram == CONFIG_HISTOGRAM_TOTAL))
    submit_histogram(series, now);
}

static void submit_health(const struct ledger_health *health,
                          const char *type_instance, uint64_t counter,
                          cdtime_t now) {
  value_t value = {.derive = health->newborn ? 0 : (derive_t)counter};
  submit("", "total_events", type_instance, value, now);
}

static void dispatch_health(struct ledger_health health, uint64_t events_lost,
                            cdtime_t now) {
  submit_health(&health, "unattributed", health.unattributed, now);
  submit_health(&health, "untimed", health.untimed, now);
  submit_health(&health, "events_lost", events_lost, now);
  submit("", "count", "names", (value_t){.gauge = (gauge_t)health.names}, now);
  submit("", "count", "rows", (value_t){.gauge = (gauge_t)health.rows}, now);
}

void dispatch_ledger(const struct config *config, const struct ledger *ledger,
                     uint64_t events_lost, cdtime_t now) {
  size_t num;
  const struct ledger_series *const *series = ledger_series(ledger, &num);
  for (size_t i = 0; i < num; i++)
    dispatch_series(config, series[i], now);
  dispatch_health(ledger_health(ledger), events_lost, now);
}

void dispatch_under_way(enum reclaim_kind kind, uint64_t pending,
                        uint64_t oldest_ns, cdtime_t now) {
  char total[DATA_MAX_NAME_LEN], oldest[DATA_MAX_NAME_LEN];
  snprintf(total, sizeof(total), "%s_total", kind_name(kind));
  snprintf(oldest, sizeof(oldest), "%s_total_oldest", kind_name(kind));
  submit("", "pending_operations", total, (value_t){.gauge = (gauge_t)pending},
         now);
  submit("", "duration", oldest, (value_t){.gauge = (double)oldest_ns / 1e9},
         now);
}

void dispatch_attached(enum reclaim_kind kind, bool attached, cdtime_t now) {
  char type_instance[DATA_MAX_NAME_LEN];
  snprintf(type_instance, sizeof(type_instance), "attached_%s",
           kind_name(kind));
  submit("", "gauge", type_instance, (value_t){.gauge = attached ? 1 : 0}, now);
}

static void submit_account(const char *type, const char *type_instance,
                           bool has, uint64_t counter, cdtime_t now) {
  if (has)
    submit("", type, type_instance, (value_t){.derive = (derive_t)counter},
           now);
}

void dispatch_host(const struct host_account *account, cdtime_t now) {
  submit_account("total_events", "allocstall", account->has_allocstall,
                 account->allocstall, now);
  submit_account("total_events", "compact_stall", account->has_compact_stall,
                 account->compact_stall, now);
  submit_account("total_events", "oom_kill", account->has_oom_kill,
                 account->oom_kill, now);
  submit_account("total_time_in_ms", "psi_some", account->has_psi_some,
                 account->psi_some_us / 1000, now);
  submit_account("total_time_in_ms", "psi_full", account->has_psi_full,
                 account->psi_full_us / 1000, now);
}

void dispatch_coverage(double coverage, cdtime_t now) {
  submit("", "gauge", "coverage", (value_t){.gauge = coverage}, now);
}

void dispatch_read_time(uint64_t took_ns, cdtime_t now) {
  submit("", "duration", "read", (value_t){.gauge = (double)took_ns / 1e9},
         now);
}
