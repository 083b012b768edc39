/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <linux/capability.h>

#include "bpf_check.h"
#include "cgroup.h"
#include "gfp.h"
#include "kallsyms.h"
#include "kernel_types.h"
#include "kind.h"

/* Headers that are older than Linux 5.8 */
#ifndef CAP_PERFMON
#define CAP_PERFMON 38
#define CAP_BPF 39
#endif

#define MEMLOCK_BYTES (64 << 20) /* more than enough for all maps */
#define PRIVILEGES "run it as root, or with CAP_BPF and CAP_PERFMON"

enum result { CHECK_OK, CHECK_WARN, CHECK_FAIL };

struct check {
  const char *what;
  const char *purpose;
  const char *cure; /* told where it is not ok */
};

static void tell(FILE *out, const struct check *check, enum result result,
                 const char *found) {
  static const char *const words[] = {"ok", "warn", "FAIL"};
  fprintf(out, "%-4s  %-18s %s; for %s", words[result], check->what, found,
          check->purpose);
  if (result != CHECK_OK)
    fprintf(out, "; cure: %s", check->cure);
  fputc('\n', out);
}

/* A question with two answers. */
static void tell_whether(FILE *out, const struct check *check, bool good,
                         enum result otherwise, const char *yes,
                         const char *no) {
  tell(out, check, good ? CHECK_OK : otherwise, good ? yes : no);
}

/* The kernel and what it lets this process do */

/* Linux as major * 1000 + minor; 0 if it cannot be told. */
static int kernel_version(struct utsname *name) {
  int major, minor;
  if (uname(name) != 0 || sscanf(name->release, "%d.%d", &major, &minor) != 2)
    return 0;
  return major * 1000 + minor;
}

static void check_kernel(FILE *out) {
  static const struct check check = {
      "kernel", "what the lines below need, which is in 5.10 and later",
      "none is needed where the lines below are ok"};
  struct utsname name = {.release = "unknown"};
  bool known = kernel_version(&name) >= 5010;
  tell(out, &check, known ? CHECK_OK : CHECK_WARN, name.release);
}

/* Of errno, or of libbpf's own from 4000. */
static const char *explain_error(int err, char text[128]) {
  libbpf_strerror(err, text, 128);
  return text;
}

static void check_btf(FILE *out, const char *file) {
  static const struct check check = {
      "BTF", "fitting the programs to this kernel's types",
      "a kernel with CONFIG_DEBUG_INFO_BTF, or --btf FILE"};
  char found[256];
  const char *path = file ? file : VMLINUX_BTF;
  struct btf *btf = btf__parse(path, NULL);
  if (btf) {
    snprintf(found, sizeof(found), "%s has %u types", path,
             btf__type_cnt(btf) - 1);
  } else {
    char why[128];
    snprintf(found, sizeof(found), "cannot read %s: %s", path,
             explain_error(errno, why));
  }
  tell(out, &check, btf ? CHECK_OK : CHECK_FAIL, found);
  btf__free(btf);
}

/* The effective set, as bits. */
static uint64_t read_capabilities(void) {
  char line[256];
  unsigned long long bits = 0;
  FILE *status = fopen("/proc/self/status", "re");
  if (!status)
    return 0;
  while (fgets(line, sizeof(line), status) &&
         sscanf(line, "CapEff: %llx", &bits) != 1)
    continue;
  fclose(status);
  return bits;
}

static bool has(uint64_t bits, int capability) {
  return bits >> capability & 1;
}

static void check_capabilities(FILE *out) {
  static const struct check check = {"capabilities", "loading the programs",
                                     PRIVILEGES};
  uint64_t bits = read_capabilities();
  if (has(bits, CAP_SYS_ADMIN)) {
    tell(out, &check, CHECK_OK, "has CAP_SYS_ADMIN, which includes all");
    return;
  }
  static const char *const found[2][2] = {
      {"has neither CAP_BPF nor CAP_PERFMON", "has CAP_PERFMON, not CAP_BPF"},
      {"has CAP_BPF, not CAP_PERFMON", "has CAP_BPF and CAP_PERFMON"}};
  bool bpf = has(bits, CAP_BPF), perfmon = has(bits, CAP_PERFMON);
  tell(out, &check, bpf && perfmon ? CHECK_OK : CHECK_FAIL,
       found[bpf][perfmon]);
}

/* From Linux 5.11 maps are charged to the memory cgroup instead; before, libbpf
 * raises the limit if it may. */
