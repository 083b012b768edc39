/* SPDX-License-Identifier: MIT */
#include <stdint.h>
#include <stdlib.h>

#include "plugin/sort.h"
#include "tests/unit/tap.h"

struct item {
  uint32_t by; /* what is sorted by */
  uint32_t at; /* where the item was */
};

static int compare(const void *a, const void *b) {
  const struct item *left = a, *right = b;
  return left->by < right->by ? -1 : left->by > right->by;
}

static bool is_sorted(const struct item *items, size_t num) {
  for (size_t i = 1; i < num; i++)
    if (items[i - 1].by > items[i].by ||
        (items[i - 1].by == items[i].by && items[i - 1].at > items[i].at))
      return false;
  return true;
}

/* Each place is there once. */
static bool is_complete(const struct item *items, size_t num) {
  bool seen[300] = {false};
  for (size_t i = 0; i < num; i++) {
    if (items[i].at >= num || seen[items[i].at])
      return false;
    seen[items[i].at] = true;
  }
  return true;
}

int main(void) {
  struct item items[300], room[300];
  size_t unsorted = 0, incomplete = 0, beyond = 0;
  srand(1);
  for (size_t num = 0; num < 299; num++) {
    uint32_t values = 1 + (uint32_t)rand() % 400; /* with equal ones, or few */
    for (uint32_t i = 0; i < num; i++)
      items[i] = (struct item){(uint32_t)rand() % values, i};
    items[num] = room[num] = (struct item){0, 12345};
    sort_items(items, room, num, sizeof(*items), compare);
    unsorted += !is_sorted(items, num);
    incomplete += !is_complete(items, num);
    beyond += items[num].at != 12345 || room[num].at != 12345;
  }
  is_u64(unsorted, 0, "items are sorted, equal ones as they were");
  is_u64(incomplete, 0, "all of them are there");
  is_u64(beyond, 0, "and nothing behind them is touched");
  return done();
}
