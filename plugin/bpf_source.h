/* SPDX-License-Identifier: MIT */
/* The BPF side: load and attach the programs, take an interval's rows and, if
 * asked for, single stalls out of the kernel. A source belongs to one thread at
 * a time, but its events may be collected by another. */
#ifndef RECLAIM_BPF_SOURCE_H
#define RECLAIM_BPF_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/reclaim_shared.h"
#include "plugin/log.h"

struct bpf_source_under_way;

/* Looks at the thread of a stall. Whether it can be true: the thread lives, was
 * there when it began, and is not asleep elsewhere. If so, sets comm and flags
 * of `key` as the BPF programs would. */
typedef bool (*bpf_source_look_fn)(const struct bpf_source_under_way *stall,
                                   struct reclaim_row_key *key);

struct bpf_source_options {
  bool kinds[RECLAIM_KINDS]; /* what to attach */
  bool kinds_named;          /* by the user: a missing one is a WARNING */
  enum reclaim_group_by group_by;
  uint32_t max_tracked;  /* rows in the kernel per interval */
  uint32_t only_pid;     /* process or thread; 0: all tasks' stalls, and
                          * what the kernel hid of them */
  bool events;           /* report stalls one by one as well */
  uint64_t event_min_ns; /* only those at least so long */
  bool event_stacks;     /* with their kernel stacks */
  const char *btf_file;  /* NULL: the running kernel's own */
  const char *who;       /* needs privileges, in messages; NULL: collectd */
  /* NULL: stalls under way are not confirmed. */
  bpf_source_look_fn look;
};

struct bpf_source;

/* A stall that had begun and not ended, as far as its begin word says. Where
 * the kernel hid the end, the word stays until the thread stalls again. */
struct bpf_source_under_way {
  enum reclaim_kind kind;
  uint32_t place; /* of the word, among kind_words()'; one stall at a time */
  uint32_t tid;
  uint64_t begin_ns;          /* CLOCK_MONOTONIC; the same at each drain */
  bool confirmed;             /* by a look at the thread */
  struct reclaim_row_key key; /* which found this; else nothing */
};

#define BPF_SOURCE_MAX_UNDER_WAY 8192

/* Keys and rows at the same place belong together; the caller may change them.
 * A stall under way at `opened_ns` is in none of the rows, and will have a row
 * of its own (RECLAIM_ROW_ALONE, place) when it ends, as have those that were
 * under way at the drain before and ended since: either it is listed as under
 * way, or it is in the rows with all of its time, or both (ended in between).
 * Threads are looked at before the table is closed: a stall that is no more
 * found then is in the rows, too, but if the kernel hid its end. */
struct bpf_source_rows {
  struct reclaim_row_key *keys;
  struct reclaim_row *rows;
  size_t num;    /* at most bpf_source_max_rows() */
  bool all_rows; /* of the interval; else the rest comes with the next drain */
  bool all_under_way; /* stalls; else there were more */
  uint64_t opened_ns; /* CLOCK_MONOTONIC: the interval's end */
  const struct bpf_source_under_way *under_way; /* sorted by words and place */
  size_t under_way_num; /* at most BPF_SOURCE_MAX_UNDER_WAY */
};

/* Loads the programs and attaches them to the kinds' tracepoints. A kind whose
 * tracepoint cannot be had is told to `log` and left out. Where kind
 * memcg_proactive is off or cannot be had, its stalls are among those of memcg;
 * where memcg is off, it is counted alone. Returns 0 and a source that the
 * caller frees, also when no kind could be attached; or a negative errno after
 * one ERROR to `log`, with nothing left in the kernel.
 * Changes libbpf's print function while it runs, and puts it back. Takes some
 * 15 ms and 6 MB while libbpf reads the kernel's BTF. */
int bpf_source_new(const struct bpf_source_options *options, log_fn log,
                   struct bpf_source **source);

bool bpf_source_is_attached(const struct bpf_source *source,
                            enum reclaim_kind kind);

/* The tracepoint at which stalls of the kind end, as `category:event`. Static.
 */
const char *bpf_source_tracepoint(enum reclaim_kind kind);

/* Whether the kernel has no such tracepoint, or cannot tell memcg_proactive. */
bool bpf_source_is_absent(const struct bpf_source *source,
                          enum reclaim_kind kind);

/* The most rows that a drain can return: max_tracked and an overflow row for
 * each kind. */
size_t bpf_source_max_rows(const struct bpf_source_options *options);

/* Ends the interval: opens the other table, in which the `keep_num` keys of
 * `keep` have rows already, and takes all rows out of the closed one, those of
 * kept keys also when they are zero. Waits without using CPU until no program
 * writes to the closed table any more (an RCU grace period: some 10 ms, on a
 * host in distress seconds). Where nothing stalls, nothing was counted
 * and `keep` is what it was, the open table stays open. `rows` point into
 * the source, until the next drain. Returns 0 or a negative errno; then nothing
 * is lost, the next drain has it. */
int bpf_source_drain(struct bpf_source *source,
                     const struct reclaim_row_key *keep, size_t keep_num,
                     struct bpf_source_rows *rows);

/* Counts no more from now on. What was counted can still be drained, and after
 * that drain the last events can be collected. */
void bpf_source_stop(struct bpf_source *source);

/* Lives for the call only. */
typedef void (*bpf_source_event_fn)(void *context,
                                    const struct reclaim_event *event);

/* Hands what the ring buffer has to `take`, oldest first, at most as much as
 * fits into it: a storm does not keep the caller here. Nobody is woken by an
 * event: the caller comes often enough, or loses some (bpf_source_events_lost).
 * Returns the number of events, 0 where they are off, or a negative errno. */
int bpf_source_collect_events(struct bpf_source *source,
                              bpf_source_event_fn take, void *context);

/* Events that found the ring buffer full, since the source was made. Any
 * thread may ask. */
uint64_t bpf_source_events_lost(const struct bpf_source *source);

/* Stalls that drains handed out of which no program saw the end: they are no
 * events either. */
uint64_t bpf_source_hidden(const struct bpf_source *source);

/* The addresses of the kernel stack `stack_id` of an event, innermost first, at
 * most RECLAIM_STACK_DEPTH. Returns how many; 0 if there is no such stack. */
size_t bpf_source_stack(const struct bpf_source *source, int32_t stack_id,
                        uint64_t addresses[RECLAIM_STACK_DEPTH]);

/* Detaches and unloads all. */
void bpf_source_free(struct bpf_source *source);

#endif
