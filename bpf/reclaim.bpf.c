// SPDX-License-Identifier: MIT OR GPL-2.0-only
// Adds up, per comm and kind, how long tasks stall in memory reclaim. Nothing
// leaves the kernel per event: user space swaps the open table for an empty one
// at each interval and drains the closed one.
#include "vmlinux_min.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

#include "reclaim_shared.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

// Set between open and load.
const volatile bool read_task = true; // false: task_struct must not be read
const volatile bool group_by_process = false;

#define UNTIMED (~0ULL)

// Preallocated, since stalls come when memory is short. User space sets the
// number of rows; the template inside open_table keeps its own.
struct table {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 64);
  __type(key, struct reclaim_row_key);
  __type(value, struct reclaim_row);
};
struct table table_0 SEC(".maps");
struct table table_1 SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
  __uint(max_entries, 1);
  __type(key, __u32);
  __array(values, struct table);
} open_table SEC(".maps") = {.values = {&table_0}};

// One map a kind, so that a kind that is switched off takes no memory.
struct begin_map {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, struct reclaim_begin_words);
};
struct begin_map direct_words SEC(".maps");
struct begin_map memcg_words SEC(".maps");
struct begin_map node_words SEC(".maps");

// Stalls that a later end program of a kind counted, since start.
__u64 rescued[RECLAIM_KINDS];

static const struct reclaim_row empty_row;
static const __u64 bounds_ns[] = RECLAIM_BOUNDS_NS;

static __always_inline __u32 current_tid(void) {
  return (__u32)bpf_get_current_pid_tgid();
}

static __always_inline __u64 word_age_ns(__u64 word, __u64 now_ns) {
  return (now_ns - (word >> RECLAIM_TID_BITS)) & RECLAIM_NS_MASK;
}

// Nobody ends what a stale word began. A word that another CPU wrote after this
// one read its clock looks almost 2^42 ns old, and is not stale.
static __always_inline bool is_stale(__u64 word, __u64 now_ns) {
  __u64 age_ns = word_age_ns(word, now_ns);
  return age_ns > RECLAIM_STALE_NS &&
         age_ns < RECLAIM_NS_MASK - RECLAIM_STALE_NS / 60;
}

static __always_inline volatile __u64 *
word_at(struct reclaim_begin_words *words, __u32 tid, __u32 probe) {
  return &words->word[(tid + probe) & (RECLAIM_BEGIN_WORDS - 1)];
}

// Words take no lock. Two tasks that claim one free word in the same moment
// leave it to one of them; the other's stall ends untimed, and is counted so.
static __always_inline int stall_begin(void *begin_map, bool later) {
  __u64 now_ns = bpf_ktime_get_ns();
  __u32 tid = current_tid(), zero = 0;
  struct reclaim_begin_words *words = bpf_map_lookup_elem(begin_map, &zero);
  if (!words)
    return 0;

  // An own word, left by a begin whose end was not seen, goes first: a tid has
  // one word at most, or an old one would time a later stall.
  volatile __u64 *mine = 0;
#pragma unroll
  for (__u32 probe = 0; probe < RECLAIM_BEGIN_PROBES; probe++) {
    volatile __u64 *at = word_at(words, tid, probe);
    __u64 word = *at;
    if ((word & RECLAIM_TID_MASK) == tid) {
      if (later && word_age_ns(word, now_ns) < RECLAIM_FRESH_NS)
        return 0;
      mine = at;
      break;
    }
    if (!mine && (word == 0 || is_stale(word, now_ns)))
      mine = at;
  }
  if (mine)
    *mine = now_ns << RECLAIM_TID_BITS | tid;
  return 0;
}

static __always_inline __u64 stall_time_ns(void *begin_map, __u64 now_ns) {
  __u32 tid = current_tid(), zero = 0;
  struct reclaim_begin_words *words = bpf_map_lookup_elem(begin_map, &zero);
  if (!words)
    return UNTIMED;

#pragma unroll
  for (__u32 probe = 0; probe < RECLAIM_BEGIN_PROBES; probe++) {
    volatile __u64 *at = word_at(words, tid, probe);
    __u64 word = *at;
    if ((word & RECLAIM_TID_MASK) == tid) {
      *at = 0;
      return word_age_ns(word, now_ns);
    }
  }
  return UNTIMED;
}

// read_task is false where lockdown=confidentiality refuses the helper behind
// these reads (kernel/trace/bpf_trace.c: bpf_tracing_func_proto).
static __always_inline __u32 read_kthread_flag(struct task_struct *task) {
  return BPF_CORE_READ(task, flags) & PF_KTHREAD ? RECLAIM_ROW_KTHREAD : 0;
}

// Reads as a string: older kernels leave bytes of an earlier comm after the NUL
// (strlcpy in __set_task_comm), which must not become part of a key.
static __always_inline void read_leader_comm(struct task_struct *task,
                                             char *comm) {
  struct task_struct *leader = BPF_CORE_READ(task, group_leader);
  bpf_core_read_str(comm, RECLAIM_COMM_SIZE, &leader->comm);
}

