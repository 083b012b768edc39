/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The layout that the BPF programs and user space share. */
#ifndef RECLAIM_SHARED_H
#define RECLAIM_SHARED_H

#ifndef __bpf__
#include <linux/types.h>
#endif

enum reclaim_kind {
  RECLAIM_DIRECT,          /* mm_vmscan_direct_reclaim_begin/_end */
  RECLAIM_MEMCG,           /* mm_vmscan_memcg_reclaim_begin/_end */
  RECLAIM_MEMCG_PROACTIVE, /* the same, in a write to memory.reclaim */
  RECLAIM_NODE,            /* mm_vmscan_node_reclaim_begin/_end */
  RECLAIM_COMPACT,         /* mm_compaction_begin/_end, of allocating tasks */
  RECLAIM_THROTTLE,        /* mm_vmscan_throttled: at its end, with its delay */
  RECLAIM_KINDS
};

/* What a row is of. */
enum reclaim_group_by {
  RECLAIM_BY_COMM,    /* the task's comm */
  RECLAIM_BY_PROCESS, /* the comm of its thread group's leader */
  RECLAIM_BY_CGROUP   /* in place of a comm, the id of its cgroup (v2) */
};

#define RECLAIM_COMM_SIZE 16 /* TASK_COMM_LEN, include/linux/sched.h */

/* Clears what is behind the first zero byte of a comm: kernels may leave bytes
 * of an earlier one there (strlcpy in __set_task_comm, up to Linux 5.16), which
 * must not become part of a key. Of the bits that the first line leaves, the
 * lowest is that of the first zero byte; bytes are in memory as on x86-64. */
static inline __attribute__((always_inline)) void
reclaim_cut_comm(__u64 words[RECLAIM_COMM_SIZE / 8]) {
  for (int i = 0; i < RECLAIM_COMM_SIZE / 8; i++) {
    __u64 zeros =
        (words[i] - 0x0101010101010101ULL) & ~words[i] & 0x8080808080808080ULL;
    if (!zeros)
      continue;
    words[i] &= ((zeros & -zeros) >> 7) - 1;
    for (i++; i < RECLAIM_COMM_SIZE / 8; i++)
      words[i] = 0;
  }
}

/* Upper ends of the histogram's buckets in ns, each included in its bucket.
 * One bucket more than bounds: the last has no upper end. */
#define RECLAIM_BOUNDS 13
#define RECLAIM_BUCKETS (RECLAIM_BOUNDS + 1)
/* clang-format off */
#define RECLAIM_BOUNDS_NS                                                      \
  {                                                                            \
    10000ULL, 30000ULL, 100000ULL, 300000ULL,                                  \
    1000000ULL, 3000000ULL, 10000000ULL, 30000000ULL,                          \
    100000000ULL, 300000000ULL, 1000000000ULL, 3000000000ULL,                  \
    10000000000ULL                                                             \
  }
/* clang-format on */

/* A begin word is `ns << 10 | owner`: when a stall began, by whom. The owner is
 * what a word's place does not tell of a thread id: the upper bits of one below
 * 2^22 (PID_MAX_LIMIT, include/linux/threads.h), and how many places behind the
 * id's own the word is. 54 bits of CLOCK_MONOTONIC wrap after 208 days. 0 is a
 * free word. */
#define RECLAIM_BEGIN_WORDS 16384
#define RECLAIM_BEGIN_PROBES 4
#define RECLAIM_TID_BITS 22
#define RECLAIM_TID_MASK ((1ULL << RECLAIM_TID_BITS) - 1)
#define RECLAIM_OWNER_BITS 10
#define RECLAIM_OWNER_MASK ((1ULL << RECLAIM_OWNER_BITS) - 1)
#define RECLAIM_NS_MASK ((1ULL << (64 - RECLAIM_OWNER_BITS)) - 1)
/* Of this age, a word may be taken over: an hour where the kernel can hide a
 * stall's end, and so leaves words behind, else a day. */
#define RECLAIM_STALE_NS(preempts)                                             \
  ((preempts) ? 3600000000000ULL : 86400000000000ULL)
/* Who reads a word later than the clock may find one that is newer by less. */
#define RECLAIM_LATER_NS 60000000000ULL

static inline __attribute__((always_inline)) __u64 reclaim_owner(__u32 tid,
                                                                 __u32 probe) {
  return tid / RECLAIM_BEGIN_WORDS * RECLAIM_BEGIN_PROBES + probe;
}

/* Whose the word at a place is. */
static inline __attribute__((always_inline)) __u32
reclaim_owner_tid(__u64 word, __u32 place) {
  __u32 owner = (__u32)(word & RECLAIM_OWNER_MASK);
  return owner / RECLAIM_BEGIN_PROBES * RECLAIM_BEGIN_WORDS +
         ((place - owner % RECLAIM_BEGIN_PROBES) & (RECLAIM_BEGIN_WORDS - 1));
}

/* Programs on one tracepoint, where programs are preempted. */
#define RECLAIM_COPIES 3

/* A later begin program takes an own word younger than this for the work of
 * the first, not for one that an end left behind. */
#define RECLAIM_FRESH_NS 100000000ULL

