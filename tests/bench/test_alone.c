/* SPDX-License-Identifier: MIT */
/* What the plugin's programs take for a stall, beside the same for others: by
 * the kernel's own measure of BPF programs, which run one after the other by
 * BPF_PROG_TEST_RUN, so that nothing else is measured. Prints TAP; times are
 * notes, ratios are checked. */
#include "tests/bpf/bench.h"

#include "tests/bench/contestants.skel.h"

enum { ROUNDS = 9, STALLS = 5000 };

/* Ratios scatter by some per cent from run to run. */
static const double margin = 1.2;

enum set { EMPTY, CLOCKS, HASHES, EXPORTER, PLUGIN, SETS };

static const struct {
  const char *name;
  double most; /* times its ns that the plugin may take; 0: any */
} sets[SETS] = {
    [EMPTY] = {"empty", 0},         [CLOCKS] = {"clocks", 1.6},
    [HASHES] = {"hashes", 1.0 / 2}, [EXPORTER] = {"exporter", 1 / 2.5},
    [PLUGIN] = {"plugin", 0},
};

struct programs {
  int begin_fd, end_fd;
};

static struct programs programs_of(const struct bpf_object *contestants,
                                   const char *set) {
  char begin[32], end[32];
  snprintf(begin, sizeof(begin), "%s_begin", set);
  snprintf(end, sizeof(end), "%s_end", set);
  return (struct programs){
      bpf_program__fd(bpf_object__find_program_by_name(contestants, begin)),
      bpf_program__fd(bpf_object__find_program_by_name(contestants, end))};
}

static struct contestants_bpf *load_contestants(void) {
  struct contestants_bpf *skel = contestants_bpf__open();
  struct bpf_program *program;
  if (!skel) {
    printf("Bail out! cannot open what to compare with\n");
    exit(1);
  }
  bpf_object__for_each_program(program, skel->obj) {
    bool wanted = false;
    for (enum set set = 0; set < PLUGIN; set++)
      wanted |= strncmp(bpf_program__name(program), sets[set].name,
                        strlen(sets[set].name)) == 0;
    bpf_program__set_autoload(program, wanted);
  }
  if (contestants_bpf__load(skel) != 0) {
    printf("Bail out! cannot load what to compare with\n");
    exit(1);
  }
  return skel;
}

static double ns_of_run(int fd, __u64 *ns_before, __u64 *runs_before) {
  struct bpf_prog_info info = {0};
  __u32 size = sizeof(info);
  bpf_obj_get_info_by_fd(fd, &info, &size);
  double ns = (double)(info.run_time_ns - *ns_before) /
              (double)(info.run_cnt - *runs_before);
  *ns_before = info.run_time_ns;
  *runs_before = info.run_cnt;
  return ns;
}

/* ns for begin and end. */
static double measure(struct programs programs) {
  __u64 begin_ns = 0, begin_runs = 0, end_ns = 0, end_runs = 0;
  ns_of_run(programs.begin_fd, &begin_ns, &begin_runs);
  ns_of_run(programs.end_fd, &end_ns, &end_runs);
  for (int i = 0; i < STALLS; i++) {
    run(programs.begin_fd, 0);
    run(programs.end_fd, 32);
  }
  return ns_of_run(programs.begin_fd, &begin_ns, &begin_runs) +
         ns_of_run(programs.end_fd, &end_ns, &end_runs);
}

static int compare(const void *a, const void *b) {
  double left = *(const double *)a, right = *(const double *)b;
  return left < right ? -1 : left > right;
}

static double median(const double each[ROUNDS]) {
  double sorted[ROUNDS];
  memcpy(sorted, each, sizeof(sorted));
  qsort(sorted, ROUNDS, sizeof(*sorted), compare);
  return sorted[ROUNDS / 2];
}

int main(void) {
  need_live_tests();
  struct bpf_source_options options = defaults;
  options.max_tracked = 4096;
  struct bench bench;
  bench_init(&bench, &options);
  struct contestants_bpf *skel = load_contestants();
  int stats_fd = bpf_enable_stats(BPF_STATS_RUN_TIME);
  ok(stats_fd >= 0, "the kernel measures BPF programs");

  struct programs programs[SETS];
  for (enum set set = 0; set < PLUGIN; set++)
    programs[set] = programs_of(skel->obj, sets[set].name);
  programs[PLUGIN] = (struct programs){bench.begin_fds[RECLAIM_NODE],
                                       bench.end_fds[RECLAIM_NODE]};
  double ns[SETS][ROUNDS], ratios[SETS][ROUNDS];
  set_comm("alone");
  for (int round = -1; round < ROUNDS; round++) /* the first is to warm up */
    for (enum set set = 0; set < SETS; set++)
      ns[set][round < 0 ? 0 : round] = measure(programs[set]);
  for (enum set set = 0; set < SETS; set++) {
    for (int round = 0; round < ROUNDS; round++)
      ratios[set][round] = ns[PLUGIN][round] / ns[set][round];
    double ratio = median(ratios[set]);
    printf("# | %s | %.0f | %.2f |\n", sets[set].name, median(ns[set]), ratio);
    if (sets[set].most > 0)
      ok(ratio <= sets[set].most * margin,
         "the plugin takes at most %.2g times what %s takes (%.3g)",
         sets[set].most, sets[set].name, ratio);
  }
  drain(&bench);
  is_u64(row_of(&bench, "alone", RECLAIM_NODE).stalls, (ROUNDS + 1) * STALLS,
         "and counts each stall");
  close(stats_fd);
  contestants_bpf__destroy(skel);
  bench_fini(&bench);
  return done();
}
