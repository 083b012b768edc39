/* SPDX-License-Identifier: MIT */
/* Ids of cgroups (v2) to their paths, and to names for metrics. */
#ifndef RECLAIM_CGROUP_H
#define RECLAIM_CGROUP_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "comm.h"

#define CGROUP_NAME_SIZE COMM_NAME_SIZE /* bytes of a name with its NUL */
#define CGROUP_PATHS_MAX 16384          /* paths that are remembered */

struct cgroup_paths;

/* A way from ids to paths below `mount`, where a cgroup2 file system is
 * mounted; NULL is the first such mount in /proc/self/mountinfo. Where there
 * is none, or it cannot be opened, nothing is ever found. Keeps one file
 * descriptor open. The caller frees what is returned with cgroup_paths_free;
 * NULL without memory. */
struct cgroup_paths *cgroup_paths_new(const char *mount);
void cgroup_paths_free(struct cgroup_paths *paths); /* NULL is allowed */

/* The path below the mount of the cgroup with this id, as
 * bpf_get_current_cgroup_id gives it: "/" of the root, else "/" and more. NULL
 * where it is not known: removed before it was ever looked for, outside of the
 * mount (seen from inside a container), or nothing to be had at the moment.
 *
 * The id is that of the directory's kernfs node: its inode number, and its
 * file handle (fs/kernfs/mount.c; Linux 5.5, commit 33c5ac9175195). On 64 bit
 * no other cgroup gets it before the next boot: it counts up
 * (__kernfs_new_node in fs/kernfs/dir.c). Hence a path once found stays known
 * when the cgroup is gone; it is not asked for again. Remembered are the
 * CGROUP_PATHS_MAX paths found last, by this function or on the way to others:
 * some 3 MB at most with usual paths.
 *
 * To open a handle takes CAP_DAC_READ_SEARCH. Without it the whole mount is
 * walked through, 64 levels deep, and remembered: 10,000 cgroups in a quarter
 * of a second. After a walk there is none for a second, or for a hundred times
 * as long as it took, whichever is longer; new cgroups are unknown until then.
 *
 * The string is owned by `paths` and lives until the next call. One thread at
 * a time. */
const char *cgroup_paths_find(struct cgroup_paths *paths, uint64_t id);

/* Whether there is a mount, so that anything can be found. */
bool cgroup_paths_are_known(const struct cgroup_paths *paths);

/* The id of the cgroup with this path, which is remembered; 0 if there is none.
 */
uint64_t cgroup_paths_id(struct cgroup_paths *paths, const char *path);

/* Writes where the file system is mounted that `line` of
 * /proc/self/mountinfo is about, and says true, if it is a cgroup2. Spaces
 * and the like stand in that file as \040 (seq_path in fs/seq_file.c). Pure,
 * thread-safe. */
bool cgroup_mount_point(const char *line, char mount[PATH_MAX]);

/* Writes the name for metrics of the cgroup with this path: what a person
 * calls it, in at most 63 bytes out of A-Za-z0-9_-, with `_` at neither end.
 * It is the path with `_` for `/`, less what tells nobody anything:
 *
 *   slices go (/system.slice/nginx.service: nginx), for a unit's name is
 *     unique in its manager; but a slice that is itself asked for stays, and
 *     so does a user's (user-1000), in place of user@1000.service;
 *   .service and .scope go, and what systemd escaped is itself again;
 *   ids of 32 or more hex digits, as containers have, are cut to the 12 that
 *     `docker ps` shows; one that stands alone hangs on its parent by `-`
 *     (/docker/<id>: docker-0123456789ab), and `container` below one, which
 *     crun makes, goes;
 *   a pod of Kubernetes is `pod-` with the first 8 digits of its uid, in place
 *     of all that is above it, and its containers lose their runtime's name
 *     (pod-01234567-0123456789ab).
 *
 * The root is "root". What remains is cleaned by comm_clean: of more than 63
 * bytes the end stays. Paths of different cgroups may give equal names
 * (nginx.service, nginx.scope). Pure, cannot fail, thread-safe. */
void cgroup_name(const char *path, char name[CGROUP_NAME_SIZE]);

#endif
