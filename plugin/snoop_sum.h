/* SPDX-License-Identifier: MIT */
/* Sums of what the kernel counted, per comm and kind. Pure. */
#ifndef RECLAIM_SNOOP_SUM_H
#define RECLAIM_SNOOP_SUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/reclaim_shared.h"

struct snoop_row {
  char comm[RECLAIM_COMM_SIZE]; /* raw; all zero where `others` */
  uint32_t kind;                /* enum reclaim_kind */
  bool others;                  /* the stalls that have no row of their own */
  uint64_t stalls;
  uint64_t time_ns;
  uint64_t pages;
  uint64_t fruitless;
  uint64_t longest_ns;
  uint64_t buckets[RECLAIM_BUCKETS];
};

/* Programs that rename themselves all the time shall not fill memory. */
#define SNOOP_ROWS_MAX 65536

/* All zero is an empty one. */
struct snoop_sum {
  struct snoop_row *rows; /* one per comm and kind */
  size_t num;
};

/* Adds `num` rows as the kernel had them; what is zero is left out. Of more
 * than SNOOP_ROWS_MAX rows, those with the least time become `others`. Returns
 * 0, or -ENOMEM and adds nothing. */
int snoop_sum_add(struct snoop_sum *sum, const struct reclaim_row_key *keys,
                  const struct reclaim_row *rows, size_t num);

/* Adds all of `more`. Fails as above. */
int snoop_sum_merge(struct snoop_sum *sum, const struct snoop_sum *more);

/* Puts the rows with the most time first. */
void snoop_sum_sort(struct snoop_sum *sum);

uint64_t snoop_sum_stalls(const struct snoop_sum *sum);

/* Stalls whose begin was not seen. */
uint64_t snoop_sum_untimed(const struct snoop_sum *sum);

/* Forgets and frees all rows. */
void snoop_sum_clear(struct snoop_sum *sum);

#endif