static void check_memlock(FILE *out) {
  static const struct check check = {
      "locked memory", "the maps, before Linux 5.11",
      "ulimit -l unlimited, or LimitMEMLOCK=infinity in a systemd unit"};
  struct utsname name;
  struct rlimit limit = {0};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  bool enough = limit.rlim_cur >= MEMLOCK_BYTES ||
                has(read_capabilities(), CAP_SYS_RESOURCE);
  if (kernel_version(&name) >= 5011)
    tell(out, &check, CHECK_OK, "not limited on this kernel");
  else
    tell_whether(out, &check, enough, CHECK_FAIL, "the limit is high enough",
                 "the limit is low, and may not be raised");
}

static void check_lockdown(FILE *out) {
  static const struct check check = {
      "lockdown", "telling kernel threads, and -P",
      "boot without lockdown=confidentiality (integrity does no harm)"};
  char modes[128] = "";
  FILE *file = fopen("/sys/kernel/security/lockdown", "re");
  if (file && !fgets(modes, sizeof(modes), file))
    modes[0] = '\0';
  if (file)
    fclose(file);
  modes[strcspn(modes, "\n")] = '\0';
  if (modes[0] == '\0')
    tell(out, &check, CHECK_OK, "not there, or not to be read");
  else
    tell_whether(out, &check, strstr(modes, "[confidentiality]") == NULL,
                 CHECK_WARN, modes, modes);
}

/* BPF */

static void check_program_type(FILE *out) {
  static const struct check check = {"raw tracepoints", "the programs",
                                     PRIVILEGES ", on Linux 5.10 or later"};
  int answer = libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_RAW_TRACEPOINT, NULL);
  tell_whether(out, &check, answer == 1, CHECK_FAIL, "can be loaded",
               "cannot be loaded");
}

/* A program of one call of the helper behind every read of task_struct. */
static void check_task_struct(FILE *out) {
  static const struct check check = {
      "task_struct", "telling kernel threads, and -P",
      "boot without lockdown=confidentiality; or see the lines above"};
  const struct bpf_insn insns[] = {
      {.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = 1, .src_reg = 10},
      /* NOLINTNEXTLINE(misc-redundant-expression): both are 0 */
      {.code = BPF_ALU64 | BPF_ADD | BPF_K, .dst_reg = 1, .imm = -8},
      {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 2, .imm = 8},
      {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 3, .imm = 0},
      {.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_probe_read_kernel},
      {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 0},
      {.code = BPF_JMP | BPF_EXIT}};
  int fd = bpf_prog_load(BPF_PROG_TYPE_RAW_TRACEPOINT, "may_read", "GPL", insns,
                         sizeof(insns) / sizeof(*insns), NULL);
  tell_whether(out, &check, fd >= 0, CHECK_WARN, "can be read",
               "cannot be read");
  if (fd >= 0)
    close(fd);
}

static const struct map_check {
  enum bpf_map_type type;
  enum result otherwise;
  struct check check;
} map_checks[] = {
    {BPF_MAP_TYPE_HASH,
     CHECK_FAIL,
     {"hash maps", "the sums per name", PRIVILEGES}},
    {BPF_MAP_TYPE_ARRAY,
     CHECK_FAIL,
     {"array maps", "the times of begin", PRIVILEGES}},
    {BPF_MAP_TYPE_ARRAY_OF_MAPS,
     CHECK_FAIL,
     {"arrays of maps", "taking out sums exactly", PRIVILEGES}},
    {BPF_MAP_TYPE_RINGBUF,
     CHECK_FAIL,
     {"ring buffers", "lines", PRIVILEGES ", on Linux 5.8 or later"}},
    {BPF_MAP_TYPE_STACK_TRACE, CHECK_WARN, {"stack maps", "-S", PRIVILEGES}},
};

static void check_maps(FILE *out) {
  for (size_t i = 0; i < sizeof(map_checks) / sizeof(*map_checks); i++)
    tell_whether(out, &map_checks[i].check,
                 libbpf_probe_bpf_map_type(map_checks[i].type, NULL) == 1,
                 map_checks[i].otherwise, "can be made", "cannot be made");
}

