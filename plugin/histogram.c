/* SPDX-License-Identifier: MIT */
#include "histogram.h"

static const uint64_t bounds_ns[] = RECLAIM_BOUNDS_NS;
static const char *const bound_labels[] = {
    "10us", "30us",  "100us", "300us", "1ms", "3ms", "10ms",
    "30ms", "100ms", "300ms", "1s",    "3s",  "10s", "inf"};

_Static_assert(sizeof(bounds_ns) / sizeof(*bounds_ns) == RECLAIM_BOUNDS,
               "a number for each bound");
_Static_assert(sizeof(bound_labels) / sizeof(*bound_labels) == RECLAIM_BUCKETS,
               "a label for each bucket");

const char *histogram_bound_label(size_t bucket) {
  return bound_labels[bucket];
}

uint64_t histogram_floor_ns(const uint64_t buckets[RECLAIM_BUCKETS]) {
  for (size_t i = RECLAIM_BUCKETS - 1; i > 0; i--)
    if (buckets[i] > 0)
      return bounds_ns[i - 1] + 1;
  return 0;
}

double histogram_percentile_s(const uint64_t buckets[RECLAIM_BUCKETS],
                              uint64_t longest_ns, double percent) {
  uint64_t stalls = 0;
  for (size_t i = 0; i < RECLAIM_BUCKETS; i++)
    stalls += buckets[i];
  if (stalls == 0)
    return 0;

  /* A hair less, or 99.9 % of 1,000 would come out above 999. */
  double wanted = percent / 100 * (double)stalls * (1 - 1e-12);
  uint64_t below = buckets[0];
  size_t bucket = 0;
  while (bucket < RECLAIM_BOUNDS && (double)below < wanted)
    below += buckets[++bucket];

  uint64_t ns = longest_ns;
  if (bucket < RECLAIM_BOUNDS && bounds_ns[bucket] < longest_ns)
    ns = bounds_ns[bucket];
  return (double)ns / 1e9;
}
