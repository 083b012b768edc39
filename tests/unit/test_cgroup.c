/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "plugin/cgroup.h"
#include "tests/unit/tap.h"

/* Names */

#define ID_A "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define ID_B "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
#define ID_32 "0123456789abcdef0123456789abcdef"
#define ID_31 "0123456789abcdef0123456789abcde"
#define UID_SYSTEMD "1a2b3c4d_5e6f_4a1b_8c2d_0123456789ab"
#define UID_CGROUPFS "1a2b3c4d-5e6f-4a1b-8c2d-0123456789ab"
#define POD_SLICE                                                              \
  "/kubepods.slice/kubepods-burstable.slice/"                                  \
  "kubepods-burstable-pod" UID_SYSTEMD ".slice"
#define USER_SLICE "/user.slice/user-1000.slice"
#define X60 "123456789-123456789-123456789-123456789-123456789-123456789-"

static const struct {
  const char *behaviour;
  const char *path;
  const char *name;
} name_cases[] = {
    {"the root", "/", "root"},
    {"no path at all", "", "root"},
    {"a cgroup of somebody's own", "/batch", "batch"},
    {"a path is its components", "/batch/job/7", "batch_job_7"},
    {"slashes that mean nothing", "//batch//job/", "batch_job"},

    {"a service", "/system.slice/nginx.service", "nginx"},
    {"the init of the host", "/init.scope", "init"},
    {"a slice above a service",
     "/system.slice/system-postgresql.slice/postgresql@14-main.service",
     "postgresql_14-main"},
    {"a template's instance",
     "/system.slice/system-getty.slice/getty@tty1.service", "getty_tty1"},
    {"a delegated service's own cgroups",
     "/system.slice/slurmstepd.scope/job_12/step_0",
     "slurmstepd_job_12_step_0"},
    {"a mount unit is not a service", "/system.slice/tmp.mount", "tmp_mount"},
    {"a slice itself", "/system.slice", "system_slice"},
    {"a slice in a slice", "/tenant.slice/tenant-a.slice", "tenant-a_slice"},
    {"escaped hyphens",
     "/machine.slice/machine-qemu\\x2d1\\x2ddb.scope/libvirt/emulator",
     "machine-qemu-1-db_libvirt_emulator"},
    {"escaped bytes are cleaned", "/a\\x2fb\\xffc", "a_b_c"},
    {"what only looks escaped", "/a\\x2/2d\\xzzb\\x00c", "a_x2_2d_xzzb_x00c"},
    {"half an escape", "/a\\x2zb", "a_x2zb"},
    {"nothing but a suffix", "/.service", "service"},
    {"nothing but dots", "/../..", "unknown"},
    {"not a unit's suffix", "/myservice/xscope", "myservice_xscope"},
    {"a suffix in the middle", "/a.service.d", "a_service_d"},

    {"a user's session", USER_SLICE "/session-3.scope", "user-1000_session-3"},
    {"a user's application",
     USER_SLICE "/user@1000.service/app.slice/app-firefox-1234.scope",
     "user-1000_app-firefox-1234"},
    {"a user's init is not the host's",
     USER_SLICE "/user@1000.service/init.scope", "user-1000_init"},
    {"a user's slice itself", USER_SLICE, "user-1000"},
    {"a user's manager itself", USER_SLICE "/user@1000.service",
     "user-1000_user_1000"},
    {"a user's other services", USER_SLICE "/user-runtime-dir@1000.service",
     "user-1000_user-runtime-dir_1000"},

    {"docker by systemd", "/system.slice/docker-" ID_A ".scope",
     "docker-0123456789ab"},
    {"docker by cgroupfs", "/docker/" ID_A, "docker-0123456789ab"},
    {"docker's daemon", "/system.slice/docker.service", "docker"},
    {"podman", "/machine.slice/libpod-" ID_A ".scope/container",
     "libpod-0123456789ab"},
    {"podman's monitor is not the container",
     "/machine.slice/libpod-conmon-" ID_A ".scope",
     "libpod-conmon-0123456789ab"},
    {"podman of a user",
     USER_SLICE "/user@1000.service/user.slice/libpod-" ID_A ".scope/container",
     "user-1000_libpod-0123456789ab"},
    {"a container's services", "/docker/" ID_A "/system.slice/nginx.service",
     "docker-0123456789ab_nginx"},
    {"a container in a container", "/docker/" ID_A "/docker/" ID_B,
     "docker-0123456789ab_docker-fedcba987654"},
    {"an id at the top", "/" ID_A, "0123456789ab"},
    {"ids that hang on ids", "/ecs/" ID_32 "/" ID_A,
     "ecs-0123456789ab-0123456789ab"},
    {"too short for an id", "/docker/" ID_31, "docker_" ID_31},
    {"an id with a tail", "/docker/" ID_A "-x", "docker_0123456789ab-x"},
    {"an id in front of another", "/" ID_A "." ID_B,
     "0123456789ab_fedcba987654"},
    {"container alone", "/lxc/container", "lxc_container"},
    {"LXC", "/lxc.payload.web/system.slice/cron.service",
     "lxc_payload_web_cron"},

    {"a pod by systemd", POD_SLICE, "pod-1a2b3c4d"},
    {"a pod by cgroupfs", "/kubepods/burstable/pod" UID_CGROUPFS,
     "pod-1a2b3c4d"},
    {"a guaranteed pod", "/kubepods.slice/kubepods-pod" UID_SYSTEMD ".slice",
     "pod-1a2b3c4d"},
    {"a static pod", "/kubepods/besteffort/podfedc" ID_32 "/" ID_A,
     "pod-fedc0123-0123456789ab"},
    {"containerd in a pod", POD_SLICE "/cri-containerd-" ID_A ".scope",
     "pod-1a2b3c4d-0123456789ab"},
    {"CRI-O in a pod", POD_SLICE "/crio-" ID_A ".scope/container",
     "pod-1a2b3c4d-0123456789ab"},
    {"docker in a pod", POD_SLICE "/docker-" ID_A ".scope",
     "pod-1a2b3c4d-0123456789ab"},
    {"CRI-O's monitor is not the container",
     POD_SLICE "/crio-conmon-" ID_A ".scope",
     "pod-1a2b3c4d_conmon-0123456789ab"},
    {"a container of a pod by cgroupfs",
     "/kubepods/burstable/pod" UID_CGROUPFS "/" ID_A,
     "pod-1a2b3c4d-0123456789ab"},
    {"docker inside a pod's container",
     POD_SLICE "/" ID_A "/docker-" ID_B ".scope",
     "pod-1a2b3c4d-0123456789ab_docker-fedcba987654"},
    {"a pod of a node that is a container",
     "/docker/" ID_B "/kubelet.slice/kubelet-kubepods-pod" UID_SYSTEMD
     ".slice/cri-containerd-" ID_A ".scope",
     "pod-1a2b3c4d-0123456789ab"},
    {"all burstable pods", "/kubepods.slice/kubepods-burstable.slice",
     "kubepods-burstable_slice"},
    {"all burstable pods by cgroupfs", "/kubepods/burstable",
     "kubepods_burstable"},
    {"libpod is not a pod", "/libpod" UID_CGROUPFS, "libpod" UID_CGROUPFS},
    {"too short for a pod's uid", "/pod1a2b3c4d", "pod1a2b3c4d"},
    {"a pod's uid ends its component", "/pod" UID_CGROUPFS "x",
     "pod" UID_CGROUPFS "x"},
    {"a pod's uid begins with digits", "/pod-" UID_CGROUPFS,
     "pod-" UID_CGROUPFS},

    {"63 bytes stay", "/abc" X60, "abc" X60},
    {"of a longer name the end stays", "/first/abc" X60, "abc" X60},
    {"bytes that no store takes", "/a b\n\xff/c:d", "a_b___c_d"},
};

