#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Whether manual pages, README, the sample configuration and the patch for collectd tell of
what the code has, and of nothing else: options, values, defaults, metrics, kinds,
notifications, messages, and the command line of reclaimsnoop."""

import collections
import glob
import os
import re
import subprocess
import sys

from manual import ROOT, added, items, plain, pod_items, read, readme_section, \
    readme_table, sample, section

sys.path.append(f"{ROOT}/tests/collectd")
from harness import BUILD, Tap

PAGE, SNOOP_PAGE = read("conf/collectd-reclaim.5"), read("conf/reclaimsnoop.8")
KINDS = re.findall(r'\[RECLAIM_\w+\] = "(\w+)"', read("plugin/kind.h"))
TYPES_DB = "/usr/share/collectd/types.db"
# All values there can be, and the options without which some are missing.
EVERYTHING = {"ReportFruitless": "true", "ReportMaximum": "true", "Percentile": "99.9",
              "Histogram": "names", "ReportHost": "true"}
ALL_KINDS = f"Kinds {' '.join(KINDS)}"

# Metrics that are described together; `when` has the options that they take.
Metric = collections.namedtuple("Metric", "identifiers type text when")


def facts(*options):
    """(whether and how the plugin takes these options, what else facts.c prints)"""
    run = subprocess.run([f"{BUILD}/tests/docs/facts", *options], check=True,
                         capture_output=True, text=True)
    first, *rest = run.stdout.splitlines()
    return first, rest


def refusal(option):
    """What the plugin says of this option with a value that none takes."""
    taken, log = facts(f"{option} 0")
    return log[0] if taken == "refused" else ""


def values_of(text):
    """What values are allowed in this text: words, or the ends of a range."""
    numbers = re.search(r"from ([\d.]+) to ([\d.]*\d)|\b([\d.]+)-([\d.]+)$", text)
    if numbers:
        return tuple(filter(None, numbers.groups()))
    words = re.search(r"must be (?:one of |some of )?(\w+(?:(?:, | or )\w+)+)$", text)
    return tuple(re.findall(r"\w+", words[1].replace(" or ", " "))) if words else ()


def unequal(got, wanted):
    """What of two dictionaries is not the same."""
    return {key: (got.get(key), wanted.get(key)) for key in {*got, *wanted}
            if got.get(key) != wanted.get(key)}


def check_same(tap, where, got, wanted, what):
    """Both directions, each a check."""
    tap.equal(sorted({*wanted} - {*got}), [], f"{where} has each {what}")
    tap.equal(sorted({*got} - {*wanted}), [], f"each {what} in {where} is one")


# Options


def page_options():
    """{option: its item} of the manual page."""
    return {item.heads[0].split()[0]: item for item in items(section(PAGE, "CONFIGURATION"))}


def readme_options():
    """{option: the cells of its row}"""
    return {re.search(r"`(\w+)`", row[0])[1]: row[1:]
            for row in readme_table("Configuration", "option")}


def check_options(tap, pod, samples):
    """Each place has the options that the code takes. Returns these."""
    taken = re.findall(r'strcasecmp\(key, "(\w+)"\)', read("plugin/config.c"))
    told = re.search(r"known are (.*)", facts("Unknown 0")[1][0])[1].split(", ")
    tap.equal(told, taken, "the plugin tells of the options that it takes")
    check_same(tap, "collectd-reclaim(5)", page_options(), taken, "option")
    check_same(tap, "README", readme_options(), taken, "option")
    check_same(tap, "collectd.conf.pod", pod, taken, "option")
    for where, (defaults, unset) in samples.items():
        check_same(tap, where, {line.split()[0] for line in defaults + unset}, taken, "option")
    return taken


def page_values(option, item):
    """What values the manual page allows."""
    choices = re.findall(r"\w+", item.heads[0].removeprefix(option))
    if "|" in item.heads[0]:
        return tuple(choices)
    return tuple(KINDS) if choices == ["kind"] else values_of(item.text)


def pod_values(head, text):
    """What values collectd.conf(5) allows."""
    words = re.search(r"some of ([^.]*)", text)
    return tuple(re.findall(r"B<(\w+)>", words[1] if words else head)) or values_of(text)


def readme_values(cell):
    """What values README allows."""
    if cell == "boolean":
        return ("true", "false")
    return values_of(cell) or tuple(re.findall(r"`(\w+)`", cell))


def check_values(tap, taken, pod):
    """Each place has the values that the code takes."""
    allowed = {option: values_of(refusal(option)) for option in taken}
    tap.ok(all(refusal(option) for option in taken), "each option refuses what it cannot be")
    tap.equal(unequal({option: page_values(option, item)
                       for option, item in page_options().items()}, allowed), {},
              "collectd-reclaim(5) has the values of each option")
    tap.equal(unequal({option: readme_values(cells[0])
                       for option, cells in readme_options().items()}, allowed), {},
              "README has the values of each option")
    tap.equal(unequal({option: pod_values(*item) for option, item in pod.items()}, allowed), {},
              "collectd.conf.pod has the values of each option")
    for option, values in allowed.items():
        if values and values[0][0].isdigit():
            check_range(tap, option, *values)
        elif values:
            tap.ok(all(facts(f"{option} {value}")[0] != "refused" for value in values),
                   f"{option} can be {', '.join(values)}")


def check_range(tap, option, low, high):
    """The ends are in the range, and what is less or more in its last digit is not."""
    def beside(end, sign):
        digits = len(end.partition(".")[2])
        return f"{float(end) + sign * 10 ** -digits:.{digits}f}"
    tap.equal([facts(f"{option} {value}")[0] != "refused"
               for value in (beside(low, -1), low, high, beside(high, 1))],
              [False, True, True, False], f"{option} can be from {low} to {high}")


def check_defaults(tap, pod, samples):
    """A default that is set changes nothing; where none is, any value does."""
    readme = {option: cells[1].split(",")[0].replace("`", "")
              for option, cells in readme_options().items()}
    page = {option: re.search(r"Default: (.*?)\.(?: |$)", item.text)[1]
            for option, item in page_options().items()}
    tap.equal(unequal(page, readme), {}, "collectd-reclaim(5) and README have the same defaults")
    lines = {option: f"{option} {default}" for option, default in readme.items()
             if facts(f"{option} {default}")[0] == "default"}
    for where, (defaults, unset) in samples.items():
        tap.equal(unequal({line.split()[0]: line for line in defaults}, lines), {},
                  f"README and {where} have the same defaults, and the plugin has them")
        tap.equal([line for line in unset if facts(line)[0] != "changed"], [],
                  f"the plugin takes what {where} has beside, and has no default for it")
    told = {option: re.search("Defaults to B<(.*?)>", text) for option, (_, text) in pod.items()}
    tap.equal(unequal({option: f"{option} {default[1]}" for option, default in told.items()
                       if default}, {option: line for option, line in lines.items()
                                     if option != "Kinds"}), {},
              "README and collectd.conf.pod have the same defaults")


def check_examples(tap):
    """The plugin takes the blocks that the manual page shows."""
    blocks = re.findall(r"^<Plugin reclaim>\n(.*?)^</Plugin>", PAGE, re.MULTILINE | re.DOTALL)
    options = [re.findall(r"^ +([A-Z].*)", plain(block).replace('"', ""), re.MULTILINE)
               for block in blocks]
    tap.equal([lines for lines in options if facts(*lines)[0] == "refused"], [],
              f"the plugin takes the {len(blocks)} examples of collectd-reclaim(5)")


# Metrics


def page_metrics():
    """What the manual page has."""
    found = []
    for item in items(section(PAGE, "METRICS")):
        kind, source = re.match(r"(\w+), data source (\w+):", item.text).groups()
        found.append(Metric(item.heads, f"{source}:{kind}", item.text, item.text))
    return found


def readme_metrics():
    """What README has, its identifiers in full."""
    found = []
    for names, totals, kind, text, when in readme_table("Metrics", "per name and"):
        identifiers = [f"reclaim-NAME/{name}" for name in re.findall("`(.*?)`", names)]
        for total in re.findall("`(.*?)`", totals):
            known = type_of(identifiers[-1]) if total[0] == "-" else ""
            identifiers.append(f"reclaim/{known}{total}")
        found.append(Metric(identifiers, kind, text, when))
    return found


def expand(metric):
    """The identifiers that patterns stand for, with EVERYTHING."""
    left_out = " ".join(map(" ".join, re.findall(r"\(not ([^)]*)\)|Not of ([^.]*)\.",
                                                 metric.text)))
    kinds = [kind for kind in KINDS if kind not in re.findall(r"\w+", left_out)]
    bounds = re.findall(r"\b(\d+[um]?s|inf)\b", metric.text)
    for pattern in metric.identifiers:
        pattern = re.sub("pN$", "p99_9", pattern)
        for kind in kinds if "KIND" in pattern else [""]:
            for bound in bounds if "BOUND" in pattern else [""]:
                yield pattern.replace("KIND", kind).replace("BOUND", bound)


def dispatched(left_out=None):
    """The identifiers of all values, or of those that are left without an option."""
    options = [f"{key} {value}" for key, value in EVERYTHING.items() if key != left_out]
    if left_out == "ReportHost":
        options.append("ReportHost false")
    return {*facts(ALL_KINDS, *options)[1]}


def type_of(identifier):
    """The type in an identifier."""
    return re.match(r"[^/]*/(\w+)", identifier)[1]


def check_types(tap, where, metrics):
    """Types and data sources are those that collectd has in stock."""
    if not os.path.exists(TYPES_DB) and os.environ.get("CI") != "true":
        tap.note(f"no {TYPES_DB} here")
        return
    with open(TYPES_DB, encoding="utf-8") as file:
        stock = dict(re.findall(r"^(\w+)\s+(\w+:\w+):[^,\n]*$", file.read(), re.MULTILINE))
    tap.equal([identifier for metric in metrics for identifier in metric.identifiers
               if not stock.get(type_of(identifier), "").endswith(metric.type)], [],
              f"types in {where} are as collectd has them")


def check_metrics(tap):
    """Each place has the values that are dispatched, and says of which options they are."""
    everything = dispatched()
    missing = {option: everything - dispatched(option) for option in EVERYTHING}
    for where, metrics in ("collectd-reclaim(5)", page_metrics()), ("README", readme_metrics()):
        check_same(tap, where, [each for metric in metrics for each in expand(metric)],
                   everything, "value")
        check_types(tap, where, metrics)
        told = {metric.identifiers[0]: {*EVERYTHING} & {*re.findall(r"\w+", metric.when)}
                for metric in metrics}
        needed = {metric.identifiers[0]: {option for option, values in missing.items()
                                          if values & {*expand(metric)}}
                  for metric in metrics}
        tap.equal(unequal(told, needed), {}, f"{where} says which options values take")
    called = read("tests/docs/facts.c")
    tap.equal([name for name in re.findall(r"^void (\w+)\(", read("plugin/dispatch.h"),
                                           re.MULTILINE) if f"{name}(" not in called], [],
              "nothing else is dispatched")


def check_numbers_of_series(tap):
    """How many series there are with the defaults."""
    default = facts()[1]
    calm = [identifier for identifier in default if identifier.startswith("reclaim/")]
    most = len(calm) + (20 + 1) * (len(default) - len(calm))
    fewer = facts("Kinds direct memcg", "ReportHost false")[1]
    fewest = sum(identifier.startswith("reclaim/") for identifier in fewer)
    for where, text in (("README", readme_section("How many series")),
                        ("collectd-reclaim(5)", PAGE)):
        tap.ok(re.search(rf"calm host has {len(calm)}\b.*\b{most} at most", text, re.DOTALL),
               f"{where} has the numbers of series", f"{len(calm)}, {most}")
    tap.ok(f"a calm host has {fewest} series instead of {len(calm)}" in PAGE.replace("\n", " "),
           "and collectd-reclaim(5) that of its example", fewest)


# Kinds, notifications, messages


def check_kinds(tap):
    """Each kind is described."""
    tap.equal(list(values_of(refusal("Kinds"))), KINDS, "the plugin tells of the kinds it has")
    check_same(tap, "collectd-reclaim(5)",
               [item.heads[0] for item in items(section(PAGE, "KINDS OF STALL"))], KINDS, "kind")
    check_same(tap, "README", [row[0].strip("`") for row in
                               readme_table("Kinds of stall", "kind")], KINDS, "kind")


def check_notifications(tap):
    """Each meta data is described."""
    given = re.findall(r'meta_add_\w+\(\s*&?\w+,\s*"(\w+)"', read("plugin/notify.c"))
    readme = readme_section("Notifications")
    check_same(tap, "collectd-reclaim(5)",
               [item.heads[0] for item in items(section(PAGE, "NOTIFICATIONS"))],
               given, "meta data")
    check_same(tap, "README", re.findall(r"^    ([a-z_]+): ", readme, re.MULTILINE) +
               re.findall(r"`(\w+)`", re.search(r"meta data ([^)]*)", readme)[1]),
               given, "meta data")


def squeeze(message):
    """A message as it can be compared: what differs is three dots."""
    message = re.sub(r"%[-+.\d]*(?:ll|l|z)?[a-z]", "...", message.replace('\\"', '"'))
    return re.sub(r"(\.\.\.)+", "...", re.sub(r"\s+", "", message))


def messages():
    """What the plugin can say in collectd's log."""
    found = []
    for path in glob.glob(f"{ROOT}/plugin/*.c"):
        if re.search(r"snoop|kallsyms|bpf_check", path):
            continue
        for call in re.findall(
                r'\b(?:P_[A-Z]+|log_printf|log|c_complain|c_release)\([^;"]*?'
                r'((?:"(?:[^"\\]|\\.)*"\s*)+)[,)]', read(os.path.relpath(path, ROOT))):
            text = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', call))
            found.append(squeeze(text.removeprefix(" plugin: ")))
    return found


