/* SPDX-License-Identifier: MIT */
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "histogram.h"
#include "ledger.h"
#include "sort.h"

#define RECENT 3 /* intervals over which stall times are compared */
#define HOUR_NS 3600000000000ULL
#define DAY_NS (24 * HOUR_NS)

/* What is remembered of a name: one that has a series, stalled lately, or had
 * a series within the last day. */
struct entry {
  char name[COMM_NAME_SIZE];
  bool selected;
  uint64_t recent_ns[RECENT]; /* stall time by interval, newest first */
  uint64_t last_ns;           /* their sum when it stalled last */
  size_t idle;                /* intervals since the last stall; 0: in this */
  size_t reads;               /* since the series was born; 0: in this */
  uint64_t known_until_ns;    /* until then it may come back for free */
  struct ledger_series *series;
  struct ledger_row *rows; /* of this interval, next to each other */
  size_t rows_num;
};

struct account {
  struct ledger_series total;
  struct ledger_series other;
  bool other_born;
  struct ledger_series *places;  /* max_names of them */
  struct ledger_series **vacant; /* places that nobody holds */
  size_t vacant_num;
  struct entry *entries; /* sorted by name */
  size_t entries_num;
  uint64_t credit_ns; /* pays for births: birth_price_ns each */
};

/* A row by what tells it from most others: its kind, and the name's first
 * bytes. */
struct rank {
  uint64_t first[2];
  const struct ledger_row *row;
};

struct ledger {
  struct ledger_options options;
  struct account accounts[RECLAIM_KINDS];
  struct entry *spare;  /* the next interval's entries are built here */
  size_t entries_max;   /* of spare and of each account */
  struct entry **order; /* room to rank entries, and to sort them */
  struct rank *ranks; /* room to rank the rows of an interval, twice as many */
  struct ledger_row *unsorted; /* room for them */
  const struct ledger_series **series;
  size_t series_num;
  struct ledger_health health;
  bool started;
  uint64_t birth_price_ns;
  uint64_t now_ns;
};

static void series_begin(struct ledger_series *series, enum ledger_scope scope,
                         enum reclaim_kind kind, const char *name) {
  *series =
      (struct ledger_series){.scope = scope, .kind = kind, .newborn = true};
  snprintf(series->name, sizeof(series->name), "%s", name);
}

/* Births that are left for culprits when newcomers have used up theirs. */
static uint64_t reserve_ns(const struct ledger *ledger) {
  return (ledger->options.max_names / 4 + 1) * ledger->birth_price_ns;
}

static uint64_t credit_max_ns(const struct ledger *ledger) {
  return ledger->options.max_names * ledger->birth_price_ns +
         reserve_ns(ledger);
}

static bool account_init(struct account *account, const struct ledger *ledger,
                         enum reclaim_kind kind) {
  size_t places = ledger->options.max_names;
  account->entries = calloc(ledger->entries_max, sizeof(*account->entries));
  account->places = calloc(places, sizeof(*account->places));
  account->vacant = calloc(places, sizeof(*account->vacant));
  if (!account->entries || !account->places || !account->vacant)
    return false;

  for (size_t i = 0; i < places; i++)
    account->vacant[account->vacant_num++] = &account->places[i];
  account->credit_ns = credit_max_ns(ledger);
  series_begin(&account->total, LEDGER_TOTAL, kind, "");
  return true;
}

struct ledger *ledger_new(const struct ledger_options *options) {
  struct ledger *ledger = calloc(1, sizeof(*ledger));
  if (!ledger)
    return NULL;

  ledger->options = *options;
  ledger->birth_price_ns = HOUR_NS / options->new_names_per_hour;
  /* Names of RECENT intervals, those with a series, as many again as rows that
   * had one within the day, and the one being looked at. */
  ledger->entries_max =
      (RECENT + 1) * options->max_rows + options->max_names + 1;
  ledger->spare = calloc(ledger->entries_max, sizeof(*ledger->spare));
  ledger->order = calloc(2 * ledger->entries_max, sizeof(*ledger->order));
  ledger->ranks = calloc(2 * options->max_rows, sizeof(*ledger->ranks));
  ledger->unsorted = calloc(options->max_rows, sizeof(*ledger->unsorted));
  ledger->series =
      calloc(RECLAIM_KINDS * (options->max_names + 2), sizeof(*ledger->series));
  bool ok = ledger->spare && ledger->order && ledger->ranks &&
            ledger->unsorted && ledger->series;
  for (size_t kind = 0; ok && kind < RECLAIM_KINDS; kind++)
    ok = !options->kinds[kind] ||
         account_init(&ledger->accounts[kind], ledger, kind);
  if (!ok) {
    ledger_free(ledger);
    return NULL;
  }
  return ledger;
}

