/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bpf_source.h"
#include "clock.h"
#include "kernel_types.h"
#include "kind.h"

#include "bpf/reclaim.skel.h" /* needs types of the above */

#ifndef ENOTSUPP
#define ENOTSUPP 524 /* include/linux/errno.h; not for user space */
#endif

/* What a kind's programs are attached to. */
enum edge { BEGIN, END, ASIDE, EDGES };

static const struct {
  const char *names[EDGES]; /* `category:event`; NULL: none */
} tracepoints[RECLAIM_KINDS] = {
    [RECLAIM_DIRECT] = {{"vmscan:mm_vmscan_direct_reclaim_begin",
                         "vmscan:mm_vmscan_direct_reclaim_end", NULL}},
    [RECLAIM_MEMCG] = {{"vmscan:mm_vmscan_memcg_reclaim_begin",
                        "vmscan:mm_vmscan_memcg_reclaim_end", NULL}},
    [RECLAIM_NODE] = {{"vmscan:mm_vmscan_node_reclaim_begin",
                       "vmscan:mm_vmscan_node_reclaim_end", NULL}},
    [RECLAIM_COMPACT] = {{"compaction:mm_compaction_begin",
                          "compaction:mm_compaction_end",
                          "compaction:mm_compaction_suitable"}},
    [RECLAIM_THROTTLE] = {{NULL, "vmscan:mm_vmscan_throttled", NULL}},
};

/* The programs of a kind in the order in which they are attached, and so run.
 * Ends first: a stall that both begins and ends while its kind is being
 * attached is then untimed, and leaves no begin word behind. */
static const struct part {
  enum edge edge;
  const char *program; /* behind the kind's name */
  /* Later ones only where programs are preempted, for the events that the first
   * misses: of two copies both are busy now and then. */
  unsigned copy;
} parts[] = {
    {END, "end", 1},       {END, "end_2", 2},   {END, "end_3", 3},
    {ASIDE, "order", 1},   {BEGIN, "begin", 1}, {BEGIN, "begin_2", 2},
    {BEGIN, "begin_3", 3},
};
enum { FIRST_END, PARTS = sizeof(parts) / sizeof(*parts) };

static const char *tracepoint_of(enum reclaim_kind kind, size_t part) {
  return tracepoints[kind].names[parts[part].edge];
}

struct bpf_source {
  struct reclaim_bpf *skel;
  struct bpf_map *tables[2];
  size_t open;    /* the table that the programs write to */
  bool undrained; /* the other one still has its rows */
  size_t max_rows;
  struct kernel_types types;
  bool attached[RECLAIM_KINDS];
  bool absent[RECLAIM_KINDS]; /* the kernel has no such tracepoint */
  struct bpf_link *links[RECLAIM_KINDS][PARTS];
  bool proactive;         /* is marked, and told apart */
  int proactive_err;      /* why not; 0: not wanted */
  int proactive_links[2]; /* descriptors, or -1 */
  struct {
    uint64_t unseen; /* ends that no program counted, at the last drain */
    uint64_t told;   /* of these, handed out as overflow */
  } missed[RECLAIM_KINDS];
  struct reclaim_row_key *keys; /* max_rows of them, as of rows */
  struct reclaim_row *rows;
  struct reclaim_row_key *waiting; /* of rows that the open table began with */
  size_t waiting_num;
  const struct reclaim_begin_words *words[RECLAIM_KINDS]; /* NULL: none */
  const struct reclaim_proactive_tids *proactive_tids;    /* NULL: none */
  uint64_t opened_ns;
  struct bpf_source_under_way *under_way; /* BPF_SOURCE_MAX_UNDER_WAY */
  size_t under_way_num;
  bpf_source_look_fn look; /* NULL: none */
  struct {
    struct ring_buffer *ring; /* NULL: off */
    bpf_source_event_fn take;
    void *context;
    size_t taken;
  } events;
};

/* What libbpf complained about first: the cause, where later lines are
 * consequences. libbpf's print function has no context, hence static. */
static char first_complaint[256];

static int keep_first_complaint(enum libbpf_print_level level,
                                const char *format, va_list args) {
  /* libbpf tries this in vain where it is not needed, and goes on. */
  bool harmless = strstr(format, "RLIMIT_MEMLOCK") != NULL;
  if (level != LIBBPF_WARN || harmless || first_complaint[0] != '\0')
    return 0;
  vsnprintf(first_complaint, sizeof(first_complaint), format, args);
  first_complaint[strcspn(first_complaint, "\n")] = '\0';
  return 0;
}

size_t bpf_source_max_rows(const struct bpf_source_options *options) {
  return options->max_tracked + RECLAIM_KINDS;
}

/* Loading */

static struct bpf_program *find_program(const struct bpf_source *source,
                                        enum reclaim_kind kind, size_t part) {
  char name[32];
  snprintf(name, sizeof(name), "%s_%s", kind_name(kind), parts[part].program);
  return bpf_object__find_program_by_name(source->skel->obj, name);
}

