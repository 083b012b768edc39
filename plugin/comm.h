/* SPDX-License-Identifier: MIT */
/* Raw comms to names that every store accepts, and to text. Pure. */
#ifndef RECLAIM_COMM_H
#define RECLAIM_COMM_H

#include <stdbool.h>
#include <stddef.h>

#include "bpf/reclaim_shared.h"

#define COMM_NAME_SIZE 64 /* bytes of a name with its NUL, comm or cgroup */

/* Writes the name that `len` raw bytes make, NULs included: every byte
 * outside A-Za-z0-9_- becomes `_`, `_` at either end goes, and "unknown" is
 * where nothing is left. Of more bytes than a name holds, the last count.
 * Cannot fail; thread-safe. */
void comm_clean(const char *raw, size_t len, char name[COMM_NAME_SIZE]);

/* Writes the name of the task whose comm is `comm`: up to RECLAIM_COMM_SIZE
 * raw bytes, ended by the first NUL if there is one. With `fold`, the
 * variable part goes: of a kernel thread (`kthread`) all from the first `/`,
 * `:` or digit, of others a trailing run of digits with the separator before
 * it. The name is 1 to 15 bytes out of A-Za-z0-9_-, begins and ends with
 * neither `_`, and is "unknown" where nothing is left; names that begin with
 * `_` are therefore never a task's. Cannot fail; thread-safe. */
void comm_name(const char comm[RECLAIM_COMM_SIZE], bool kthread, bool fold,
               char name[COMM_NAME_SIZE]);

/* Bytes of an escaped comm with its NUL. */
#define COMM_TEXT_SIZE (4 * RECLAIM_COMM_SIZE + 1)

/* Writes up to `max` raw bytes, ended by the first NUL if there is one, so that
 * they can drive no terminal and forge no line: every byte outside of printable
 * ASCII, and the backslash, becomes \xNN. What does not fit into `size` is left
 * out, whole escapes at a time; 4 * max + 1 is always enough. Thread-safe. */
void comm_escape(const char *bytes, size_t max, char *text, size_t size);

#endif
