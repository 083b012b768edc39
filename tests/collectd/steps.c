/* SPDX-License-Identifier: MIT */
/* Preloaded into collectd: its time of day is another than the machine's.
 *
 *   RECLAIM_CLOCK=FILE    FILE has 8 bytes: by how many ns
 *
 * Whoever writes to the file steps the clock. As in the kernel, a step is seen
 * by those who wait for a time of day already. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000
#define LOOK_NS 20000000 /* so often, whether there was a step */

static const volatile int64_t *offset_ns;

__attribute__((constructor)) static void map_offset(void) {
  const char *file = getenv("RECLAIM_CLOCK");
  int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
  void *map = mmap(NULL, sizeof(*offset_ns), PROT_READ, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED)
    abort();
  close(fd);
  offset_ns = map;
}

static int64_t to_ns(const struct timespec *time) {
  return time->tv_sec * (int64_t)SECOND + time->tv_nsec;
}

static struct timespec to_timespec(int64_t ns) {
  return (struct timespec){ns / SECOND, ns % SECOND};
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  int err = (int)syscall(SYS_clock_gettime, clock, time);
  if (err == 0 && clock == CLOCK_REALTIME)
    *time = to_timespec(to_ns(time) + *offset_ns);
  return err;
}

/* The time of a condition that waits on CLOCK_MONOTONIC is small. */
int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
                           const struct timespec *until) {
  struct timespec now;
  if (until->tv_sec < SECOND)
    return pthread_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, until);
  for (;;) {
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    int64_t left_ns = to_ns(until) - (to_ns(&now) + *offset_ns);
    if (left_ns <= 0)
      return ETIMEDOUT;
    struct timespec look =
        to_timespec(to_ns(&now) + (left_ns < LOOK_NS ? left_ns : LOOK_NS));
    int err = pthread_cond_clockwait(cond, mutex, CLOCK_REALTIME, &look);
    if (err != ETIMEDOUT)
      return err;
  }
}
