// SPDX-License-Identifier: MIT OR GPL-2.0-only
// Adds up, per comm and kind, how long tasks stall in memory reclaim: user
// space swaps the open table for an empty one at each interval and drains the
// closed one. Only where events are asked for, a record for each stall goes out
// too.
#include "vmlinux_min.h"

#include <bpf/bpf_helpers.h>
#include <stdbool.h>

#include "reclaim_shared.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

// Set between open and load.
const volatile struct reclaim_kernel kernel = {};
const volatile bool read_kernel = true; // false: its memory must not be read
const volatile __u32 group_by = RECLAIM_BY_COMM;
const volatile __u32 only_pid = 0; // of a process or a thread; 0: all
const volatile bool events_on = false;
const volatile __u64 event_min_ns = 0; // shorter stalls are no events
const volatile bool event_stacks = false;
// Whether memcg reclaim by a write to memory.reclaim is told apart, and whether
// the rest is told at all.
const volatile bool tell_proactive = false;
const volatile bool tell_memcg = true;

#define THROTTLE_WORDS 1024
#define COMPACT_WORDS 1024

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
struct begin_map compact_words SEC(".maps");

// Beside the words, where events are on: what each stall asked for.
struct detail_map {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct reclaim_begin_words);
};
struct detail_map direct_details SEC(".maps");
struct detail_map memcg_details SEC(".maps");
struct detail_map node_details SEC(".maps");
struct detail_map compact_details SEC(".maps");

// Who writes to memory.reclaim.
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, struct reclaim_proactive_tids);
} proactive_tids SEC(".maps");

// By tid: which programs saw a throttling, where programs are preempted; as
// `copy << 22 | tid`.
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, THROTTLE_WORDS);
  __type(key, __u32);
  __type(value, __u64);
} throttle_seen SEC(".maps");

// By tid: for what order a zone was last found suitable, where the kernel does
// not tell whose compaction it is; as a detail.
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, COMPACT_WORDS);
  __type(key, __u32);
  __type(value, __u64);
} compact_orders SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, RECLAIM_EVENTS_BYTES);
} events SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_STACK_TRACE);
  __uint(max_entries, RECLAIM_STACKS);
  __uint(key_size, sizeof(__u32));
  __uint(value_size, RECLAIM_STACK_DEPTH * sizeof(__u64));
} stacks SEC(".maps");

// Events that found the ring buffer full, since start.
__u64 events_lost;

// Stalls that a later end program of a kind counted, since start.
__u64 rescued[RECLAIM_KINDS];

// Ends of a kind that are no task's stall, as each program saw them.
__u64 passed_over[RECLAIM_KINDS][RECLAIM_COPIES];

// By kind and group of words: whether one was written since user space last
// looked, or is still there.
__u8 begun[RECLAIM_KINDS][RECLAIM_GROUPS];

// Whether a stall was counted since the open table was opened. Both are set to
// 1 only where they are not: a store at each stall would take the line away
// from all other CPUs.
__u32 counted;

// When the open table was opened: the time of stalls up to then is told from
// their begin words. Set before they are looked at and the table is opened.
volatile __u64 opened_ns;

static const struct reclaim_row empty_row;
static const __u64 bounds_ns[] = RECLAIM_BOUNDS_NS;

static __always_inline __u32 current_tid(void) {
  return (__u32)bpf_get_current_pid_tgid();
}

static __always_inline __u64 word_age_ns(__u64 word, __u64 now_ns) {
  return (now_ns - (word >> RECLAIM_OWNER_BITS)) & RECLAIM_NS_MASK;
}

// Nobody ends what a stale word began. A word that another CPU wrote after this
// one read its clock looks almost 2^54 ns old, and is not stale.
static __always_inline bool is_stale(__u64 word, __u64 now_ns) {
  __u64 age_ns = word_age_ns(word, now_ns);
  return age_ns > RECLAIM_STALE_NS(kernel.preempts) &&
         age_ns < RECLAIM_NS_MASK - RECLAIM_LATER_NS;
}

static __always_inline struct reclaim_begin_words *words_in(void *map) {
  __u32 zero = 0;
  return bpf_map_lookup_elem(map, &zero);
}

