/* SPDX-License-Identifier: MIT */
#include <time.h>

#include "plugin/snoop_print.h"
#include "tests/unit/stream.h"
#include "tests/unit/tap.h"

#define MS 1000000ULL

static const struct gfp_names gfp = {
    .num = 1, .names = {{.mask = 0xcc0, .name = "GFP_KERNEL"}}};

/* 2026-11-22 23:59:59.5 UTC, when the monotonic clock is at 0 */
static const int64_t realtime_ns = 1795391999500000000;

static const struct reclaim_event usual = {
    .key = {.comm = "java", .kind = RECLAIM_DIRECT},
    .comm = "GC_Thread-1",
    .end_ns = 1234567890,
    .stall_ns = 1234567,
    .nr_reclaimed = 32,
    .cgroup_id = 42,
    .tid = 4242,
    .tgid = 4200,
    .order = 3,
    .gfp_flags = 0xcc0,
};

static struct snoop_format format_of(const struct snoop_format *options) {
  struct snoop_format format = *options;
  format.gfp = &gfp;
  format.realtime_ns = realtime_ns;
  return format;
}

static const char *print_stall(const struct snoop_format *options,
                               const struct reclaim_event *event,
                               const char *cgroup) {
  struct snoop_format format = format_of(options);
  snoop_print_stall(stream_begin(), &format, event, cgroup);
  return stream_end();
}

static struct reclaim_event with_comm(const char *comm) {
  struct reclaim_event event = usual;
  memset(event.comm, 0, sizeof(event.comm));
  memcpy(event.comm, comm, strnlen(comm, sizeof(event.comm)));
  memcpy(event.key.comm, event.comm, sizeof(event.comm));
  return event;
}

static const struct snoop_format plain;

#define REST "    4242      1.235      32 direct       3  GFP_KERNEL\n"

static const struct {
  const char *behaviour;
  const char *comm;
  const char *line;
} comms[] = {
    {"a comm of 16 bytes fits", "abcdefghijklmnop", "abcdefghijklmnop" REST},
    {"an escape cannot drive the terminal", "\x1b[31mred",
     "\\x1b[31mred     " REST},
    {"a newline cannot forge a line", "a\nb 1 2", "a\\x0ab 1 2      " REST},
    {"text of 16 columns is whole", "abcdefghijkl\n", "abcdefghijkl\\x0a" REST},
    {"what does not fit ends in +", "\n\n\n\nx", "\\x0a\\x0a\\x0a+   " REST},
    {"after its last whole escape", "abcdefghijklm\n", "abcdefghijklm+  " REST},
    {"filled to the end", "abc\n\n\nzz", "abc\\x0a\\x0a\\x0a+" REST},
    {"an empty comm keeps its column", "", "\"\"              " REST},
};

static void test_comms(void) {
  for (size_t i = 0; i < sizeof(comms) / sizeof(*comms); i++) {
    struct reclaim_event event = with_comm(comms[i].comm);
    is_str(print_stall(&plain, &event, NULL), comms[i].line,
           comms[i].behaviour);
  }
}

static void test_line(void) {
  struct snoop_format format = plain;
  struct reclaim_event event = usual;
  is_str(print_stall(&format, &event, NULL),
         "GC_Thread-1         4242      1.235      32 direct       3  "
         "GFP_KERNEL\n",
         "a line has comm, thread, time, pages, kind, order, gfp");
  snoop_print_stall_header(stream_begin(), &format);
  is_str(stream_end(),
         "COMM                 PID    LAT(ms)   PAGES KIND     ORDER  GFP\n",
         "under this header");
  format.process = true;
  is_str(print_stall(&format, &event, NULL),
         "GC_Thread-1         4242      1.235      32    4200 java             "
         "direct       3  GFP_KERNEL\n",
         "-P has the process too");
  snoop_print_stall_header(stream_begin(), &format);
  is_str(stream_end(),
         "COMM                 PID    LAT(ms)   PAGES    TGID PROCESS          "
         "KIND     ORDER  GFP\n",
         "under its header");
  format = plain;
  format.timestamps = true;
  is_str(print_stall(&format, &event, NULL),
         "00:00:00.734 GC_Thread-1         4242      1.235      32 direct     "
         "  3  GFP_KERNEL\n",
         "-T has the time of the end in front, past midnight here");
  snoop_print_stall_header(stream_begin(), &format);
  is_str(stream_end(),
         "TIME         COMM                 PID    LAT(ms)   PAGES KIND     "
         "ORDER  GFP\n",
         "under its header");
}

