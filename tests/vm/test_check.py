#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The judgement of a guest's figures, without a guest: right figures pass,
and each kind of wrong ones fails where it should. Prints TAP."""

import copy
import dataclasses
import os
import sys
import tempfile

import check
import compare
import facts
import readme
from events import Stall
from facts import Counts, Facts, Trace
from tap import Tap

TRACE = """\
# tracer: nop
              sh-151     [001] ...1.    12.000001: tracing_mark_write: begin
    stress-ng-vm-190     [001] .....    17.392522: mm_vmscan_direct_reclaim_begin: order=0 gfp_flags=GFP_KERNEL
         kswapd0-31      [000] .....    17.392600: mm_vmscan_lru_shrink_inactive: nid=0 nr_scanned=32 nr_reclaimed=9 nr_dirty=0
    stress-ng-vm-190     [000] .N..     17.392700: mm_vmscan_lru_shrink_inactive: nid=0 nr_scanned=32 nr_reclaimed=30 nr_dirty=0
  a b-7 [001] x-1291     [000] d.h1.    17.392800: mm_vmscan_memcg_reclaim_begin: order=0 gfp_flags=GFP_KERNEL pid=1291 memcg_id=28
    stress-ng-vm-190     [000] .....    18.000022: mm_vmscan_direct_reclaim_end: nr_reclaimed=33 pid=190 memcg_id=1
  a b-7 [001] x-1291     [001] .....    18.392800: mm_vmscan_memcg_reclaim_end: nr_reclaimed=0
              sh-151     [000] ...1.    38.681089: tracing_mark_write: quiet
           <...>-200     [000] .....    39.000000: mm_vmscan_direct_reclaim_end: nr_reclaimed=1
