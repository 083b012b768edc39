/* SPDX-License-Identifier: MIT */
/* Types of kernels, as they are in the source and as they could be. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <bpf/btf.h>

#include "plugin/kernel_types.h"
#include "tests/unit/tap.h"

/* Types that all of these kernels have. */
struct made {
  struct btf *btf;
  int u32, u64, byte, comm, pointer;
};

static struct made make(void) {
  struct made made = {.btf = btf__new_empty()};
  made.u32 = btf__add_int(made.btf, "unsigned int", 4, 0);
  made.u64 = btf__add_int(made.btf, "unsigned long", 8, 0);
  made.byte = btf__add_int(made.btf, "_Bool", 1, BTF_INT_BOOL);
  made.comm = btf__add_array(made.btf, made.u32, made.byte, 16);
  made.pointer = btf__add_ptr(made.btf, 0);
  return made;
}

static void add_tracepoint(struct made *made, const char *name,
                           const char *arguments) {
  char typedef_name[64];
  int gfp = btf__add_typedef(made->btf, "gfp_t", made->u32);
  int gfp_const = btf__add_const(made->btf, gfp);
  int function = btf__add_func_proto(made->btf, 0);
  btf__add_func_param(made->btf, "", made->pointer);
  for (; *arguments != '\0'; arguments++)
    btf__add_func_param(made->btf, "",
                        *arguments == 'p'   ? made->pointer
                        : *arguments == 'g' ? gfp_const
                                            : made->u32);
  snprintf(typedef_name, sizeof(typedef_name), "btf_trace_mm_%s", name);
  btf__add_typedef(made->btf, typedef_name, btf__add_ptr(made->btf, function));
}

static void add_helpers(struct made *made, const char *name, int number) {
  btf__add_enum(made->btf, "bpf_func_id", 4);
  btf__add_enum_value(made->btf, "BPF_FUNC_unspec", 0);
  btf__add_enum_value(made->btf, name, number);
}

/* Returns what reading a file of it returns. */
static int read_made(struct made *made, struct kernel_types *types) {
  char path[] = "/tmp/test_kernel_types.XXXXXX";
  int fd = mkstemp(path);
  __u32 size;
  const void *data = btf__raw_data(made->btf, &size);
  if (write(fd, data, size) != (ssize_t)size)
    printf("# %s: %s\n", path, strerror(errno));
  close(fd);
  int err = kernel_types_read(path, types);
  unlink(path);
  btf__free(made->btf);
  return err;
}

static void add_task_struct(struct made *made) {
  btf__add_struct(made->btf, "task_struct", 100);
  btf__add_field(made->btf, "flags", made->u32, 4 * 8, 0);
  btf__add_field(made->btf, "", made->u64, 8 * 8, 0);
  btf__add_field(made->btf, "group_leader", made->pointer, 24 * 8, 0);
  btf__add_field(made->btf, "comm", made->comm, 40 * 8, 0);
}

static int add_control(struct made *made) {
  int control = btf__add_struct(made->btf, "compact_control", 64);
  btf__add_field(made->btf, "order", made->u32, 8 * 8, 0);
  btf__add_field(made->btf, "gfp_mask", made->u32, 12 * 8, 0);
  btf__add_field(made->btf, "direct_compaction", made->byte, 33 * 8, 0);
  return control;
}

static void test_old_kernel(void) {
  struct made made = make();
  add_task_struct(&made);
  add_control(&made);
  btf__add_struct(made.btf, "tp_transition_snapshot", 16);
  btf__add_field(made.btf, "rcu", made.u64, 0, 0);
  add_tracepoint(&made, "vmscan_direct_reclaim_begin", "ig");
  add_tracepoint(&made, "vmscan_memcg_reclaim_begin", "ig");
  add_tracepoint(&made, "vmscan_node_reclaim_begin", "iig");
  add_tracepoint(&made, "compaction_begin", "iiii");
  add_helpers(&made, "BPF_FUNC_get_current_task", 35);
  struct kernel_types types;
  is_u64((uint64_t)-read_made(&made, &types), 0, "types as of Linux 5.10");
  const struct reclaim_kernel *kernel = &types.kernel;
  ok(kernel->task_flags == 4 && kernel->task_group_leader == 24 &&
         kernel->task_comm == 40,
     "members are found");
  ok(kernel->arguments[RECLAIM_DIRECT] == RECLAIM_ORDER_GFP &&
         kernel->arguments[RECLAIM_MEMCG] == RECLAIM_ORDER_GFP &&
         kernel->arguments[RECLAIM_NODE] == RECLAIM_NID_ORDER_GFP,
     "the order comes first");
  ok(!kernel->has_task_btf, "tasks are read by helpers");
  ok(!kernel->preempts, "programs are not preempted");
  ok(!kernel->tells_compaction, "a compaction does not tell whose it is");
  is_u64(types.memory_reclaim, 0, "there is no memory.reclaim");
}