static __always_inline void fill_key(struct reclaim_row_key *key, __u32 kind) {
  key->kind = kind;
  if (read_task) {
    struct task_struct *task = (struct task_struct *)bpf_get_current_task();
    key->flags = read_kthread_flag(task);
    if (group_by_process) {
      read_leader_comm(task, key->comm);
      return;
    }
  }
  bpf_get_current_comm(key->comm, sizeof(key->comm));
}

// There is always a row: the kind's overflow row is put into each table before
// it opens, and takes what finds no other.
static __always_inline struct reclaim_row *find_row(void *table, __u32 kind) {
  struct reclaim_row_key key = {};
  fill_key(&key, kind);
  struct reclaim_row *row = bpf_map_lookup_elem(table, &key);
  if (row)
    return row;

  // Whether this fails (full) or another CPU was first, the look-up tells.
  bpf_map_update_elem(table, &key, &empty_row, BPF_NOEXIST);
  row = bpf_map_lookup_elem(table, &key);
  if (row)
    return row;

  struct reclaim_row_key overflow = {.kind = kind,
                                     .flags = RECLAIM_ROW_OVERFLOW};
  return bpf_map_lookup_elem(table, &overflow);
}

// Without compare-and-swap (Linux 5.12) a store can undo a greater one of
// another CPU; looking again makes that rare, and user space keeps the result
// within the highest bucket that was hit.
static __always_inline void raise_longest(struct reclaim_row *row,
                                          __u64 stall_ns) {
#pragma unroll
  for (int attempt = 0; attempt < 3; attempt++) {
    if (*(volatile __u64 *)&row->longest_ns >= stall_ns)
      return;
    *(volatile __u64 *)&row->longest_ns = stall_ns;
  }
}

static __always_inline __u32 bucket_of(__u64 stall_ns) {
  __u32 bucket = 0;
#pragma unroll
  for (int i = 0; i < RECLAIM_BOUNDS; i++)
    if (stall_ns > bounds_ns[i])
      bucket = i + 1;
  return bucket;
}

static __always_inline void add_time(struct reclaim_row *row, __u64 stall_ns) {
  __sync_fetch_and_add(&row->time_ns, stall_ns);
  __u32 bucket = bucket_of(stall_ns);
  if (bucket < RECLAIM_BUCKETS)
    __sync_fetch_and_add(&row->buckets[bucket], 1);
  raise_longest(row, stall_ns);
}

// The first program to find the begin word counts the stall and takes the word
// away; later ones count only with a word, so that nothing counts twice.
static __always_inline int stall_end(void *begin_map, __u32 kind,
                                     __u64 nr_reclaimed, bool later) {
  __u64 stall_ns = stall_time_ns(begin_map, bpf_ktime_get_ns());
  if (later) {
    if (stall_ns == UNTIMED)
      return 0;
    __sync_fetch_and_add(&rescued[kind], 1);
  }
  __u32 zero = 0;
  void *table = bpf_map_lookup_elem(&open_table, &zero);
  if (!table)
    return 0;
  struct reclaim_row *row = find_row(table, kind);
  if (!row)
    return 0;

  __sync_fetch_and_add(&row->stalls, 1);
  if (nr_reclaimed)
    __sync_fetch_and_add(&row->pages, nr_reclaimed);
  else
    __sync_fetch_and_add(&row->fruitless, 1);
  if (stall_ns != UNTIMED)
    add_time(row, stall_ns);
  return 0;
}

// Since commit a46023d5616e (Linux 7.0) tracepoints are guarded by SRCU, and a
// program on one can be preempted; while it is, the kernel skips the same
// program on that CPU (kernel/trace/bpf_trace.c: __bpf_trace_run). There each
// program is attached three times, for the events that the first misses: of two
// copies both are busy now and then. The commit gave tp_transition_snapshot its
// member srcu_gp. Run once after loading.
SEC("raw_tp")
int programs_are_preempted(void *ctx) {
  return bpf_core_field_exists(struct tp_transition_snapshot, srcu_gp);
}

// nr_reclaimed is the first argument of each _end, Linux 5.10 to 7.2
// (include/trace/events/vmscan.h).
#define PROGRAM_PAIR(name, kind, suffix, later)                                \
  SEC("raw_tp/mm_vmscan_" #name "_reclaim_begin")                              \
  int name##_begin##suffix(void *ctx) {                                        \
    return stall_begin(&name##_words, later);                                  \
  }                                                                            \
                                                                               \
  SEC("raw_tp/mm_vmscan_" #name "_reclaim_end")                                \
  int name##_end##suffix(struct bpf_raw_tracepoint_args *ctx) {                \
    return stall_end(&name##_words, kind, ctx->args[0], later);                \
  }

#define PROGRAMS(name, kind)                                                   \
  PROGRAM_PAIR(name, kind, , false)                                            \
  PROGRAM_PAIR(name, kind, _2, true)                                           \
  PROGRAM_PAIR(name, kind, _3, true)

PROGRAMS(direct, RECLAIM_DIRECT)
PROGRAMS(memcg, RECLAIM_MEMCG)
PROGRAMS(node, RECLAIM_NODE)
