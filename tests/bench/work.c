/* SPDX-License-Identifier: MIT */
/* Stalls in memory reclaim of a memory cgroup (v1), as many as the machine can
 * make, to measure what is added to them:
 *
 *   work CGROUP read|empty|limit THREADS NAMES OPERATIONS
 *
 * read: reads a sparse file through the page cache, 1 MiB an operation, which
 * the cgroup's limit has to make room for. empty: writes to memory.force_empty,
 * which reclaims 16 times in vain from memory that is locked
 * (mm/memcontrol-v1.c: mem_cgroup_force_empty). limit: writes to
 * memory.limit_in_bytes, which reclaims once in vain (mem_cgroup_resize_max),
 * and does little beside.
 *
 * The threads do so many operations between them, or with 0 go on until
 * standard input ends, and go by so many names in turn, a new one for each
 * operation. Prints `READY` before the first operation, and at the end how many
 * there were, the CPU time of all and the time that passed, both in ns. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (1L << 20)
#define FILE_CHUNKS 1024L /* well above any limit */

static struct {
  bool reads;
  long threads;
  long names;
  long operations; /* 0: until standard input ends */
  int file;        /* read, or written to */
  atomic_long done;
  atomic_bool stop;
  pthread_barrier_t ready;
} work;

static char sink[CHUNK]; /* all read into one: it counts against the limit */

static void fail(const char *what) {
  fprintf(stderr, "work: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int open_in(const char *folder, const char *name, int flags) {
  char path[4096];
  snprintf(path, sizeof(path), "%s/%s", folder, name);
  int fd = open(path, flags | O_CLOEXEC);
  if (fd < 0)
    fail(path);
  return fd;
}

static void join_cgroup(const char *cgroup) {
  int fd = open_in(cgroup, "cgroup.procs", O_WRONLY);
  if (write(fd, "0", 1) != 1)
    fail("cgroup.procs");
  close(fd);
}

static void open_file(const char *cgroup, const char *kind) {
  if (!work.reads) {
    bool limits = strcmp(kind, "limit") == 0;
    work.file =
        open_in(cgroup, limits ? "memory.limit_in_bytes" : "memory.force_empty",
                O_WRONLY);
    void *locked = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (locked == MAP_FAILED || mlock(locked, CHUNK) != 0)
      fail("mlock");
    return;
  }
  char path[] = "/var/tmp/reclaim-work-XXXXXX";
  work.file = mkstemp(path);
  if (work.file < 0 || unlink(path) != 0 ||
      ftruncate(work.file, FILE_CHUNKS * CHUNK) != 0)
    fail(path);
  posix_fadvise(work.file, 0, 0, POSIX_FADV_RANDOM); /* no worker reads ahead */
}

static void operate(long number) {
  char name[16];
  snprintf(name, sizeof(name), "work-%lx-", number % work.names);
  prctl(PR_SET_NAME, name);
  if (!work.reads)
    (void)!write(work.file, "0", 1); /* says that it is busy */
  else if (pread(work.file, sink, CHUNK, number % FILE_CHUNKS * CHUNK) != CHUNK)
    fail("pread");
}

static void *run(void *unused) {
  (void)unused;
  pthread_barrier_wait(&work.ready);
  while (!work.stop) {
    long number = work.done++;
    if (work.operations && number >= work.operations)
      break;
    operate(number);
  }
  return NULL;
}

static long long clock_ns(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int argc, char **argv) {
  if (argc != 6)
    return 2;
  work.reads = strcmp(argv[2], "read") == 0;
  work.threads = atol(argv[3]);
  work.names = atol(argv[4]);
  work.operations = atol(argv[5]);
  join_cgroup(argv[1]);
  open_file(argv[1], argv[2]);

  pthread_t *threads = calloc((size_t)work.threads, sizeof(*threads));
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 64 << 10);
  pthread_barrier_init(&work.ready, NULL, (unsigned)work.threads + 1);
  for (long i = 0; i < work.threads; i++)
    if (pthread_create(&threads[i], &small, run, NULL) != 0)
      fail("pthread_create");
  puts("READY");
  fflush(stdout);
  long long cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
  long long begin_ns = clock_ns(CLOCK_MONOTONIC);
  pthread_barrier_wait(&work.ready);
  char byte;
  if (!work.operations && read(0, &byte, 1) == 0)
    work.stop = true;
  for (long i = 0; i < work.threads; i++)
    pthread_join(threads[i], NULL);
  printf("%ld %lld %lld\n", work.operations ? work.operations : (long)work.done,
         clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_ns,
         clock_ns(CLOCK_MONOTONIC) - begin_ns);
  return 0;
}