void ledger_free(struct ledger *ledger) {
  if (!ledger)
    return;
  for (size_t kind = 0; kind < RECLAIM_KINDS; kind++) {
    free(ledger->accounts[kind].entries);
    free(ledger->accounts[kind].places);
    free(ledger->accounts[kind].vacant);
  }
  free(ledger->spare);
  free(ledger->order);
  free(ledger->ranks);
  free(ledger->unsorted);
  free(ledger->series);
  free(ledger);
}

/* Adding up */

static void counts_add_row(struct ledger_counts *counts,
                           const struct reclaim_row *row) {
  counts->stalls += row->stalls;
  counts->time_ns += row->time_ns;
  counts->pages += row->pages;
  counts->fruitless += row->fruitless;
  for (size_t i = 0; i < RECLAIM_BUCKETS; i++)
    counts->buckets[i] += row->buckets[i];
}

static void counts_add(struct ledger_counts *counts,
                       const struct ledger_counts *more) {
  counts->stalls += more->stalls;
  counts->time_ns += more->time_ns;
  counts->pages += more->pages;
  counts->fruitless += more->fruitless;
  for (size_t i = 0; i < RECLAIM_BUCKETS; i++)
    counts->buckets[i] += more->buckets[i];
}

static uint64_t counts_untimed(const struct ledger_counts *counts) {
  uint64_t timed = 0;
  for (size_t i = 0; i < RECLAIM_BUCKETS; i++)
    timed += counts->buckets[i];
  return counts->stalls - timed;
}

static void series_open_interval(struct ledger_series *series, bool newborn) {
  series->newborn = newborn;
  series->interval = (struct ledger_counts){0};
  series->longest_ns = 0;
}

static void series_add_row(struct ledger_series *series,
                           const struct reclaim_row *row) {
  counts_add_row(&series->interval, row);
  if (row->longest_ns > series->longest_ns)
    series->longest_ns = row->longest_ns;
}

/* The kernel side can lose the greater of two maxima that are stored at the
 * same time; the histogram cannot. */
static void series_close_interval(struct ledger_series *series) {
  counts_add(&series->sum, &series->interval);
  uint64_t floor_ns = histogram_floor_ns(series->interval.buckets);
  if (floor_ns > series->longest_ns)
    series->longest_ns = floor_ns;
}

static void add_to_other(struct account *account,
                         const struct ledger_row *row) {
  if (!account->other_born) {
    series_begin(&account->other, LEDGER_OTHER, row->kind, "_other");
    account->other_born = true;
  }
  series_add_row(&account->other, row->row);
}

/* A share of a stall under way has no stall yet; and no time, where the rest of
 * an interval comes, but it lasts. */
static bool is_blank(const struct ledger_row *row) {
  return row->row->stalls == 0 && row->row->time_ns == 0 &&
         row->row->longest_ns == 0;
}

/* Stalls that were under way have rows of their own, beside that of their comm.
 */
static bool is_same_key(const struct ledger_row *a,
                        const struct ledger_row *b) {
  return memcmp(a->key, b->key, sizeof(*a->key)) == 0;
}

static bool is_overflow(const struct ledger_row *row) {
  return row->key->flags & RECLAIM_ROW_OVERFLOW;
}

/* Sorting rows */

static int compare_rows(const struct ledger_row *left,
                        const struct ledger_row *right) {
  if (left->kind != right->kind)
    return left->kind < right->kind ? -1 : 1;
  int order = (int)is_overflow(left) - (int)is_overflow(right);
  if (order == 0)
    order = strcmp(left->name, right->name);
  if (order == 0)
    order = memcmp(left->key, right->key, sizeof(*left->key));
  return order;
}

static struct rank rank_of(const struct ledger_row *row) {
  struct rank rank = {.row = row};
  unsigned char first[sizeof(rank.first)] = {
      (unsigned char)(2 * row->kind + is_overflow(row))};
  size_t len = strnlen(row->name, sizeof(first) - 1);
  memcpy(&first[1], row->name, len);
  memcpy(rank.first, first, sizeof(first));
  rank.first[0] = be64toh(rank.first[0]);
  rank.first[1] = be64toh(rank.first[1]);
  return rank;
}

