/* SPDX-License-Identifier: MIT */
#include "tests/unit/collectd_stub.h"

#include "plugin/config.h"
#include "tests/unit/tap.h"

#define STRING(text)                                                           \
  {                                                                            \
    .type = OCONFIG_TYPE_STRING, .value = {.string = text }                    \
  }
#define NUMBER(n)                                                              \
  {                                                                            \
    .type = OCONFIG_TYPE_NUMBER, .value = {.number = n }                       \
  }
#define BOOLEAN(b)                                                             \
  {                                                                            \
    .type = OCONFIG_TYPE_BOOLEAN, .value = {.boolean = b }                     \
  }

struct option_case {
  const char *key;
  int values_num;
  oconfig_value_t values[3];
  const char *reason; /* NULL: good */
};

static const struct option_case cases[] = {
    {"Kinds", 1, {STRING("node")}, NULL},
    {"kinds", 2, {STRING("Direct"), STRING("memcg")}, NULL},
    {"Kinds", 2, {STRING("compact"), STRING("throttle")}, NULL},
    {"Kinds", 2, {STRING("memcg"), STRING("MEMCG_proactive")}, NULL},
    {"Kinds", 1, {STRING("memcg_pro")}, "must be some of"},
    {"Kinds",
     0,
     {BOOLEAN(0)},
     "must be some of direct, memcg, memcg_proactive, node, compact"},
    {"Kinds",
     1,
     {STRING("kswapd")},
     "must be some of direct, memcg, memcg_proactive, node"},
    {"Kinds", 2, {STRING("direct"), NUMBER(1)}, "must be some of direct"},
    {"GroupBy", 1, {STRING("process")}, NULL},
    {"GroupBy", 1, {STRING("cgroup")}, NULL},
    {"GroupBy", 1, {STRING("pod")}, "must be one of comm, process, cgroup"},
    {"GroupBy", 1, {BOOLEAN(1)}, "must be one of comm, process"},
    {"Fold", 1, {BOOLEAN(0)}, NULL},
    {"Fold", 1, {STRING("no")}, "must be true or false"},
    {"Fold", 2, {BOOLEAN(1), BOOLEAN(1)}, "must be true or false"},
    {"Name", 1, {STRING("java")}, NULL},
    {"Name", 1, {STRING("/^stress-/")}, NULL},
    {"Name", 1, {STRING("/(/")}, "regular expression"},
    {"Name", 1, {NUMBER(3)}, "must be one name"},
    {"Name", 2, {STRING("a"), STRING("b")}, "must be one name"},
    {"IgnoreSelected", 1, {BOOLEAN(1)}, NULL},
    {"IgnoreSelected", 1, {NUMBER(1)}, "must be true or false"},
    {"MaxNames", 1, {NUMBER(1)}, NULL},
    {"MaxNames", 1, {NUMBER(1000)}, NULL},
    {"MaxNames", 1, {NUMBER(0)}, "one whole number from 1 to 1000"},
    {"MaxNames", 1, {NUMBER(1001)}, "one whole number from 1 to 1000"},
    {"MaxNames", 1, {NUMBER(2.5)}, "one whole number from 1 to 1000"},
    {"MaxNames", 1, {NUMBER(NAN)}, "one whole number from 1 to 1000"},
    {"MaxNames", 1, {STRING("20")}, "one whole number from 1 to 1000"},
    {"MaxNames", 0, {BOOLEAN(0)}, "one whole number from 1 to 1000"},
    {"MaxTracked", 1, {NUMBER(64)}, NULL},
    {"MaxTracked", 1, {NUMBER(65536)}, NULL},
    {"MaxTracked", 1, {NUMBER(63)}, "from 64 to 65536"},
    {"MaxTracked", 1, {NUMBER(65537)}, "from 64 to 65536"},
    {"IdleIntervals", 1, {NUMBER(2)}, NULL},
    {"IdleIntervals", 1, {NUMBER(1)}, "from 2 to 100000"},
    {"IdleIntervals", 1, {NUMBER(100001)}, "from 2 to 100000"},
    {"NewNamesPerHour", 1, {NUMBER(100000)}, NULL},
    {"NewNamesPerHour", 1, {NUMBER(0)}, "from 1 to 100000"},
    {"NewNamesPerHour", 1, {NUMBER(-1)}, "from 1 to 100000"},
    {"ReportFruitless", 1, {BOOLEAN(1)}, NULL},
    {"ReportFruitless", 1, {STRING("maybe")}, "must be true or false"},
    {"ReportMaximum", 1, {BOOLEAN(1)}, NULL},
    {"ReportMaximum", 0, {BOOLEAN(0)}, "must be true or false"},
    {"Histogram", 1, {STRING("Names")}, NULL},
    {"Histogram", 1, {STRING("all")}, "must be one of none, total, names"},
    {"Percentile", 1, {NUMBER(99.9)}, NULL},
    {"Percentile", 1, {NUMBER(1)}, NULL},
    {"Percentile", 1, {NUMBER(100)}, "one number from 1 to 99.9"},
    {"Percentile", 1, {NUMBER(0.5)}, "one number from 1 to 99.9"},
    {"Percentile", 1, {STRING("99")}, "one number from 1 to 99.9"},
    {"BTF", 1, {STRING("/boot/btf")}, NULL},
    {"BTF", 1, {STRING("btf")}, "the absolute path of one BTF file"},
    {"BTF", 1, {NUMBER(1)}, "the absolute path of one BTF file"},
    {"ReportHost", 1, {BOOLEAN(0)}, NULL},
    {"ReportHost", 1, {NUMBER(1)}, "must be true or false"},
    {"EventThreshold", 1, {NUMBER(0.000001)}, NULL},
    {"EventThreshold", 1, {NUMBER(3600)}, NULL},
    {"EventThreshold", 1, {NUMBER(0)}, "seconds from 0.000001 to 3600"},
    {"EventThreshold", 1, {NUMBER(3601)}, "seconds from 0.000001 to 3600"},
    {"EventThreshold", 1, {STRING("1s")}, "seconds from 0.000001 to 3600"},
    {"EventsPerInterval", 1, {NUMBER(10000)}, NULL},
    {"EventsPerInterval", 1, {NUMBER(0)}, "from 1 to 10000"},
    {"EventsPerInterval", 1, {NUMBER(10001)}, "from 1 to 10000"},
    {"MaxName", 1, {NUMBER(1)}, "unknown option; known are Kinds, "},
};

