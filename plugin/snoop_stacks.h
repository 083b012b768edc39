/* SPDX-License-Identifier: MIT */
/* Stall time by kernel stack. */
#ifndef RECLAIM_SNOOP_STACKS_H
#define RECLAIM_SNOOP_STACKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "bpf/reclaim_shared.h"
#include "plugin/kallsyms.h"
#include "plugin/snoop_print.h"

#define SNOOP_STACKS_TOP 10 /* are printed */

/* Programs that rename themselves all the time shall not fill memory. */
#define SNOOP_STACKS_ROWS_MAX 65536

/* All zero is an empty one. */
struct snoop_stacks {
  struct snoop_stack_row {
    int32_t id;
    bool others;                  /* all comms without a row of their own */
    char comm[RECLAIM_COMM_SIZE]; /* raw; all zero where `others` */
    uint64_t stalls;
    uint64_t time_ns;
  } * rows; /* sorted by id, others last, and comm */
  size_t num, room;
};

/* Adds a stall, whose time may be RECLAIM_UNTIMED. Where there are
 * SNOOP_STACKS_ROWS_MAX rows, new comms are added up as the others.
 * Returns 0 or -ENOMEM. */
int snoop_stacks_add(struct snoop_stacks *stacks, int32_t id,
                     const char comm[RECLAIM_COMM_SIZE], uint64_t stall_ns);

/* The functions of a stack, innermost first, each with a newline behind it: by
 * name, or as addresses where `syms` (or NULL) has no name; without the leading
 * ones of BPF and tracepoints. From malloc; NULL without memory. */
char *snoop_stacks_name(const struct kallsyms *syms, const uint64_t *addresses,
                        size_t depth);

/* Names the stack `id` as above. */
typedef char *(*snoop_stacks_name_fn)(void *context, int32_t id);

/* Prints the stacks with the most stall time, those of equal names as one, with
 * the comms that had them; `now_ns` of CLOCK_MONOTONIC is the report's time.
 * Returns 0, or -ENOMEM and prints nothing. */
int snoop_stacks_print(FILE *out, const struct snoop_format *format,
                       uint64_t now_ns, const struct snoop_stacks *stacks,
                       snoop_stacks_name_fn name, void *context);

/* Forgets and frees all. */
void snoop_stacks_clear(struct snoop_stacks *stacks);

#endif
