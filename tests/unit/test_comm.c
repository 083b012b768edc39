/* SPDX-License-Identifier: MIT */
#include "plugin/comm.h"
#include "tests/unit/tap.h"

struct name_case {
  const char *behaviour;
  const char *comm;
  bool kthread;
  bool fold;
  const char *name;
};

#define USER false
#define KTHREAD true
#define PLAIN false
#define FOLD true

static const struct name_case cases[] = {
    {"a plain comm stays", "stress-ng-vm", USER, FOLD, "stress-ng-vm"},
    {"15 bytes stay", "abcdefghijklmno", USER, FOLD, "abcdefghijklmno"},
    {"16 bytes without NUL stay", "abcdefghijklmnop", USER, FOLD,
     "abcdefghijklmnop"},
    {"15 bytes with a slash", "/usr/bin/abcdef", USER, FOLD, "usr_bin_abcdef"},
    {"dots and colons go", "a.b:c", USER, FOLD, "a_b_c"},
    {"spaces and quotes go", "Web \"Con'tent", USER, FOLD, "Web__Con_tent"},
    {"a newline goes", "x\nSeverity: OK", USER, FOLD, "x_Severity__OK"},
    {"invalid UTF-8 goes",
     "a\xff\xfe"
     "b",
     USER, FOLD, "a__b"},
    {"nothing but invalid UTF-8", "\xff\xfe", USER, FOLD, "unknown"},
    {"path pieces cannot climb", "../../etc", USER, FOLD, "etc"},
    {"format strings are letters", "%s%n", USER, FOLD, "s_n"},
    {"empty", "", USER, FOLD, "unknown"},
    {"only underscores", "____", USER, FOLD, "unknown"},
    {"_other is not a task's to have", "_other", USER, FOLD, "other"},
    {"underscores at the ends go", "__a_b__", USER, FOLD, "a_b"},
    {"NUL ends the comm", "abc\0def", USER, FOLD, "abc"},

    {"a thread's number goes", "Thread-12", USER, FOLD, "Thread"},
    {"one number goes, not two", "pool-1-2", USER, FOLD, "pool-1"},
    {"a number without separator stays", "python3", USER, FOLD, "python3"},
    {"number after underscore", "worker_7", USER, FOLD, "worker"},
    {"number after hash", "C2 #0", USER, FOLD, "C2"},
    {"number after slash", "rcu/3", USER, FOLD, "rcu"},
    {"number after dot", "a.12", USER, FOLD, "a"},
    {"number after space", "GC Thread 3", USER, FOLD, "GC_Thread"},
    {"number after colon", "kworker/1:2", USER, FOLD, "kworker_1"},
    {"nothing but a number", "1234", USER, FOLD, "1234"},
    {"a separator and a number", "-12", USER, FOLD, "unknown"},
    {"no folding when it is off", "Thread-12", USER, PLAIN, "Thread-12"},

    {"a kernel worker", "kworker/u8:3", KTHREAD, FOLD, "kworker"},
    {"a kernel thread per CPU", "ksoftirqd/0", KTHREAD, FOLD, "ksoftirqd"},
    {"a kernel thread per node", "kswapd0", KTHREAD, FOLD, "kswapd"},
    {"a kernel thread by device", "jbd2/sda1-8", KTHREAD, FOLD, "jbd"},
    {"a kernel thread unfolded", "kworker/u8:3", KTHREAD, PLAIN,
     "kworker_u8_3"},
    {"a kernel thread that starts with a digit", "9p-client", KTHREAD, FOLD,
     "unknown"},
    {"a kernel thread without number", "kcompactd", KTHREAD, FOLD, "kcompactd"},
};

#define DIGITS_60 "123456789-123456789-123456789-123456789-123456789-123456789-"
static const struct {
  const char *behaviour;
  const char *raw;
  size_t len;
  const char *name;
} clean_cases[] = {
    {"no bytes", "abc", 0, "unknown"},
    {"bytes behind the length do not count", "abcdef", 3, "abc"},
    {"a NUL is a byte like others", "a\0b", 3, "a_b"},
    {"63 bytes stay", "abc" DIGITS_60, 63, "abc" DIGITS_60},
    {"of 64 bytes the last 63 stay", "Xabc" DIGITS_60, 64, "abc" DIGITS_60},
    {"a cut name begins with no underscore", "X..c" DIGITS_60, 64,
     "c" DIGITS_60},
    {"what goes at the end makes room", "abc" DIGITS_60 "...", 66,
     "abc" DIGITS_60},
};

