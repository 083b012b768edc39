/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "task.h"

#define PF_KTHREAD 0x00200000 /* include/linux/sched.h */

static uint64_t tick_ns(void) {
  return 1000000000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

/* The comm can hold anything, also what looks like the fields behind it: the
 * last parenthesis is its end. */
int task_parse_stat(const char *stat, uint64_t asleep_ns, struct task *task) {
  const char *comm = strchr(stat, '('), *end = strrchr(stat, ')');
  if (!comm || !end || end < comm)
    return -EINVAL;
  size_t len = (size_t)(end - comm - 1);
  *task = (struct task){0};
  /* Of kernel threads the file has more than their comm. */
  memcpy(task->comm, comm + 1,
         len < sizeof(task->comm) ? len : sizeof(task->comm) - 1);
  uint64_t flags, start_ticks;
  if (sscanf(end + 1,
             " %c %*s %*s %*s %*s %*s %" SCNu64 " %*s %*s %*s %*s %*s %*s %*s "
             "%*s %*s %*s %*s %*s %" SCNu64,
             &task->state, &flags, &start_ticks) != 3)
    return -EINVAL;
  task->kthread = flags & PF_KTHREAD;
  uint64_t start_ns = start_ticks * tick_ns();
  task->start_ns = start_ns > asleep_ns ? start_ns - asleep_ns : 0;
  return 0;
}

/* Reads a small file of /proc whole; a comm in it may hold any byte but NUL. */
static int read_file(uint32_t tid, const char *name, char *text, size_t size) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/%" PRIu32 "/%s", tid, name);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return -errno;
  ssize_t len = read(fd, text, size - 1);
  int err = len < 0 ? -errno : 0;
  close(fd);
  text[len > 0 ? len : 0] = '\0';
  return err;
}

int task_read(uint32_t tid, struct task *task) {
  char stat[1024];
  int err = read_file(tid, "stat", stat, sizeof(stat));
  if (err != 0)
    return err;
  uint64_t awake_ns = monotonic_ns();
  return task_parse_stat(stat, clock_ns(CLOCK_BOOTTIME) - awake_ns, task);
}

int task_read_leader_comm(uint32_t tid, char comm[RECLAIM_COMM_SIZE]) {
  char text[1024];
  uint32_t tgid;
  int err = read_file(tid, "status", text, sizeof(text));
  if (err != 0)
    return err;
  /* The comm is escaped in this file, and ends with its line. */
  const char *line = strstr(text, "\nTgid:");
  if (!line || sscanf(line, "\nTgid: %" SCNu32, &tgid) != 1)
    return -EINVAL;
  err = read_file(tgid, "comm", text, sizeof(text));
  if (err != 0)
    return err;
  size_t len = strlen(text);
  memset(comm, 0, RECLAIM_COMM_SIZE);
  memcpy(comm, text,
         len > RECLAIM_COMM_SIZE ? RECLAIM_COMM_SIZE : len - (len > 0));
  return 0;
}

int task_read_cgroup(uint32_t tid, char *path, size_t size) {
  char text[8192];
  int err = read_file(tid, "cgroup", text, sizeof(text));
  if (err != 0)
    return err;
  /* A line a hierarchy; that of v2 has number 0 and is the last. */
  const char *line =
      strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
  if (!line)
    return -ENOENT;
  const char *begin = strchr(line, '/');
  if (!begin)
    return -ENOENT;
  snprintf(path, size, "%.*s", (int)strcspn(begin, "\n"), begin);
  return 0;
}

bool task_can_stall_since(const struct task *task, uint64_t begin_ns) {
  return (task->state == 'R' || task->state == 'D') &&
         task->start_ns <= begin_ns + tick_ns();
}
