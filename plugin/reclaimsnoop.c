/* SPDX-License-Identifier: MIT */
/* Prints stalls in memory reclaim at a terminal. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "bpf_check.h"
#include "bpf_source.h"
#include "cgroup.h"
#include "clock.h"
#include "kallsyms.h"
#include "snoop_options.h"
#include "snoop_print.h"
#include "snoop_stacks.h"
#include "snoop_sum.h"

/* Nobody is woken by an event. The ring buffer has room for some 2,500: more
 * than a host can make in this time. */
#define COLLECT_NS 20000000ULL
#define BUSY_BATCH 200 /* events; then the next are collected at once */
#define OUTPUT_BYTES 65536

struct snoop {
  struct snoop_options options;
  struct snoop_format format;
  struct gfp_names gfp;
  struct bpf_source *source;
  struct cgroup_paths *cgroups;     /* for JSON */
  struct snoop_sum interval, whole; /* what the kernel counted */
  struct snoop_stacks stacks;       /* of the interval */
  struct kallsyms *syms;
  struct snoop_totals totals;
  int err; /* an error that ends it, told already */
};

static volatile sig_atomic_t stopping;

static void stop(int signal) {
  (void)signal;
  stopping = true;
}

/* What works is not worth a line. */
static void tell(enum log_level level, const char *message) {
  if (level != RECLAIM_LOG_INFO)
    fprintf(stderr, "reclaimsnoop: %s\n", message);
}

static void fail(struct snoop *snoop, int err, const char *what) {
  if (snoop->err == 0)
    fprintf(stderr, "reclaimsnoop: cannot %s: %s\n", what, strerror(-err));
  snoop->err = err;
}

/* Whether the reader of a pipe or of a socket has gone, or goes until then. No
 * signal to stop comes unnoticed between the look and the wait. */
static bool is_reader_gone(uint64_t wait_ns) {
  struct pollfd output = {.fd = STDOUT_FILENO};
  struct timespec timeout = {.tv_sec = (time_t)(wait_ns / 1000000000),
                             .tv_nsec = (long)(wait_ns % 1000000000)};
  sigset_t stops, before;
  sigemptyset(&stops);
  sigaddset(&stops, SIGINT);
  sigaddset(&stops, SIGTERM);
  sigprocmask(SIG_BLOCK, &stops, &before);
  if (stopping)
    timeout = (struct timespec){0};
  int num = ppoll(&output, 1, &timeout, &before);
  sigprocmask(SIG_SETMASK, &before, NULL);
  return num == 1 && output.revents & (POLLERR | POLLHUP | POLLNVAL);
}

/* A reader that has seen enough is no failure: no word, no report. */
static void flush_output(struct snoop *snoop) {
  errno = 0; /* an earlier write may have failed, and this one nothing to do */
  if (fflush(stdout) == 0 && !ferror(stdout))
    return;
  int err = errno ? errno : EIO;
  if (err == EPIPE || is_reader_gone(0))
    snoop->err = -EPIPE;
  else
    fail(snoop, -err, "write");
}

/* The terminal may have been resized and the clock set. */
static void look_around(struct snoop *snoop) {
  struct winsize size;
  snoop->format.width = 0;
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
    snoop->format.width = size.ws_col;
  snoop->format.realtime_ns = wall_clock_offset_ns();
}

/* Stalls */

/* Whether the name of the row that counted it contains -n NAME. */
static bool is_selected(const struct snoop *snoop,
                        const char comm[RECLAIM_COMM_SIZE]) {
  const char *name = snoop->options.name;
  return !name || memmem(comm, strnlen(comm, RECLAIM_COMM_SIZE), name,
                         strlen(name)) != NULL;
}

static void add_stack(struct snoop *snoop, const struct reclaim_event *event) {
  if (event->stack_id < 0) {
    snoop->totals.stackless++;
    return;
  }
  int err = snoop_stacks_add(&snoop->stacks, event->stack_id, event->comm,
                             event->stall_ns);
  if (err != 0)
    fail(snoop, err, "keep stacks");
}

static void take_stall(void *context, const struct reclaim_event *event) {
  struct snoop *snoop = context;
  snoop->totals.taken++;
  if (!is_selected(snoop, event->key.comm))
    snoop->totals.unselected++;
  else if (snoop->options.mode == SNOOP_STACKS)
    add_stack(snoop, event);
  else
    snoop_print_stall(stdout, &snoop->format, event,
                      snoop->format.json
                          ? cgroup_paths_find(snoop->cgroups, event->cgroup_id)
                          : NULL);
}

/* Returns how many there were. */
static int collect(struct snoop *snoop) {
  look_around(snoop);
  int taken = bpf_source_collect_events(snoop->source, take_stall, snoop);
  if (taken < 0)
    fail(snoop, taken, "collect events");
  if (taken > 0)
    flush_output(snoop);
  return taken;
}