"""


def right_facts():
    """Figures of a guest in which all is well."""
    return Facts(
        release="6.1.0-1-cloud", version="6.1.5-1", preemption="",
        attached={"direct": True, "memcg": True},
        attached_again=False, skipped={"direct_end": 0, "direct_begin": 0},
        totals={"direct": Counts(100, 5000000, 4000, 2),
                "memcg": Counts(60, 3000000, 2000, 0)},
        names={"direct": {"stress-ng-vm": Counts(85, 4300000, 3500, 1),
                          "writer": Counts(10, 500000, 300, 1),
                          "_other": Counts(5, 199000, 200, 0)},
               "memcg": {"stress-ng-vm": Counts(60, 3000000, 2000, 0)}},
        pending={"direct": 0, "memcg": None},
        unattributed=0, untimed=0,
        trace={"direct": Trace(Counts(100, 5001000, 4000, 2), 100, 3990),
               "memcg": Trace(Counts(60, 2999500, 2000, 0), 60, 2000)},
        trace_lost=0,
        growth={"allocstall_normal": 60, "allocstall_movable": 40,
                "pgsteal_direct": 3980, "pgsteal_khugepaged": 10},
        node_counters={"nr_free_pages"},
        collectd_status="0", collectd_errors=[],
        bpf_tests=[("test_x", "0", "ok 1 - a\nok 2 - b\n1..2\n")],
        beside=None)


def lossy_facts():
    """A guest whose kernel skips programs: of two direct stalls no program saw
    the end, of a third one none saw the begin."""
    of = right_facts()
    of.release, of.attached_again = "7.0.1", True
    of.beside = {"traced events": 300, "rounds of bpf() calls": 20}
    of.skipped = {"direct_end": 9, "direct_end_2": 2, "direct_end_3": 3,
                  "direct_begin": 1, "direct_begin_2": 4, "direct_begin_3": 1}
    of.unattributed, of.untimed, of.pending["direct"] = 2, 3, 2
    of.trace["direct"].each = [Counts(1, 500000, 40, 0), Counts(1, 900000, 30, 0),
                               Counts(1, 900, 0, 1), Counts(1, 700000, 20, 0)]
    total, name = of.totals["direct"], of.names["direct"]["stress-ng-vm"]
    for counts in (total, name):
        counts.pages -= 70
        counts.time_us -= 2100000
        counts.fruitless -= 1
    return of


def failures(of, checks=check.check):
    """What does not hold."""
    return [behaviour for holds, behaviour in checks(of) if not holds]


def add_stalls(kind, number):
    """A plugin that counts more or fewer stalls, in names and total alike."""
    def alter(of):
        of.totals[kind].stalls += number
        of.names[kind]["stress-ng-vm"].stalls += number
    return alter


def add_pages(kind, number):
    """Likewise with pages."""
    def alter(of):
        of.totals[kind].pages += number
        of.names[kind]["stress-ng-vm"].pages += number
    return alter


def change(path, value):
    """Sets what a dotted path names, of attributes and keys."""
    def alter(of):
        *way, last = path.split(".")
        for step in way:
            of = of[step] if isinstance(of, dict) else getattr(of, step)
        if isinstance(of, dict):
            of[last] = value
        else:
            setattr(of, last, value)
    return alter


# What is altered, how, and words of each check that must fail then.
WRONG = [
    ("a stall dropped", add_stalls("direct", -1), ["stalls of kind direct equal"]),
    ("a stall too many", add_stalls("direct", 1),
     ["stalls of kind direct equal", "growth of allocstall"]),
    ("a memcg stall dropped", add_stalls("memcg", -1), ["stalls of kind memcg equal"]),
    ("pages off by one", add_pages("direct", 1),
     ["pages reclaimed of kind direct equal", "growth of pgsteal_direct"]),
    ("memcg pages off by one", add_pages("memcg", -1), ["pages reclaimed of kind memcg equal"]),
    ("a fruitless stall dropped", change("totals.direct.fruitless", 1),
     ["fruitless stalls of kind direct"]),
    ("time of a stall lost", change("totals.direct.time_us", 4900000),
     ["time of kind direct", "ms of all names"]),
    ("memcg time doubled", change("totals.memcg.time_us", 6000000),
     ["time of kind memcg", "ms of all names"]),
    ("a name missing from the sum", lambda of: of.names["direct"].pop("_other"),
     ["stalls of all names", "pages of all names", "ms of all names"]),
    ("a name's pages twice", change("names.memcg.stress-ng-vm.pages", 4000),
     ["pages of all names are those of memcg"]),
    ("another pgsteal", change("growth.pgsteal_direct", 3981), ["growth of pgsteal_direct"]),
    ("pgsteal without khugepaged's pages", change("growth.pgsteal_khugepaged", 0),
     ["growth of pgsteal_direct"]),
    ("pgsteal with memcg's pages, unknown", change("growth.pgsteal_direct", 5980),
     ["growth of pgsteal_direct"]),
    ("pgsteal without memcg's pages where it has them",
     change("node_counters", {"pgsteal_direct"}), ["growth of pgsteal_direct"]),
    ("the culprit's stalls under another name",
     lambda of: of.names["direct"].update({"sh": of.names["direct"].pop("stress-ng-vm")}),
     ["stress-ng-vm has most"]),
    ("a begin word never cleared", change("pending.direct", 1), ["stays under way"]),
    ("unattributed stalls", change("unattributed", 1), ["unattributed"]),
    ("untimed stalls", change("untimed", 1), ["untimed"]),
    ("no word about untimed stalls", change("untimed", None), ["untimed"]),
    ("a kind not attached", change("attached.memcg", False), ["kind memcg is attached"]),
    ("a lazy load", change("trace.memcg.counts.stalls", 49),
     ["provoked at least 50", "pairs all memcg", "stalls of kind memcg equal"]),
    ("an event lost by ftrace", change("trace_lost", 1), ["ftrace lost no record"]),
    ("a begin without an end", change("trace.direct.unpaired", 1), ["pairs all direct"]),
    ("an end with less than its LRU pages", change("trace.direct.short", 1),
     ["less than the pages from LRU"]),
    ("a stall after the stretch", change("trace.direct.outside", 1), ["lies outside"]),
    ("a crash of collectd", change("collectd_status", "139"), ["collectd ends"]),
    ("an error in collectd's log", change("collectd_errors", ["[error] x"]), ["collectd ends"]),
    ("a failed BPF test", change("bpf_tests", [("t", "1", "ok 1 - a\nnot ok 2 - b\n1..2\n")]),
     ["t: b", "t: ends"]),
    ("a BPF test that stops", change("bpf_tests", [("t", "0", "ok 1 - a\n1..2\n")]), ["t: ends"]),
    ("no BPF test", change("bpf_tests", []), ["has tests of the BPF programs"]),
    ("a BPF test that skips", change("bpf_tests", [("t", "0", "1..0 # SKIP x\n")]), ["t: ends"]),
    ("programs attached again without need", change("attached_again", True), ["attached once"]),
    ("skipped events where there is but one copy",
     lambda of: (of.skipped.update(direct_end=9), change("unattributed", 1)(of)),
     ["unattributed"]),
]


# Likewise, of the guest whose kernel skips programs.
WRONG_IN_LOSSY = [
    ("a single copy where programs are preempted", change("attached_again", False),
     ["attached three times"]),
    ("nothing beside the plugin", change("beside.traced events", 0), ["traced events beside"]),
    ("no bpf() calls beside the plugin", change("beside.rounds of bpf() calls", 0),
     ["bpf() calls beside"]),
    ("a stall dropped even so", add_stalls("direct", -1), ["stalls of kind direct equal"]),
    ("more pages gone than two stalls had", add_pages("direct", -1),
     ["pages reclaimed of kind direct", "growth of pgsteal_direct"]),
    ("more pages than there are", add_pages("direct", 71),
     ["pages reclaimed of kind direct", "growth of pgsteal_direct"]),
    ("another kind's pages gone", add_pages("memcg", -1), ["pages reclaimed of kind memcg"]),
    ("more fruitless stalls gone", change("totals.direct.fruitless", 0), ["fruitless stalls"]),
    ("more time gone than three stalls took", change("totals.direct.time_us", 2400000),
     ["time of kind direct", "ms of all names"]),
    ("more unattributed than the kernel can have skipped", change("unattributed", 3),
     ["unattributed"]),
    ("more untimed than the kernel can have skipped", change("untimed", 4), ["untimed"]),
    ("more stalls under way than lost ends", change("pending.direct", 3), ["stays under way"]),
    ("pages gone, but no stall said to be unattributed", change("unattributed", 0),
     ["pages reclaimed of kind direct", "fruitless stalls", "time of kind direct",
      "growth of pgsteal_direct", "stays under way"]),
]


def check_judgement(tap):
    """Each wrong figure fails its checks, and no others."""
    tap.ok(failures(right_facts()) == [], "right figures pass")
    newer = right_facts()
    newer.node_counters = {"pgsteal_direct"}
    newer.growth["pgsteal_direct"] += 2000
    tap.ok(failures(newer) == [], "so do those where pgsteal has memcg's pages")
    tap.ok(failures(lossy_facts()) == [],
           "and those that lack what the kernel did not show")
    check_wrong(tap, right_facts(), WRONG)
    check_wrong(tap, lossy_facts(), WRONG_IN_LOSSY)


def check_wrong(tap, right, cases, checks=check.check):
    """Alters right figures as each case says."""
    for what, alter, words in cases:
        wrong = copy.deepcopy(right)
        alter(wrong)
        failed = failures(wrong, checks)
        exact = len(failed) == len(words) and all(
            any(word in line for line in failed) for word in words)
        tap.ok(exact, f"{what}: {'; '.join(words)}")
        if not exact:
            tap.note("failed: " + "; ".join(failed))


DRSNOOP = """\
Tracing direct reclaim events
TIME     COMM             TID     LAT(ms) PAGES
12:00:01 stress-ng-vm     190      10.500    33
12:00:01 a 1 2.5 b        17        0.001     0
12:00:02 stress-ng-vm     191       2.000    32
"""
BPFTRACE = """\
Attaching 3 probes...
190 10500000 33 stress-ng-vm
17 0 0 a 1 2.5 b
Lost 2 events
191 2000000 32 stress-ng-vm
"""
SNOOP = "".join(
    '{"time":"2026-01-01T00:00:00.000000Z","comm":"%s","pid":1,"tid":%d,"kind":"direct",'
    '"latency_ns":%d,"nr_reclaimed":%d,"order":0,"gfp_flags":"none","cgroup":null,"cgroup_id":1}\n'
    % what for what in (("stress-ng-vm", 190, 10500000, 33), ("a 1 2.5 b", 17, 1000, 0),
                        ("stress-ng-vm", 191, 2000000, 32)))


def compared():
    """A comparison in which all is well."""
    of = right_facts()
    of.trace["direct"] = Trace(Counts(3, 12501, 65, 1), 3, each=[
        Counts(1, 10500, 33, 0), Counts(1, 1, 0, 1), Counts(1, 2000, 32, 0)])
    names = {"stress-ng-vm": Counts(2, 12500, 65, 0), "a_1_2_5_b": Counts(1, 1, 0, 1)}
    truth = [Stall(190, "direct", "stress-ng-vm", 33, 0, "none", 10500, 1),
             Stall(17, "direct", "a 1 2.5 b", 0, 0, "none", 1, 2),
             Stall(191, "direct", "stress-ng-vm", 32, 0, "none", 2000, 3)]
    tools = [compare.Tool("the plugin", names, 0, 0),
             compare.parse_snoop(SNOOP, "3 stalls: 3 printed, 0 lost\n"),
             compare.parse_drsnoop(DRSNOOP, ""),
             compare.parse_direct_bt(BPFTRACE, "")]
    for number, tool in enumerate(tools[1:]):
        tool.startups = compare.parse_startups(f"{number * 20 + 10}\nnoise\n{number * 20 + 30}\n")
    return compare.Comparison(of, truth, tools, {"x (1)": "no such thing"})


def in_tool(number, path, value):
    """Sets something of a tool."""
    def alter(of):
        change(path, value)(of.tools[number])
    return alter


WRONG_COMPARISON = [
    ("a line that reclaimsnoop does not say it lost", in_tool(1, "total.stalls", 2),
     ["reclaimsnoop: all direct stalls"]),
    ("a stall that drsnoop does not say it lost", in_tool(2, "total.stalls", 2),
     ["drsnoop: all direct stalls"]),
    ("one too many", in_tool(3, "total.stalls", 4), ["bpftrace: all direct stalls"]),
    ("pages of no lost stall", in_tool(0, "total.pages", 64), ["the plugin: all their pages"]),
    ("a page more in a line", in_tool(1, "total.pages", 66), ["reclaimsnoop: all their pages"]),
    ("time of no untimed stall", in_tool(1, "total.time_us", 10000), ["reclaimsnoop: their time"]),
    ("time that the plugin has not", in_tool(0, "total.time_us", 10000), ["the plugin: their time"]),
    ("a stall under another name",
     lambda of: of.tools[2].names.update(sh=of.tools[2].names.pop("a_1_2_5_b")),
     ["drsnoop: the plugin's names"]),
    ("times of the wrong stalls",
     lambda of: change("stalls", [dataclasses.replace(stall, time_us=stall.time_us + 300)
                                  for stall in of.tools[1].stalls])(of.tools[1]),
     ["reclaimsnoop: half of the times"]),
    ("a tool that did not start", in_tool(2, "startups", []), ["drsnoop: starts"]),
    ("a stall before the stretch", change("facts.trace.direct.outside", 1),
     ["lie in the stretch"]),
]


def check_comparison(tap):
    """Other tools' output is understood and judged."""
    of = compared()
    _, snoop, drsnoop, bpftrace = of.tools
    names = {"stress-ng-vm": Counts(2, 12500, 65), "a_1_2_5_b": Counts(1, 1)}
    tap.ok(drsnoop.names == names, "drsnoop's lines are understood, whatever a comm looks like")
    tap.ok(compare.parse_drsnoop("", "Lost 3 events on CPU #0!\n").lost == 3,
           "and what it says it lost")
    tap.ok(bpftrace.names == {**names, "a_1_2_5_b": Counts(1)}
           and (bpftrace.lost, bpftrace.untimed) == (2, 1), "so is what bpftrace prints")
    tap.ok(snoop.names == names and snoop.lost == 0
           and compare.parse_snoop("", "9 stalls: 0 printed, 4 lost, 5 hidden by the kernel").lost
           == 9, "and reclaimsnoop")
    tap.ok(compare.count_skipped('[{"id": 1}, {"name": "ab", "recursion_misses": 2},'
                                 ' {"name": "ac"}, {"name": "b", "recursion_misses": 7}]', "a") == 2,
           "bpftool says what the kernel hid from a tool")
    tap.ok(failures(of, compare.check) == [], "tools that agree pass")
    check_wrong(tap, of, WRONG_COMPARISON, compare.check)
    text = compare.document([of, of])
    tap.ok(text.count("\n## Linux 6.1.5-1\n") == 2
           and "| reclaimsnoop | 3 | 0 us | 0 us | 20 | 1.0 |" in text
           and "| drsnoop | 3 | 0 us | 0 us | 40 | 2.0 |" in text
           and "Left out: x (1) does not start here (`no such thing`)." in text,
           "the document has a section a kernel")


