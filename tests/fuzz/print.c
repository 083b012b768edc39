/* SPDX-License-Identifier: MIT */
/* Single stalls as reclaimsnoop shows them: valid JSON; lines of printable
 * ASCII that fit the terminal and keep their columns; totals that add up. */
#include <inttypes.h>
#include <limits.h>

#include "plugin/comm.h"
#include "plugin/kind.h"
#include "plugin/snoop_print.h"
#include "tests/fuzz/events.h"
#include "tests/fuzz/json.h"
#include "tests/unit/stream.h"

static const struct gfp_names gfp = {
    .num = 3,
    .names = {{0xcc0, "GFP_KERNEL"}, {0x400, "__GFP_IO"}, {0x80, "__GFP_FS"}}};

static struct snoop_format take_format(struct input *input) {
  uint8_t flags = take_byte(input);
  return (struct snoop_format){.json = flags & 1,
                               .timestamps = flags & 2,
                               .process = flags & 4,
                               .colour = flags & 8,
                               .width = take_byte(input),
                               .realtime_ns = (int64_t)take_clock_ns(input),
                               .gfp = &gfp};
}

/* Takes the colour out, which is in one place at most; whether it was there. */
static bool remove_colour(char *line) {
  char *begin = strchr(line, '\x1b');
  if (!begin)
    return false;
  MUST(strncmp(begin, "\x1b[33m", 5) == 0 ||
       strncmp(begin, "\x1b[31m", 5) == 0);
  memmove(begin, begin + 5, strlen(begin + 5) + 1);
  char *end = strchr(begin, '\x1b');
  MUST(end && strncmp(end, "\x1b[0m", 4) == 0);
  memmove(end, end + 4, strlen(end + 4) + 1);
  return true;
}

static void check_line(const struct snoop_format *format,
                       const struct reclaim_event *event, const char *text) {
  char line[1024];
  size_t len = strlen(text);
  MUST(len > 0 && len < sizeof(line) && text[len - 1] == '\n');
  memcpy(line, text, len - 1);
  line[len - 1] = '\0';
  bool coloured = remove_colour(line);
  MUST(!coloured || format->colour);
  MUST(!coloured ||
       (event->stall_ns != RECLAIM_UNTIMED && event->stall_ns >= 10000000));
  MUST(is_printable(line));
  MUST(format->width == 0 || strlen(line) <= format->width);
  if (format->width != 0)
    return;

  MUST(!format->colour || coloured || event->stall_ns == RECLAIM_UNTIMED ||
       event->stall_ns < 10000000);
  const char *at = line + (format->timestamps ? 13 : 0);
  char comm[COMM_TEXT_SIZE];
  comm_escape(event->comm, sizeof(event->comm), comm, sizeof(comm));
  MUST(strlen(comm) > 16 || strncmp(at, comm, strlen(comm)) == 0);
  MUST(strlen(comm) <= 16 || memchr(at, '+', 16) != NULL);
  char tid[16];
  MUST(at[16] == ' ');
  snprintf(tid, sizeof(tid), "%7u ", event->tid);
  MUST(strncmp(at + 17, tid, strlen(tid)) == 0);
  at += 17 + strlen(tid);
  MUST(strlen(at) > 18 && at[10] == ' ' && at[18] == ' ');
}

/* The number behind the name is in the object. */
static void check_member(const char *object, const char *name, bool known,
                         uint64_t number) {
  char member[64];
  if (known)
    snprintf(member, sizeof(member), "\"%s\":%" PRIu64 ",", name, number);
  else
    snprintf(member, sizeof(member), "\"%s\":null,", name);
  MUST(strstr(object, member));
}

static void check_object(const struct reclaim_event *event, const char *text) {
  const char *at = text;
  MUST(json_line(&at) && *at == '\0');
  MUST(strncmp(text, "{\"time\":\"", 9) == 0 &&
       strspn(text + 9, "0123456789-T:.Z") == 27);
  check_member(text, "pid", true, event->tgid);
  check_member(text, "tid", true, event->tid);
  check_member(text, "latency_ns", event->stall_ns != RECLAIM_UNTIMED,
               event->stall_ns);
  check_member(text, "nr_reclaimed", kind_reclaims(event->key.kind),
               event->nr_reclaimed);
  check_member(text, "order", event->order != RECLAIM_ORDER_UNKNOWN,
               event->order);
}

static void check_stall(struct input *input) {
  struct snoop_format format = take_format(input);
  struct reclaim_event event = take_event(input);
  char *cgroup = take_bool(input) ? take_text(input, 256) : NULL;
  snoop_print_stall(stream_begin(), &format, &event, cgroup);
  if (format.json)
    check_object(&event, stream_end());
  else
    check_line(&format, &event, stream_end());
  free(cgroup);
}

/* Totals */

static uint64_t take_share(struct input *input, uint64_t *of) {
  uint64_t share = take_number(input) % (*of / 2 + 1);
  *of -= share;
  return share;
}

/* The numbers behind the first, which are parts of it, but for `of unknown
 * time` at the end. */
static uint64_t add_parts(const char *text) {
  uint64_t sum = 0;
  for (const char *at = text; (at = strpbrk(at, ":,")); at++)
    sum += strtoull(at + 1, NULL, 10);
  return sum;
}

static void check_totals(struct input *input) {
  enum snoop_mode mode = take_one_of(input, 3);
  bool selective = take_bool(input);
  struct snoop_totals totals = {.counted = take_number(input) >> 1};
  uint64_t rest = totals.counted;
  totals.hidden = take_share(input, &rest);
  totals.lost = mode == SNOOP_TABLES ? 0 : take_share(input, &rest);
  take_share(input, &rest); /* too short */
  uint64_t selected = totals.taken = rest;
  totals.unselected = take_share(input, &selected);
  totals.stackless = take_share(input, &selected);
  totals.untimed = take_number(input) % (totals.counted + 1);
  snoop_print_totals(stream_begin(), mode, &totals, selective);
  const char *text = stream_end();
  MUST(strtoull(text, NULL, 10) == totals.counted);
  MUST(strchr(text, '\n') == text + strlen(text) - 1);
  if (mode != SNOOP_TABLES || selective)
    MUST(add_parts(text) == totals.counted);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  return setenv("TZ", "UTC", 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct input input = {data, size};
  do {
    if (take_one_of(&input, 4) > 0)
      check_stall(&input);
    else
      check_totals(&input);
  } while (input.left > 0);
  free(stream.text);
  stream.text = NULL;
  return 0;
}