static void test_new_kernel(void) {
  struct made made = make();
  int random = btf__add_struct(made.btf, NULL, 80);
  btf__add_field(made.btf, "comm", made.comm, 8 * 8, 0);
  btf__add_field(made.btf, "group_leader", made.pointer, 32 * 8, 0);
  btf__add_field(made.btf, "flags", made.u32, 48 * 8, 0);
  btf__add_struct(made.btf, "task_struct", 100);
  btf__add_field(made.btf, "state", made.u32, 0, 0);
  btf__add_field(made.btf, "", random, 16 * 8, 0);
  add_control(&made);
  btf__add_struct(made.btf, "tp_transition_snapshot", 16);
  btf__add_field(made.btf, "srcu_gp", made.u64, 0, 0);
  add_tracepoint(&made, "vmscan_direct_reclaim_begin", "gip");
  add_tracepoint(&made, "vmscan_memcg_reclaim_begin", "gip");
  add_tracepoint(&made, "vmscan_node_reclaim_begin", "iig");
  add_tracepoint(&made, "compaction_begin", "piii");
  add_helpers(&made, "BPF_FUNC_get_current_task_btf", 158);
  int prototype = btf__add_func_proto(made.btf, made.u32);
  int function =
      btf__add_func(made.btf, "memory_reclaim", BTF_FUNC_STATIC, prototype);
  struct kernel_types types;
  is_u64((uint64_t)-read_made(&made, &types), 0, "types as of Linux 7.1");
  const struct reclaim_kernel *kernel = &types.kernel;
  ok(kernel->task_flags == 64 && kernel->task_group_leader == 48 &&
         kernel->task_comm == 24,
     "members are found in a struct without a name");
  ok(kernel->arguments[RECLAIM_DIRECT] == RECLAIM_GFP_ORDER &&
         kernel->arguments[RECLAIM_MEMCG] == RECLAIM_GFP_ORDER &&
         kernel->arguments[RECLAIM_NODE] == RECLAIM_NID_ORDER_GFP,
     "gfp_flags come first, but for nodes");
  ok(kernel->has_task_btf, "tasks are read without helpers");
  ok(kernel->preempts, "programs are preempted");
  ok(kernel->tells_compaction && kernel->control_order == 8 &&
         kernel->control_gfp_mask == 12 &&
         kernel->control_direct_compaction == 33,
     "a compaction tells whose it is");
  is_u64(types.memory_reclaim, (uint64_t)function,
         "the function of memory.reclaim has its id");
}

static void test_strange_kernel(void) {
  struct made made = make();
  add_task_struct(&made);
  add_helpers(&made, "BPF_FUNC_get_current_task", 35);
  add_tracepoint(&made, "vmscan_direct_reclaim_begin", "pig");
  add_tracepoint(&made, "vmscan_memcg_reclaim_begin", "igii");
  add_tracepoint(&made, "vmscan_node_reclaim_begin", "iigp");
  add_tracepoint(&made, "compaction_begin", "piii");
  struct kernel_types types;
  is_u64((uint64_t)-read_made(&made, &types), 0, "types of no known kernel");
  uint64_t known = 0;
  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++)
    known += types.kernel.arguments[kind] != RECLAIM_ARGUMENTS_UNKNOWN;
  is_u64(known, 0, "arguments are not guessed at");
  ok(!types.kernel.tells_compaction,
     "a compaction whose struct is not known tells nothing");
}

/* As of a file that was stripped of what another program did not need. */
static void test_stripped(void) {
  struct kernel_types types;
  for (int missing = 0; missing < 3; missing++) {
    struct made made = make();
    if (missing != 0)
      add_task_struct(&made);
    if (missing != 1)
      add_helpers(&made, "BPF_FUNC_get_current_task", 35);
    if (missing != 2)
      add_tracepoint(&made, "vmscan_direct_reclaim_begin", "ig");
    is_u64((uint64_t)-read_made(&made, &types), ENODATA,
           "types that lack what all kernels have are not believed");
  }
}

/* As of a file that is damaged, or made by a program that errs. */
static void test_wrong_references(void) {
  struct made made = make();
  int next = (int)btf__type_cnt(made.btf);
  int endless = btf__add_const(made.btf, next);
  int within = btf__add_struct(made.btf, NULL, 80);
  btf__add_field(made.btf, "", within, 8 * 8, 0);
  add_task_struct(&made);
  btf__add_field(made.btf, "", within, 48 * 8, 0);
  add_helpers(&made, "BPF_FUNC_get_current_task", 35);
  made.u32 = endless;
  add_tracepoint(&made, "vmscan_direct_reclaim_begin", "ii");
  struct kernel_types types;
  is_u64((uint64_t)-read_made(&made, &types), 0,
         "types that refer to themselves are borne");
  is_u64(types.kernel.task_comm, 40, "the others are found");
  is_u64(types.kernel.arguments[RECLAIM_DIRECT], RECLAIM_ARGUMENTS_UNKNOWN,
         "and an argument without an end is of no known type");
}

/* Since 1.3 libbpf looks at names itself. */
static void test_wrong_name(void) {
  struct made made = make();
  add_task_struct(&made);
  add_helpers(&made, "BPF_FUNC_get_current_task", 35);
  add_tracepoint(&made, "vmscan_direct_reclaim_begin", "ig");
  int nameless = btf__add_struct(made.btf, "x", 8);
  ((struct btf_type *)btf__type_by_id(made.btf, (__u32)nameless))->name_off =
      1 << 20;
  struct kernel_types types = {.kernel.task_comm = 0};
  int err = read_made(&made, &types);
  ok(err == -EINVAL || (err == 0 && types.kernel.task_comm == 40),
     "a name that is none is refused by libbpf, or borne");
}

static void test_no_kernel(void) {
  struct kernel_types types;
  is_u64((uint64_t)-kernel_types_read("/nonexistent", &types), ENOENT,
         "a file that is not there is an error");
  ok(kernel_types_read("/etc/passwd", &types) < 0, "so is one of no types");
}

int main(void) {
  test_old_kernel();
  test_new_kernel();
  test_strange_kernel();
  test_stripped();
  test_wrong_references();
  test_wrong_name();
  test_no_kernel();
  return done();
}
