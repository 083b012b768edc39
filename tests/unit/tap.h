/* SPDX-License-Identifier: MIT */
/* A test is a plain main that calls these and ends with `return done();`. */
#ifndef RECLAIM_TAP_H
#define RECLAIM_TAP_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int tap_tests, tap_failures;

__attribute__((format(printf, 2, 3))) static inline bool
ok(bool passed, const char *format, ...) {
  va_list args;
  va_start(args, format);
  printf("%s %d - ", passed ? "ok" : "not ok", ++tap_tests);
  vprintf(format, args);
  putchar('\n');
  fflush(stdout);
  va_end(args);
  tap_failures += !passed;
  return passed;
}

static inline bool is_u64(uint64_t got, uint64_t wanted, const char *what) {
  bool passed = ok(got == wanted, "%s", what);
  if (!passed)
    printf("# got %" PRIu64 ", wanted %" PRIu64 "\n", got, wanted);
  return passed;
}

static inline bool is_str(const char *got, const char *wanted,
                          const char *what) {
  bool passed = ok(strcmp(got, wanted) == 0, "%s", what);
  if (!passed)
    printf("# got \"%s\", wanted \"%s\"\n", got, wanted);
  return passed;
}

/* Leaves out what a machine has no use for, in CI too. */
static inline void skip(const char *what, const char *reason) {
  printf("ok %d - %s # SKIP %s\n", ++tap_tests, what, reason);
}

/* Ends a test that this machine cannot run. Where nothing may be left out
 * (CI=true, and live tests were not switched off), that is a failure. */
__attribute__((noreturn)) static inline void skip_all(const char *reason) {
  const char *ci = getenv("CI"), *live = getenv("RECLAIM_LIVE_TESTS");
  if (ci && strcmp(ci, "true") == 0 && !(live && strcmp(live, "no") == 0)) {
    printf("Bail out! CI must not skip: %s\n", reason);
    exit(1);
  }
  printf("1..0 # SKIP %s\n", reason);
  exit(0);
}

static inline int done(void) {
  printf("1..%d\n", tap_tests);
  return tap_failures > 0;
}

#endif
