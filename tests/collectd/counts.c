/* SPDX-License-Identifier: MIT */
/* Preloaded into collectd: counts calls of bpf(), which libbpf makes by
 * syscall(3), and of malloc and its kin by who calls, in the file
 * RECLAIM_COUNTS: 64-bit words, first the calls of bpf() and the bytes that are
 * allocated, then pairs of a return address and its calls, to the first pair of
 * zeros. */
#include <fcntl.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/collectd/preload_bpf.h"

#define CALLERS 8192

static struct counts {
  _Atomic uint64_t bpf, in_use;
  struct {
    _Atomic uint64_t caller, calls;
  } of[CALLERS];
} * counts;

/* glibc's own, by names of its own. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t num, size_t size);
void *__libc_realloc(void *at, size_t size);
void __libc_free(void *at);

__attribute__((constructor)) static void map_counts(void) {
  const char *path = getenv("RECLAIM_COUNTS");
  int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
  if (fd < 0 || ftruncate(fd, sizeof(*counts)) != 0)
    abort();
  void *mapped =
      mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (mapped == MAP_FAILED)
    abort();
  counts = mapped;
}

static void count(void *return_address) {
  uint64_t caller = (uint64_t)(uintptr_t)return_address;
  for (size_t i = 0; counts && i < CALLERS; i++) {
    uint64_t free_place = 0;
    if (counts->of[i].caller == caller ||
        atomic_compare_exchange_strong(&counts->of[i].caller, &free_place,
                                       caller) ||
        free_place == caller) {
      counts->of[i].calls++;
      return;
    }
  }
}

static void use(void *at) {
  if (counts && at)
    counts->in_use += malloc_usable_size(at);
}

static void leave(void *at) {
  if (counts && at)
    counts->in_use -= malloc_usable_size(at);
}

void *malloc(size_t size) {
  count(__builtin_return_address(0));
  void *at = __libc_malloc(size);
  use(at);
  return at;
}

void *calloc(size_t num, size_t size) {
  count(__builtin_return_address(0));
  void *at = __libc_calloc(num, size);
  use(at);
  return at;
}

void *realloc(void *old, size_t size) {
  count(__builtin_return_address(0));
  leave(old);
  void *at = __libc_realloc(old, size);
  use(at || size == 0 ? at : old);
  return at;
}

void free(void *at) {
  leave(at);
  __libc_free(at);
}

static int before_bpf(int command, const union bpf_attr *attr) {
  (void)command, (void)attr;
  if (counts)
    counts->bpf++;
  return 0;
}
