/* SPDX-License-Identifier: MIT */
/* The plugin's face: what collectd calls, wired to the parts. */
#include "plugin/collectd_api.h"

#include "bpf_source.h"
#include "clock.h"
#include "config.h"
#include "dispatch.h"
#include "inflight.h"
#include "keep.h"
#include "kind.h"
#include "ledger.h"
#include "name.h"
#include "task.h"
#include "watch.h"

static struct {
  struct config config;
  int config_err;            /* found while the configuration was read */
  struct bpf_source *source; /* NULL where BPF cannot be had */
  struct ledger *ledger;
  struct keep *keep;
  struct inflight *inflight;
  struct inflight_shares shares; /* of the last read */
  struct ledger_row *rows;
  struct cgroup_paths *cgroups; /* NULL but with GroupBy cgroup */
  struct host host;
  struct host_account host_begin; /* at init */
  c_complain_t host_complaint;
  struct watch *watch; /* NULL without EventThreshold */
  c_complain_t drain_complaint;
} reclaim = {.host = {-EBADF, -EBADF}};

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

/* All that init made; the configuration stays. */
static void stop(void) {
  watch_free(reclaim.watch); /* before what it watches */
  bpf_source_free(reclaim.source);
  ledger_free(reclaim.ledger);
  keep_free(reclaim.keep);
  inflight_free(reclaim.inflight);
  free(reclaim.rows);
  cgroup_paths_free(reclaim.cgroups);
  host_close(&reclaim.host);
  reclaim.watch = NULL;
  reclaim.source = NULL;
  reclaim.ledger = NULL;
  reclaim.keep = NULL;
  reclaim.inflight = NULL;
  reclaim.rows = NULL;
  reclaim.cgroups = NULL;
  reclaim.shares = (struct inflight_shares){.keys = NULL};
}

/* As before the configuration. */
static int reclaim_shutdown(void) {
  stop();
  config_fini(&reclaim.config);
  config_init(&reclaim.config);
  reclaim.config_err = 0;
  return 0;
}

static int make_ledger(size_t max_drained) {
  size_t max_rows = max_drained + BPF_SOURCE_MAX_UNDER_WAY;
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
  reclaim.keep = keep_new(max_drained, reclaim.config.idle_intervals);
  reclaim.inflight = inflight_new();
  reclaim.rows = calloc(max_rows, sizeof(*reclaim.rows));
  bool made =
      reclaim.ledger && reclaim.keep && reclaim.inflight && reclaim.rows;
  return made ? 0 : -ENOMEM;
}

static int open_cgroups(void) {
  reclaim.cgroups = cgroup_paths_new(NULL);
  if (reclaim.cgroups && cgroup_paths_are_known(reclaim.cgroups))
    return 0;
  P_ERROR(
      "not started: GroupBy cgroup needs a cgroup v2 hierarchy, and none is "
      "mounted; mount one (mount -t cgroup2 cgroup2 "
      "/sys/fs/cgroup/unified), or group by comm or process; see README, "
      "Names");
  stop();
  return -1;
}

static bool look_at_cgroup(uint32_t tid, struct reclaim_row_key *key) {
  char path[PATH_MAX];
  if (task_read_cgroup(tid, path, sizeof(path)) != 0)
    return false;
  uint64_t id = cgroup_paths_id(reclaim.cgroups, path);
  memcpy(key->comm, &id, sizeof(id));
  return id != 0;
}

/* Names a thread under way as the BPF programs will when its stall ends. */
static bool look_at_task(const struct bpf_source_under_way *stall,
                         struct reclaim_row_key *key) {
  struct task task;
  if (task_read(stall->tid, &task) != 0 ||
      !task_can_stall_since(&task, stall->begin_ns))
    return false;
  if (reclaim.config.group_by == RECLAIM_BY_CGROUP)
    return look_at_cgroup(stall->tid, key);
  key->flags = task.kthread ? RECLAIM_ROW_KTHREAD : 0;
  memcpy(key->comm, task.comm, sizeof(key->comm));
  return reclaim.config.group_by == RECLAIM_BY_COMM ||
         task_read_leader_comm(stall->tid, key->comm) == 0;
}

