/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <bpf/btf.h>

#include "kernel_types.h"

/* Members of structs: where in a struct, in bytes. Whether programs are
 * preempted shows in one of these: since commit a46023d5616e (Linux 7.0), which
 * made it, tracepoints are guarded by SRCU, and a program on one can be
 * preempted. While it is, the kernel skips the same program on that CPU
 * (kernel/trace/bpf_trace.c: __bpf_trace_run). */

enum member {
  TASK_FLAGS,
  TASK_COMM,
  TASK_GROUP_LEADER,
  CONTROL_GFP_MASK,
  CONTROL_ORDER,
  CONTROL_DIRECT_COMPACTION,
  SNAPSHOT_SRCU_GP,
  MEMBERS
};

static const struct {
  const char *type, *member;
} names[MEMBERS] = {
    [TASK_FLAGS] = {"task_struct", "flags"},
    [TASK_COMM] = {"task_struct", "comm"},
    [TASK_GROUP_LEADER] = {"task_struct", "group_leader"},
    [CONTROL_GFP_MASK] = {"compact_control", "gfp_mask"},
    [CONTROL_ORDER] = {"compact_control", "order"},
    [CONTROL_DIRECT_COMPACTION] = {"compact_control", "direct_compaction"},
    [SNAPSHOT_SRCU_GP] = {"tp_transition_snapshot", "srcu_gp"},
};

struct found {
  bool member[MEMBERS];
  uint32_t offset[MEMBERS];
  bool tracepoint, helpers; /* all kernels have both */
};

/* Whoever wrote a file may have got references in it wrong, as to names. */
static const char *name_of(const struct btf *btf, uint32_t offset) {
  const char *name = btf__name_by_offset(btf, offset);
  return name ? name : "";
}

static bool is_wanted(const char *type) {
  for (size_t i = 0; i < MEMBERS; i++)
    if (strcmp(type, names[i].type) == 0)
      return true;
  return false;
}

#define DEPTH_MAX 4 /* of structs without a name; a wrong one has no end */

/* Of a struct without a name that lies in the one called `type`, members are
 * that one's: task_struct has such with CONFIG_RANDSTRUCT
 * (randomized_struct_fields_start in include/linux/compiler_types.h). */
static void take_struct(const struct btf *btf, const struct btf_type *in,
                        const char *type, uint32_t begin_bits, int depth,
                        struct found *found) {
  for (uint16_t at = 0; at < btf_vlen(in); at++) {
    const struct btf_member *member = &btf_members(in)[at];
    const char *name = name_of(btf, member->name_off);
    uint32_t bits = begin_bits + btf_member_bit_offset(in, at);
    const struct btf_type *inner = btf__type_by_id(btf, member->type);
    if (name[0] == '\0' && depth < DEPTH_MAX && inner &&
        btf_is_composite(inner))
      take_struct(btf, inner, type, bits, depth + 1, found);
    for (size_t i = 0; i < MEMBERS; i++)
      if (strcmp(type, names[i].type) == 0 &&
          strcmp(name, names[i].member) == 0) {
        found->member[i] = true;
        found->offset[i] = bits / 8;
      }
  }
}

/* Prototypes of tracepoints: typedefs of pointers to functions, of which the
 * first parameter is not an argument */

enum { MAX_ARGUMENTS = 8 };

/* The arguments, a letter each: `i` integer, `p` pointer, `?` else. */
struct prototype {
  char arguments[MAX_ARGUMENTS];
};

static char letter_of(const struct btf *btf, uint32_t id) {
  int resolved = btf__resolve_type(btf, id);
  const struct btf_type *type =
      resolved < 0 ? NULL : btf__type_by_id(btf, (uint32_t)resolved);
  return !type               ? '?'
         : btf_is_int(type)  ? 'i'
         : btf_is_enum(type) ? 'i'
         : btf_is_ptr(type)  ? 'p'
                             : '?';
}

static struct prototype prototype_of(const struct btf *btf,
                                     const struct btf_type *type) {
  struct prototype prototype = {""};
  const struct btf_type *pointer = btf__type_by_id(btf, type->type);
  const struct btf_type *function = pointer && btf_is_ptr(pointer)
                                        ? btf__type_by_id(btf, pointer->type)
                                        : NULL;
  if (!function || !btf_is_func_proto(function))
    return prototype;
  for (uint16_t i = 1; i < btf_vlen(function) && i < MAX_ARGUMENTS; i++)
    prototype.arguments[i - 1] = letter_of(btf, btf_params(function)[i].type);
  return prototype;
}