static struct bpf_map *find_map(const struct bpf_source *source,
                                enum reclaim_kind kind, const char *part) {
  char name[32];
  snprintf(name, sizeof(name), "%s_%s", kind_name(kind), part);
  return bpf_object__find_map_by_name(source->skel->obj, name);
}

/* Whether a kind's programs run: memcg's also for the proactive part alone. */
static bool needs_programs(const struct bpf_source *source,
                           const struct bpf_source_options *options,
                           enum reclaim_kind kind) {
  return options->kinds[kind] || (kind == RECLAIM_MEMCG && source->proactive);
}

static bool is_needed(const struct bpf_source *source, size_t part) {
  const struct reclaim_kernel *kernel = &source->types.kernel;
  if (parts[part].edge == ASIDE)
    return !kernel->tells_compaction;
  return parts[part].copy == 1 || kernel->preempts;
}

/* What is off is not loaded, and takes no memory. */
static void leave_out(struct bpf_source *source,
                      const struct bpf_source_options *options) {
  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++) {
    bool on = needs_programs(source, options, kind);
    for (size_t part = 0; part < PARTS; part++)
      if (tracepoint_of(kind, part))
        bpf_program__set_autoload(find_program(source, kind, part),
                                  on && is_needed(source, part));
    if (tracepoints[kind].names[BEGIN]) {
      bpf_map__set_autocreate(find_map(source, kind, "words"), on);
      bpf_map__set_autocreate(find_map(source, kind, "details"),
                              on && options->events);
    }
  }
  bpf_program__set_autoload(source->skel->progs.proactive_enter,
                            source->proactive);
  bpf_program__set_autoload(source->skel->progs.proactive_leave,
                            source->proactive);
  bpf_map__set_autocreate(source->skel->maps.proactive_tids, source->proactive);
  bpf_map__set_autocreate(source->skel->maps.throttle_seen,
                          options->kinds[RECLAIM_THROTTLE]);
  bpf_map__set_autocreate(source->skel->maps.compact_orders,
                          options->kinds[RECLAIM_COMPACT]);
  bpf_map__set_autocreate(source->skel->maps.events, options->events);
  bpf_map__set_autocreate(source->skel->maps.stacks, options->event_stacks);
}

/* Programs on functions: what libbpf would have to look up in the kernel's
 * types is known already. Returns a descriptor or a negative errno. */
static int load_on_function(uint32_t function, enum bpf_attach_type where,
                            const char *name, const struct bpf_insn *insns,
                            size_t num) {
  LIBBPF_OPTS(bpf_prog_load_opts, options, .expected_attach_type = where,
              .attach_btf_id = function);
  int fd = bpf_prog_load(BPF_PROG_TYPE_TRACING, name, "Dual MIT/GPL", insns,
                         num, &options);
  return fd < 0 ? -errno : fd;
}

/* Whether a write to memory.reclaim can be seen; returns 0 or why not. */
static int try_function(uint32_t function) {
  static const struct bpf_insn nothing[] = {
      {.code = BPF_ALU64 | BPF_MOV | BPF_K}, {.code = BPF_JMP | BPF_EXIT}};
  if (function == 0)
    return -ENOENT;
  int fd =
      load_on_function(function, BPF_TRACE_FENTRY, "reclaim_try", nothing, 2);
  if (fd < 0)
    return fd;
  close(fd);
  return 0;
}

/* Returns 0 or why programs on the function cannot be had. */
static int find_function(const struct bpf_source *source) {
  if (access(VMLINUX_BTF, F_OK) != 0)
    return -ESRCH;
  return try_function(source->types.memory_reclaim);
}

static int open_and_load(struct bpf_source *source,
                         const struct bpf_source_options *options,
                         bool read_kernel) {
  source->skel = reclaim_bpf__open();
  if (!source->skel)
    return -errno;

  source->skel->rodata->kernel = source->types.kernel;
  source->skel->rodata->read_kernel = read_kernel;
  source->skel->rodata->group_by = options->group_by;
  source->skel->rodata->only_pid = options->only_pid;
  source->skel->rodata->events_on = options->events;
  source->skel->rodata->event_min_ns = options->event_min_ns;
  source->skel->rodata->event_stacks = options->event_stacks;
  source->skel->rodata->tell_proactive = source->proactive;
  source->skel->rodata->tell_memcg = options->kinds[RECLAIM_MEMCG];
  source->tables[0] = source->skel->maps.table_0;
  source->tables[1] = source->skel->maps.table_1;
  /* The slot's template keeps its size, which Linux 5.10 and later allow
   * (commit 134fede4eecf); libbpf 1.1 crashes when it is set. */
  int err = 0;
  for (size_t i = 0; i < 2 && err == 0; i++)
    err = bpf_map__set_max_entries(source->tables[i], source->max_rows);
  leave_out(source, options);
  if (err == 0)
    err = reclaim_bpf__load(source->skel);
  if (err != 0) {
    reclaim_bpf__destroy(source->skel);
    source->skel = NULL;
  }
  return err;
}