def check_messages(tap):
    """Each line in the log is described by its beginning."""
    told = [squeeze(head) for item in items(section(PAGE, "DIAGNOSTICS"))
            for head in item.heads if head]
    said = messages()
    tap.equal([message for message in said if not message.startswith(tuple(told))], [],
              f"collectd-reclaim(5) has each of {len(said)} messages")
    tap.equal([head for head in told if not any(message.startswith(head) for message in said)],
              [], "each message in collectd-reclaim(5) is one")


# reclaimsnoop


def snoop(*arguments):
    """What it says to these arguments."""
    run = subprocess.run([f"{BUILD}/reclaimsnoop", *arguments], check=False,
                         capture_output=True, text=True)
    return run.stdout + run.stderr


def page_snoop_options():
    """{(short or None, long): (whether it takes a value, text)} of the manual page."""
    found = {}
    for item in items(section(SNOOP_PAGE, "DESCRIPTION")):
        short, name, value = re.match(r"(?:(-\w) , )?(--\w+)(=\w+)?", item.heads[0]).groups()
        found[short, name] = (bool(value), item.text)
    return found


def code_snoop_options():
    """{(short or None, long): whether it takes a value} that getopt_long has."""
    return {(f"-{short[1]}" if short[0] == "'" else None, f"--{name}"): value == "required"
            for name, value, short in re.findall(
                r'\{"(\w+)", (\w+)_argument, NULL, ([^}]*)\}',
                read("plugin/snoop_options.c"))}


