/* SPDX-License-Identifier: MIT */
/* For an object that is preloaded: defines syscall(3), by which libbpf calls
 * bpf(). Needs _GNU_SOURCE. */
#ifndef RECLAIM_PRELOAD_BPF_H
#define RECLAIM_PRELOAD_BPF_H

#include <dlfcn.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Is asked before each bpf(), by any thread; written by who includes this.
 * Returns 0, or the errno with which the call is to fail. */
static int before_bpf(int command, const union bpf_attr *attr);

long syscall(long number, ...) {
  static long (*next)(long, ...);
  if (!next)
    next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
  va_list args;
  va_start(args, number);
  long a[6];
  for (int i = 0; i < 6; i++)
    a[i] = va_arg(args, long);
  va_end(args);
  int err = number == __NR_bpf
                ? before_bpf((int)a[0], (const union bpf_attr *)a[1])
                : 0;
  if (err != 0) {
    errno = err;
    return -1;
  }
  return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

#endif