struct reclaim_begin_words {
  __u64 word[RECLAIM_BEGIN_WORDS];
};

/* Words next to each other: user space looks only at groups that were written
 * to. */
#define RECLAIM_GROUP_WORDS 64
#define RECLAIM_GROUPS (RECLAIM_BEGIN_WORDS / RECLAIM_GROUP_WORDS)

/* The tids of tasks in a write to memory.reclaim, each at its place by tid: the
 * whole tid, so that another's is known for that. Of two in one place the later
 * has it; what is left of the earlier one's write is then told as memcg. */
#define RECLAIM_PROACTIVE_TIDS 256

struct reclaim_proactive_tids {
  __u32 tid[RECLAIM_PROACTIVE_TIDS];
};

/* Beside each begin word, where events are on: what the stalled asked for, as
 * `gfp_flags << 32 | order << 22 | tid`. */
#define RECLAIM_ORDER_UNKNOWN 1023U /* and gfp_flags are, too */

#define RECLAIM_ROW_KTHREAD 1U /* the task has PF_KTHREAD */
/* Stalls that found the table full: the key has no comm. */
#define RECLAIM_ROW_OVERFLOW 2U
/* One stall that was under way when a table opened, by itself: what of its time
 * was told before can be taken off. The place of its begin word is in the
 * flags. */
#define RECLAIM_ROW_ALONE 4U
#define RECLAIM_ROW_PLACE_SHIFT 8

/* The arguments of a begin that tell what the stalled asked for. */
enum reclaim_arguments {
  RECLAIM_ARGUMENTS_UNKNOWN,
  RECLAIM_ORDER_GFP,
  RECLAIM_GFP_ORDER,
  RECLAIM_NID_ORDER_GFP
};

/* What differs between kernels, as far as the programs care. User space takes
 * it from the kernel's BTF before the programs are loaded: relocations would
 * make libbpf look at each of some 130,000 types, several times. */
struct reclaim_kernel {
  __u32 preempts;         /* programs on tracepoints; see RECLAIM_COPIES */
  __u32 tells_compaction; /* whose it is, by struct compact_control */
  __u32 arguments[RECLAIM_KINDS]; /* enum reclaim_arguments */
  __u32 has_task_btf;             /* bpf_get_current_task_btf */
  __u32 task_flags;               /* where in struct task_struct, in bytes */
  __u32 task_comm;
  __u32 task_group_leader;
  __u32 control_gfp_mask; /* where in struct compact_control */
  __u32 control_order;
  __u32 control_direct_compaction;
};

struct reclaim_row_key {
  char comm[RECLAIM_COMM_SIZE]; /* raw bytes, zero after the first NUL */
  __u32 kind;                   /* enum reclaim_kind */
  __u32 flags;                  /* RECLAIM_ROW_* */
};

struct reclaim_row {
  __u64 stalls;
  __u64 time_ns;
  __u64 pages;     /* sum of nr_reclaimed */
  __u64 fruitless; /* stalls with nr_reclaimed 0 */
  __u64 longest_ns;
  /* Timed stalls only: stalls less their sum are the untimed ones. */
  __u32 buckets[RECLAIM_BUCKETS];
};

#define RECLAIM_UNTIMED (~0ULL) /* as stall_ns: the begin was not seen */

/* One stall that ended. */
struct reclaim_event {
  struct reclaim_row_key key;   /* of the row that counted it */
  char comm[RECLAIM_COMM_SIZE]; /* the task's own; raw bytes */
  __u64 end_ns;                 /* CLOCK_MONOTONIC */
  __u64 stall_ns;               /* or RECLAIM_UNTIMED */
  __u64 nr_reclaimed;
  __u64 cgroup_id; /* the task's, in the v2 hierarchy */
  __u32 tid;
  __u32 tgid;
  __u32 order;     /* of the allocation, or RECLAIM_ORDER_UNKNOWN */
  __u32 gfp_flags; /* of the allocation */
  __s32 stack_id;  /* kernel stack at the end; below 0: none */
  __u32 unused;
};

#define RECLAIM_EVENTS_BYTES 262144 /* ring buffer; a power of two */
#define RECLAIM_STACKS 4096         /* different ones */
#define RECLAIM_STACK_DEPTH 64      /* frames, innermost first */

_Static_assert(sizeof(struct reclaim_event) == 96, "no padding in an event");
_Static_assert(sizeof(struct reclaim_row_key) == 24, "no padding in a key");
_Static_assert(sizeof(struct reclaim_row) == 96, "no padding in a row");
_Static_assert((RECLAIM_BEGIN_WORDS & (RECLAIM_BEGIN_WORDS - 1)) == 0,
               "words are indexed by masking a tid");
_Static_assert((RECLAIM_TID_MASK + 1) / RECLAIM_BEGIN_WORDS *
                       RECLAIM_BEGIN_PROBES ==
                   RECLAIM_OWNER_MASK + 1,
               "there is an owner for each tid and probe");
_Static_assert((RECLAIM_PROACTIVE_TIDS & (RECLAIM_PROACTIVE_TIDS - 1)) == 0,
               "and so are marks");

#endif