def check_snoop_options(tap):
    """Help, manual page and README have the options that it takes."""
    taken = code_snoop_options()
    told = {(short or None, name): bool(value) for short, name, value in
            re.findall(r"^  (?:(-\w),|   ) (--\w+)(=\w+)?", snoop("--help"), re.MULTILINE)}
    page = {names: value for names, (value, _) in page_snoop_options().items()}
    readme = dict(re.match(r"`(--?\w+)( \w+)?", row[0]).groups()
                  for row in readme_table("reclaimsnoop", "option"))
    short = {names[0] or names[1]: value for names, value in taken.items()}
    tap.equal(unequal(told, taken), {}, "--help has the options of reclaimsnoop")
    tap.equal(unequal(page, taken), {}, "reclaimsnoop(8) has them")
    tap.equal(unequal({name: bool(value) for name, value in readme.items()},
                      {name: value for name, value in short.items()
                       if name not in ("-h", "--version")}), {}, "README has them")
    synopsis = " ".join(map(plain, section(SNOOP_PAGE, "SYNOPSIS")))
    used = {f"-{letter}" for letters in re.findall(r"(?<!-)-(\w+)", synopsis)
            for letter in letters} | {*re.findall(r"--\w+", synopsis)}
    tap.equal([names for names in taken if not used & {*names}], [],
              "the synopsis in reclaimsnoop(8) has them")
    tap.equal(used - {name for names in taken for name in names}, set(), "and nothing else")


