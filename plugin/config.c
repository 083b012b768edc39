/* SPDX-License-Identifier: MIT */
#include "plugin/collectd_api.h"

#include "comm.h"
#include "config.h"
#include "kind.h"

void config_init(struct config *config) {
  *config = (struct config){
      .kinds = {[RECLAIM_DIRECT] = true,
                [RECLAIM_MEMCG] = true,
                [RECLAIM_MEMCG_PROACTIVE] = true,
                [RECLAIM_COMPACT] = true,
                [RECLAIM_THROTTLE] = true},
      .fold = true,
      .max_names = 20,
      .max_tracked = 4096,
      .idle_intervals = 30,
      .new_names_per_hour = 20,
      .report_host = true,
      .events_per_interval = 10,
  };
}

void config_fini(struct config *config) {
  for (size_t i = 0; i < config->names_num; i++) {
    if (config->names[i].is_regex)
      regfree(&config->names[i].regex);
    free(config->names[i].text);
  }
  free(config->names);
  free(config->percentiles);
  free(config->btf_file);
  *config = (struct config){0};
}

/* Complaints */

/* What stands in the file, as far as the parser kept it. */
static void print_values(const oconfig_item_t *option, char *text,
                         size_t size) {
  size_t used = 0;
  text[0] = '\0';
  for (int i = 0; i < option->values_num && used < size; i++) {
    const oconfig_value_t *value = &option->values[i];
    const char *space = i > 0 ? " " : "";
    if (value->type == OCONFIG_TYPE_STRING)
      used += snprintf(text + used, size - used, "%s\"%s\"", space,
                       value->value.string);
    else if (value->type == OCONFIG_TYPE_NUMBER)
      used += snprintf(text + used, size - used, "%s%.15g", space,
                       value->value.number);
    else
      used += snprintf(text + used, size - used, "%s%s", space,
                       value->value.boolean ? "true" : "false");
  }
}

/* Returns -EINVAL, so that a parser can end with it. */
__attribute__((format(printf, 2, 3))) static int
report(const oconfig_item_t *option, const char *format, ...) {
  char values[256], reason[512];
  print_values(option, values, sizeof(values));
  va_list args;
  va_start(args, format);
  vsnprintf(reason, sizeof(reason), format, args);
  va_end(args);
  P_ERROR("block <Plugin %s>, option `%s %s': %s", RECLAIM_PLUGIN, option->key,
          values, reason);
  return -EINVAL;
}

/* Values by type */

static bool has_one_value(const oconfig_item_t *option, int type) {
  return option->values_num == 1 && option->children_num == 0 &&
         option->values[0].type == type;
}

static int parse_boolean(const oconfig_item_t *option, bool *flag) {
  if (!has_one_value(option, OCONFIG_TYPE_BOOLEAN))
    return report(option, "must be true or false");
  *flag = option->values[0].value.boolean;
  return 0;
}

static int parse_size(const oconfig_item_t *option, size_t min, size_t max,
                      size_t *size) {
  double number = has_one_value(option, OCONFIG_TYPE_NUMBER)
                      ? option->values[0].value.number
                      : NAN;
  if (!(number >= (double)min && number <= (double)max) ||
      number != floor(number))
    return report(option, "must be one whole number from %zu to %zu", min, max);
  *size = (size_t)number;
  return 0;
}

static int parse_choice(const oconfig_item_t *option,
                        const char *const *choices, const char *range,
                        int *choice) {
  if (has_one_value(option, OCONFIG_TYPE_STRING))
    for (int i = 0; choices[i]; i++)
      if (strcasecmp(option->values[0].value.string, choices[i]) == 0) {
        *choice = i;
        return 0;
      }
  return report(option, "must be one of %s", range);
}

/* Options of their own form */

static int find_kind(const oconfig_value_t *value, enum reclaim_kind *found) {
  if (value->type != OCONFIG_TYPE_STRING)
    return -EINVAL;
  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++)
    if (strcasecmp(value->value.string, kind_name(kind)) == 0) {
      *found = kind;
      return 0;
    }
  return -EINVAL;
}

static int parse_kinds(struct config *config, const oconfig_item_t *option) {
  bool kinds[RECLAIM_KINDS] = {false};
  bool good = option->values_num > 0 && option->children_num == 0;
  for (int i = 0; good && i < option->values_num; i++) {
    enum reclaim_kind kind;
    good = find_kind(&option->values[i], &kind) == 0;
    if (good)
      kinds[kind] = true;
  }
  if (!good)
    return report(option,
                  "must be some of direct, memcg, memcg_proactive, node, "
                  "compact, throttle");
  memcpy(config->kinds, kinds, sizeof(kinds));
  config->kinds_named = true;
  return 0;
}

