/* SPDX-License-Identifier: MIT */
#include "plugin/inflight.h"
#include "tests/unit/tap.h"

#define S 1000000000ULL

/* One interval by hand. */
static struct reclaim_row_key keys[16];
static struct reclaim_row rows[16];
static struct bpf_source_under_way under_way[16];
static struct bpf_source_rows drained;
static struct inflight_shares shares;

static void open_interval(uint64_t opened_ns) {
  memset(keys, 0, sizeof(keys));
  memset(rows, 0, sizeof(rows));
  drained = (struct bpf_source_rows){.keys = keys,
                                     .rows = rows,
                                     .all_rows = true,
                                     .all_under_way = true,
                                     .opened_ns = opened_ns,
                                     .under_way = under_way};
}

static struct bpf_source_under_way *add_under_way(uint32_t place,
                                                  uint64_t begin_ns) {
  struct bpf_source_under_way *stall = &under_way[drained.under_way_num++];
  *stall = (struct bpf_source_under_way){.kind = RECLAIM_MEMCG,
                                         .place = place,
                                         .tid = place,
                                         .begin_ns = begin_ns,
                                         .confirmed = true};
  snprintf(stall->key.comm, sizeof(stall->key.comm), "task-%u", place % 16);
  return stall;
}

/* By the time of the look, the thread was gone. */
static void refute(struct bpf_source_under_way *stall) {
  stall->confirmed = false;
  stall->key = (struct reclaim_row_key){0};
}

static void make_proactive(struct bpf_source_under_way *stall) {
  stall->kind = RECLAIM_MEMCG_PROACTIVE;
}

static struct reclaim_row *add_row(const char *comm, uint32_t flags,
                                   uint64_t stalls, uint64_t time_ns,
                                   uint64_t longest_ns) {
  struct reclaim_row_key *key = &keys[drained.num];
  *key = (struct reclaim_row_key){.kind = RECLAIM_MEMCG, .flags = flags};
  memcpy(key->comm, comm, strlen(comm));
  rows[drained.num] = (struct reclaim_row){
      .stalls = stalls, .time_ns = time_ns, .longest_ns = longest_ns};
  return &rows[drained.num++];
}

static uint32_t alone(uint32_t place) {
  return RECLAIM_ROW_ALONE | place << RECLAIM_ROW_PLACE_SHIFT;
}

static void test_long_stall(void) {
  struct inflight *inflight = inflight_new();
  uint64_t told = 0;
  for (uint64_t now = 11; now <= 20; now++) {
    open_interval(now * S);
    add_under_way(7, 10 * S + S / 2);
    inflight_update(inflight, &drained, &shares);
    told += shares.rows[0].time_ns;
    if (shares.num != 1 || told != (now - 10) * S - S / 2)
      break;
  }
  is_u64(told, 9 * S + S / 2, "a stall of ten intervals is told in each");
  is_u64(shares.rows[0].stalls, 0, "without being a stall yet");
  is_u64(shares.rows[0].longest_ns, 9 * S + S / 2, "its age is the longest");
  is_str(shares.keys[0].comm, "task-7", "its name is the task's");
  is_u64(shares.pending[RECLAIM_MEMCG], 1, "one is pending");
  is_u64(shares.pending[RECLAIM_DIRECT], 0, "of its kind");
  is_u64(shares.oldest_ns[RECLAIM_MEMCG], 9 * S + S / 2, "it is the oldest");

  open_interval(21 * S);
  struct reclaim_row *row = add_row("task-7", alone(7), 1, 10 * S, 10 * S);
  inflight_update(inflight, &drained, &shares);
  is_u64(row->time_ns, S / 2, "when it ends, its row has the rest");
  is_u64(row->stalls, 1, "and is the stall");
  is_u64(keys[0].flags, 0, "and looks like any other");
  is_u64(shares.num + shares.pending[RECLAIM_MEMCG], 0, "nothing is pending");

  open_interval(22 * S);
  row = add_row("task-7", alone(7), 1, 3 * S, 3 * S);
  inflight_update(inflight, &drained, &shares);
  is_u64(row->time_ns, 3 * S, "a later stall in its place has all its time");
  inflight_free(inflight);
}

