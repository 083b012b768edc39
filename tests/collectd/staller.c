/* SPDX-License-Identifier: MIT */
/* Stalls in memory reclaim on purpose: run in a memory cgroup whose limit is
 * small, it reads a sparse file through the page cache, one thread for each
 * comm that is given (in hexadecimal, for any byte may be in a comm).
 *
 *   staller FILE MIB SECONDS LEADER COMM...
 *
 * Each thread reads MIB MiB of its own, once, or again until SECONDS are over,
 * eight threads at a time; the main thread, called LEADER, waits. Prints `TID
 * COMM` for each thread before any of them begins. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (1 << 20)
#define AT_A_TIME 8 /* hundreds at once would thrash for minutes */

/* All read into one: buffers of their own would fill the cgroup. */
static char sink[CHUNK];
static int fd;
static long mib;
static double seconds;
static pthread_barrier_t ready;
static sem_t turns;

struct reader {
  pthread_t thread;
  int number;
  const char *comm_hex;
};

static void set_comm(const char *hex) {
  char comm[16] = "";
  for (size_t i = 0; i < sizeof(comm) - 1 && hex[2 * i] && hex[2 * i + 1]; i++)
    comm[i] =
        (char)strtol((char[]){hex[2 * i], hex[2 * i + 1], '\0'}, NULL, 16);
  prctl(PR_SET_NAME, comm);
}

static void tell(const char *comm_hex) {
  printf("%ld %s\n", syscall(SYS_gettid), comm_hex);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void *read_file(void *context) {
  struct reader *reader = context;
  set_comm(reader->comm_hex);
  tell(reader->comm_hex);
  pthread_barrier_wait(&ready); /* all are told */
  pthread_barrier_wait(&ready); /* go */
  sem_wait(&turns);
  double until = now() + seconds;
  do {
    off_t begin = (off_t)reader->number * mib * CHUNK;
    for (long i = 0; i < mib; i++)
      if (pread(fd, sink, CHUNK, begin + i * CHUNK) != CHUNK)
        exit(1);
  } while (now() < until);
  sem_post(&turns);
  return NULL;
}

int main(int argc, char **argv) {
  if (argc < 6)
    return 2;
  int readers_num = argc - 5;
  mib = atol(argv[2]);
  seconds = atof(argv[3]);
  fd = open(argv[1], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0 || unlink(argv[1]) != 0 ||
      ftruncate(fd, (off_t)readers_num * mib * CHUNK) != 0) {
    fprintf(stderr, "%s: %s\n", argv[1], strerror(errno));
    return 1;
  }
  posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM); /* no kernel worker reads ahead */
  set_comm(argv[4]);
  tell(argv[4]);

  struct reader *readers = calloc((size_t)readers_num, sizeof(*readers));
  sem_init(&turns, 0, AT_A_TIME);
  pthread_barrier_init(&ready, NULL, (unsigned)readers_num + 1);
  for (int i = 0; i < readers_num; i++) {
    readers[i] = (struct reader){.number = i, .comm_hex = argv[5 + i]};
    if (pthread_create(&readers[i].thread, NULL, read_file, &readers[i]) != 0)
      return 1;
  }
  pthread_barrier_wait(&ready);
  fflush(stdout);
  pthread_barrier_wait(&ready);
  for (int i = 0; i < readers_num; i++)
    pthread_join(readers[i].thread, NULL);
  return 0;
}
