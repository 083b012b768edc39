/* SPDX-License-Identifier: MIT */
/* Whether this machine can count stalls, requirement by requirement. */
#ifndef RECLAIM_BPF_CHECK_H
#define RECLAIM_BPF_CHECK_H

#include <stdbool.h>
#include <stdio.h>

#include "plugin/bpf_source.h"

/* Prints a line per requirement: ok, warn or FAIL; what it is, what was found,
 * what it is for, and the cure. Loads and attaches the programs as `options`
 * would, for each kind, and takes them out again. Returns whether stalls of any
 * kind can be printed. Not thread-safe; silences libbpf. */
bool bpf_check_print(FILE *out, const struct bpf_source_options *options);

#endif
