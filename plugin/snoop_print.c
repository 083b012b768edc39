/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include "comm.h"
#include "histogram.h"
#include "kind.h"
#include "snoop_print.h"

#define NS_PER_S 1000000000
#define OTHERS "(others)"

/* Text */

/* A line under construction: what may be clipped, and what of it is LAT. */
struct line {
  char text[512];
  size_t used;
  size_t lat_at, lat_end;
};

__attribute__((format(printf, 2, 3))) static void
append(struct line *line, const char *format, ...) {
  va_list args;
  va_start(args, format);
  int len = vsnprintf(line->text + line->used, sizeof(line->text) - line->used,
                      format, args);
  va_end(args);
  line->used += (size_t)len;
  if (line->used >= sizeof(line->text))
    line->used = sizeof(line->text) - 1;
}

/* A comm of which not all fits ends in `+`, after its last whole escape; an
 * empty one keeps its column. */
static void append_comm(struct line *line, const char *comm, size_t width) {
  char text[COMM_TEXT_SIZE] = "\"\"";
  if (comm[0] != '\0')
    comm_escape(comm, RECLAIM_COMM_SIZE, text, sizeof(text));
  if (strlen(text) > width) {
    comm_escape(comm, RECLAIM_COMM_SIZE, text, width);
    strcat(text, "+");
  }
  append(line, "%-*s ", (int)width, text);
}

/* Fits every number into `width`, four or more columns, if need be as
 * thousands (k), millions (M) … */
static void append_count(struct line *line, uint64_t count, int width) {
  static const char units[] = {'k', 'M', 'G', 'T', 'P'};
  char text[32];
  int len = snprintf(text, sizeof(text), "%" PRIu64, count);
  for (size_t i = 0; len > width && i < sizeof(units); i++) {
    count /= 1000;
    len = snprintf(text, sizeof(text), "%" PRIu64 "%c", count, units[i]);
  }
  append(line, "%*s ", width, text);
}

/* Whole milliseconds where the fraction does not fit. */
static void append_ms(struct line *line, uint64_t ns, int width, int digits) {
  char text[32];
  int len =
      snprintf(text, sizeof(text), "%.*f", digits, (double)ns / 1000000.0);
  if (len > width)
    append_count(line, ns / 1000000, width);
  else
    append(line, "%*s ", width, text);
}

/* No blanks at the end, and no more than fits the terminal: what does not ends
 * in `+`. */
static void finish(FILE *out, const struct snoop_format *format,
                   struct line *line, const char *colour) {
  while (line->used > 0 && line->text[line->used - 1] == ' ')
    line->used--;
  bool clipped = format->width > 0 && line->used > format->width;
  if (clipped) {
    line->used = format->width;
    line->text[line->used - 1] = '+';
  }
  if (colour && line->lat_end <= line->used - clipped)
    fprintf(out, "%.*s%s%.*s\x1b[0m%.*s\n", (int)line->lat_at, line->text,
            colour, (int)(line->lat_end - line->lat_at),
            line->text + line->lat_at, (int)(line->used - line->lat_end),
            line->text + line->lat_end);
  else
    fprintf(out, "%.*s\n", (int)line->used, line->text);
}

static const char *colour_of(const struct snoop_format *format,
                             uint64_t stall_ns) {
  if (!format->colour || stall_ns == RECLAIM_UNTIMED || stall_ns < 10000000)
    return NULL;
  return stall_ns < 100000000 ? "\x1b[33m" : "\x1b[31m";
}

/* Seconds since the epoch; `rest_ns` is what exceeds them. */
static time_t wall_clock(const struct snoop_format *format, uint64_t ns,
                         long *rest_ns) {
  int64_t wall_ns = (int64_t)ns + format->realtime_ns;
  *rest_ns = (long)(wall_ns % NS_PER_S);
  return (time_t)(wall_ns / NS_PER_S);
}

static void append_time(struct line *line, const struct snoop_format *format,
                        uint64_t ns) {
  long rest_ns;
  time_t seconds = wall_clock(format, ns, &rest_ns);
  struct tm tm = {0};
  localtime_r(&seconds, &tm);
  append(line, "%02d:%02d:%02d.%03ld ", tm.tm_hour, tm.tm_min, tm.tm_sec,
         rest_ns / 1000000);
}

void snoop_print_stall_header(FILE *out, const struct snoop_format *format) {
  struct line line = {.used = 0};
  if (format->timestamps)
    append(&line, "%-12s ", "TIME");
  append(&line, "%-16s %7s %10s %7s ", "COMM", "PID", "LAT(ms)", "PAGES");
  if (format->process)
    append(&line, "%7s %-16s ", "TGID", "PROCESS");
  append(&line, "%-8s %5s  %s", "KIND", "ORDER", "GFP");
  finish(out, format, &line, NULL);
}

