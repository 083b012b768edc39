/* SPDX-License-Identifier: MIT */
/* Watches stalls of the work in memory cgroups, and what others do in between:
 *
 *   watch
 *
 * is attached when it prints `READY`. Commands, a line each, on standard input:
 *
 *   after     attaches the programs that come after those attached by now
 *   stats     lets the kernel measure how long each BPF program runs
 *   plain     ends that
 *   read      prints `seen timed between nothing`: ends of stalls, those that
 * were timed, and the ns of these between the programs before and after, and
 * between two with nothing between; then a line `id ns runs` for each BPF
 * program; then `.`
 *
 * Each is answered, the others by `OK`. Ends with its standard input. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "tests/bench/watch_shared.h"

#include "tests/bench/watch.skel.h"

static struct watch_bpf *skel;
static int stats_fd = -1;

static void fail(const char *what, int error) {
  fprintf(stderr, "watch: %s: %s\n", what, strerror(error));
  exit(1);
}

static struct bpf_link *attach(struct bpf_program *program) {
  struct bpf_link *link = bpf_program__attach(program);
  if (!link)
    fail(bpf_program__name(program), errno);
  return link;
}

static void print_programs(void) {
  for (__u32 id = 0; bpf_prog_get_next_id(id, &id) == 0;) {
    int fd = bpf_prog_get_fd_by_id(id);
    struct bpf_prog_info info = {0};
    __u32 size = sizeof(info);
    if (fd < 0)
      continue; /* gone meanwhile */
    if (bpf_obj_get_info_by_fd(fd, &info, &size) == 0)
      printf("%u %llu %llu\n", id, (unsigned long long)info.run_time_ns,
             (unsigned long long)info.run_cnt);
    close(fd);
  }
}

static void print_all(void) {
  unsigned long long seen = 0, timed = 0, between_ns = 0, between_none_ns = 0;
  for (int i = 0; i < WATCH_CPUS; i++) {
    const volatile struct watch_cpu *cpu = &skel->bss->cpus[i];
    seen += cpu->seen[WATCH_end];
    timed += cpu->timed[WATCH_end];
    between_ns += cpu->between_ns;
    between_none_ns += cpu->between_none_ns;
  }
  printf("%llu %llu %llu %llu\n", seen, timed, between_ns, between_none_ns);
  print_programs();
  puts(".");
}

static void obey(const char *command) {
  if (strcmp(command, "read\n") == 0) {
    print_all();
    return;
  }
  if (strcmp(command, "after\n") == 0) {
    skel->links.after_begin = attach(skel->progs.after_begin);
    skel->links.after_end = attach(skel->progs.after_end);
  } else if (strcmp(command, "stats\n") == 0) {
    stats_fd = bpf_enable_stats(BPF_STATS_RUN_TIME);
    if (stats_fd < 0)
      fail("cannot measure programs", errno);
  } else if (strcmp(command, "plain\n") == 0) {
    close(stats_fd);
  } else {
    fail(command, EINVAL);
  }
  puts("OK");
}

int main(void) {
  skel = watch_bpf__open_and_load();
  if (!skel)
    fail("cannot load", errno);
  skel->links.first_begin = attach(skel->progs.first_begin);
  skel->links.first_end = attach(skel->progs.first_end);
  skel->links.before_begin = attach(skel->progs.before_begin);
  skel->links.before_end = attach(skel->progs.before_end);
  setvbuf(stdout, NULL, _IOFBF, 0);
  puts("READY");
  fflush(stdout);
  char command[16];
  while (fgets(command, sizeof(command), stdin)) {
    obey(command);
    fflush(stdout);
  }
  watch_bpf__destroy(skel);
  return 0;
}
