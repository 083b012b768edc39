/* SPDX-License-Identifier: MIT */
/* The names of the kinds, as options, identifiers and tracepoints have them. */
#ifndef RECLAIM_KIND_H
#define RECLAIM_KIND_H

#include <stdbool.h>

#include "bpf/reclaim_shared.h"

/* `kind` is below RECLAIM_KINDS. The string is static. */
static inline const char *kind_name(enum reclaim_kind kind) {
  static const char *const names[RECLAIM_KINDS] = {
      [RECLAIM_DIRECT] = "direct",
      [RECLAIM_MEMCG] = "memcg",
      [RECLAIM_MEMCG_PROACTIVE] = "memcg_proactive",
      [RECLAIM_NODE] = "node",
      [RECLAIM_COMPACT] = "compact",
      [RECLAIM_THROTTLE] = "throttle",
  };
  return names[kind];
}

/* The same for a column of 8. Static, as above. */
static inline const char *kind_short_name(enum reclaim_kind kind) {
  return kind == RECLAIM_MEMCG_PROACTIVE ? "proact" : kind_name(kind);
}

/* What the stalled did meanwhile, in a sentence. Static, as above. */
static inline const char *kind_activity(enum reclaim_kind kind) {
  static const char *const activities[RECLAIM_KINDS] = {
      [RECLAIM_DIRECT] = "direct reclaim",
      [RECLAIM_MEMCG] = "memcg reclaim",
      [RECLAIM_MEMCG_PROACTIVE] = "proactive memcg reclaim",
      [RECLAIM_NODE] = "node reclaim",
      [RECLAIM_COMPACT] = "direct compaction",
      [RECLAIM_THROTTLE] = "reclaim throttling",
  };
  return activities[kind];
}

/* Whether stalls of this kind reclaim pages, or in vain none. */
static inline bool kind_reclaims(enum reclaim_kind kind) {
  return kind != RECLAIM_COMPACT && kind != RECLAIM_THROTTLE;
}

/* Whether stalls of this kind have a begin, and so can be seen under way. */
static inline bool kind_has_begin(enum reclaim_kind kind) {
  return kind != RECLAIM_THROTTLE;
}

/* The kind whose programs and begin words this one's are: mostly itself. */
static inline enum reclaim_kind kind_words(enum reclaim_kind kind) {
  return kind == RECLAIM_MEMCG_PROACTIVE ? RECLAIM_MEMCG : kind;
}

#endif