/* Of kinds that reclaim nothing there is nothing to say. */
static void append_pages(struct line *line, enum reclaim_kind kind,
                         uint64_t count, int width) {
  if (kind_reclaims(kind))
    append_count(line, count, width);
  else
    append(line, "%*s ", width, "-");
}

static void append_request(struct line *line, const struct snoop_format *format,
                           const struct reclaim_event *event) {
  if (event->order == RECLAIM_ORDER_UNKNOWN) {
    append(line, "%5s  -", "-");
    return;
  }
  char gfp[256];
  gfp_names_print(format->gfp, event->gfp_flags, gfp, sizeof(gfp));
  append(line, "%5u  %s", event->order, gfp);
}

static void print_line(FILE *out, const struct snoop_format *format,
                       const struct reclaim_event *event) {
  struct line line = {.used = 0};
  if (format->timestamps)
    append_time(&line, format, event->end_ns);
  append_comm(&line, event->comm, 16);
  append(&line, "%7u ", event->tid);
  line.lat_at = line.used;
  if (event->stall_ns == RECLAIM_UNTIMED)
    append(&line, "%10s ", "-");
  else
    append_ms(&line, event->stall_ns, 10, 3);
  line.lat_end = line.used - 1;
  append_pages(&line, event->key.kind, event->nr_reclaimed, 7);
  if (format->process) {
    append(&line, "%7u ", event->tgid);
    append_comm(&line, event->key.comm, 16);
  }
  append(&line, "%-8s ", kind_short_name(event->key.kind));
  append_request(&line, format, event);
  finish(out, format, &line, colour_of(format, event->stall_ns));
}

/* JSON */

void snoop_print_json_string(FILE *out, const char *text) {
  fputc('"', out);
  for (; *text != '\0'; text++) {
    if (*text == '"' || *text == '\\')
      fputc('\\', out);
    fputc(*text, out);
  }
  fputc('"', out);
}

void snoop_print_json_time(FILE *out, const struct snoop_format *format,
                           uint64_t ns) {
  long rest_ns;
  time_t seconds = wall_clock(format, ns, &rest_ns);
  struct tm tm = {0};
  gmtime_r(&seconds, &tm);
  char text[64];
  strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
  fprintf(out, "\"%s.%06ldZ\"", text, rest_ns / 1000);
}

static void print_comm(FILE *out, const char *comm) {
  char text[COMM_TEXT_SIZE];
  comm_escape(comm, RECLAIM_COMM_SIZE, text, sizeof(text));
  snoop_print_json_string(out, text);
}

static void print_path(FILE *out, const char *path) {
  char text[4 * PATH_MAX + 1];
  comm_escape(path, PATH_MAX, text, sizeof(text));
  snoop_print_json_string(out, text);
}

static void print_request(FILE *out, const struct snoop_format *format,
                          const struct reclaim_event *event) {
  if (event->order == RECLAIM_ORDER_UNKNOWN) {
    fputs(",\"order\":null,\"gfp_flags\":null", out);
    return;
  }
  char gfp[256];
  gfp_names_print(format->gfp, event->gfp_flags, gfp, sizeof(gfp));
  fprintf(out, ",\"order\":%u,\"gfp_flags\":", event->order);
  snoop_print_json_string(out, gfp);
}

static void print_count(FILE *out, const char *name, enum reclaim_kind kind,
                        uint64_t count) {
  if (kind_reclaims(kind))
    fprintf(out, ",\"%s\":%" PRIu64, name, count);
  else
    fprintf(out, ",\"%s\":null", name);
}

static void print_object(FILE *out, const struct snoop_format *format,
                         const struct reclaim_event *event,
                         const char *cgroup) {
  fputs("{\"time\":", out);
  snoop_print_json_time(out, format, event->end_ns);
  fputs(",\"comm\":", out);
  print_comm(out, event->comm);
  fprintf(out, ",\"pid\":%u,\"tid\":%u", event->tgid, event->tid);
  if (format->process) {
    fputs(",\"process\":", out);
    print_comm(out, event->key.comm);
  }
  fprintf(out, ",\"kind\":\"%s\"", kind_name(event->key.kind));
  if (event->stall_ns == RECLAIM_UNTIMED)
    fputs(",\"latency_ns\":null", out);
  else
    fprintf(out, ",\"latency_ns\":%" PRIu64, (uint64_t)event->stall_ns);
  print_count(out, "nr_reclaimed", event->key.kind, event->nr_reclaimed);
  print_request(out, format, event);
  fputs(",\"cgroup\":", out);
  if (cgroup)
    print_path(out, cgroup);
  else
    fputs("null", out);
  fprintf(out, ",\"cgroup_id\":%" PRIu64 "}\n", (uint64_t)event->cgroup_id);
}

void snoop_print_stall(FILE *out, const struct snoop_format *format,
                       const struct reclaim_event *event, const char *cgroup) {
  if (format->json)
    print_object(out, format, event, cgroup);
  else
    print_line(out, format, event);
}