static int compare_ranks(const void *a, const void *b) {
  const struct rank *left = a, *right = b;
  for (size_t i = 0; i < 2; i++)
    if (left->first[i] != right->first[i])
      return left->first[i] < right->first[i] ? -1 : 1;
  return compare_rows(left->row, right->row);
}

static void sort_rows(struct ledger *ledger, struct ledger_row *rows,
                      size_t num) {
  memcpy(ledger->unsorted, rows, num * sizeof(*rows));
  for (size_t i = 0; i < num; i++)
    ledger->ranks[i] = rank_of(&ledger->unsorted[i]);
  sort_items(ledger->ranks, &ledger->ranks[num], num, sizeof(*ledger->ranks),
             compare_ranks);
  for (size_t i = 0; i < num; i++)
    rows[i] = *ledger->ranks[i].row;
}

/* Remembering names */

static uint64_t entry_recent_ns(const struct entry *entry) {
  uint64_t sum = 0;
  for (size_t i = 0; i < RECENT; i++)
    sum += entry->recent_ns[i];
  return sum;
}

static void entry_age(struct entry *entry) {
  memmove(&entry->recent_ns[1], &entry->recent_ns[0],
          sizeof(entry->recent_ns) - sizeof(entry->recent_ns[0]));
  entry->recent_ns[0] = 0;
  entry->idle++;
  entry->reads++;
  entry->rows = NULL;
  entry->rows_num = 0;
}

static void entry_take_rows(struct entry *entry, struct ledger_row *rows,
                            size_t rows_num) {
  entry->rows = rows;
  entry->rows_num = rows_num;
  for (size_t i = 0; i < rows_num; i++) {
    entry->recent_ns[0] += rows[i].row->time_ns;
    if (!is_blank(&rows[i]))
      entry->idle = 0;
  }
  if (entry->idle == 0)
    entry->last_ns = entry_recent_ns(entry);
}

/* Copies what is still worth remembering, merged with the names in `rows`
 * (sorted by name), into the spare array, and makes that the account's. Names
 * known only for a series that ended make room when there are too many: coming
 * back then costs a birth. */
static void account_remember(struct ledger *ledger, struct account *account,
                             struct ledger_row *rows, size_t rows_num) {
  struct entry *old = account->entries, *merged = ledger->spare;
  size_t old_num = account->entries_num, merged_num = 0;
  size_t known_max = ledger->options.max_rows, known_num = 0;

  for (size_t o = 0, r = 0; o < old_num || r < rows_num;) {
    int order = o == old_num    ? 1
                : r == rows_num ? -1
                                : strcmp(old[o].name, rows[r].name);
    struct entry *entry = &merged[merged_num];
    if (order <= 0) {
      *entry = old[o++];
      entry_age(entry);
    } else {
      *entry = (struct entry){.idle = 1};
      memcpy(entry->name, rows[r].name, sizeof(entry->name));
      entry->selected =
          ledger->options.selects(ledger->options.selects_context, entry->name);
    }
    if (order >= 0) {
      size_t first = r;
      while (r < rows_num && strcmp(rows[r].name, entry->name) == 0)
        r++;
      entry_take_rows(entry, &rows[first], r - first);
    }

    bool current =
        entry->series || entry->idle == 0 || entry_recent_ns(entry) > 0;
    bool known = entry->known_until_ns > ledger->now_ns;
    if (current || (known && known_num < known_max)) {
      merged_num++;
      known_num += !current;
    }
  }
  ledger->spare = old;
  account->entries = merged;
  account->entries_num = merged_num;
}

/* Places: which names have a series */

static int compare_contenders(const void *a, const void *b) {
  const struct entry *left = *(struct entry *const *)a;
  const struct entry *right = *(struct entry *const *)b;
  uint64_t left_ns = entry_recent_ns(left), right_ns = entry_recent_ns(right);
  if (left_ns != right_ns)
    return left_ns > right_ns ? -1 : 1;
  return strcmp(left->name, right->name);
}

/* Of the holders, who goes first. One whose first share has not been dispatched
 * yet stays, or that share would never be. */
struct losers {
  struct entry *idlest;  /* of those that may end */
  struct entry *calmest; /* the least stall time in the last intervals */
  struct entry *least;   /* the least stall time when it stalled last */
};

