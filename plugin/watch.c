/* SPDX-License-Identifier: MIT */
#include "plugin/collectd_api.h"

#include <pthread.h>
#include <signal.h>

#include "clock.h"
#include "notify.h"
#include "watch.h"

/* Events wake nobody: the thread comes by so often. */
#define PAUSE_NS 200000000ULL

struct watch {
  plugin_ctx_t collectd; /* who speaks, and at what interval */
  struct bpf_source *source;
  struct notify notify; /* the thread's own while it runs */
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t wake; /* waits on CLOCK_MONOTONIC */
  bool stop;           /* under the lock */
};

static void take_event(void *notify, const struct reclaim_event *event) {
  int64_t end_ns = (int64_t)event->end_ns + wall_clock_offset_ns();
  notify_stall(notify, event, NS_TO_CDTIME_T(end_ns));
}

/* Returns early, and true, when the thread is to end. */
static bool pause_or_stop(struct watch *watch) {
  uint64_t until_ns = monotonic_ns() + PAUSE_NS;
  struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000),
                           .tv_nsec = (long)(until_ns % 1000000000)};
  pthread_mutex_lock(&watch->lock);
  while (!watch->stop &&
         pthread_cond_timedwait(&watch->wake, &watch->lock, &until) == 0)
    continue;
  bool stop = watch->stop;
  pthread_mutex_unlock(&watch->lock);
  return stop;
}

static void *run(void *context) {
  struct watch *watch = context;
  plugin_set_ctx(watch->collectd);
  do {
    bpf_source_collect_events(watch->source, take_event, &watch->notify);
    notify_tick(&watch->notify, bpf_source_events_lost(watch->source),
                monotonic_ns(), cdtime());
  } while (!pause_or_stop(watch));
  return NULL;
}

/* Signals are for collectd's main thread. */
static int start_thread(struct watch *watch) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int err = pthread_create(&watch->thread, NULL, run, watch);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (err == 0)
    pthread_setname_np(watch->thread, "reclaim#events");
  return -err;
}

static void watch_fini(struct watch *watch) {
  notify_fini(&watch->notify);
  pthread_cond_destroy(&watch->wake);
  pthread_mutex_destroy(&watch->lock);
  free(watch);
}

int watch_new(struct bpf_source *source, const struct config *config,
              uint64_t interval_ns, struct watch **watch) {
  struct watch *made = calloc(1, sizeof(*made));
  if (!made)
    return -ENOMEM;
  made->collectd = plugin_get_ctx();
  made->source = source;
  notify_init(&made->notify, config, interval_ns, monotonic_ns());
  pthread_condattr_t monotonic;
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&made->wake, &monotonic);
  pthread_condattr_destroy(&monotonic);
  pthread_mutex_init(&made->lock, NULL);
  int err = start_thread(made);
  if (err != 0) {
    watch_fini(made);
    return err;
  }
  *watch = made;
  return 0;
}

void watch_free(struct watch *watch) {
  if (!watch)
    return;
  pthread_mutex_lock(&watch->lock);
  watch->stop = true;
  pthread_cond_signal(&watch->wake);
  pthread_mutex_unlock(&watch->lock);
  pthread_join(watch->thread, NULL);
  watch_fini(watch);
}