static __always_inline volatile __u64 *
word_at(struct reclaim_begin_words *words, __u32 tid, __u32 probe) {
  return &words->word[(tid + probe) & (RECLAIM_BEGIN_WORDS - 1)];
}

static __always_inline bool is_of(__u64 word, __u32 tid, __u32 probe) {
  return word && (word & RECLAIM_OWNER_MASK) == reclaim_owner(tid, probe);
}

static __always_inline __u64 pack_detail(__u64 order, __u64 gfp_flags) {
  if (order > RECLAIM_ORDER_UNKNOWN)
    order = RECLAIM_ORDER_UNKNOWN;
  return gfp_flags << 32 | order << RECLAIM_TID_BITS;
}

// User space clears a flag, waits for stores on their way, and looks at the
// words then: so the word comes first.
static __always_inline void mark_begun(__u32 kind, __u32 place) {
  volatile __u8 *group =
      &begun[kind][(place & (RECLAIM_BEGIN_WORDS - 1)) / RECLAIM_GROUP_WORDS];
  if (!*group)
    *group = 1;
}

// Words take no lock. Two tasks that claim one free word in the same moment
// leave it to one of them; the other's stall ends untimed, and is counted so.
// The detail has its own tid, since it may be the other's.
static __always_inline int stall_begin(void *word_map, void *detail_map,
                                       __u32 kind, __u32 copy, __u64 detail) {
  __u64 now_ns = bpf_ktime_get_ns();
  __u32 tid = current_tid();
  struct reclaim_begin_words *words = words_in(word_map);
  if (!words)
    return 0;

  // An own word, left by a begin whose end was not seen, goes first: a tid has
  // one word at most, or an old one would time a later stall.
  __u32 mine = RECLAIM_BEGIN_PROBES;
#pragma unroll
  for (__u32 probe = 0; probe < RECLAIM_BEGIN_PROBES; probe++) {
    __u64 word = *word_at(words, tid, probe);
    if (is_of(word, tid, probe)) {
      if (copy > 1 && word_age_ns(word, now_ns) < RECLAIM_FRESH_NS)
        return 0;
      mine = probe;
      break;
    }
    if (mine == RECLAIM_BEGIN_PROBES && (word == 0 || is_stale(word, now_ns)))
      mine = probe;
  }
  if (mine == RECLAIM_BEGIN_PROBES)
    return 0;
  if (events_on) {
    struct reclaim_begin_words *details = words_in(detail_map);
    if (details)
      *word_at(details, tid, mine) = detail | tid;
  }
  *word_at(words, tid, mine) =
      now_ns << RECLAIM_OWNER_BITS | reclaim_owner(tid, mine);
  mark_begun(kind, tid + mine);
  return 0;
}

struct stall {
  __u64 end_ns;
  __u64 ns; // or RECLAIM_UNTIMED
  __u64 detail;
  __u32 place; // of its begin word; NO_PLACE: none
};

#define NO_PLACE RECLAIM_BEGIN_WORDS

// Finds what the current task's begin noted, and takes the word away.
static __always_inline struct stall take_stall(void *word_map,
                                               void *detail_map) {
  struct stall stall = {.end_ns = bpf_ktime_get_ns(),
                        .ns = RECLAIM_UNTIMED,
                        .detail = pack_detail(RECLAIM_ORDER_UNKNOWN, 0),
                        .place = NO_PLACE};
  __u32 tid = current_tid();
  struct reclaim_begin_words *words = words_in(word_map);
  if (!words)
    return stall;

#pragma unroll
  for (__u32 probe = 0; probe < RECLAIM_BEGIN_PROBES; probe++) {
    volatile __u64 *at = word_at(words, tid, probe);
    __u64 word = *at;
    if (is_of(word, tid, probe)) {
      stall.ns = word_age_ns(word, stall.end_ns);
      stall.place = (tid + probe) & (RECLAIM_BEGIN_WORDS - 1);
      if (events_on) {
        struct reclaim_begin_words *details = words_in(detail_map);
        if (details) {
          __u64 detail = *word_at(details, tid, probe);
          if ((detail & RECLAIM_TID_MASK) == tid)
            stall.detail = detail;
        }
      }
      *at = 0;
      return stall;
    }
  }
  return stall;
}