static int parse_group_by(struct config *config, const oconfig_item_t *option) {
  static const char *const choices[] = {[RECLAIM_BY_COMM] = "comm",
                                        [RECLAIM_BY_PROCESS] = "process",
                                        [RECLAIM_BY_CGROUP] = "cgroup",
                                        NULL};
  int choice = RECLAIM_BY_COMM;
  int err = parse_choice(option, choices, "comm, process, cgroup", &choice);
  config->group_by = choice;
  return err;
}

static int parse_histogram(struct config *config,
                           const oconfig_item_t *option) {
  static const char *const choices[] = {[CONFIG_HISTOGRAM_NONE] = "none",
                                        [CONFIG_HISTOGRAM_TOTAL] = "total",
                                        [CONFIG_HISTOGRAM_NAMES] = "names",
                                        NULL};
  int choice = CONFIG_HISTOGRAM_NONE;
  int err = parse_choice(option, choices, "none, total, names", &choice);
  config->histogram = choice;
  return err;
}

static int compile_regex(const oconfig_item_t *option,
                         struct config_name *name) {
  int err = regcomp(&name->regex, name->text, REG_EXTENDED | REG_NOSUB);
  if (err == 0)
    return 0;
  char reason[128];
  regerror(err, &name->regex, reason, sizeof(reason));
  return report(option, "must be a POSIX extended regular expression: %s",
                reason);
}

static int parse_name(struct config *config, const oconfig_item_t *option) {
  if (!has_one_value(option, OCONFIG_TYPE_STRING))
    return report(option, "must be one name or one \"/regular expression/\"");

  struct config_name *names =
      realloc(config->names, (config->names_num + 1) * sizeof(*names));
  if (!names)
    return report(option, "out of memory");
  config->names = names;

  const char *text = option->values[0].value.string;
  size_t len = strlen(text);
  struct config_name *name = &names[config->names_num];
  name->is_regex = len > 2 && text[0] == '/' && text[len - 1] == '/';
  name->text = name->is_regex ? strndup(text + 1, len - 2) : strdup(text);
  if (!name->text)
    return report(option, "out of memory");
  if (name->is_regex && compile_regex(option, name) != 0) {
    free(name->text);
    return -EINVAL;
  }
  config->names_num++;
  return 0;
}

static int parse_percentile(struct config *config,
                            const oconfig_item_t *option) {
  double percent = has_one_value(option, OCONFIG_TYPE_NUMBER)
                       ? option->values[0].value.number
                       : NAN;
  if (!(percent >= 1 && percent <= 99.9))
    return report(option, "must be one number from 1 to 99.9");

  struct config_percentile new = {.percent = percent};
  snprintf(new.suffix, sizeof(new.suffix), "p%g", percent);
  for (char *c = new.suffix; *c; c++)
    if (*c == '.' || *c == ',')
      *c = '_';
  /* Two series must never share an identifier. */
  for (size_t i = 0; i < config->percentiles_num; i++)
    if (strcmp(config->percentiles[i].suffix, new.suffix) == 0)
      return 0;

  struct config_percentile *percentiles =
      realloc(config->percentiles,
              (config->percentiles_num + 1) * sizeof(*percentiles));
  if (!percentiles)
    return report(option, "out of memory");
  config->percentiles = percentiles;
  config->percentiles[config->percentiles_num++] = new;
  return 0;
}

static int parse_event_threshold(struct config *config,
                                 const oconfig_item_t *option) {
  double seconds = has_one_value(option, OCONFIG_TYPE_NUMBER)
                       ? option->values[0].value.number
                       : NAN;
  if (!(seconds >= 1e-6 && seconds <= 3600))
    return report(option, "must be one number of seconds from 0.000001 to "
                          "3600");
  config->event_threshold_ns = (uint64_t)llround(seconds * 1e9);
  return 0;
}

static int parse_btf(struct config *config, const oconfig_item_t *option) {
  if (!has_one_value(option, OCONFIG_TYPE_STRING) ||
      option->values[0].value.string[0] != '/')
    return report(option, "must be the absolute path of one BTF file");
  free(config->btf_file);
  config->btf_file = strdup(option->values[0].value.string);
  return config->btf_file ? 0 : report(option, "out of memory");
}

/* The block */

