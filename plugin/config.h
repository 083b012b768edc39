/* SPDX-License-Identifier: MIT */
/* <Plugin reclaim> to checked options. Not thread-safe; collectd reads its
 * configuration in one thread, before any other starts. */
#ifndef RECLAIM_CONFIG_H
#define RECLAIM_CONFIG_H

#include <regex.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/reclaim_shared.h"
#include "plugin/collectd_api.h"

enum config_histogram {
  CONFIG_HISTOGRAM_NONE,
  CONFIG_HISTOGRAM_TOTAL,
  CONFIG_HISTOGRAM_NAMES
};

struct config_name {
  char *text;
  bool is_regex; /* text was given as /text/ */
  regex_t regex; /* compiled where is_regex */
};

struct config_percentile {
  double percent;  /* 1 to 99.9 */
  char suffix[16]; /* of a type instance: "p99", "p99_9" */
};

struct config {
  bool kinds[RECLAIM_KINDS];
  bool kinds_named; /* by the user, not by default */
  enum reclaim_group_by group_by;
  bool fold;
  struct config_name *names;
  size_t names_num;
  bool ignore_selected;
  size_t max_names;
  size_t max_tracked;
  size_t idle_intervals;
  size_t new_names_per_hour;
  bool report_fruitless;
  bool report_maximum;
  enum config_histogram histogram;
  struct config_percentile *percentiles;
  size_t percentiles_num;
  bool report_host;
  uint64_t event_threshold_ns; /* 0: no notifications */
  size_t events_per_interval;
  char *btf_file; /* NULL: the kernel's own */
};

/* Sets the defaults. The caller ends it with config_fini. */
void config_init(struct config *config);

/* Takes one <Plugin reclaim> block; of several blocks, later ones add to and
 * override earlier ones. Returns 0, or -EINVAL or -ENOMEM after one ERROR for
 * each option that is wrong. */
int config_parse(struct config *config, const oconfig_item_t *block);

/* Checks what needs all blocks. Returns 0, with a WARNING for each Name that
 * Fold gives to nobody with that comm; or -EINVAL after an ERROR for each Name
 * that no task can have. */
int config_check(const struct config *config);

/* Whether `name`, cleaned and folded, may have a series. */
bool config_selects(const struct config *config, const char *name);

/* Frees what the config holds. */
void config_fini(struct config *config);

#endif
