/* SPDX-License-Identifier: MIT */
/* A source and the programs that it loaded, to be run one by one in the kernel
 * by BPF_PROG_TEST_RUN: in the calling thread, with its tid and comm. Kind
 * `node` stands for all three: no machine without zone_reclaim_mode adds stalls
 * of its own to it. */
#ifndef BENCH_H
#define BENCH_H

#include <errno.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "plugin/bpf_source.h"
#include "plugin/kind.h"
#include "tests/unit/tap.h"

/* A source, and the programs it loaded. */
struct bench {
  struct bpf_source *source;
  int begin_fds[RECLAIM_KINDS];
  int end_fds[RECLAIM_KINDS];
  int node_words_fd;
  struct bpf_source_rows rows; /* of the last drain */
};

static inline void print_log(enum log_level level, const char *message) {
  printf("# log %d: %s\n", level, message);
}

/* Finding what a source loaded: it has the descriptors in this process, where
 * other sources on this machine do not get in the way. */

static inline bool is_bpf(int fd, const char *what) {
  char path[64], target[64] = "";
  snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
  return readlink(path, target, sizeof(target) - 1) > 0 &&
         strstr(target, what) != NULL;
}

static inline bool prog_has_name(int fd, const char *name) {
  struct bpf_prog_info info = {0};
  __u32 size = sizeof(info);
  return is_bpf(fd, "bpf-prog") &&
         bpf_obj_get_info_by_fd(fd, &info, &size) == 0 &&
         strcmp(info.name, name) == 0;
}

static inline bool map_has_name(int fd, const char *name) {
  struct bpf_map_info info = {0};
  __u32 size = sizeof(info);
  return is_bpf(fd, "bpf-map") &&
         bpf_obj_get_info_by_fd(fd, &info, &size) == 0 &&
         strcmp(info.name, name) == 0;
}

/* A descriptor that the caller closes, or -1. */
static inline int find_own(bool (*has_name)(int, const char *),
                           const char *name) {
  for (int fd = 0; fd < 1024; fd++)
    if (has_name(fd, name))
      return dup(fd);
  return -1;
}

static inline int find_program(const char *name) {
  return find_own(prog_has_name, name);
}

static inline int find_map(const char *name) {
  return find_own(map_has_name, name);
}

static const struct bpf_source_options defaults = {
    .kinds = {[RECLAIM_DIRECT] = true, [RECLAIM_NODE] = true},
    .max_tracked = 256,
};

static inline void bench_init(struct bench *bench,
                              const struct bpf_source_options *options) {
  *bench = (struct bench){0};
  int err = bpf_source_new(options, print_log, &bench->source);
  if (err == -EPERM)
    skip_all("needs CAP_BPF and CAP_PERFMON");
  if (err != 0) {
    printf("Bail out! cannot load the programs: %s\n", strerror(-err));
    exit(1);
  }
  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++) {
    char name[32];
    snprintf(name, sizeof(name), "%s_begin", kind_name(kind));
    bench->begin_fds[kind] = find_program(name);
    snprintf(name, sizeof(name), "%s_end", kind_name(kind));
    bench->end_fds[kind] = find_program(name);
  }
  bench->node_words_fd = find_map("node_words");
}

static inline void bench_fini(struct bench *bench) {
  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++) {
    close(bench->begin_fds[kind]);
    close(bench->end_fds[kind]);
  }
  close(bench->node_words_fd);
  bpf_source_free(bench->source);
}

/* Skips where nothing can be run at all. */
static inline void need_live_tests(void) {
  const char *live = getenv("RECLAIM_LIVE_TESTS");
  if (live && strcmp(live, "no") == 0)
    skip_all("live tests are off");
  if (geteuid() != 0)
    skip_all("needs root");
}

/* Stalls */

static inline void run_with(int fd, __u64 first, __u64 second, __u64 third) {
  __u64 args[3] = {first, second, third};
  LIBBPF_OPTS(bpf_test_run_opts, options, .ctx_in = args,
              .ctx_size_in = sizeof(args));
  int err = bpf_prog_test_run_opts(fd, &options);
  if (err != 0) {
    printf("Bail out! cannot run a program: %s\n", strerror(-err));
    exit(1);
  }
}

static inline void run(int fd, __u64 first) { run_with(fd, first, 0, 0); }

static inline void begin(const struct bench *bench, enum reclaim_kind kind) {
  run(bench->begin_fds[kind], 0);
}

static inline void end(const struct bench *bench, enum reclaim_kind kind,
                       __u64 nr_reclaimed) {
  run(bench->end_fds[kind], nr_reclaimed);
}

static inline void stall(const struct bench *bench, __u64 nr_reclaimed) {
  begin(bench, RECLAIM_NODE);
  end(bench, RECLAIM_NODE, nr_reclaimed);
}

static inline void set_comm(const char *comm) { prctl(PR_SET_NAME, comm); }

static inline __u64 now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (__u64)now.tv_sec * 1000000000 + (__u64)now.tv_nsec;
}

static inline void sleep_ms(long ms) {
  nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

/* Rows */

static inline void drain_keeping(struct bench *bench,
                                 const struct reclaim_row_key *keep,
                                 size_t num) {
  int err = bpf_source_drain(bench->source, keep, num, &bench->rows);
  if (err != 0) {
    printf("Bail out! cannot drain: %s\n", strerror(-err));
    exit(1);
  }
}

static inline void drain(struct bench *bench) { drain_keeping(bench, NULL, 0); }

static inline struct reclaim_row_key key_of(const char *comm,
                                            enum reclaim_kind kind) {
  struct reclaim_row_key key = {.kind = kind};
  memcpy(key.comm, comm, strnlen(comm, sizeof(key.comm)));
  return key;
}

/* A copy of the row with this key of the last drain; zeros if there is none. */
static inline struct reclaim_row row_at(const struct bench *bench,
                                        struct reclaim_row_key key) {
  for (size_t i = 0; i < bench->rows.num; i++)
    if (memcmp(&bench->rows.keys[i], &key, sizeof(key)) == 0)
      return bench->rows.rows[i];
  return (struct reclaim_row){0};
}

static inline struct reclaim_row
row_of(const struct bench *bench, const char *comm, enum reclaim_kind kind) {
  return row_at(bench, key_of(comm, kind));
}

static inline struct reclaim_row overflow_row(const struct bench *bench) {
  return row_at(bench, (struct reclaim_row_key){.kind = RECLAIM_NODE,
                                                .flags = RECLAIM_ROW_OVERFLOW});
}

static inline __u64 timed(struct reclaim_row row) {
  __u64 sum = 0;
  for (size_t i = 0; i < RECLAIM_BUCKETS; i++)
    sum += row.buckets[i];
  return sum;
}

#endif
