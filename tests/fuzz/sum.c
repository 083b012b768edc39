/* SPDX-License-Identifier: MIT */
/* Tables of reclaimsnoop: no stall is lost or counted twice on the way from
 * rows to sums and to text, and each row fits its columns. */
#include "plugin/comm.h"
#include "plugin/histogram.h"
#include "plugin/snoop_print.h"
#include "tests/fuzz/json.h"
#include "tests/fuzz/rows.h"
#include "tests/unit/stream.h"

#define HISTOGRAM_AT 66 /* column */

/* All that was added. */
struct model {
  uint64_t stalls, time_ns, pages, fruitless, longest_ns;
  uint64_t buckets[RECLAIM_BUCKETS];
};

static void add_rows(struct model *model, const struct rows *rows) {
  for (size_t i = 0; i < rows->num; i++) {
    const struct reclaim_row *row = &rows->counts[i];
    if (row->stalls == 0)
      continue;
    model->stalls += row->stalls;
    model->time_ns += row->time_ns;
    model->pages += row->pages;
    model->fruitless += row->fruitless;
    if (row->longest_ns > model->longest_ns)
      model->longest_ns = row->longest_ns;
    for (size_t b = 0; b < RECLAIM_BUCKETS; b++)
      model->buckets[b] += row->buckets[b];
  }
}

static bool is_same(const struct snoop_row *a, const struct snoop_row *b) {
  return a->kind == b->kind && a->others == b->others &&
         memcmp(a->comm, b->comm, sizeof(a->comm)) == 0;
}

static void check_sum(const struct snoop_sum *sum, const struct model *model) {
  struct model seen = {.stalls = 0};
  for (size_t i = 0; i < sum->num; i++) {
    const struct snoop_row *row = &sum->rows[i];
    MUST(row->stalls > 0);
    MUST(row->longest_ns >= histogram_floor_ns(row->buckets));
    MUST(i == 0 || sum->rows[i - 1].time_ns >= row->time_ns);
    for (size_t j = 0; j < i; j++)
      MUST(!is_same(row, &sum->rows[j]));
    seen.stalls += row->stalls;
    seen.time_ns += row->time_ns;
    seen.pages += row->pages;
    seen.fruitless += row->fruitless;
    if (row->longest_ns > seen.longest_ns)
      seen.longest_ns = row->longest_ns;
    for (size_t b = 0; b < RECLAIM_BUCKETS; b++)
      seen.buckets[b] += row->buckets[b];
  }
  uint64_t timed = 0;
  for (size_t b = 0; b < RECLAIM_BUCKETS; b++)
    timed += seen.buckets[b];
  uint64_t floor_ns = histogram_floor_ns(model->buckets);
  MUST(seen.longest_ns ==
       (floor_ns > model->longest_ns ? floor_ns : model->longest_ns));
  seen.longest_ns = model->longest_ns;
  MUST(memcmp(&seen, model, sizeof(seen)) == 0);
  MUST(snoop_sum_stalls(sum) == model->stalls);
  MUST(snoop_sum_untimed(sum) == model->stalls - timed);
}

/* Of a shade for each bucket, blanks at the end left out. */
static void check_histogram(const struct snoop_row *row, const char *shades) {
  static const char ladder[] = " .:-=+*#%@";
  size_t len = strlen(shades), fullest = 0;
  MUST(len <= RECLAIM_BUCKETS);
  for (size_t i = 0; i < RECLAIM_BUCKETS; i++)
    if (row->buckets[i] > row->buckets[fullest])
      fullest = i;
  for (size_t i = 0; i < RECLAIM_BUCKETS; i++) {
    char shade = i < len ? shades[i] : ' ';
    MUST(strchr(ladder, shade) && (shade == ' ') == (row->buckets[i] == 0));
    MUST(row->buckets[i] == 0 || row->buckets[i] < row->buckets[fullest] ||
         shade == '@');
    for (size_t j = 0; j < i; j++)
      MUST(row->buckets[i] <= row->buckets[j] ||
           strchr(ladder, shade) >= strchr(ladder, shades[j]));
  }
}

static void check_line(const struct snoop_row *row, const char *text) {
  char line[128];
  size_t len = strlen(text);
  MUST(len > 1 && len <= 81 && text[len - 1] == '\n');
  memcpy(line, text, len - 1);
  line[len - 1] = '\0';
  MUST(is_printable(line));
  static const size_t gaps[] = {15, 24, 32, 42, 50, 57, 65};
  for (size_t i = 0; i < sizeof(gaps) / sizeof(*gaps); i++)
    MUST(gaps[i] >= len - 1 || line[gaps[i]] == ' ');
  check_histogram(row, len - 1 > HISTOGRAM_AT ? line + HISTOGRAM_AT : "");
}

static void check_text(const struct snoop_row *row, uint64_t now_ns) {
  struct snoop_format format = {.json = false};
  snoop_print_row(stream_begin(), &format, row, now_ns);
  check_line(row, stream_end());
  format.json = true;
  snoop_print_row(stream_begin(), &format, row, now_ns);
  const char *at = stream_end();
  MUST(json_line(&at) && *at == '\0');
}

static void check_percentiles(const struct snoop_row *row) {
  double before = 0;
  for (double percent = 1; percent <= 99.9; percent += 12.3) {
    double s = histogram_percentile_s(row->buckets, row->longest_ns, percent);
    MUST(s >= before && s <= (double)row->longest_ns / 1e9);
    before = s;
  }
}

/* Comms of any bytes; rows with a bit of the kernel's flags. */
static void make_hostile(struct input *input, struct rows *rows) {
  for (size_t i = 0; i < rows->num; i++)
    if (!(rows->keys[i].flags & RECLAIM_ROW_OVERFLOW) && take_bool(input))
      take_bytes(input, rows->keys[i].comm, sizeof(rows->keys[i].comm));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct input input = {data, size};
  struct rows rows = {.left = INT64_MAX};
  struct snoop_sum all = {0};
  struct model model = {.stalls = 0};
  uint64_t now_ns = take_number(&input) >> 2;
  do {
    struct snoop_sum sum = {0};
    struct model of_interval = {.stalls = 0};
    take_rows(&input, &rows, ROWS_MAX);
    make_hostile(&input, &rows);
    add_rows(&model, &rows);
    add_rows(&of_interval, &rows);
    MUST(snoop_sum_add(&sum, rows.keys, rows.counts, rows.num) == 0);
    snoop_sum_sort(&sum);
    check_sum(&sum, &of_interval);
    MUST(snoop_sum_merge(&all, &sum) == 0);
    snoop_sum_clear(&sum);
  } while (input.left > 0);
  snoop_sum_sort(&all);
  check_sum(&all, &model);
  for (size_t i = 0; i < all.num; i++) {
    check_text(&all.rows[i], now_ns);
    check_percentiles(&all.rows[i]);
  }
  snoop_sum_clear(&all);
  free(stream.text);
  stream.text = NULL;
  return 0;
}