static bool is_safe(const char *name) {
  size_t len = strlen(name);
  return len >= 1 && len < CGROUP_NAME_SIZE &&
         strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                      "0123456789_-") == len &&
         name[0] != '_' && name[len - 1] != '_';
}

/* Paths of pieces that mean something, put together at random */
static bool any_path_is_safe(void) {
  static const char *const pieces[] = {
      "/",   "//",        ".slice", ".service", ".scope", "user@", "user-",
      "pod", "-",         "_",      "\\x2d",    "\\x",    "\xff",  "container",
      ID_A,  UID_SYSTEMD, X60,      "docker-",  "crio-",  "a",     "1",
  };
  unsigned seed = 1;
  for (int i = 0; i < 100000; i++) {
    char path[3 * PATH_MAX] = "", name[CGROUP_NAME_SIZE];
    size_t num = i % 100 == 0 ? 400 : (size_t)i % 20;
    for (size_t j = 0, len = 0; j < num && len < sizeof(path) - 80; j++) {
      seed = seed * 1103515245 + 12345;
      const char *piece =
          pieces[(seed >> 16) % (sizeof(pieces) / sizeof(*pieces))];
      strcpy(path + len, piece);
      len += strlen(piece);
    }
    cgroup_name(path, name);
    if (!is_safe(name)) {
      printf("# %s became \"%s\"\n", path, name);
      return false;
    }
  }
  return true;
}

