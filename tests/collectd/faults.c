/* SPDX-License-Identifier: MIT */
/* Preloaded into collectd: makes bpf() fail, which libbpf calls by syscall(3).
 *
 *   RECLAIM_FAULT="COMMAND ERRNO FILE"
 *
 * The bpf command of this number fails with this errno as long as FILE exists;
 * FILE "once" is for the first object that loads a large program (libbpf tries
 * twice, for the verifier's log), FILE "direct" for each call that names a
 * tracepoint of kind direct. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/collectd/preload_bpf.h"

static int fault_command = -1, fault_errno;
static char fault_file[256];
static int tries = 2;

__attribute__((constructor)) static void read_fault(void) {
  const char *fault = getenv("RECLAIM_FAULT");
  if (!fault || sscanf(fault, "%d %d %255s", &fault_command, &fault_errno,
                       fault_file) != 3)
    abort();
}

static bool must_fail(int command, const union bpf_attr *attr) {
  if (command != fault_command)
    return false;
  if (strcmp(fault_file, "once") == 0)
    return attr->insn_cnt > 50 && tries-- > 0;
  if (strcmp(fault_file, "direct") == 0)
    return strstr((const char *)(unsigned long)attr->raw_tracepoint.name,
                  "direct") != NULL;
  return access(fault_file, F_OK) == 0;
}

static int before_bpf(int command, const union bpf_attr *attr) {
  return must_fail(command, attr) ? fault_errno : 0;
}
