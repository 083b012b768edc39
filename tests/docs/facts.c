/* SPDX-License-Identifier: MIT */
/* What the plugin makes of options, for test_docs.py. Each argument is an
 * option as a line of <Plugin reclaim>; quotes are not known.
 *
 * Prints "refused" and what the log says; or "default" or "changed", and then,
 * a line each, the identifiers of all values that may be dispatched while a
 * program called NAME stalls. */
#include "tests/unit/collectd_stub.h"

#include "plugin/dispatch.h"
#include "plugin/kind.h"
#include "tests/unit/intervals.h"

#define WORDS_MAX 16
#define OPTIONS_MAX 16
#define NOW ((cdtime_t)1)

/* As collectd's parser takes a word without quotes. */
static oconfig_value_t parse_word(char *word) {
  char *end;
  double number = strtod(word, &end);
  if (*end == '\0')
    return (oconfig_value_t){.type = OCONFIG_TYPE_NUMBER,
                             .value.number = number};
  bool is_true = strcmp(word, "true") == 0;
  if (is_true || strcmp(word, "false") == 0)
    return (oconfig_value_t){.type = OCONFIG_TYPE_BOOLEAN,
                             .value.boolean = is_true};
  return (oconfig_value_t){.type = OCONFIG_TYPE_STRING, .value.string = word};
}

static void parse_line(char *line, oconfig_item_t *option,
                       oconfig_value_t values[WORDS_MAX]) {
  char *rest = line, *word;
  *option = (oconfig_item_t){.key = strsep(&rest, " "), .values = values};
  while ((word = strsep(&rest, " ")) && option->values_num < WORDS_MAX)
    values[option->values_num++] = parse_word(word);
}

static int parse(char **lines, int num, struct config *config) {
  static oconfig_item_t options[OPTIONS_MAX];
  static oconfig_value_t values[OPTIONS_MAX][WORDS_MAX];
  if (num > OPTIONS_MAX)
    abort();
  for (int i = 0; i < num; i++)
    parse_line(lines[i], &options[i], values[i]);
  oconfig_item_t block = {.children = options, .children_num = num};
  return config_parse(config, &block);
}

/* As reclaim_read does where all goes well. */
static void dispatch_all(const struct config *config) {
  static struct interval interval;
  struct ledger_options options = {.max_names = config->max_names,
                                   .idle_intervals = config->idle_intervals,
                                   .new_names_per_hour =
                                       config->new_names_per_hour,
                                   .max_rows = MAX_ROWS,
                                   .selects = selects_all};
  memcpy(options.kinds, config->kinds, sizeof(options.kinds));
  struct ledger *ledger = ledger_new(&options);
  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++)
    if (config->kinds[kind]) {
      interval_add(&interval, kind, "NAME", "NAME", 1, MS, 1);
      dispatch_attached(kind, true, NOW);
      if (kind_has_begin(kind))
        dispatch_under_way(kind, 0, 0, NOW);
    }
  ledger_add_interval(ledger, interval.rows, interval.num, 1);
  dispatch_ledger(config, ledger, 0, NOW);
  dispatch_read_time(1, NOW);
  if (config->report_host) {
    struct host_account account = {true, 0, true, 0, true, 0, true, 0, true, 0};
    dispatch_host(&account, NOW);
    if (config->kinds[RECLAIM_DIRECT])
      dispatch_coverage(1, NOW);
  }
  ledger_free(ledger);
}

int main(int argc, char **argv) {
  struct config config, defaults;
  config_init(&config);
  memcpy(&defaults, &config, sizeof(config));
  if (parse(argv + 1, argc - 1, &config) != 0) {
    printf("refused\n%s", stub_log);
  } else {
    config.kinds_named = false; /* the same kinds are the same */
    printf("%s\n", memcmp(&config, &defaults, sizeof(config)) == 0 ? "default"
                                                                   : "changed");
    dispatch_all(&config);
    for (size_t i = 0; i < stub_values_num; i++)
      printf("%s\n", stub_values[i].identifier);
  }
  config_fini(&config);
  return 0;
}
