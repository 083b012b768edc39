/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "plugin/host.h"
#include "tests/unit/tap.h"

#define NONE UINT64_MAX

/* A counter that is there, or NONE */
static void is_counter(bool has, uint64_t value, uint64_t wanted,
                       const char *which, const char *behaviour) {
  char what[128];
  snprintf(what, sizeof(what), "%s: %s", behaviour, which);
  is_u64(has ? value : NONE, wanted, what);
  if (!has)
    ok(value == 0, "%s, and it is 0", what);
}

static const struct {
  const char *behaviour;
  const char *text;
  uint64_t allocstall, compact_stall, oom_kill;
} vmstat_cases[] = {
    {"zones are added up",
     "nr_free_pages 1\nallocstall_dma 1\nallocstall_dma32 20\n"
     "allocstall_normal 300\nallocstall_movable 4000\nallocstall_device 50000\n"
     "oom_kill 7\ncompact_stall 9\ncompact_fail 2\n",
     54321, 9, 7},
    {"an old kernel", "pgscan 5\nallocstall 12\n", 12, NONE, NONE},
    {"zeros are counters", "allocstall_normal 0\noom_kill 0\ncompact_stall 0\n",
     0, 0, 0},
    {"no line end behind the last", "oom_kill 3\ncompact_stall 18", NONE, 18,
     3},
    {"all 64 bits", "allocstall_normal 18446744073709551614\n",
     18446744073709551614u, NONE, NONE},
    {"names that only look alike",
     "allocstalls 1\nxallocstall_dma 2\noom_kill_process 3\n"
     "compact_stalls 4\nthp_oom_kill 5\n",
     NONE, NONE, NONE},
    {"a long name",
     "a123456789012345678901234567890123456789012345678901234567"
     "8901234567890 1\noom_kill 2\n",
     NONE, NONE, 2},
    {"lines of something else",
     "\n\nallocstall_dma 1\nallocstall_dma32\n"
     "oom_kill x\n-compact_stall 3\n \n",
     1, NONE, NONE},
    {"no text", "", NONE, NONE, NONE},
};

static void test_vmstat(void) {
  for (size_t i = 0; i < sizeof(vmstat_cases) / sizeof(*vmstat_cases); i++) {
    struct host_account got = {.has_allocstall = false};
    const char *behaviour = vmstat_cases[i].behaviour;
    host_parse_vmstat(vmstat_cases[i].text, &got);
    is_counter(got.has_allocstall, got.allocstall, vmstat_cases[i].allocstall,
               "allocstall", behaviour);
    is_counter(got.has_compact_stall, got.compact_stall,
               vmstat_cases[i].compact_stall, "compact_stall", behaviour);
    is_counter(got.has_oom_kill, got.oom_kill, vmstat_cases[i].oom_kill,
               "oom_kill", behaviour);
  }
}

static const struct {
  const char *behaviour;
  const char *text;
  uint64_t some_us, full_us;
} pressure_cases[] = {
    {"both lines",
     "some avg10=0.00 avg60=1.50 avg300=0.13 total=597312134\n"
     "full avg10=0.00 avg60=0.00 avg300=0.08 total=451419293\n",
     597312134, 451419293},
    {"zeros are totals", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", 0,
     NONE},
    {"full alone", "full avg10=0.00 avg60=0.00 avg300=0.00 total=5", NONE, 5},
    {"lines of something else",
     "\nmany avg10=0.00 avg60=0.00 avg300=0.00 total=5\nsome total=\n", NONE,
     NONE},
    {"no text", "", NONE, NONE},
};

static void test_pressure(void) {
  for (size_t i = 0; i < sizeof(pressure_cases) / sizeof(*pressure_cases);
       i++) {
    struct host_account got = {.has_allocstall = false};
    host_parse_pressure(pressure_cases[i].text, &got);
    is_counter(got.has_psi_some, got.psi_some_us, pressure_cases[i].some_us,
               "some", pressure_cases[i].behaviour);
    is_counter(got.has_psi_full, got.psi_full_us, pressure_cases[i].full_us,
               "full", pressure_cases[i].behaviour);
  }
}

static void write_file(const char *path, const char *text, size_t len) {
  FILE *file = fopen(path, "w");
  if (!file || fwrite(text, 1, len, file) != len || fclose(file) != 0)
    printf("# %s: %s\n", path, strerror(errno));
}

static int read_once(const char *proc, struct host_account *account) {
  struct host host = {-EBADF, -EBADF};
  host_open(&host, proc);
  int err = host_read(&host, account);
  host_close(&host);
  return err;
}

