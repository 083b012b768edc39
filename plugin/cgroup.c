/* SPDX-License-Identifier: MIT */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cgroup.h"
#include "clock.h"

#define FILEID_KERNFS 0xfe /* include/linux/exportfs.h */
#define CHAINS 16381       /* a prime: ids come in steps */
#define DEPTH_MAX 64       /* of a walk: a file descriptor each */
#define NS_PER_S 1000000000ull

/* Names of cgroups */

#define HEX "0123456789abcdef"

enum { ID_LEAST = 32, ID_SHOWN = 12, UID_SHOWN = 8 };

/* The path as it is rewritten; never longer than the part it was made from. */
struct rewritten {
  char text[PATH_MAX];
  size_t len;
  bool ends_with_pod;
  bool ends_with_id;
};

static void append(struct rewritten *out, char joint, const char *text,
                   size_t len) {
  if (out->len > 0)
    out->text[out->len++] = joint;
  memcpy(out->text + out->len, text, len);
  out->len += len;
}

/* The length of what is before `suffix`, or 0. */
static size_t before(const char *text, const char *suffix) {
  size_t len = strlen(text), suffix_len = strlen(suffix);
  bool has = len > suffix_len && strcmp(text + len - suffix_len, suffix) == 0;
  return has ? len - suffix_len : 0;
}

