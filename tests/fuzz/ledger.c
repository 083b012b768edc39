/* SPDX-License-Identifier: MIT */
/* The ledger beside a model that decides nothing: it knows who stalled how much
 * and who has a series, and from that what must and what must not be. */
#include "plugin/histogram.h"
#include "tests/fuzz/rows.h"

#define HOUR_NS 3600000000000ULL
#define DAY_NS (24 * HOUR_NS)

/* A name of a kind. */
struct person {
  struct ledger_counts sum;      /* while it has its series */
  struct ledger_counts interval; /* as are the next */
  uint64_t longest_ns;
  bool stalled;
  uint64_t recent_ns[3];
  uint64_t last_ns;
  size_t idle, reads; /* as in the ledger: since its stall, its birth */
  bool held, was_held;
  uint64_t free_until_ns;
};

struct model {
  struct ledger_options options;
  uint16_t selected; /* a bit each name */
  uint64_t now_ns;
  size_t intervals;
  struct person people[RECLAIM_KINDS][NAMES];
  struct person total[RECLAIM_KINDS], other[RECLAIM_KINDS];
  uint64_t credit_ns[RECLAIM_KINDS];
  struct ledger_health health;
};

static struct model model;

static size_t number_of(const char *name) {
  size_t number = 0;
  while (strcmp(row_name(number), name) != 0)
    MUST(++number < NAMES);
  return number;
}

static bool selects(void *context, const char *name) {
  const uint16_t *selected = context;
  return *selected >> number_of(name) & 1;
}

/* Adding up */

static void add_counts(struct ledger_counts *to,
                       const struct ledger_counts *more) {
  to->stalls += more->stalls;
  to->time_ns += more->time_ns;
  to->pages += more->pages;
  to->fruitless += more->fruitless;
  for (size_t i = 0; i < RECLAIM_BUCKETS; i++)
    to->buckets[i] += more->buckets[i];
}

static void add_row(struct person *person, const struct reclaim_row *row) {
  struct ledger_counts counts = {.stalls = row->stalls,
                                 .time_ns = row->time_ns,
                                 .pages = row->pages,
                                 .fruitless = row->fruitless};
  for (size_t i = 0; i < RECLAIM_BUCKETS; i++)
    counts.buckets[i] = row->buckets[i];
  add_counts(&person->interval, &counts);
  person->stalled = true;
  if (row->longest_ns > person->longest_ns)
    person->longest_ns = row->longest_ns;
}

static void open_interval(struct person *person) {
  person->interval = (struct ledger_counts){0};
  person->longest_ns = 0;
  person->stalled = false;
  person->was_held = person->held;
  person->held = false;
  memmove(&person->recent_ns[1], &person->recent_ns[0],
          2 * sizeof(person->recent_ns[0]));
}

static uint64_t recent(const struct person *person) {
  return person->recent_ns[0] + person->recent_ns[1] + person->recent_ns[2];
}

static void close_interval(struct person *person) {
  person->recent_ns[0] = person->interval.time_ns;
  person->idle = person->stalled ? 0 : person->idle + 1;
  if (person->stalled)
    person->last_ns = recent(person);
  uint64_t floor_ns = histogram_floor_ns(person->interval.buckets);
  if (floor_ns > person->longest_ns)
    person->longest_ns = floor_ns;
}

static bool is_overflow(const struct ledger_row *row) {
  return row->key->flags & RECLAIM_ROW_OVERFLOW;
}

/* As of a key that was kept and did not stall. */
static bool is_empty(const struct ledger_row *row) {
  return row->row->stalls == 0 && row->row->time_ns == 0 &&
         row->row->longest_ns == 0;
}

/* Whether an earlier row with stalls has its key. */
static bool is_counted(const struct rows *rows, size_t at) {
  for (size_t i = 0; i < at; i++)
    if (rows->rows[i].row->stalls > 0 &&
        memcmp(rows->rows[i].key, rows->rows[at].key,
               sizeof(struct reclaim_row_key)) == 0)
      return true;
  return false;
}

static void take_in(const struct rows *rows) {
  for (size_t kind = 0; kind < RECLAIM_KINDS; kind++) {
    open_interval(&model.total[kind]);
    open_interval(&model.other[kind]);
    for (size_t i = 0; i < NAMES; i++)
      open_interval(&model.people[kind][i]);
  }
  model.health.rows = 0;
  for (size_t i = 0; i < rows->num; i++) {
    const struct ledger_row *row = &rows->rows[i];
    if (!model.options.kinds[row->kind] || is_empty(row))
      continue;
    add_row(&model.total[row->kind], row->row);
    if (is_overflow(row))
      model.health.unattributed += row->row->stalls;
    else
      add_row(&model.people[row->kind][number_of(row->name)], row->row);
    model.health.rows += row->row->stalls > 0 && !is_counted(rows, i);
    model.health.untimed += row->row->stalls;
    for (size_t b = 0; b < RECLAIM_BUCKETS; b++)
      model.health.untimed -= row->row->buckets[b];
  }
  for (size_t kind = 0; kind < RECLAIM_KINDS; kind++) {
    close_interval(&model.total[kind]);
    for (size_t i = 0; i < NAMES; i++)
      close_interval(&model.people[kind][i]);
  }
}

