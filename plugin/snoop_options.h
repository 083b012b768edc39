/* SPDX-License-Identifier: MIT */
/* The command line of reclaimsnoop. */
#ifndef RECLAIM_SNOOP_OPTIONS_H
#define RECLAIM_SNOOP_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "plugin/bpf_source.h"
#include "plugin/snoop_print.h"

struct snoop_options {
  struct bpf_source_options source;
  enum snoop_mode mode;
  const char *name; /* shown are only comms that contain it; NULL: all */
  bool timestamps;
  bool json;
  bool check;           /* this machine, and nothing else */
  uint64_t duration_ns; /* 0: until a signal */
  uint64_t interval_ns; /* 0: only at the end */
};

/* What the caller does next. */
enum snoop_next { SNOOP_GO_ON, SNOOP_EXIT_OK, SNOOP_EXIT_USAGE };

/* Fills `options`, whose strings are those of `argv`. --help and --version are
 * answered on stdout, mistakes told on stderr. */
enum snoop_next snoop_options_parse(struct snoop_options *options, int argc,
                                    char **argv);

#endif
