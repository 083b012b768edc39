/* SPDX-License-Identifier: MIT */
/* Comms to names and to text, beside models that follow README, Names, step by
 * step. */
#include "plugin/collectd_api.h"

#include "plugin/name.h"
#include "tests/fuzz/fuzz.h"

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static const char plain[] = "0123456789-_"
                            "abcdefghijklmnopqrstuvwxyz"
                            "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

static void check_name(const char *name, size_t longest) {
  size_t len = strlen(name);
  char again[COMM_NAME_SIZE];
  MUST(len >= 1 && len <= longest);
  MUST(strspn(name, plain) == len);
  MUST(name[0] != '_' && name[len - 1] != '_');
  comm_clean(name, len, again);
  MUST(strcmp(again, name) == 0);
}

/* Steps 2 and 3, and that of a long name the end stays. */
static void model_clean(char *text, char name[COMM_NAME_SIZE]) {
  size_t len = strlen(text);
  while (len > 0 && text[len - 1] == '_')
    text[--len] = '\0';
  if (len > COMM_NAME_SIZE - 1)
    text += len - (COMM_NAME_SIZE - 1);
  text += strspn(text, "_");
  strcpy(name, *text ? text : "unknown");
}

static void model_clean_bytes(const char *raw, size_t len,
                              char name[COMM_NAME_SIZE]) {
  char *text = malloc(len + 1);
  for (size_t i = 0; i < len; i++)
    text[i] = raw[i] != '\0' && strchr(plain, raw[i]) ? raw[i] : '_';
  text[len] = '\0';
  model_clean(text, name);
  free(text);
}

/* Step 1. */
static size_t model_fold(const char *comm, size_t len, bool kthread) {
  if (kthread)
    return strcspn(comm, "/:0123456789");
  size_t end = len;
  while (end > 0 && is_digit(comm[end - 1]))
    end--;
  if (end == len || end == 0 || !strchr("-_#:/. ", comm[end - 1]))
    return len;
  return end - 1;
}

static void check_comm(const char raw[RECLAIM_COMM_SIZE]) {
  char comm[RECLAIM_COMM_SIZE + 1] = "";
  memcpy(comm, raw, RECLAIM_COMM_SIZE);
  for (int way = 0; way < 4; way++) {
    struct config config = {.fold = way & 1};
    struct reclaim_row_key key = {.flags = way & 2 ? RECLAIM_ROW_KTHREAD : 0};
    memcpy(key.comm, raw, sizeof(key.comm));
    char name[COMM_NAME_SIZE], wanted[COMM_NAME_SIZE];
    name_of_key(&config, NULL, &key, name);
    check_name(name, RECLAIM_COMM_SIZE);
    size_t len = strlen(comm);
    if (config.fold)
      len = model_fold(comm, len, way & 2);
    model_clean_bytes(comm, len, wanted);
    MUST(strcmp(name, wanted) == 0);
    config.group_by = RECLAIM_BY_CGROUP;
    name_of_key(&config, NULL, &key, name);
    MUST(strcmp(name, "_gone") == 0);
  }
}

static void check_cut(const char raw[RECLAIM_COMM_SIZE]) {
  __u64 words[RECLAIM_COMM_SIZE / 8];
  char wanted[RECLAIM_COMM_SIZE] = "";
  memcpy(words, raw, sizeof(words));
  memcpy(wanted, raw, strnlen(raw, sizeof(wanted)));
  reclaim_cut_comm(words);
  MUST(memcmp(words, wanted, sizeof(wanted)) == 0);
}

/* Undoes the next byte. */
static char unescape(const char **text) {
  if (**text != '\\')
    return *(*text)++;
  MUST((*text)[1] == 'x' && strspn(*text + 2, "0123456789abcdef") >= 2);
  char digits[] = {(*text)[2], (*text)[3], '\0'};
  char byte = (char)strtoul(digits, NULL, 16);
  MUST(byte < ' ' || byte > '~' || byte == '\\');
  *text += 4;
  return byte;
}

static void check_escape(const char *bytes, size_t max, size_t size) {
  char *text = malloc(size);
  comm_escape(bytes, max, text, size);
  size_t len = strnlen(bytes, max), done = 0;
  MUST(strnlen(text, size) < size);
  MUST(is_printable(text));
  for (const char *at = text; *at != '\0'; done++)
    MUST(done < len && unescape(&at) == bytes[done]);
  MUST(done == len || strlen(text) + 4 >= size);
  MUST(done == len || size <= 4 * max);
  free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct input input = {data, size};
  size_t room = 1 + take_one_of(&input, 256);
  char raw[RECLAIM_COMM_SIZE];
  take_bytes(&input, raw, sizeof(raw));
  check_comm(raw);
  check_cut(raw);
  check_escape(raw, sizeof(raw), room);

  size_t len = input.left;
  char *rest = malloc(len + 1);
  take_bytes(&input, rest, len);
  char name[COMM_NAME_SIZE], wanted[COMM_NAME_SIZE];
  comm_clean(rest, len, name);
  check_name(name, COMM_NAME_SIZE - 1);
  model_clean_bytes(rest, len, wanted);
  MUST(strcmp(name, wanted) == 0);
  check_escape(rest, len, room);
  check_escape(rest, len, 4 * len + 1);
  free(rest);
  return 0;
}