// read_kernel is false where lockdown=confidentiality refuses the helper behind
// these reads (kernel/trace/bpf_trace.c: bpf_tracing_func_proto).
static __always_inline __u32 read_u32(const void *object, __u32 offset) {
  __u32 value = 0;
  bpf_probe_read_kernel(&value, sizeof(value), object + offset);
  return value;
}

static __always_inline __u32 kthread_flag(__u32 task_flags) {
  return task_flags & PF_KTHREAD ? RECLAIM_ROW_KTHREAD : 0;
}

static __always_inline __u32 read_kthread_flag(void) {
  const void *task = (const void *)bpf_get_current_task();
  return kthread_flag(read_u32(task, kernel.task_flags));
}

static __always_inline void read_leader_comm(char *comm) {
  const void *task = (const void *)bpf_get_current_task(), *leader = 0;
  bpf_probe_read_kernel(&leader, sizeof(leader),
                        task + kernel.task_group_leader);
  bpf_probe_read_kernel_str(comm, RECLAIM_COMM_SIZE, leader + kernel.task_comm);
}

// Where the verifier knows what a task is (Linux 5.11), its members are read
// without helpers, which took a third of the time of a program.
static __always_inline void copy_task(struct reclaim_row_key *key) {
  const void *task = bpf_get_current_task_btf();
  key->flags = kthread_flag(*(const __u32 *)(task + kernel.task_flags));
  if (group_by == RECLAIM_BY_PROCESS)
    task = *(const void *const *)(task + kernel.task_group_leader);
  const __u64 *comm = task + kernel.task_comm;
  __u64 words[RECLAIM_COMM_SIZE / 8] = {comm[0], comm[1]};
  reclaim_cut_comm(words);
  __builtin_memcpy(key->comm, words, sizeof(words));
}

static __always_inline void fill_key(struct reclaim_row_key *key, __u32 kind) {
  key->kind = kind;
  if (group_by == RECLAIM_BY_CGROUP) {
    __u64 id = bpf_get_current_cgroup_id();
    __builtin_memcpy(key->comm, &id, sizeof(id));
    return;
  }
  if (read_kernel && kernel.has_task_btf) {
    copy_task(key);
    return;
  }
  if (read_kernel)
    key->flags = read_kthread_flag();
  if (read_kernel && group_by == RECLAIM_BY_PROCESS)
    read_leader_comm(key->comm);
  else
    bpf_get_current_comm(key->comm, RECLAIM_COMM_SIZE);
}

