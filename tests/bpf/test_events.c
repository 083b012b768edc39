/* SPDX-License-Identifier: MIT */
/* Single stalls as events. */
#include <fcntl.h>
#include <sys/stat.h>

#include <bpf/btf.h>

#include "tests/bpf/bench.h"

#define MAX_EVENTS 100000

static struct {
  size_t num;
  struct reclaim_event events[MAX_EVENTS];
} got;

static void take(void *context, const struct reclaim_event *event) {
  (void)context;
  if (got.num < MAX_EVENTS)
    got.events[got.num++] = *event;
}

/* Until there are no more. */
static void collect(struct bench *bench) {
  got.num = 0;
  while (bpf_source_collect_events(bench->source, take, NULL) > 0)
    continue;
}

static struct bpf_source_options with_events(__u64 min_ns) {
  struct bpf_source_options options = defaults;
  options.events = true;
  options.event_min_ns = min_ns;
  return options;
}

static __u32 my_tid(void) { return (__u32)syscall(SYS_gettid); }

/* Makes a stall of kind node from a thread that has a comm of its own. */
static __u32 worker_tid;

static void *stall_as_worker(void *bench) {
  set_comm("a-worker");
  worker_tid = my_tid();
  stall(bench, 5);
  return NULL;
}

static void run_worker(struct bench *bench) {
  pthread_t thread;
  pthread_create(&thread, NULL, stall_as_worker, bench);
  pthread_join(thread, NULL);
}

static bool has_map(const char *name) {
  int fd = find_map(name);
  if (fd >= 0)
    close(fd);
  return fd >= 0;
}

static void test_off(void) {
  struct bench bench;
  bench_init(&bench, &defaults);
  ok(has_map("node_words"), "a source makes maps");
  ok(!has_map("events") && !has_map("stacks") && !has_map("node_details"),
     "but none for events that are off");
  stall(&bench, 1);
  collect(&bench);
  is_u64(got.num, 0, "nor has it events");
  bench_fini(&bench);
}

static void test_fields(void) {
  struct bpf_source_options options = with_events(0);
  struct bench bench;
  bench_init(&bench, &options);
  set_comm("a\n\x1b[31m\xff");
  run_with(bench.begin_fds[RECLAIM_NODE], 1, 3, 0xcc0);
  __u64 inner_begin = now_ns();
  sleep_ms(4);
  __u64 inner_end = now_ns();
  end(&bench, RECLAIM_NODE, 32);
  __u64 outer_end = now_ns();
  collect(&bench);

  is_u64(got.num, 1, "a stall is one event");
  const struct reclaim_event *event = &got.events[0];
  ok(strcmp(event->comm, "a\n\x1b[31m\xff") == 0, "with the raw comm");
  ok(strcmp(event->key.comm, event->comm) == 0 &&
         event->key.kind == RECLAIM_NODE && event->key.flags == 0,
     "and the row's key");
  is_u64(event->tid, my_tid(), "tid");
  is_u64(event->tgid, (uint64_t)getpid(), "tgid");
  is_u64(event->nr_reclaimed, 32, "nr_reclaimed");
  is_u64(event->order, 3, "order");
  is_u64(event->gfp_flags, 0xcc0, "gfp_flags");
  ok(event->end_ns >= inner_end && event->end_ns <= outer_end,
     "the end is a time of CLOCK_MONOTONIC");
  drain(&bench);
  struct reclaim_row_key key = event->key;
  is_u64(event->stall_ns, row_at(&bench, key).time_ns,
         "its time is that of the row");
  ok(event->stall_ns >= inner_end - inner_begin, "which is the stall's");
  ok(event->stack_id < 0, "no stack, since none was asked for");

  end(&bench, RECLAIM_NODE, 0);
  collect(&bench);
  ok(got.num == 1 && event->stall_ns == RECLAIM_UNTIMED &&
         event->order == RECLAIM_ORDER_UNKNOWN,
     "an end without begin is an event without time and order");
  bench_fini(&bench);
}