/* Tables */

/* A blank is nothing, a dot little, `@` as many as in the fullest bucket. */
static void append_histogram(struct line *line,
                             const uint64_t buckets[RECLAIM_BUCKETS]) {
  static const char shades[] = ".:-=+*#%@";
  uint64_t fullest = 0;
  for (size_t i = 0; i < RECLAIM_BUCKETS; i++)
    if (buckets[i] > fullest)
      fullest = buckets[i];
  for (size_t i = 0; i < RECLAIM_BUCKETS; i++)
    append(line, "%c",
           buckets[i] == 0
               ? ' '
               : shades[buckets[i] * (sizeof(shades) - 2) / fullest]);
}

void snoop_print_report_time(FILE *out, const struct snoop_format *format,
                             uint64_t ns) {
  struct line line = {.used = 0};
  if (format->timestamps)
    append_time(&line, format, ns);
  finish(out, format, &line, NULL);
}

void snoop_print_whole_run(FILE *out) { fputs("whole run\n", out); }

void snoop_print_row_header(FILE *out, const struct snoop_format *format) {
  struct line line = {.used = 0};
  append(&line, "%-15s %-8s %7s %9s %7s %6s %7s ", "NAME", "KIND", "STALLS",
         "TIME(ms)", "PAGES", "NONE", "MAX(ms)");
  append(&line, "us  ms    s"); /* the bucket in which each unit begins */
  finish(out, format, &line, NULL);
}

static void print_row(FILE *out, const struct snoop_format *format,
                      const struct snoop_row *row) {
  struct line line = {.used = 0};
  append_comm(&line, row->others ? OTHERS : row->comm, 15);
  append(&line, "%-8s ", kind_short_name(row->kind));
  append_count(&line, row->stalls, 7);
  append_ms(&line, row->time_ns, 9, 1);
  append_pages(&line, row->kind, row->pages, 7);
  append_pages(&line, row->kind, row->fruitless, 6);
  append_ms(&line, row->longest_ns, 7, 1);
  append_histogram(&line, row->buckets);
  finish(out, format, &line, NULL);
}

static void print_row_object(FILE *out, const struct snoop_format *format,
                             const struct snoop_row *row, uint64_t now_ns) {
  fputs("{\"time\":", out);
  snoop_print_json_time(out, format, now_ns);
  fputs(",\"name\":", out);
  if (row->others)
    fputs("null", out); /* which no task can call itself */
  else
    print_comm(out, row->comm);
  fprintf(out, ",\"kind\":\"%s\",\"stalls\":%" PRIu64 ",\"time_ns\":%" PRIu64,
          kind_name(row->kind), row->stalls, row->time_ns);
  print_count(out, "nr_reclaimed", row->kind, row->pages);
  print_count(out, "fruitless", row->kind, row->fruitless);
  fprintf(out, ",\"longest_ns\":%" PRIu64 ",\"histogram\":{", row->longest_ns);
  for (size_t i = 0; i < RECLAIM_BUCKETS; i++)
    fprintf(out, "%s\"%s\":%" PRIu64, i > 0 ? "," : "",
            histogram_bound_label(i), row->buckets[i]);
  fputs("}}\n", out);
}

void snoop_print_row(FILE *out, const struct snoop_format *format,
                     const struct snoop_row *row, uint64_t now_ns) {
  if (format->json)
    print_row_object(out, format, row, now_ns);
  else
    print_row(out, format, row);
}

/* Totals */

static void print_share(FILE *out, const char *separator, uint64_t stalls,
                        const char *what) {
  fprintf(out, "%s%" PRIu64 " %s", separator, stalls, what);
}

void snoop_print_totals(FILE *out, enum snoop_mode mode,
                        const struct snoop_totals *totals, bool selective) {
  bool tables = mode == SNOOP_TABLES;
  uint64_t selected = totals->taken - totals->unselected;
  uint64_t known = totals->taken + totals->lost + totals->hidden;
  uint64_t unselected = totals->unselected + totals->counted - known;
  print_share(out, "", totals->counted,
              totals->counted == 1 ? "stall" : "stalls");
  if (mode == SNOOP_LINES)
    print_share(out, ": ", selected, "printed");
  if (mode == SNOOP_STACKS) {
    print_share(out, ": ", selected - totals->stackless, "in stacks");
    print_share(out, ", ", totals->stackless, "without a stack");
  }
  if (tables && selective)
    print_share(out, ": ", selected, "shown");
  if (selective || unselected > 0)
    print_share(out, ", ", unselected, "not selected");
  if (!tables)
    print_share(out, ", ", totals->lost, "lost");
  if (totals->hidden > 0 && (!tables || selective))
    print_share(out, ", ", totals->hidden, "hidden by the kernel");
  if (totals->untimed > 0)
    fprintf(out, " (%" PRIu64 " of unknown time)", totals->untimed);
  fputc('\n', out);
}
