/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What contestants.bpf.c tells contestant.c. A set's map NAME_rows has these
 * keys, and values that begin with a number of stalls. */
#ifndef CONTESTANTS_SHARED_H
#define CONTESTANTS_SHARED_H

struct contestant_key {
  char comm[16];
  __u32 bucket; /* of a set without histograms: 0 */
};

#define CONTESTANT_BUCKETS 27
#define CONTESTANT_SUM 27 /* not of stalls: the sum of their times */

struct contestant_row {
  __u64 stalls;
  __u64 ns;
  __u64 pages;
};

#endif
