/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <string.h>

#include "comm.h"

/* Not ctype.h: a name must not depend on the daemon's locale. */
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static bool is_plain(char c) {
  return is_digit(c) || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
         c == '_' || c == '-';
}

static char plain(char c) { return is_plain(c) ? c : '_'; }

void comm_clean(const char *raw, size_t len, char name[COMM_NAME_SIZE]) {
  while (len > 0 && plain(raw[len - 1]) == '_')
    len--;
  size_t at = len < COMM_NAME_SIZE ? 0 : len - (COMM_NAME_SIZE - 1);
  while (at < len && plain(raw[at]) == '_')
    at++;

  size_t used = 0;
  while (at < len)
    name[used++] = plain(raw[at++]);
  name[used] = '\0';
  if (used == 0)
    strcpy(name, "unknown");
}

static bool is_one_of(char c, const char *set) {
  return c != '\0' && strchr(set, c) != NULL;
}

static size_t fold_kthread(const char *comm, size_t len) {
  for (size_t i = 0; i < len; i++)
    if (is_digit(comm[i]) || is_one_of(comm[i], "/:"))
      return i;
  return len;
}

static size_t fold_user_task(const char *comm, size_t len) {
  size_t digits = len;
  while (digits > 0 && is_digit(comm[digits - 1]))
    digits--;
  bool numbered = digits < len && digits > 0;
  return numbered && is_one_of(comm[digits - 1], "-_#:/. ") ? digits - 1 : len;
}

void comm_name(const char comm[RECLAIM_COMM_SIZE], bool kthread, bool fold,
               char name[COMM_NAME_SIZE]) {
  size_t len = strnlen(comm, RECLAIM_COMM_SIZE);
  if (fold)
    len = kthread ? fold_kthread(comm, len) : fold_user_task(comm, len);
  comm_clean(comm, len, name);
}

void comm_escape(const char *bytes, size_t max, char *text, size_t size) {
  size_t used = 0;
  for (size_t i = 0; i < max && bytes[i] != '\0'; i++) {
    bool printable = bytes[i] >= ' ' && bytes[i] <= '~' && bytes[i] != '\\';
    size_t needed = printable ? 1 : 4;
    if (used + needed >= size)
      break;
    if (printable)
      text[used] = bytes[i];
    else
      snprintf(text + used, size - used, "\\x%02x", (unsigned char)bytes[i]);
    used += needed;
  }
  text[used] = '\0';
}