/* By name of the type, where the programs go by the number of arguments. */
static bool gfp_comes_first(const char *tracepoint) {
  char name[64];
  snprintf(name, sizeof(name), "btf_trace_%s", tracepoint);
  struct btf *btf = btf__load_vmlinux_btf();
  const struct btf_type *type =
      btf__type_by_id(btf, btf__find_by_name_kind(btf, name, BTF_KIND_TYPEDEF));
  type = btf__type_by_id(btf, btf__type_by_id(btf, type->type)->type);
  const struct btf_type *first = btf__type_by_id(btf, btf_params(type)[1].type);
  bool is_gfp = strcmp(btf__name_by_offset(btf, first->name_off), "gfp_t") == 0;
  btf__free(btf);
  return is_gfp;
}

static void test_order_of_arguments(void) {
  struct bpf_source_options options = with_events(0);
  struct bench bench;
  bench_init(&bench, &options);
  bool gfp_first = gfp_comes_first("mm_vmscan_direct_reclaim_begin");
  printf("# gfp_flags come %s\n", gfp_first ? "first" : "second");
  run_with(bench.begin_fds[RECLAIM_DIRECT], gfp_first ? 0x100cca : 9,
           gfp_first ? 9 : 0x100cca, 0);
  end(&bench, RECLAIM_DIRECT, 1);
  collect(&bench);
  /* Others may be in direct reclaim on this machine. */
  const struct reclaim_event *mine = NULL;
  for (size_t i = 0; i < got.num; i++)
    if (got.events[i].tid == my_tid())
      mine = &got.events[i];
  ok(mine && mine->order == 9, "the order is the argument of that type");
  ok(mine && mine->gfp_flags == 0x100cca, "so are gfp_flags");
  bench_fini(&bench);
}

static void test_threshold(void) {
  struct bpf_source_options options = with_events(20000000);
  struct bench bench;
  bench_init(&bench, &options);
  stall(&bench, 1);
  begin(&bench, RECLAIM_NODE);
  sleep_ms(30);
  end(&bench, RECLAIM_NODE, 77);
  end(&bench, RECLAIM_NODE, 2);
  collect(&bench);
  ok(got.num == 1 && got.events[0].nr_reclaimed == 77,
     "a shorter stall is no event, nor is one of unknown time");
  bench_fini(&bench);
}

static void test_full_ring(void) {
  struct bpf_source_options options = with_events(0);
  struct bench bench;
  bench_init(&bench, &options);
  set_comm("storm");
  for (int i = 0; i < 5000; i++)
    stall(&bench, 1);
  ok(bpf_source_events_lost(bench.source) > 0,
     "events that find the ring buffer full are lost");
  bpf_source_stop(bench.source);
  drain(&bench);
  collect(&bench);
  printf("# %zu events, %llu lost\n", got.num,
         (unsigned long long)bpf_source_events_lost(bench.source));
  is_u64(got.num + bpf_source_events_lost(bench.source), 5000,
         "and counted as such");
  is_u64(row_of(&bench, "storm", RECLAIM_NODE).stalls, 5000,
         "their stalls count all the same");
  bench_fini(&bench);
}

static void test_stopped(void) {
  struct bpf_source_options options = with_events(0);
  options.kinds[RECLAIM_MEMCG] = true;
  struct bench bench;
  bench_init(&bench, &options);
  set_comm("before-stop");
  stall(&bench, 3);
  bpf_source_stop(bench.source);
  ok(bpf_source_is_attached(bench.source, RECLAIM_NODE),
     "a source that is stopped has its kinds");
  drain(&bench);
  collect(&bench);
  ok(row_of(&bench, "before-stop", RECLAIM_NODE).pages == 3 && got.num > 0,
     "and what it had counted");
  bench_fini(&bench);
}

static void test_only_pid(void) {
  struct bpf_source_options options = with_events(0);
  options.only_pid = (uint32_t)getpid() + 1;
  struct bench bench;
  bench_init(&bench, &options);
  set_comm("a-stranger");
  stall(&bench, 1);
  collect(&bench);
  drain(&bench);
  is_u64(got.num, 0, "with only_pid, others have no events");
  is_u64(row_of(&bench, "a-stranger", RECLAIM_NODE).stalls, 0, "nor rows");
  bench_fini(&bench);

  options.only_pid = (uint32_t)getpid();
  bench_init(&bench, &options);
  run_worker(&bench);
  collect(&bench);
  ok(got.num == 1 && got.events[0].tid == worker_tid &&
         got.events[0].tgid == (uint32_t)getpid(),
     "all threads of the process have");
  drain(&bench);
  is_u64(row_of(&bench, "a-worker", RECLAIM_NODE).stalls, 1, "and rows");
  bench_fini(&bench);

  options.only_pid = my_tid();
  bench_init(&bench, &options);
  stall(&bench, 1);
  collect(&bench);
  is_u64(got.num, 1, "it may be a thread's id");
  bench_fini(&bench);
}

