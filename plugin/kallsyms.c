/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kallsyms.h"

/* No function is longer: what lies further behind one is something that is not
 * listed, as BPF programs are not under net.core.bpf_jit_harden. */
#define FUNCTION_BYTES_MAX (64 << 10)

struct kallsyms {
  char *text; /* into which the names point */
  size_t num;
  struct symbol {
    uint64_t address;
    const char *name;
  } symbols[];
};

/* The order of a file is that of its names in the text. */
static int compare(const void *left, const void *right) {
  const struct symbol *a = left, *b = right;
  if (a->address != b->address)
    return a->address < b->address ? -1 : 1;
  return (a->name > b->name) - (a->name < b->name);
}

/* Ends the name by NUL. False: not a function, or not such a line. */
static bool parse_line(char *line, struct symbol *symbol) {
  char *end;
  symbol->address = strtoull(line, &end, 16);
  if (symbol->address == 0 || end[0] != ' ' || end[1] == '\0' ||
      strchr("tTwW", end[1]) == NULL || end[2] != ' ')
    return false;
  char *name = end + 3;
  name[strcspn(name, " \t")] = '\0';
  symbol->name = name;
  return name[0] != '\0';
}

static size_t count_lines(const char *text) {
  size_t lines = 1;
  for (; (text = strchr(text, '\n')); text++)
    lines++;
  return lines;
}

struct kallsyms *kallsyms_parse(char *text) {
  struct kallsyms *syms =
      malloc(sizeof(*syms) + count_lines(text) * sizeof(*syms->symbols));
  if (!syms) {
    free(text);
    return NULL;
  }
  *syms = (struct kallsyms){.text = text};
  for (char *line = text, *next; line; line = next) {
    next = strchr(line, '\n');
    if (next)
      *next++ = '\0';
    if (parse_line(line, &syms->symbols[syms->num]))
      syms->num++;
  }
  qsort(syms->symbols, syms->num, sizeof(*syms->symbols), compare);
  return syms;
}

int kallsyms_read(struct kallsyms **syms) {
  *syms = NULL;
  FILE *file = fopen("/proc/kallsyms", "re");
  if (!file)
    return -errno;
  char *text = NULL;
  size_t size = 0;
  ssize_t len = getdelim(&text, &size, '\0', file); /* all: it is text */
  int err = len >= 0 ? 0 : ferror(file) ? -errno : -ENODATA;
  fclose(file);
  if (err != 0) {
    free(text);
    return err;
  }
  *syms = kallsyms_parse(text);
  return *syms ? 0 : -ENOMEM;
}

size_t kallsyms_num(const struct kallsyms *syms) { return syms->num; }

const char *kallsyms_find(const struct kallsyms *syms, uint64_t address) {
  size_t low = 0, high = syms ? syms->num : 0; /* it is before `high` */
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (syms->symbols[middle].address <= address)
      low = middle + 1;
    else
      high = middle;
  }
  if (low == 0)
    return NULL;
  size_t found = low - 1;
  if (address - syms->symbols[found].address > FUNCTION_BYTES_MAX)
    return NULL;
  while (found > 0 &&
         syms->symbols[found - 1].address == syms->symbols[found].address)
    found--;
  return syms->symbols[found].name;
}

void kallsyms_free(struct kallsyms *syms) {
  if (!syms)
    return;
  free(syms->text);
  free(syms);
}
