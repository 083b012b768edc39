/* SPDX-License-Identifier: MIT */
#include "plugin/collectd_api.h"

#include "comm.h"
#include "kind.h"
#include "name.h"
#include "notify.h"

#define CGROUP_TEXT_SIZE 1024

void notify_init(struct notify *notify, const struct config *config,
                 uint64_t interval_ns, uint64_t now_ns) {
  *notify = (struct notify){
      .config = config,
      .interval_ns = interval_ns,
      .cgroups = cgroup_paths_new(NULL),
      .interval_end_ns = now_ns + interval_ns,
  };
  gfp_names_read(&notify->gfp); /* else flags are told as a number */
}

/* Text */

/* "stress-ng-vm[52827]" */
static void print_task(const struct reclaim_event *event, char *text,
                       size_t size) {
  char comm[COMM_TEXT_SIZE];
  comm_escape(event->comm, sizeof(event->comm), comm, sizeof(comm));
  snprintf(text, size, "%s[%u]", comm, event->tid);
}

static void print_ms(uint64_t ns, char *text, size_t size) {
  snprintf(text, size, "%.*f ms", ns < 1000000 ? 3 : 2, (double)ns / 1e6);
}

static enum reclaim_kind kind_of(const struct reclaim_event *event) {
  return event->key.kind;
}

static bool is_order_known(const struct reclaim_event *event) {
  return event->order != RECLAIM_ORDER_UNKNOWN;
}

/* gfp_flags come last: of a text too long, they are the part to lose. */
static void print_stall(const struct reclaim_event *event, const char *gfp,
                        char *text, size_t size) {
  char task[COMM_TEXT_SIZE + 16], time[32], pages[32] = "", request[320] = "";
  print_task(event, task, sizeof(task));
  print_ms(event->stall_ns, time, sizeof(time));
  if (kind_reclaims(kind_of(event)))
    snprintf(pages, sizeof(pages), ": %llu pages",
             (unsigned long long)event->nr_reclaimed);
  if (is_order_known(event))
    snprintf(request, sizeof(request), "%c order %u, %s", pages[0] ? ',' : ':',
             event->order, gfp);
  snprintf(text, size, "%s stalled %s in %s%s%s", task, time,
           kind_activity(kind_of(event)), pages, request);
}

static void print_untold(const struct notify *notify, uint64_t lost, char *text,
                         size_t size) {
  char threshold[32];
  print_ms(notify->config->event_threshold_ns, threshold, sizeof(threshold));
  size_t used =
      (size_t)snprintf(text, size, "more stalls of at least %s in %g s: %llu",
                       threshold, (double)notify->interval_ns / 1e9,
                       (unsigned long long)notify->untold + lost);
  if (notify->untold > 0 && used < size) {
    char task[COMM_TEXT_SIZE + 16], time[32];
    print_task(&notify->longest_untold, task, sizeof(task));
    print_ms(notify->longest_untold.stall_ns, time, sizeof(time));
    used += (size_t)snprintf(text + used, size - used,
                             ", the longest %s of %s in %s", time, task,
                             kind_activity(kind_of(&notify->longest_untold)));
  }
  if (lost > 0 && used < size)
    snprintf(text + used, size - used, "; of %llu nothing more is known",
             (unsigned long long)lost);
}

/* Dispatch */

static void start_notification(notification_t *notification, const char *name,
                               const char *kind, cdtime_t time) {
  *notification = (notification_t){.severity = NOTIF_WARNING, .time = time};
  snprintf(notification->host, sizeof(notification->host), "%s", hostname_g);
  snprintf(notification->plugin, sizeof(notification->plugin), "%s",
           RECLAIM_PLUGIN);
  snprintf(notification->plugin_instance, sizeof(notification->plugin_instance),
           "%s", name);
  snprintf(notification->type, sizeof(notification->type), "latency");
  snprintf(notification->type_instance, sizeof(notification->type_instance),
           "%s", kind);
}

/* The path of the task's cgroup; false if it is not known. */
static bool print_cgroup(struct notify *notify, uint64_t id, char *text,
                         size_t size) {
  const char *path =
      notify->cgroups ? cgroup_paths_find(notify->cgroups, id) : NULL;
  if (path)
    comm_escape(path, strlen(path), text, size);
  return path != NULL;
}

static void add_meta(struct notify *notify, notification_t *notification,
                     const struct reclaim_event *event, const char *gfp) {
  char comm[COMM_TEXT_SIZE], cgroup[CGROUP_TEXT_SIZE];
  comm_escape(event->comm, sizeof(event->comm), comm, sizeof(comm));
  plugin_notification_meta_add_string(notification, "comm", comm);
  plugin_notification_meta_add_unsigned_int(notification, "pid", event->tgid);
  plugin_notification_meta_add_unsigned_int(notification, "tid", event->tid);
  plugin_notification_meta_add_unsigned_int(notification, "latency_ns",
                                            event->stall_ns);
  if (kind_reclaims(kind_of(event)))
    plugin_notification_meta_add_unsigned_int(notification, "nr_reclaimed",
                                              event->nr_reclaimed);
  if (is_order_known(event)) {
    plugin_notification_meta_add_unsigned_int(notification, "order",
                                              event->order);
    plugin_notification_meta_add_string(notification, "gfp_flags", gfp);
  }
  if (print_cgroup(notify, event->cgroup_id, cgroup, sizeof(cgroup)))
    plugin_notification_meta_add_string(notification, "cgroup", cgroup);
}

static void dispatch(notification_t *notification) {
  plugin_dispatch_notification(notification);
  plugin_notification_meta_free(notification->meta);
}

void notify_stall(struct notify *notify, const struct reclaim_event *event,
                  cdtime_t time) {
  char name[COMM_NAME_SIZE], gfp[256];
  name_of_key(notify->config, notify->cgroups, &event->key, name);
  if (!config_selects(notify->config, name))
    return;
  if (notify->told == notify->config->events_per_interval) {
    if (notify->untold == 0 ||
        event->stall_ns > notify->longest_untold.stall_ns)
      notify->longest_untold = *event;
    notify->untold++;
    return;
  }
  notify->told++;
  gfp_names_print(&notify->gfp, event->gfp_flags, gfp, sizeof(gfp));
  notification_t notification;
  start_notification(&notification, name, kind_name(kind_of(event)), time);
  print_stall(event, gfp, notification.message, sizeof(notification.message));
  add_meta(notify, &notification, event, gfp);
  dispatch(&notification);
}

static void close_interval(struct notify *notify, uint64_t lost, cdtime_t now) {
  if (notify->untold == 0 && lost == 0)
    return;
  notification_t notification;
  start_notification(&notification, "", "", now);
  print_untold(notify, lost, notification.message,
               sizeof(notification.message));
  plugin_notification_meta_add_unsigned_int(&notification, "stalls",
                                            notify->untold + lost);
  plugin_notification_meta_add_unsigned_int(&notification, "events_lost", lost);
  dispatch(&notification);
}

void notify_tick(struct notify *notify, uint64_t lost, uint64_t now_ns,
                 cdtime_t now) {
  if (now_ns < notify->interval_end_ns)
    return;
  close_interval(notify, lost - notify->lost_before, now);
  notify->lost_before = lost;
  notify->told = notify->untold = 0;
  notify->interval_end_ns = now_ns + notify->interval_ns;
}

void notify_fini(struct notify *notify) {
  if (notify->untold > 0)
    P_INFO("stalls of the last interval without a notification of their own: "
           "%zu",
           notify->untold);
  cgroup_paths_free(notify->cgroups);
}