static void check_batch(FILE *out) {
  static const struct check check = {"batch operations",
                                     "taking out sums exactly",
                                     PRIVILEGES ", on Linux 5.6 or later"};
  __u32 position, keys[2], values[2], count = 2;
  int fd = bpf_map_create(BPF_MAP_TYPE_HASH, "batch", sizeof(*keys),
                          sizeof(*values), count, NULL);
  int err = fd < 0 ? fd
                   : bpf_map_lookup_and_delete_batch(fd, NULL, &position, keys,
                                                     values, &count, NULL);
  tell_whether(out, &check, err == 0 || err == -ENOENT, CHECK_FAIL, "work",
               "do not work");
  if (fd >= 0)
    close(fd);
}

/* What bpf_source last complained of; its log function has no context. */
static char complaint[1024];

static void keep_complaint(enum log_level level, const char *message) {
  if (level != RECLAIM_LOG_INFO)
    snprintf(complaint, sizeof(complaint), "%s", message);
}

/* The real thing: loads and attaches. Returns whether the kind is there. */
static bool check_kind(FILE *out, const struct bpf_source_options *wanted,
                       enum reclaim_kind kind) {
  char what[32], found[128];
  snprintf(what, sizeof(what), "%s stalls", kind_name(kind));
  const struct check check = {what, "stalls of this kind",
                              "what the message says, and the lines above"};
  struct bpf_source_options options = *wanted;
  memset(options.kinds, 0, sizeof(options.kinds));
  options.kinds[kind] = options.kinds[kind_words(kind)] = true;
  options.kinds_named = options.events = true;

  complaint[0] = '\0';
  struct bpf_source *source = NULL;
  int err = bpf_source_new(&options, keep_complaint, &source);
  bool there = err == 0 && bpf_source_is_attached(source, kind);
  snprintf(found, sizeof(found), "attached to %s", bpf_source_tracepoint(kind));
  tell(out, &check,
       there      ? CHECK_OK
       : err == 0 ? CHECK_WARN
                  : CHECK_FAIL,
       there ? found : complaint);
  bpf_source_free(source);
  return there;
}

static bool check_kinds(FILE *out, const struct bpf_source_options *options) {
  bool any = false;
  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++)
    if (options->kinds[kind])
      any |= check_kind(out, options, kind);
  return any;
}

/* Names */

static void check_gfp(FILE *out) {
  static const struct check check = {
      "names of flags", "the names of gfp flags (else numbers)",
      "mount -t tracefs tracefs /sys/kernel/tracing, and read it as root"};
  struct gfp_names names;
  char found[128];
  int err = gfp_names_read(&names);
  if (err == 0)
    snprintf(found, sizeof(found), "tracefs has %zu", names.num);
  else
    snprintf(found, sizeof(found), "tracefs has none: %s", strerror(-err));
  tell(out, &check, err == 0 ? CHECK_OK : CHECK_WARN, found);
}

static void check_kallsyms(FILE *out) {
  static const struct check check = {
      "kernel symbols", "the functions of -S (else addresses)",
      "run it as root, or with CAP_SYSLOG, and kernel.kptr_restrict below 2"};
  struct kallsyms *syms;
  char found[128];
  int err = kallsyms_read(&syms);
  size_t num = err == 0 ? kallsyms_num(syms) : 0;
  if (err != 0)
    snprintf(found, sizeof(found), "cannot read /proc/kallsyms: %s",
             strerror(-err));
  else if (num == 0)
    snprintf(found, sizeof(found), "/proc/kallsyms hides addresses");
  else
    snprintf(found, sizeof(found), "/proc/kallsyms has %zu functions", num);
  tell(out, &check, num > 0 ? CHECK_OK : CHECK_WARN, found);
  kallsyms_free(syms);
}

static void check_cgroup(FILE *out) {
  static const struct check check = {
      "cgroup v2", "the paths of cgroups in -j (else null)",
      "mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"};
  struct cgroup_paths *paths = cgroup_paths_new(NULL);
  tell_whether(out, &check, paths && cgroup_paths_are_known(paths), CHECK_WARN,
               "is mounted", "is not mounted, or cannot be opened");
  cgroup_paths_free(paths);
}

bool bpf_check_print(FILE *out, const struct bpf_source_options *options) {
  libbpf_set_print(NULL);
  check_kernel(out);
  check_btf(out, options->btf_file);
  check_capabilities(out);
  check_memlock(out);
  check_lockdown(out);
  check_program_type(out);
  check_task_struct(out);
  check_maps(out);
  check_batch(out);
  bool works = check_kinds(out, options);
  check_gfp(out);
  check_kallsyms(out);
  check_cgroup(out);
  fprintf(out, "%s\n",
          works ? "stalls can be printed here"
                : "stalls cannot be printed here; see FAIL and warn above");
  return works;
}