static void test_between_look_and_close(void) {
  struct inflight *inflight = inflight_new();
  open_interval(10 * S);
  add_under_way(3, 9 * S);
  inflight_update(inflight, &drained, &shares);

  open_interval(11 * S);
  add_under_way(3, 9 * S);
  struct reclaim_row *row =
      add_row("task-3", alone(3), 1, 2 * S + 5, 2 * S + 5);
  inflight_update(inflight, &drained, &shares);
  ok(row->time_ns == S + 5 && shares.num == 0,
     "a stall that was seen and ended counts by its row");

  open_interval(12 * S);
  add_under_way(3, 11 * S + 9);
  inflight_update(inflight, &drained, &shares);
  open_interval(13 * S);
  add_under_way(3, 13 * S - 7);
  row = add_row("task-3", alone(3), 1, S, S);
  inflight_update(inflight, &drained, &shares);
  ok(row->time_ns == S - (S - 9) && shares.num == 1 &&
         shares.rows[0].time_ns == 7,
     "a stall behind it in the same place is another");

  open_interval(14 * S);
  add_under_way(3, 14 * S - 70);
  row = add_row("task-3", alone(3), 2, S - 3 + 80, S - 3);
  inflight_update(inflight, &drained, &shares);
  ok(row->time_ns == S - 3 + 80 - 7 && shares.num == 0,
     "and can have ended as well");
  inflight_free(inflight);
}

static void test_not_there(void) {
  struct inflight *inflight = inflight_new();
  open_interval(10 * S);
  add_under_way(4, 9 * S);
  refute(add_under_way(5, 2 * S));
  inflight_update(inflight, &drained, &shares);
  ok(shares.num == 1 && shares.pending[RECLAIM_MEMCG] == 1 &&
         shares.oldest_ns[RECLAIM_MEMCG] == S,
     "a word of a task that is gone is no stall");

  open_interval(11 * S);
  drained.all_rows = false;
  refute(add_under_way(4, 9 * S));
  inflight_update(inflight, &drained, &shares);
  is_u64(shares.num, 0, "nor is one that ended and whose row did not come yet");
  open_interval(12 * S);
  struct reclaim_row *row =
      add_row("task-4", alone(4), 1, 2 * S + 5, 2 * S + 5);
  inflight_update(inflight, &drained, &shares);
  is_u64(row->time_ns, S + 5, "but its row has only what was not told");
  inflight_free(inflight);
}

static void test_dead(void) {
  struct inflight *inflight = inflight_new();
  open_interval(10 * S);
  refute(add_under_way(5, 9 * S));
  inflight_update(inflight, &drained, &shares);
  is_u64(shares.num, 0, "what a look refutes is no stall");
  open_interval(11 * S);
  add_under_way(5, 9 * S);
  inflight_update(inflight, &drained, &shares);
  is_u64(shares.num, 0, "nor later, whatever its thread does then");
  open_interval(12 * S);
  add_under_way(5, 11 * S);
  inflight_update(inflight, &drained, &shares);
  is_u64(shares.num, 1, "a new stall of the thread is one");
  open_interval(13 * S);
  drained.under_way = NULL; /* as where nothing stalls any more */
  inflight_update(inflight, &drained, &shares);
  is_u64(shares.num, 0, "without a list of stalls there is none");
  inflight_free(inflight);
}

