/* SPDX-License-Identifier: MIT */
/* The kernel's functions by address. */
#ifndef RECLAIM_KALLSYMS_H
#define RECLAIM_KALLSYMS_H

#include <stddef.h>
#include <stdint.h>

struct kallsyms;

/* Reads lines of /proc/kallsyms: `ADDRESS TYPE NAME`, and a module behind a
 * tab. Keeps functions; addresses of zero, as the kernel shows them to whom it
 * does not trust, are none. Takes `text`, from malloc and ended by NUL, and
 * frees it with the result. Returns NULL without memory. */
struct kallsyms *kallsyms_parse(char *text);

/* The running kernel's. Returns 0, or a negative errno. */
int kallsyms_read(struct kallsyms **syms);

/* How many functions are known; 0 where the kernel hides addresses. */
size_t kallsyms_num(const struct kallsyms *syms);

/* The function that begins at or last before `address`, at most 64 KiB before
 * it; of several the one that is listed first; NULL if there is none. The
 * string lives as long as `syms`, which may be NULL. */
const char *kallsyms_find(const struct kallsyms *syms, uint64_t address);

void kallsyms_free(struct kallsyms *syms);

#endif
