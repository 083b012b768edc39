/* SPDX-License-Identifier: MIT */
/* What a user without any privilege can do to whoever counts stalls: all of
 * these stall in memory reclaim by reading a sparse file through a memory
 * cgroup that is too small for it.
 *
 *   hostile CGROUP FILE UID rename <COMMS
 *   hostile CGROUP FILE UID crowd THREADS
 *   hostile CGROUP FILE UID bomb PROCESSES AT_A_TIME
 *
 * rename: one thread, which takes its comms from standard input, 16 bytes each,
 * and reads a chunk under each. crowd: so many threads, all of which read until
 * the process is killed. bomb: processes that each take a comm of their own,
 * read a chunk, fork two children if they are let, and end, until there have
 * been so many. Prints the number of chunks read. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHUNK ((size_t)256 << 10) /* some one stall */
#define COMM_SIZE 16
#define STACK_SIZE ((size_t)64 << 10)
#define FILE_SIZE ((off_t)1 << 40) /* sparse, and never read twice */

static struct {
  const char *cgroup;
  uid_t uid;
  int file;
  pthread_barrier_t ready;
} hostile;

/* Of all processes. */
static struct shared { atomic_long chunks, processes; } * shared;

/* All read into one: buffers of their own would fill the cgroup. */
static char sink[CHUNK];

static void die(const char *what) {
  perror(what);
  exit(1);
}

/* Of many at once some find all memory of the cgroup taken by others. */
static void read_chunk(void) {
  off_t at = (off_t)CHUNK * atomic_fetch_add(&shared->chunks, 1);
  if (pread(hostile.file, sink, CHUNK, at) < 0 && errno != ENOMEM)
    die("pread");
}

static void open_file(const char *path) {
  hostile.file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (hostile.file < 0 || unlink(path) != 0 ||
      ftruncate(hostile.file, FILE_SIZE) != 0)
    die(path);
  /* No kernel worker reads ahead. */
  posix_fadvise(hostile.file, 0, 0, POSIX_FADV_RANDOM);
}

/* The whole process; what it took before is charged to who it was before. It
 * ends with the test that started it. */
static void join_and_drop_privileges(void) {
  char path[4096];
  snprintf(path, sizeof(path), "%s/cgroup.procs", hostile.cgroup);
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, "0", 1) != 1)
    die(path);
  close(fd);
  if (setresuid(hostile.uid, hostile.uid, hostile.uid) != 0)
    die("setresuid");
  prctl(PR_SET_PDEATHSIG, SIGKILL); /* setresuid undoes it */
}

static void rename_and_read(void) {
  char comm[COMM_SIZE];
  join_and_drop_privileges();
  while (fread(comm, sizeof(comm), 1, stdin) == 1) {
    prctl(PR_SET_NAME, comm);
    read_chunk();
  }
}

static void *read_for_ever(void *unused) {
  pthread_barrier_wait(&hostile.ready); /* all are there */
  pthread_barrier_wait(&hostile.ready); /* go */
  while (!unused)
    read_chunk();
  return unused;
}

/* Threads are made outside of the cgroup, which has no room for their stacks in
 * the kernel. They leave others the CPUs. */
static void crowd(long threads) {
  pthread_t reader;
  pthread_attr_t small;
  struct sched_param none = {0};
  if (sched_setscheduler(0, SCHED_IDLE, &none) != 0)
    die("sched_setscheduler");
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, STACK_SIZE);
  pthread_barrier_init(&hostile.ready, NULL, (unsigned)threads + 1);
  for (long i = 0; i < threads; i++)
    if ((errno = pthread_create(&reader, &small, read_for_ever, NULL)) != 0)
      die("pthread_create");
  pthread_barrier_wait(&hostile.ready);
  join_and_drop_privileges();
  puts("ready");
  fflush(stdout);
  pthread_barrier_wait(&hostile.ready);
  pthread_join(reader, NULL);
}

static void live_and_multiply(long processes) {
  do {
    char comm[COMM_SIZE];
    snprintf(comm, sizeof(comm), "%lx-bomb",
             atomic_fetch_add(&shared->processes, 1));
    prctl(PR_SET_NAME, comm);
    read_chunk();
  } while (shared->processes < processes && (fork() == 0 || fork() == 0));
  _exit(0);
}

/* Children of those that have ended become children of this process. Where all
 * have, it begins again. */
static void bomb(long processes, rlim_t at_a_time) {
  struct rlimit limit = {at_a_time, at_a_time};
  join_and_drop_privileges();
  if (setrlimit(RLIMIT_NPROC, &limit) != 0 ||
      prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
    die("setrlimit");
  while (shared->processes < processes) {
    if (fork() == 0)
      live_and_multiply(processes);
    while (wait(NULL) > 0)
      continue;
    usleep(1000); /* others of that user may be at the limit, too */
  }
}

int main(int argc, char **argv) {
  if (argc < 5)
    return 2;
  const char *what = argv[4];
  long number = argc > 5 ? atol(argv[5]) : 0;
  hostile.cgroup = argv[1];
  hostile.uid = (uid_t)atol(argv[3]);
  shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED)
    die("mmap");
  open_file(argv[2]);
  if (strcmp(what, "rename") == 0)
    rename_and_read();
  else if (strcmp(what, "crowd") == 0 && argc == 6)
    crowd(number);
  else if (strcmp(what, "bomb") == 0 && argc == 7)
    bomb(number, (rlim_t)atol(argv[6]));
  else
    return 2;
  printf("%ld\n", (long)shared->chunks);
  return 0;
}
