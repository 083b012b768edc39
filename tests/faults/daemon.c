/* SPDX-License-Identifier: MIT */
/* Stands in for collectd, and makes calls of the plugin fail:
 *
 *   daemon OBJECT,... FUNCTION,... PLUGIN CGROUP [--weak] OPTION=VALUES...
 *
 * loads PLUGIN with these options, and goes through its life once. Then each
 * line of standard input is one life more, in a process of its own:
 *
 *   STEPS [OBJECT ADDRESS FIRST LAST MODE RESULT ERRNO]...
 *
 * with these faults (struct hook_fault). Prints what came of it, a fact a line,
 * and at last `exit STATUS`, `signal NUMBER` or `hang`. Steps are
 *
 *   m module_register   c configuration   i init   r read   S shutdown
 *   s stalls            h one begins      e it ends
 *   w waits until notifications have come
 *
 * Stalls are made by a task called fault-stall, a thread of fault-leader, in
 * CGROUP. It runs the loaded BPF programs as their tracepoints would
 * (BPF_PROG_TEST_RUN), so that how many there are, and how long they took, is
 * known. With --weak, the plugin has neither CAP_DAC_READ_SEARCH nor
 * CAP_SYS_ADMIN. */
#include "plugin/collectd_api.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "hooks.h"

#define HANG_MS 30000
#define STALLS 7 /* of a step */
#define PAGES 3  /* of a stall */
#define INTERVAL_S 0.25

