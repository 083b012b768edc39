# SPDX-License-Identifier: MIT
"""The plugin and reclaimsnoop beside other tools that watch direct reclaim:
what each saw of the same stretch, whether their own losses explain the
differences, and how long each takes to start."""

import dataclasses
import json
import os
import re
import statistics

import check as matrix
import events
from check import TIME_US_PER_STALL, most, sum_allocstall, sum_pgsteal
from events import Stall, differences_us, quantile, unescape
from facts import Counts

KERNELS = ("6.1", "sid")  # of the root image's suite, which has the tools; the newest
TOP_NAMES = 8

# Up to five take turns at each event here. An emulated CPU that has to wait
# between two of them adds milliseconds to a stall as one of them sees it.
TIME_SHARE = 0.05
# What the turns of others take, in the middle.
MEDIAN_US = 4 * TIME_US_PER_STALL

# "HH:MM:SS comm TID ms pages"; a comm may hold anything.
DRSNOOP_LINE = re.compile(r"^\d\d:\d\d:\d\d (.+?) +(\d+) +(\d+\.\d+) +(\d+)$")
# "TID ns pages comm" of guest/direct.bt.
BPFTRACE_LINE = re.compile(r"^(\d+) (\d+) (\d+) (.*)$")
LOST = re.compile(r"^[Ll]ost (\d+) events", re.MULTILINE)


@dataclasses.dataclass
class Tool:
    """What a tool saw."""
    name: str
    names: dict  # name: Counts
    lost: int    # stalls that it says it lost
    untimed: int  # stalls that it says it has no time of
    stalls: list = None   # one by one; None: it only counts
    startups: list = dataclasses.field(default_factory=list)  # in ms
    hidden: int = 0       # events that the kernel hid from it and that it cannot tell
    total: Counts = dataclasses.field(default_factory=Counts)

    def __post_init__(self):
        for counts in self.names.values():
            self.total.add(counts)

    def short(self):
        """Its name in the head of a table."""
        return self.name.split(" (")[0].split(" 0")[0].replace("the ", "")


@dataclasses.dataclass
class Comparison:
    """What is known of one guest."""
    facts: object
    truth: list     # ftrace's stalls
    tools: list
    left_out: dict  # tool: why


def clean_name(comm):
    """A comm as the plugin names it without Fold."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", comm).strip("_") or "unknown"


def _line_tool(name, stalls, lost):
    """A tool that prints a line a stall."""
    names = {}
    for stall in stalls:
        names.setdefault(clean_name(stall.comm), Counts()).add(
            Counts(1, round(stall.time_us or 0), stall.pages))
    return Tool(name, names, lost, sum(stall.time_us is None for stall in stalls), stalls)


def _stall(tid, comm, pages, time_us):
    return Stall(int(tid), "direct", comm, int(pages), None, None, time_us, 0)


def _lost(text):
    return sum(map(int, LOST.findall(text)))


def parse_drsnoop(text, errors, name="drsnoop"):
    """What drsnoop printed."""
    stalls = [_stall(tid, comm, pages, float(milliseconds) * 1000)
              for comm, tid, milliseconds, pages in
              (match.groups() for match in map(DRSNOOP_LINE.match, text.splitlines()) if match)]
    return _line_tool(name, stalls, _lost(errors))


def parse_direct_bt(text, errors, name="bpftrace"):
    """What guest/direct.bt printed."""
    stalls = [_stall(tid, comm, pages, int(ns) / 1000 if int(ns) else None)
              for tid, ns, pages, comm in
              (match.groups() for match in map(BPFTRACE_LINE.match, text.splitlines()) if match)]
    return _line_tool(name, stalls, _lost(text) + _lost(errors))


def parse_snoop(text, errors, name="reclaimsnoop"):
    """What `reclaimsnoop -j -k direct` printed."""
    stalls = [dataclasses.replace(stall, comm=unescape(stall.comm))
              for stall in events.parse_printed(text)]
    totals, _ = events.parse_totals(errors)
    return _line_tool(name, stalls, totals["lost"] + totals["hidden"])


def _plugin(facts):
    names = {name: dataclasses.replace(counts) for name, counts in facts.names["direct"].items()}
    return Tool("the plugin", names, facts.unattributed or 0, facts.untimed or 0)


def parse_startups(text):
    """What guest/startup printed: ms a line; what else it says is no time."""
    return [int(line) for line in text.splitlines() if line.isdigit()]


def count_skipped(programs, prefix):
    """How often the kernel skipped programs of such names, by bpftool's list."""
    return sum(program.get("recursion_misses", 0) for program in json.loads(programs)
               if program.get("name", "").startswith(prefix))


