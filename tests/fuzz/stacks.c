/* SPDX-License-Identifier: MIT */
/* /proc/kallsyms beside a search from line to line, and kernel stacks named by
 * it: every stall is in one stack, and what is printed can be read back. */
#include <inttypes.h>
#include <math.h>

#include "plugin/kallsyms.h"
#include "plugin/snoop_stacks.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/json.h"
#include "tests/unit/stream.h"

#define BASE 0xffffffff81000000ULL
#define SYMBOLS_MAX 24
#define STACKS 6
#define DEPTH 6

struct symbol {
  uint64_t address;
  char type;
  char name[24];
};

static struct symbol symbols[SYMBOLS_MAX];
static size_t symbols_num;
static uint64_t stacks[STACKS][DEPTH];
static const struct kallsyms *known;

static uint64_t take_address(struct input *input) {
  static const uint64_t steps[] = {0, 1, 0xffff, 0x10000, 0x10001, 0x20000};
  uint64_t base = take_one_of(input, 8) == 0 ? take_u64(input) : BASE;
  return base + steps[take_one_of(input, 6)] * take_one_of(input, 8);
}

static struct symbol take_symbol(struct input *input) {
  static const char *const names[] = {
      "try_to_free_pages",  "bpf_trace_run1", "__traceiter_mm_x",
      "shrink_node.part.0", "_R$x",           "bpf_prog_0123456789abcdef_end"};
  struct symbol symbol = {.address = take_address(input),
                          .type = "tTwWdDb?"[take_one_of(input, 8)]};
  snprintf(symbol.name, sizeof(symbol.name), "%s",
           names[take_one_of(input, sizeof(names) / sizeof(*names))]);
  if (take_bool(input))
    symbol.name[0] = (char)('a' + take_one_of(input, 26));
  return symbol;
}

/* The file, of symbols and lines that are none. */
static char *make_listing(struct input *input) {
  FILE *out = stream_begin();
  symbols_num = take_one_of(input, SYMBOLS_MAX + 1);
  for (size_t i = 0; i < symbols_num; i++) {
    symbols[i] = take_symbol(input);
    fprintf(out, "%016" PRIx64 " %c %s%s\n", symbols[i].address,
            symbols[i].type, symbols[i].name,
            take_bool(input) ? "\t[module]" : "");
    if (take_one_of(input, 8) == 0)
      fprintf(out, "-- %s\n", symbols[i].name);
  }
  return strdup(stream_end());
}

static bool is_function(const struct symbol *symbol) {
  return symbol->address != 0 && strchr("tTwW", symbol->type);
}

static const char *find(uint64_t address) {
  const struct symbol *best = NULL;
  for (size_t i = 0; i < symbols_num; i++)
    if (is_function(&symbols[i]) && symbols[i].address <= address &&
        (!best || symbols[i].address > best->address))
      best = &symbols[i];
  return best && address - best->address <= 0x10000 ? best->name : NULL;
}

static void check_symbols(struct input *input) {
  size_t functions = 0;
  for (size_t i = 0; i < symbols_num; i++)
    functions += is_function(&symbols[i]);
  MUST(kallsyms_num(known) == functions);
  for (size_t i = 0; i < 32; i++) {
    uint64_t address =
        i < symbols_num ? symbols[i].address - 1 : take_address(input);
    const char *got = kallsyms_find(known, address), *wanted = find(address);
    MUST((got == NULL) == (wanted == NULL));
    MUST(!got || strcmp(got, wanted) == 0);
  }
}

/* Any bytes in place of a file: what is named can be printed. */
static void check_garbage(struct input *input) {
  char *text = take_text(input, 512);
  struct kallsyms *syms = kallsyms_parse(text);
  for (uint64_t address = 0; address < 8; address++) {
    const char *name = kallsyms_find(syms, address << (8 * address));
    MUST(!name || (name[0] != '\0' && !strpbrk(name, " \t\n")));
  }
  kallsyms_free(syms);
}

/* Stacks */

static char *name_stack(void *context, int32_t id) {
  (void)context;
  return snoop_stacks_name(known, stacks[id], DEPTH);
}

