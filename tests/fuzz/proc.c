/* SPDX-License-Identifier: MIT */
/* Text of /proc and tracefs: what the kernel wrote is read back, and of
 * anything else nothing bad comes. */
#include <errno.h>
#include <inttypes.h>

#include "plugin/gfp.h"
#include "plugin/host.h"
#include "plugin/task.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/stream.h"

/* /proc/vmstat, /proc/pressure/memory */

static void check_vmstat(struct input *input) {
  static const char *const lines[] = {
      "allocstall",      "allocstall_dma", "allocstall_normal",
      "compact_stall",   "oom_kill",       "allocstal",
      "compact_stall_x", "oom_kill2",      "pgsteal_direct"};
  struct host_account wanted = {.has_oom_kill = false};
  struct host_account got = wanted;
  FILE *out = stream_begin();
  for (size_t num = take_one_of(input, 24); num > 0; num--) {
    size_t key = take_one_of(input, sizeof(lines) / sizeof(*lines));
    uint64_t value = take_number(input);
    fprintf(out, "%s %" PRIu64 "\n", lines[key], value);
    wanted.has_allocstall |= key <= 2;
    wanted.allocstall += key <= 2 ? value : 0;
    wanted.has_compact_stall |= key == 3;
    wanted.compact_stall += key == 3 ? value : 0;
    wanted.has_oom_kill |= key == 4;
    wanted.oom_kill += key == 4 ? value : 0;
  }
  host_parse_vmstat(stream_end(), &got);
  MUST(memcmp(&got, &wanted, sizeof(got)) == 0);
}

static void check_pressure(struct input *input) {
  uint64_t some = take_number(input), full = take_number(input);
  bool has_full = take_bool(input);
  struct host_account got = {.has_oom_kill = false};
  FILE *out = stream_begin();
  fprintf(out, "some avg10=0.12 avg60=99.00 avg300=1.00 total=%" PRIu64 "\n",
          some);
  if (has_full)
    fprintf(out, "full avg10=0.00 avg60=0.00 avg300=0.00 total=%" PRIu64 "\n",
            full);
  host_parse_pressure(stream_end(), &got);
  MUST(got.has_psi_some && got.psi_some_us == some);
  MUST(got.has_psi_full == has_full);
  MUST(got.psi_full_us == (has_full ? full : 0));
}

static void check_coverage(struct input *input) {
  uint64_t ended = take_number(input), under_way = take_number(input);
  uint64_t begin = take_number(input), end = take_number(input);
  double coverage = host_coverage(ended, under_way, begin, end);
  MUST(coverage >= 0 && coverage <= 4e19);
  MUST(end > begin || coverage == 1);
}

/* /proc/TID/stat */

static void check_stat(struct input *input) {
  char comm[65] = "", state = "RSDTtZXI"[take_one_of(input, 8)];
  take_bytes(input, comm, take_bool(input) ? 15 : 64);
  uint32_t flags = (uint32_t)take_number(input);
  uint64_t start = take_number(input) >> 40, asleep_ns = take_number(input);
  FILE *out = stream_begin();
  fprintf(out, "%zu (%s) %c 1 2 3 4 -1 %u", take_one_of(input, 65536), comm,
          state, flags);
  for (int field = 10; field < 22; field++)
    fprintf(out, " %" PRIu64, take_number(input));
  fprintf(out, " %" PRIu64 " 5 6 7\n", start);
  struct task task;
  char wanted[RECLAIM_COMM_SIZE] = "";
  strncpy(wanted, comm, sizeof(wanted) - 1);
  MUST(task_parse_stat(stream_end(), asleep_ns, &task) == 0);
  MUST(memcmp(task.comm, wanted, sizeof(wanted)) == 0);
  MUST(task.state == state && task.kthread == ((flags & 0x200000) != 0));
  uint64_t start_ns = start * 10000000; /* USER_HZ is 100 */
  MUST(task.start_ns == (start_ns > asleep_ns ? start_ns - asleep_ns : 0));
}

/* Formats of tracepoints */

