/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "comm.h"
#include "snoop_print.h"
#include "snoop_stacks.h"

#define COMMS_TOP 8 /* of a stack are printed */

/* Gathering */

/* What makes two rows one. */
static int compare_keys(const struct snoop_stack_row *left,
                        const struct snoop_stack_row *right) {
  if (left->id != right->id)
    return left->id < right->id ? -1 : 1;
  if (left->others != right->others)
    return left->others ? 1 : -1;
  return memcmp(left->comm, right->comm, sizeof(left->comm));
}

/* The first row that is not below the key. */
static size_t find_place(const struct snoop_stacks *stacks,
                         const struct snoop_stack_row *key) {
  size_t low = 0, high = stacks->num;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (compare_keys(&stacks->rows[middle], key) < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static int insert_row(struct snoop_stacks *stacks, size_t at,
                      const struct snoop_stack_row *key) {
  if (stacks->num == stacks->room) {
    size_t room = stacks->room ? 2 * stacks->room : 64;
    struct snoop_stack_row *rows =
        realloc(stacks->rows, room * sizeof(*stacks->rows));
    if (!rows)
      return -ENOMEM;
    stacks->rows = rows;
    stacks->room = room;
  }
  memmove(stacks->rows + at + 1, stacks->rows + at,
          (stacks->num - at) * sizeof(*stacks->rows));
  stacks->num++;
  stacks->rows[at] = *key;
  return 0;
}

static int add_to_row(struct snoop_stacks *stacks,
                      const struct snoop_stack_row *key, uint64_t stall_ns) {
  size_t at = find_place(stacks, key);
  if (at == stacks->num || compare_keys(&stacks->rows[at], key) != 0) {
    if (stacks->num >= SNOOP_STACKS_ROWS_MAX && !key->others) {
      struct snoop_stack_row others = {.id = key->id, .others = true};
      return add_to_row(stacks, &others, stall_ns);
    }
    int err = insert_row(stacks, at, key);
    if (err != 0)
      return err;
  }
  stacks->rows[at].stalls++;
  if (stall_ns != RECLAIM_UNTIMED)
    stacks->rows[at].time_ns += stall_ns;
  return 0;
}

int snoop_stacks_add(struct snoop_stacks *stacks, int32_t id,
                     const char comm[RECLAIM_COMM_SIZE], uint64_t stall_ns) {
  struct snoop_stack_row key = {.id = id};
  memcpy(key.comm, comm, sizeof(key.comm));
  return add_to_row(stacks, &key, stall_ns);
}

void snoop_stacks_clear(struct snoop_stacks *stacks) {
  free(stacks->rows);
  *stacks = (struct snoop_stacks){0};
}

/* Names */

#define MACHINERY_FRAMES 16 /* at most, innermost */

/* `bpf_prog_` and the program's tag, not a function of the kernel's own such as
 * bpf_prog_alloc. */
static bool is_program(const char *name) {
  static const char prefix[] = "bpf_prog_";
  return strncmp(name, prefix, strlen(prefix)) == 0 &&
         strspn(name + strlen(prefix), "0123456789abcdef") == 16;
}

/* What lies between the function with the tracepoint and the program's helper,
 * and says nothing about the stall. */
static bool is_machinery(const char *name) {
  static const char *const prefixes[] = {
      "bpf_get_stackid", "bpf_trace_run",  "__bpf_trace_",
      "__traceiter_",    "__probestub_",   "trace_call_bpf",
      "bpf_dispatcher_", "__bpf_prog_run", "___bpf_prog_run"};
  if (is_program(name))
    return true;
  for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++)
    if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
      return true;
  return false;
}

/* Where the stall's own functions begin: behind the last of the machinery. In
 * front of that may be programs that the kernel does not name. */
static size_t skip_machinery(const struct kallsyms *syms,
                             const uint64_t *addresses, size_t depth) {
  size_t begin = 0;
  for (size_t i = 0; i < depth && i < MACHINERY_FRAMES; i++) {
    const char *name = kallsyms_find(syms, addresses[i]);
    if (name && is_machinery(name))
      begin = i + 1;
  }
  return begin;
}

char *snoop_stacks_name(const struct kallsyms *syms, const uint64_t *addresses,
                        size_t depth) {
  char *text = NULL;
  size_t size = 0;
  FILE *out = open_memstream(&text, &size);
  if (!out)
    return NULL;
  for (size_t i = skip_machinery(syms, addresses, depth); i < depth; i++) {
    const char *name = kallsyms_find(syms, addresses[i]);
    if (name)
      fprintf(out, "%s\n", name);
    else
      fprintf(out, "0x%" PRIx64 "\n", addresses[i]);
  }
  if (fclose(out) == 0)
    return text;
  free(text);
  return NULL;
}

/* Reporting */

/* A row, or the sum of several, under the names of its stack. */
struct named {
  const char *names;
  bool others;
  char comm[RECLAIM_COMM_SIZE];
  uint64_t stalls;
  uint64_t time_ns;
};

/* A stack and the rows that it came from. */
struct stack {
  const struct named *rows; /* most stalls first */
  size_t rows_num;
  uint64_t stalls;
  uint64_t time_ns;
};

static int compare_comms(const struct named *a, const struct named *b) {
  if (a->others != b->others)
    return a->others ? 1 : -1;
  return memcmp(a->comm, b->comm, sizeof(a->comm));
}

static int compare_names(const void *left, const void *right) {
  const struct named *a = left, *b = right;
  int order = strcmp(a->names, b->names);
  return order != 0 ? order : compare_comms(a, b);
}

static int compare_stalls(const void *left, const void *right) {
  const struct named *a = left, *b = right;
  if (a->stalls != b->stalls)
    return a->stalls < b->stalls ? 1 : -1;
  return compare_comms(a, b);
}

static int compare_times(const void *left, const void *right) {
  const struct stack *a = left, *b = right;
  if (a->time_ns != b->time_ns)
    return a->time_ns < b->time_ns ? 1 : -1;
  return strcmp(a->rows->names, b->rows->names);
}

/* Sorted by names and comm, equal ones added up. Returns how many are left. */
static size_t unite_named(struct named *rows, size_t num) {
  qsort(rows, num, sizeof(*rows), compare_names);
  size_t used = 0;
  for (size_t i = 0; i < num; i++) {
    if (used > 0 && compare_names(&rows[used - 1], &rows[i]) == 0) {
      rows[used - 1].stalls += rows[i].stalls;
      rows[used - 1].time_ns += rows[i].time_ns;
    } else {
      rows[used++] = rows[i];
    }
  }
  return used;
}

/* Returns the number of stacks. */
static size_t gather_stacks(struct named *rows, size_t rows_num,
                            struct stack *stacks) {
  size_t num = 0;
  for (size_t i = 0, next; i < rows_num; i = next) {
    struct stack *stack = &stacks[num++];
    *stack = (struct stack){.rows = &rows[i]};
    for (next = i;
         next < rows_num && strcmp(rows[next].names, rows[i].names) == 0;
         next++) {
      stack->rows_num++;
      stack->stalls += rows[next].stalls;
      stack->time_ns += rows[next].time_ns;
    }
    qsort(&rows[i], stack->rows_num, sizeof(*rows), compare_stalls);
  }
  qsort(stacks, num, sizeof(*stacks), compare_times);
  return num;
}

/* In quotes where it could be taken for more than one, or for none; quotes of
 * its own are escaped then. */
static void print_comm(FILE *out, const struct named *row) {
  if (row->others) {
    fputs("(others)", out);
    return;
  }
  char text[COMM_TEXT_SIZE];
  comm_escape(row->comm, RECLAIM_COMM_SIZE, text, sizeof(text));
  bool quoted = text[0] == '\0' || strpbrk(text, ", \"");
  fputs(quoted ? "\"" : "", out);
  for (const char *at = text; *at != '\0'; at++)
    if (*at == '"')
      fputs("\\x22", out);
    else
      fputc(*at, out);
  fputs(quoted ? "\"" : "", out);
}

static void print_text(FILE *out, const struct stack *stack) {
  fprintf(out, "%.1f ms in %" PRIu64 " stall%s:", (double)stack->time_ns / 1e6,
          stack->stalls, stack->stalls == 1 ? "" : "s");
  for (size_t i = 0; i < stack->rows_num && i < COMMS_TOP; i++) {
    fputs(i > 0 ? ", " : " ", out);
    print_comm(out, &stack->rows[i]);
    fprintf(out, " %" PRIu64, stack->rows[i].stalls);
  }
  if (stack->rows_num > COMMS_TOP)
    fprintf(out, ", and %zu more", stack->rows_num - COMMS_TOP);
  fputc('\n', out);
  for (const char *name = stack->rows->names; *name != '\0';) {
    size_t len = strcspn(name, "\n");
    fprintf(out, "    %.*s\n", (int)len, name);
    name += len + 1;
  }
  fputc('\n', out);
}

static void print_json(FILE *out, const struct snoop_format *format,
                       uint64_t now_ns, const struct stack *stack) {
  fputs("{\"time\":", out);
  snoop_print_json_time(out, format, now_ns);
  fprintf(out, ",\"stalls\":%" PRIu64 ",\"time_ns\":%" PRIu64 ",\"comms\":[",
          stack->stalls, stack->time_ns);
  for (size_t i = 0; i < stack->rows_num; i++) {
    char comm[COMM_TEXT_SIZE];
    comm_escape(stack->rows[i].comm, RECLAIM_COMM_SIZE, comm, sizeof(comm));
    fprintf(out, "%s{\"comm\":", i > 0 ? "," : "");
    if (stack->rows[i].others)
      fputs("null", out); /* which no task can call itself */
    else
      snoop_print_json_string(out, comm);
    fprintf(out, ",\"stalls\":%" PRIu64 ",\"time_ns\":%" PRIu64 "}",
            stack->rows[i].stalls, stack->rows[i].time_ns);
  }
  fputs("],\"frames\":[", out);
  for (const char *name = stack->rows->names; *name != '\0';) {
    size_t len = strcspn(name, "\n");
    fprintf(out, "%s\"%.*s\"", name > stack->rows->names ? "," : "", (int)len,
            name);
    name += len + 1;
  }
  fputs("]}\n", out);
}

/* Names each stack once. Returns false without memory. */
static bool name_rows(const struct snoop_stacks *stacks, struct named *rows,
                      char **names, size_t *names_num,
                      snoop_stacks_name_fn name, void *context) {
  for (size_t i = 0; i < stacks->num; i++) {
    const struct snoop_stack_row *row = &stacks->rows[i];
    if (i == 0 || row->id != stacks->rows[i - 1].id) {
      names[*names_num] = name(context, row->id);
      if (!names[*names_num])
        return false;
      ++*names_num;
    }
    rows[i] = (struct named){.names = names[*names_num - 1],
                             .others = row->others,
                             .stalls = row->stalls,
                             .time_ns = row->time_ns};
    memcpy(rows[i].comm, row->comm, sizeof(rows[i].comm));
  }
  return true;
}

static void print_stacks(FILE *out, const struct snoop_format *format,
                         uint64_t now_ns, const struct stack *stacks,
                         size_t num) {
  if (num > 0 && !format->json && format->timestamps)
    snoop_print_report_time(out, format, now_ns);
  for (size_t i = 0; i < num && i < SNOOP_STACKS_TOP; i++)
    if (format->json)
      print_json(out, format, now_ns, &stacks[i]);
    else
      print_text(out, &stacks[i]);
}

int snoop_stacks_print(FILE *out, const struct snoop_format *format,
                       uint64_t now_ns, const struct snoop_stacks *stacks,
                       snoop_stacks_name_fn name, void *context) {
  size_t names_num = 0;
  struct named *rows = calloc(stacks->num + 1, sizeof(*rows));
  char **names = calloc(stacks->num + 1, sizeof(*names));
  struct stack *sums = calloc(stacks->num + 1, sizeof(*sums));
  int err = -ENOMEM;
  if (rows && names && sums &&
      name_rows(stacks, rows, names, &names_num, name, context)) {
    size_t rows_num = unite_named(rows, stacks->num);
    size_t num = gather_stacks(rows, rows_num, sums);
    print_stacks(out, format, now_ns, sums, num);
    err = 0;
  }
  for (size_t i = 0; i < names_num; i++)
    free(names[i]);
  free(names);
  free(rows);
  free(sums);
  return err;
}
