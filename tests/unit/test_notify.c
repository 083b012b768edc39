/* SPDX-License-Identifier: MIT */
#include "tests/unit/collectd_stub.h"

#include "plugin/notify.h"
#include "tests/unit/tap.h"

#define MS 1000000ULL
#define S 1000000000ULL
#define NOW_NS (1000 * S)
#define NOW TIME_T_TO_CDTIME_T(5000)

/* As if the kernel had said so, whatever it says here. */
static const struct gfp_names few_names = {
    .num = 1, .names = {{0x100cca, "GFP_HIGHUSER_MOVABLE"}}};

static struct config config;
static struct notify notify;

static void start(void) {
  config_init(&config);
  config.event_threshold_ns = 10 * MS;
  config.events_per_interval = 2;
  notify_init(&notify, &config, 10 * S, NOW_NS);
  notify.gfp = few_names;
  stub_reset();
}

static void end(void) {
  notify_fini(&notify);
  config_fini(&config);
}

static struct reclaim_event event_of(const char *comm, uint64_t stall_ns) {
  struct reclaim_event event = {
      .key.kind = RECLAIM_DIRECT,
      .end_ns = NOW_NS - 500 * MS,
      .stall_ns = stall_ns,
      .nr_reclaimed = 68,
      .cgroup_id = ~0ULL,
      .tid = 52827,
      .tgid = 52800,
      .gfp_flags = 0x100cca,
  };
  memcpy(event.comm, comm, strnlen(comm, sizeof(event.comm)));
  memcpy(event.key.comm, event.comm, sizeof(event.comm));
  return event;
}

static void stall(struct reclaim_event event) {
  notify_stall(&notify, &event, NOW - MS_TO_CDTIME_T(500));
}

static bool told(const char *text) {
  return strstr(stub_notifications, text) != NULL;
}

static void test_text(void) {
  start();
  stall(event_of("stress-ng-vm", 14990000));
  is_str(stub_notifications,
         "2 4999.500 a-host|reclaim|stress-ng-vm|latency|direct|"
         "stress-ng-vm[52827] stalled 14.99 ms in direct reclaim: 68 pages, "
         "order 0, GFP_HIGHUSER_MOVABLE\n"
         " comm=stress-ng-vm\n pid=52800\n tid=52827\n latency_ns=14990000\n"
         " nr_reclaimed=68\n order=0\n gfp_flags=GFP_HIGHUSER_MOVABLE\n",
         "a notification tells all of a stall, dated when it ended");
  end();

  start();
  struct reclaim_event event = event_of("java", 40 * MS);
  event.order = RECLAIM_ORDER_UNKNOWN;
  event.key.kind = RECLAIM_MEMCG;
  stall(event);
  is_str(stub_notifications,
         "2 4999.500 a-host|reclaim|java|latency|memcg|"
         "java[52827] stalled 40.00 ms in memcg reclaim: 68 pages\n"
         " comm=java\n pid=52800\n tid=52827\n latency_ns=40000000\n"
         " nr_reclaimed=68\n",
         "what is not known is not told");
  end();

  start();
  event = event_of("java", 40 * MS);
  event.key.kind = RECLAIM_COMPACT;
  event.order = 9;
  stall(event);
  is_str(stub_notifications,
         "2 4999.500 a-host|reclaim|java|latency|compact|"
         "java[52827] stalled 40.00 ms in direct compaction: order 9, "
         "GFP_HIGHUSER_MOVABLE\n"
         " comm=java\n pid=52800\n tid=52827\n latency_ns=40000000\n"
         " order=9\n gfp_flags=GFP_HIGHUSER_MOVABLE\n",
         "what reclaims no pages tells of none");
  end();

  start();
  stall(event_of("short", 12345));
  ok(told("stalled 0.012 ms in"), "a short stall is not told as 0");
  event = event_of("a-gfp", 20 * MS);
  event.gfp_flags = 0x100cca | 0x80000000;
  stall(event);
  ok(told(", GFP_HIGHUSER_MOVABLE|0x80000000\n"),
     "flags without a name are told by number");
  end();
}