/* Writes an expression as the kernel does and returns what it is. */
static uint64_t put_expression(struct input *input, FILE *out, int depth) {
  uint64_t left, right;
  switch (depth > 5 ? 0 : take_one_of(input, 7)) {
  case 1:
    fputs("(", out);
    left = put_expression(input, out, depth + 1);
    fputs(" | ", out);
    right = put_expression(input, out, depth + 1);
    fputs(")", out);
    return left | right;
  case 2:
    fputs("(( gfp_t)(", out);
    left = put_expression(input, out, depth + 1);
    fputs(" & ", out);
    right = put_expression(input, out, depth + 1);
    fputs("))", out);
    return left & right;
  case 3:
    fputs("~(", out);
    left = put_expression(input, out, depth + 1);
    fputs(")", out);
    return ~left;
  case 4:
    right = take_one_of(input, 32);
    fprintf(out, "((1UL) << (%" PRIu64 "))", right);
    return 1ULL << right;
  case 5:
    left = take_number(input) & UINT32_MAX;
    right = take_one_of(input, 8);
    fprintf(out, "(%" PRIu64 " << %" PRIu64 " | 1u)", left, right);
    return left << right | 1;
  default:
    left = take_number(input) & UINT32_MAX;
    fprintf(out, "0x%" PRIx64 "u", left);
    return left;
  }
}

/* What is printed is the flags again: names' bits, and the rest as a number. */
static void check_printed(const struct gfp_names *names, uint32_t flags) {
  char text[GFP_NAMES * 8 + 32];
  uint32_t seen = 0;
  gfp_names_print(names, flags, text, sizeof(text));
  MUST(strnlen(text, sizeof(text)) < sizeof(text) - 1);
  if (flags == 0)
    MUST(strcmp(text, "none") == 0);
  for (char *word = strtok(text, "|"); word && flags; word = strtok(NULL, "|"))
    if (word[0] == 'N')
      seen |= names->names[strtoul(word + 1, NULL, 10)].mask;
    else
      seen |= (uint32_t)strtoul(word, NULL, 16);
  MUST(seen == flags);
}

static void check_gfp(struct input *input) {
  struct gfp_names names;
  uint32_t masks[16], flags = (uint32_t)take_number(input);
  size_t num = take_one_of(input, 16);
  FILE *out = stream_begin();
  fputs("print fmt: \"gfp_flags=%s\", (REC->gfp_flags) ? "
        "__print_flags(REC->gfp_flags, \"|\"",
        out);
  for (size_t i = 0; i < num; i++) {
    fputs(", {", out);
    masks[i] = (uint32_t)put_expression(input, out, 0);
    fprintf(out, ", \"N%zu\" }", i);
  }
  fputs(", { 0, ((void *)0) } ) : \"none\"\n", out);
  MUST(gfp_names_parse(&names, stream_end()) == (num > 0 ? 0 : -EINVAL));
  MUST(names.num == num);
  for (size_t i = 0; i < num; i++)
    MUST(names.names[i].mask == masks[i]);
  check_printed(&names, flags);
}

/* Anything */

static void check_garbage(struct input *input) {
  static const char gfp_begin[] = "__print_flags(REC->gfp_flags, \"|\"";
  struct host_account account = {.has_oom_kill = false};
  struct gfp_names names;
  struct task task;
  char *text = take_text(input, 1024), room[64], *format;
  host_parse_vmstat(text, &account);
  host_parse_pressure(text, &account);
  if (task_parse_stat(text, 0, &task) == 0)
    MUST(task.comm[RECLAIM_COMM_SIZE - 1] == '\0');
  format = malloc(sizeof(gfp_begin) + strlen(text));
  strcat(strcpy(format, gfp_begin), text);
  int err = gfp_names_parse(&names, format);
  MUST(names.num <= GFP_NAMES && (err == 0) == (names.num > 0));
  gfp_names_print(&names, UINT32_MAX, room, sizeof(room));
  MUST(strnlen(room, sizeof(room)) < sizeof(room));
  free(format);
  free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static void (*const checks[])(struct input *) = {
      check_vmstat, check_pressure, check_coverage,
      check_stat,   check_gfp,      check_garbage};
  struct input input = {data, size};
  checks[take_one_of(&input, sizeof(checks) / sizeof(*checks))](&input);
  free(stream.text);
  stream.text = NULL;
  return 0;
}
