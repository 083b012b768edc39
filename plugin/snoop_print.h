/* SPDX-License-Identifier: MIT */
/* Stalls and their sums as text for people and as JSON for programs. What tasks
 * call themselves never reaches the output but escaped. Writes to the stream it
 * is given, and does nothing else; whether that worked, the stream tells. */
#ifndef RECLAIM_SNOOP_PRINT_H
#define RECLAIM_SNOOP_PRINT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "bpf/reclaim_shared.h"
#include "plugin/gfp.h"
#include "plugin/snoop_sum.h"

struct snoop_format {
  bool json;
  bool timestamps;     /* TIME in front */
  bool process;        /* TGID and PROCESS as well */
  bool colour;         /* long stalls */
  size_t width;        /* of the terminal; 0: lines are not clipped */
  int64_t realtime_ns; /* CLOCK_REALTIME less CLOCK_MONOTONIC */
  const struct gfp_names *gfp;
};

/* Where the stalls went. */
struct snoop_totals {
  uint64_t counted;    /* by the kernel side */
  uint64_t untimed;    /* of these */
  uint64_t hidden;     /* of these, by the kernel: nobody saw their end */
  uint64_t taken;      /* as events, or, in tables, as rows with a name */
  uint64_t unselected; /* of these, by their name */
  uint64_t stackless;  /* of these, came without a stack */
  uint64_t lost;       /* events that found no room */
};

/* What `taken` stalls became, and so how the totals are worded. */
enum snoop_mode { SNOOP_LINES, SNOOP_TABLES, SNOOP_STACKS };

/* Writes `text` as a JSON string; it is ASCII without control characters. */
void snoop_print_json_string(FILE *out, const char *text);

/* Writes `ns` of CLOCK_MONOTONIC in ISO 8601, UTC, with quotes. */
void snoop_print_json_time(FILE *out, const struct snoop_format *format,
                           uint64_t ns);

/* The line above the stalls. */
void snoop_print_stall_header(FILE *out, const struct snoop_format *format);

/* One stall, a line or an object. `cgroup` is its path, raw, or NULL. */
void snoop_print_stall(FILE *out, const struct snoop_format *format,
                       const struct reclaim_event *event, const char *cgroup);

/* The line above a report: empty, or its time where timestamps are on. */
void snoop_print_report_time(FILE *out, const struct snoop_format *format,
                             uint64_t ns);

/* The line above the table of all intervals. */
void snoop_print_whole_run(FILE *out);

/* The line above the rows of a table. */
void snoop_print_row_header(FILE *out, const struct snoop_format *format);

/* One row of a table, a line of at most 80 columns or an object that says that
 * it ends at `now_ns` of CLOCK_MONOTONIC. */
void snoop_print_row(FILE *out, const struct snoop_format *format,
                     const struct snoop_row *row, uint64_t now_ns);

/* One line in which the numbers add up; `selective` where some stalls were not
 * asked for. Of what was counted, all that is neither taken nor lost nor hidden
 * was too short to be asked for. */
void snoop_print_totals(FILE *out, enum snoop_mode mode,
                        const struct snoop_totals *totals, bool selective);

#endif