def _last_line(text):
    """Why a tool ended, in its last words."""
    return (text.strip().splitlines() or ["it says nothing"])[-1]


def read_comparison(folder, facts):
    """Reads a folder of raw files."""
    def read(name):
        with open(os.path.join(folder, name), encoding="latin-1") as file:
            return file.read()
    versions = dict(line.split() for line in read("tools").splitlines())
    tools, left_out = [_plugin(facts), parse_snoop(read("snoop"), read("snoop-errors"))], {}
    drsnoop = f"drsnoop (libbpf-tools {versions['libbpf-tools']})"
    if os.path.exists(os.path.join(folder, "drsnoop-failed")):
        left_out[drsnoop] = _last_line(read("drsnoop-errors"))
    else:
        tools.append(parse_drsnoop(read("drsnoop"), read("drsnoop-errors"), drsnoop))
        tools[-1].hidden = count_skipped(read("programs-with-tools"), "direct_reclaim_")
    tools.append(parse_direct_bt(read("bpftrace"), read("bpftrace-errors"),
                                 f"bpftrace {versions['bpftrace']}"))
    tools[-1].hidden = count_skipped(read("programs-with-tools"), "tracepoint")
    for tool in tools[1:]:
        tool.startups = parse_startups(read(f"startup-{tool.short()}"))
    truth = [stall for stall in events.parse_trace(read("trace")) if stall.kind == "direct"]
    return Comparison(facts, truth, tools, left_out)


def _check_total(tool, trace):
    """A tool against ftrace."""
    truth, total, lost = trace.counts, tool.total, tool.lost + tool.hidden
    yield (truth.stalls - lost <= total.stalls <= truth.stalls,
           f"{tool.name}: all direct stalls but for what it lost "
           f"({total.stalls} of {truth.stalls}, {lost} lost)")
    yield (truth.pages - most(trace, "pages", lost) <= total.pages <= truth.pages,
           f"{tool.name}: all their pages likewise ({total.pages} of {truth.pages})")


def _check_time(tool, facts):
    """The time of one of our own, whose turns are next to ftrace's."""
    trace = facts.trace["direct"]
    truth, total = trace.counts, tool.total
    margin_us = truth.time_us * TIME_SHARE + truth.stalls * (
        matrix.PREEMPTED_TIME_US_PER_STALL if matrix.is_preempting(facts) else TIME_US_PER_STALL)
    missing_us = most(trace, "time_us", tool.lost + tool.untimed)
    yield (truth.time_us - missing_us - margin_us <= total.time_us <= truth.time_us + margin_us,
           f"{tool.name}: their time likewise ({total.time_us // 1000} of "
           f"{truth.time_us // 1000} ms, {margin_us / 1000:.0f} ms allowed)")


def _apart_us(tool, truth):
    """How far each of a tool's stalls is from ftrace's; least first."""
    return differences_us(events.pair(tool.stalls, truth))


def _check_each(tool, comparison):
    """Our tool's stalls against ftrace's, one by one."""
    limit_us = (matrix.PREEMPTED_TIME_US_PER_STALL if matrix.is_preempting(comparison.facts)
                else MEDIAN_US)
    median_us = quantile(_apart_us(tool, comparison.truth), 0.5)
    yield (median_us <= limit_us,
           f"{tool.name}: half of the times within {median_us:.0f} us of ftrace's "
           f"({limit_us} allowed)")


def _check_names(plugin, tool):
    """A tool's names against the plugin's."""
    names = plugin.names.keys() | tool.names.keys()
    none = Counts()
    differing = sum(abs(plugin.names.get(name, none).stalls - tool.names.get(name, none).stalls)
                    for name in names)
    yield (differing <= plugin.lost + tool.lost + tool.hidden,
           f"{tool.name}: the plugin's names have as many stalls each "
           f"({len(names)} names, {differing} stalls apart)")


def check(comparison):
    """Yields (whether it holds, what) for each thing that must hold."""
    facts, tools = comparison.facts, comparison.tools
    trace = facts.trace["direct"]
    yield (trace.unpaired == trace.outside == facts.trace_lost == 0,
           "all direct stalls lie in the stretch, and ftrace lost none "
           f"({trace.unpaired}, {trace.outside}, {facts.trace_lost})")
    yield trace.counts.stalls > 0, f"memory ran out ({trace.counts.stalls} stalls)"
    for tool in tools:
        yield from _check_total(tool, trace)
    for tool in tools[:2]:
        yield from _check_time(tool, facts)
    yield from _check_each(tools[1], comparison)
    for tool in tools[1:]:
        yield tool.startups != [], f"{tool.name}: starts ({len(tool.startups)} times)"
        yield from _check_names(tools[0], tool)


