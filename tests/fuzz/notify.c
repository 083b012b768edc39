/* SPDX-License-Identifier: MIT */
/* Notifications of hostile stalls: no more than were asked for, each stall in
 * one of them, and no text that could forge a line of one. */
#include "plugin/notify.h"
#include "plugin/comm.h"
#include "plugin/kind.h"
#include "tests/fuzz/events.h"
#include "tests/unit/collectd_stub.h"

static const char *const meta[] = {"comm",         "pid",    "tid",
                                   "latency_ns",   "order",  "gfp_flags",
                                   "nr_reclaimed", "stalls", "events_lost"};

static bool is_meta(const char *line) {
  for (size_t i = 0; i < sizeof(meta) / sizeof(*meta); i++) {
    size_t len = strlen(meta[i]);
    if (strncmp(line + 1, meta[i], len) == 0 && line[len + 1] == '=')
      return true;
  }
  return false;
}

/* Lines as the stub writes them: a head, and members behind a blank. Whether
 * the one notification has no instance. */
static bool check_text(void) {
  char *line = stub_notifications;
  MUST(stub_notifications_num == 1);
  MUST(strncmp(line, "2 ", 2) == 0 && strstr(line, " a-host|reclaim|"));
  bool closing = strstr(line, "|reclaim||latency||") != NULL;
  for (size_t number = 0; *line != '\0'; number++) {
    size_t len = strcspn(line, "\n");
    for (size_t i = 0; i < len; i++)
      MUST(line[i] >= ' ' && line[i] <= '~');
    MUST(number == 0 || (line[0] == ' ' && is_meta(line)));
    line += len + 1;
  }
  return closing;
}

static uint64_t member(const char *name) {
  char wanted[32];
  snprintf(wanted, sizeof(wanted), "\n %s=", name);
  const char *found = strstr(stub_notifications, wanted);
  MUST(found);
  return strtoull(found + strlen(wanted), NULL, 10);
}

static void check_stall(const struct reclaim_event *event) {
  char comm[COMM_TEXT_SIZE], line[COMM_TEXT_SIZE + 16];
  comm_escape(event->comm, sizeof(event->comm), comm, sizeof(comm));
  snprintf(line, sizeof(line), "\n comm=%s\n", comm);
  MUST(!check_text());
  MUST(strstr(stub_notifications, line));
  MUST(member("pid") == event->tgid && member("tid") == event->tid);
  MUST(member("latency_ns") == event->stall_ns);
  MUST((strstr(stub_notifications, "\n order=") != NULL) ==
       (event->order != RECLAIM_ORDER_UNKNOWN));
  MUST((strstr(stub_notifications, "\n nr_reclaimed=") != NULL) ==
       kind_reclaims(event->key.kind));
}

/* What an interval brought. */
struct model {
  size_t told, untold;
  uint64_t lost, lost_before;
};

static void tell(struct notify *notify, struct model *model,
                 const struct reclaim_event *event) {
  stub_reset();
  notify_stall(notify, event, NS_TO_CDTIME_T(event->end_ns >> 2));
  if (model->told == notify->config->events_per_interval) {
    MUST(stub_notifications_num == 0);
    model->untold++;
    return;
  }
  model->told++;
  check_stall(event);
}

static void end_interval(struct notify *notify, struct model *model,
                         uint64_t now_ns) {
  uint64_t lost = model->lost - model->lost_before;
  stub_reset();
  notify_tick(notify, model->lost, now_ns, NS_TO_CDTIME_T(now_ns >> 2));
  if (model->untold + lost == 0) {
    MUST(stub_notifications_num == 0);
  } else {
    MUST(check_text());
    MUST(member("stalls") == model->untold + lost);
    MUST(member("events_lost") == lost);
  }
  *model = (struct model){.lost = model->lost, .lost_before = model->lost};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct input input = {data, size};
  struct config config;
  config_init(&config);
  config.events_per_interval = 1 + take_one_of(&input, 4);
  config.event_threshold_ns = take_number(&input);
  config.group_by = take_one_of(&input, 3);
  struct notify notify = {
      .config = &config,
      .interval_ns = 1 + (take_number(&input) >> 4),
      .gfp = {.num = 1, .names = {{0xcc0, "GFP_KERNEL"}}},
  };
  struct model model = {.told = 0};
  uint64_t now_ns = 0;
  while (input.left > 0) {
    if (take_one_of(&input, 4) > 0) {
      struct reclaim_event event = take_event(&input);
      tell(&notify, &model, &event);
      continue;
    }
    model.lost += take_byte(&input);
    now_ns += notify.interval_ns;
    end_interval(&notify, &model, now_ns);
  }
  notify_fini(&notify);
  return 0;
}
