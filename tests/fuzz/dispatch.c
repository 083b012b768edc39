/* SPDX-License-Identifier: MIT */
/* From rows to collectd's values: no identifier twice, only what the network
 * protocol and stores bear, counters that never fall, parts that add up. */
#include <math.h>

#include "plugin/dispatch.h"
#include "plugin/kind.h"
#include "tests/fuzz/rows.h"
#include "tests/unit/collectd_stub.h"

/* Sorted by identifier: of this read, and as they were in the one before. */
static const struct stub_value *values[STUB_MAX];
static struct stub_value before[STUB_MAX];
static size_t before_num;

static bool selects(void *context, const char *name) {
  return config_selects(context, name);
}

static void take_config(struct input *input, struct config *config) {
  static struct config_percentile percentiles[] = {{1, "p1"}, {99.9, "p99_9"}};
  uint8_t flags = take_byte(input);
  config_init(config);
  config->report_fruitless = flags & 1;
  config->report_maximum = flags & 2;
  config->histogram = flags >> 2 & 3;
  if (config->histogram > CONFIG_HISTOGRAM_NAMES)
    config->histogram = CONFIG_HISTOGRAM_NONE;
  config->percentiles = percentiles;
  config->percentiles_num = flags >> 4 & 1 ? 2 : 0;
  config->ignore_selected = false;
}

static bool is_counter(const struct stub_value *value) {
  const char *type = strchr(value->identifier, '/') + 1;
  return strncmp(type, "total_", 6) == 0 || strncmp(type, "vmpage_", 7) == 0;
}

static int compare(const void *a, const void *b) {
  const struct stub_value *const *left = a, *const *right = b;
  return strcmp((*left)->identifier, (*right)->identifier);
}

static int compare_identifier(const void *identifier, const void *value) {
  return strcmp(identifier, ((const struct stub_value *)value)->identifier);
}

/* Whether there is a total of the same type instance: a sum over all instances
 * would count twice. */
static bool has_twin(const struct stub_value *value) {
  struct stub_value twin;
  const struct stub_value *key = &twin;
  snprintf(twin.identifier, sizeof(twin.identifier), "reclaim%s",
           strchr(value->identifier, '/'));
  return value->identifier[strlen("reclaim")] == '-' &&
         bsearch(&key, values, stub_values_num, sizeof(*values), compare);
}

static void check_value(const struct stub_value *value) {
  static const char allowed[] = "0123456789-_/"
                                "abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  MUST(value->identifier[strspn(value->identifier, allowed)] == '\0');
  MUST(strncmp(value->identifier, "reclaim", 7) == 0);
  MUST(!has_twin(value));
  if (!is_counter(value)) {
    MUST(isfinite(value->value.gauge) && value->value.gauge >= 0);
    return;
  }
  const struct stub_value *old = bsearch(value->identifier, before, before_num,
                                         sizeof(*before), compare_identifier);
  MUST(value->value.derive >= 0);
  MUST(old ? value->value.derive >= old->value.derive
           : value->value.derive == 0);
}

/* A counter of the total is what names and `_other` have, where nobody is new:
 * of stalls and pages, which are whole; names that ended took theirs away. */
static void check_parts(const char *type, enum reclaim_kind kind) {
  char identifier[128], suffix[64];
  snprintf(identifier, sizeof(identifier), "reclaim/%s-%s_total", type,
           kind_name(kind));
  snprintf(suffix, sizeof(suffix), "/%s-%s", type, kind_name(kind));
  const struct stub_value *total = stub_find(identifier);
  if (!total)
    return;
  int64_t parts = 0;
  for (size_t i = 0; i < stub_values_num; i++) {
    const char *in = strchr(stub_values[i].identifier, '/');
    if (strcmp(in, suffix) == 0)
      parts += stub_values[i].value.derive;
  }
  MUST(parts <= total->value.derive);
}

/* Of one series, bounds in order. */
static void check_histograms(void) {
  const struct stub_value *last = NULL;
  for (size_t i = 0; i < stub_values_num; i++) {
    const struct stub_value *value = &stub_values[i];
    if (!strstr(value->identifier, "/total_operations-"))
      last = NULL;
    else if (!strstr(value->identifier, "_le_10us") && last)
      MUST(value->value.derive >= last->value.derive);
    if (strstr(value->identifier, "/total_operations-"))
      last = value;
  }
}

/* Percentiles follow the longest, which none exceeds, in order. */
static void check_percentiles(void) {
  for (size_t i = 0; i + 2 < stub_values_num; i++) {
    const struct stub_value *longest = &stub_values[i];
    size_t len = strlen(longest->identifier);
    if (!strstr(longest->identifier, "/latency-") ||
        strcmp(longest->identifier + len - 4, "_max") != 0 ||
        !strstr(longest[1].identifier, "/latency-"))
      continue;
    MUST(longest[1].value.gauge <= longest[2].value.gauge);
    MUST(longest[2].value.gauge <= longest->value.gauge);
  }
}

static void check_read(const struct ledger *ledger) {
  struct ledger_health health = ledger_health(ledger);
  for (size_t i = 0; i < stub_values_num; i++)
    values[i] = &stub_values[i];
  qsort(values, stub_values_num, sizeof(*values), compare);
  for (size_t i = 0; i < stub_values_num; i++) {
    MUST(i == 0 || compare(&values[i - 1], &values[i]) != 0);
    check_value(values[i]);
  }
  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++) {
    check_parts("total_events", kind);
    check_parts("vmpage_action", kind);
  }
  check_histograms();
  check_percentiles();
  MUST(stub_find("reclaim/count-names")->value.gauge == (double)health.names);
  MUST(stub_find("reclaim/count-rows")->value.gauge == (double)health.rows);
  before_num = stub_values_num;
  for (size_t i = 0; i < before_num; i++)
    before[i] = *values[i];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct input input = {data, size};
  struct config config;
  take_config(&input, &config);
  struct ledger_options options = take_ledger_options(&input, selects, &config);
  /* One that reclaims pages, and one that does not; more would take long. */
  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++)
    options.kinds[kind] &= kind == RECLAIM_MEMCG || kind == RECLAIM_COMPACT;
  struct ledger *ledger = ledger_new(&options);
  struct rows rows = {.left = INT64_MAX};
  uint64_t now_ns = 0, lost = 0;
  before_num = 0;
  while (input.left > 0) {
    now_ns += take_interval_ns(&input);
    lost += take_byte(&input);
    take_rows(&input, &rows, ROWS_MAX);
    ledger_add_interval(ledger, rows.rows, rows.num, now_ns);
    stub_reset();
    dispatch_ledger(&config, ledger, lost, NS_TO_CDTIME_T(now_ns >> 1));
    check_read(ledger);
  }
  ledger_free(ledger);
  return 0;
}