static int parse(struct config *config, oconfig_item_t *options, int num) {
  oconfig_item_t block = {
      .key = "Plugin", .children = options, .children_num = num};
  return config_parse(config, &block);
}

static oconfig_item_t item(const char *key, oconfig_value_t *value) {
  return (oconfig_item_t){.key = (char *)key, .values = value, .values_num = 1};
}

static void test_each_option(const struct option_case *wanted) {
  struct config config;
  config_init(&config);
  stub_reset();
  oconfig_item_t option = {.key = (char *)wanted->key,
                           .values = (oconfig_value_t *)wanted->values,
                           .values_num = wanted->values_num};
  int err = parse(&config, &option, 1);
  if (!wanted->reason)
    ok(err == 0 && stub_log[0] == '\0', "%s is taken", wanted->key);
  else if (!ok(err == -EINVAL && strstr(stub_log, wanted->reason) &&
                   strstr(stub_log, "3 block <Plugin reclaim>, option `") &&
                   strstr(stub_log, wanted->key),
               "%s is refused: %s", wanted->key, wanted->reason))
    printf("# %d: %s\n", err, stub_log);
  config_fini(&config);
}

static void test_defaults(void) {
  struct config config;
  config_init(&config);
  ok(config.kinds[RECLAIM_DIRECT] && config.kinds[RECLAIM_MEMCG] &&
         config.kinds[RECLAIM_MEMCG_PROACTIVE] &&
         config.kinds[RECLAIM_COMPACT] && config.kinds[RECLAIM_THROTTLE] &&
         !config.kinds[RECLAIM_NODE] && !config.kinds_named,
     "by default all kinds but node");
  ok(config.fold && config.group_by == RECLAIM_BY_COMM &&
         !config.ignore_selected,
     "by default folded comms, all of them");
  ok(config.max_names == 20 && config.max_tracked == 4096 &&
         config.idle_intervals == 30 && config.new_names_per_hour == 20,
     "the default bounds");
  ok(!config.report_fruitless && !config.report_maximum &&
         config.histogram == CONFIG_HISTOGRAM_NONE &&
         config.percentiles_num == 0 && !config.btf_file,
     "nothing that costs series by default");
  ok(config.event_threshold_ns == 0 && config.events_per_interval == 10,
     "no events, or few");
  ok(config_selects(&config, "java"), "every name is selected");
  config_fini(&config);
}