static void test_process(void) {
  struct bpf_source_options options = with_events(0);
  options.group_by = RECLAIM_BY_PROCESS;
  struct bench bench;
  bench_init(&bench, &options);
  set_comm("leader");
  run_worker(&bench);
  collect(&bench);
  ok(got.num == 1 && strcmp(got.events[0].key.comm, "leader") == 0,
     "by process, an event is of the leader's row");
  is_str(got.events[0].comm, "a-worker", "and has the task's own comm");
  bench_fini(&bench);
}

static void test_group_by_cgroup(void) {
  struct bpf_source_options options = with_events(0);
  options.group_by = RECLAIM_BY_CGROUP;
  struct bench bench;
  bench_init(&bench, &options);
  stall(&bench, 9);
  collect(&bench);
  drain(&bench);
  struct reclaim_row_key key = {.kind = RECLAIM_NODE};
  memcpy(key.comm, &got.events[0].cgroup_id, sizeof(__u64));
  ok(got.num == 1 && got.events[0].cgroup_id != 0 &&
         row_at(&bench, key).pages == 9,
     "by cgroup, a row has its id");
  bench_fini(&bench);
}

static void test_stacks(void) {
  struct bpf_source_options options = with_events(0);
  options.event_stacks = true;
  struct bench bench;
  bench_init(&bench, &options);
  stall(&bench, 1);
  stall(&bench, 1);
  collect(&bench);
  uint64_t addresses[RECLAIM_STACK_DEPTH];
  size_t depth =
      bpf_source_stack(bench.source, got.events[0].stack_id, addresses);
  ok(got.num == 2 && depth > 1, "an event has a kernel stack");
  bool kernel = true;
  for (size_t i = 0; i < depth; i++)
    kernel = kernel && addresses[i] >> 63;
  ok(kernel, "of kernel addresses");
  is_u64(bpf_source_stack(bench.source, -1, addresses), 0, "none has no depth");
  bench_fini(&bench);
}

static void test_cgroup(void) {
  static const char *const mounts[] = {"/sys/fs/cgroup/unified",
                                       "/sys/fs/cgroup"};
  char path[4096] = "";
  FILE *mine = fopen("/proc/self/cgroup", "r");
  while (mine && fgets(path, sizeof(path), mine) &&
         strncmp(path, "0::", 3) != 0)
    continue;
  if (mine)
    fclose(mine);
  path[strcspn(path, "\n")] = '\0';
  struct stat cgroup = {0};
  for (size_t i = 0; i < 2 && cgroup.st_ino == 0; i++) {
    char directory[5000];
    snprintf(directory, sizeof(directory), "%s%s/cgroup.controllers", mounts[i],
             path + 3);
    if (stat(directory, &cgroup) == 0) {
      *strrchr(directory, '/') = '\0';
      stat(directory, &cgroup);
    }
  }
  if (cgroup.st_ino == 0) {
    skip("cgroup", "no cgroup v2 hierarchy is mounted");
    return;
  }
  struct bpf_source_options options = with_events(0);
  struct bench bench;
  bench_init(&bench, &options);
  stall(&bench, 1);
  collect(&bench);
  is_u64(got.events[0].cgroup_id, cgroup.st_ino,
         "an event has the inode of the task's cgroup");
  bench_fini(&bench);
}

int main(void) {
  need_live_tests();
  test_off();
  test_fields();
  test_order_of_arguments();
  test_threshold();
  test_full_ring();
  test_stopped();
  test_only_pid();
  test_process();
  test_group_by_cgroup();
  test_stacks();
  test_cgroup();
  return done();
}
