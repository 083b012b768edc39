/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The kernel types and constants that reclaim.bpf.c needs, and no others. */
#ifndef VMLINUX_MIN_H
#define VMLINUX_MIN_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

/* include/uapi/linux/bpf.h */
enum {
  BPF_MAP_TYPE_HASH = 1,
  BPF_MAP_TYPE_ARRAY = 2,
  BPF_MAP_TYPE_STACK_TRACE = 7,
  BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
  BPF_MAP_TYPE_RINGBUF = 27,
};
enum { BPF_NOEXIST = 1 };
enum { BPF_F_MMAPABLE = 1 << 10 };
enum { BPF_RB_NO_WAKEUP = 1 };

struct bpf_raw_tracepoint_args {
  __u64 args[0];
};

/* include/linux/sched.h; offsets are relocated when the object is loaded */
#define PF_KTHREAD 0x00200000

struct task_struct {
  unsigned int flags;
  char comm[16];
  struct task_struct *group_leader;
} __attribute__((preserve_access_index));

/* kernel/tracepoint.c */
struct tp_transition_snapshot {
  unsigned long srcu_gp;
} __attribute__((preserve_access_index));

/* mm/internal.h */
struct compact_control {
  unsigned int gfp_mask;
  int order;
  _Bool direct_compaction;
} __attribute__((preserve_access_index));

/* include/trace/events/vmscan.h, compaction.h: prototypes of tracepoints, as
 * BTF has them. What is behind ___ is not part of a name; integers all count as
 * alike, so that the number of arguments tells them apart. */
struct mem_cgroup {}; /* a declaration is not compatible with a type */
typedef void (*btf_trace_mm_vmscan_direct_reclaim_begin___order_gfp)(
    void *, int order, unsigned int gfp_flags);
typedef void (*btf_trace_mm_vmscan_direct_reclaim_begin___gfp_order)(
    void *, unsigned int gfp_flags, int order, struct mem_cgroup *);
typedef void (*btf_trace_mm_vmscan_memcg_reclaim_begin___order_gfp)(
    void *, int order, unsigned int gfp_flags);
typedef void (*btf_trace_mm_vmscan_memcg_reclaim_begin___gfp_order)(
    void *, unsigned int gfp_flags, int order, struct mem_cgroup *);
typedef void (*btf_trace_mm_vmscan_node_reclaim_begin)(void *, int nid,
                                                       int order,
                                                       unsigned int gfp_flags);
typedef void (*btf_trace_mm_compaction_begin___control)(
    void *, struct compact_control *, unsigned long zone_start,
    unsigned long zone_end, _Bool sync);

#endif