static void test_unknown(void) {
  struct reclaim_event event = usual;
  event.stall_ns = RECLAIM_UNTIMED;
  event.order = RECLAIM_ORDER_UNKNOWN;
  is_str(print_stall(&plain, &event, NULL),
         "GC_Thread-1         4242          -      32 direct       -  -\n",
         "unknown time, order and flags are dashes");
  event = usual;
  event.gfp_flags = 0;
  event.order = 0;
  is_str(print_stall(&plain, &event, NULL),
         "GC_Thread-1         4242      1.235      32 direct       0  none\n",
         "no flags are not unknown flags");
}

static void test_great_numbers(void) {
  struct reclaim_event event = usual;
  event.tid = 4194303;
  event.stall_ns = 4398046511103ULL; /* the longest that is told */
  event.nr_reclaimed = 123456789;
  is_str(print_stall(&plain, &event, NULL),
         "GC_Thread-1      4194303    4398046 123456k direct       3  "
         "GFP_KERNEL\n",
         "great numbers keep their columns");
  event.stall_ns = 1;
  event.nr_reclaimed = UINT64_MAX - 1;
  is_str(print_stall(&plain, &event, NULL),
         "GC_Thread-1      4194303      0.000  18446P direct       3  "
         "GFP_KERNEL\n",
         "the greatest, too");
}

static void test_terminal(void) {
  struct snoop_format format = {.width = 31, .colour = true};
  struct reclaim_event event = usual;
  is_str(print_stall(&format, &event, NULL),
         "GC_Thread-1         4242      +\n",
         "a line is clipped to the terminal, and ends in +");
  event.stall_ns = 123 * MS;
  is_str(print_stall(&format, &event, NULL),
         "GC_Thread-1         4242    12+\n", "without half a colour");
  snoop_print_stall_header(stream_begin(), &format);
  is_str(stream_end(), "COMM                 PID    LA+\n", "the header too");
  format.width = 26;
  is_str(print_stall(&format, &event, NULL), "GC_Thread-1         4242 +\n",
         "also between columns");
  format.width = 35;
  is_str(print_stall(&format, &event, NULL),
         "GC_Thread-1         4242    123.00+\n",
         "a time of which a digit is missing has no colour");
  format.width = 1;
  is_str(print_stall(&format, &event, NULL), "+\n", "one column is enough");
  format.width = 66;
  event.stall_ns = MS;
  is_str(print_stall(&format, &event, NULL),
         "GC_Thread-1         4242      1.000      32 direct       3  "
         "GFP_K+\n",
         "what is asked for is cut, too");
  format.width = 70;
  is_str(print_stall(&format, &event, NULL),
         "GC_Thread-1         4242      1.000      32 direct       3  "
         "GFP_KERNEL\n",
         "what just fits is whole");
  event.stall_ns = 123 * MS;
  format.width = 36;
  is_str(print_stall(&format, &event, NULL),
         "GC_Thread-1         4242 \x1b[31m   123.000\x1b[0m+\n",
         "100 ms and more are red");
  event.stall_ns = 100 * MS - 1;
  is_str(print_stall(&format, &event, NULL),
         "GC_Thread-1         4242 \x1b[33m   100.000\x1b[0m+\n",
         "10 ms and more are yellow");
  event.stall_ns = 10 * MS - 1;
  is_str(print_stall(&format, &event, NULL),
         "GC_Thread-1         4242     10.000+\n", "less is plain");
  event.stall_ns = RECLAIM_UNTIMED;
  is_str(print_stall(&format, &event, NULL),
         "GC_Thread-1         4242          -+\n", "so is unknown time");
}

