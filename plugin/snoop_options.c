/* SPDX-License-Identifier: MIT */
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kind.h"
#include "snoop_options.h"

static const char usage[] =
    "usage: reclaimsnoop [-k KIND] [-p PID] [-n NAME] [-m MIN_MS] [-d "
    "SECONDS]\n"
    "                    [[-P] [-i SECONDS] | -S [-i SECONDS]] [-T] [-j]\n"
    "       reclaimsnoop -c\n";

static const char help[] =
    "Prints each stall of a task that waits for memory to be reclaimed.\n"
    "\n"
    "which stalls:\n"
    "  -k, --kind=KIND         direct, memcg, memcg_proactive, node, compact "
    "or\n"
    "                          throttle; several with commas or repeated "
    "(all)\n"
    "  -p, --pid=PID           of this thread, or of this process's threads\n"
    "  -n, --name=NAME         of tasks whose comm contains NAME\n"
    "  -m, --min=MIN_MS        lines and stacks only of stalls of MIN_MS ms "
    "or\n"
    "                          more; tables always count all\n"
    "what is shown:\n"
    "  -i, --interval=SECONDS  instead of lines, a table per name each "
    "SECONDS\n"
    "  -S, --stacks            instead of lines, the kernel stacks with the "
    "most\n"
    "                          stall time, at the end or each -i SECONDS\n"
    "  -P, --process           the process (TGID, PROCESS) as well; tables "
    "are\n"
    "                          per name of process, else per name of thread\n"
    "  -T, --timestamp         the time of each stall's end\n"
    "  -j, --json              JSON, an object a line\n"
    "  -d, --duration=SECONDS  end after SECONDS; else SIGINT (Ctrl-C) ends\n"
    "and:\n"
    "  -c, --check             check what works on this machine, and why not\n"
    "      --btf=FILE          the kernel's types, where it has none of its "
    "own\n"
    "  -h, --help              this text\n"
    "      --version           the version\n"
    "\n"
    "PID is the thread's id, LAT(ms) how long it stalled, PAGES what was\n"
    "reclaimed meanwhile; 0 PAGES: it waited for nothing.\n";

enum { OPTION_BTF = 256, OPTION_VERSION };

static const struct option long_options[] = {
    {"kind", required_argument, NULL, 'k'},
    {"pid", required_argument, NULL, 'p'},
    {"name", required_argument, NULL, 'n'},
    {"min", required_argument, NULL, 'm'},
    {"interval", required_argument, NULL, 'i'},
    {"stacks", no_argument, NULL, 'S'},
    {"process", no_argument, NULL, 'P'},
    {"timestamp", no_argument, NULL, 'T'},
    {"json", no_argument, NULL, 'j'},
    {"duration", required_argument, NULL, 'd'},
    {"check", no_argument, NULL, 'c'},
    {"btf", required_argument, NULL, OPTION_BTF},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, OPTION_VERSION},
    {0},
};

/* One kind of a list that a comma or the end ends. */
static bool parse_kind(bool kinds[RECLAIM_KINDS], const char *text,
                       size_t len) {
  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++)
    if (strlen(kind_name(kind)) == len &&
        strncmp(kind_name(kind), text, len) == 0)
      return kinds[kind] = true;
  return false;
}

static bool parse_kinds(struct bpf_source_options *source, const char *text) {
  if (!source->kinds_named)
    memset(source->kinds, 0, sizeof(source->kinds));
  source->kinds_named = true;
  for (const char *at = text;; at++) {
    size_t len = strcspn(at, ",");
    if (!parse_kind(source->kinds, at, len)) {
      fprintf(stderr,
              "reclaimsnoop: -k %s: must be some of direct, memcg, "
              "memcg_proactive, node, compact, throttle\n",
              text);
      return false;
    }
    at += len;
    if (*at == '\0')
      return true;
  }
}

static bool parse_pid(uint32_t *pid, const char *text) {
  char *end;
  unsigned long number = strtoul(text, &end, 10);
  if (*text < '0' || *text > '9' || *end != '\0' || number == 0 ||
      number > RECLAIM_TID_MASK) {
    fprintf(stderr, "reclaimsnoop: -p %s: must be a number from 1 to %llu\n",
            text, RECLAIM_TID_MASK);
    return false;
  }
  *pid = (uint32_t)number;
  return true;
}

/* A number from `min` to 10^8 of units of `unit_ns`. */
static bool parse_time(uint64_t *ns, char option, const char *text, double min,
                       double unit_ns) {
  const double max = 1e8;
  char *end;
  double number = strtod(text, &end);
  if (end == text || *end != '\0' || !isfinite(number) || number < min ||
      number > max) {
    fprintf(stderr, "reclaimsnoop: -%c %s: must be a number from %g to %.0f\n",
            option, text, min, max);
    return false;
  }
  *ns = (uint64_t)(number * unit_ns);
  return true;
}

/* False after a mistake. */
static bool take_option(struct snoop_options *options, int option) {
  switch (option) {
  case 'k':
    return parse_kinds(&options->source, optarg);
  case 'p':
    return parse_pid(&options->source.only_pid, optarg);
  case 'm':
    return parse_time(&options->source.event_min_ns, 'm', optarg, 0, 1e6);
  case 'd':
    return parse_time(&options->duration_ns, 'd', optarg, 0.001, 1e9);
  case 'i':
    return parse_time(&options->interval_ns, 'i', optarg, 0.1, 1e9);
  case 'n':
    options->name = optarg;
    return true;
  case 'S':
    return options->source.event_stacks = true;
  case 'P':
    options->source.group_by = RECLAIM_BY_PROCESS;
    return true;
  case 'T':
    return options->timestamps = true;
  case 'j':
    return options->json = true;
  case 'c':
    return options->check = true;
  case OPTION_BTF:
    options->source.btf_file = optarg;
    return true;
  default:
    return false;
  }
}

static void settle_mode(struct snoop_options *options) {
  options->mode = options->source.event_stacks ? SNOOP_STACKS
                  : options->interval_ns > 0   ? SNOOP_TABLES
                                               : SNOOP_LINES;
  options->source.events = options->mode != SNOOP_TABLES;
}

enum snoop_next snoop_options_parse(struct snoop_options *options, int argc,
                                    char **argv) {
  *options = (struct snoop_options){
      .source = {.max_tracked = 10240, .who = "reclaimsnoop"}};
  for (enum reclaim_kind kind = 0; kind < RECLAIM_KINDS; kind++)
    options->source.kinds[kind] = true;

  int option;
  while ((option = getopt_long(argc, argv, "k:p:n:m:i:SPTjd:ch", long_options,
                               NULL)) != -1) {
    if (option == 'h') {
      printf("%s\n%s", usage, help);
      return SNOOP_EXIT_OK;
    }
    if (option == OPTION_VERSION) {
      printf("reclaimsnoop %s\n", RECLAIM_VERSION);
      return SNOOP_EXIT_OK;
    }
    if (!take_option(options, option)) {
      fputs(usage, stderr);
      return SNOOP_EXIT_USAGE;
    }
  }
  if (optind < argc) {
    fprintf(stderr, "reclaimsnoop: %s: unexpected argument\n%s", argv[optind],
            usage);
    return SNOOP_EXIT_USAGE;
  }
  if (options->source.event_stacks &&
      options->source.group_by == RECLAIM_BY_PROCESS) {
    fprintf(stderr,
            "reclaimsnoop: -P: not with -S, whose stacks are of threads\n%s",
            usage);
    return SNOOP_EXIT_USAGE;
  }
  settle_mode(options);
  return SNOOP_GO_ON;
}
