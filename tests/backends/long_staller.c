/* SPDX-License-Identifier: MIT */
/* One stall that lasts as long as a test likes, which real reclaim does not:
 *
 *   long_staller BEGIN END COMM <PIPE
 *
 * A task called COMM runs the kernel's BPF programs of these ids as the
 * tracepoints do (BPF_PROG_TEST_RUN), and between them waits uninterruptibly,
 * as in reclaim, until the pipe is closed. */
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bpf/bpf.h>

static void die(const char *what) {
  perror(what);
  exit(1);
}

static int program(const char *id) {
  int fd = bpf_prog_get_fd_by_id((unsigned)atoi(id));
  if (fd < 0)
    die("bpf_prog_get_fd_by_id");
  return fd;
}

/* Of the arguments, only _end's first is looked at: nr_reclaimed. */
static void run(int fd) {
  __u64 args[3] = {0};
  LIBBPF_OPTS(bpf_test_run_opts, options, .ctx_in = args,
              .ctx_size_in = sizeof(args));
  if (bpf_prog_test_run_opts(fd, &options) != 0)
    die("bpf_prog_test_run_opts");
}

/* A parent waits in state D for a child of vfork. */
static void wait_for_pipe(void) {
  long child = syscall(SYS_clone, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0);
  if (child < 0)
    die("clone");
  char byte;
  while (child == 0 && read(STDIN_FILENO, &byte, 1) > 0)
    continue;
  if (child == 0)
    _exit(0);
  wait(NULL);
}

int main(int argc, char **argv) {
  if (argc != 4)
    return 2;
  int begin = program(argv[1]), end = program(argv[2]);
  prctl(PR_SET_NAME, argv[3]);
  run(begin);
  wait_for_pipe();
  run(end);
  return 0;
}