def check_table(tap):
    """What people read."""
    row = check.table_row(right_facts(), "4 CPUs")
    tap.ok(row == "| 6.1.5-1, 4 CPUs | 100 / 100 / 100 | 4000 / 4000 | 3990 | 60 / 60 | 2000 / 2000 |"
           and row.count("|") == check.TABLE_HEAD.splitlines()[1].count("|"),
           "the table has a guest's figures")
    text = "a\n<!-- kernels: begin -->\nold\n<!-- kernels: end -->\nb\n"
    once = readme.replace_table(text, "| new |")
    tap.ok("| new |" in once and "old" not in once and once.startswith("a\n")
           and once.endswith("b\n") and readme.replace_table(once, "| new |") == once,
           "the README's table is replaced, and nothing else")


def check_parsing(tap):
    """ftrace's text and collectd's files are understood."""
    traces = facts.parse_trace(TRACE)
    tap.ok(traces["direct"] == Trace(Counts(2, 607500, 34, 0), begins=1, lru_pages=30,
                                     unpaired=1, outside=1, each=[
                                         Counts(1, 607500, 33), Counts(1, 0, 1)]),
           "a trace gives stalls, time, pages, LRU pages, what is unpaired and outside")
    tap.ok(traces["memcg"] == Trace(Counts(1, 1000000, 0, 1), begins=1,
                                    each=[Counts(1, 1000000, 0, 1)]),
           "whatever a comm looks like")
    tap.ok(facts.parse_programs('[{"id": 1}, {"name": "a"}, {"name": "b", "recursion_misses": 3}]')
           == {"a": 0, "b": 3}, "bpftool says how often each program was skipped")
    with tempfile.TemporaryDirectory() as folder:
        for series, lines in (("reclaim-a-b/total_events-direct-2026-01-01", "1,2\n2,5\n"),
                              ("reclaim-a-b/total_events-direct-2026-01-02", "3,7\n"),
                              ("reclaim/gauge-attached_direct-2026-01-01", "1,1\n")):
            path = os.path.join(folder, "csv/guest", series)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="ascii") as file:
                file.write("epoch,value\n" + lines)
        tap.ok(facts.read_last_values(folder) == {
            ("a-b", "total_events", "direct"): 7, ("", "gauge", "attached_direct"): 1},
               "the last value of each series counts, over all days")


def main():
    """Returns the exit status."""
    tap = Tap()
    check_parsing(tap)
    check_judgement(tap)
    check_comparison(tap)
    check_table(tap)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
