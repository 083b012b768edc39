/* SPDX-License-Identifier: MIT */
/* The ladder of stall times and what is read off it. Pure, thread-safe, and
 * without failures. */
#ifndef RECLAIM_HISTOGRAM_H
#define RECLAIM_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

#include "bpf/reclaim_shared.h"

/* The upper end of a bucket as it stands in identifiers: "10us" … "10s",
 * "inf". `bucket` is below RECLAIM_BUCKETS. The string is static. */
const char *histogram_bound_label(size_t bucket);

/* The least time in ns that a stall in the highest bucket that is not empty
 * can have taken; 0 where all are empty. */
uint64_t histogram_floor_ns(const uint64_t buckets[RECLAIM_BUCKETS]);

/* The stall time in s that `percent` (over 0 to 100) of the stalls did not
 * exceed: the upper end of the bucket that holds it, but at most the longest
 * stall, and the longest itself in the bucket without an end. 0 without
 * stalls. */
double histogram_percentile_s(const uint64_t buckets[RECLAIM_BUCKETS],
                              uint64_t longest_ns, double percent);

#endif
