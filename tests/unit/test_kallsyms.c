/* SPDX-License-Identifier: MIT */
#include "plugin/kallsyms.h"
#include "tests/unit/tap.h"

/* Not in the order of addresses, as modules and BPF programs are not. */
static const char listing[] = "ffffffff81000000 T _stext\n"
                              "ffffffff81000000 T _text\n"
                              "ffffffff81000100 t do_try_to_free_pages\n"
                              "ffffffff81000200 D a_variable\n"
                              "ffffffff81000300 W weak_one\n"
                              "ffffffffc0000000 t xfs_read\t[xfs]\n"
                              "ffffffffa0000000 t bpf_prog_1234_x\t[bpf]\n"
                              "0000000000000000 T hidden\n"
                              "0000000000001000 A per_cpu\n"
                              "not an address\n"
                              "ffffffff81000400\n"
                              "ffffffff81000400 t\n"
                              "ffffffff81000400 t \n"
                              "\n"
                              "ffffffff81000500 w last_line";

static const struct {
  const char *behaviour;
  uint64_t address;
  const char *name; /* NULL: none */
} cases[] = {
    {"a function's own address", 0xffffffff81000100, "do_try_to_free_pages"},
    {"an address inside of it", 0xffffffff810001ff, "do_try_to_free_pages"},
    {"a variable is no function", 0xffffffff81000210, "do_try_to_free_pages"},
    {"the last byte before the next", 0xffffffff810002ff,
     "do_try_to_free_pages"},
    {"of two at one address the first", 0xffffffff81000000, "_stext"},
    {"and inside of them", 0xffffffff81000080, "_stext"},
    {"a weak function is one", 0xffffffff81000310, "weak_one"},
    {"lines without a name are none", 0xffffffff81000410, "weak_one"},
    {"a last line without a line end", 0xffffffff81000500, "last_line"},
    {"a module's name is not part of it", 0xffffffffc0000010, "xfs_read"},
    {"what is listed late is found too", 0xffffffffa0000010, "bpf_prog_1234_x"},
    {"before the first there is none", 0xffffffff80ffffff, NULL},
    {"zeros and absolute symbols are none", 0x1800, NULL},
    {"64 KiB behind a function is still in it", 0xffffffffc0010000, "xfs_read"},
    {"further behind is nothing that is listed", 0xffffffffc0010001, NULL},
    {"the greatest address", UINT64_MAX, NULL},
};

static const char *or_none(const char *name) { return name ? name : "none"; }

static void test_running_kernel(void) {
  struct kallsyms *syms;
  int err = kallsyms_read(&syms);
  if (err != 0) {
    ok(syms == NULL, "where there is no /proc/kallsyms there are no symbols");
    return;
  }
  printf("# this kernel shows %zu functions\n", kallsyms_num(syms));
  ok(kallsyms_num(syms) == 0 || kallsyms_num(syms) > 1000,
     "the running kernel shows its functions, or none");
  kallsyms_free(syms);
}

int main(void) {
  struct kallsyms *syms = kallsyms_parse(strdup(listing));
  is_u64(kallsyms_num(syms), 7, "functions with an address are kept");
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
    is_str(or_none(kallsyms_find(syms, cases[i].address)),
           or_none(cases[i].name), cases[i].behaviour);
  kallsyms_free(syms);

  syms = kallsyms_parse(strdup("0000000000000000 T a\n"));
  ok(kallsyms_num(syms) == 0 && kallsyms_find(syms, UINT64_MAX) == NULL,
     "where all addresses are hidden nothing is found");
  kallsyms_free(syms);
  syms = kallsyms_parse(strdup(""));
  is_u64(kallsyms_num(syms), 0, "nothing has no functions");
  kallsyms_free(syms);
  ok(kallsyms_find(NULL, 1) == NULL, "nor has no listing at all");
  test_running_kernel();
  return done();
}