def _row(*cells):
    return "| " + " | ".join(map(str, cells)) + " |"


def _head(*cells):
    return [_row(*cells), "| --- |" + " ---: |" * (len(cells) - 1)]


def _total_rows(comparison):
    facts = comparison.facts
    trace = facts.trace["direct"]
    yield from _head("", "stalls", "pages", "time in ms", "says it lost", "has no time of",
                     "events hidden")
    for tool in comparison.tools:
        yield _row(tool.name, tool.total.stalls, tool.total.pages,
                   tool.total.time_us // 1000, tool.lost, tool.untimed, tool.hidden)
    yield _row("ftrace", trace.counts.stalls, trace.counts.pages,
               trace.counts.time_us // 1000, facts.trace_lost, trace.unpaired, 0)


def _each_rows(comparison):
    yield from _head("", "lines", "apart from ftrace: half up to", "99 % up to",
                     "start in ms", "times reclaimsnoop's")
    ours = statistics.median(comparison.tools[1].startups or [0])
    for tool in comparison.tools[1:]:
        apart = _apart_us(tool, comparison.truth)
        start = statistics.median(tool.startups or [0])
        yield _row(tool.name, len(tool.stalls), f"{quantile(apart, 0.5):.0f} us",
                   f"{quantile(apart, 0.99):.0f} us", f"{start:.0f}",
                   f"{start / ours:.1f}" if ours else "")


def _name_rows(tools):
    names = {name for tool in tools for name in tool.names}
    none = Counts()
    ranked = sorted(names, key=lambda name: (
        -max(tool.names.get(name, none).stalls for tool in tools), name))
    heads = [tool.short() for tool in tools]
    yield from _head("name", *[f"{what}: {head}" if head == heads[0] else head
                               for what in ("stalls", "pages", "ms") for head in heads])
    for name in ranked[:TOP_NAMES]:
        seen = [tool.names.get(name, none) for tool in tools]
        yield _row(f"`{name}`", *[counts.stalls for counts in seen],
                   *[counts.pages for counts in seen],
                   *[counts.time_us // 1000 for counts in seen])


HEAD = """\
# The plugin and reclaimsnoop beside other tools

Made by `tests/vm/run --compare`: guests of 512 MiB and 2 CPUs ran out of memory
while the plugin, `reclaimsnoop -k direct`, other tools and an ftrace instance
watched direct reclaim; bpftrace runs `guest/direct.bt`, which prints a line a
stall. All of them were attached before the load began and detached after it had
ended.
"""

SECTION = """\
## Linux {version}

{totals}

Over the same stretch the kernel counted {allocstall} (`allocstall_*`), and {pgsteal} pages
(`pgsteal_direct`, which has no slab pages).

Stalls one by one, and how long each tool takes to attach:

{each}
{left_out}
The names with most stalls:

{names}
"""

FOOT = """\
## How to read it

Stalls and pages are counts of the same events. They may differ only where a
tool was attached for less of the time (here none was) or lost events, which it
then says: drsnoop and bpftrace when their output is full, reclaimsnoop likewise
and for what the kernel hid, the plugin as `unattributed` and `untimed`. Since
Linux 7.0 the kernel can hide events from a tool, and drsnoop and bpftrace do
not say so: for them, `events hidden` is what the kernel counted of their
programs (`recursion_misses`). An end that is hidden is a stall not printed.

Times are never quite equal: each tool has its turn at an event after another
one and reads the clock then, so a stall differs by some microseconds, or by
milliseconds where an interrupt or a pause of the emulated CPU came between two
turns. Each sum of times is rounded down. drsnoop prints whole microseconds.

Start is from the start of the program until its last program or buffer is
attached, the median of seven, in a guest that has nothing else to do; it is
long since the guest's CPU is emulated. Names are comms, not folded, with bytes
outside of `A-Za-z0-9_-` replaced.
"""


def _section(comparison):
    facts = comparison.facts
    left_out = "".join(f"\nLeft out: {tool} does not start here (`{why}`).\n"
                       for tool, why in comparison.left_out.items())
    return SECTION.format(
        version=facts.version,
        totals="\n".join(_total_rows(comparison)),
        allocstall=sum_allocstall(facts.growth),
        pgsteal=sum_pgsteal(facts.growth),
        each="\n".join(_each_rows(comparison)),
        left_out=left_out,
        names="\n".join(_name_rows(comparison.tools)))


def document(comparisons):
    """The comparisons as a file for people."""
    return "\n".join([HEAD, *map(_section, comparisons), FOOT])