static struct losers find_losers(const struct ledger *ledger,
                                 struct entry **holders, size_t num) {
  struct losers losers = {0};
  for (size_t i = 0; i < num; i++) {
    struct entry *holder = holders[i];
    if (holder->reads < 2)
      continue;
    if (holder->idle >= ledger->options.idle_intervals &&
        (!losers.idlest || holder->idle > losers.idlest->idle))
      losers.idlest = holder;
    if (!losers.calmest ||
        entry_recent_ns(holder) < entry_recent_ns(losers.calmest))
      losers.calmest = holder;
    if (!losers.least || holder->last_ns < losers.least->last_ns)
      losers.least = holder;
  }
  return losers;
}

static bool stalls_all_the_time(const struct entry *entry) {
  for (size_t i = 0; i < RECENT; i++)
    if (entry->recent_ns[i] == 0)
      return false;
  return true;
}

/* The holder that the contender is more than twice as big as, or NULL. Who
 * stalls all the time is compared with what holders do now. Who does not is
 * compared with what they did when they stalled last: else any two programs
 * that stall now and then would push each other out for ever. */
static struct entry *find_outweighed(const struct losers *losers,
                                     const struct entry *contender) {
  uint64_t ns = entry_recent_ns(contender);
  if (losers->least && ns > 2 * losers->least->last_ns)
    return losers->least;
  if (losers->calmest && ns > 2 * entry_recent_ns(losers->calmest) &&
      stalls_all_the_time(contender))
    return losers->calmest;
  return NULL;
}

static void end_series(struct ledger *ledger, struct account *account,
                       struct entry *entry) {
  account->vacant[account->vacant_num++] = entry->series;
  entry->series = NULL;
  entry->known_until_ns = ledger->now_ns + DAY_NS;
}

/* Whether a birth can be had. A name that had a series lately is no new series
 * to any store. */
static bool pay_birth(const struct ledger *ledger, struct account *account,
                      const struct entry *entry, bool culprit) {
  if (entry->known_until_ns > ledger->now_ns)
    return true;
  uint64_t untouchable_ns = culprit ? 0 : reserve_ns(ledger);
  if (account->credit_ns < untouchable_ns + ledger->birth_price_ns)
    return false;
  account->credit_ns -= ledger->birth_price_ns;
  return true;
}

static size_t remove_holder(struct entry **holders, size_t num,
                            const struct entry *gone) {
  size_t kept = 0;
  for (size_t i = 0; i < num; i++)
    if (holders[i] != gone)
      holders[kept++] = holders[i];
  return kept;
}

/* Whether it can have a place now; others go only from better to worse. */
static bool is_contender(const struct account *account,
                         const struct losers *losers,
                         const struct entry *entry) {
  return !entry->series && entry->selected && entry->idle == 0 &&
         (account->vacant_num > 0 || losers->idlest ||
          find_outweighed(losers, entry));
}

static void account_give_places(struct ledger *ledger, struct account *account,
                                enum reclaim_kind kind) {
  struct entry **holders = ledger->order;
  size_t holders_num = 0;
  for (size_t i = 0; i < account->entries_num; i++)
    if (account->entries[i].series)
      holders[holders_num++] = &account->entries[i];
  struct losers losers = find_losers(ledger, holders, holders_num);

  struct entry **contenders = &holders[holders_num];
  size_t contenders_num = 0;
  for (size_t i = 0; i < account->entries_num; i++)
    if (is_contender(account, &losers, &account->entries[i]))
      contenders[contenders_num++] = &account->entries[i];
  sort_items(contenders, &contenders[contenders_num], contenders_num,
             sizeof(*contenders), compare_contenders);

  for (size_t i = 0; i < contenders_num; i++) {
    struct entry *contender = contenders[i];
    struct entry *outweighed = find_outweighed(&losers, contender);
    struct entry *loser = losers.idlest ? losers.idlest : outweighed;
    if (account->vacant_num == 0 && !loser)
      continue;
    if (!pay_birth(ledger, account, contender, outweighed != NULL))
      continue;
    if (account->vacant_num == 0) {
      end_series(ledger, account, loser);
      holders_num = remove_holder(holders, holders_num, loser);
      losers = find_losers(ledger, holders, holders_num);
    }
    contender->reads = 0;
    contender->series = account->vacant[--account->vacant_num];
    series_begin(contender->series, LEDGER_NAME, kind, contender->name);
  }
}

