// SPDX-License-Identifier: MIT OR GPL-2.0-only
// Ways to time stalls in a memory cgroup inside the kernel, each a set of
// programs with a name of its own in front: contestant.c loads one set. All
// tables are preallocated.
#include "bpf/vmlinux_min.h"

#include <bpf/bpf_helpers.h>

#include "tests/bench/contestants_shared.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define BEGIN(set)                                                             \
  SEC("?raw_tp/mm_vmscan_memcg_reclaim_begin")                                 \
  int set##_begin(struct bpf_raw_tracepoint_args *ctx)
#define END(set)                                                               \
  SEC("?raw_tp/mm_vmscan_memcg_reclaim_end")                                   \
  int set##_end(struct bpf_raw_tracepoint_args *ctx)

// Nothing at all: what it costs to be called.

BEGIN(empty) { return 0; }
END(empty) { return 0; }

// The least that anything which measures time must do.

BEGIN(clocks) {
  bpf_ktime_get_ns();
  return 0;
}

END(clocks) {
  bpf_ktime_get_ns();
  return 0;
}

// When each thread's stall began, in a hash, as most tools have it.
struct begin_hash {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 10240);
  __type(key, __u32);
  __type(value, __u64);
};

static __always_inline int note_begin(void *began) {
  __u32 tid = bpf_get_current_pid_tgid();
  __u64 now_ns = bpf_ktime_get_ns();
  bpf_map_update_elem(began, &tid, &now_ns, 0);
  return 0;
}

// 0: the begin was not seen.
static __always_inline __u64 take_ns(void *began) {
  __u32 tid = bpf_get_current_pid_tgid();
  __u64 *begin_ns = bpf_map_lookup_elem(began, &tid);
  if (!begin_ns)
    return 0;
  __u64 ns = bpf_ktime_get_ns() - *begin_ns;
  bpf_map_delete_elem(began, &tid);
  return ns;
}

// A hash for begin times, and one for count, time and pages of each comm.

struct begin_hash hashes_began SEC(".maps");
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 4096);
  __type(key, struct contestant_key);
  __type(value, struct contestant_row);
} hashes_rows SEC(".maps");

BEGIN(hashes) { return note_begin(&hashes_began); }

END(hashes) {
  static const struct contestant_row empty;
  __u64 ns = take_ns(&hashes_began);
  struct contestant_key key = {};
  if (!ns)
    return 0;
  bpf_get_current_comm(key.comm, sizeof(key.comm));
  struct contestant_row *row = bpf_map_lookup_elem(&hashes_rows, &key);
  if (!row) {
    bpf_map_update_elem(&hashes_rows, &key, &empty, BPF_NOEXIST);
    row = bpf_map_lookup_elem(&hashes_rows, &key);
    if (!row)
      return 0;
  }
  __sync_fetch_and_add(&row->stalls, 1);
  __sync_fetch_and_add(&row->ns, ns);
  __sync_fetch_and_add(&row->pages, ctx->args[0]);
  return 0;
}

// A histogram of latencies by comm, as ebpf_exporter has them: a row for each
// bucket of a power of two, and one for the sum.

struct begin_hash exporter_began SEC(".maps");
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 4096);
  __type(key, struct contestant_key);
  __type(value, __u64);
} exporter_rows SEC(".maps");

static __always_inline void add(const struct contestant_key *key, __u64 much) {
  static const __u64 zero;
  __u64 *sum = bpf_map_lookup_elem(&exporter_rows, key);
  if (!sum) {
    bpf_map_update_elem(&exporter_rows, key, &zero, BPF_NOEXIST);
    sum = bpf_map_lookup_elem(&exporter_rows, key);
    if (!sum)
      return;
  }
  __sync_fetch_and_add(sum, much);
}

static __always_inline __u32 log2_of(__u64 value) {
  __u32 log2 = 0;
#pragma unroll
  for (__u32 bits = 32; bits; bits /= 2)
    if (value >> bits) {
      value >>= bits;
      log2 += bits;
    }
  return log2;
}

BEGIN(exporter) { return note_begin(&exporter_began); }

END(exporter) {
  __u64 us = take_ns(&exporter_began) / 1000;
  struct contestant_key key = {};
  bpf_get_current_comm(key.comm, sizeof(key.comm));
  key.bucket = log2_of(us);
  if (key.bucket >= CONTESTANT_BUCKETS)
    key.bucket = CONTESTANT_BUCKETS - 1;
  add(&key, 1);
  key.bucket = CONTESTANT_SUM;
  add(&key, us);
  return 0;
}