__attribute__((noreturn)) static void die(const char *what) {
  perror(what);
  exit(2);
}

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void sleep_ms(long ms) {
  nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

/* What the daemon gives to its plugins */

static struct {
  int (*configure)(oconfig_item_t *);
  int (*init)(void);
  int (*read)(void);
  int (*shutdown)(void);
} plugin;

static struct value {
  char identifier[4 * DATA_MAX_NAME_LEN + 4];
  value_t value;
  bool fell;
} values[1024];
static size_t values_num;
static _Atomic unsigned notifications, notified;
static bool quiet;

static char host_name[] = "a-host";
char *hostname_g = host_name;

int plugin_register_complex_config(const char *name,
                                   int (*callback)(oconfig_item_t *)) {
  (void)name;
  plugin.configure = callback;
  return 0;
}

int plugin_register_init(const char *name, plugin_init_cb callback) {
  (void)name;
  plugin.init = callback;
  return 0;
}

int plugin_register_read(const char *name, int (*callback)(void)) {
  (void)name;
  plugin.read = callback;
  return 0;
}

int plugin_register_shutdown(const char *name, plugin_shutdown_cb callback) {
  (void)name;
  plugin.shutdown = callback;
  return 0;
}

plugin_ctx_t plugin_get_ctx(void) { return (plugin_ctx_t){.interval = 1}; }
plugin_ctx_t plugin_set_ctx(plugin_ctx_t ctx) { return ctx; }
cdtime_t plugin_get_interval(void) { return DOUBLE_TO_CDTIME_T(INTERVAL_S); }
cdtime_t cdtime(void) { return NS_TO_CDTIME_T(now_ns()); }

static void log_line(int level, const char *format, va_list args) {
  char line[4096];
  vsnprintf(line, sizeof(line), format, args);
  if (!quiet)
    printf("log %d %s\n", level, line);
}

void daemon_log(int level, const char *format, ...) {
  va_list args;
  va_start(args, format);
  log_line(level, format, args);
  va_end(args);
}

/* As collectd's, but that it says everything each time. */
void c_complain(int level, c_complain_t *complaint, const char *format, ...) {
  complaint->interval = 1;
  va_list args;
  va_start(args, format);
  log_line(level, format, args);
  va_end(args);
}

void c_do_release(int level, c_complain_t *complaint, const char *format, ...) {
  complaint->interval = 0;
  va_list args;
  va_start(args, format);
  log_line(level, format, args);
  va_end(args);
}

int plugin_dispatch_values(value_list_t const *list) {
  char identifier[4 * DATA_MAX_NAME_LEN + 4];
  snprintf(identifier, sizeof(identifier), "%s%s%s/%s-%s", list->plugin,
           list->plugin_instance[0] ? "-" : "", list->plugin_instance,
           list->type, list->type_instance);
  size_t at = 0;
  while (at < values_num && strcmp(values[at].identifier, identifier) != 0)
    at++;
  struct value *value = &values[at];
  if (at == values_num) {
    if (values_num == sizeof(values) / sizeof(*values))
      abort();
    values_num++;
    strcpy(value->identifier, identifier);
  } else if (list->values[0].derive < value->value.derive) {
    value->fell = true; /* of counters; gauges may */
  }
  value->value = list->values[0];
  return 0;
}

static int add_meta(notification_t *notification, notification_meta_t wanted) {
  notification_meta_t *meta = malloc(sizeof(*meta));
  *meta = wanted;
  meta->next = notification->meta;
  notification->meta = meta;
  return 0;
}

int plugin_notification_meta_add_string(notification_t *notification,
                                        const char *name, const char *value) {
  (void)name;
  return add_meta(notification,
                  (notification_meta_t){.nm_value.nm_string = strdup(value)});
}

int plugin_notification_meta_add_unsigned_int(notification_t *notification,
                                              const char *name,
                                              uint64_t value) {
  if (strcmp(name, "stalls") == 0)
    notified += (unsigned)value - 1;
  return add_meta(notification,
                  (notification_meta_t){.type = NM_TYPE_UNSIGNED_INT,
                                        .nm_value.nm_unsigned_int = value});
}

int plugin_notification_meta_free(notification_meta_t *meta) {
  while (meta) {
    notification_meta_t *next = meta->next;
    if (meta->type == NM_TYPE_STRING)
      free((char *)meta->nm_value.nm_string);
    free(meta);
    meta = next;
  }
  return 0;
}

int plugin_dispatch_notification(const notification_t *notification) {
  (void)notification;
  notifications++;
  notified++;
  return 0;
}

/* The configuration, from the command line: KEY=VALUES, split at spaces */

static oconfig_value_t parse_value(char *text) {
  char *end;
  double number = strtod(text, &end);
  if (*text != '\0' && *end == '\0')
    return (oconfig_value_t){.type = OCONFIG_TYPE_NUMBER,
                             .value.number = number};
  if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)
    return (oconfig_value_t){.type = OCONFIG_TYPE_BOOLEAN,
                             .value.boolean = text[0] == 't'};
  return (oconfig_value_t){.type = OCONFIG_TYPE_STRING, .value.string = text};
}

static oconfig_item_t parse_option(char *option) {
  oconfig_item_t item = {.key = strsep(&option, "=")};
  item.values = calloc(8, sizeof(*item.values));
  for (char *text; (text = strsep(&option, " ")) && item.values_num < 8;)
    item.values[item.values_num++] = parse_value(text);
  return item;
}

static oconfig_item_t parse_block(char **options, int num) {
  oconfig_item_t item = {.key = (char *)"Plugin", .children_num = num};
  item.children = calloc((size_t)num + 1, sizeof(*item.children));
  for (int i = 0; i < num; i++)
    item.children[i] = parse_option(options[i]);
  return item;
}

/* Stalls */

/* The truth. */
struct made {
  unsigned stalls;
  uint64_t most_ns, least_ns; /* their time is in between */
};

static pid_t staller;
static int to_staller = -1;
static const char *staller_cgroup;

static int sys_bpf(int command, union bpf_attr *attr) {
  return (int)syscall(__NR_bpf, command, attr, sizeof(*attr));
}

