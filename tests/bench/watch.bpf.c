// SPDX-License-Identifier: MIT OR GPL-2.0-only
// Measures what is attached between its second and its third pair of programs:
// tracepoints call their programs in the order of attachment. What it takes to
// come from one to the next with nothing between is measured between the first
// and the second, on the same stalls. Only stalls of memory cgroups, and only
// of the work.
#include "bpf/vmlinux_min.h"

#include <bpf/bpf_helpers.h>
#include <stdbool.h>

#include "tests/bench/watch_shared.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

struct watch_cpu cpus[WATCH_CPUS];

static __always_inline bool is_work(void) {
  char comm[16];
  bpf_get_current_comm(comm, sizeof(comm));
  return comm[0] == 'w' && comm[1] == 'o' && comm[2] == 'r' && comm[3] == 'k';
}

static __always_inline struct watch_cpu *this_cpu(void) {
  return &cpus[bpf_get_smp_processor_id() & (WATCH_CPUS - 1)];
}

// Another tid: the task has gone to another CPU meanwhile, as it may since
// Linux 7.0.
static __always_inline bool is_left_by_this_task(const struct watch_cpu *cpu) {
  return cpu->tid == (__u32)bpf_get_current_pid_tgid();
}

static __always_inline int first(__u32 edge) {
  struct watch_cpu *cpu = this_cpu();
  cpu->tid = 0;
  if (!is_work())
    return 0;
  cpu->seen[edge]++;
  cpu->tid = (__u32)bpf_get_current_pid_tgid();
  cpu->left_ns = bpf_ktime_get_ns();
  return 0;
}

static __always_inline int before(__u32 edge) {
  __u64 now_ns = bpf_ktime_get_ns();
  struct watch_cpu *cpu = this_cpu();
  if (!is_left_by_this_task(cpu))
    return 0;
  cpu->nothing_ns = now_ns - cpu->left_ns;
  cpu->left_ns = bpf_ktime_get_ns();
  return 0;
}

static __always_inline int after(__u32 edge) {
  __u64 now_ns = bpf_ktime_get_ns();
  struct watch_cpu *cpu = this_cpu();
  if (!is_left_by_this_task(cpu))
    return 0;
  cpu->between_ns += now_ns - cpu->left_ns;
  cpu->between_none_ns += cpu->nothing_ns;
  cpu->timed[edge]++;
  return 0;
}

#define WATCH(where, edge)                                                     \
  SEC("raw_tp/mm_vmscan_memcg_reclaim_" #edge)                                 \
  int where##_##edge(void *ctx) { return where(WATCH_##edge); }

WATCH(first, begin)
WATCH(first, end)
WATCH(before, begin)
WATCH(before, end)
WATCH(after, begin)
WATCH(after, end)