static void test_values_arrive(void) {
  struct config config;
  config_init(&config);
  oconfig_value_t values[] = {
      STRING("node"),  STRING("process"), BOOLEAN(0), NUMBER(7),
      NUMBER(128),     NUMBER(9),         NUMBER(11), BOOLEAN(1),
      STRING("names"), NUMBER(99.9),      NUMBER(50), NUMBER(99.90),
      STRING("/a"),    STRING("/b"),      BOOLEAN(1), NUMBER(0.25),
      NUMBER(3)};
  const char *keys[] = {"Kinds",
                        "GroupBy",
                        "Fold",
                        "MaxNames",
                        "MaxTracked",
                        "IdleIntervals",
                        "NewNamesPerHour",
                        "ReportFruitless",
                        "Histogram",
                        "Percentile",
                        "Percentile",
                        "Percentile",
                        "BTF",
                        "BTF",
                        "ReportMaximum",
                        "EventThreshold",
                        "EventsPerInterval"};
  oconfig_item_t options[17];
  for (int i = 0; i < 17; i++)
    options[i] = item(keys[i], &values[i]);
  is_u64((uint64_t)parse(&config, options, 17), 0, "a full block is taken");
  ok(config.kinds[RECLAIM_NODE] && !config.kinds[RECLAIM_DIRECT] &&
         config.kinds_named,
     "Kinds replaces the default");
  ok(config.group_by == RECLAIM_BY_PROCESS && !config.fold, "GroupBy, Fold");
  ok(config.max_names == 7 && config.max_tracked == 128 &&
         config.idle_intervals == 9 && config.new_names_per_hour == 11,
     "the numbers");
  ok(config.report_fruitless && config.report_maximum &&
         config.histogram == CONFIG_HISTOGRAM_NAMES,
     "ReportFruitless, ReportMaximum, Histogram");
  is_u64(config.percentiles_num, 2, "a percentile given twice counts once");
  is_str(config.percentiles[0].suffix, "p99_9", "no dot in an identifier");
  is_str(config.percentiles[1].suffix, "p50", "a whole percentile");
  ok(config.event_threshold_ns == 250000000 && config.events_per_interval == 3,
     "EventThreshold in ns, EventsPerInterval");
  is_str(config.btf_file, "/b", "of two, the last holds");
  config_fini(&config);
}

static void test_all_errors_are_told(void) {
  struct config config;
  config_init(&config);
  stub_reset();
  oconfig_value_t values[] = {NUMBER(0), NUMBER(0), NUMBER(5)};
  oconfig_item_t options[] = {item("MaxNames", &values[0]),
                              item("MaxTracked", &values[1]),
                              item("IdleIntervals", &values[2])};
  ok(parse(&config, options, 3) == -EINVAL &&
         strstr(stub_log, "`MaxNames 0'") && strstr(stub_log, "`MaxTracked 0'"),
     "each wrong option is named, with its value");
  is_u64(config.idle_intervals, 5, "those behind it are still read");
  config_fini(&config);
}

/* Whether `wanted` is selected by the Names `first` and `second`. */
static bool selected(const char *first, const char *second, bool ignore,
                     const char *wanted) {
  struct config config;
  config_init(&config);
  oconfig_value_t values[] = {STRING((char *)first), STRING((char *)second),
                              BOOLEAN(ignore)};
  oconfig_item_t options[] = {item("Name", &values[0]),
                              item("Name", &values[1]),
                              item("IgnoreSelected", &values[2])};
  parse(&config, options, 3);
  bool result = config_selects(&config, wanted);
  config_fini(&config);
  return result;
}

static void test_selection(void) {
  ok(selected("java", "/^stress/", false, "java"), "a name by itself");
  ok(selected("java", "/^stress/", false, "stress-ng-vm"), "by expression");
  ok(!selected("java", "/^stress/", false, "sshd"), "others are left out");
  ok(!selected("java", "/^stress/", false, "java8"), "a name is whole");
  ok(!selected("java", "/^stress/", true, "java"), "IgnoreSelected turns it");
  ok(selected("java", "/^stress/", true, "sshd"), "and takes the others");
  ok(selected("x", "/(a|b)[0-9]+$/", false, "b12"), "extended expressions");
}

static void test_impossible_names(void) {
  struct {
    const char *name;
    int err;
    const char *log;
    enum reclaim_group_by group_by;
  } names[] = {
      {"java", 0, "", RECLAIM_BY_COMM},
      {"pool-1", 0, "is called `pool'", RECLAIM_BY_COMM},
      {"kworker/0:1", -EINVAL, "nothing can have this name", RECLAIM_BY_COMM},
      {"a.b", -EINVAL, "nothing can have this name", RECLAIM_BY_COMM},
      {"_other", -EINVAL, "nothing can have this name", RECLAIM_BY_COMM},
      {"", -EINVAL, "nothing can have this name", RECLAIM_BY_COMM},
      {"sixteen-bytes-in", -EINVAL, "nothing can have this name",
       RECLAIM_BY_COMM},
      {"fifteen-bytes-a", 0, "", RECLAIM_BY_COMM},
      {"of-a-cgroup-not-a-comm-1", 0, "", RECLAIM_BY_CGROUP},
      {"of-a-cgroup.service", -EINVAL, "1 to 63 bytes", RECLAIM_BY_CGROUP},
  };
  for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
    struct config config;
    config_init(&config);
    config.group_by = names[i].group_by;
    stub_reset();
    oconfig_value_t value = STRING((char *)names[i].name);
    oconfig_item_t option = item("Name", &value);
    parse(&config, &option, 1);
    int err = config_check(&config);
    ok(err == names[i].err && strstr(stub_log, names[i].log) &&
           (names[i].log[0] || !stub_log[0]),
       "Name \"%s\" is judged", names[i].name);
    config_fini(&config);
  }
}

int main(void) {
  test_defaults();
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
    test_each_option(&cases[i]);
  test_values_arrive();
  test_all_errors_are_told();
  test_selection();
  test_impossible_names();
  return done();
}