static void test_hostile_comm(void) {
  start();
  stall(event_of("x\nSeverity: OK", 20 * MS));
  ok(told(
         "|x_Severity__OK|latency|direct|x\\x0aSeverity: OK[52827] stalled ") &&
         told(" comm=x\\x0aSeverity: OK\n"),
     "a comm cannot begin a line of its own");
  stall(event_of("\x01\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11"
                 "\x12\x13",
                 20 * MS));
  ok(told("\\x13[52827] stalled 20.00 ms in direct reclaim: 68 pages, order 0, "
          "GFP_HIGHUSER_MOVABLE\n"),
     "the longest comm leaves room for all of the message");
  end();
}

static void test_names(void) {
  start();
  stall(event_of("Thread-12", 20 * MS));
  struct reclaim_event worker = event_of("kworker/u8:3", 20 * MS);
  worker.key.flags = RECLAIM_ROW_KTHREAD;
  stall(worker);
  ok(told("|reclaim|Thread|latency|direct|Thread-12[") &&
         told("|reclaim|kworker|latency|direct|kworker/u8:3["),
     "the instance is the name that series have, the text has the comm");
  end();

  start();
  struct reclaim_event thread = event_of("GC", 20 * MS);
  strcpy(thread.key.comm, "java");
  stall(thread);
  ok(told("|reclaim|java|latency|direct|GC[52827]") && told(" comm=GC\n"),
     "by process, the instance is the process");
  end();

  start();
  config.group_by = RECLAIM_BY_CGROUP;
  stall(event_of("an-id", 20 * MS));
  ok(told("|reclaim|_gone|latency|direct|an-id[52827]"),
     "by cgroup, it is the cgroup, or _gone");
  end();

  start();
  config.ignore_selected = true;
  config.names = calloc(1, sizeof(*config.names));
  config.names[config.names_num++].text = strdup("backup");
  stall(event_of("backup", 20 * MS));
  is_u64(stub_notifications_num, 0, "no notification of a name left out");
  notify_tick(&notify, 0, NOW_NS + 11 * S, NOW);
  is_u64(stub_notifications_num, 0, "nor in the closing one");
  stall(event_of("java", 20 * MS));
  is_u64(stub_notifications_num, 1, "others have theirs");
  end();
}

static void test_closing(void) {
  start();
  for (int i = 0; i < 5; i++)
    stall(event_of(i == 3 ? "worst\n" : "java", (20 + 100 * (i == 3)) * MS));
  is_u64(stub_notifications_num, 2, "EventsPerInterval are told at most");
  notify_tick(&notify, 4, NOW_NS + 9 * S, NOW);
  is_u64(stub_notifications_num, 2, "the rest waits for the interval's end");
  stub_reset();
  notify_tick(&notify, 4, NOW_NS + 10 * S, NOW);
  is_str(stub_notifications,
         "2 5000.000 a-host|reclaim||latency||more stalls of at least 10.00 "
         "ms in 10 s: 7, the longest 120.00 ms of worst\\x0a[52827] in direct "
         "reclaim; of 4 nothing more is known\n"
         " stalls=7\n events_lost=4\n",
         "one notification tells of the rest, and of what was lost");
  stub_reset();
  for (int i = 0; i < 3; i++)
    stall(event_of("java", 20 * MS));
  is_u64(stub_notifications_num, 2, "the next interval has its own");
  notify_tick(&notify, 4, NOW_NS + 20 * S, NOW);
  ok(told(": 1, the longest 20.00 ms of java[52827] in direct reclaim\n"),
     "and its own longest");
  stub_reset();
  notify_tick(&notify, 4, NOW_NS + 30 * S, NOW);
  is_u64(stub_notifications_num, 0, "without a rest nothing closes it");
  notify_tick(&notify, 5, NOW_NS + 40 * S, NOW);
  ok(told("|more stalls of at least 10.00 ms in 10 s: 1; of 1 nothing more is "
          "known\n"),
     "lost ones alone are told too");
  end();

  start();
  for (int i = 0; i < 3; i++)
    stall(event_of("java", 20 * MS));
  end();
  ok(strstr(stub_log, "without a notification of their own: 1\n"),
     "at the end the log has what was not told");
}

int main(void) {
  test_text();
  test_hostile_comm();
  test_names();
  test_closing();
  return done();
}
