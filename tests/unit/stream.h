/* SPDX-License-Identifier: MIT */
/* What a function wrote to a stream, as a string. */
#ifndef STREAM_H
#define STREAM_H

#include <stdio.h>
#include <stdlib.h>

static struct {
  FILE *out;
  char *text;
  size_t size;
} stream;

static inline FILE *stream_begin(void) {
  free(stream.text);
  stream.text = NULL;
  return stream.out = open_memstream(&stream.text, &stream.size);
}

/* Valid until the next stream_begin. */
static inline const char *stream_end(void) {
  fclose(stream.out);
  return stream.text;
}

#endif