static void run_program(uint32_t id, uint64_t argument) {
  union bpf_attr attr = {.prog_id = id};
  int fd = sys_bpf(BPF_PROG_GET_FD_BY_ID, &attr);
  if (fd < 0)
    return;
  uint64_t args[4] = {argument};
  attr = (union bpf_attr){.test = {.prog_fd = (uint32_t)fd,
                                   .ctx_in = (uintptr_t)args,
                                   .ctx_size_in = sizeof(args)}};
  if (sys_bpf(BPF_PROG_TEST_RUN, &attr) != 0)
    die("BPF_PROG_TEST_RUN");
  close(fd);
}

struct job {
  char what;
  uint32_t begin, end; /* ids of programs */
};

/* A parent waits in state D for a child of vfork, as in reclaim; here until the
 * other end says something. */
static void wait_uninterruptibly(int from) {
  long child = syscall(SYS_clone, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0);
  if (child == 0) {
    struct pollfd wait = {.fd = from, .events = POLLIN};
    poll(&wait, 1, -1);
    _exit(0);
  }
  waitpid((pid_t)child, NULL, 0);
}

static struct made stall(const struct job *job, int from) {
  uint64_t before = now_ns();
  run_program(job->begin, 0);
  uint64_t begun = now_ns();
  if (job->what == 'h') {
    if (write(from, "h", 1) != 1)
      _exit(0);
    wait_uninterruptibly(from);
    char byte;
    if (read(from, &byte, 1) != 1)
      _exit(0);
  }
  uint64_t ending = now_ns();
  run_program(job->end, PAGES);
  return (struct made){
      .stalls = 1, .most_ns = now_ns() - before, .least_ns = ending - begun};
}

static void *serve(void *context) {
  int from = *(int *)context;
  prctl(PR_SET_NAME, "fault-stall");
  struct job job;
  while (read(from, &job, sizeof(job)) == sizeof(job)) {
    struct made all = {0};
    for (int i = 0; i < (job.what == 's' ? STALLS : 1); i++) {
      struct made one = stall(&job, from);
      all.stalls += one.stalls;
      all.most_ns += one.most_ns;
      all.least_ns += one.least_ns;
    }
    if (write(from, &all, sizeof(all)) != sizeof(all))
      break;
  }
  _exit(0);
}

static void start_staller(void) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
    die("socketpair");
  staller = fork();
  if (staller < 0)
    die("fork");
  if (staller == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "fault-leader");
    close(pair[0]);
    char procs[PATH_MAX];
    snprintf(procs, sizeof(procs), "%s/cgroup.procs", staller_cgroup);
    int fd = open(procs, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1)
      die(procs);
    close(fd);
    pthread_t thread;
    pthread_create(&thread, NULL, serve, &pair[1]);
    pthread_join(thread, NULL);
  }
  close(pair[1]);
  to_staller = pair[0];
}

static void end_staller(void) {
  close(to_staller);
  waitpid(staller, NULL, 0);
}

/* This process, as the kernel sees it */

static bool read_link(int fd, char *target, size_t size) {
  char path[64];
  snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
  ssize_t len = readlink(path, target, size - 1);
  target[len > 0 ? len : 0] = '\0';
  return len > 0;
}

#define FDS 1024
static bool had_fd[FDS];

/* Ids of BPF objects that the plugin had. */
static struct object {
  char what; /* 'p'rogram, 'm'ap, 'l'ink */
  uint32_t id;
} objects[FDS];
static size_t objects_num;

static const char *const id_lines[] = {"prog_id:\t%u", "map_id:\t%u",
                                       "link_id:\t%u"};

static void note_objects(int fd) {
  char path[64], line[256];
  snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
  FILE *info = fopen(path, "re");
  if (!info)
    return;
  while (fgets(line, sizeof(line), info))
    for (int i = 0; i < 3; i++) {
      struct object found = {.what = "pml"[i]};
      if (sscanf(line, id_lines[i], &found.id) != 1)
        continue;
      bool known = false;
      for (size_t at = 0; at < objects_num; at++)
        known |= memcmp(&objects[at], &found, sizeof(found)) == 0;
      if (!known && objects_num < FDS)
        objects[objects_num++] = found;
    }
  fclose(info);
}

