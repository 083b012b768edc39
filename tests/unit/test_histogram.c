/* SPDX-License-Identifier: MIT */
#include "plugin/histogram.h"
#include "tests/unit/tap.h"

#define MS 1000000ULL

struct percentile_case {
  const char *behaviour;
  uint64_t buckets[RECLAIM_BUCKETS]; /* 10us 30us 100us 300us 1ms 3ms … */
  uint64_t longest_ns;
  double percent;
  double seconds;
};

static const struct percentile_case cases[] = {
    {"no stalls, no time", {0}, 0, 50, 0},
    {"one stall: its bound", {[4] = 1}, 1 * MS, 50, 0.001},
    {"one stall: at most the longest", {[4] = 1}, 700000, 99, 0.0007},
    {"the median is in the lower half", {[0] = 5, [6] = 5}, 9 * MS, 50, 1e-5},
    {"one above the median", {[0] = 4, [6] = 5}, 9 * MS, 50, 0.009},
    {"99 of 100", {[0] = 99, [6] = 1}, 9 * MS, 99, 1e-5},
    {"above 99 of 100", {[0] = 99, [6] = 1}, 9 * MS, 99.5, 0.009},
    {"99.9 of 1,000 is the 999th", {[0] = 999, [8] = 1}, 90 * MS, 99.9, 1e-5},
    {"empty buckets between are passed", {[2] = 1, [9] = 1}, 200 * MS, 75, 0.2},
    {"without an upper end: the longest",
     {[RECLAIM_BOUNDS] = 3},
     12345 * MS,
     50,
     12.345},
    {"the smallest percentage is the first bucket",
     {[1] = 1, [5] = 1000000},
     2 * MS,
     1e-9,
     3e-5},
};

static bool near(double a, double b) {
  double difference = a - b;
  return difference < 1e-12 && difference > -1e-12;
}

int main(void) {
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    double got = histogram_percentile_s(cases[i].buckets, cases[i].longest_ns,
                                        cases[i].percent);
    if (!ok(near(got, cases[i].seconds), "%s", cases[i].behaviour))
      printf("# got %.9f, wanted %.9f\n", got, cases[i].seconds);
  }

  is_str(histogram_bound_label(0), "10us", "the first bound");
  is_str(histogram_bound_label(4), "1ms", "a bound in ms");
  is_str(histogram_bound_label(RECLAIM_BOUNDS - 1), "10s", "the last bound");
  is_str(histogram_bound_label(RECLAIM_BOUNDS), "inf", "the open end");

  const uint64_t bounds[] = RECLAIM_BOUNDS_NS;
  bool rising = true;
  for (size_t i = 1; i < RECLAIM_BOUNDS; i++)
    rising = rising && bounds[i] > bounds[i - 1];
  ok(rising, "bounds rise");

  uint64_t buckets[RECLAIM_BUCKETS] = {0};
  is_u64(histogram_floor_ns(buckets), 0, "no stall, no least time");
  buckets[0] = 1;
  is_u64(histogram_floor_ns(buckets), 0, "the first bucket begins at 0");
  buckets[5] = 1;
  is_u64(histogram_floor_ns(buckets), 1 * MS + 1,
         "a stall is longer than the bucket below allows");
  return done();
}
