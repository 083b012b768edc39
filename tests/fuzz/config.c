/* SPDX-License-Identifier: MIT */
/* Blocks of the configuration: what is accepted is what README allows, and is
 * kept; each option that is refused is told of in one ERROR; nothing leaks. */
#include <math.h>

#include "plugin/comm.h"
#include "plugin/config.h"
#include "plugin/kind.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/collectd_stub.h"

static const char *const keys[] = {"Kinds",
                                   "GroupBy",
                                   "Fold",
                                   "Name",
                                   "IgnoreSelected",
                                   "MaxNames",
                                   "MaxTracked",
                                   "IdleIntervals",
                                   "NewNamesPerHour",
                                   "Percentile",
                                   "ReportFruitless",
                                   "ReportMaximum",
                                   "Histogram",
                                   "ReportHost",
                                   "EventThreshold",
                                   "BTF",
                                   "EventsPerInterval",
                                   "nAME",
                                   "Colour",
                                   ""};
static const char *const words[] = {
    "direct", "memcg",   "MEMCG_proactive", "node", "compact", "throttle",
    "comm",   "process", "cgroup",          "none", "total",   "Names",
    "true",   "java",    "Thread-12",       "/x",   "/a|b/",   "//"};

#define COUNT(array) (sizeof(array) / sizeof(*(array)))
#define CHILDREN_MAX 8
#define VALUES_MAX 4

/* Making a tree */

/* Braces are left out: what regcomp of the C library makes of a{9999} is no
 * business of ours. */
static char *take_string(struct input *input) {
  if (take_bool(input))
    return strdup(words[take_one_of(input, COUNT(words))]);
  char *text = take_text(input, 70);
  for (char *at = text; *at != '\0'; at++)
    if (*at < ' ' || *at > '~' || *at == '{')
      *at = '(';
  if (text[0] == '/' && strlen(text) > 12)
    text[12] = '\0';
  return text;
}

static double take_double(struct input *input) {
  static const double doubles[] = {
      0,    -0.0, 0.5,   1e-6,   1e-7,     3600, 3600.1,    99.9, 99.95, 50,
      33.3, 99,   1e300, -1e300, INFINITY, NAN,  -INFINITY, 1,    64,    65536};
  switch (take_one_of(input, 4)) {
  case 0:
    return doubles[take_one_of(input, COUNT(doubles))];
  case 1:
    return (double)(int64_t)take_u64(input);
  case 2: {
    double number;
    take_bytes(input, &number, sizeof(number));
    return number;
  }
  default:
    return (double)take_one_of(input, 65536) / (take_bool(input) ? 1 : 100);
  }
}

static oconfig_value_t take_value(struct input *input) {
  oconfig_value_t value = {.type = (int)take_one_of(input, 3)};
  if (value.type == OCONFIG_TYPE_STRING)
    value.value.string = take_string(input);
  else if (value.type == OCONFIG_TYPE_NUMBER)
    value.value.number = take_double(input);
  else
    value.value.boolean = take_bool(input);
  return value;
}

static void take_item(struct input *input, oconfig_item_t *item, int depth) {
  size_t key = take_one_of(input, COUNT(keys) + 1);
  *item = (oconfig_item_t){
      .key = key < COUNT(keys) ? strdup(keys[key]) : take_string(input),
      .values_num = (int)take_one_of(input, VALUES_MAX),
  };
  if (take_one_of(input, 8) == 0 && depth < 3)
    item->children_num = (int)take_one_of(input, 3);
  item->values = calloc(VALUES_MAX, sizeof(*item->values));
  item->children = calloc(CHILDREN_MAX, sizeof(*item->children));
  for (int i = 0; i < item->values_num; i++)
    item->values[i] = take_value(input);
  for (int i = 0; i < item->children_num; i++)
    take_item(input, &item->children[i], depth + 1);
}

static void free_item(oconfig_item_t *item) {
  for (int i = 0; i < item->values_num; i++)
    if (item->values[i].type == OCONFIG_TYPE_STRING)
      free(item->values[i].value.string);
  for (int i = 0; i < item->children_num; i++)
    free_item(&item->children[i]);
  free(item->values);
  free(item->children);
  free(item->key);
}

/* What README says */

struct range {
  const char *key;
  double min, max;
  size_t offset;
};