static void drain(struct snoop *snoop) {
  struct bpf_source_rows rows;
  int err = bpf_source_drain(snoop->source, NULL, 0, &rows);
  if (err == 0)
    err = snoop_sum_add(&snoop->interval, rows.keys, rows.rows, rows.num);
  if (err != 0)
    fail(snoop, err, "read the kernel's tables");
}

/* Reports */

static bool is_row_selected(const struct snoop *snoop,
                            const struct snoop_row *row) {
  return row->others ? snoop->options.name == NULL
                     : is_selected(snoop, row->comm);
}

static bool has_rows(const struct snoop *snoop, const struct snoop_sum *sum) {
  for (size_t i = 0; i < sum->num; i++)
    if (is_row_selected(snoop, &sum->rows[i]))
      return true;
  return false;
}

/* An interval without stalls shows as a header. */
static void print_table(struct snoop *snoop, struct snoop_sum *sum) {
  bool tables = snoop->options.mode == SNOOP_TABLES;
  uint64_t now = monotonic_ns();
  if (!snoop->format.json && (tables || has_rows(snoop, sum))) {
    snoop_print_report_time(stdout, &snoop->format, now);
    if (tables && sum == &snoop->whole)
      snoop_print_whole_run(stdout);
    snoop_print_row_header(stdout, &snoop->format);
  }
  snoop_sum_sort(sum);
  for (size_t i = 0; i < sum->num; i++)
    if (is_row_selected(snoop, &sum->rows[i]))
      snoop_print_row(stdout, &snoop->format, &sum->rows[i], now);
}

static char *name_stack(void *context, int32_t id) {
  struct snoop *snoop = context;
  uint64_t addresses[RECLAIM_STACK_DEPTH];
  size_t depth = bpf_source_stack(snoop->source, id, addresses);
  return snoop_stacks_name(snoop->syms, addresses, depth);
}

/* Functions come and go with modules: they are read anew for each report that
 * has some. */
static void print_stacks(struct snoop *snoop) {
  if (snoop->stacks.num == 0)
    return;
  kallsyms_read(&snoop->syms); /* without, there are addresses */
  int err = snoop_stacks_print(stdout, &snoop->format, monotonic_ns(),
                               &snoop->stacks, name_stack, snoop);
  if (err != 0)
    fail(snoop, err, "print stacks");
  kallsyms_free(snoop->syms);
  snoop->syms = NULL;
  snoop_stacks_clear(&snoop->stacks);
}

static void end_interval(struct snoop *snoop) {
  int err = snoop_sum_merge(&snoop->whole, &snoop->interval);
  if (err != 0)
    fail(snoop, err, "add up");
  snoop_sum_clear(&snoop->interval);
}

static void report_interval(struct snoop *snoop) {
  look_around(snoop);
  drain(snoop);
  if (snoop->options.mode == SNOOP_STACKS)
    print_stacks(snoop);
  else
    print_table(snoop, &snoop->interval);
  flush_output(snoop);
  end_interval(snoop);
}

/* Tables have no events: what they show is in the rows. */
static void count_rows(struct snoop *snoop) {
  struct snoop_totals *totals = &snoop->totals;
  totals->taken = totals->counted - totals->hidden;
  if (!snoop->options.name)
    return;
  totals->unselected = totals->taken;
  for (size_t i = 0; i < snoop->whole.num; i++)
    if (is_row_selected(snoop, &snoop->whole.rows[i]))
      totals->unselected -= snoop->whole.rows[i].stalls;
}

static void print_totals(struct snoop *snoop) {
  const struct snoop_options *options = &snoop->options;
  struct snoop_totals *totals = &snoop->totals;
  bool tables = options->mode == SNOOP_TABLES;
  totals->counted = snoop_sum_stalls(&snoop->whole);
  totals->untimed = snoop_sum_untimed(&snoop->whole);
  totals->hidden = bpf_source_hidden(snoop->source);
  totals->lost = bpf_source_events_lost(snoop->source);
  if (tables)
    count_rows(snoop);
  snoop_print_totals(options->json ? stderr : stdout, options->mode, totals,
                     options->name ||
                         (!tables && options->source.event_min_ns > 0));
}

/* The rest of the last interval comes first; text has the whole run as well, to
 * which the objects of JSON add up. */
static void report_end(struct snoop *snoop) {
  bool json = snoop->format.json;
  if (snoop->options.mode == SNOOP_STACKS)
    print_stacks(snoop);
  else if (snoop->options.mode == SNOOP_TABLES)
    print_table(snoop, &snoop->interval);
  end_interval(snoop);
  if (!json && snoop->options.mode != SNOOP_STACKS)
    print_table(snoop, &snoop->whole);

  print_totals(snoop);
  flush_output(snoop);
}

/* The second drain has what the first could not yet tell: stalls that the
 * kernel hid from the programs. */
static void finish(struct snoop *snoop) {
  bpf_source_stop(snoop->source);
  drain(snoop);
  drain(snoop);
  while (snoop->err == 0 && collect(snoop) > 0)
    continue;
  if (snoop->err == 0)
    report_end(snoop);
}