/* include/trace/events/vmscan.h. Linux 7.1 put gfp_flags first, except for node
 * reclaim, and added the memory cgroup; a kernel that has neither form is not
 * guessed at. */
static enum reclaim_arguments arguments_of(struct prototype prototype) {
  if (strcmp(prototype.arguments, "ii") == 0)
    return RECLAIM_ORDER_GFP;
  if (strcmp(prototype.arguments, "iip") == 0)
    return RECLAIM_GFP_ORDER;
  return RECLAIM_ARGUMENTS_UNKNOWN;
}

static void take_tracepoint(const struct btf *btf, const struct btf_type *type,
                            const char *name, struct reclaim_kernel *kernel,
                            struct found *found) {
  static const char prefix[] = "btf_trace_mm_";
  if (strncmp(name, prefix, strlen(prefix)) != 0)
    return;
  name += strlen(prefix);
  struct prototype prototype = prototype_of(btf, type);
  if (strcmp(name, "vmscan_direct_reclaim_begin") == 0) {
    kernel->arguments[RECLAIM_DIRECT] = arguments_of(prototype);
    found->tracepoint = true;
  }
  if (strcmp(name, "vmscan_memcg_reclaim_begin") == 0)
    kernel->arguments[RECLAIM_MEMCG] = arguments_of(prototype);
  else if (strcmp(name, "vmscan_node_reclaim_begin") == 0 &&
           strcmp(prototype.arguments, "iii") == 0)
    kernel->arguments[RECLAIM_NODE] = RECLAIM_NID_ORDER_GFP;
  else if (strcmp(name, "compaction_begin") == 0)
    kernel->tells_compaction = prototype.arguments[0] == 'p';
}

/* Helpers of BPF programs */

static bool has_helper(const struct btf *btf, const struct btf_type *helpers,
                       const char *name) {
  for (uint16_t i = 0; i < btf_vlen(helpers); i++)
    if (strcmp(name_of(btf, btf_enum(helpers)[i].name_off), name) == 0)
      return true;
  return false;
}

/* Without the helper, and where bytes are in another order, comms are copied by
 * the helper for that (reclaim_cut_comm). */
static bool can_read_tasks(const struct btf *btf,
                           const struct btf_type *helpers) {
  return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ &&
         has_helper(btf, helpers, "BPF_FUNC_get_current_task_btf");
}

/* All */

static void take_types(const struct btf *btf, struct kernel_types *types,
                       struct found *found) {
  for (uint32_t id = 1; id < btf__type_cnt(btf); id++) {
    const struct btf_type *type = btf__type_by_id(btf, id);
    const char *name = name_of(btf, type->name_off);
    if (btf_is_struct(type) && is_wanted(name))
      take_struct(btf, type, name, 0, 0, found);
    else if (btf_is_typedef(type))
      take_tracepoint(btf, type, name, &types->kernel, found);
    else if (btf_is_enum(type) && strcmp(name, "bpf_func_id") == 0) {
      types->kernel.has_task_btf = can_read_tasks(btf, type);
      found->helpers = true;
    } else if (btf_is_func(type) && strcmp(name, "memory_reclaim") == 0)
      types->memory_reclaim = id;
  }
}

int kernel_types_read(const char *file, struct kernel_types *types) {
  *types = (struct kernel_types){.memory_reclaim = 0};
  struct btf *btf = btf__parse(file ? file : VMLINUX_BTF, NULL);
  if (!btf)
    return -errno;
  struct found found = {.helpers = false};
  take_types(btf, types, &found);
  btf__free(btf);

  struct reclaim_kernel *kernel = &types->kernel;
  kernel->task_flags = found.offset[TASK_FLAGS];
  kernel->task_comm = found.offset[TASK_COMM];
  kernel->task_group_leader = found.offset[TASK_GROUP_LEADER];
  kernel->control_gfp_mask = found.offset[CONTROL_GFP_MASK];
  kernel->control_order = found.offset[CONTROL_ORDER];
  kernel->control_direct_compaction = found.offset[CONTROL_DIRECT_COMPACTION];
  kernel->tells_compaction &= found.member[CONTROL_GFP_MASK] &&
                              found.member[CONTROL_ORDER] &&
                              found.member[CONTROL_DIRECT_COMPACTION];
  kernel->preempts = found.member[SNAPSHOT_SRCU_GP];
  bool is_whole = found.member[TASK_FLAGS] && found.member[TASK_COMM] &&
                  found.member[TASK_GROUP_LEADER] && found.tracepoint &&
                  found.helpers;
  return is_whole ? 0 : -ENODATA;
}