/* What the verifier, a missing capability and a security module say. */
static bool is_refusal(int err) {
  return err == -EINVAL || err == -EPERM || err == -EACCES;
}

/* Under lockdown=confidentiality the helper that reads kernel memory is refused
 * (kernel/trace/bpf_trace.c, since Linux 5.4), but the rest is not. Whose a
 * compaction is stands in that memory. */
static int load_readable(struct bpf_source *source,
                         const struct bpf_source_options *options, log_fn log) {
  int err = open_and_load(source, options, true);
  struct bpf_source_options fewer = *options;
  fewer.kinds[RECLAIM_COMPACT] = false;
  if (is_refusal(err) && open_and_load(source, &fewer, false) == 0) {
    log_printf(log, RECLAIM_LOG_WARNING,
               "the kernel does not let BPF programs read its memory (%s; "
               "lockdown=confidentiality does that): kernel threads are folded "
               "like other tasks%s%s",
               strerror(-err),
               options->group_by == RECLAIM_BY_PROCESS ? ", GroupBy is comm"
                                                       : "",
               options->kinds[RECLAIM_COMPACT]
                   ? ", stalls of kind compact are not counted"
                   : "");
    err = 0;
  }
  return err;
}

/* Not having it loses nothing: so it counts as absent, whatever the reason. */
static void tell_no_proactive(struct bpf_source *source,
                              const struct bpf_source_options *options, int err,
                              log_fn log) {
  enum log_level level =
      options->kinds_named ? RECLAIM_LOG_WARNING : RECLAIM_LOG_INFO;
  const char *fate =
      options->kinds[RECLAIM_MEMCG] ? "counted as memcg" : "not counted";
  source->absent[RECLAIM_MEMCG_PROACTIVE] = true;
  if (err == -ENOENT)
    log_printf(log, level,
               "this kernel has no function memory_reclaim: proactive reclaim "
               "is %s",
               fate);
  else
    log_printf(log, level,
               "cannot attach to function memory_reclaim: %s: proactive "
               "reclaim is %s",
               err == -ESRCH      ? "the kernel has no BTF of its own"
               : err == -ENOTSUPP ? "this kernel cannot"
                                  : strerror(-err),
               fate);
}

/* A kernel that refuses programs on functions has the others all the same. */
static int load(struct bpf_source *source,
                const struct bpf_source_options *options, log_fn log) {
  if (options->kinds[RECLAIM_MEMCG_PROACTIVE])
    source->proactive_err = find_function(source);
  source->proactive =
      options->kinds[RECLAIM_MEMCG_PROACTIVE] && source->proactive_err == 0;
  int err = load_readable(source, options, log);
  if (err == 0 && source->proactive_err != 0)
    tell_no_proactive(source, options, source->proactive_err, log);
  return err;
}

static bool is_loaded(const struct bpf_source *source, enum reclaim_kind kind,
                      size_t part) {
  return tracepoint_of(kind, part) &&
         bpf_program__fd(find_program(source, kind, part)) >= 0;
}

static const char *who_of(const struct bpf_source_options *options) {
  return options->who ? options->who : "collectd";
}

static void explain_no_types(const struct bpf_source_options *options, int err,
                             log_fn log) {
  char why[128];
  libbpf_strerror(err, why, sizeof(why)); /* it has codes of its own */
  log_printf(log, RECLAIM_LOG_ERROR,
             "cannot load BPF programs: cannot read the kernel's types from "
             "%s: %s; the kernel needs CONFIG_DEBUG_INFO_BTF, or option BTF "
             "a file made for it; see README, BTF",
             options->btf_file ? options->btf_file : VMLINUX_BTF, why);
}

/* What helps where the kernel has not said no for good; NULL: it has. */
static const char *cure_of(int err) {
  switch (-err) {
  case EMFILE:
  case ENFILE:
    return "raise the limit of open files (LimitNOFILE in a systemd unit)";
  case ENOMEM:
    return "start again when the kernel has memory";
  case EAGAIN:
  case EBUSY:
  case EINTR:
    return "start again";
  default:
    return NULL;
  }
}

static void explain_failure(const struct bpf_source_options *options, int err,
                            log_fn log) {
  if (err == -EPERM || err == -EACCES) {
    log_printf(log, RECLAIM_LOG_ERROR,
               "cannot load BPF programs: %s; %s needs CAP_BPF and "
               "CAP_PERFMON, before Linux 5.11 also LimitMEMLOCK=infinity, and "
               "the leave of a security module; see README, Capabilities",
               strerror(-err), who_of(options));
    return;
  }
  if (err == -ENOMEM) {
    log_printf(log, RECLAIM_LOG_ERROR,
               "cannot load BPF programs: %s; a smaller MaxTracked (%u) takes "
               "less kernel memory",
               strerror(-err), options->max_tracked);
    return;
  }
  if (cure_of(err)) {
    log_printf(log, RECLAIM_LOG_ERROR, "cannot load BPF programs: %s; %s",
               strerror(-err), cure_of(err));
    return;
  }
  char why[128];
  libbpf_strerror(err, why, sizeof(why)); /* it has codes of its own */
  log_printf(log, RECLAIM_LOG_ERROR,
             "cannot load BPF programs: %s (%s); reclaim needs Linux 5.10 or "
             "later; see README, Requirements",
             why,
             first_complaint[0] ? first_complaint : "libbpf gives no reason");
}

