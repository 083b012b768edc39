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

#define TEXT_SIZE 32768

static const char *next_line(const char *line) {
  line = strchrnul(line, '\n');
  return *line == '\n' ? line + 1 : line;
}

/* Adds the value of a line `key value`, of which `rest` is what follows on the
 * key. */
static void add_value(const char *rest, bool *has, uint64_t *sum) {
  if (*rest != ' ')
    return;
  char *end;
  uint64_t value = strtoull(rest, &end, 10);
  if (end == rest)
    return;
  *has = true;
  *sum += value;
}

/* What follows on `key` at the begin of a line; NULL: another key. */
static const char *behind(const char *line, const char *key) {
  return strncmp(line, key, strlen(key)) == 0 ? line + strlen(key) : NULL;
}

/* There are some 200 lines, of which few are wanted. */
void host_parse_vmstat(const char *text, struct host_account *account) {
  for (const char *line = text; *line != '\0'; line = next_line(line)) {
    const char *rest;
    if ((rest = behind(line, "allocstall"))) {
      if (*rest == '_') /* one for each zone; older kernels have one for all */
        rest += strcspn(rest, " \n");
      add_value(rest, &account->has_allocstall, &account->allocstall);
    } else if ((rest = behind(line, "compact_stall"))) {
      add_value(rest, &account->has_compact_stall, &account->compact_stall);
    } else if ((rest = behind(line, "oom_kill"))) {
      add_value(rest, &account->has_oom_kill, &account->oom_kill);
    }
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

static int open_text(const char *proc, const char *name) {
  char path[PATH_MAX];
  snprintf(path, sizeof(path), "%s/%s", proc, name);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  return fd < 0 ? -errno : fd;
}

void host_close(struct host *host) {
  if (host->vmstat >= 0)
    close(host->vmstat);
  if (host->pressure >= 0)
    close(host->pressure);
  host->vmstat = host->pressure = -EBADF;
}

void host_open(struct host *host, const char *proc) {
  host_close(host);
  if (!proc)
    proc = "/proc";
  host->vmstat = open_text(proc, "vmstat");
  host->pressure = open_text(proc, "pressure/memory");
}

/* Reads a whole file, and ends it by a NUL. */
static int read_text(int fd, char text[TEXT_SIZE]) {
  if (fd < 0)
    return fd;
  size_t used = 0;
  ssize_t got;
  while ((got = pread(fd, text + used, TEXT_SIZE - used, (off_t)used)) > 0)
    used += (size_t)got;
  if (got < 0)
    return -errno;
  if (used == TEXT_SIZE)
    return -EFBIG;
  text[used] = '\0';
  return 0;
}

int host_read(const struct host *host, struct host_account *account) {
  char text[TEXT_SIZE];
  *account = (struct host_account){.has_allocstall = false};
  int err = read_text(host->vmstat, text);
  if (err != 0)
    return err;
  host_parse_vmstat(text, account);
  if (read_text(host->pressure, text) == 0)
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
