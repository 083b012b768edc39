/* SPDX-License-Identifier: MIT */
#include "plugin/gfp.h"
#include "tests/unit/tap.h"

/* As kernels write it: with casts of numbers up to 6.1, with shifts later, and
 * with an end of the list in 7.2. */
#define BEFORE                                                                 \
  "print fmt: \"order=%d gfp_flags=%s\", REC->order, (REC->gfp_flags) ? "      \
  "__print_flags(REC->gfp_flags, \"|\", "
#define AFTER ") : \"none\"\n"

static const char old[] =
    BEFORE "{( unsigned long)((((( gfp_t)(0x400u|0x800u)) | (( gfp_t)0x40u) | "
           "(( gfp_t)0x80u)) | (( gfp_t)0x02u))), \"GFP_HIGHUSER\"}, "
           "{( unsigned long)((( gfp_t)(0x400u|0x800u)) | (( gfp_t)0x40u)), "
           "\"GFP_NOFS\"}, {( unsigned long)(( gfp_t)0x800u), "
           "\"__GFP_KSWAPD_RECLAIM\"}, {( unsigned long)(( gfp_t)0), "
           "\"__GFP_NOTHING\"}, {( unsigned long)(( gfp_t)64u), "
           "\"__GFP_IO\"}" AFTER;
static const char new[] =
    BEFORE "{( unsigned long)((( gfp_t)(((((1UL))) << (10))|((((1UL))) << "
           "(11)))) & ~(( gfp_t)((((1UL))) << (10)))), \"GFP_LESS\"}, "
           "{( unsigned long)(( gfp_t)((((1UL))) << (10))), \"__GFP_DIRECT\"}, "
           "{ 0, ((void *)0) }" AFTER;

struct print_case {
  const char *behaviour;
  const char *format;
  uint32_t flags;
  const char *text;
};

static const struct print_case cases[] = {
    {"a combination is printed by its name", old, 0xcc2, "GFP_HIGHUSER"},
    {"the first that fits wins, and leaves the rest", old, 0xc40, "GFP_NOFS"},
    {"single flags follow", old, 0x840, "__GFP_KSWAPD_RECLAIM|__GFP_IO"},
    {"what has no name is a number", old, 0x1840,
     "__GFP_KSWAPD_RECLAIM|__GFP_IO|0x1000"},
    {"nothing but a number", old, 0x80000000, "0x80000000"},
    {"no flag at all", old, 0, "none"},
    {"shifts and complements", new, 0x800, "GFP_LESS"},
    {"and what is left of them", new, 0xc00, "GFP_LESS|__GFP_DIRECT"},
};

static const char *const bad_formats[] = {
    "",
    "print fmt: \"order=%d\", REC->order",
    BEFORE,
    BEFORE "{0x1, \"A\"",
    BEFORE "{0x1, \"A\"}, {0x2 + 0x4, \"B\"}" AFTER,
    BEFORE "{(1, \"A\"}" AFTER,
    BEFORE "{(1 << , \"A\"}" AFTER,
    BEFORE "{((gfp_t 1, \"A\"}" AFTER,
    BEFORE "{1, \"\"}" AFTER,
    BEFORE "{1, \"A_NAME_OF_MORE_THAN_THIRTY_TWO_BYTES\"}" AFTER,
    BEFORE "{GFP_KERNEL, \"A\"}" AFTER,
};

static void test_running_kernel(void) {
  struct gfp_names names;
  if (gfp_names_read(&names) != 0) {
    is_u64(names.num, 0, "where tracefs cannot be read there are no names");
    return;
  }
  char text[256], name[32];
  gfp_names_print(&names, ~0U, text, sizeof(text));
  ok(names.num > 20, "the running kernel has names");
  bool alone = true;
  for (size_t i = 0; i < names.num; i++) {
    gfp_names_print(&names, names.names[i].mask, name, sizeof(name));
    if (names.names[i].mask != 0 && strstr(name, "GFP_") == NULL)
      alone = false;
  }
  ok(alone, "each is printed by a name");
}

int main(void) {
  struct gfp_names names;
  char text[256];
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    ok(gfp_names_parse(&names, cases[i].format) == 0, "understood");
    gfp_names_print(&names, cases[i].flags, text, sizeof(text));
    is_str(text, cases[i].text, cases[i].behaviour);
  }
  for (size_t i = 0; i < sizeof(bad_formats) / sizeof(*bad_formats); i++) {
    bool refused = gfp_names_parse(&names, bad_formats[i]) < 0;
    gfp_names_print(&names, 0xcc0, text, sizeof(text));
    ok(refused && strcmp(text, "0xcc0") == 0,
       "a format that is not understood leaves numbers");
  }
  gfp_names_parse(&names, old);
  char small[8];
  gfp_names_print(&names, 0x1840, small, sizeof(small));
  is_str(small, "__GFP_K", "text is cut at its size");
  test_running_kernel();
  return done();
}