// There is always a row: the kind's overflow row is put into each table before
// it opens, and takes what finds no other.
static __always_inline struct reclaim_row *
find_row(void *table, const struct reclaim_row_key *key) {
  struct reclaim_row *row = bpf_map_lookup_elem(table, key);
  if (row)
    return row;

  // Whether this fails (full) or another CPU was first, the look-up tells.
  bpf_map_update_elem(table, key, &empty_row, BPF_NOEXIST);
  row = bpf_map_lookup_elem(table, key);
  if (row)
    return row;

  struct reclaim_row_key overflow = {.kind = key->kind,
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
#pragma unroll
  for (__u32 i = 0; i < RECLAIM_BOUNDS; i++)
    if (stall_ns <= bounds_ns[i])
      return i;
  return RECLAIM_BOUNDS;
}

static __always_inline void add_time(struct reclaim_row *row, __u64 stall_ns) {
  __sync_fetch_and_add(&row->time_ns, stall_ns);
  __u32 bucket = bucket_of(stall_ns);
  if (bucket < RECLAIM_BUCKETS)
    __sync_fetch_and_add(&row->buckets[bucket], 1);
  raise_longest(row, stall_ns);
}

static __always_inline bool was_under_way(const struct stall *stall) {
  return stall->place != NO_PLACE && stall->end_ns - stall->ns < opened_ns;
}

static __always_inline void count_stall(void *table, const struct stall *stall,
                                        const struct reclaim_row_key *name,
                                        __u64 nr_reclaimed, bool reclaims) {
  if (!*(volatile __u32 *)&counted)
    counted = 1;
  struct reclaim_row_key key = *name;
  if (was_under_way(stall))
    key.flags |= RECLAIM_ROW_ALONE | stall->place << RECLAIM_ROW_PLACE_SHIFT;
  struct reclaim_row *row = find_row(table, &key);
  if (!row)
    return;

  __sync_fetch_and_add(&row->stalls, 1);
  if (nr_reclaimed)
    __sync_fetch_and_add(&row->pages, nr_reclaimed);
  else if (reclaims)
    __sync_fetch_and_add(&row->fruitless, 1);
  if (stall->ns != RECLAIM_UNTIMED)
    add_time(row, stall->ns);
}

// A stall without a time may have been short: it is an event only where all
// are. Nobody is woken, which would cost ten times the record.
static __always_inline void send_event(void *ctx, const struct stall *stall,
                                       const struct reclaim_row_key *key,
                                       __u64 nr_reclaimed) {
  if (stall->ns == RECLAIM_UNTIMED ? event_min_ns > 0
                                   : stall->ns < event_min_ns)
    return;
  struct reclaim_event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
  if (!event) {
    __sync_fetch_and_add(&events_lost, 1);
    return;
  }
  __u64 pid_tgid = bpf_get_current_pid_tgid();
  event->key = *key;
  bpf_get_current_comm(event->comm, sizeof(event->comm));
  event->end_ns = stall->end_ns;
  event->stall_ns = stall->ns;
  event->nr_reclaimed = nr_reclaimed;
  event->cgroup_id = bpf_get_current_cgroup_id();
  event->tid = pid_tgid;
  event->tgid = pid_tgid >> 32;
  event->order = stall->detail >> RECLAIM_TID_BITS & RECLAIM_ORDER_UNKNOWN;
  event->gfp_flags = stall->detail >> 32;
  event->stack_id = event_stacks ? bpf_get_stackid(ctx, &stacks, 0) : -1;
  event->unused = 0;
  bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
}

static __always_inline bool is_wanted(void) {
  if (!only_pid)
    return true;
  __u64 pid_tgid = bpf_get_current_pid_tgid();
  return (__u32)pid_tgid == only_pid || pid_tgid >> 32 == only_pid;
}

static __always_inline void tell_stall(void *ctx, void *table, __u32 kind,
                                       const struct stall *stall,
                                       __u64 nr_reclaimed, bool reclaims) {
  if (!table || !is_wanted())
    return;
  struct reclaim_row_key key = {};
  fill_key(&key, kind);
  count_stall(table, stall, &key, nr_reclaimed, reclaims);
  if (events_on)
    send_event(ctx, stall, &key, nr_reclaimed);
}

static __always_inline void *get_open_table(void) {
  __u32 zero = 0;
  return bpf_map_lookup_elem(&open_table, &zero);
}

// A task that writes to memory.reclaim is marked while it is in the kernel's
// function for that (mm/memcontrol.c, since Linux 5.19). All memcg reclaim in
// there is proactive: a limit's cannot nest in it, since the task has
// PF_MEMALLOC. Arguments of the tracepoints do not tell. User space loads the
// two programs for the function's begin and end.
static __always_inline volatile __u32 *my_proactive_tid(void) {
  __u32 zero = 0;
  struct reclaim_proactive_tids *tids =
      bpf_map_lookup_elem(&proactive_tids, &zero);
  return tids ? &tids->tid[current_tid() & (RECLAIM_PROACTIVE_TIDS - 1)] : 0;
}

static __always_inline bool is_proactive(void) {
  volatile __u32 *at = my_proactive_tid();
  return at && *at == current_tid();
}

SEC("raw_tp")
int proactive_enter(void *ctx) {
  volatile __u32 *at = my_proactive_tid();
  if (at)
    *at = current_tid();
  return 0;
}

SEC("raw_tp")
int proactive_leave(void *ctx) {
  volatile __u32 *at = my_proactive_tid();
  if (at && *at == current_tid())
    *at = 0;
  return 0;
}

// What the stall of a kind's programs is told as; RECLAIM_KINDS: not at all.
static __always_inline __u32 told_kind(__u32 kind) {
  if (kind != RECLAIM_MEMCG)
    return kind;
  if (tell_proactive && is_proactive())
    return RECLAIM_MEMCG_PROACTIVE;
  return tell_memcg ? RECLAIM_MEMCG : RECLAIM_KINDS;
}

// The first program to find the begin word counts the stall and takes the word
// away; later ones count only with a word, so that nothing counts twice.
//
// The table comes before the word: a stall whose word is gone when user space
// looks, just before it opens the other table, is in this one.
static __always_inline int stall_end(void *ctx, void *word_map,
                                     void *detail_map, __u32 kind,
                                     __u64 nr_reclaimed, bool reclaims,
                                     bool needs_word, __u32 copy) {
  void *table = get_open_table();
  struct stall stall = take_stall(word_map, detail_map);
  if (stall.ns == RECLAIM_UNTIMED && (needs_word || copy > 1))
    return 0;
  if (copy > 1)
    __sync_fetch_and_add(&rescued[kind], 1);
  __u32 told = told_kind(kind);
  if (told < RECLAIM_KINDS)
    tell_stall(ctx, table, told, &stall, nr_reclaimed, reclaims);
  return 0;
}

// A kernel thread whose comm begins so. A user can give himself any comm, but
// not the flag.
static __always_inline bool is_kernel_thread(const char *begin, __u32 len) {
  if (read_kernel && !read_kthread_flag())
    return false;
  char comm[RECLAIM_COMM_SIZE];
  bpf_get_current_comm(comm, sizeof(comm));
  for (__u32 i = 0; i < len; i++)
    if (comm[i] != begin[i])
      return false;
  return true;
}

static __always_inline __u64 begin_detail(struct bpf_raw_tracepoint_args *ctx,
                                          __u32 kind) {
  __u32 first = ctx->args[0], second = ctx->args[1];
  switch (kernel.arguments[kind]) {
  case RECLAIM_ORDER_GFP:
    return pack_detail(first, second);
  case RECLAIM_GFP_ORDER:
    return pack_detail(second, first);
  case RECLAIM_NID_ORDER_GFP:
    return pack_detail(second, (__u32)ctx->args[2]);
  }
  return pack_detail(RECLAIM_ORDER_UNKNOWN, 0);
}

// nr_reclaimed is the first argument of each _end, Linux 5.10 to 7.2
// (include/trace/events/vmscan.h).
#define RECLAIM_PROGRAMS(name, kind, suffix, copy)                             \
  SEC("raw_tp/mm_vmscan_" #name "_reclaim_begin")                              \
  int name##_begin##suffix(struct bpf_raw_tracepoint_args *ctx) {              \
    return stall_begin(&name##_words, &name##_details, kind, copy,             \
                       events_on ? begin_detail(ctx, kind) : 0);               \
  }                                                                            \
                                                                               \
  SEC("raw_tp/mm_vmscan_" #name "_reclaim_end")                                \
  int name##_end##suffix(struct bpf_raw_tracepoint_args *ctx) {                \
    return stall_end(ctx, &name##_words, &name##_details, kind, ctx->args[0],  \
                     true, false, copy);                                       \
  }

// A zone is compacted by a task that wants to allocate, by kcompactd, or by a
// task that wrote to compact_memory; only the first is a stall. struct
// compact_control says which it is (mm/compaction.c: compact_zone_order).
static __always_inline bool is_direct(const void *control) {
  bool direct = false;
  if (read_kernel)
    bpf_probe_read_kernel(&direct, sizeof(direct),
                          control + kernel.control_direct_compaction);
  return direct;
}

// Where there is none (5.10), compact_zone asks just before whether the zone is
// suitable for an order; that is -1 for all of a zone (is_via_compact_memory).
SEC("raw_tp/mm_compaction_suitable")
int compact_order(struct bpf_raw_tracepoint_args *ctx) {
  __u32 tid = current_tid(), at = tid & (COMPACT_WORDS - 1);
  __u64 *order = bpf_map_lookup_elem(&compact_orders, &at);
  if (order)
    *order = pack_detail((__u32)ctx->args[1], 0) | tid;
  return 0;
}

static __always_inline int compact_begin_unsaid(__u32 copy) {
  __u32 tid = current_tid(), at = tid & (COMPACT_WORDS - 1);
  __u64 *order = bpf_map_lookup_elem(&compact_orders, &at);
  __u64 all = pack_detail(RECLAIM_ORDER_UNKNOWN, 0) | tid;
  if (!order || *order == all || is_kernel_thread("kcompactd", 9))
    return 0;
  return stall_begin(&compact_words, &compact_details, RECLAIM_COMPACT, copy,
                     pack_detail(RECLAIM_ORDER_UNKNOWN, 0));
}

#define COMPACT_PROGRAMS(name, kind, suffix, copy)                             \
  SEC("raw_tp/mm_compaction_begin")                                            \
  int name##_begin##suffix(struct bpf_raw_tracepoint_args *ctx) {              \
    if (!kernel.tells_compaction)                                              \
      return compact_begin_unsaid(copy);                                       \
    const void *control = (const void *)ctx->args[0];                          \
    if (!is_direct(control))                                                   \
      return 0;                                                                \
    __u64 detail = 0;                                                          \
    if (events_on)                                                             \
      detail = pack_detail(read_u32(control, kernel.control_order),            \
                           read_u32(control, kernel.control_gfp_mask));        \
    return stall_begin(&name##_words, &name##_details, kind, copy, detail);    \
  }                                                                            \
                                                                               \
  SEC("raw_tp/mm_compaction_end")                                              \
  int name##_end##suffix(struct bpf_raw_tracepoint_args *ctx) {                \
    if (kernel.tells_compaction && !is_direct((const void *)ctx->args[0])) {   \
      __sync_fetch_and_add(&passed_over[kind][copy - 1], 1);                   \
      return 0;                                                                \
    }                                                                          \
    return stall_end(ctx, &name##_words, &name##_details, kind, 0, false,      \
                     !kernel.tells_compaction, copy);                          \
  }