static bool starts_with(const char *text, const char *prefix) {
  return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* Undoes what unit_name_escape of systemd did: \x2d is `-`. */
static void unescape(const char *raw, size_t len, char *text) {
  size_t used = 0;
  for (size_t i = 0; i < len; i++) {
    unsigned byte;
    bool escaped = len - i >= 4 && raw[i] == '\\' && raw[i + 1] == 'x' &&
                   strspn(raw + i + 2, HEX) >= 2 &&
                   sscanf(raw + i + 2, "%2x", &byte) == 1 && byte != 0;
    text[used++] = escaped ? (char)byte : raw[i];
    i += escaped ? 3 : 0;
  }
  text[used] = '\0';
}

/* Where the uid is in the first `len` bytes of kubepods-burstable-pod<uid>
 * (systemd writes it with `_`) or pod<uid>, or NULL. */
static const char *find_pod_uid(const char *text, size_t len) {
  for (const char *pod = text; (pod = strstr(pod, "pod")); pod += 3) {
    const char *uid = pod + 3;
    size_t uid_len = strspn(uid, HEX "_-");
    if ((pod == text || pod[-1] == '-') && strspn(uid, HEX) >= UID_SHOWN &&
        uid_len >= ID_LEAST && uid + uid_len == text + len)
      return uid;
  }
  return NULL;
}

/* Cuts each id to what is shown of it; whether there was one. */
static bool shorten_ids(char *text) {
  bool any = false;
  for (char *at = text; *at != '\0';) {
    size_t digits = strspn(at, HEX);
    if (digits >= ID_LEAST) {
      any = true;
      memmove(at + ID_SHOWN, at + digits, strlen(at + digits) + 1);
      digits = ID_SHOWN;
    }
    at += digits > 0 ? digits : 1;
  }
  return any;
}

static const char *skip_runtime(const char *text) {
  static const char *const runtimes[] = {"cri-containerd-", "crio-", "docker-"};
  for (size_t i = 0; i < sizeof(runtimes) / sizeof(*runtimes); i++)
    if (starts_with(text, runtimes[i]))
      return text + strlen(runtimes[i]);
  return text;
}

static void append_component(struct rewritten *out, const char *raw, size_t len,
                             bool last) {
  char text[PATH_MAX];
  unescape(raw, len, text);
  size_t slice = before(text, ".slice"), service = before(text, ".service");
  size_t scope = before(text, ".scope");

  const char *uid = find_pod_uid(text, slice ? slice : strlen(text));
  if (uid) {
    *out = (struct rewritten){.len = 0, .ends_with_pod = true};
    append(out, '_', "pod", 3);
    append(out, '-', uid, UID_SHOWN);
    return;
  }

  bool is_user = slice && starts_with(text, "user-");
  bool is_manager = service && starts_with(text, "user@");
  bool is_payload = out->ends_with_id && strcmp(text, "container") == 0;
  if ((slice && !is_user && !last) || (is_manager && !last) || is_payload)
    return;

  if (is_user || service || scope)
    text[slice + service + scope] = '\0';
  out->ends_with_id = shorten_ids(text);
  const char *shown = out->ends_with_pod ? skip_runtime(text) : text;
  out->ends_with_pod = false;
  bool only_id =
      out->ends_with_id && strspn(shown, HEX) == ID_SHOWN && !shown[ID_SHOWN];
  append(out, only_id ? '-' : '_', shown, strlen(shown));
}

void cgroup_name(const char *path, char name[CGROUP_NAME_SIZE]) {
  struct rewritten out = {.len = 0};
  size_t path_len = strlen(path);
  if (path_len >= sizeof(out.text))
    path += path_len - sizeof(out.text) + 1;

  for (path += strspn(path, "/"); *path != '\0';) {
    size_t len = strcspn(path, "/");
    const char *next = path + len + strspn(path + len, "/");
    append_component(&out, path, len, *next == '\0');
    path = next;
  }
  if (out.len == 0)
    append(&out, '_', "root", 4);
  comm_clean(out.text, out.len, name);
}

/* The paths that were found, by id in chains, and by the time of the last use
 * in a ring that begins and ends with `uses` */

struct found {
  struct found *next; /* in its chain */
  struct found *older, *newer;
  uint64_t id;
  char *path; /* behind this */
};

struct cgroup_paths {
  int mount_fd;         /* -1 finds nothing */
  char mount[PATH_MAX]; /* as the kernel writes it */
  uint64_t next_walk_ns;
  size_t num;
  struct found uses;
  struct found *chains[CHAINS];
};

/* The pointer to the path's entry, or to the end of the chain it belongs in */
static struct found **find_link(struct cgroup_paths *paths, uint64_t id) {
  struct found **link = &paths->chains[id % CHAINS];
  while (*link && (*link)->id != id)
    link = &(*link)->next;
  return link;
}

static void unuse(struct found *found) {
  found->older->newer = found->newer;
  found->newer->older = found->older;
}

static void use(struct cgroup_paths *paths, struct found *found) {
  found->newer = &paths->uses;
  found->older = paths->uses.older;
  found->older->newer = found;
  paths->uses.older = found;
}

static void forget(struct cgroup_paths *paths, struct found *found) {
  *find_link(paths, found->id) = found->next;
  unuse(found);
  free(found);
  paths->num--;
}

static const char *recall(struct cgroup_paths *paths, uint64_t id) {
  struct found *found = *find_link(paths, id);
  if (!found)
    return NULL;
  unuse(found);
  use(paths, found);
  return found->path;
}

static void remember(struct cgroup_paths *paths, uint64_t id,
                     const char *path) {
  if (recall(paths, id))
    return;
  size_t size = strlen(path) + 1;
  struct found *found = malloc(sizeof(*found) + size);
  if (!found)
    return;
  if (paths->num == CGROUP_PATHS_MAX)
    forget(paths, paths->uses.newer);
  *found = (struct found){.id = id, .path = (char *)(found + 1)};
  memcpy(found->path, path, size);
  *find_link(paths, id) = found;
  use(paths, found);
  paths->num++;
}

/* The file system */

/* Writes what the kernel calls the file behind `fd`. */
static bool read_path(int fd, char path[PATH_MAX]) {
  char link[32];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
  ssize_t len = readlink(link, path, PATH_MAX);
  if (len < 0 || len == PATH_MAX)
    return false;
  path[len] = '\0';
  return true;
}

/* Without a leading part that is the mount itself, or NULL. */
static const char *below_mount(const struct cgroup_paths *paths,
                               const char *path) {
  size_t len = strlen(paths->mount);
  if (strncmp(path, paths->mount, len) != 0)
    return NULL;
  if (path[len] == '\0')
    return "/";
  return path[len] == '/' ? path + len : NULL;
}

/* 0, with the path remembered where there is one; -errno if the kernel does
 * not let us ask. */
static int open_id(struct cgroup_paths *paths, uint64_t id) {
  union {
    struct file_handle handle;
    /* cppcheck-suppress unusedStructMember; makes room for f_handle */
    char space[sizeof(struct file_handle) + sizeof(id)];
  } by_id = {
      .handle = {.handle_bytes = sizeof(id), .handle_type = FILEID_KERNFS}};
  memcpy(by_id.handle.f_handle, &id, sizeof(id));
  int fd =
      open_by_handle_at(paths->mount_fd, &by_id.handle, O_PATH | O_CLOEXEC);
  if (fd < 0)
    return errno == ESTALE ? 0 : -errno; /* ESTALE: there is none */

  char path[PATH_MAX];
  const char *below = read_path(fd, path) ? below_mount(paths, path) : NULL;
  close(fd);
  /* What was removed since it was opened has a path that leads nowhere: d_path
   * in fs/d_path.c adds " (deleted)". */
  struct stat status;
  if (below && stat(path, &status) == 0)
    remember(paths, id, below);
  return 0;
}

/* Remembers the directory `fd`, which it closes, and `depth` levels below.
 * `path` has `len` bytes and is used further. */
static void walk(struct cgroup_paths *paths, int fd, dev_t device, int depth,
                 char path[PATH_MAX], size_t len) {
  struct stat status;
  DIR *dir = fd < 0 ? NULL : fdopendir(fd);
  if (!dir || fstat(fd, &status) != 0 || status.st_dev != device)
    goto cleanup;
  remember(paths, status.st_ino, len > 0 ? path : "/");

  struct dirent *entry;
  while (depth > 0 && (entry = readdir(dir))) {
    const char *name = entry->d_name;
    size_t name_len = strlen(name);
    if (entry->d_type != DT_DIR || strcmp(name, ".") == 0 ||
        strcmp(name, "..") == 0 || len + 1 + name_len >= PATH_MAX)
      continue;
    path[len] = '/';
    memcpy(path + len + 1, name, name_len + 1);
    walk(paths, openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC), device,
         depth - 1, path, len + 1 + name_len);
  }

cleanup:
  if (dir)
    closedir(dir);
  else if (fd >= 0)
    close(fd);
}