def check_snoop_values(tap):
    """The manual page has the values that it takes."""
    page = {names[1]: values_of(text) for names, (value, text) in page_snoop_options().items()
            if value and names[1] != "--kind"}
    taken = {name: values_of(snoop(name, "?", "surplus").split("\n")[0]) for name in page}
    tap.equal(unequal(page, taken), {}, "reclaimsnoop(8) has the values of each option")
    kinds = items(re.search(r"^\.It Fl k .*?(?=^\.It Fl )", SNOOP_PAGE,
                            re.MULTILINE | re.DOTALL)[0].splitlines())
    check_same(tap, "reclaimsnoop(8)", [item.heads[0] for item in kinds], KINDS, "kind")
    tap.equal(list(values_of(snoop("-k", "?").split("\n")[0])), KINDS,
              "reclaimsnoop tells of the kinds it has")
    tap.equal(re.findall(r"\w+", re.search(r"--kind=KIND (.*?);", snoop("--help"),
                                           re.DOTALL)[1].replace(" or", "")), KINDS,
              "and so does its help")


def check_snoop_output(tap):
    """The manual page has the members of JSON's objects, and the messages."""
    code = read("plugin/snoop_print.c") + read("plugin/snoop_stacks.c")
    given = re.findall(r'\\"([a-z_]+)\\":|print_count\(out, "(\w+)"', code)
    check_same(tap, "reclaimsnoop(8)",
               [item.heads[0] for item in items(section(SNOOP_PAGE, "JSON"))],
               [name for names in given for name in names if name], "member of JSON")
    check_same(tap, "reclaimsnoop(8)",
               [head for item in items(section(SNOOP_PAGE, "DIAGNOSTICS")) for head in item.heads],
               [f"reclaimsnoop: cannot {what}: ..." for what in
                re.findall(r'fail\(snoop, [^"]*"([^"]*)"\)', read("plugin/reclaimsnoop.c"))],
               "message")


def main():
    tap = Tap()
    patch = read("conf/packaging/collectd-5.12.patch")
    pod = pod_items(added(patch, "src/collectd.conf.pod"))
    samples = {"reclaim.conf": tuple(sample(read("conf/reclaim.conf"))),
               "collectd.conf.in": tuple(sample(added(patch, "src/collectd.conf.in")))}
    taken = check_options(tap, pod, samples)
    check_values(tap, taken, pod)
    check_defaults(tap, pod, samples)
    check_examples(tap)
    check_metrics(tap)
    check_numbers_of_series(tap)
    check_kinds(tap)
    check_notifications(tap)
    check_messages(tap)
    check_snoop_options(tap)
    check_snoop_values(tap)
    check_snoop_output(tap)
    tap.done()


main()