static void test_names(void) {
  for (size_t i = 0; i < sizeof(name_cases) / sizeof(*name_cases); i++) {
    char name[CGROUP_NAME_SIZE];
    cgroup_name(name_cases[i].path, name);
    is_str(name, name_cases[i].name, name_cases[i].behaviour);
  }
  ok(any_path_is_safe(), "any path gives a safe name");

  /* The end is in the part that is looked at, and its beginning is not. */
  static char path[5 * PATH_MAX];
  memset(path, 'x', sizeof(path));
  strcpy(path + sizeof(path) - 8, "/a.slice" + 1);
  path[sizeof(path) - 9] = '/';
  char name[CGROUP_NAME_SIZE];
  cgroup_name(path, name);
  is_str(name + strlen(name) - 8, "_a_slice", "a path that is far too long");
}

/* Where cgroup2 is mounted */

static const struct {
  const char *behaviour;
  const char *line;
  const char *mount; /* NULL: it is not */
} mount_cases[] = {
    {"a cgroup2",
     "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
     "/sys/fs/cgroup/unified"},
    {"a cgroup2 with optional fields",
     "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 master:1 - cgroup2 none "
     "rw,nsdelegate\n",
     "/sys/fs/cgroup"},
    {"escaped bytes", "1 2 0:3 / /a\\040b\\134c\\011 rw - cgroup2 none rw\n",
     "/a b\\c\t"},
    {"a cgroup of version 1",
     "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", NULL},
    {"another file system from a device cgroup2",
     "35 31 0:32 / /mnt rw - ext4 cgroup2 rw\n", NULL},
    {"a type that begins alike", "1 2 0:3 / /mnt rw - cgroup22 none rw\n",
     NULL},
    {"a line that ends early", " - cgroup2 ", NULL},
    {"a line without a mount point", "1 2 - cgroup2 none rw", NULL},
    {"no line", "", NULL},
};

static void test_mount_points(void) {
  for (size_t i = 0; i < sizeof(mount_cases) / sizeof(*mount_cases); i++) {
    char mount[PATH_MAX] = "";
    bool is = cgroup_mount_point(mount_cases[i].line, mount);
    is_str(is ? mount : "(none)",
           mount_cases[i].mount ? mount_cases[i].mount : "(none)",
           mount_cases[i].behaviour);
  }
}

/* Paths */

static bool is_path(struct cgroup_paths *paths, uint64_t id, const char *wanted,
                    const char *behaviour) {
  const char *path = cgroup_paths_find(paths, id);
  return is_str(path ? path : "(none)", wanted ? wanted : "(none)", behaviour);
}

static uint64_t inode(const char *dir, const char *below) {
  char path[PATH_MAX];
  struct stat status = {.st_ino = 0};
  snprintf(path, sizeof(path), "%s%s", dir, below);
  if (stat(path, &status) != 0)
    printf("# %s: %s\n", path, strerror(errno));
  return status.st_ino;
}

/* Returns its inode, 0 if it cannot be made. */
static uint64_t make(const char *dir, const char *below) {
  char path[PATH_MAX];
  snprintf(path, sizeof(path), "%s%s", dir, below);
  return mkdir(path, 0755) == 0 ? inode(dir, below) : 0;
}

static void remove_dir(const char *dir, const char *below) {
  char path[PATH_MAX];
  snprintf(path, sizeof(path), "%s%s", dir, below);
  rmdir(path);
}

static double now_s(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void sleep_s(double s) {
  struct timespec time = {.tv_sec = (time_t)s,
                          .tv_nsec = (long)((s - (double)(time_t)s) * 1e9)};
  nanosleep(&time, NULL);
}

/* Takes the right to open handles away from this process, so that it walks. */
static bool give_up_handles(void) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2];
  if (syscall(SYS_capget, &header, data) != 0)
    return false;
  data[0].effective &= ~(1u << CAP_DAC_READ_SEARCH);
  return syscall(SYS_capset, &header, data) == 0;
}

