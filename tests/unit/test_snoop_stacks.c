/* SPDX-License-Identifier: MIT */
#include "plugin/snoop_stacks.h"
#include "tests/unit/stream.h"
#include "tests/unit/tap.h"

#define MS 1000000ULL

static const char listing[] = "ffffffff81000100 t inner\n"
                              "ffffffff81000200 t outer\n"
                              "ffffffff81000300 t bpf_trace_run1\n"
                              "ffffffff81000400 t __traceiter_mm_x\n"
                              "ffffffff81000500 t __bpf_trace_mm_x\n"
                              "ffffffff81000600 t __probestub_mm_x\n"
                              "ffffffff81000700 t ___bpf_prog_run\n"
                              "ffffffff81000800 t __bpf_prog_run32\n"
                              "ffffffff81000900 t bpf_prog_alloc\n"
                              "ffffffffa0000000 t "
                              "bpf_prog_0123456789abcdef_memcg_end\t[bpf]";
static struct kallsyms *syms;

struct addresses {
  uint64_t at[20];
};

static const struct {
  const char *behaviour;
  struct addresses stack;
  size_t depth;
  const char *names;
} names[] = {
    {"functions without offsets",
     {{0xffffffff81000110, 0xffffffff81000220}},
     2,
     "inner\nouter\n"},
    {"leading machinery goes",
     {{0xffffffffa0000010, 0xffffffff81000310, 0xffffffff81000510,
       0xffffffff81000610, 0xffffffff81000410, 0xffffffff81000110}},
     6,
     "inner\n"},
    {"so does a program that the kernel does not name",
     {{0xffffffffb0000010, 0xffffffff81000310, 0xffffffff81000410,
       0xffffffff81000110}},
     4,
     "inner\n"},
    {"or that is taken for what lies before it",
     {{0xffffffff81000120, 0xffffffff81000310, 0xffffffff81000410,
       0xffffffff81000110}},
     4,
     "inner\n"},
    {"so does the interpreter",
     {{0xffffffff81000710, 0xffffffff81000810, 0xffffffff81000310,
       0xffffffff81000110}},
     4,
     "inner\n"},
    {"but not a function of the kernel's that has to do with BPF",
     {{0xffffffff81000310, 0xffffffff81000110, 0xffffffff81000910}},
     3,
     "inner\nbpf_prog_alloc\n"},
    {"nor what a stack has deeper down",
     {{0xffffffff81000110, 0xffffffff81000110, 0xffffffff81000110,
       0xffffffff81000110, 0xffffffff81000110, 0xffffffff81000110,
       0xffffffff81000110, 0xffffffff81000110, 0xffffffff81000110,
       0xffffffff81000110, 0xffffffff81000110, 0xffffffff81000110,
       0xffffffff81000110, 0xffffffff81000110, 0xffffffff81000110,
       0xffffffff81000110, 0xffffffff81000310}},
     17,
     "inner\ninner\ninner\ninner\ninner\ninner\ninner\ninner\n"
     "inner\ninner\ninner\ninner\ninner\ninner\ninner\ninner\n"
     "bpf_trace_run1\n"},
    {"an address without a name stays one",
     {{0xffffffff80000110, 0xffffffff81000110}},
     2,
     "0xffffffff80000110\ninner\n"},
    {"no frames, no names", {{0}}, 0, ""},
};

static void test_names(void) {
  for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
    char *got = snoop_stacks_name(syms, names[i].stack.at, names[i].depth);
    is_str(got, names[i].names, names[i].behaviour);
    free(got);
  }
  char *got = snoop_stacks_name(NULL, (uint64_t[]){0xffffffffa0000010}, 1);
  is_str(got, "0xffffffffa0000010\n", "without symbols all are addresses");
  free(got);
}

/* Stacks 1 and 2 are one by their names; from 100 each is its own. */
static char *name_by_id(void *context, int32_t id) {
  (void)context;
  char text[64];
  snprintf(text, sizeof(text), "outer_%d\n", id);
  return strdup(id <= 2 ? "inner\nouter\n" : text);
}

static char *no_memory(void *context, int32_t id) {
  return id < 2 ? name_by_id(context, id) : NULL;
}

static const char *report(const struct snoop_stacks *stacks, bool json) {
  const struct snoop_format format = {.json = json};
  snoop_stacks_print(stream_begin(), &format, 1500000, stacks, name_by_id,
                     NULL);
  return stream_end();
}

static void add(struct snoop_stacks *stacks, int32_t id, const char *name,
                uint64_t stall_ns) {
  char comm[RECLAIM_COMM_SIZE] = "";
  strcpy(comm, name);
  snoop_stacks_add(stacks, id, comm, stall_ns);
}

