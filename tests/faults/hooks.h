/* SPDX-License-Identifier: MIT */
/* Calls between shared objects, made to fail. An object's calls of imported
 * functions go through its table of jump slots; those of chosen functions are
 * led through here. A site is a call: an object, and the address behind the
 * call instruction. x86-64 only. */
#ifndef RECLAIM_FAULTS_HOOKS_H
#define RECLAIM_FAULTS_HOOKS_H

#include <stdbool.h>
#include <stdint.h>

enum hook_mode {
  HOOK_INSTEAD, /* the function is not called */
  HOOK_AFTER,   /* it does its work, and fails then: close, munmap */
  HOOK_SHORT,   /* its third argument, a size, is 1: read, pread */
  HOOK_NONE,    /* not called, and its sixth argument points to a 0: batches */
  HOOK_PRETEND  /* not called; a new descriptor is what it returns */
};

/* What a site's calls number `first` to `last`, from 1, come to. */
struct hook_fault {
  unsigned object;
  uintptr_t address; /* in the object's own file */
  uint64_t first, last;
  enum hook_mode mode;
  long result;
  int error; /* to errno; 0: it stays */
};

/* Leads the calls of `object`, part of a loaded object's name, that are of
 * functions among `functions` (`,` around each) through here. Returns the
 * object's number, or -1. */
int hooks_install(const char *object, const char *functions);

/* Sets what is to fail from now on, and counts anew. `faults` are copied, at
 * most four. */
void hooks_arm(const struct hook_fault *faults, unsigned num);

/* How many calls were made to fail, or to be short. */
uint64_t hooks_fired(void);

/* Prints `site OBJECT ADDRESS FUNCTION CALLS` of each that was reached. */
void hooks_print(void);

#endif
