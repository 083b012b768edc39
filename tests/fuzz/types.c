/* SPDX-License-Identifier: MIT */
/* BTF of no kernel: types that libbpf reads, but whose names and references
 * lead anywhere, also to themselves. It is found out, or believed, but ends.
 * libbpf itself is not instrumented: what it makes of bad files is its own. */
#include <errno.h>
#include <linux/btf.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bpf/libbpf.h>

#include "plugin/kernel_types.h"
#include "tests/fuzz/fuzz.h"

enum { TYPES_MAX = 32, VLEN_MAX = 4, WORDS_MAX = TYPES_MAX * 16 };

static const char *const names[] = {"",
                                    "task_struct",
                                    "flags",
                                    "comm",
                                    "group_leader",
                                    "compact_control",
                                    "gfp_mask",
                                    "order",
                                    "direct_compaction",
                                    "tp_transition_snapshot",
                                    "srcu_gp",
                                    "bpf_func_id",
                                    "BPF_FUNC_get_current_task_btf",
                                    "memory_reclaim",
                                    "btf_trace_mm_vmscan_direct_reclaim_begin",
                                    "btf_trace_mm_vmscan_memcg_reclaim_begin",
                                    "btf_trace_mm_vmscan_node_reclaim_begin",
                                    "btf_trace_mm_compaction_begin"};
enum { TASK_STRUCT = 1, CONTROL = 5, FUNC_ID = 11, RECLAIM = 13, DIRECT = 14 };

/* A file of BTF under construction, and what is in it. */
static struct {
  char strings[512];
  uint32_t offsets[sizeof(names) / sizeof(*names)];
  uint32_t strings_len;
  uint32_t words[WORDS_MAX];
  uint32_t words_num;
  uint32_t types_num;
  bool task, control, func_id, direct;
  uint32_t memory_reclaim;
} made;

static void put(uint32_t word) { made.words[made.words_num++] = word; }

/* Mostly of the table, else none. */
static size_t put_name(struct input *input) {
  size_t num = sizeof(names) / sizeof(*names);
  size_t name = take_one_of(input, num + 1);
  put(name < num ? made.offsets[name]
                 : sizeof(made.strings) | (uint32_t)take_number(input));
  return name;
}

static void put_reference(struct input *input) {
  uint8_t id = take_byte(input);
  put(id < 255 ? id % (TYPES_MAX + 1) : (uint32_t)take_number(input));
}

/* How many words each of its `vlen` things has; 0: it is none of ours. */
static void put_rest(struct input *input, uint32_t kind, uint32_t vlen) {
  switch (kind) {
  case BTF_KIND_INT:
    put((uint32_t)take_number(input));
    break;
  case BTF_KIND_ARRAY:
    put_reference(input);
    put_reference(input);
    put(16);
    break;
  case BTF_KIND_STRUCT:
  case BTF_KIND_UNION:
    for (; vlen > 0; vlen--) {
      put_name(input);
      put_reference(input);
      put((uint32_t)take_number(input));
    }
    break;
  case BTF_KIND_ENUM:
  case BTF_KIND_FUNC_PROTO:
    for (; vlen > 0; vlen--) {
      put_name(input);
      put_reference(input);
    }
    break;
  }
}

static void put_type(struct input *input) {
  static const uint32_t kinds[] = {
      BTF_KIND_INT,   BTF_KIND_PTR,   BTF_KIND_ARRAY,   BTF_KIND_STRUCT,
      BTF_KIND_UNION, BTF_KIND_ENUM,  BTF_KIND_TYPEDEF, BTF_KIND_VOLATILE,
      BTF_KIND_CONST, BTF_KIND_FUNC,  BTF_KIND_FWD,     BTF_KIND_FUNC_PROTO,
      BTF_KIND_FLOAT, BTF_KIND_STRUCT};
  uint32_t kind = kinds[take_one_of(input, sizeof(kinds) / sizeof(*kinds))];
  uint32_t vlen = (uint32_t)take_one_of(input, VLEN_MAX + 1);
  uint32_t id = ++made.types_num;
  size_t name = put_name(input);
  bool has_vlen = kind == BTF_KIND_STRUCT || kind == BTF_KIND_UNION ||
                  kind == BTF_KIND_ENUM || kind == BTF_KIND_FUNC_PROTO;
  put(kind << 24 | (has_vlen ? vlen : 0) | (uint32_t)take_bool(input) << 31);
  put_reference(input);
  put_rest(input, kind, vlen);
  made.task |= kind == BTF_KIND_STRUCT && name == TASK_STRUCT;
  made.control |= kind == BTF_KIND_STRUCT && name == CONTROL;
  made.func_id |= kind == BTF_KIND_ENUM && name == FUNC_ID;
  made.direct |= kind == BTF_KIND_TYPEDEF && name == DIRECT;
  if (kind == BTF_KIND_FUNC && name == RECLAIM)
    made.memory_reclaim = id;
}

static void make_types(struct input *input) {
  memset(&made, 0, sizeof(made));
  for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
    made.offsets[i] = made.strings_len;
    strcpy(made.strings + made.strings_len, names[i]);
    made.strings_len += (uint32_t)strlen(names[i]) + 1;
  }
  while (made.types_num < TYPES_MAX && input->left > 0)
    put_type(input);
}

static int write_types(void) {
  struct btf_header header = {.magic = BTF_MAGIC,
                              .version = BTF_VERSION,
                              .hdr_len = sizeof(header),
                              .type_len = made.words_num * 4,
                              .str_off = made.words_num * 4,
                              .str_len = made.strings_len};
  int fd = memfd_create("types", MFD_CLOEXEC);
  MUST(write(fd, &header, sizeof(header)) == sizeof(header));
  MUST(write(fd, made.words, header.type_len) == (ssize_t)header.type_len);
  MUST(write(fd, made.strings, header.str_len) == (ssize_t)header.str_len);
  return fd;
}

static int say_nothing(enum libbpf_print_level level, const char *format,
                       va_list args) {
  (void)level, (void)format, (void)args;
  return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  libbpf_set_print(say_nothing);
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct input input = {data, size};
  struct kernel_types types;
  char path[32];
  make_types(&input);
  int fd = write_types();
  snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
  int err = kernel_types_read(path, &types);
  close(fd);
  MUST(err <= 0);
  MUST(err != 0 || (made.task && made.func_id && made.direct));
  if (err != 0 && err != -ENODATA)
    return 0;
  MUST(types.memory_reclaim == made.memory_reclaim);
  MUST(!types.kernel.tells_compaction || made.control);
  for (size_t kind = 0; kind < RECLAIM_KINDS; kind++)
    MUST(types.kernel.arguments[kind] <= RECLAIM_NID_ORDER_GFP);
  return 0;
}