/* Tables */

/* Gives an empty table, not yet open, rows for `keep` and for what overflows.
 */
static int prepare_table(struct bpf_source *source, struct bpf_map *table,
                         const struct reclaim_row_key *keep, size_t keep_num) {
  __u32 num = 0;
  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++)
    source->waiting[num++] =
        (struct reclaim_row_key){.kind = kind, .flags = RECLAIM_ROW_OVERFLOW};
  for (size_t i = 0; i < keep_num && num < source->max_rows; i++)
    source->waiting[num++] = keep[i];
  source->waiting_num = num;
  memset(source->rows, 0, num * sizeof(*source->rows));
  return bpf_map_update_batch(bpf_map__fd(table), source->waiting, source->rows,
                              &num, NULL);
}

/* Without memory for a long chain of the hash the kernel stops half-way: the
 * `num` rows taken till then are gone from the table, the rest is not. Where it
 * was refused before (by a security module), the count is still what was asked
 * for, and the rows are the last drain's. */
static int take_rows(struct bpf_source *source, struct bpf_map *table,
                     size_t *num) {
  __u32 position, count = source->max_rows;
  int err =
      bpf_map_lookup_and_delete_batch(bpf_map__fd(table), NULL, &position,
                                      source->keys, source->rows, &count, NULL);
  if (err == -ENOENT) /* no more rows */
    err = 0;
  bool is_part = err == -ENOMEM && count < source->max_rows;
  *num = err == 0 || is_part ? count : 0;
  return err;
}

static int map_words(struct bpf_source *source) {
  source->under_way =
      calloc(BPF_SOURCE_MAX_UNDER_WAY, sizeof(*source->under_way));
  if (!source->under_way)
    return -ENOMEM;
  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++) {
    const struct bpf_map *map = find_map(source, kind, "words");
    if (!map || bpf_map__fd(map) < 0)
      continue;
    void *words = mmap(NULL, sizeof(struct reclaim_begin_words), PROT_READ,
                       MAP_SHARED, bpf_map__fd(map), 0);
    if (words == MAP_FAILED)
      return -errno;
    source->words[kind] = words;
  }
  if (source->proactive) {
    void *tids =
        mmap(NULL, sizeof(struct reclaim_proactive_tids), PROT_READ, MAP_SHARED,
             bpf_map__fd(source->skel->maps.proactive_tids), 0);
    if (tids == MAP_FAILED)
      return -errno;
    source->proactive_tids = tids;
  }
  return 0;
}

static void unmap_words(struct bpf_source *source) {
  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++)
    if (source->words[kind])
      munmap((void *)source->words[kind], sizeof(struct reclaim_begin_words));
  if (source->proactive_tids)
    munmap((void *)source->proactive_tids,
           sizeof(struct reclaim_proactive_tids));
  free(source->under_way);
}

static int prepare_tables(struct bpf_source *source) {
  source->keys = calloc(source->max_rows, sizeof(*source->keys));
  source->rows = calloc(source->max_rows, sizeof(*source->rows));
  source->waiting = calloc(source->max_rows, sizeof(*source->waiting));
  if (!source->keys || !source->rows || !source->waiting)
    return -ENOMEM;
  /* Also finds out whether this kernel has batch operations (Linux 5.6). */
  size_t none;
  int err = take_rows(source, source->tables[1], &none);
  if (err == 0)
    err = prepare_table(source, source->tables[0], NULL, 0);
  return err;
}

static bool is_marked(const struct bpf_source *source, uint32_t tid) {
  const struct reclaim_proactive_tids *tids = source->proactive_tids;
  return tids && *(const volatile __u32 *)&tids
                         ->tid[tid & (RECLAIM_PROACTIVE_TIDS - 1)] == tid;
}

/* The programs of memcg leave words also where only its proactive part is
 * wanted. */
static bool is_told(const struct bpf_source *source, enum reclaim_kind kind) {
  return kind != RECLAIM_MEMCG || source->skel->rodata->tell_memcg;
}

/* A word, and the kind of its stall. The mark that says which is of the stall
 * if the word is still there when the mark was looked at. */
