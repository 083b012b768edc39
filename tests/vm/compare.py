# SPDX-License-Identifier: MIT
"""The plugin beside other tools that count direct reclaim by comm: what each
saw of the same stretch, and whether their own losses explain the differences."""

import dataclasses
import os
import re

from check import TIME_US_PER_STALL, most, sum_allocstall, sum_pgsteal
from facts import Counts, parse_bpftrace

KERNEL = "6.1"  # of the root image's suite, which has the tools
TOP_NAMES = 8

# Four take turns at each event here. An emulated CPU that has to wait between
# two of them adds milliseconds to a stall as one of them sees it.
TIME_SHARE = 0.05

# "HH:MM:SS comm TID ms pages"; a comm may hold anything.
DRSNOOP_LINE = re.compile(r"^\d\d:\d\d:\d\d (.+?) +\d+ +(\d+\.\d+) +(\d+)$")
DRSNOOP_LOST = re.compile(r"^[Ll]ost (\d+) events", re.MULTILINE)


@dataclasses.dataclass
class Tool:
    """What a tool saw."""
    name: str
    names: dict  # name: Counts
    lost: int    # stalls that it says it lost
    untimed: int  # stalls that it says it has no time of
    total: Counts = dataclasses.field(default_factory=Counts)

    def __post_init__(self):
        for counts in self.names.values():
            self.total.add(counts)


def clean_name(comm):
    """A comm as the plugin names it without Fold."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", comm).strip("_") or "unknown"


def _by_name(stalls):
    names = {}
    for comm, counts in stalls:
        names.setdefault(clean_name(comm), Counts()).add(counts)
    return names


def parse_drsnoop(text, errors, name="drsnoop"):
    """What drsnoop printed, a line a stall."""
    stalls = []
    for match in filter(None, map(DRSNOOP_LINE.match, text.splitlines())):
        comm, milliseconds, pages = match.groups()
        stalls.append((comm, Counts(1, round(float(milliseconds) * 1000), int(pages))))
    lost = sum(map(int, DRSNOOP_LOST.findall(errors)))
    return Tool(name, _by_name(stalls), lost, 0)


def parse_direct_bt(text, name="bpftrace"):
    """What guest/direct.bt printed."""
    maps = parse_bpftrace(text)
    times, pages = maps.get("@time_us", {}), maps.get("@pages", {})
    names = _by_name((comm, Counts(stalls, times.get(comm, 0), pages.get(comm, 0)))
                     for comm, stalls in maps.get("@stalls", {}).items())
    return Tool(name, names, maps["lost"], maps.get("@untimed", 0))


def _plugin(facts):
    names = {name: dataclasses.replace(counts) for name, counts in facts.names["direct"].items()}
    return Tool("the plugin", names, facts.unattributed or 0, facts.untimed or 0)


def read_tools(folder, facts):
    """The plugin, drsnoop and bpftrace."""
    def read(name):
        with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as file:
            return file.read()
    versions = dict(line.split() for line in read("tools").splitlines())
    return [_plugin(facts),
            parse_drsnoop(read("drsnoop"), read("drsnoop-errors"),
                          f"drsnoop (libbpf-tools {versions['libbpf-tools']})"),
            parse_direct_bt(read("bpftrace"), f"bpftrace {versions['bpftrace']}")]


def _check_total(tool, trace):
    """A tool against ftrace."""
    truth, total, lost = trace.counts, tool.total, tool.lost
    yield (truth.stalls - lost <= total.stalls <= truth.stalls,
           f"{tool.name}: all direct stalls but for what it lost "
           f"({total.stalls} of {truth.stalls}, {lost} lost)")
    yield (truth.pages - most(trace, "pages", lost) <= total.pages <= truth.pages,
           f"{tool.name}: all their pages likewise ({total.pages} of {truth.pages})")
    margin_us = truth.time_us * TIME_SHARE + truth.stalls * TIME_US_PER_STALL
    missing_us = most(trace, "time_us", lost + tool.untimed)
    yield (truth.time_us - missing_us - margin_us <= total.time_us <= truth.time_us + margin_us,
           f"{tool.name}: their time likewise ({total.time_us // 1000} of "
           f"{truth.time_us // 1000} ms, {margin_us / 1000:.0f} ms allowed)")


def _check_names(plugin, tool):
    """A tool's names against the plugin's."""
    names = plugin.names.keys() | tool.names.keys()
    none = Counts()
    differing = sum(abs(plugin.names.get(name, none).stalls - tool.names.get(name, none).stalls)
                    for name in names)
    yield (differing <= plugin.lost + tool.lost,
           f"{tool.name}: the plugin's names have as many stalls each "
           f"({len(names)} names, {differing} stalls apart)")


def check(facts, tools):
    """Yields (whether it holds, what) for each thing that must hold."""
    trace = facts.trace["direct"]
    yield (trace.unpaired == trace.outside == facts.trace_lost == 0,
           "all direct stalls lie in the stretch, and ftrace lost none "
           f"({trace.unpaired}, {trace.outside}, {facts.trace_lost})")
    yield trace.counts.stalls > 0, f"memory ran out ({trace.counts.stalls} stalls)"
    for tool in tools:
        yield from _check_total(tool, trace)
    for tool in tools[1:]:
        yield from _check_names(tools[0], tool)


def _row(*cells):
    return "| " + " | ".join(map(str, cells)) + " |"


def _head(*cells):
    return [_row(*cells), "| --- |" + " ---: |" * (len(cells) - 1)]


def _total_rows(facts, tools):
    trace = facts.trace["direct"]
    yield from _head("", "stalls", "pages", "time in ms", "says it lost", "has no time of")
    for tool in tools:
        yield _row(tool.name, tool.total.stalls, tool.total.pages,
                   tool.total.time_us // 1000, tool.lost, tool.untimed)
    yield _row("ftrace", trace.counts.stalls, trace.counts.pages,
               trace.counts.time_us // 1000, facts.trace_lost, trace.unpaired)


def _name_rows(tools):
    names = {name for tool in tools for name in tool.names}
    none = Counts()
    ranked = sorted(names, key=lambda name: (
        -max(tool.names.get(name, none).stalls for tool in tools), name))
    whats = [f"{what}: plugin | drsnoop | bpftrace" for what in ("stalls", "pages", "ms")]
    yield from _head("name", *" | ".join(whats).split(" | "))
    for name in ranked[:TOP_NAMES]:
        seen = [tool.names.get(name, none) for tool in tools]
        yield _row(f"`{name}`", *[counts.stalls for counts in seen],
                   *[counts.pages for counts in seen],
                   *[counts.time_us // 1000 for counts in seen])


DOCUMENT = """\
# The plugin beside other tools