static void copy_comm(char comm[RECLAIM_COMM_SIZE], const char *text) {
  /* Bytes after the NUL are garbage on purpose. */
  memset(comm, 'Z', RECLAIM_COMM_SIZE);
  for (size_t i = 0; i < RECLAIM_COMM_SIZE; i++) {
    comm[i] = text[i];
    if (text[i] == '\0')
      break;
  }
}

static bool is_safe(const char *name) {
  size_t len = strlen(name);
  return len >= 1 && len <= RECLAIM_COMM_SIZE &&
         strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                      "0123456789_-") == len &&
         name[0] != '_' && name[len - 1] != '_';
}

/* Every byte at every place of comms of every length. */
static bool all_bytes_are_safe(void) {
  for (int byte = 0; byte < 256; byte++)
    for (size_t at = 0; at < RECLAIM_COMM_SIZE; at++)
      for (int kind = 0; kind < 4; kind++) {
        char comm[RECLAIM_COMM_SIZE], name[COMM_NAME_SIZE];
        memset(comm, at % 2 ? 'a' : '_', sizeof(comm));
        comm[at] = (char)byte;
        comm_name(comm, kind & 1, kind & 2, name);
        if (!is_safe(name)) {
          printf("# byte %d at %zu became \"%s\"\n", byte, at, name);
          return false;
        }
      }
  return true;
}

static const struct {
  const char *behaviour;
  const char *bytes;
  size_t size;
  const char *text;
} escapes[] = {
    {"plain text stays", "Web Content [1]", COMM_TEXT_SIZE, "Web Content [1]"},
    {"a newline cannot forge a line", "x\nSeverity: OK", COMM_TEXT_SIZE,
     "x\\x0aSeverity: OK"},
    {"an escape cannot drive a terminal", "\x1b[31m", COMM_TEXT_SIZE,
     "\\x1b[31m"},
    {"a backslash cannot pretend", "\\x0a", COMM_TEXT_SIZE, "\\x5cx0a"},
    {"bytes above ASCII, and DEL", "\xc3\xa4\x7f", COMM_TEXT_SIZE,
     "\\xc3\\xa4\\x7f"},
    {"16 bytes without NUL", "abcdefghijklmnopq", COMM_TEXT_SIZE,
     "abcdefghijklmnop"},
    {"no half escape at the end", "abc\n", 8, "abc\\x0a"},
    {"but none at all", "abc\n", 7, "abc"},
};

static void test_cut(void) {
  static const unsigned char some[] = {0, 0, 1, 0x7f, 0x80, 0x81, 0xff, 'a'};
  int wrong = 0;
  srand(1);
  for (int i = 0; i < 100000; i++) {
    union {
      unsigned char bytes[RECLAIM_COMM_SIZE];
      __u64 words[RECLAIM_COMM_SIZE / 8];
    } comm;
    for (int at = 0; at < RECLAIM_COMM_SIZE; at++)
      comm.bytes[at] = some[rand() % 8];
    char wanted[RECLAIM_COMM_SIZE] = "";
    memcpy(wanted, comm.bytes, strnlen((char *)comm.bytes, sizeof(wanted)));
    reclaim_cut_comm(comm.words);
    wrong += memcmp(comm.bytes, wanted, sizeof(wanted)) != 0;
  }
  ok(wrong == 0, "nothing is left behind the first zero byte");
}

int main(void) {
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    char comm[RECLAIM_COMM_SIZE], name[COMM_NAME_SIZE];
    copy_comm(comm, cases[i].comm);
    comm_name(comm, cases[i].kthread, cases[i].fold, name);
    is_str(name, cases[i].name, cases[i].behaviour);
  }
  for (size_t i = 0; i < sizeof(escapes) / sizeof(*escapes); i++) {
    char text[COMM_TEXT_SIZE];
    comm_escape(escapes[i].bytes, RECLAIM_COMM_SIZE, text, escapes[i].size);
    is_str(text, escapes[i].text, escapes[i].behaviour);
  }
  for (size_t i = 0; i < sizeof(clean_cases) / sizeof(*clean_cases); i++) {
    char name[COMM_NAME_SIZE];
    comm_clean(clean_cases[i].raw, clean_cases[i].len, name);
    is_str(name, clean_cases[i].name, clean_cases[i].behaviour);
  }
  test_cut();
  ok(all_bytes_are_safe(), "any byte anywhere gives a safe name");
  return done();
}