static void note_fds(void) {
  for (int fd = 0; fd < FDS; fd++)
    had_fd[fd] = fcntl(fd, F_GETFD) >= 0;
}

static void print_fds_left(void) {
  for (int fd = 0; fd < FDS; fd++) {
    char target[256];
    if (!had_fd[fd] && fcntl(fd, F_GETFD) >= 0 &&
        read_link(fd, target, sizeof(target)))
      printf("left fd %s\n", target);
  }
}

/* Other threads than this one: how many, and whether a signal could reach one.
 */
static void print_threads(const char *what) {
  DIR *tasks = opendir("/proc/self/task");
  for (struct dirent *task; (task = readdir(tasks));) {
    char path[300], line[256];
    unsigned long long blocked = 0;
    if (task->d_name[0] == '.' || atoi(task->d_name) == getpid())
      continue;
    snprintf(path, sizeof(path), "/proc/self/task/%s/status", task->d_name);
    FILE *status = fopen(path, "re");
    while (status && fgets(line, sizeof(line), status))
      sscanf(line, "SigBlk: %llx", &blocked);
    if (status)
      fclose(status);
    /* All but KILL and STOP, and what libc keeps for itself. */
    unsigned long long may =
        1ULL << (SIGKILL - 1) | 1ULL << (SIGSTOP - 1) | 3ULL << 31;
    printf("%s thread %s\n", what, (blocked | may) == ~0ULL ? "deaf" : "hears");
  }
  closedir(tasks);
}

/* After each step: what is open must not be inherited. */
static void note_own(char step) {
  for (int fd = 0; fd < FDS; fd++) {
    int flags = had_fd[fd] ? -1 : fcntl(fd, F_GETFD);
    char target[256];
    if (flags < 0)
      continue;
    if (!quiet && !(flags & FD_CLOEXEC) &&
        read_link(fd, target, sizeof(target)))
      printf("inherited %c %s\n", step, target);
    note_objects(fd);
  }
  if (!quiet && step == 'i')
    print_threads("has");
}

/* Descriptors, threads and memory apart, maps may be mapped. */
static void print_mappings_left(void) {
  FILE *maps = fopen("/proc/self/maps", "re");
  char line[512];
  while (fgets(line, sizeof(line), maps))
    if (strstr(line, "bpf-map"))
      printf("left mapping of a BPF map\n");
  fclose(maps);
}

static bool is_in_kernel(const struct object *object) {
  union bpf_attr attr = {.prog_id = object->id};
  int fd = sys_bpf(object->what == 'p'   ? BPF_PROG_GET_FD_BY_ID
                   : object->what == 'm' ? BPF_MAP_GET_FD_BY_ID
                                         : BPF_LINK_GET_FD_BY_ID,
                   &attr);
  if (fd >= 0)
    close(fd);
  return fd >= 0;
}

/* The kernel frees them a little later than it is told to. */
static void print_objects_left(void) {
  int tries = 500;
  for (size_t i = 0; i < objects_num; i++) {
    while (is_in_kernel(&objects[i]) && tries-- > 0)
      sleep_ms(10);
    if (tries <= 0)
      printf("left object %c%u\n", objects[i].what, objects[i].id);
  }
}

static size_t heap_bytes(void) {
  struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

/* `heap`: bytes in use before. */
static void print_what_is_left(size_t heap) {
  printf("heap %zd\n", (ssize_t)(heap_bytes() - heap));
  print_fds_left();
  print_threads("left");
  print_mappings_left();
  print_objects_left();
}

/* The id of the loaded program of this name, or 0. */
static uint32_t find_program(const char *name) {
  for (size_t i = 0; i < objects_num; i++) {
    union bpf_attr attr = {.prog_id = objects[i].id};
    struct bpf_prog_info info = {0};
    int fd =
        objects[i].what == 'p' ? sys_bpf(BPF_PROG_GET_FD_BY_ID, &attr) : -1;
    attr = (union bpf_attr){.info = {.bpf_fd = (uint32_t)fd,
                                     .info_len = sizeof(info),
                                     .info = (uintptr_t)&info}};
    bool found = fd >= 0 && sys_bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) == 0 &&
                 strcmp(info.name, name) == 0;
    if (fd >= 0)
      close(fd);
    if (found)
      return info.id;
  }
  return 0;
}

