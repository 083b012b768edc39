/* SPDX-License-Identifier: MIT */
/* What all targets of libFuzzer share: numbers and text out of its bytes, and
 * what must hold. */
#ifndef RECLAIM_FUZZ_H
#define RECLAIM_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the process, for libFuzzer to keep the input, where it does not hold. */
#define MUST(condition)                                                        \
  do {                                                                         \
    if (!(condition)) {                                                        \
      fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__,        \
              #condition);                                                     \
      abort();                                                                 \
    }                                                                          \
  } while (0)

/* The bytes that are left; behind the last come zeros. */
struct input {
  const uint8_t *at;
  size_t left;
};

static inline void take_bytes(struct input *input, void *to, size_t size) {
  size_t got = size < input->left ? size : input->left;
  memset(to, 0, size);
  if (got > 0)
    memcpy(to, input->at, got);
  input->at += got;
  input->left -= got;
}

static inline uint8_t take_byte(struct input *input) {
  uint8_t byte;
  take_bytes(input, &byte, sizeof(byte));
  return byte;
}

static inline bool take_bool(struct input *input) {
  return take_byte(input) & 1;
}

/* One of `num` (up to 65,536): 0 to num - 1. */
static inline size_t take_one_of(struct input *input, size_t num) {
  size_t number = take_byte(input);
  if (num > 256)
    number = number << 8 | take_byte(input);
  return number % num;
}

static inline uint64_t take_u64(struct input *input) {
  uint64_t number;
  take_bytes(input, &number, sizeof(number));
  return number;
}

/* A number of any size, small ones and edges more often than by chance. */
static inline uint64_t take_number(struct input *input) {
  static const uint64_t edges[] = {
      0,          1,          9999,       10000,      10001,     999999,
      UINT32_MAX, 1ULL << 32, 1ULL << 53, 1ULL << 63, INT64_MAX, UINT64_MAX};
  switch (take_one_of(input, 4)) {
  case 0:
    return take_byte(input);
  case 1:
    return edges[take_one_of(input, sizeof(edges) / sizeof(*edges))];
  case 2:
    return take_u64(input) >> take_one_of(input, 64);
  default:
    return take_u64(input) & UINT32_MAX;
  }
}

/* Up to `max` bytes without NUL, and a NUL behind them; from malloc. */
static inline char *take_text(struct input *input, size_t max) {
  size_t len = take_one_of(input, max + 1);
  if (len > input->left)
    len = input->left;
  char *text = malloc(len + 1);
  take_bytes(input, text, len);
  for (size_t i = 0; i < len; i++)
    if (text[i] == '\0')
      text[i] = ' ';
  text[len] = '\0';
  return text;
}

static inline bool is_printable(const char *text) {
  for (; *text != '\0'; text++)
    if (*text < ' ' || *text > '~')
      return false;
  return true;
}

#endif
