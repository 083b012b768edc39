/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gfp.h"

#define FORMAT "events/vmscan/mm_vmscan_direct_reclaim_begin/format"

/* Expressions of C, as far as the kernel writes gfp flags with them: numbers,
 * casts, parentheses, ~ << & |. */

struct cursor {
  const char *at;
  bool bad;
};

static uint64_t parse_or(struct cursor *cursor);

static char peek(struct cursor *cursor) {
  while (*cursor->at == ' ')
    cursor->at++;
  return *cursor->at;
}

static bool take(struct cursor *cursor, const char *token) {
  peek(cursor);
  size_t len = strlen(token);
  if (strncmp(cursor->at, token, len) != 0)
    return false;
  cursor->at += len;
  return true;
}

static void expect(struct cursor *cursor, const char *token) {
  if (!take(cursor, token))
    cursor->bad = true;
}

static bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static uint64_t parse_number(struct cursor *cursor) {
  char *end;
  uint64_t number = strtoull(cursor->at, &end, 0);
  if (end == cursor->at)
    cursor->bad = true;
  cursor->at = end + strspn(end, "uUlL");
  return number;
}

static uint64_t parse_unary(struct cursor *cursor) {
  if (take(cursor, "~"))
    return ~parse_unary(cursor);
  if (!take(cursor, "("))
    return parse_number(cursor);
  if (is_letter(peek(cursor))) { /* a cast; masks are cut to 32 bits anyway */
    cursor->at += strcspn(cursor->at, ")");
    expect(cursor, ")");
    return parse_unary(cursor);
  }
  uint64_t value = parse_or(cursor);
  expect(cursor, ")");
  return value;
}

static uint64_t parse_shift(struct cursor *cursor) {
  uint64_t value = parse_unary(cursor);
  while (!cursor->bad && take(cursor, "<<"))
    value <<= parse_unary(cursor) & 63;
  return value;
}

static uint64_t parse_and(struct cursor *cursor) {
  uint64_t value = parse_shift(cursor);
  while (!cursor->bad && take(cursor, "&"))
    value &= parse_shift(cursor);
  return value;
}

static uint64_t parse_or(struct cursor *cursor) {
  uint64_t value = parse_and(cursor);
  while (!cursor->bad && take(cursor, "|"))
    value |= parse_and(cursor);
  return value;
}

/* One `{ mask, "NAME" }`; false at a list's end, `{ 0, ((void *)0) }`, and
 * where it is bad. */
static bool parse_pair(struct cursor *cursor, struct gfp_name *pair) {
  expect(cursor, "{");
  pair->mask = (uint32_t)parse_or(cursor);
  expect(cursor, ",");
  if (cursor->bad || !take(cursor, "\""))
    return false;
  size_t len = strcspn(cursor->at, "\"");
  if (len == 0 || len >= sizeof(pair->name)) {
    cursor->bad = true;
    return false;
  }
  memcpy(pair->name, cursor->at, len);
  pair->name[len] = '\0';
  cursor->at += len;
  expect(cursor, "\"");
  expect(cursor, "}");
  return !cursor->bad;
}

int gfp_names_parse(struct gfp_names *names, const char *format) {
  *names = (struct gfp_names){0};
  const char *list = strstr(format, "__print_flags(REC->gfp_flags");
  struct cursor cursor = {list ? strstr(list, "\"|\"") : NULL, false};
  if (!cursor.at)
    return -EINVAL;
  expect(&cursor, "\"|\"");
  while (names->num < GFP_NAMES && take(&cursor, ",") &&
         parse_pair(&cursor, &names->names[names->num]))
    names->num++;
  if (!cursor.bad && names->num > 0)
    return 0;
  names->num = 0;
  return -EINVAL;
}

int gfp_names_read(struct gfp_names *names) {
  static const char *const paths[] = {"/sys/kernel/tracing/" FORMAT,
                                      "/sys/kernel/debug/tracing/" FORMAT};
  *names = (struct gfp_names){0};
  FILE *file = fopen(paths[0], "re");
  int first = errno;
  if (!file)
    file = fopen(paths[1], "re");
  if (!file) /* what is in the way of the usual place, if it is there */
    return first != ENOENT ? -first : -errno;
  char *format = NULL;
  size_t size = 0;
  ssize_t len = getdelim(&format, &size, '\0', file); /* all: it is text */
  int err = len > 0 ? gfp_names_parse(names, format) : -EIO;
  free(format);
  fclose(file);
  return err;
}

void gfp_names_print(const struct gfp_names *names, uint32_t flags, char *text,
                     size_t size) {
  snprintf(text, size, "%s", flags == 0 ? "none" : "");
  size_t used = 0;
  for (size_t i = 0; i < names->num && used < size; i++) {
    const struct gfp_name *pair = &names->names[i];
    if (pair->mask == 0 || (flags & pair->mask) != pair->mask)
      continue;
    used += (size_t)snprintf(text + used, size - used, "%s%s",
                             used > 0 ? "|" : "", pair->name);
    flags &= ~pair->mask;
  }
  if (flags != 0 && used < size)
    snprintf(text + used, size - used, "%s0x%x", used > 0 ? "|" : "", flags);
}