static const struct range sizes[] = {
    {"MaxNames", 1, 1000, offsetof(struct config, max_names)},
    {"MaxTracked", 64, 65536, offsetof(struct config, max_tracked)},
    {"IdleIntervals", 2, 100000, offsetof(struct config, idle_intervals)},
    {"NewNamesPerHour", 1, 100000, offsetof(struct config, new_names_per_hour)},
    {"EventsPerInterval", 1, 10000,
     offsetof(struct config, events_per_interval)},
};
static const struct range flags[] = {
    {"Fold", 0, 1, offsetof(struct config, fold)},
    {"IgnoreSelected", 0, 1, offsetof(struct config, ignore_selected)},
    {"ReportFruitless", 0, 1, offsetof(struct config, report_fruitless)},
    {"ReportMaximum", 0, 1, offsetof(struct config, report_maximum)},
    {"ReportHost", 0, 1, offsetof(struct config, report_host)},
};

static bool is(const oconfig_item_t *item, const char *key) {
  return strcasecmp(item->key, key) == 0;
}

static const struct range *find_range(const oconfig_item_t *item,
                                      const struct range *ranges, size_t num) {
  for (size_t i = 0; i < num; i++)
    if (is(item, ranges[i].key))
      return &ranges[i];
  return NULL;
}

static bool has_one(const oconfig_item_t *item, int type) {
  return item->values_num == 1 && item->children_num == 0 &&
         item->values[0].type == type;
}

static bool is_between(const oconfig_item_t *item, double min, double max) {
  return has_one(item, OCONFIG_TYPE_NUMBER) &&
         item->values[0].value.number >= min &&
         item->values[0].value.number <= max;
}

static bool has_word(const oconfig_item_t *item, const char *const *choices,
                     size_t num) {
  for (size_t i = 0; i < num; i++)
    if (has_one(item, OCONFIG_TYPE_STRING) &&
        strcasecmp(item->values[0].value.string, choices[i]) == 0)
      return true;
  return false;
}

static bool are_kinds(const oconfig_item_t *item) {
  for (int i = 0; i < item->values_num; i++) {
    const oconfig_item_t one = {.values_num = 1, .values = &item->values[i]};
    if (!has_word(&one, words, RECLAIM_KINDS))
      return false;
  }
  return item->values_num > 0 && item->children_num == 0;
}

/* Of a Name that is a regular expression only regcomp can tell. */
static bool is_regex(const char *text) {
  size_t len = strlen(text);
  return len > 2 && text[0] == '/' && text[len - 1] == '/';
}

static bool is_good(const oconfig_item_t *item) {
  const struct range *range = find_range(item, sizes, COUNT(sizes));
  if (range)
    return is_between(item, range->min, range->max) &&
           item->values[0].value.number == floor(item->values[0].value.number);
  if (find_range(item, flags, COUNT(flags)))
    return has_one(item, OCONFIG_TYPE_BOOLEAN);
  if (is(item, "Kinds"))
    return are_kinds(item);
  if (is(item, "GroupBy"))
    return has_word(item, &words[6], 3);
  if (is(item, "Histogram"))
    return has_word(item, &words[9], 3);
  if (is(item, "Percentile"))
    return is_between(item, 1, 99.9);
  if (is(item, "EventThreshold"))
    return is_between(item, 0.000001, 3600);
  if (is(item, "BTF"))
    return has_one(item, OCONFIG_TYPE_STRING) &&
           item->values[0].value.string[0] == '/';
  return is(item, "Name") && has_one(item, OCONFIG_TYPE_STRING);
}

/* What was made of it */

static size_t count_lines(const char *severity) {
  size_t num = 0;
  for (const char *line = stub_log; *line != '\0';
       line = strchr(line, '\n') + 1)
    num += strncmp(line, severity, strlen(severity)) == 0;
  return num;
}

static void check_kept(const struct config *config,
                       const oconfig_item_t *item) {
  const struct range *range = find_range(item, sizes, COUNT(sizes));
  const oconfig_value_t *value = &item->values[0];
  if (range)
    MUST((double)*(const size_t *)((const char *)config + range->offset) ==
         value->value.number);
  range = find_range(item, flags, COUNT(flags));
  if (range)
    MUST(*(const bool *)((const char *)config + range->offset) ==
         value->value.boolean);
  if (is(item, "BTF"))
    MUST(strcmp(config->btf_file, value->value.string) == 0);
  if (is(item, "Name"))
    MUST(strstr(value->value.string,
                config->names[config->names_num - 1].text) != NULL);
}