static uint64_t look_at_word(const struct bpf_source *source,
                             enum reclaim_kind words, uint32_t place,
                             enum reclaim_kind *kind) {
  const volatile __u64 *at = &source->words[words]->word[place];
  uint64_t word;
  do {
    word = *at;
    *kind = words;
    uint32_t tid = reclaim_owner_tid(word, place);
    if (words == RECLAIM_MEMCG && word != 0 && is_marked(source, tid))
      *kind = RECLAIM_MEMCG_PROACTIVE;
  } while (word != *at);
  return word;
}

static void add_under_way(struct bpf_source *source, enum reclaim_kind kind,
                          uint32_t place, uint64_t word, uint64_t age_ns) {
  if (!is_told(source, kind) ||
      source->under_way_num == BPF_SOURCE_MAX_UNDER_WAY)
    return;
  source->under_way[source->under_way_num++] =
      (struct bpf_source_under_way){.kind = kind,
                                    .place = place,
                                    .tid = reclaim_owner_tid(word, place),
                                    .begin_ns = source->opened_ns - age_ns};
}

/* A word that is left is looked at next time, too, but for one that is stale:
 * programs take it for free. */
static void look_at_group(struct bpf_source *source, enum reclaim_kind words,
                          uint32_t group) {
  uint32_t first = group * RECLAIM_GROUP_WORDS;
  uint64_t stale_ns = RECLAIM_STALE_NS(source->types.kernel.preempts);
  for (uint32_t i = first; i < first + RECLAIM_GROUP_WORDS; i++) {
    enum reclaim_kind kind;
    uint64_t word = look_at_word(source, words, i, &kind);
    uint64_t age_ns =
        (source->opened_ns - (word >> RECLAIM_OWNER_BITS)) & RECLAIM_NS_MASK;
    bool is_later = age_ns >= RECLAIM_NS_MASK - RECLAIM_LATER_NS;
    if (word == 0)
      continue;
    if (is_later || age_ns <= stale_ns)
      source->skel->bss->begun[words][group] = 1;
    if (!is_later)
      add_under_way(source, kind, i, word, age_ns);
  }
}

/* Looks at the begin words, for stalls that began before the table that is to
 * be opened. A program reads opened_ns after it has taken its word away, and a
 * flag after it has written what the flag tells of; it is given the time that a
 * store may stay in a CPU's buffer, so that who read the old opened_ns has no
 * word any more, and the word of who read an old flag is seen. */
static void look_at_words(struct bpf_source *source) {
  volatile struct reclaim_bpf__bss *bss = source->skel->bss;
  bool begun[RECLAIM_KINDS][RECLAIM_GROUPS];
  for (enum reclaim_kind words = 0; words < RECLAIM_KINDS; words++)
    for (uint32_t group = 0; group < RECLAIM_GROUPS; group++) {
      begun[words][group] = bss->begun[words][group];
      if (begun[words][group]) /* not what is set right now */
        bss->begun[words][group] = 0;
    }
  bss->counted = 0;
  source->opened_ns = monotonic_ns();
  bss->opened_ns = source->opened_ns;
  struct timespec left = {.tv_nsec = 100000};
  while (nanosleep(&left, &left) != 0 && errno == EINTR)
    continue;

  source->under_way_num = 0;
  for (enum reclaim_kind words = 0; words < RECLAIM_KINDS; words++)
    for (uint32_t group = 0; group < RECLAIM_GROUPS; group++)
      if (begun[words][group])
        look_at_group(source, words, group);
}

/* No stall was counted since the open table was opened, and none is under way.
 */
static bool is_calm(const struct bpf_source *source) {
  const volatile struct reclaim_bpf__bss *bss = source->skel->bss;
  return !bss->counted &&
         !memchr(source->skel->bss->begun, 1, sizeof(bss->begun));
}

/* Behind the words and before the swap, which can take seconds: a stall that
 * has ended by now has its row in the table that is still open. */
static void look_at_threads(struct bpf_source *source) {
  for (size_t i = 0; source->look && i < source->under_way_num; i++) {
    struct bpf_source_under_way *stall = &source->under_way[i];
    stall->confirmed = source->look(stall, &stall->key);
  }
}

/* The update returns after a grace period (kernel/bpf/syscall.c:
 * maybe_wait_bpf_programs): no program writes to the closed table then. */
static int swap_tables(struct bpf_source *source,
                       const struct reclaim_row_key *keep, size_t keep_num) {
  struct bpf_map *opening = source->tables[1 - source->open];
  __u32 slot = 0;
  int fd = bpf_map__fd(opening);
  int err = prepare_table(source, opening, keep, keep_num);
  if (err == 0) {
    look_at_words(source);
    look_at_threads(source);
    err = bpf_map_update_elem(bpf_map__fd(source->skel->maps.open_table), &slot,
                              &fd, BPF_ANY);
  }
  if (err != 0) {
    size_t none;
    take_rows(source, opening, &none); /* empty again for the next try */
    source->skel->bss->counted = 1;
    return err;
  }
  source->open = 1 - source->open;
  return 0;
}