static void walk_if_rested(struct cgroup_paths *paths) {
  uint64_t begin_ns = monotonic_ns();
  struct stat status;
  if (begin_ns < paths->next_walk_ns || fstat(paths->mount_fd, &status) != 0)
    return;

  char path[PATH_MAX] = "";
  walk(paths, openat(paths->mount_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
       status.st_dev, DEPTH_MAX, path, 0);
  uint64_t end_ns = monotonic_ns(), rest_ns = 100 * (end_ns - begin_ns);
  paths->next_walk_ns = end_ns + (rest_ns > NS_PER_S ? rest_ns : NS_PER_S);
}

const char *cgroup_paths_find(struct cgroup_paths *paths, uint64_t id) {
  const char *path = recall(paths, id);
  if (path)
    return path;
  if (open_id(paths, id) != 0)
    walk_if_rested(paths);
  return recall(paths, id);
}

bool cgroup_paths_are_known(const struct cgroup_paths *paths) {
  return paths->mount_fd >= 0;
}

uint64_t cgroup_paths_id(struct cgroup_paths *paths, const char *path) {
  struct stat status;
  const char *below = path + strspn(path, "/");
  if (fstatat(paths->mount_fd, *below ? below : ".", &status, 0) != 0)
    return 0;
  remember(paths, status.st_ino, path);
  return status.st_ino;
}

/* Where it is mounted */

bool cgroup_mount_point(const char *line, char mount[PATH_MAX]) {
  /* mount id, parent's id, device, root, mount point …, `-`, type: proc(5) */
  const char *type = strstr(line, " - ");
  if (!type || !starts_with(type, " - cgroup2 "))
    return false;
  for (int field = 0; field < 4 && line < type; field++)
    line = strchr(line, ' ') + 1;

  size_t used = 0;
  while (line < type && *line != ' ' && used < PATH_MAX - 1) {
    unsigned byte;
    bool escaped = sscanf(line, "\\%3o", &byte) == 1;
    mount[used++] = escaped ? (char)byte : *line;
    line += escaped ? 4 : 1;
  }
  mount[used] = '\0';
  return used > 0;
}

static int open_first_mount(void) {
  FILE *mounts = fopen("/proc/self/mountinfo", "re");
  if (!mounts)
    return -1;
  char *line = NULL, mount[PATH_MAX];
  size_t size = 0;
  int fd = -1;
  while (fd < 0 && getline(&line, &size, mounts) >= 0)
    if (cgroup_mount_point(line, mount))
      fd = open(mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  free(line);
  fclose(mounts);
  return fd;
}

struct cgroup_paths *cgroup_paths_new(const char *mount) {
  struct cgroup_paths *paths = calloc(1, sizeof(*paths));
  if (!paths)
    return NULL;
  paths->uses.older = paths->uses.newer = &paths->uses;
  paths->mount_fd = mount ? open(mount, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                          : open_first_mount();
  if (paths->mount_fd >= 0 && !read_path(paths->mount_fd, paths->mount)) {
    close(paths->mount_fd);
    paths->mount_fd = -1;
  }
  return paths;
}

void cgroup_paths_free(struct cgroup_paths *paths) {
  if (!paths)
    return;
  struct found *newer;
  for (struct found *found = paths->uses.newer; found != &paths->uses;
       found = newer) {
    newer = found->newer;
    free(found);
  }
  if (paths->mount_fd >= 0)
    close(paths->mount_fd);
  free(paths);
}
