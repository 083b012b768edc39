/* SPDX-License-Identifier: MIT */
/* Names of gfp_flags. Their bits moved over the years, so that only the running
 * kernel can name them: it does in the print format of its tracepoints. */
#ifndef RECLAIM_GFP_H
#define RECLAIM_GFP_H

#include <stddef.h>
#include <stdint.h>

#define GFP_NAMES 64 /* 38 on Linux 7.2 */

/* Without names (num 0), all flags are printed as a number. */
struct gfp_names {
  size_t num;
  struct gfp_name {
    uint32_t mask;
    char name[32];
  } names[GFP_NAMES]; /* combined ones first, as the kernel has them */
};

/* Takes the names out of the `format` file of a tracepoint with gfp_flags
 * (include/trace/events/mmflags.h: show_gfp_flags). Returns 0, or -EINVAL and
 * no names where it does not understand every one of them. */
int gfp_names_parse(struct gfp_names *names, const char *format);

/* Reads the running kernel's names from tracefs. Returns 0, or a negative errno
 * and no names: tracefs is not mounted, or only root may read it. */
int gfp_names_read(struct gfp_names *names);

/* Writes `flags` the way the kernel prints them, such as
 * "GFP_KERNEL|__GFP_ZERO": bits without a name in hexadecimal, no flag at all
 * as "none". Cuts at `size`. */
void gfp_names_print(const struct gfp_names *names, uint32_t flags, char *text,
                     size_t size);

#endif