static void test_report(void) {
  struct snoop_stacks stacks = {0};
  is_str(report(&stacks, false), "", "nothing has no stacks");
  add(&stacks, 2, "dd", 5 * MS);
  add(&stacks, 1, "cat", 1 * MS);
  add(&stacks, 100, "a\x1b\"", 7 * MS);
  add(&stacks, 1, "dd", 2 * MS);
  add(&stacks, 2, "dd", RECLAIM_UNTIMED);
  is_str(report(&stacks, false),
         "8.0 ms in 4 stalls: dd 3, cat 1\n    inner\n    outer\n\n"
         "7.0 ms in 1 stall: \"a\\x1b\\x22\" 1\n    outer_100\n\n",
         "stacks of equal functions are one, most time first");
  is_str(report(&stacks, true),
         "{\"time\":\"1970-01-01T00:00:00.001500Z\",\"stalls\":4,\"time_ns\":"
         "8000000,\"comms\":["
         "{\"comm\":\"dd\",\"stalls\":3,\"time_ns\":7000000},"
         "{\"comm\":\"cat\",\"stalls\":1,\"time_ns\":1000000}],"
         "\"frames\":[\"inner\",\"outer\"]}\n"
         "{\"time\":\"1970-01-01T00:00:00.001500Z\",\"stalls\":1,\"time_ns\":"
         "7000000,\"comms\":["
         "{\"comm\":\"a\\\\x1b\\\"\",\"stalls\":1,\"time_ns\":7000000}],"
         "\"frames\":[\"outer_100\"]}\n",
         "so they are as objects");
  struct snoop_format format = {.timestamps = true};
  ok(snoop_stacks_print(stream_begin(), &format, 0, &stacks, no_memory, NULL) <
         0,
     "without memory there is no report");
  is_str(stream_end(), "", "not even half of it");
  snoop_stacks_print(stream_begin(), &format, 1500000, &stacks, name_by_id,
                     NULL);
  ok(strncmp(stream_end(), "00:00:00.001\n8.0 ms in ", 23) == 0,
     "with timestamps the time stands above them");
  snoop_stacks_clear(&stacks);
  is_str(report(&stacks, false), "", "what is cleared is gone");
}

static const struct {
  const char *behaviour;
  const char *comm;
  const char *text;
} comms[] = {
    {"a usual comm is as it is", "kworker/0:1-x", "kworker/0:1-x"},
    {"an empty comm is a pair of quotes", "", "\"\""},
    {"a comma cannot make two of one", "dd,cat", "\"dd,cat\""},
    {"a blank cannot forge a number", "dd 7", "\"dd 7\""},
    {"quotes cannot end quotes", "a\", \"b", "\"a\\x22, \\x22b\""},
    {"nor begin them", "\"\"", "\"\\x22\\x22\""},
};

static void test_comms(void) {
  for (size_t i = 0; i < sizeof(comms) / sizeof(*comms); i++) {
    struct snoop_stacks stacks = {0};
    add(&stacks, 100, comms[i].comm, MS);
    char line[128];
    snprintf(line, sizeof(line), "1.0 ms in 1 stall: %s 1\n    outer_100\n\n",
             comms[i].text);
    is_str(report(&stacks, false), line, comms[i].behaviour);
    snoop_stacks_clear(&stacks);
  }
}

static void test_top(void) {
  struct snoop_stacks stacks = {0};
  for (int i = 0; i < 20; i++)
    add(&stacks, 100 + i, "x", (uint64_t)(i + 1) * MS);
  const char *text = report(&stacks, false);
  ok(strstr(text, "outer_119") && strstr(text, "outer_110") &&
         !strstr(text, "outer_109"),
     "the ten with the most time are printed");
  snoop_stacks_clear(&stacks);

  for (int i = 0; i < 10; i++) {
    char comm[] = {'c', (char)('0' + i), '\0'};
    add(&stacks, 1, comm, MS);
  }
  is_str(report(&stacks, false),
         "10.0 ms in 10 stalls: c0 1, c1 1, c2 1, c3 1, c4 1, c5 1, c6 1, c7 "
         "1, and 2 more\n    inner\n    outer\n\n",
         "and of each stack eight comms");
  snoop_stacks_clear(&stacks);
}

static void test_bound(void) {
  struct snoop_stacks stacks = {0};
  add(&stacks, 1, "", MS);
  add(&stacks, 1, "", MS);
  for (int i = 0; i < SNOOP_STACKS_ROWS_MAX + 9; i++) {
    char comm[16];
    snprintf(comm, sizeof(comm), "w%06d", i);
    add(&stacks, 1, comm, MS);
  }
  is_u64(stacks.num, SNOOP_STACKS_ROWS_MAX + 1, "rows are bounded");
  ok(strstr(report(&stacks, false),
            "65547 stalls: (others) 10, \"\" 2, w000000 1,") != NULL,
     "later comms are the others, which an empty one is not, and no stall is "
     "lost");
  ok(strstr(report(&stacks, true), "[{\"comm\":null,\"stalls\":10,") != NULL,
     "as objects the others have no name that a task could have");
  snoop_stacks_clear(&stacks);
}

int main(void) {
  setenv("TZ", "UTC", 1);
  syms = kallsyms_parse(strdup(listing));
  test_names();
  test_report();
  test_comms();
  test_top();
  test_bound();
  kallsyms_free(syms);
  free(stream.text);
  return done();
}
