/* SPDX-License-Identifier: MIT */
/* Paths of cgroups to names, and where their file system is mounted. */
#include "plugin/cgroup.h"
#include "tests/fuzz/fuzz.h"

static const char plain[] = "0123456789-_"
                            "abcdefghijklmnopqrstuvwxyz"
                            "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

static const char *const parts[] = {
    "/",
    ".slice",
    ".service",
    ".scope",
    "user-1000",
    "user@1000",
    "container",
    "kubepods",
    "pod",
    "docker-",
    "cri-containerd-",
    "\\x2d",
    "0123456789abcdef0123456789abcdef",
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "1a2b3c4d_5e6f_7a8b_9c0d_1e2f3a4b5c6d",
    "nginx"};

/* A path out of parts that mean something, and of any bytes but NUL. */
static char *take_path(struct input *input, size_t size) {
  char *path = calloc(1, size);
  for (size_t used = 0; input->left > 0;) {
    uint8_t form = take_byte(input);
    char byte[2] = {form == 0xff ? (char)take_byte(input) : (char)form, '\0'};
    const char *part = form < 16 ? parts[form] : byte;
    if (used + strlen(part) >= size)
      break;
    used = (size_t)(stpcpy(path + used, part) - path);
  }
  return path;
}

/* Only bytes that mean nothing, each component but a slash apart. */
static bool is_simple(const char *path) {
  return path[0] == '/' && path[1] != '\0' &&
         path[strspn(path, "ghijklmnopqrstuvwxyz-0123456789/")] == '\0' &&
         !strstr(path, "//") && !strstr(path, "pod") &&
         strlen(path) < CGROUP_NAME_SIZE && path[strlen(path) - 1] != '/';
}

static void check_path(const char *path) {
  char name[CGROUP_NAME_SIZE];
  cgroup_name(path, name);
  size_t len = strnlen(name, sizeof(name));
  MUST(len >= 1 && len < sizeof(name));
  MUST(strspn(name, plain) == len);
  MUST(name[0] != '_' && name[len - 1] != '_');
  for (size_t i = 0; i + 32 <= len; i++) /* ids are cut */
    MUST(strspn(name + i, "0123456789abcdef") < 32);
  if (!strstr(name, "pod")) {
    char again[CGROUP_NAME_SIZE];
    cgroup_name(name, again);
    MUST(strcmp(again, name) == 0);
  }
  if (is_simple(path)) {
    size_t digits = 0;
    for (const char *at = path; *at != '\0'; at++)
      digits =
          strspn(at, "0123456789") > digits ? strspn(at, "0123456789") : digits;
    for (size_t i = 0; digits < 32 && i < len; i++)
      MUST(name[i] == (path[i + 1] == '/' ? '_' : path[i + 1]));
  }
}

/* As seq_path in fs/seq_file.c writes it. */
static void check_mount(const char *below_root) {
  char line[4 * 1024 + 256], mount[1024 + 2], found[PATH_MAX];
  snprintf(mount, sizeof(mount), "/%s", below_root);
  char *at = line + sprintf(line, "30 23 0:26 / ");
  for (const char *byte = mount; *byte != '\0'; byte++)
    at += sprintf(at, strchr(" \t\n\\", *byte) ? "\\%03o" : "%c",
                  (unsigned char)*byte);
  char *type = at + sprintf(at, " rw,nosuid shared:4 - ");
  sprintf(type, "cgroup2 cgroup2 rw\n");
  MUST(cgroup_mount_point(line, found));
  MUST(strcmp(found, mount) == 0);
  sprintf(type, "cgroup cgroup rw\n");
  MUST(!cgroup_mount_point(line, found));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct input input = {data, size};
  uint8_t what = take_byte(&input);
  if (what % 4 == 0) {
    char *line = take_text(&input, 1024), mount[PATH_MAX];
    if (cgroup_mount_point(line, mount))
      MUST(strnlen(mount, sizeof(mount)) < sizeof(mount));
    free(line);
  } else if (what % 4 == 1) {
    char *mount = take_text(&input, 1024);
    check_mount(mount);
    free(mount);
  } else {
    char *path = take_path(&input, what & 4 ? 300 : 2 * PATH_MAX);
    check_path(path);
    free(path);
  }
  return 0;
}
