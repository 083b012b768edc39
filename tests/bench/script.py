#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Prints a line for each stall in a memory cgroup, the way scripts for BCC do: a
perf event for each, which wakes Python."""

import os
import signal
import sys

from bcc import BPF  # pylint: disable=import-error

PROGRAMS = r"""
#include <linux/sched.h>

struct begin {
  u64 ns;
  char comm[TASK_COMM_LEN];
};
struct stall {
  u64 ns;
  u64 pages;
  u32 pid;
  char comm[TASK_COMM_LEN];
};
BPF_HASH(began, u32, struct begin);
BPF_PERF_OUTPUT(stalls);

TRACEPOINT_PROBE(vmscan, mm_vmscan_memcg_reclaim_begin) {
  u32 tid = bpf_get_current_pid_tgid();
  struct begin begin = {.ns = bpf_ktime_get_ns()};
  bpf_get_current_comm(begin.comm, sizeof(begin.comm));
  began.update(&tid, &begin);
  return 0;
}

TRACEPOINT_PROBE(vmscan, mm_vmscan_memcg_reclaim_end) {
  u32 tid = bpf_get_current_pid_tgid();
  struct begin *begin = began.lookup(&tid);
  if (!begin)
    return 0;
  struct stall stall = {
    .ns = bpf_ktime_get_ns() - begin->ns,
    .pages = args->nr_reclaimed,
    .pid = bpf_get_current_pid_tgid() >> 32,
  };
  __builtin_memcpy(stall.comm, begin->comm, sizeof(stall.comm));
  stalls.perf_submit(args, &stall, sizeof(stall));
  began.delete(&tid);
  return 0;
}
"""


def end(*_):
    """Ends at once: an exception would be lost if it came while an event is shown."""
    sys.stdout.flush()
    os._exit(0)


def main():
    """Prints until interrupted."""
    signal.signal(signal.SIGINT, end)
    bpf = BPF(text=PROGRAMS)

    def show(_cpu, data, _size):
        stall = bpf["stalls"].event(data)
        print(f"{stall.comm.decode('utf-8', 'replace'):16} {stall.pid:<7} "
              f"{stall.ns / 1e6:8.2f} {stall.pages:6}")

    print(f"{'COMM':16} {'PID':7} {'LAT(ms)':>8} {'PAGES':>6}")
    bpf["stalls"].open_perf_buffer(show, page_cnt=64)
    while True:
        bpf.perf_buffer_poll()


main()
