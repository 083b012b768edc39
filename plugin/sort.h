/* SPDX-License-Identifier: MIT */
/* Sorting that takes no memory: qsort does, for more than a KiB (glibc). */
#ifndef RECLAIM_SORT_H
#define RECLAIM_SORT_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Merges the sorted items in [begin, middle) and [middle, end). */
static inline __attribute__((always_inline)) void
sort_merge(const char *from, char *to, size_t begin, size_t middle, size_t end,
           size_t size, int (*compare)(const void *, const void *)) {
  size_t left = begin, right = middle;
  for (size_t at = begin; at < end; at++) {
    bool from_left =
        right == end || (left < middle &&
                         compare(from + left * size, from + right * size) <= 0);
    size_t next = from_left ? left++ : right++;
    memcpy(to + at * size, from + next * size, size);
  }
}

/* Sorts `num` items of `size` bytes each; equal ones stay in order. `room` has
 * place for as many. Inlined, with what it is called with: a call of `compare`
 * would cost more than the rest. */
static inline __attribute__((always_inline)) void
sort_items(void *items, void *room, size_t num, size_t size,
           int (*compare)(const void *, const void *)) {
  char *from = items, *to = room;
  for (size_t run = 1; run < num; run *= 2) {
    for (size_t begin = 0; begin < num; begin += 2 * run) {
      size_t middle = begin + run < num ? begin + run : num;
      size_t end = middle + run < num ? middle + run : num;
      sort_merge(from, to, begin, middle, end, size, compare);
    }
    char *sorted = to;
    to = from;
    from = sorted;
  }
  if (from != (char *)items)
    memcpy(items, from, num * size);
}

#endif