static int parse_option(struct config *config, const oconfig_item_t *option) {
  const char *key = option->key;
  if (strcasecmp(key, "Kinds") == 0)
    return parse_kinds(config, option);
  if (strcasecmp(key, "GroupBy") == 0)
    return parse_group_by(config, option);
  if (strcasecmp(key, "Fold") == 0)
    return parse_boolean(option, &config->fold);
  if (strcasecmp(key, "Name") == 0)
    return parse_name(config, option);
  if (strcasecmp(key, "IgnoreSelected") == 0)
    return parse_boolean(option, &config->ignore_selected);
  if (strcasecmp(key, "MaxNames") == 0)
    return parse_size(option, 1, 1000, &config->max_names);
  if (strcasecmp(key, "MaxTracked") == 0)
    return parse_size(option, 64, 65536, &config->max_tracked);
  if (strcasecmp(key, "IdleIntervals") == 0)
    return parse_size(option, 2, 100000, &config->idle_intervals);
  if (strcasecmp(key, "NewNamesPerHour") == 0)
    return parse_size(option, 1, 100000, &config->new_names_per_hour);
  if (strcasecmp(key, "ReportFruitless") == 0)
    return parse_boolean(option, &config->report_fruitless);
  if (strcasecmp(key, "ReportMaximum") == 0)
    return parse_boolean(option, &config->report_maximum);
  if (strcasecmp(key, "Histogram") == 0)
    return parse_histogram(config, option);
  if (strcasecmp(key, "Percentile") == 0)
    return parse_percentile(config, option);
  if (strcasecmp(key, "ReportHost") == 0)
    return parse_boolean(option, &config->report_host);
  if (strcasecmp(key, "EventThreshold") == 0)
    return parse_event_threshold(config, option);
  if (strcasecmp(key, "EventsPerInterval") == 0)
    return parse_size(option, 1, 10000, &config->events_per_interval);
  if (strcasecmp(key, "BTF") == 0)
    return parse_btf(config, option);
  return report(option, "unknown option; known are Kinds, GroupBy, Fold, Name, "
                        "IgnoreSelected, MaxNames, MaxTracked, IdleIntervals, "
                        "NewNamesPerHour, ReportFruitless, ReportMaximum, "
                        "Histogram, Percentile, ReportHost, EventThreshold, "
                        "EventsPerInterval, BTF");
}

int config_parse(struct config *config, const oconfig_item_t *block) {
  int first_err = 0;
  for (int i = 0; i < block->children_num; i++) {
    int err = parse_option(config, &block->children[i]);
    if (first_err == 0)
      first_err = err;
  }
  return first_err;
}

/* Names */

/* What a task, or a cgroup, called `wanted` is named; false if none can be. */
static bool clean_name(const struct config *config, const char *wanted,
                       char name[COMM_NAME_SIZE]) {
  char cleaned[COMM_NAME_SIZE];
  size_t len = strlen(wanted);
  comm_clean(wanted, len, cleaned);
  if (strcmp(cleaned, wanted) != 0)
    return false;
  char comm[RECLAIM_COMM_SIZE] = "";
  if (config->group_by == RECLAIM_BY_CGROUP || len >= sizeof(comm)) {
    memcpy(name, cleaned, sizeof(cleaned));
    return config->group_by == RECLAIM_BY_CGROUP;
  }
  /* NOLINTNEXTLINE(bugprone-not-null-terminated-result): zeros are there */
  memcpy(comm, wanted, len);
  comm_name(comm, false, config->fold, name);
  return true;
}

static int check_name(const struct config *config, const char *wanted) {
  char name[COMM_NAME_SIZE];
  if (!clean_name(config, wanted, name)) {
    P_ERROR("block <Plugin %s>, option `Name \"%s\"': nothing can have this "
            "name: names are 1 to %d bytes of A-Za-z0-9_-, without `_' at "
            "either end; see README, Names",
            RECLAIM_PLUGIN, wanted,
            config->group_by == RECLAIM_BY_CGROUP ? COMM_NAME_SIZE - 1
                                                  : RECLAIM_COMM_SIZE - 1);
    return -EINVAL;
  }
  if (strcmp(name, wanted) != 0)
    P_WARNING("block <Plugin %s>, option `Name \"%s\"': with Fold, a task with "
              "this comm is called `%s'; see README, Names",
              RECLAIM_PLUGIN, wanted, name);
  return 0;
}

int config_check(const struct config *config) {
  int first_err = 0;
  for (size_t i = 0; i < config->names_num; i++) {
    const struct config_name *name = &config->names[i];
    int err = name->is_regex ? 0 : check_name(config, name->text);
    if (first_err == 0)
      first_err = err;
  }
  return first_err;
}

static bool name_matches(const struct config_name *wanted, const char *name) {
  return wanted->is_regex ? regexec(&wanted->regex, name, 0, NULL, 0) == 0
                          : strcmp(wanted->text, name) == 0;
}

bool config_selects(const struct config *config, const char *name) {
  bool listed = config->names_num == 0 && !config->ignore_selected;
  for (size_t i = 0; i < config->names_num && !listed; i++)
    listed = name_matches(&config->names[i], name);
  return listed != config->ignore_selected;
}