Made by `tests/vm/run --compare`: a guest with Debian's kernel {version},
512 MiB and 2 CPUs ran out of memory while the plugin, drsnoop, a bpftrace
script (`guest/direct.bt`) and an ftrace instance watched direct reclaim. All of
them were attached before the load began and detached after it had ended.

{totals}

Over the same stretch the kernel counted {allocstall} (`allocstall_*`), and {pgsteal} pages
(`pgsteal_direct`, which has no slab pages).

The names with most stalls:

{names}

How to read it: stalls and pages are counts of the same events. They may differ
only where a tool was attached for less of the time (here none was) or lost
events, which it then says: drsnoop when its buffer is full, bpftrace when its
output or a map is, the plugin as `unattributed` and `untimed`. Times are never
quite equal: each tool has its turn at an event after another one and reads the
clock then, so a stall differs by some microseconds, or by milliseconds where an
interrupt or a pause of the emulated CPU came between two turns. Each sum of
times is rounded down. Names are comms, not folded, with bytes outside of
`A-Za-z0-9_-` replaced.
"""


def document(facts, tools):
    """The comparison as a file for people."""
    return DOCUMENT.format(
        version=facts.version,
        totals="\n".join(_total_rows(facts, tools)),
        allocstall=sum_allocstall(facts.growth),
        pgsteal=sum_pgsteal(facts.growth),
        names="\n".join(_name_rows(tools)))