/* Ends of which the first program did not see that they are no task's stall. */
static uint64_t passed_over_unseen(const struct bpf_source *source,
                                   enum reclaim_kind kind) {
  const volatile __u64 *seen = source->skel->bss->passed_over[kind];
  uint64_t first = seen[0], most = first;
  for (size_t copy = 1; copy < RECLAIM_COPIES; copy++)
    if (seen[copy] > most)
      most = seen[copy];
  return most - first;
}

/* Stalls of which no end program saw the end, as far as not told yet: runs of
 * the first that the kernel skipped, less what the later ones counted or passed
 * over. A task between the programs looks as if all had missed it; so only what
 * was unseen at the last drain too is told. What memcg_proactive lost is among
 * memcg's, whose programs count both. */
static uint64_t take_lost(struct bpf_source *source, enum reclaim_kind kind) {
  struct bpf_prog_info info = {0};
  __u32 size = sizeof(info);
  if (kind_words(kind) != kind)
    return 0;
  int fd = bpf_program__fd(find_program(source, kind, FIRST_END));
  if (bpf_obj_get_info_by_fd(fd, &info, &size) != 0)
    return 0;
  /* Read first (Linux 5.12): what later ones count meanwhile only delays. */
  uint64_t skipped = info.recursion_misses;
  uint64_t counted = *(volatile __u64 *)&source->skel->bss->rescued[kind] +
                     passed_over_unseen(source, kind);
  uint64_t unseen = skipped > counted ? skipped - counted : 0;
  uint64_t lost = unseen < source->missed[kind].unseen
                      ? unseen
                      : source->missed[kind].unseen;
  source->missed[kind].unseen = unseen;
  if (lost <= source->missed[kind].told)
    return 0;
  uint64_t new = lost - source->missed[kind].told;
  source->missed[kind].told = lost;
  return new;
}

/* With only_pid nobody knows whose they were. */
static void add_lost(struct bpf_source *source, size_t rows_num) {
  if (source->skel->rodata->only_pid)
    return;
  for (size_t i = 0; i < rows_num; i++)
    if (source->keys[i].flags & RECLAIM_ROW_OVERFLOW &&
        bpf_source_is_attached(source, source->keys[i].kind))
      source->rows[i].stalls += take_lost(source, source->keys[i].kind);
}

uint64_t bpf_source_hidden(const struct bpf_source *source) {
  uint64_t hidden = 0;
  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++)
    hidden += source->missed[kind].told;
  return hidden;
}

/* Whether the open table began with rows for these keys. */
static bool is_waiting_for(const struct bpf_source *source,
                           const struct reclaim_row_key *keep,
                           size_t keep_num) {
  return source->waiting_num == RECLAIM_KINDS + keep_num &&
         (keep_num == 0 || memcmp(&source->waiting[RECLAIM_KINDS], keep,
                                  keep_num * sizeof(*keep)) == 0);
}

/* What a drain would find, had the tables been swapped. */
static struct bpf_source_rows calm_rows(struct bpf_source *source) {
  memcpy(source->keys, source->waiting,
         source->waiting_num * sizeof(*source->keys));
  memset(source->rows, 0, source->waiting_num * sizeof(*source->rows));
  return (struct bpf_source_rows){.keys = source->keys,
                                  .rows = source->rows,
                                  .num = source->waiting_num,
                                  .all_rows = true,
                                  .all_under_way = true,
                                  .opened_ns = monotonic_ns()};
}

int bpf_source_drain(struct bpf_source *source,
                     const struct reclaim_row_key *keep, size_t keep_num,
                     struct bpf_source_rows *rows) {
  if (!source->undrained && is_waiting_for(source, keep, keep_num) &&
      is_calm(source)) {
    *rows = calm_rows(source);
    if (source->types.kernel.preempts) /* else the kernel hides nothing */
      add_lost(source, rows->num);
    return 0;
  }
  *rows = (struct bpf_source_rows){0};
  if (!source->undrained) {
    int err = swap_tables(source, keep, keep_num);
    if (err != 0)
      return err;
    source->undrained = true;
  }

  size_t num;
  int err = take_rows(source, source->tables[1 - source->open], &num);
  if (err != 0 && num == 0)
    return err;
  source->undrained = err != 0;
  add_lost(source, num);
  *rows = (struct bpf_source_rows){.keys = source->keys,
                                   .rows = source->rows,
                                   .num = num,
                                   .all_rows = err == 0,
                                   .all_under_way = source->under_way_num <
                                                    BPF_SOURCE_MAX_UNDER_WAY,
                                   .opened_ns = source->opened_ns,
                                   .under_way = source->under_way,
                                   .under_way_num = source->under_way_num};
  return 0;
}

/* Events */

enum { MAX_EVENTS = RECLAIM_EVENTS_BYTES / sizeof(struct reclaim_event) };

/* libbpf goes on while there are events, unless this returns an error. */
static int take_event(void *context, void *event, size_t size) {
  (void)size; /* all are struct reclaim_event */
  struct bpf_source *source = context;
  source->events.take(source->events.context, event);
  return ++source->events.taken < MAX_EVENTS ? 0 : -EAGAIN;
}

