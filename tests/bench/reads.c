/* SPDX-License-Identifier: MIT */
/* What a start and a read of the plugin's parts take in user space:
 *
 *   reads [READS [ROWS]]
 *
 * Stalls are made in the kernel by BPF_PROG_TEST_RUN, each row by a comm of its
 * own. What collectd does with values is left out here: they are dispatched to
 * nobody. Prints, as a table in Markdown, the CPU time of each part of a read,
 * the median of READS, in us, and how often a read takes memory. */
#include "plugin/collectd_api.h"

#include "plugin/clock.h"
#include "plugin/dispatch.h"
#include "plugin/inflight.h"
#include "plugin/keep.h"
#include "plugin/ledger.h"
#include "plugin/name.h"
#include "tests/bpf/bench.h"

/* collectd */

static size_t values_num;

int plugin_dispatch_values(value_list_t const *list) {
  (void)list;
  values_num++;
  return 0;
}

char *hostname_g = "a-host";

void daemon_log(int level, const char *format, ...) {
  (void)level;
  (void)format;
}

/* Memory */

static size_t taken; /* how often */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t num, size_t size);
void *__libc_realloc(void *old, size_t size);

void *malloc(size_t size) {
  taken++;
  return __libc_malloc(size);
}

void *calloc(size_t num, size_t size) {
  taken++;
  return __libc_calloc(num, size);
}

void *realloc(void *old, size_t size) {
  taken++;
  return __libc_realloc(old, size);
}

static long resident_kib(void) {
  long pages = 0;
  FILE *statm = fopen("/proc/self/statm", "re");
  if (!statm || fscanf(statm, "%*d %ld", &pages) != 1)
    exit(1);
  fclose(statm);
  return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Time */

static uint64_t cpu_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

enum part { DRAIN, CLEAN, LEDGER, DISPATCH, HOST, PARTS };

/* The parts, wired as in plugin/reclaim.c */

static struct config config;
static struct bench bench;
static struct ledger *ledger;
static struct keep *keep;
static struct inflight *inflight;
static struct ledger_row *rows;
static struct host host = {-EBADF, -EBADF};
static struct host_account account;

static bool selects(void *context, const char *name) {
  return config_selects(context, name);
}

static void make_parts(const struct bpf_source_options *options) {
  size_t max_drained = bpf_source_max_rows(options);
  size_t max_rows = max_drained + BPF_SOURCE_MAX_UNDER_WAY;
  struct ledger_options ledger_options = {
      .max_names = config.max_names,
      .idle_intervals = config.idle_intervals,
      .new_names_per_hour = config.new_names_per_hour,
      .max_rows = max_rows,
      .selects = selects,
      .selects_context = &config};
  memcpy(ledger_options.kinds, options->kinds, sizeof(options->kinds));
  ledger = ledger_new(&ledger_options);
  keep = keep_new(max_drained, config.idle_intervals);
  inflight = inflight_new();
  rows = calloc(max_rows, sizeof(*rows));
  if (!ledger || !keep || !inflight || !rows)
    exit(1);
}

static size_t name_rows(void) {
  struct bpf_source_rows *drained = &bench.rows;
  for (size_t i = 0; i < drained->num; i++) {
    rows[i].key = &drained->keys[i];
    rows[i].row = &drained->rows[i];
    rows[i].kind = drained->keys[i].kind;
    name_of_key(&config, NULL, &drained->keys[i], rows[i].name);
  }
  return drained->num;
}

static void read_once(uint64_t took_ns[PARTS]) {
  uint64_t times[PARTS + 1] = {cpu_ns()};
  size_t keep_num;
  const struct reclaim_row_key *keys = keep_keys(keep, &keep_num);
  drain_keeping(&bench, keys, keep_num);
  times[CLEAN] = cpu_ns();
  struct inflight_shares shares;
  inflight_update(inflight, &bench.rows, &shares);
  size_t num = name_rows();
  times[LEDGER] = cpu_ns();
  ledger_add_interval(ledger, rows, num, monotonic_ns());
  keep_update(keep, rows, num);
  times[DISPATCH] = cpu_ns();
  dispatch_ledger(&config, ledger, 0, 1);
  times[HOST] = cpu_ns();
  host_read(&host, &account);
  dispatch_host(&account, 1);
  times[PARTS] = cpu_ns();
  for (size_t i = 0; i < PARTS; i++)
    took_ns[i] = times[i + 1] - times[i];
}

static void make_rows(size_t num) {
  char comm[32];
  for (size_t i = 0; i < num; i++) {
    snprintf(comm, sizeof(comm), "bench-%zx-", i);
    set_comm(comm);
    begin(&bench, RECLAIM_DIRECT);
    end(&bench, RECLAIM_DIRECT, 32);
  }
}

static int compare_times(const void *a, const void *b) {
  uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
  return left < right ? -1 : left > right;
}

static double median_us(uint64_t *each_ns, size_t num) {
  qsort(each_ns, num, sizeof(*each_ns), compare_times);
  return (double)each_ns[num / 2] / 1000;
}

/* A line of the table. */
static void measure_reads(size_t rows_num, size_t reads) {
  uint64_t(*took)[PARTS] = calloc(reads, sizeof(*took));
  uint64_t *each = calloc(reads, sizeof(*each));
  size_t taken_in_reads = 0;
  for (size_t i = 0; i < reads; i++) {
    make_rows(rows_num);
    size_t before = taken;
    values_num = 0;
    read_once(took[i]);
    taken_in_reads += i < 3 ? 0 : taken - before; /* the first may warm up */
  }
  printf("| %zu ", rows_num);
  double sum = 0;
  for (enum part part = 0; part < PARTS; part++) {
    for (size_t i = 0; i < reads; i++)
      each[i] = took[i][part];
    double us = median_us(each, reads);
    sum += us;
    printf("| %.1f ", us);
  }
  printf("| %.1f | %zu | %zu |\n", sum, values_num, taken_in_reads);
  free(took);
  free(each);
}

static void measure_start(const struct bpf_source_options *options) {
  long before_kib = resident_kib();
  uint64_t begin_cpu_ns = cpu_ns(), begin_ns = monotonic_ns();
  struct bpf_source *source;
  if (bpf_source_new(options, print_log, &source) != 0)
    exit(1);
  printf(
      "From the start to attached: %.1f ms, %.1f ms of CPU; then %ld KiB more "
      "are resident.\n\n",
      (double)(monotonic_ns() - begin_ns) / 1e6,
      (double)(cpu_ns() - begin_cpu_ns) / 1e6, resident_kib() - before_kib);
  bpf_source_free(source);
}

int main(int argc, char **argv) {
  size_t reads = argc > 1 ? (size_t)atol(argv[1]) : 200;
  need_live_tests();
  config_init(&config);
  host_open(&host, NULL);
  struct bpf_source_options options = {.max_tracked = config.max_tracked};
  memcpy(options.kinds, config.kinds, sizeof(options.kinds));

  measure_start(&options);
  bench_init(&bench, &options);
  make_parts(&options);
  size_t sizes[] = {0, 1, 10, 100, 1000};
  size_t sizes_num = sizeof(sizes) / sizeof(*sizes);
  if (argc > 2) {
    sizes[0] = (size_t)atol(argv[2]);
    sizes_num = 1;
  }
  printf("| rows | drain | clean | ledger | dispatch | host | all | values | "
         "memory taken |\n"
         "| --: | --: | --: | --: | --: | --: | --: | --: | --: |\n");
  for (size_t i = 0; i < sizes_num; i++)
    measure_reads(sizes[i], reads);
  bench_fini(&bench);
  host_close(&host);
  return 0;
}
