/* SPDX-License-Identifier: MIT */
/* The names of the kinds, as options, identifiers and tracepoints have them. */
#ifndef RECLAIM_KIND_H
#define RECLAIM_KIND_H

#include "bpf/reclaim_shared.h"

/* `kind` is below RECLAIM_KINDS. The string is static. */
static inline const char *kind_name(enum reclaim_kind kind) {
  static const char *const names[RECLAIM_KINDS] = {
      [RECLAIM_DIRECT] = "direct",
      [RECLAIM_MEMCG] = "memcg",
      [RECLAIM_NODE] = "node",
  };
  return names[kind];
}

#endif