static int open_events(struct bpf_source *source) {
  source->events.ring = ring_buffer__new(bpf_map__fd(source->skel->maps.events),
                                         take_event, source, NULL);
  return source->events.ring ? 0 : -errno;
}

int bpf_source_collect_events(struct bpf_source *source,
                              bpf_source_event_fn take, void *context) {
  if (!source->events.ring)
    return 0;
  source->events.take = take;
  source->events.context = context;
  source->events.taken = 0;
  int err = ring_buffer__consume(source->events.ring);
  return err < 0 && err != -EAGAIN ? err : (int)source->events.taken;
}

uint64_t bpf_source_events_lost(const struct bpf_source *source) {
  return *(volatile __u64 *)&source->skel->bss->events_lost;
}

size_t bpf_source_stack(const struct bpf_source *source, int32_t stack_id,
                        uint64_t addresses[RECLAIM_STACK_DEPTH]) {
  int fd = bpf_map__fd(source->skel->maps.stacks);
  if (stack_id < 0 || bpf_map_lookup_elem(fd, &stack_id, addresses) != 0)
    return 0;
  size_t depth = 0;
  while (depth < RECLAIM_STACK_DEPTH && addresses[depth] != 0)
    depth++;
  return depth;
}

/* Attaching */

static struct bpf_link *attach(struct bpf_source *source,
                               const struct bpf_source_options *options,
                               enum reclaim_kind kind, size_t part,
                               log_fn log) {
  const char *tracepoint = tracepoint_of(kind, part);
  struct bpf_link *link = bpf_program__attach_raw_tracepoint(
      find_program(source, kind, part), strchr(tracepoint, ':') + 1);
  if (link)
    return link;
  int err = -errno;
  source->absent[kind] = err == -ENOENT;
  if (source->absent[kind])
    log_printf(log,
               options->kinds_named ? RECLAIM_LOG_WARNING : RECLAIM_LOG_INFO,
               "this kernel has no tracepoint %s: stalls of kind %s are not "
               "counted",
               tracepoint, kind_name(kind));
  else if (cure_of(err))
    log_printf(log, RECLAIM_LOG_ERROR, "cannot attach %s: %s; %s", tracepoint,
               strerror(-err), cure_of(err));
  else
    log_printf(log, RECLAIM_LOG_ERROR,
               "cannot attach %s: %s; %s needs CAP_BPF and CAP_PERFMON; see "
               "README, Capabilities",
               tracepoint, strerror(-err), who_of(options));
  return NULL;
}

static void detach_kind(struct bpf_source *source, enum reclaim_kind kind) {
  for (size_t part = 0; part < PARTS; part++) {
    bpf_link__destroy(source->links[kind][part]);
    source->links[kind][part] = NULL;
  }
}

static void attach_kind(struct bpf_source *source,
                        const struct bpf_source_options *options,
                        enum reclaim_kind kind, log_fn log) {
  for (size_t part = 0; part < PARTS; part++) {
    if (!is_loaded(source, kind, part))
      continue;
    source->links[kind][part] = attach(source, options, kind, part, log);
    if (!source->links[kind][part]) {
      detach_kind(source, kind);
      return;
    }
  }
  source->attached[kind] = true;
}

/* The kernel takes a program's type when it is loaded: what libbpf has fitted
 * to the maps is loaded once more. Returns a link's descriptor or a negative
 * errno. */
static int attach_mark(const struct bpf_source *source,
                       struct bpf_program *program,
                       enum bpf_attach_type where) {
  int fd = load_on_function(
      source->types.memory_reclaim, where, bpf_program__name(program),
      bpf_program__insns(program), bpf_program__insn_cnt(program));
  if (fd < 0)
    return fd;
  int link = bpf_raw_tracepoint_open(NULL, fd);
  int err = -errno;
  close(fd);
  return link < 0 ? err : link;
}

/* Leaving first: a task that was marked when it entered the function does not
 * leave it unseen, and keep its mark. */
static int attach_marks(struct bpf_source *source) {
  struct reclaim_bpf *skel = source->skel;
  int *links = source->proactive_links;
  links[0] = attach_mark(source, skel->progs.proactive_leave, BPF_TRACE_FEXIT);
  if (links[0] < 0)
    return links[0];
  links[1] = attach_mark(source, skel->progs.proactive_enter, BPF_TRACE_FENTRY);
  return links[1] < 0 ? links[1] : 0;
}

static void detach_marks(struct bpf_source *source) {
  for (size_t i = 2; i-- > 0;) {
    if (source->proactive_links[i] >= 0)
      close(source->proactive_links[i]);
    source->proactive_links[i] = -1;
  }
}

