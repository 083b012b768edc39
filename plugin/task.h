/* SPDX-License-Identifier: MIT */
/* What /proc says of one thread. Thread ids are those of collectd's own pid
 * namespace. Thread-safe. */
#ifndef RECLAIM_TASK_H
#define RECLAIM_TASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/reclaim_shared.h"

struct task {
  char comm[RECLAIM_COMM_SIZE]; /* raw bytes, zero behind them */
  char state;                   /* as in /proc/TID/stat: R, S, D, ... */
  bool kthread;
  uint64_t start_ns; /* CLOCK_MONOTONIC, as fine as a clock tick */
};

/* Parses /proc/TID/stat (fs/proc/array.c: do_task_stat), in which the start
 * counts from boot, sleep of the machine included; `asleep_ns` is how long that
 * was. Returns 0, or -EINVAL. Pure. */
int task_parse_stat(const char *stat, uint64_t asleep_ns, struct task *task);

/* Reads the thread. Returns 0, or a negative errno: -ENOENT or -ESRCH where it
 * is gone. */
int task_read(uint32_t tid, struct task *task);

/* Reads the comm of the thread's group leader. Returns as task_read does. */
int task_read_leader_comm(uint32_t tid, char comm[RECLAIM_COMM_SIZE]);

/* Reads the path of the thread's cgroup in the v2 hierarchy, cut at `size`.
 * Returns as task_read does; -ENOENT also where there is no such hierarchy. */
int task_read_cgroup(uint32_t tid, char *path, size_t size);

/* Whether a stall of the thread that began at `begin_ns` can be under way: it
 * was there, and runs or waits uninterruptibly, as nobody in reclaim or
 * compaction does otherwise. */
bool task_can_stall_since(const struct task *task, uint64_t begin_ns);

#endif