static int reclaim_init(void) {
  P_INFO("version %s", RECLAIM_VERSION);
  stop(); /* what is there already */
  if (reclaim.config_err != 0 || config_check(&reclaim.config) != 0) {
    P_ERROR("not started: the options named above have to be mended");
    return -1;
  }
  if (reclaim.config.group_by == RECLAIM_BY_CGROUP && open_cgroups() != 0)
    return -1;
  if (reclaim.config.report_host) {
    host_open(&reclaim.host, NULL);
    host_read(&reclaim.host, &reclaim.host_begin);
  }
  struct bpf_source_options options = {
      .kinds_named = reclaim.config.kinds_named,
      .group_by = reclaim.config.group_by,
      .max_tracked = reclaim.config.max_tracked,
      .events = reclaim.config.event_threshold_ns > 0,
      .event_min_ns = reclaim.config.event_threshold_ns,
      .btf_file = reclaim.config.btf_file,
      .look = look_at_task,
  };
  memcpy(options.kinds, reclaim.config.kinds, sizeof(options.kinds));
  if (bpf_source_new(&options, log_to_collectd, &reclaim.source) != 0)
    return 0; /* gauge-attached_* goes on, and says so */
  int err = make_ledger(bpf_source_max_rows(&options));
  if (err == 0 && options.events)
    err = watch_new(reclaim.source, &reclaim.config,
                    CDTIME_T_TO_NS(plugin_get_interval()), &reclaim.watch);
  if (err != 0) {
    P_ERROR("not started: %s; restart collectd when the host has memory, and "
            "threads, to give",
            strerror(-err));
    stop();
    return -1;
  }
  return 0;
}

static size_t name_rows(const struct reclaim_row_key *keys,
                        const struct reclaim_row *rows, size_t num,
                        struct ledger_row *named) {
  for (size_t i = 0; i < num; i++) {
    named[i].key = &keys[i];
    named[i].row = &rows[i];
    named[i].kind = keys[i].kind;
    name_of_key(&reclaim.config, reclaim.cgroups, &keys[i], named[i].name);
  }
  return num;
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

  struct inflight_shares *shares = &reclaim.shares;
  inflight_update(reclaim.inflight, &drained, shares);
  size_t num = name_rows(drained.keys, drained.rows, drained.num, reclaim.rows);
  num += name_rows(shares->keys, shares->rows, shares->num, &reclaim.rows[num]);
  ledger_add_interval(reclaim.ledger, reclaim.rows, num, monotonic_ns());
  keep_update(reclaim.keep, reclaim.rows, num);
  return 0;
}

static void dispatch_kinds(cdtime_t now) {
  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++)
    if (bpf_source_is_attached(reclaim.source, kind) && kind_has_begin(kind))
      dispatch_under_way(kind, reclaim.shares.pending[kind],
                         reclaim.shares.oldest_ns[kind], now);
}

/* Kinds that the kernel does not have are wanted only by who names them. */
static bool is_wanted(enum reclaim_kind kind) {
  bool absent = reclaim.source && bpf_source_is_absent(reclaim.source, kind);
  return reclaim.config.kinds[kind] && (reclaim.config.kinds_named || !absent);
}

/* The kernel's own account, also where BPF cannot be had. */
static void read_host(cdtime_t now) {
  struct host_account account;
  if (reclaim.host.vmstat < 0)
    host_open(&reclaim.host, NULL);
  int err = host_read(&reclaim.host, &account);
  if (err != 0) {
    c_complain(LOG_ERR, &reclaim.host_complaint,
               RECLAIM_PLUGIN " plugin: cannot read /proc/vmstat: %s; "
                              "ReportHost false does without",
               strerror(-err));
    return;
  }
  c_release(LOG_INFO, &reclaim.host_complaint,
            RECLAIM_PLUGIN " plugin: /proc/vmstat can be read again");
  dispatch_host(&account, now);
  if (!reclaim.config.kinds[RECLAIM_DIRECT])
    return;
  uint64_t ended =
      reclaim.ledger ? ledger_stalls(reclaim.ledger, RECLAIM_DIRECT) : 0;
  dispatch_coverage(host_coverage(ended, reclaim.shares.pending[RECLAIM_DIRECT],
                                  reclaim.host_begin.allocstall,
                                  account.allocstall),
                    now);
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
  if (reclaim.config.report_host)
    read_host(now);
  if (reclaim.source && err == 0) {
    dispatch_ledger(&reclaim.config, reclaim.ledger,
                    bpf_source_events_lost(reclaim.source), now);
    dispatch_kinds(now);
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