/* Steps */

static oconfig_item_t block;
static void (*module_register_fn)(void);
static struct made made;
static bool holds, is_weak;

static void add_made(void) {
  struct made more;
  if (read(to_staller, &more, sizeof(more)) != sizeof(more))
    die("the staller has ended");
  made.stalls += more.stalls;
  made.most_ns += more.most_ns;
  made.least_ns += more.least_ns;
}

static void order(char what) {
  struct job job = {.what = what,
                    .begin = find_program("memcg_begin"),
                    .end = find_program("memcg_end")};
  char byte;
  if (job.begin == 0 || job.end == 0)
    return;
  if (write(to_staller, &job, sizeof(job)) != sizeof(job))
    die("the staller has ended");
  if (what == 's') {
    add_made();
    return;
  }
  if (read(to_staller, &byte, 1) != 1)
    die("the staller has ended");
  holds = true;
  sleep_ms(20);
}

static void release(void) {
  if (!holds)
    return;
  if (write(to_staller, "e", 1) != 1)
    die("the staller has ended");
  holds = false;
  add_made();
}

static void wait_for_notifications(void) {
  for (int i = 0; i < 100 && notified < made.stalls; i++)
    sleep_ms(10);
}

/* Root, but for what it takes to open files by their handles; or root again. */
static void be_weak(bool weak) {
  struct __user_cap_header_struct header = {.version =
                                                _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2];
  if (syscall(SYS_capget, &header, data) != 0)
    die("capget");
  data[0].effective = data[0].permitted;
  if (weak)
    data[0].effective &= ~(1U << CAP_DAC_READ_SEARCH | 1U << CAP_SYS_ADMIN);
  if (syscall(SYS_capset, &header, data) != 0)
    die("capset");
}

static int call(char step, int (*callback)(void)) {
  if (!callback)
    return 0;
  be_weak(is_weak);
  int result = callback();
  be_weak(false);
  if (!quiet)
    printf("did %c %d\n", step, result);
  return result;
}

static void take_step(char step) {
  switch (step) {
  case 'm':
    plugin.configure = NULL;
    plugin.init = plugin.read = plugin.shutdown = NULL;
    module_register_fn();
    break;
  case 'c':
    if (plugin.configure)
      plugin.configure(&block);
    break;
  case 'i':
    if (call(step, plugin.init) != 0)
      plugin.read = NULL; /* as collectd does */
    break;
  case 'r':
    call(step, plugin.read);
    break;
  case 'S':
    call(step, plugin.shutdown);
    break;
  case 's':
  case 'h':
    order(step);
    break;
  case 'e':
    release();
    break;
  case 'w':
    wait_for_notifications();
    break;
  default:
    die("no such step");
  }
}

static void print_values(void) {
  for (size_t i = 0; i < values_num; i++) {
    const char *identifier = values[i].identifier;
    bool gauge =
        !strstr(identifier, "/total_") && !strstr(identifier, "/vmpage_");
    if (gauge)
      printf("value %s %g\n", identifier, values[i].value.gauge);
    else
      printf("value %s %lld%s\n", identifier, (long long)values[i].value.derive,
             values[i].fell ? " fell" : "");
  }
}