static void test_read(void) {
  char dir[] = "/tmp/test_host.XXXXXX", vmstat[64], folder[64], pressure[64];
  if (!ok(mkdtemp(dir) != NULL, "a directory in place of /proc"))
    return;
  snprintf(vmstat, sizeof(vmstat), "%s/vmstat", dir);
  snprintf(folder, sizeof(folder), "%s/pressure", dir);
  snprintf(pressure, sizeof(pressure), "%s/pressure/memory", dir);

  struct host_account got;
  memset(&got, 0xff, sizeof(got));
  is_u64((uint64_t)-read_once(dir, &got), ENOENT, "no vmstat is an error");
  ok(!got.has_allocstall && !got.has_compact_stall && !got.has_oom_kill &&
         !got.has_psi_some && !got.has_psi_full && got.allocstall == 0,
     "and the account is empty then");

  static const char some[] = "allocstall_dma 3\nallocstall_normal 4\n";
  write_file(vmstat, some, strlen(some));
  memset(&got, 0xff, sizeof(got));
  is_u64((uint64_t)-read_once(dir, &got), 0, "no PSI is no error");
  ok(got.has_allocstall && got.allocstall == 7, "vmstat is read without PSI");
  ok(!got.has_psi_some && !got.has_psi_full && !got.has_oom_kill,
     "nothing of an earlier read stays");

  static const char psi[] = "some avg10=0.00 avg60=0.00 avg300=0.00 total=11\n"
                            "full avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
  mkdir(folder, 0755);
  write_file(pressure, psi, strlen(psi));
  is_u64((uint64_t)-read_once(dir, &got), 0, "both files");
  ok(got.has_psi_some && got.psi_some_us == 11 && got.has_psi_full &&
         got.psi_full_us == 5 && got.has_allocstall,
     "PSI is read beside vmstat");
  write_file(vmstat, psi, strlen(psi));
  write_file(pressure, "", 0);
  ok(read_once(dir, &got) == 0 && !got.has_psi_some,
     "nothing of vmstat's text is taken for PSI");
  unlink(pressure);
  mkdir(pressure, 0755);
  is_u64((uint64_t)-read_once(dir, &got), 0,
         "PSI that cannot be read is no error");

  static char big[32 * 1024];
  memset(big, 'x', sizeof(big));
  memcpy(big + sizeof(big) - 13, "\noom_kill 123", 13);
  write_file(vmstat, big + 1, sizeof(big) - 1);
  ok(read_once(dir, &got) == 0 && got.has_oom_kill && got.oom_kill == 123,
     "a file of nearly 32 KiB is read to its end");
  write_file(vmstat, big, sizeof(big));
  is_u64((uint64_t)-read_once(dir, &got), EFBIG, "a larger one is an error");
  ok(!got.has_oom_kill, "and nothing of it is believed");

  struct host host = {-EBADF, -EBADF};
  host_open(&host, dir);
  write_file(vmstat, some, strlen(some));
  ok(host_read(&host, &got) == 0 && got.allocstall == 7,
     "what a file says is read anew");
  write_file(vmstat, "oom_kill 5\n", strlen("oom_kill 5\n"));
  ok(host_read(&host, &got) == 0 && got.oom_kill == 5 && !got.has_allocstall,
     "each time");
  host_close(&host);
  is_u64((uint64_t)-host_read(&host, &got), EBADF, "until it is closed");
  unlink(vmstat);
  mkdir(vmstat, 0755);
  is_u64((uint64_t)-read_once(dir, &got), EISDIR,
         "a vmstat that cannot be read is an error");

  rmdir(vmstat);
  rmdir(pressure);
  rmdir(folder);
  rmdir(dir);
}

static void test_real(void) {
  FILE *file = fopen("/proc/vmstat", "r");
  if (!file) {
    skip("this host's account", "no /proc/vmstat");
    return;
  }
  char key[64];
  unsigned long long value, compact_stall = 0;
  while (fscanf(file, "%63s %llu", key, &value) == 2)
    if (strcmp(key, "compact_stall") == 0)
      compact_stall = value;
  fclose(file);

  struct host_account got;
  is_u64((uint64_t)-read_once(NULL, &got), 0, "this host's account");
  ok(got.has_allocstall, "this kernel counts direct reclaims");
  is_u64(got.compact_stall, compact_stall, "and compactions");
}

static const struct {
  const char *behaviour;
  uint64_t ended, under_way, begin, end;
  double coverage;
} coverage_cases[] = {
    {"nothing happened", 0, 0, 5, 5, 1},
    {"nothing happened since boot", 0, 0, 0, 0, 1},
    {"all", 10, 0, 5, 15, 1},
    {"half", 5, 0, 5, 15, 0.5},
    {"none", 0, 0, 5, 15, 0},
    {"one ended, another is under way", 1, 1, 5, 7, 1},
    {"all are under way", 0, 3, 5, 8, 1},
    {"more than the kernel shows", 15, 0, 5, 15, 1.5},
    {"stalls where the kernel counted none", 3, 1, 5, 5, 1},
    {"the kernel's counter went back", 3, 0, 5, 4, 1},
    {"numbers as large as can be", UINT64_MAX, 0, 0, UINT64_MAX, 1},
    {"and their sum", UINT64_MAX, UINT64_MAX, 0, UINT64_MAX, 2},
};

static void test_coverage(void) {
  for (size_t i = 0; i < sizeof(coverage_cases) / sizeof(*coverage_cases);
       i++) {
    double got =
        host_coverage(coverage_cases[i].ended, coverage_cases[i].under_way,
                      coverage_cases[i].begin, coverage_cases[i].end);
    if (!ok(got == coverage_cases[i].coverage, "coverage: %s",
            coverage_cases[i].behaviour))
      printf("# got %g\n", got);
  }
}

int main(void) {
  test_vmstat();
  test_pressure();
  test_read();
  test_real();
  test_coverage();
  return done();
}