static void parse_alone(struct config *config, oconfig_item_t *item) {
  const oconfig_item_t block = {.children = item, .children_num = 1};
  stub_reset();
  int err = config_parse(config, &block);
  bool regex = err != 0 && is(item, "Name") &&
               has_one(item, OCONFIG_TYPE_STRING) &&
               is_regex(item->values[0].value.string);
  MUST((err == 0) == (is_good(item) && !regex));
  MUST(count_lines("3 ") == (err != 0));
  MUST(count_lines("") == (err != 0));
  char named[128];
  snprintf(named, sizeof(named), "block <Plugin reclaim>, option `%s ",
           item->key);
  MUST(err == 0 || strstr(stub_log, named));
  if (err == 0)
    check_kept(config, item);
}

static void check_ranges(const struct config *config) {
  for (size_t i = 0; i < COUNT(sizes); i++) {
    size_t size = *(const size_t *)((const char *)config + sizes[i].offset);
    MUST((double)size >= sizes[i].min && (double)size <= sizes[i].max);
  }
  MUST(config->event_threshold_ns == 0 ||
       (config->event_threshold_ns >= 1000 &&
        config->event_threshold_ns <= 3600000000000));
  for (size_t i = 0; i < config->percentiles_num; i++) {
    const struct config_percentile *percentile = &config->percentiles[i];
    MUST(percentile->percent >= 1 && percentile->percent <= 99.9);
    MUST(percentile->suffix[0] == 'p' &&
         strspn(percentile->suffix + 1, "0123456789_") ==
             strlen(percentile->suffix) - 1);
    for (size_t j = 0; j < i; j++)
      MUST(strcmp(percentile->suffix, config->percentiles[j].suffix) != 0);
  }
  size_t kinds = 0;
  for (size_t kind = 0; kind < RECLAIM_KINDS; kind++)
    kinds += config->kinds[kind];
  MUST(kinds > 0);
}

/* Names that can be had are those that are clean, and short enough. */
static void check_names(const struct config *config) {
  size_t longest = config->group_by == RECLAIM_BY_CGROUP ? 63 : 15;
  const char *stranger = "nobody-is-called-so";
  size_t bad = 0, regexes = 0, strangers = 0;
  for (size_t i = 0; i < config->names_num; i++) {
    const char *text = config->names[i].text;
    strangers += strcmp(text, stranger) == 0;
    char name[COMM_NAME_SIZE];
    comm_clean(text, strlen(text), name);
    regexes += config->names[i].is_regex;
    bad += !config->names[i].is_regex &&
           (strcmp(name, text) != 0 || strlen(text) > longest);
  }
  stub_reset();
  MUST((config_check(config) == 0) == (bad == 0));
  MUST(count_lines("3 ") == bad);
  for (size_t i = 0; i < config->names_num; i++)
    if (!config->names[i].is_regex)
      MUST(config_selects(config, config->names[i].text) !=
           config->ignore_selected);
  if (regexes == 0 && strangers == 0)
    MUST(config_selects(config, stranger) ==
         (config->ignore_selected || config->names_num == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct input input = {data, size};
  struct config config, whole;
  oconfig_item_t children[CHILDREN_MAX];
  oconfig_item_t block = {.key = "Plugin", .children = children};
  config_init(&config);
  config_init(&whole);
  struct input last = input;
  while (block.children_num < CHILDREN_MAX && input.left > 0) {
    bool repeats = block.children_num > 0 && take_one_of(&input, 4) == 0;
    struct input from = repeats ? last : input;
    last = from;
    take_item(&from, &children[block.children_num++], 0);
    if (!repeats)
      input = from;
  }

  size_t errors = 0;
  for (int i = 0; i < block.children_num; i++) {
    parse_alone(&config, &children[i]);
    errors += stub_log[0] != '\0';
  }
  check_ranges(&config);
  check_names(&config);
  stub_reset();
  MUST((config_parse(&whole, &block) == 0) == (errors == 0));
  MUST(count_lines("") == errors);
  MUST(whole.names_num == config.names_num);

  config_fini(&config);
  config_fini(&whole);
  for (int i = 0; i < block.children_num; i++)
    free_item(&children[i]);
  return 0;
}
