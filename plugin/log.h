/* SPDX-License-Identifier: MIT */
/* How the parts that know nothing of collectd report what went wrong. */
#ifndef RECLAIM_LOG_H
#define RECLAIM_LOG_H

#include <stdarg.h>
#include <stdio.h>

enum log_level { RECLAIM_LOG_ERROR, RECLAIM_LOG_WARNING, RECLAIM_LOG_INFO };

/* Takes one finished line without prefix or line end. `message` is the
 * caller's and lives for the call only. */
typedef void (*log_fn)(enum log_level level, const char *message);

/* Formats one line for `log`; what exceeds 1,023 bytes is cut. Thread-safe if
 * `log` is. */
__attribute__((format(printf, 3, 4))) static inline void
log_printf(log_fn log, enum log_level level, const char *format, ...) {
  char message[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof(message), format, args);
  va_end(args);
  log(level, message);
}

#endif