/* Moves a directory beside the mount: no later one gets its inode. */
static void take_away(const char *dir, const char *below) {
  char path[PATH_MAX], away[PATH_MAX];
  snprintf(path, sizeof(path), "%s%s", dir, below);
  snprintf(away, sizeof(away), "%s/..%s", dir, strrchr(below, '/'));
  rename(path, away);
}

/* Right if the walk before began at `begin_s`, and less than `rest_s` ago. */
static void is_not_walked_for(struct cgroup_paths *paths, uint64_t id,
                              double begin_s, double rest_s,
                              const char *behaviour) {
  bool found = cgroup_paths_find(paths, id) != NULL;
  if (now_s() - begin_s < rest_s)
    ok(!found, "%s", behaviour);
  else
    skip(behaviour, "this machine is too slow, or too fast, to tell");
}

enum { FLOOD = CGROUP_PATHS_MAX - 6, EARLY = 10 };

static const char *numbered(const char *prefix, int i) {
  static char name[64];
  snprintf(name, sizeof(name), "%s%d", prefix, i);
  return name;
}

static void test_walk(const char *top) {
  make(top, "/mount");
  char dir[256], file[300], link[300];
  snprintf(dir, sizeof(dir), "%s/mount", top);
  uint64_t a = make(dir, "/a"), b = make(dir, "/a/b c");
  snprintf(file, sizeof(file), "%s/a/cgroup.procs", dir);
  close(open(file, O_CREAT | O_WRONLY, 0644));
  uint64_t file_id = inode(dir, "/a/cgroup.procs");
  snprintf(link, sizeof(link), "%s/a/link", dir);
  ok(symlink("..", link) == 0, "a link that a walk must not follow");
  uint64_t early[EARLY];
  for (int i = 0; i < EARLY; i++)
    early[i] = make(dir, numbered("/early", i));

  struct cgroup_paths *paths = cgroup_paths_new(dir);
  double begin_s = now_s();
  is_path(paths, b, "/a/b c", "a walk finds what is below");
  is_path(paths, inode(dir, ""), "/", "a walk finds the root");
  is_path(paths, a, "/a", "a walk remembers what it met on its way");
  is_path(paths, file_id, NULL, "files are not cgroups");
  sleep_s(0.1);
  uint64_t late = make(dir, "/late");
  is_not_walked_for(paths, late, begin_s, 1,
                    "no second walk within the same second");
  take_away(dir, "/a/b c");
  is_path(paths, b, "/a/b c", "what was found stays known when it is gone");

  /* Nearly as many as are remembered: most of the early ones go for them. */
  for (int i = 0; i < EARLY; i++)
    take_away(dir, numbered("/early", i));
  uint64_t *flood = calloc(FLOOD, sizeof(*flood));
  for (int i = 0; i < FLOOD; i++)
    flood[i] = make(dir, numbered("/flood", i));
  sleep_s(1.1);
  cgroup_paths_find(paths, early[0]);
  cgroup_paths_find(paths, early[EARLY - 1]);
  uint64_t latest = make(dir, "/latest");
  begin_s = now_s();
  is_path(paths, latest, "/latest",
          "a second later there is a walk, but not for what is known");
  double walk_s = now_s() - begin_s;

  uint64_t too_late = make(dir, "/too late");
  sleep_s(1.1);
  is_not_walked_for(paths, too_late, begin_s, 80 * walk_s,
                    "after a long walk comes a long rest");

  ok(cgroup_paths_find(paths, early[0]) &&
         cgroup_paths_find(paths, early[EARLY - 1]),
     "what was used last stays known");
  uint64_t known = 0;
  for (int i = 0; i < EARLY; i++)
    known += cgroup_paths_find(paths, early[i]) != NULL;
  known += cgroup_paths_find(paths, b) != NULL;
  /* The walk met the root, a, late, latest and the flood. */
  is_u64(known, CGROUP_PATHS_MAX - FLOOD - 4, "what was not used lately goes");
  known = 0;
  for (int i = 0; i < FLOOD; i++)
    known += cgroup_paths_find(paths, flood[i]) != NULL;
  is_u64(known, FLOOD, "all that the walk met is known");
  cgroup_paths_free(paths);

  for (int i = 0; i < FLOOD; i++)
    remove_dir(dir, numbered("/flood", i));
  for (int i = 0; i < EARLY; i++)
    remove_dir(top, numbered("/early", i));
  free(flood);
  unlink(file);
  unlink(link);
  remove_dir(top, "/b c");
  remove_dir(dir, "/late");
  remove_dir(dir, "/latest");
  remove_dir(dir, "/too late");
  remove_dir(dir, "/a");
  remove_dir(dir, "");
}

