/* SPDX-License-Identifier: MIT */
/* What the BPF programs have to know of the running kernel, as its BTF tells
 * it. */
#ifndef RECLAIM_KERNEL_TYPES_H
#define RECLAIM_KERNEL_TYPES_H

#include <stdint.h>

#include "bpf/reclaim_shared.h"

/* The running kernel's own types. */
#define VMLINUX_BTF "/sys/kernel/btf/vmlinux"

struct kernel_types {
  struct reclaim_kernel kernel;
  /* The type id of the function that a write to memory.reclaim runs, or 0: the
   * kernel has none. */
  uint32_t memory_reclaim;
};

/* Reads a file of BTF, raw or in an ELF file; NULL is the running kernel's own.
 * Takes some 15 ms and, while it lasts, 6 MB. Returns 0, a negative errno, or
 * an error of libbpf's (libbpf_strerror); -ENODATA where types are missing that
 * all kernels have, as from a file that was stripped. Thread-safe. */
int kernel_types_read(const char *file, struct kernel_types *types);

#endif
