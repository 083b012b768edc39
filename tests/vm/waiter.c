/* SPDX-License-Identifier: MIT */
/* What makes tasks of a guest wait for memory, and the clocks to tell when.
 *
 *   waiter clocks               prints the monotonic clock and the time of day,
 *                               both in us and of one moment
 *   waiter fragment MIB         takes memory, gives back every second page,
 *                               prints `ready` and waits for its end
 *   waiter huge MIB             takes memory in huge pages
 *   waiter touch MIB SECONDS    takes memory, and uses all of it for so long
 *   waiter freeze FOLDER SECONDS
 *                               freezes a file system until SIGTERM comes, at
 *                               most for so long */
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define HUGE_PAGE ((size_t)2 << 20)

static void die(const char *what) {
  perror(what);
  exit(1);
}

static long long now_us(clockid_t clock) {
  struct timespec now;
  if (clock_gettime(clock, &now))
    die("clock_gettime");
  return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

/* A pause between two readings shows as a gap around the one in the middle:
 * the closest of many is taken. */
static void print_clocks(void) {
  long long least = -1, mono = 0, day = 0;
  for (int i = 0; i < 100; i++) {
    long long before = now_us(CLOCK_MONOTONIC);
    long long middle = now_us(CLOCK_REALTIME);
    long long after = now_us(CLOCK_MONOTONIC);
    if (least >= 0 && after - before >= least)
      continue;
    least = after - before;
    mono = before + least / 2;
    day = middle;
  }
  printf("%lld %lld\n", mono, day);
}

/* Memory that begins with a huge page. */
static char *take(size_t size, int advice) {
  char *memory = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    die("mmap");
  memory += HUGE_PAGE - (size_t)memory % HUGE_PAGE;
  if (madvise(memory, size, advice))
    die("madvise");
  return memory;
}

static void touch(char *memory, size_t size, size_t step) {
  for (size_t at = 0; at < size; at += step)
    memory[at] = 1;
}

static void fragment(size_t size) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  char *memory = take(size, MADV_NOHUGEPAGE);
  touch(memory, size, page);
  for (size_t at = 0; at < size; at += 2 * page)
    if (madvise(memory + at, page, MADV_DONTNEED))
      die("madvise");
  puts("ready");
  fflush(stdout);
  pause();
}

static void use(size_t size, int seconds) {
  long long end_us = now_us(CLOCK_MONOTONIC) + seconds * 1000000LL;
  char *memory = take(size, MADV_NOHUGEPAGE);
  do
    touch(memory, size, (size_t)sysconf(_SC_PAGESIZE));
  while (now_us(CLOCK_MONOTONIC) < end_us);
}

/* Nothing of this may have to wait for the file system that is frozen. */
static void freeze(const char *folder, int seconds) {
  struct timespec most = {.tv_sec = seconds};
  sigset_t end;
  sigemptyset(&end);
  sigaddset(&end, SIGTERM);
  sigprocmask(SIG_BLOCK, &end, NULL);
  int fd = open(folder, O_RDONLY | O_DIRECTORY);
  if (fd < 0)
    die(folder);
  if (mlockall(MCL_CURRENT | MCL_FUTURE))
    die("mlockall");
  if (ioctl(fd, FIFREEZE, 0))
    die("FIFREEZE");
  sigtimedwait(&end, NULL, &most);
  if (ioctl(fd, FITHAW, 0))
    die("FITHAW");
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "";
  size_t size = argc > 2 ? (size_t)atoi(argv[2]) << 20 : 0;
  if (!strcmp(what, "clocks"))
    print_clocks();
  else if (!strcmp(what, "fragment") && argc == 3)
    fragment(size);
  else if (!strcmp(what, "huge") && argc == 3)
    touch(take(size, MADV_HUGEPAGE), size, HUGE_PAGE);
  else if (!strcmp(what, "touch") && argc == 4)
    use(size, atoi(argv[3]));
  else if (!strcmp(what, "freeze") && argc == 4)
    freeze(argv[2], atoi(argv[3]));
  else
    return 2;
  return 0;
}