static void test_json(void) {
  struct snoop_format format = {.json = true};
  struct reclaim_event event = with_comm("a\"\\\n\xff");
  is_str(print_stall(&format, &event, "/a \"b\"\n"),
         "{\"time\":\"2026-11-23T00:00:00.734567Z\","
         "\"comm\":\"a\\\"\\\\x5c\\\\x0a\\\\xff\",\"pid\":4200,\"tid\":4242,"
         "\"kind\":\"direct\",\"latency_ns\":1234567,\"nr_reclaimed\":32,"
         "\"order\":3,\"gfp_flags\":\"GFP_KERNEL\","
         "\"cgroup\":\"/a \\\"b\\\"\\\\x0a\",\"cgroup_id\":42}\n",
         "an object has all fields, escaped twice: as text, and as JSON");
  event = usual;
  event.stall_ns = RECLAIM_UNTIMED;
  event.order = RECLAIM_ORDER_UNKNOWN;
  format.process = true;
  is_str(print_stall(&format, &event, NULL),
         "{\"time\":\"2026-11-23T00:00:00.734567Z\",\"comm\":\"GC_Thread-1\","
         "\"pid\":4200,\"tid\":4242,\"process\":\"java\",\"kind\":\"direct\","
         "\"latency_ns\":null,\"nr_reclaimed\":32,\"order\":null,"
         "\"gfp_flags\":null,\"cgroup\":null,\"cgroup_id\":42}\n",
         "what is unknown is null");
}

static void test_kinds_without_pages(void) {
  struct reclaim_event event = usual;
  event.key.kind = RECLAIM_COMPACT;
  ok(strstr(print_stall(&plain, &event, NULL), "      1.235       - compact "),
     "compaction has no pages to tell");
  struct snoop_format format = {.json = true};
  ok(strstr(print_stall(&format, &event, NULL), ",\"nr_reclaimed\":null,"),
     "which an object has as null");
}

static const struct snoop_row row = {
    .comm = "a\nrather_long",
    .kind = RECLAIM_MEMCG,
    .stalls = 1020,
    .time_ns = 123456789,
    .pages = 32000,
    .fruitless = 5,
    .longest_ns = 2345678,
    .buckets = {1000, 1, 111, 112, 0, 125, 250, 375, 500, 625, 750, 875, 999,
                1000},
};

static const char *print_row(const struct snoop_row *printed, bool json) {
  struct snoop_format format = format_of(&(struct snoop_format){.json = json});
  snoop_print_row(stream_begin(), &format, printed, 1234567890);
  return stream_end();
}

static void test_report_time(void) {
  struct snoop_format format = format_of(&plain);
  snoop_print_report_time(stream_begin(), &format, 1234567890);
  is_str(stream_end(), "\n", "a report has an empty line above");
  format.timestamps = true;
  snoop_print_report_time(stream_begin(), &format, 1234567890);
  is_str(stream_end(), "00:00:00.734\n", "or the time");
}

static void test_row(void) {
  snoop_print_whole_run(stream_begin());
  is_str(stream_end(), "whole run\n", "the table of the whole run says so");
  snoop_print_row_header(stream_begin(), &plain);
  is_str(
      stream_end(),
      "NAME            KIND      STALLS  TIME(ms)   PAGES   NONE MAX(ms) us  "
      "ms    s\n",
      "a table has a header");
  is_str(print_row(&row, false),
         "a\\x0arather_lo+ memcg       1020     123.5   32000      5     2.3 "
         "@... :-=+*#%%@\n",
         "a row has its sums and a histogram");
  struct snoop_row empty = {.stalls = 1};
  is_str(
      print_row(&empty, false),
      "\"\"              direct         1       0.0       0      0     0.0\n",
      "a row without a name keeps its column");
  struct snoop_row proactive = row;
  proactive.kind = RECLAIM_MEMCG_PROACTIVE;
  is_str(print_row(&proactive, false),
         "a\\x0arather_lo+ proact      1020     123.5   32000      5     2.3 "
         "@... :-=+*#%%@\n",
         "a kind that is too long for its column is told short");
  ok(strstr(print_row(&proactive, true), "\"kind\":\"memcg_proactive\"") !=
         NULL,
     "but not in JSON");
  struct snoop_row others = {.others = true,
                             .stalls = 123456789,
                             .time_ns = UINT64_MAX,
                             .pages = 123456789012,
                             .fruitless = 9999999,
                             .longest_ns = 3600000 * MS,
                             .buckets = {[13] = 1}};
  is_str(print_row(&others, false),
         "(others)        direct   123456k 18446744M 123456M  9999k 3600000 "
         "             @\n",
         "great numbers keep their columns");
  ok(strlen(stream.text) == 81, "80 columns are enough");
  struct snoop_format narrow = {.width = 32};
  snoop_print_row(stream_begin(), &narrow, &others, 0);
  is_str(stream_end(), "(others)        direct   123456+\n",
         "on less, rows are clipped");
  snoop_print_row_header(stream_begin(), &narrow);
  is_str(stream_end(), "NAME            KIND      STALL+\n",
         "and their header");
}