/* What came out */

static void check_series(const struct ledger_series *series,
                         struct person *person) {
  MUST(memcmp(&series->interval, &person->interval, sizeof(series->interval)) ==
       0);
  MUST(series->longest_ns == person->longest_ns);
  MUST(series->newborn == !person->was_held);
  if (series->newborn)
    person->sum = (struct ledger_counts){0};
  add_counts(&person->sum, &person->interval);
  MUST(memcmp(&series->sum, &person->sum, sizeof(series->sum)) == 0);
  MUST(person->sum.time_ns <= INT64_MAX);
  person->reads = series->newborn ? 0 : person->reads + 1;
  person->held = true;
}

static const struct ledger_series *next_of(const struct ledger *ledger,
                                           size_t *at, size_t kind,
                                           enum ledger_scope scope) {
  size_t num;
  const struct ledger_series *const *series = ledger_series(ledger, &num);
  if (*at == num || series[*at]->kind != kind || series[*at]->scope != scope)
    return NULL;
  return series[(*at)++];
}

/* `_other` has what nobody else has. */
static void add_other(const struct rows *rows, size_t kind) {
  for (size_t i = 0; i < rows->num; i++) {
    const struct ledger_row *row = &rows->rows[i];
    MUST(row->kind != kind || is_overflow(row) ||
         row->held == model.people[kind][number_of(row->name)].held);
    if (row->kind == kind && !row->held && !is_empty(row))
      add_row(&model.other[kind], row->row);
  }
  close_interval(&model.other[kind]);
}

static void check_kind(const struct ledger *ledger, const struct rows *rows,
                       size_t *at, size_t kind) {
  const struct ledger_series *total = next_of(ledger, at, kind, LEDGER_TOTAL);
  const struct ledger_series *other = next_of(ledger, at, kind, LEDGER_OTHER);
  MUST(total && total->name[0] == '\0');
  MUST(ledger_stalls(ledger, kind) == total->sum.stalls);
  check_series(total, &model.total[kind]);

  size_t names = 0;
  const char *before = "";
  for (const struct ledger_series *series;
       (series = next_of(ledger, at, kind, LEDGER_NAME)); names++) {
    MUST(strcmp(before, series->name) < 0);
    before = series->name;
    size_t number = number_of(series->name);
    MUST(model.selected >> number & 1);
    MUST(!series->newborn || model.people[kind][number].stalled);
    check_series(series, &model.people[kind][number]);
  }
  MUST(names <= model.options.max_names);
  model.health.names += names;

  add_other(rows, kind);
  MUST((other != NULL) ==
       (model.other[kind].was_held || model.other[kind].stalled));
  if (other)
    check_series(other, &model.other[kind]);
}

/* Births and ends */

static uint64_t price_ns(void) {
  return HOUR_NS / model.options.new_names_per_hour;
}

static uint64_t reserve_ns(void) {
  return (model.options.max_names / 4 + 1) * price_ns();
}

/* Whether the newcomer can have been taken for a culprit, beside any holder
 * there was. */
static bool may_displace(size_t kind, const struct person *newcomer) {
  for (size_t i = 0; i < NAMES; i++) {
    const struct person *person = &model.people[kind][i];
    uint64_t least_ns =
        recent(person) < person->last_ns ? recent(person) : person->last_ns;
    size_t reads = person->reads + !person->held;
    if (person->was_held && reads >= 2 && recent(newcomer) > 2 * least_ns)
      return true;
  }
  return false;
}

/* Only culprits may use the reserve. */
static void pay(size_t kind, uint64_t elapsed_ns) {
  uint64_t full = model.options.max_names * price_ns() + reserve_ns();
  uint64_t *credit = &model.credit_ns[kind];
  size_t births = 0, culprits = 0;
  *credit = model.intervals == 0 || elapsed_ns > full - *credit
                ? full
                : *credit + elapsed_ns;
  for (size_t i = 0; i < NAMES; i++) {
    struct person *person = &model.people[kind][i];
    if (person->held && !person->was_held &&
        person->free_until_ns <= model.now_ns) {
      MUST(*credit >= price_ns());
      *credit -= price_ns();
      births++;
      culprits += may_displace(kind, person);
    }
    if (person->was_held && !person->held) {
      MUST(person->reads >= 1); /* its first share was dispatched */
      person->free_until_ns = model.now_ns + DAY_NS;
    }
  }
  MUST(births == 0 || culprits > 0 || *credit >= reserve_ns());
}

/* The least that a holder did who has been there for a while, and whether one
 * was idle for long. */