static void test_incomplete(void) {
  struct inflight *inflight = inflight_new();
  open_interval(10 * S);
  add_under_way(4, 7 * S);
  add_under_way(6, 7 * S);
  inflight_update(inflight, &drained, &shares);
  open_interval(11 * S);
  drained.all_rows = false;
  add_under_way(5, 10 * S);
  add_under_way(6, 7 * S);
  inflight_update(inflight, &drained, &shares);
  open_interval(12 * S);
  struct reclaim_row *row = add_row("task-4", alone(4), 1, 4 * S, 4 * S);
  struct reclaim_row *other = add_row("task-6", alone(6), 1, 5 * S, 5 * S);
  inflight_update(inflight, &drained, &shares);
  is_u64(row->time_ns, S, "what comes a read late is not told twice");
  is_u64(other->time_ns, S, "nor is what was seen");
  inflight_free(inflight);
}

/* A stall that ended, whose row is late, and another one of its thread. */
static void test_incomplete_behind_another(void) {
  struct inflight *inflight = inflight_new();
  open_interval(10 * S);
  add_under_way(4, 7 * S);
  inflight_update(inflight, &drained, &shares);
  open_interval(11 * S);
  drained.all_rows = false;
  add_under_way(4, 10 * S + 9);
  inflight_update(inflight, &drained, &shares);
  open_interval(11 * S);
  drained.under_way_num = 1;
  struct reclaim_row *row =
      add_row("task-4", alone(4), 1, 3 * S + 5, 3 * S + 5);
  inflight_update(inflight, &drained, &shares);
  is_u64(row->time_ns, 5, "of a row that is late, too, is taken off its own");
  ok(shares.num == 1 && shares.rows[0].time_ns == S - 9,
     "and the stall behind it is told of once");
  inflight_free(inflight);
}

/* More threads stall than can be looked at, and their rows find the table full.
 */
static void test_crowd(void) {
  enum { CROWD = 3 };
  struct inflight *inflight = inflight_new();
  open_interval(10 * S);
  for (uint32_t place = 0; place < CROWD; place++)
    add_under_way(place, 9 * S);
  drained.all_under_way = false;
  inflight_update(inflight, &drained, &shares);
  for (uint64_t read = 1; read < 4; read++) {
    open_interval((10 + 10 * read) * S);
    drained.all_under_way = false;
    for (uint32_t place = 0; place < CROWD; place++)
      add_under_way(place, 19 * S);
    struct reclaim_row *overflow =
        add_row("", RECLAIM_ROW_OVERFLOW, read == 1 ? CROWD : 0,
                read == 1 ? CROWD * 10 * S : 0, read == 1 ? 10 * S : 0);
    inflight_update(inflight, &drained, &shares);
    if (read == 1)
      is_u64(overflow->time_ns, CROWD * 9 * S,
             "what was told of a crowd is taken off where it ended");
    is_u64(shares.pending[RECLAIM_MEMCG], CROWD,
           "its next stalls are told of at each read");
  }
  inflight_free(inflight);
}

/* The rest of an interval comes with the same stalls, as they were seen then.
 */
static void test_rest_of_interval(void) {
  struct inflight *inflight = inflight_new();
  open_interval(10 * S);
  drained.all_rows = false;
  add_under_way(4, 7 * S);
  add_under_way(5, 8 * S);
  add_under_way(6, 9 * S);
  add_row("task-4", alone(4), 1, 3 * S + 5, 3 * S + 5);
  inflight_update(inflight, &drained, &shares);
  is_u64(shares.num, 2, "a stall whose row came has no share");

  open_interval(10 * S);
  drained.under_way_num = 3;
  struct reclaim_row *row =
      add_row("task-5", alone(5), 1, 2 * S + 5, 2 * S + 5);
  inflight_update(inflight, &drained, &shares);
  is_u64(row->time_ns, 5, "a row that comes later has what was not told");
  ok(shares.pending[RECLAIM_MEMCG] == 1 && shares.rows[0].time_ns == 0,
     "and neither has a share then");
  inflight_free(inflight);
}