/* One life in this process. */
static void live(const char *steps, const struct hook_fault *faults,
                 unsigned faults_num) {
  start_staller();
  note_fds();
  objects_num = values_num = 0;
  made = (struct made){0};
  notifications = notified = 0;
  setvbuf(stdout, NULL, _IOLBF, 8192);
  size_t heap = heap_bytes();
  hooks_arm(faults, faults_num);
  for (; *steps; steps++) {
    take_step(*steps);
    note_own(*steps);
  }
  uint64_t fired = hooks_fired();
  if (quiet) {
    end_staller();
    return;
  }
  printf("fired %" PRIu64 "\n", fired);
  hooks_print();
  if (plugin.shutdown)
    print_what_is_left(heap);
  print_values();
  printf("made %u %" PRIu64 " %" PRIu64 "\n", made.stalls, made.least_ns,
         made.most_ns);
  printf("notified %u %u\n", notifications, notified);
  end_staller();
}

/* Lives, each in a process */

static void crash(int number, siginfo_t *info, void *context) {
  (void)info;
  const ucontext_t *at = context;
  uintptr_t address = (uintptr_t)at->uc_mcontext.gregs[REG_RIP];
  Dl_info where = {0};
  dladdr((void *)address, &where);
  printf("crashed %s+%#lx\n", where.dli_fname ? where.dli_fname : "?",
         (unsigned long)(address - (uintptr_t)where.dli_fbase));
  fflush(stdout);
  signal(number, SIG_DFL);
  raise(number);
}

static void watch(pid_t child, int done) {
  struct pollfd end = {.fd = done, .events = POLLIN};
  int status;
  if (poll(&end, 1, HANG_MS) == 0) {
    kill(child, SIGKILL);
    printf("hang\n");
  }
  waitpid(child, &status, 0);
  if (WIFSIGNALED(status))
    printf("signal %d\n", WTERMSIG(status));
  else
    printf("exit %d\n", WEXITSTATUS(status));
  fflush(stdout);
}

static void run(char *line) {
  struct hook_fault faults[4];
  unsigned num = 0;
  char steps[64];
  int used = 0;
  if (sscanf(line, "%63s%n", steps, &used) != 1)
    die("a line without steps");
  for (; num < 4; num++) {
    struct hook_fault *fault = &faults[num];
    int mode, more = 0;
    if (sscanf(line + used,
               " %u %" SCNxPTR " %" SCNu64 " %" SCNu64 " %d %ld %d%n",
               &fault->object, &fault->address, &fault->first, &fault->last,
               &mode, &fault->result, &fault->error, &more) != 7)
      break;
    fault->mode = (enum hook_mode)mode;
    used += more;
  }
  int done[2];
  if (pipe2(done, O_CLOEXEC) != 0)
    die("pipe");
  pid_t child = fork();
  if (child < 0)
    die("fork");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct sigaction action = {.sa_sigaction = crash, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGABRT, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGFPE, &action, NULL);
    live(steps, faults, num);
    exit(0);
  }
  close(done[1]);
  watch(child, done[0]);
  close(done[0]);
}

static void load(char *objects_named, const char *functions, const char *file) {
  void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    fprintf(stderr, "%s\n", dlerror());
    exit(2);
  }
  *(void **)&module_register_fn = dlsym(handle, "module_register");
  for (char *name; (name = strsep(&objects_named, ","));)
    printf("object %s %d\n", name, hooks_install(name, functions));
}

int main(int argc, char **argv) {
  if (argc < 5)
    return 2;
  mallopt(M_ARENA_MAX, 1); /* what mallinfo2 counts */
  load(argv[1], argv[2], argv[3]);
  staller_cgroup = argv[4];
  argv += 5;
  is_weak = *argv && strcmp(*argv, "--weak") == 0;
  argv += is_weak;
  int num = 0;
  while (argv[num])
    num++;
  block = parse_block(argv, num);
  quiet = true; /* what is made once and kept is no leak */
  live("mcisrS", NULL, 0);
  quiet = false;
  char *line = NULL;
  size_t size = 0;
  while (getline(&line, &size, stdin) > 0)
    run(line);
  return 0;
}