static void test_deep_walk(const char *dir) {
  char below[256] = "";
  uint64_t id[70];
  for (int i = 0; i < 70; i++) {
    strcat(below, "/d");
    id[i] = make(dir, below);
  }
  struct cgroup_paths *paths = cgroup_paths_new(dir);
  ok(cgroup_paths_find(paths, id[63]), "a walk goes 64 levels deep");
  ok(!cgroup_paths_find(paths, id[64]), "and no deeper");
  cgroup_paths_free(paths);
  for (; below[0] != '\0'; below[strlen(below) - 2] = '\0')
    remove_dir(dir, below);
}

static void test_real(const char *mount) {
  struct cgroup_paths *paths = cgroup_paths_new(NULL);
  is_path(paths, inode(mount, ""), "/", "the real root");

  char name[64], inner[80];
  snprintf(name, sizeof(name), "/reclaim test %d (deleted)", (int)getpid());
  snprintf(inner, sizeof(inner), "%s/inner", name);
  uint64_t id = make(mount, name), inner_id = id ? make(mount, inner) : 0;
  if (inner_id == 0) {
    skip("real cgroups", "cgroups cannot be made here");
  } else {
    is_path(paths, id, name, "a real cgroup, whatever it is called");
    remove_dir(mount, inner);
    remove_dir(mount, name);
    is_path(paths, id, name, "it stays known when it is gone");
    is_path(paths, inner_id, NULL, "one that was gone before it was asked for");
  }
  is_path(paths, 0, NULL, "an id that no cgroup has");
  cgroup_paths_free(paths);
}

static bool find_mount(char mount[PATH_MAX]) {
  FILE *mounts = fopen("/proc/self/mountinfo", "r");
  char line[3 * PATH_MAX];
  bool is = false;
  while (mounts && !is && fgets(line, sizeof(line), mounts))
    is = cgroup_mount_point(line, mount);
  if (mounts)
    fclose(mounts);
  return is;
}

static void test_ids(void) {
  char mount[] = "/tmp/reclaim-cgroup-XXXXXX", inner[64];
  struct stat root, child;
  if (!mkdtemp(mount))
    abort();
  snprintf(inner, sizeof(inner), "%s/a", mount);
  mkdir(inner, 0700);
  stat(mount, &root);
  stat(inner, &child);
  struct cgroup_paths *paths = cgroup_paths_new(mount);
  ok(cgroup_paths_are_known(paths), "a mount is known");
  is_u64(cgroup_paths_id(paths, "/a"), child.st_ino, "a path has an id");
  is_u64(cgroup_paths_id(paths, "/"), root.st_ino, "so has the root");
  is_u64(cgroup_paths_id(paths, "/b"), 0, "what is not there has none");
  rmdir(inner);
  is_str(cgroup_paths_find(paths, child.st_ino), "/a",
         "a path once asked for stays known");
  cgroup_paths_free(paths);
  rmdir(mount);
  paths = cgroup_paths_new("/nonexistent");
  ok(!cgroup_paths_are_known(paths) && cgroup_paths_id(paths, "/a") == 0,
     "without a mount there is none");
  cgroup_paths_free(paths);
}

int main(void) {
  test_ids();
  test_names();
  test_mount_points();

  struct cgroup_paths *paths = cgroup_paths_new("/nowhere/at all");
  is_path(paths, 1, NULL, "nothing is found where nothing is mounted");
  cgroup_paths_free(paths);
  cgroup_paths_free(NULL);

  char mount[PATH_MAX];
  if (find_mount(mount))
    test_real(mount);
  else
    skip("real cgroups", "no cgroup2 is mounted");

  /* Thousands of directories are soon made where that is memory. */
  char dir[64] = "/dev/shm";
  if (access(dir, W_OK) != 0)
    strcpy(dir, "/tmp");
  strcat(dir, "/test_cgroup.XXXXXX");
  if (!ok(mkdtemp(dir) && give_up_handles(), "a directory to walk through"))
    return done();
  test_walk(dir);
  test_deep_walk(dir);
  rmdir(dir);
  return done();
}
