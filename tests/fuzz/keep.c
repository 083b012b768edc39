/* SPDX-License-Identifier: MIT */
/* Which comms keep a row: only held ones, the most that there is room for, and
 * no second one of a name before the first of each. */
#include "plugin/keep.h"
#include "tests/fuzz/rows.h"

/* A key that may be kept, all of its rows together. */
struct claim {
  struct reclaim_row_key key;
  const char *name;
  size_t idle;
  bool kept;
};

struct claims {
  struct claim claims[ROWS_MAX];
  size_t num;
};

static bool selects(void *context, const char *name) {
  const uint8_t *first = context;
  return name[0] != (char)*first;
}

static struct claim *find(struct claims *claims,
                          const struct reclaim_row_key *key) {
  for (size_t i = 0; i < claims->num; i++)
    if (memcmp(&claims->claims[i].key, key, sizeof(*key)) == 0)
      return &claims->claims[i];
  return NULL;
}

/* For how many reads the key had no stall. */
static size_t idle_of(struct claims *before, const struct ledger_row *row) {
  const struct claim *old = find(before, row->key);
  return row->row->stalls > 0 ? 0 : old && old->kept ? old->idle + 1 : 1;
}

static void claim_rows(struct claims *claims, struct claims *before,
                       const struct rows *rows, size_t idle_max) {
  claims->num = 0;
  for (size_t i = 0; i < rows->num; i++) {
    const struct ledger_row *row = &rows->rows[i];
    size_t idle = idle_of(before, row);
    if (!row->held || row->key->flags & RECLAIM_ROW_ALONE || idle > idle_max)
      continue;
    struct claim *claim = find(claims, row->key);
    if (!claim) {
      claim = &claims->claims[claims->num++];
      *claim =
          (struct claim){.key = *row->key, .name = row->name, .idle = idle};
    }
    if (idle < claim->idle)
      claim->idle = idle;
  }
}

/* How many keys of the claim's name are kept. */
static size_t kept_of_name(const struct claims *claims,
                           const struct claim *of) {
  size_t kept = 0;
  for (size_t i = 0; i < claims->num; i++)
    kept += claims->claims[i].kept &&
            claims->claims[i].key.kind == of->key.kind &&
            strcmp(claims->claims[i].name, of->name) == 0;
  return kept;
}

static void check_kept(struct claims *claims, const struct keep *keep,
                       size_t room) {
  size_t num;
  const struct reclaim_row_key *keys = keep_keys(keep, &num);
  MUST(num == (claims->num < room ? claims->num : room));
  for (size_t i = 0; i < num; i++) {
    MUST(i == 0 || memcmp(&keys[i - 1], &keys[i], sizeof(*keys)) < 0);
    struct claim *claim = find(claims, &keys[i]);
    MUST(claim);
    claim->kept = true;
  }
  size_t least = SIZE_MAX, most = 0; /* of a name with a key left out; of any */
  for (size_t i = 0; i < claims->num; i++) {
    size_t of_name = kept_of_name(claims, &claims->claims[i]);
    if (!claims->claims[i].kept && of_name < least)
      least = of_name;
    if (of_name > most)
      most = of_name;
  }
  MUST(least == SIZE_MAX || most <= least + 1);
  for (size_t i = 0; i < claims->num; i++)
    for (size_t j = 0; j < claims->num; j++) {
      const struct claim *a = &claims->claims[i], *b = &claims->claims[j];
      MUST(!a->kept || b->kept || a->key.kind != b->key.kind ||
           strcmp(a->name, b->name) != 0 || a->idle <= b->idle);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct input input = {data, size};
  uint8_t unselected = take_byte(&input);
  struct ledger_options options =
      take_ledger_options(&input, selects, &unselected);
  size_t room = 1 + take_one_of(&input, ROWS_MAX / 2);
  size_t idle_max = 1 + take_one_of(&input, 4);
  struct ledger *ledger = ledger_new(&options);
  struct keep *keep = keep_new(2 * room, idle_max);
  struct rows rows = {.left = INT64_MAX};
  struct claims claims = {.num = 0};
  uint64_t now_ns = 0;
  while (input.left > 0) {
    now_ns += take_interval_ns(&input);
    take_rows(&input, &rows, 2 * room);
    ledger_add_interval(ledger, rows.rows, rows.num, now_ns);
    keep_update(keep, rows.rows, rows.num);
    struct claims before = claims;
    claim_rows(&claims, &before, &rows, idle_max);
    check_kept(&claims, keep, room);
  }
  ledger_free(ledger);
  keep_free(keep);
  return 0;
}