static void attach_all(struct bpf_source *source,
                       const struct bpf_source_options *options, log_fn log) {
  bool marked = false;
  if (source->proactive) {
    int err = attach_marks(source);
    marked = err == 0;
    if (!marked) {
      detach_marks(source);
      tell_no_proactive(source, options, err, log);
    }
  }
  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++)
    if (is_loaded(source, kind, FIRST_END))
      attach_kind(source, options, kind, log);
  source->attached[RECLAIM_MEMCG_PROACTIVE] =
      marked && source->attached[RECLAIM_MEMCG];
  source->attached[RECLAIM_MEMCG] &= options->kinds[RECLAIM_MEMCG];
}

bool bpf_source_is_attached(const struct bpf_source *source,
                            enum reclaim_kind kind) {
  return source->attached[kind];
}

const char *bpf_source_tracepoint(enum reclaim_kind kind) {
  return tracepoints[kind_words(kind)].names[END];
}

bool bpf_source_is_absent(const struct bpf_source *source,
                          enum reclaim_kind kind) {
  return source->absent[kind];
}

void bpf_source_stop(struct bpf_source *source) {
  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++)
    detach_kind(source, kind);
  detach_marks(source);
}

/* Bytes of kernel memory of a map: "memlock" in its fdinfo
 * (kernel/bpf/syscall.c: bpf_map_show_fdinfo). */
static uint64_t map_memory(const struct bpf_map *map) {
  char path[64], line[128];
  snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", bpf_map__fd(map));
  FILE *fdinfo = fopen(path, "re");
  if (!fdinfo)
    return 0;
  unsigned long long bytes = 0;
  while (fgets(line, sizeof(line), fdinfo) &&
         sscanf(line, "memlock: %llu", &bytes) != 1)
    continue;
  fclose(fdinfo);
  return bytes;
}

static void tell_summary(const struct bpf_source *source,
                         const struct bpf_source_options *options, log_fn log) {
  char kinds[64] = "";
  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++)
    if (bpf_source_is_attached(source, kind)) {
      strcat(kinds, " ");
      strcat(kinds, kind_name(kind));
    }
  uint64_t bytes = 0;
  const struct bpf_map *map;
  bpf_object__for_each_map(map, source->skel->obj) {
    if (bpf_map__fd(map) >= 0)
      bytes += map_memory(map);
  }
  log_printf(log, RECLAIM_LOG_INFO,
             "attached:%s%s; two tables of %u rows, %llu KiB of kernel memory",
             kinds[0] ? kinds : " nothing",
             source->types.kernel.preempts ? ", each program three times" : "",
             options->max_tracked, (unsigned long long)(bytes + 1023) / 1024);
}

/* Life */

/* Ids of functions, and what the verifier knows of a task, are the kernel's own
 * types, whatever file has the others. */
static int read_types(struct bpf_source *source, const char *btf_file) {
  int err = kernel_types_read(btf_file, &source->types);
  if (err != 0 || !btf_file)
    return err;
  struct kernel_types own;
  bool has_own = kernel_types_read(NULL, &own) == 0;
  struct reclaim_kernel *given = &source->types.kernel;
  given->has_task_btf =
      has_own && own.kernel.has_task_btf &&
      own.kernel.task_flags == given->task_flags &&
      own.kernel.task_comm == given->task_comm &&
      own.kernel.task_group_leader == given->task_group_leader;
  source->types.memory_reclaim = has_own ? own.memory_reclaim : 0;
  return 0;
}

static int source_init(struct bpf_source *source,
                       const struct bpf_source_options *options, log_fn log) {
  int err = read_types(source, options->btf_file);
  if (err != 0) {
    explain_no_types(options, err, log);
    return err;
  }
  err = load(source, options, log);
  if (err == 0)
    err = prepare_tables(source);
  if (err == 0)
    err = map_words(source);
  if (err == 0 && options->events)
    err = open_events(source);
  if (err != 0) {
    explain_failure(options, err, log);
    return err;
  }
  attach_all(source, options, log);
  tell_summary(source, options, log);
  return 0;
}

int bpf_source_new(const struct bpf_source_options *options, log_fn log,
                   struct bpf_source **source) {
  struct bpf_source *made = calloc(1, sizeof(*made));
  if (!made) {
    log(RECLAIM_LOG_ERROR, "cannot load BPF programs: out of memory");
    return -ENOMEM;
  }
  made->proactive_links[0] = made->proactive_links[1] = -1;
  made->max_rows = bpf_source_max_rows(options);
  made->look = options->look;

  first_complaint[0] = '\0';
  libbpf_print_fn_t print = libbpf_set_print(keep_first_complaint);
  int err = source_init(made, options, log);
  libbpf_set_print(print);
  if (err != 0) {
    bpf_source_free(made);
    return err;
  }
  *source = made;
  return 0;
}

void bpf_source_free(struct bpf_source *source) {
  if (!source)
    return;
  bpf_source_stop(source);
  ring_buffer__free(source->events.ring);
  unmap_words(source);
  reclaim_bpf__destroy(source->skel);
  free(source->keys);
  free(source->rows);
  free(source->waiting);
  free(source);
}