// A throttling is one event, without a begin word that says whether an earlier
// program saw it: each leaves its number. The last event of a task ends with
// the last number, or with that of the last program that saw it.
static __always_inline bool is_seen_first(__u32 copy) {
  if (!kernel.preempts)
    return true;
  __u32 tid = current_tid(), at = tid & (THROTTLE_WORDS - 1);
  volatile __u64 *seen = bpf_map_lookup_elem(&throttle_seen, &at);
  if (!seen)
    return copy == 1;
  __u64 last = *seen;
  if (copy == 1 || last == 0) {
    *seen = (__u64)copy << RECLAIM_TID_BITS | tid;
    return true;
  }
  if ((last & RECLAIM_TID_MASK) != tid)
    return false; // another's: if no other copy ran, this stall is unseen
  *seen = (__u64)copy << RECLAIM_TID_BITS | tid;
  return last >> RECLAIM_TID_BITS >= copy;
}

// Arguments: nid, usec_timeout, usec_delayed, reason (since Linux 5.16).
// kswapd's waits are nobody's stall.
#define THROTTLE_PROGRAM(name, kind, suffix, copy)                             \
  SEC("raw_tp/mm_vmscan_throttled")                                            \
  int name##_end##suffix(struct bpf_raw_tracepoint_args *ctx) {                \
    void *table = get_open_table();                                            \
    if (is_kernel_thread("kswapd", 6)) {                                       \
      __sync_fetch_and_add(&passed_over[kind][copy - 1], 1);                   \
      return 0;                                                                \
    }                                                                          \
    if (!is_seen_first(copy))                                                  \
      return 0;                                                                \
    if (copy > 1)                                                              \
      __sync_fetch_and_add(&rescued[kind], 1);                                 \
    struct stall stall = {.end_ns = bpf_ktime_get_ns(),                        \
                          .ns = (__u32)ctx->args[2] * 1000ULL,                 \
                          .detail = pack_detail(RECLAIM_ORDER_UNKNOWN, 0),     \
                          .place = NO_PLACE};                                  \
    tell_stall(ctx, table, kind, &stall, 0, false);                            \
    return 0;                                                                  \
  }

#define COPIES(PROGRAMS, name, kind)                                           \
  PROGRAMS(name, kind, , 1)                                                    \
  PROGRAMS(name, kind, _2, 2)                                                  \
  PROGRAMS(name, kind, _3, 3)

COPIES(RECLAIM_PROGRAMS, direct, RECLAIM_DIRECT)
COPIES(RECLAIM_PROGRAMS, memcg, RECLAIM_MEMCG)
COPIES(RECLAIM_PROGRAMS, node, RECLAIM_NODE)
COPIES(COMPACT_PROGRAMS, compact, RECLAIM_COMPACT)
COPIES(THROTTLE_PROGRAM, throttle, RECLAIM_THROTTLE)
