/* SPDX-License-Identifier: MIT */
/* Attaches one set of contestants.bpf.c:
 *
 *   contestant SET
 *
 * prints `READY` when it is attached, ends with its standard input, and then
 * prints how many stalls of the work the set counted, if it counts. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "tests/bench/contestants_shared.h"

#include "tests/bench/contestants.skel.h"

static void fail(const char *what, int error) {
  fprintf(stderr, "contestant: %s: %s\n", what, strerror(error));
  exit(1);
}

static bool is_of(const char *name, const char *set) {
  size_t len = strlen(set);
  return strncmp(name, set, len) == 0 && name[len] == '_';
}

static int choose(struct bpf_object *object, const char *set) {
  struct bpf_program *program;
  struct bpf_map *map;
  int chosen = 0;
  bpf_object__for_each_program(program, object) {
    bool wanted = is_of(bpf_program__name(program), set);
    bpf_program__set_autoload(program, wanted);
    chosen += wanted;
  }
  bpf_object__for_each_map(map, object) if (!bpf_map__is_internal(map))
      bpf_map__set_autocreate(map, is_of(bpf_map__name(map), set));
  return chosen;
}

static void print_counted(int map, size_t value_size) {
  struct contestant_key key, *last = NULL;
  __u64 *value = calloc(1, value_size);
  unsigned long long stalls = 0;
  for (; bpf_map_get_next_key(map, last, &key) == 0; last = &key)
    if (strncmp(key.comm, "work", 4) == 0 && key.bucket != CONTESTANT_SUM &&
        bpf_map_lookup_elem(map, &key, value) == 0)
      stalls += value[0];
  free(value);
  printf("%llu\n", stalls);
}

int main(int argc, char **argv) {
  if (argc != 2)
    return 2;
  struct contestants_bpf *skel = contestants_bpf__open();
  if (!skel)
    fail("cannot open", errno);
  if (choose(skel->obj, argv[1]) == 0)
    fail(argv[1], ENOENT);
  int error = contestants_bpf__load(skel);
  if (error == 0)
    error = contestants_bpf__attach(skel);
  if (error != 0)
    fail(argv[1], -error);
  puts("READY");
  fflush(stdout);
  while (getchar() != EOF)
    ;
  char rows[32];
  snprintf(rows, sizeof(rows), "%s_rows", argv[1]);
  struct bpf_map *map = bpf_object__find_map_by_name(skel->obj, rows);
  if (map)
    print_counted(bpf_map__fd(map), bpf_map__value_size(map));
  contestants_bpf__destroy(skel);
  return 0;
}