struct losers {
  uint64_t least_ns;
  bool idle;
};

static struct losers find_losers(size_t kind) {
  struct losers losers = {.least_ns = UINT64_MAX};
  for (size_t i = 0; i < NAMES; i++) {
    const struct person *person = &model.people[kind][i];
    if (!person->held || person->reads < 2)
      continue;
    if (person->last_ns < losers.least_ns)
      losers.least_ns = person->last_ns;
    losers.idle |= person->idle >= model.options.idle_intervals;
  }
  return losers;
}

/* Who could have a place must have it. */
static void check_nobody_is_forgotten(size_t kind, size_t names) {
  struct losers losers = find_losers(kind);
  for (size_t i = 0; i < NAMES; i++) {
    const struct person *person = &model.people[kind][i];
    if (person->held || !person->stalled || !(model.selected >> i & 1))
      continue;
    bool free = person->free_until_ns > model.now_ns && !person->was_held;
    bool culprit = losers.least_ns < UINT64_MAX / 2 &&
                   recent(person) > 2 * losers.least_ns;
    bool place = names < model.options.max_names || losers.idle;
    MUST(!culprit || (!free && model.credit_ns[kind] < price_ns()));
    MUST(!place ||
         (!free && model.credit_ns[kind] < reserve_ns() + price_ns()));
  }
}

static void check_ledger(const struct ledger *ledger, const struct rows *rows,
                         uint64_t elapsed_ns) {
  size_t at = 0, num;
  ledger_series(ledger, &num);
  model.health.names = 0;
  for (size_t kind = 0; kind < RECLAIM_KINDS; kind++) {
    if (!model.options.kinds[kind])
      continue;
    size_t names = model.health.names;
    check_kind(ledger, rows, &at, kind);
    pay(kind, elapsed_ns);
    check_nobody_is_forgotten(kind, model.health.names - names);
  }
  MUST(at == num);
  struct ledger_health health = ledger_health(ledger);
  MUST(health.newborn == (model.intervals == 0));
  MUST(health.names == model.health.names);
  MUST(health.rows == model.health.rows);
  MUST(health.unattributed == model.health.unattributed);
  MUST(health.untimed == model.health.untimed);
}

static void check_order(const struct rows *rows) {
  for (size_t i = 1; i < rows->num; i++) {
    const struct ledger_row *a = &rows->rows[i - 1], *b = &rows->rows[i];
    int order = (int)a->kind - (int)b->kind;
    if (order == 0)
      order = (int)is_overflow(a) - (int)is_overflow(b);
    if (order == 0)
      order = strcmp(a->name, b->name);
    if (order == 0)
      order = memcmp(a->key, b->key, sizeof(*a->key));
    MUST(order <= 0);
  }
}

/* What comes out does not depend on the order of what goes in. */
static void check_same(const struct ledger *a, const struct ledger *b) {
  size_t a_num, b_num;
  const struct ledger_series *const *of_a = ledger_series(a, &a_num);
  const struct ledger_series *const *of_b = ledger_series(b, &b_num);
  MUST(a_num == b_num);
  for (size_t i = 0; i < a_num; i++) {
    MUST(strcmp(of_a[i]->name, of_b[i]->name) == 0);
    MUST(of_a[i]->newborn == of_b[i]->newborn);
    MUST(memcmp(&of_a[i]->sum, &of_b[i]->sum, sizeof(of_a[i]->sum)) == 0);
    MUST(of_a[i]->longest_ns == of_b[i]->longest_ns);
  }
  MUST(ledger_health(a).rows == ledger_health(b).rows);
}

static void reverse(const struct rows *rows, struct ledger_row *reversed) {
  for (size_t i = 0; i < rows->num; i++)
    reversed[i] = rows->rows[rows->num - 1 - i];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct input input = {data, size};
  model = (struct model){.selected = 0};
  take_bytes(&input, &model.selected, sizeof(model.selected));
  model.options = take_ledger_options(&input, selects, &model.selected);
  model.now_ns = take_interval_ns(&input);
  struct ledger *ledger = ledger_new(&model.options);
  struct ledger *second = ledger_new(&model.options);
  struct rows rows = {.left = INT64_MAX};
  while (input.left > 0) {
    uint64_t elapsed_ns = take_interval_ns(&input);
    model.now_ns += elapsed_ns;
    take_rows(&input, &rows, ROWS_MAX);
    take_in(&rows);
    struct ledger_row reversed[ROWS_MAX];
    reverse(&rows, reversed);
    ledger_add_interval(ledger, rows.rows, rows.num, model.now_ns);
    check_order(&rows);
    check_ledger(ledger, &rows, elapsed_ns);
    ledger_add_interval(second, reversed, rows.num, model.now_ns);
    check_same(ledger, second);
    model.intervals++;
  }
  ledger_free(ledger);
  ledger_free(second);
  return 0;
}