static void test_overflow(void) {
  struct inflight *inflight = inflight_new();
  open_interval(10 * S);
  add_under_way(4, 7 * S);
  inflight_update(inflight, &drained, &shares);
  open_interval(11 * S);
  struct reclaim_row *row =
      add_row("", RECLAIM_ROW_OVERFLOW, 3, 4 * S, 3 * S + 5);
  inflight_update(inflight, &drained, &shares);
  is_u64(row->time_ns, S,
         "a stall that found the table full is taken off there");
  open_interval(12 * S);
  row = add_row("", RECLAIM_ROW_OVERFLOW, 3, 4 * S, 3 * S + 5);
  inflight_update(inflight, &drained, &shares);
  is_u64(row->time_ns, 4 * S, "once");

  add_under_way(4, 7 * S);
  inflight_update(inflight, &drained, &shares);
  open_interval(13 * S);
  row = add_row("", RECLAIM_ROW_OVERFLOW, 3, 4 * S, 2 * S);
  inflight_update(inflight, &drained, &shares);
  is_u64(row->time_ns, 4 * S, "but not if none there was so long");
  inflight_free(inflight);
}

/* Kinds memcg and memcg_proactive have their words in common. */
static void test_shared_words(void) {
  struct inflight *inflight = inflight_new();
  open_interval(10 * S);
  add_under_way(4, 9 * S);
  add_under_way(5, 7 * S);
  make_proactive(&under_way[1]);
  add_under_way(6, 8 * S);
  inflight_update(inflight, &drained, &shares);
  ok(shares.pending[RECLAIM_MEMCG] == 2 &&
         shares.pending[RECLAIM_MEMCG_PROACTIVE] == 1 &&
         shares.oldest_ns[RECLAIM_MEMCG] == 2 * S &&
         shares.oldest_ns[RECLAIM_MEMCG_PROACTIVE] == 3 * S,
     "kinds that share words are told apart while under way");
  is_u64(shares.keys[1].kind, RECLAIM_MEMCG_PROACTIVE, "so are their shares");

  open_interval(11 * S);
  struct reclaim_row *row =
      add_row("task-5", alone(5), 1, 3 * S + 9, 3 * S + 9);
  keys[0].kind = RECLAIM_MEMCG_PROACTIVE;
  add_under_way(4, 9 * S);
  add_under_way(6, 8 * S);
  inflight_update(inflight, &drained, &shares);
  is_u64(row->time_ns, 9, "and a row settles what was told of its place");
  ok(shares.num == 2 && shares.rows[0].time_ns == S &&
         shares.rows[1].time_ns == S,
     "beside others that go on");

  open_interval(12 * S);
  row = add_row("task-4", alone(4), 1, 2 * S + 7, 2 * S + 7);
  keys[0].kind = RECLAIM_MEMCG_PROACTIVE;
  add_under_way(4, 9 * S);
  add_under_way(6, 8 * S);
  inflight_update(inflight, &drained, &shares);
  ok(row->time_ns == 7 && shares.num == 1,
     "also if it ended as of the other kind than was seen");
  inflight_free(inflight);
}

/* Threads that stall and stall again at random, through tables as the kernel
 * side fills them; what comes out against what is true. */

#define THREADS 8
#define CLOSE_NS 50 /* from the interval's end until its table is closed */

struct thread {
  uint64_t begin_ns, end_ns; /* of the stall under way, or the next one */
};

static uint64_t seed = 88172645463325252ULL;

static uint64_t random_below(uint64_t limit) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed % limit;
}

static void plan(struct thread *thread) {
  thread->begin_ns = thread->end_ns + 1 + random_below(30);
  thread->end_ns = thread->begin_ns + random_below(random_below(8) ? 90 : 3000);
}

static void merge_row(uint32_t number, uint32_t flags, uint64_t ns) {
  char comm[16];
  snprintf(comm, sizeof(comm), "task-%u", number);
  for (size_t i = 0; i < drained.num; i++)
    if (strcmp(keys[i].comm, comm) == 0 && keys[i].flags == flags) {
      rows[i].stalls++;
      rows[i].time_ns += ns;
      if (ns > rows[i].longest_ns)
        rows[i].longest_ns = ns;
      return;
    }
  add_row(comm, flags, 1, ns, ns);
}