static void test_row_object(void) {
  is_str(print_row(&row, true),
         "{\"time\":\"2026-11-23T00:00:00.734567Z\","
         "\"name\":\"a\\\\x0arather_long\",\"kind\":\"memcg\",\"stalls\":1020,"
         "\"time_ns\":123456789,\"nr_reclaimed\":32000,\"fruitless\":5,"
         "\"longest_ns\":2345678,\"histogram\":{\"10us\":1000,\"30us\":1,"
         "\"100us\":111,\"300us\":112,\"1ms\":0,\"3ms\":125,\"10ms\":250,"
         "\"30ms\":375,\"100ms\":500,\"300ms\":625,\"1s\":750,\"3s\":875,"
         "\"10s\":999,\"inf\":1000}}\n",
         "a row as an object has numbers, each stall in one bucket");
  struct snoop_row empty = {.stalls = 1};
  ok(strstr(print_row(&empty, true), "\"name\":\"\"") != NULL,
     "a row without a name is empty");
  struct snoop_row others = {.others = true};
  ok(strstr(print_row(&others, true), "\"name\":null") != NULL,
     "the row of the others has no name that a task could have");
}

static const struct {
  const char *behaviour;
  enum snoop_mode mode;
  bool selective;
  struct snoop_totals totals;
  const char *line;
} totals[] = {
    {"nothing", SNOOP_LINES, false, {0}, "0 stalls: 0 printed, 0 lost\n"},
    {"one",
     SNOOP_LINES,
     false,
     {.counted = 1, .taken = 1},
     "1 stall: 1 printed, 0 lost\n"},
    {"printed and lost",
     SNOOP_LINES,
     false,
     {.counted = 1234, .taken = 1200, .lost = 34},
     "1234 stalls: 1200 printed, 34 lost\n"},
    {"names that were not asked for",
     SNOOP_LINES,
     true,
     {.counted = 100, .taken = 90, .unselected = 20, .lost = 10},
     "100 stalls: 70 printed, 20 not selected, 10 lost\n"},
    {"names that were asked for, and no others",
     SNOOP_LINES,
     true,
     {.counted = 1, .taken = 1},
     "1 stall: 1 printed, 0 not selected, 0 lost\n"},
    {"shorter ones that were not asked for",
     SNOOP_LINES,
     true,
     {.counted = 100, .taken = 50, .unselected = 20, .lost = 10},
     "100 stalls: 30 printed, 60 not selected, 10 lost\n"},
    {"hidden by the kernel",
     SNOOP_LINES,
     false,
     {.counted = 100, .hidden = 7, .taken = 90, .lost = 3, .untimed = 2},
     "100 stalls: 90 printed, 3 lost, 7 hidden by the kernel "
     "(2 of unknown time)\n"},
    {"hidden ones are not taken for shorter ones",
     SNOOP_LINES,
     true,
     {.counted = 100, .hidden = 7, .taken = 50, .unselected = 1, .lost = 3},
     "100 stalls: 49 printed, 41 not selected, 3 lost, 7 hidden by the "
     "kernel\n"},
    {"tables",
     SNOOP_TABLES,
     false,
     {.counted = 100, .hidden = 7, .taken = 93},
     "100 stalls\n"},
    {"tables of some names",
     SNOOP_TABLES,
     true,
     {.counted = 100, .hidden = 7, .taken = 93, .unselected = 20},
     "100 stalls: 73 shown, 20 not selected, 7 hidden by the kernel\n"},
    {"stacks",
     SNOOP_STACKS,
     true,
     {.counted = 100, .taken = 90, .unselected = 20, .stackless = 5, .lost = 1},
     "100 stalls: 65 in stacks, 5 without a stack, 29 not selected, 1 lost\n"},
};

static void test_totals(void) {
  for (size_t i = 0; i < sizeof(totals) / sizeof(*totals); i++) {
    snoop_print_totals(stream_begin(), totals[i].mode, &totals[i].totals,
                       totals[i].selective);
    is_str(stream_end(), totals[i].line, totals[i].behaviour);
  }
}

int main(void) {
  setenv("TZ", "UTC", 1);
  tzset();
  test_line();
  test_comms();
  test_unknown();
  test_great_numbers();
  test_terminal();
  test_json();
  test_kinds_without_pages();
  test_report_time();
  test_row();
  test_row_object();
  test_totals();
  free(stream.text);
  return done();
}
