/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host.h"

#define TEXT_SIZE (32 * 1024)

static const char *next_line(const char *line) {
  line = strchrnul(line, '\n');
  return *line == '\n' ? line + 1 : line;
}

static bool is_key(const char *line, size_t len, const char *key) {
  return len == strlen(key) && memcmp(line, key, len) == 0;
}

/* One counter for each zone; older kernels have one for all. */
static bool is_allocstall(const char *line, size_t len) {
  static const char prefix[] = "allocstall_";
  return is_key(line, len, "allocstall") ||
         (len >= strlen(prefix) && memcmp(line, prefix, strlen(prefix)) == 0);
}

static void take_value(const char *text, bool *has, uint64_t *sum) {
  char *end;
  uint64_t value = strtoull(text, &end, 10);
  if (end == text)
    return;
  *has = true;
  *sum += value;
}

/* There are some 200 lines, of which few are wanted. */
void host_parse_vmstat(const char *text, struct host_account *account) {
  for (const char *line = text; *line != '\0'; line = next_line(line)) {
    size_t len = strcspn(line, " \n");
    const char *value = line + len;
    if (*value != ' ')
      continue;
    if (is_allocstall(line, len))
      take_value(value, &account->has_allocstall, &account->allocstall);
    else if (is_key(line, len, "compact_stall"))
      take_value(value, &account->has_compact_stall, &account->compact_stall);
    else if (is_key(line, len, "oom_kill"))
      take_value(value, &account->has_oom_kill, &account->oom_kill);
  }
}

void host_parse_pressure(const char *text, struct host_account *account) {
  for (const char *line = text; *line != '\0'; line = next_line(line)) {
    char share[8];
    uint64_t total_us;
    if (sscanf(line, "%7s avg10=%*s avg60=%*s avg300=%*s total=%" SCNu64, share,
               &total_us) != 2)
      continue;
    if (strcmp(share, "some") == 0) {
      account->has_psi_some = true;
      account->psi_some_us = total_us;
    } else if (strcmp(share, "full") == 0) {
      account->has_psi_full = true;
      account->psi_full_us = total_us;
    }
  }
}

/* Reads a whole file, and ends it by a NUL. */
static int read_text(const char *proc, const char *name, char text[TEXT_SIZE]) {
  char path[PATH_MAX];
  snprintf(path, sizeof(path), "%s/%s", proc, name);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return -errno;

  int err = 0;
  size_t used = 0;
  ssize_t got;
  while ((got = read(fd, text + used, TEXT_SIZE - used)) > 0)
    used += (size_t)got;
  if (got < 0)
    err = -errno;
  else if (used == TEXT_SIZE)
    err = -EFBIG;
  else
    text[used] = '\0';
  close(fd);
  return err;
}

int host_read(const char *proc, struct host_account *account) {
  char text[TEXT_SIZE];
  if (!proc)
    proc = "/proc";
  *account = (struct host_account){.has_allocstall = false};
  int err = read_text(proc, "vmstat", text);
  if (err != 0)
    return err;
  host_parse_vmstat(text, account);
  if (read_text(proc, "pressure/memory", text) == 0)
    host_parse_pressure(text, account);
  return 0;
}

double host_coverage(uint64_t ended, uint64_t under_way,
                     uint64_t allocstall_begin, uint64_t allocstall) {
  if (allocstall <= allocstall_begin)
    return 1;
  return ((double)ended + (double)under_way) /
         (double)(allocstall - allocstall_begin);
}