/* Returns whether a look at the thread at that moment refutes its stall. */
static bool see(uint32_t number, const struct thread *thread,
                uint64_t looked_ns) {
  struct bpf_source_under_way *stall = add_under_way(number, thread->begin_ns);
  if (thread->end_ns < looked_ns)
    refute(stall);
  return !stall->confirmed;
}

static void test_any_order(void) {
  struct inflight *inflight = inflight_new();
  struct thread threads[THREADS] = {0};
  uint64_t ended[THREADS] = {0}, told[THREADS] = {0};
  size_t wrong = 0, shared = 0, settled = 0, refuted = 0;
  for (size_t i = 0; i < THREADS; i++)
    plan(&threads[i]);
  uint64_t opened = 0;
  for (size_t read = 0; read < 20000; read++) {
    uint64_t before = opened;
    opened += CLOSE_NS + 1 + random_below(300);
    uint64_t looked = opened + random_below(CLOSE_NS);
    uint64_t closed = opened + CLOSE_NS;
    open_interval(opened);
    for (uint32_t i = 0; i < THREADS; i++) {
      bool seen = false;
      for (; threads[i].end_ns < closed; plan(&threads[i])) {
        uint64_t at = threads[i].end_ns <= opened ? before : opened;
        bool is_alone = threads[i].begin_ns < at;
        uint64_t ns = threads[i].end_ns - threads[i].begin_ns;
        merge_row(i, is_alone ? alone(i) : 0, ns);
        settled += is_alone;
        ended[i] += ns;
        if (threads[i].begin_ns < opened && threads[i].end_ns > opened) {
          refuted += see(i, &threads[i], looked);
          seen = true;
        }
      }
      if (threads[i].begin_ns < opened && !seen)
        refuted += see(i, &threads[i], looked);
    }
    inflight_update(inflight, &drained, &shares);
    shared += shares.num;
    for (size_t i = 0; i < drained.num; i++)
      told[keys[i].comm[5] - '0'] += rows[i].time_ns;
    for (size_t i = 0; i < shares.num; i++)
      told[shares.keys[i].comm[5] - '0'] += shares.rows[i].time_ns;
    for (size_t i = 0; i < THREADS; i++) {
      bool is_under_way = threads[i].begin_ns < opened;
      wrong += told[i] !=
               ended[i] + (is_under_way ? opened - threads[i].begin_ns : 0);
    }
  }
  printf("# %zu shares, %zu stalls with a row of their own, %zu ended before "
         "the look\n",
         shared, settled, refuted);
  ok(shared > 10000 && settled > 10000 && refuted > 1000,
     "stalls over many intervals");
  is_u64(wrong, 0, "at each read each task's time is told to the ns");
  inflight_free(inflight);
}

/* A task that compacts while it reclaims has a word in the same place of each
 * kind. */
static void test_places_of_kinds(void) {
  struct inflight *inflight = inflight_new();
  uint64_t told[RECLAIM_KINDS] = {0};
  for (uint64_t now = 11; now <= 13; now++) {
    open_interval(now * S);
    add_under_way(7, 9 * S);
    if (now < 13)
      add_under_way(7, 10 * S)->kind = RECLAIM_COMPACT;
    inflight_update(inflight, &drained, &shares);
    for (size_t i = 0; i < shares.num; i++)
      told[shares.keys[i].kind] += shares.rows[i].time_ns;
  }
  is_u64(told[RECLAIM_COMPACT], 2 * S,
         "the inner stall is told while it lasts");
  is_u64(told[RECLAIM_MEMCG], 4 * S, "the outer one from its own begin");
  inflight_free(inflight);
}

int main(void) {
  test_long_stall();
  test_places_of_kinds();
  test_between_look_and_close();
  test_not_there();
  test_dead();
  test_incomplete();
  test_incomplete_behind_another();
  test_crowd();
  test_rest_of_interval();
  test_overflow();
  test_shared_words();
  test_any_order();
  return done();
}
