/* SPDX-License-Identifier: MIT */
/* The plugin's face: what collectd calls, wired to the parts. */
#include "plugin/collectd_api.h"

#include "bpf_source.h"
#include "clock.h"
#include "config.h"
#include "dispatch.h"
#include "keep.h"
#include "ledger.h"
#include "watch.h"

static struct {
  struct config config;
  int config_err;            /* found while the configuration was read */
  struct bpf_source *source; /* NULL where BPF cannot be had */
  struct ledger *ledger;
  struct keep *keep;
  struct ledger_row *rows;
  struct watch *watch; /* NULL without EventThreshold */
  c_complain_t drain_complaint;
} reclaim;

static void log_to_collectd(enum log_level level, const char *message) {
  static const int severities[] = {[RECLAIM_LOG_ERROR] = LOG_ERR,
                                   [RECLAIM_LOG_WARNING] = LOG_WARNING,
                                   [RECLAIM_LOG_INFO] = LOG_INFO};
  daemon_log(severities[level], "%s", message);
}

/* Returns 0 whatever the block says: an error here would stop all of collectd.
 * reclaim_init refuses instead, which unloads this plugin alone. */
static int reclaim_config(oconfig_item_t *block) {
  int err = config_parse(&reclaim.config, block);
  if (err != 0)
    reclaim.config_err = err;
  return 0;
}

static bool selects(void *context, const char *name) {
  return config_selects(context, name);
}

static int reclaim_shutdown(void) {
  watch_free(reclaim.watch); /* before what it watches */
  bpf_source_free(reclaim.source);
  ledger_free(reclaim.ledger);
  keep_free(reclaim.keep);
  free(reclaim.rows);
  config_fini(&reclaim.config);
  reclaim.watch = NULL;
  reclaim.source = NULL;
  reclaim.ledger = NULL;
  reclaim.keep = NULL;
  reclaim.rows = NULL;
  return 0;
}

static int make_ledger(size_t max_rows) {
  struct ledger_options options = {
      .max_names = reclaim.config.max_names,
      .idle_intervals = reclaim.config.idle_intervals,
      .new_names_per_hour = reclaim.config.new_names_per_hour,
      .max_rows = max_rows,
      .selects = selects,
      .selects_context = &reclaim.config,
  };
  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++)
    options.kinds[kind] = bpf_source_is_attached(reclaim.source, kind);
  reclaim.ledger = ledger_new(&options);
  reclaim.keep = keep_new(max_rows, reclaim.config.idle_intervals);
  reclaim.rows = calloc(max_rows, sizeof(*reclaim.rows));
  return reclaim.ledger && reclaim.keep && reclaim.rows ? 0 : -ENOMEM;
}

static int reclaim_init(void) {
  if (reclaim.config_err != 0 || config_check(&reclaim.config) != 0) {
    P_ERROR("not started: the options named above have to be mended");
    return -1;
  }
  struct bpf_source_options options = {
      .kinds_named = reclaim.config.kinds_named,
      .group_by_process = reclaim.config.group_by_process,
      .max_tracked = reclaim.config.max_tracked,
      .events = reclaim.config.event_threshold_ns > 0,
      .event_min_ns = reclaim.config.event_threshold_ns,
      .btf_file = reclaim.config.btf_file,
  };
  memcpy(options.kinds, reclaim.config.kinds, sizeof(options.kinds));
  if (bpf_source_new(&options, log_to_collectd, &reclaim.source) != 0)
    return 0; /* gauge-attached_* goes on, and says so */
  int err = make_ledger(bpf_source_max_rows(&options));
  if (err == 0 && options.events)
    err = watch_new(reclaim.source, &reclaim.config,
                    CDTIME_T_TO_NS(plugin_get_interval()), &reclaim.watch);
  if (err != 0) {
    P_ERROR("not started: %s", strerror(-err));
    reclaim_shutdown();
    return -1;
  }
  return 0;
}

static int read_source(void) {
  struct bpf_source_rows drained;
  size_t keep_num;
  const struct reclaim_row_key *keep = keep_keys(reclaim.keep, &keep_num);
  int err = bpf_source_drain(reclaim.source, keep, keep_num, &drained);
  if (err != 0) {
    c_complain(LOG_ERR, &reclaim.drain_complaint,
               RECLAIM_PLUGIN " plugin: cannot read the BPF maps: %s; nothing "
                              "is lost yet, the next read tries again",
               strerror(-err));
    return err;
  }
  c_release(LOG_INFO, &reclaim.drain_complaint,
            RECLAIM_PLUGIN " plugin: the BPF maps can be read again");

  for (size_t i = 0; i < drained.num; i++) {
    struct ledger_row *row = &reclaim.rows[i];
    row->key = &drained.keys[i];
    row->row = &drained.rows[i];
    row->kind = row->key->kind;
    comm_name(row->key->comm, row->key->flags & RECLAIM_ROW_KTHREAD,
              reclaim.config.fold, row->name);
  }
  ledger_add_interval(reclaim.ledger, reclaim.rows, drained.num,
                      monotonic_ns());
  keep_update(reclaim.keep, reclaim.rows, drained.num);
  return 0;
}

/* Kinds that the kernel does not have are wanted only by who names them. */
static bool is_wanted(enum reclaim_kind kind) {
  bool absent = reclaim.source && bpf_source_is_absent(reclaim.source, kind);
  return reclaim.config.kinds[kind] && (reclaim.config.kinds_named || !absent);
}

static int reclaim_read(void) {
  uint64_t begin_ns = monotonic_ns();
  int err = reclaim.source ? read_source() : 0;
  cdtime_t now = cdtime(); /* what belongs together carries one time */
  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++)
    if (is_wanted(kind))
      dispatch_attached(
          kind, reclaim.source && bpf_source_is_attached(reclaim.source, kind),
          now);
  if (reclaim.source && err == 0) {
    dispatch_ledger(&reclaim.config, reclaim.ledger,
                    bpf_source_events_lost(reclaim.source), now);
    dispatch_read_time(monotonic_ns() - begin_ns, now);
  }
  return err;
}

void module_register(void) {
  config_init(&reclaim.config);
  plugin_register_complex_config(RECLAIM_PLUGIN, reclaim_config);
  plugin_register_init(RECLAIM_PLUGIN, reclaim_init);
  plugin_register_read(RECLAIM_PLUGIN, reclaim_read);
  plugin_register_shutdown(RECLAIM_PLUGIN, reclaim_shutdown);
}
