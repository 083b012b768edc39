/* SPDX-License-Identifier: MIT */
/* What the kernel itself counts of memory pressure, to hold against what the
 * plugin counts. */
#ifndef RECLAIM_HOST_H
#define RECLAIM_HOST_H

#include <stdbool.h>
#include <stdint.h>

/* Counters since boot, each with whether the kernel has it; one that it lacks
 * is 0. */
struct host_account {
  bool has_allocstall; /* direct reclaims, begun or tried again */
  uint64_t allocstall;
  bool has_compact_stall; /* direct compactions, of all zones at once */
  uint64_t compact_stall;
  bool has_oom_kill; /* tasks killed, also for a memory cgroup; Linux 4.13 */
  uint64_t oom_kill;
  bool has_psi_some; /* time in which at least one task waited for memory */
  uint64_t psi_some_us;
  bool has_psi_full; /* time in which all did */
  uint64_t psi_full_us;
};

/* Takes allocstall, compact_stall and oom_kill from the text of /proc/vmstat.
 * Direct reclaims are counted by zone, in allocstall_normal and the like,
 * which are added up; by old kernels in one `allocstall`. What the text lacks
 * is left as it is. Pure, cannot fail, thread-safe. */
void host_parse_vmstat(const char *text, struct host_account *account);

/* Takes the totals, in microseconds, from the text of /proc/pressure/memory.
 * What it lacks is left as it is. Pure, cannot fail, thread-safe. */
void host_parse_pressure(const char *text, struct host_account *account);

/* The files, open: to look them up at each read would take as long as to read
 * them. */
struct host {
  /* Descriptors, or -errno; below 0 before the first open. */
  int vmstat, pressure;
};

/* Opens both files below `proc`, where procfs is mounted; NULL is /proc. One
 * that cannot be opened is told of by host_read, and can be opened again. The
 * caller closes the host. */
void host_open(struct host *host, const char *proc);

/* Reads both files as they are now. Sets the whole account. Returns 0, or
 * -errno if there is no vmstat (-EFBIG: of more than 32 KiB; Linux 6.18 has 5),
 * and the account is then empty. PSI is not missed where the kernel lacks it or
 * has it switched off. Allocates nothing; thread-safe. */
int host_read(const struct host *host, struct host_account *account);

/* Closes what is open. */
void host_close(struct host *host);

/* How much of what the kernel counted the plugin saw too: direct stalls that
 * ended since it started and those under way, which the kernel counts as they
 * begin, against the growth of allocstall from `allocstall_begin` to
 * `allocstall`. 1 is all. It is less where reclaim tried again within one
 * (allocstall grows at each try: mm/vmscan.c, do_try_to_free_pages), or if some
 * are missed; more if stalls that had begun before the start ended after it. 1
 * where the kernel counted none, and where its counter went back, as it does
 * for a moment while a CPU goes offline (sum_vm_events in mm/vmstat.c leaves
 * that CPU out before its counts are taken over). Always finite. Pure,
 * thread-safe. */
double host_coverage(uint64_t ended, uint64_t under_way,
                     uint64_t allocstall_begin, uint64_t allocstall);

#endif