/* One interval */

static void account_open_interval(const struct ledger *ledger,
                                  struct account *account,
                                  uint64_t elapsed_ns) {
  uint64_t full = credit_max_ns(ledger);
  account->credit_ns = elapsed_ns > full - account->credit_ns
                           ? full
                           : account->credit_ns + elapsed_ns;

  series_open_interval(&account->total, !ledger->started);
  series_open_interval(&account->other, false);
  for (size_t i = 0; i < ledger->options.max_names; i++)
    series_open_interval(&account->places[i], false);
}

static void account_credit(struct ledger *ledger, struct account *account,
                           const struct ledger_row *rows, size_t rows_num) {
  const struct ledger_row *counted = NULL;
  for (size_t i = 0; i < rows_num; i++) {
    if (is_blank(&rows[i]))
      continue;
    series_add_row(&account->total, rows[i].row);
    if (rows[i].row->stalls > 0 &&
        !(counted && is_same_key(&rows[i], counted))) {
      ledger->health.rows++;
      counted = &rows[i];
    }
    if (is_overflow(&rows[i])) {
      add_to_other(account, &rows[i]);
      ledger->health.unattributed += rows[i].row->stalls;
    }
  }
  for (size_t e = 0; e < account->entries_num; e++) {
    struct entry *entry = &account->entries[e];
    for (size_t i = 0; i < entry->rows_num; i++) {
      entry->rows[i].held = entry->series != NULL;
      if (entry->series)
        series_add_row(entry->series, entry->rows[i].row);
      else if (!is_blank(&entry->rows[i]))
        add_to_other(account, &entry->rows[i]);
    }
  }
  ledger->health.untimed += counts_untimed(&account->total.interval);
}

static void account_close_interval(const struct ledger *ledger,
                                   struct account *account) {
  series_close_interval(&account->total);
  series_close_interval(&account->other);
  for (size_t i = 0; i < ledger->options.max_names; i++)
    series_close_interval(&account->places[i]);
}

static void list_series(struct ledger *ledger, const struct account *account) {
  ledger->series[ledger->series_num++] = &account->total;
  if (account->other_born)
    ledger->series[ledger->series_num++] = &account->other;
  for (size_t i = 0; i < account->entries_num; i++)
    if (account->entries[i].series) {
      ledger->series[ledger->series_num++] = account->entries[i].series;
      ledger->health.names++;
    }
}

static size_t count_rows(const struct ledger_row *rows, size_t rows_num,
                         enum reclaim_kind kind, bool overflow) {
  size_t num = 0;
  while (num < rows_num && rows[num].kind == kind &&
         is_overflow(&rows[num]) == overflow)
    num++;
  return num;
}

void ledger_add_interval(struct ledger *ledger, struct ledger_row *rows,
                         size_t rows_num, uint64_t now_ns) {
  uint64_t elapsed_ns = ledger->started ? now_ns - ledger->now_ns : 0;
  ledger->now_ns = now_ns;
  ledger->series_num = 0;
  ledger->health.newborn = !ledger->started;
  ledger->health.names = 0;
  ledger->health.rows = 0;

  sort_rows(ledger, rows, rows_num);
  for (size_t i = 0; i < rows_num; i++)
    rows[i].held = false;

  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++) {
    struct account *account = &ledger->accounts[kind];
    size_t named = count_rows(rows, rows_num, kind, false);
    size_t all = named + count_rows(&rows[named], rows_num - named, kind, true);
    if (ledger->options.kinds[kind]) {
      account_open_interval(ledger, account, elapsed_ns);
      account_remember(ledger, account, rows, named);
      account_give_places(ledger, account, kind);
      account_credit(ledger, account, rows, all);
      account_close_interval(ledger, account);
      list_series(ledger, account);
    }
    rows += all;
    rows_num -= all;
  }
  ledger->started = true;
}

const struct ledger_series *const *ledger_series(const struct ledger *ledger,
                                                 size_t *num) {
  *num = ledger->series_num;
  return ledger->series;
}

uint64_t ledger_stalls(const struct ledger *ledger, enum reclaim_kind kind) {
  return ledger->accounts[kind].total.sum.stalls;
}

struct ledger_health ledger_health(const struct ledger *ledger) {
  return ledger->health;
}