/* Running */

static uint64_t earlier(uint64_t left, uint64_t right) {
  return left < right ? left : right;
}

/* Returns early when a signal comes, or when the reader goes. */
static void wait_until(struct snoop *snoop, uint64_t until_ns) {
  uint64_t now = monotonic_ns();
  if (is_reader_gone(until_ns > now ? until_ns - now : 0))
    snoop->err = -EPIPE;
}

static void watch(struct snoop *snoop) {
  uint64_t begin_ns = monotonic_ns();
  uint64_t interval_ns = snoop->options.interval_ns;
  uint64_t duration_ns = snoop->options.duration_ns;
  uint64_t end_ns = duration_ns ? begin_ns + duration_ns : UINT64_MAX;
  uint64_t tick_ns = interval_ns ? begin_ns + interval_ns : UINT64_MAX;
  bool events = snoop->options.source.events;
  while (!stopping && snoop->err == 0) {
    int taken = collect(snoop);
    uint64_t now = monotonic_ns();
    if (now >= end_ns)
      return;
    if (now >= tick_ns) {
      report_interval(snoop);
      tick_ns += interval_ns * ((now - tick_ns) / interval_ns + 1);
    }
    uint64_t collect_ns = events ? now + COLLECT_NS : UINT64_MAX;
    if (taken < BUSY_BATCH)
      wait_until(snoop, earlier(collect_ns, earlier(tick_ns, end_ns)));
  }
}

/* Else a map of the kernel would get the number of a closed stdout. */
static void open_missing(void) {
  int fd;
  do
    fd = open("/dev/null", O_RDWR);
  while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd >= 0)
    close(fd);
}

/* The first signal ends the run with its report, the second without. That a
 * pipe has no reader is told by the write; there is no child that would inherit
 * this. */
static void set_signals(void) {
  struct sigaction action = {.sa_handler = stop,
                             .sa_flags = SA_RESTART | (int)SA_RESETHAND};
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  signal(SIGPIPE, SIG_IGN);
}

static void set_format(struct snoop *snoop) {
  const char *term = getenv("TERM"), *no_colour = getenv("NO_COLOR");
  gfp_names_read(&snoop->gfp); /* without, flags are numbers */
  snoop->format = (struct snoop_format){
      .json = snoop->options.json,
      .timestamps = snoop->options.timestamps,
      .process = snoop->options.source.group_by == RECLAIM_BY_PROCESS,
      .colour = isatty(STDOUT_FILENO) && !(no_colour && *no_colour) && term &&
                strcmp(term, "dumb") != 0,
      .gfp = &snoop->gfp,
  };
  look_around(snoop);
}

/* Only lines of JSON have paths of cgroups. */
static void open_cgroups(struct snoop *snoop) {
  if (snoop->options.mode != SNOOP_LINES || !snoop->format.json)
    return;
  snoop->cgroups = cgroup_paths_new(NULL);
  if (!snoop->cgroups)
    fail(snoop, -ENOMEM, "find cgroups");
}

static bool has_kind(const struct snoop *snoop) {
  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++)
    if (bpf_source_is_attached(snoop->source, kind))
      return true;
  return false;
}

static int run(struct snoop *snoop) {
  int err = bpf_source_new(&snoop->options.source, tell, &snoop->source);
  if (err != 0)
    return err;
  if (!has_kind(snoop)) {
    fail(snoop, -ENOENT, "attach to any tracepoint");
    return -ENOENT;
  }
  if (snoop->options.mode == SNOOP_LINES && !snoop->format.json)
    snoop_print_stall_header(stdout, &snoop->format);
  flush_output(snoop);
  watch(snoop);
  if (snoop->err == 0)
    finish(snoop);
  return snoop->err;
}

static int exit_status(const struct snoop *snoop) {
  return snoop->err == 0 || snoop->err == -EPIPE ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv) {
  static struct snoop snoop;
  static char output[OUTPUT_BYTES];
  open_missing();
  set_signals();
  setvbuf(stdout, output, _IOFBF, sizeof(output));
  switch (snoop_options_parse(&snoop.options, argc, argv)) {
  case SNOOP_EXIT_OK:
    flush_output(&snoop);
    return exit_status(&snoop);
  case SNOOP_EXIT_USAGE:
    return 2;
  case SNOOP_GO_ON:
    break;
  }
  if (snoop.options.check) {
    bool works = bpf_check_print(stdout, &snoop.options.source);
    flush_output(&snoop);
    return works ? exit_status(&snoop) : EXIT_FAILURE;
  }
  set_format(&snoop);
  open_cgroups(&snoop);
  if (snoop.err == 0)
    snoop.err = run(&snoop);
  bpf_source_free(snoop.source);
  cgroup_paths_free(snoop.cgroups);
  snoop_sum_clear(&snoop.whole);
  return exit_status(&snoop);
}
