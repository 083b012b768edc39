/* SPDX-License-Identifier: MIT */
/* Whether text is JSON (RFC 8259): a reader that keeps nothing. */
#ifndef RECLAIM_FUZZ_JSON_H
#define RECLAIM_FUZZ_JSON_H

#include <stdbool.h>
#include <string.h>

static inline bool json_take(const char **at, const char *token) {
  size_t len = strlen(token);
  if (strncmp(*at, token, len) != 0)
    return false;
  *at += len;
  return true;
}

/* Also that it is ASCII, which JSON alone does not ask for. */
static inline bool json_string(const char **at) {
  if (!json_take(at, "\""))
    return false;
  for (; **at != '"'; ++*at) {
    if (**at < ' ' || **at > '~')
      return false;
    if (**at == '\\' && !strchr("\"\\/bfnrt", *++*at))
      return false;
    if (**at == '\0')
      return false;
  }
  ++*at;
  return true;
}

/* Whole numbers are all that is written. */
static inline bool json_number(const char **at) {
  size_t digits = strspn(*at, "0123456789");
  bool good = digits == 1 || (digits > 1 && **at != '0');
  *at += digits;
  return good;
}

static inline bool json_value(const char **at);

static inline bool json_members(const char **at, const char *end, bool named) {
  if (json_take(at, end))
    return true;
  do {
    if (named && !(json_string(at) && json_take(at, ":")))
      return false;
    if (!json_value(at))
      return false;
  } while (json_take(at, ","));
  return json_take(at, end);
}

static inline bool json_value(const char **at) {
  if (json_take(at, "{"))
    return json_members(at, "}", true);
  if (json_take(at, "["))
    return json_members(at, "]", false);
  if (**at == '"')
    return json_string(at);
  return json_take(at, "null") || json_take(at, "true") ||
         json_take(at, "false") || json_number(at);
}

/* One object with a newline behind it; moves behind that. */
static inline bool json_line(const char **at) {
  return **at == '{' && json_value(at) && json_take(at, "\n");
}

#endif