static void add_stalls(struct input *input, struct snoop_stacks *sum) {
  static const char comms[][RECLAIM_COMM_SIZE] = {
      "dd", "cat", "a, b 7", "\"", "\x1b", "", "\\", "dd "};
  uint64_t left = INT64_MAX;
  for (size_t num = take_one_of(input, 48); num > 0; num--) {
    char comm[RECLAIM_COMM_SIZE];
    uint8_t form = take_byte(input);
    memcpy(comm, comms[form % 8], sizeof(comm));
    if (form & 8)
      take_bytes(input, comm, sizeof(comm));
    uint64_t ns = form & 16 ? RECLAIM_UNTIMED : take_number(input) % (left + 1);
    left -= ns == RECLAIM_UNTIMED ? 0 : ns;
    MUST(snoop_stacks_add(sum, (int32_t)take_one_of(input, STACKS), comm, ns) ==
         0);
  }
}

/* `COMM NUMBER, COMM NUMBER\n`: a comm is in quotes where it has a blank, a
 * comma or quotes; the last can be `and NUMBER more`. */
static void check_comms(const char *at, uint64_t stalls) {
  uint64_t sum = 0;
  for (;; at += 2) {
    char *end;
    if (strncmp(at, "and ", 4) == 0 && strtoull(at + 4, &end, 10) > 0 &&
        strncmp(end, " more\n", 6) == 0) {
      MUST(sum < stalls);
      return;
    }
    at += at[0] == '"' ? 2 + strcspn(at + 1, "\"\n") : strcspn(at, ", \"\n");
    MUST(at[0] == ' ' && at[1] >= '1' && at[1] <= '9');
    sum += strtoull(at + 1, &end, 10);
    at = end;
    if (*at == '\n')
      break;
    MUST(at[0] == ',' && at[1] == ' ');
  }
  MUST(sum == stalls);
}

/* "NUMBER MS in STALLS stalls: …", and lines with four blanks in front. */
static uint64_t read_text(const char *text) {
  uint64_t stalls = 0;
  double before_ms = INFINITY;
  for (const char *line = text; *line != '\0';) {
    size_t len = strcspn(line, "\n");
    MUST(line[len] == '\n');
    for (size_t i = 0; i < len; i++)
      MUST(line[i] >= ' ' && line[i] <= '~');
    double ms;
    uint64_t of_stack;
    if (len > 0 && line[0] != ' ') {
      MUST(sscanf(line, "%lf ms in %" SCNu64 " stall", &ms, &of_stack) == 2);
      MUST(ms <= before_ms);
      before_ms = ms;
      stalls += of_stack;
      check_comms(strchr(line, ':') + 2, of_stack);
    }
    line += len + 1;
  }
  return stalls;
}

static uint64_t read_objects(const char *text) {
  static const char member[] = ",\"stalls\":";
  uint64_t stalls = 0;
  for (const char *at = text; *at != '\0';) {
    uint64_t of_comms = 0, of_stack = 0;
    const char *line = at;
    MUST(json_line(&at));
    for (const char *next = line; (next = strstr(next, member)) && next < at;) {
      next += strlen(member);
      uint64_t number = strtoull(next, NULL, 10);
      if (of_stack == 0)
        of_stack = number;
      else
        of_comms += number;
    }
    MUST(of_comms == of_stack);
    stalls += of_stack;
  }
  return stalls;
}

static void check_stacks(struct input *input) {
  struct snoop_stacks sum = {0};
  for (size_t i = 0; i < STACKS; i++)
    for (size_t j = 0; j < DEPTH; j++)
      stacks[i][j] = take_address(input);
  add_stalls(input, &sum);
  uint64_t stalls = 0;
  for (size_t i = 0; i < sum.num; i++)
    stalls += sum.rows[i].stalls;
  struct snoop_format format = {.timestamps = false};
  MUST(snoop_stacks_print(stream_begin(), &format, 0, &sum, name_stack, NULL) ==
       0);
  MUST(read_text(stream_end()) == stalls);
  format.json = true;
  MUST(snoop_stacks_print(stream_begin(), &format, 0, &sum, name_stack, NULL) ==
       0);
  MUST(read_objects(stream_end()) == stalls);
  snoop_stacks_clear(&sum);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct input input = {data, size};
  if (take_one_of(&input, 4) == 0) {
    check_garbage(&input);
    return 0;
  }
  struct kallsyms *syms = kallsyms_parse(make_listing(&input));
  known = syms;
  check_symbols(&input);
  check_stacks(&input);
  kallsyms_free(syms);
  free(stream.text);
  stream.text = NULL;
  return 0;
}
