/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "plugin/task.h"
#include "tests/unit/tap.h"

#define S 1000000000ULL
#define BEHIND                                                                 \
  " 1 2 3 4 -1 4194560 5 6 7 8 90 91 92 93 20 0 3 0 123456 1 2 3 4\n"
#define OF_KERNEL                                                              \
  " 2 0 0 0 -1 2129984 5 6 7 8 90 91 92 93 20 0 1 0 77 1 2 3 4\n"

struct stat_case {
  const char *behaviour;
  const char *stat;
  const char *comm;
  char state;
  bool kthread;
};

static const struct stat_case cases[] = {
    {"a plain comm", "12 (java) S" BEHIND, "java", 'S', false},
    {"a comm with fields in it", "12 (x) R 1 (2) D" BEHIND, "x) R 1 (2", 'D',
     false},
    {"a comm with a newline", "12 (a\nb) R" BEHIND, "a\nb", 'R', false},
    {"a kernel thread", "3 (kworker/u8:3) I" OF_KERNEL, "kworker/u8:3", 'I',
     true},
    {"a kernel thread whose name is longer than its comm",
     "3 (kworker/R-kvfree_rcu_reclaim) I" OF_KERNEL, "kworker/R-kvfre", 'I',
     true},
    {"no comm", "3 () R" BEHIND, "", 'R', false},
};

static const char *const bad_stats[] = {
    "", "12", "12 (java", "12 (java)", "12 (java) S 1 2 3", ")(",
};

static void test_parse(void) {
  struct task task;
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    int err = task_parse_stat(cases[i].stat, 0, &task);
    ok(err == 0 && strncmp(task.comm, cases[i].comm, sizeof(task.comm)) == 0 &&
           task.state == cases[i].state && task.kthread == cases[i].kthread,
       "%s", cases[i].behaviour);
  }
  for (size_t i = 0; i < sizeof(bad_stats) / sizeof(*bad_stats); i++)
    ok(task_parse_stat(bad_stats[i], 0, &task) < 0, "half a line is refused");

  uint64_t ticks = (uint64_t)sysconf(_SC_CLK_TCK);
  task_parse_stat(cases[0].stat, 0, &task);
  is_u64(task.start_ns, 123456 * (S / ticks), "the start in ns");
  task_parse_stat(cases[0].stat, 3 * S, &task);
  is_u64(task.start_ns, 123456 * (S / ticks) - 3 * S,
         "on a clock that stops while the machine sleeps");
}

static void test_can_stall(void) {
  struct task task = {.state = 'D', .start_ns = 5 * S};
  ok(task_can_stall_since(&task, 6 * S), "a task that waits can stall");
  ok(task_can_stall_since(&task, 5 * S - 1), "its start is as fine as a tick");
  ok(!task_can_stall_since(&task, 4 * S), "not since before it was there");
  for (const char *state = "STtZX"; *state; state++) {
    task.state = *state;
    ok(!task_can_stall_since(&task, 6 * S), "not in state %c", *state);
  }
  task.state = 'R';
  ok(task_can_stall_since(&task, 6 * S), "one that runs can");
}

static void *look_at_self(void *context) {
  struct task *task = context;
  prctl(PR_SET_NAME, "a) R (thread");
  if (task_read((uint32_t)syscall(SYS_gettid), task) != 0)
    task->state = '?';
  char *leader = task[1].comm;
  task_read_leader_comm((uint32_t)syscall(SYS_gettid), leader);
  return NULL;
}

static void test_read(void) {
  struct task tasks[2] = {0};
  struct timespec now;
  pthread_t thread;
  prctl(PR_SET_NAME, "lead\ner\\");
  clock_gettime(CLOCK_MONOTONIC, &now);
  pthread_create(&thread, NULL, look_at_self, tasks);
  pthread_join(thread, NULL);
  is_str(tasks[0].comm, "a) R (thread", "a thread's own comm");
  ok(tasks[0].state == 'R' && !tasks[0].kthread, "which runs");
  is_str(tasks[1].comm, "lead\ner\\", "its leader's comm, as it is");
  uint64_t now_ns = (uint64_t)now.tv_sec * S + (uint64_t)now.tv_nsec;
  ok(tasks[0].start_ns + S / 10 > now_ns && tasks[0].start_ns < now_ns + S,
     "and when it started");
  ok(task_read(0x3fffff, &tasks[0]) < 0, "a thread that is not there");
  ok(task_read_leader_comm(0x3fffff, tasks[0].comm) < 0, "has no leader");
  ok(task_read(2, &tasks[0]) != 0 || tasks[0].kthread ||
         strcmp(tasks[0].comm, "kthreadd") != 0,
     "kthreadd is a kernel thread");
}

static void test_cgroup(void) {
  char path[4096] = "", whole[8192] = "";
  FILE *file = fopen("/proc/self/cgroup", "re");
  size_t len = fread(whole, 1, sizeof(whole) - 1, file);
  whole[len] = '\0';
  fclose(file);
  const char *line = strstr(whole, "0::");
  int err = task_read_cgroup((uint32_t)getpid(), path, sizeof(path));
  if (line)
    ok(err == 0 && strncmp(path, line + 3, strlen(path)) == 0 &&
           path[0] == '/' && line[3 + strlen(path)] == '\n',
       "the path of a thread's cgroup is %s", path);
  else
    ok(err == -ENOENT, "a host without cgroups v2 says so");
  ok(task_read_cgroup(0x3fffff, path, sizeof(path)) < 0,
     "a thread that is not there has no cgroup");
}

int main(void) {
  test_cgroup();
  test_parse();
  test_can_stall();
  test_read();
  return done();
}
