#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The judgement of what reclaimsnoop printed, without a guest: right figures
pass, and each kind of wrong ones fails where it should. Prints TAP."""

import copy
import dataclasses
import sys

import events
from events import Events, Stall
from facts import Counts
from tap import Tap
from test_check import change, check_wrong, failures, right_facts

# As text of a character a byte, which \\xe4 is.
TRACE = """\
# tracer: nop
              sh-151     [001] .....    10.000000: task_newtask: pid=190 comm=sh clone_flags=1200000 oom_score_adj=0
 stress-ng-vm 5>-190     [001] .....    11.000000: task_rename: pid=190 oldcomm=sh newcomm=stress ng oom_score_adj=0
 stress-ng-vm 5>-190     [001] .....    17.392522: mm_vmscan_direct_reclaim_begin: order=0 gfp_flags=GFP_KERNEL|__GFP_ZERO
   a b-7 [001] x-1291     [000] d.h1.    17.392800: mm_vmscan_memcg_reclaim_begin: order=3 gfp_flags=GFP_ATOMIC pid=1291 memcg_id=28\x20
 stress-ng-vm 5>-190     [000] .....    18.000022: mm_vmscan_direct_reclaim_end: nr_reclaimed=33 pid=190 memcg_id=1
 stress-ng-vm 5>-190     [001] .....    18.100000: task_rename: oldcomm=stress ng newcomm=odd\\ "\xe4 oom_score_adj=1000
   a b-7 [001] x-1291     [001] .....    18.392800: mm_vmscan_memcg_reclaim_end: nr_reclaimed=0
           <...>-200     [000] .....    39.000000: mm_vmscan_direct_reclaim_end: nr_reclaimed=1
           <...>-200     [000] .....    39.000001: mm_vmscan_direct_reclaim_begin: order=0 gfp_flags=none
           <...>-200     [000] .....    39.000003: mm_vmscan_direct_reclaim_end: nr_reclaimed=2
 stress-ng-vm 5>-190     [001] .....    40.000000: mm_vmscan_direct_reclaim_begin: order=0 gfp_flags=GFP_KERNEL
 stress-ng-vm 5>-190     [001] .....    40.000001: mm_vmscan_direct_reclaim_end: nr_reclaimed=4
"""
PARSED = [Stall(190, "direct", "stress ng", 33, 0, "GFP_KERNEL|__GFP_ZERO", 607500, 18000022),
          Stall(1291, "memcg", "a b-7 [001] x", 0, 3, "GFP_ATOMIC", 1000000, 18392800),
          Stall(200, "direct", None, 2, 0, "none", 2, 39000003),
          Stall(190, "direct", 'odd\\x5c "\\xe4', 4, 0, "GFP_KERNEL", 1, 40000001)]

PRINTED = """\
{"time":"1970-01-02T00:00:01.000002Z","comm":"odd\\\\x5c \\"","pid":3,"tid":4,"kind":"direct",\
"latency_ns":1500,"nr_reclaimed":7,"order":2,"gfp_flags":"GFP_KERNEL","cgroup":"/a","cgroup_id":1}
{"time":"1970-01-02T00:00:02.000000Z","comm":"b","pid":3,"tid":5,"kind":"memcg",\
"latency_ns":null,"nr_reclaimed":0,"order":null,"gfp_flags":null,"cgroup":null,"cgroup_id":2}
"""

OFFSET_US = 1700000000000000  # between the two clocks


def right_events():
    """Stalls of a guest in which all is well: as many of each name as
    test_check's plugin counted."""
    truth = []
    for kind, comm, number, pages in (("direct", "stress-ng-vm", 85, 3500),
                                      ("direct", "writer#0", 10, 300),
                                      ("direct", "\\x5cother", 5, 200),
                                      ("memcg", "stress-ng-vm", 60, 2000)):
        for i in range(number):
            ours = pages // number + (pages % number if i == 0 else 0)
            truth.append(Stall(100 + i % 4, kind, comm, ours, i % 3,
                               "GFP_KERNEL" if i % 2 else "GFP_NOFS", 1000.0 * i,
                               1000000 * len(truth)))
    printed = [dataclasses.replace(stall, time_us=stall.time_us + 3.5,
                                   end_us=stall.end_us + OFFSET_US) for stall in truth]
    totals = dict(counted=160, printed=160, unselected=0, lost=0, hidden=0, untimed=0)
    return Events(truth, printed, totals, "", "0", {"direct_end": 0}, set())


def facts_beside():
    """The plugin's figures of the same guest."""
    of = right_facts()
    of.names["direct"]["other"] = of.names["direct"].pop("_other")
    return of


def lossy_events():
    """A guest whose kernel hid two ends and another begin; and a full buffer
    lost a stall."""
    of = right_events()
    of.skipped = {"direct_end": 9, "direct_end_2": 2, "direct_end_3": 3,
                  "direct_begin": 1, "direct_begin_2": 4, "direct_begin_3": 1}
    of.totals.update(printed=157, lost=1, hidden=2, untimed=3)
    alter(7, time_us=None, order=None, gfp=None)(of)
    del of.printed[20:23]
    return of


def alter(number, **values):
    """Changes a printed stall."""
    def change_it(of):
        of.printed[number] = dataclasses.replace(of.printed[number], **values)
    return change_it


def alter_all(make):
    """Changes all of them."""
    def change_them(of):
        of.printed = [dataclasses.replace(stall, **make(stall)) for stall in of.printed]
    return change_them


def drop(number):
    """A line that is not there."""
    def change_it(of):
        del of.printed[number]
    return change_it


def say(**values):
    """Other totals."""
    def change_them(of):
        of.totals.update(values)
    return change_them


def both(*changes):
    """One after the other."""
    def change_them(of):
        for one in changes:
            one(of)
    return change_them


NAMES = "count the same direct"
# What is altered, how, and words of each check that must fail then.
WRONG = [
    ("order and flags swapped", alter_all(lambda stall: {"order": 3264, "gfp": "none"}),
     ["each direct stall", "each memcg stall", "of ftrace's stalls only"]),
    ("one order is another", alter(3, order=7), ["each direct stall", "of ftrace's stalls only"]),
    ("other flags", alter(150, gfp="none"),
     ["each memcg stall", "of ftrace's stalls only"]),
    ("nothing but one order", lambda of: [
        setattr(of, field, [dataclasses.replace(stall, order=0) for stall in getattr(of, field)])
        for field in ("truth", "printed")], ["stalls differ"]),
    ("a page more", alter(3, pages=100),
     ["each direct stall", "of ftrace's stalls only", NAMES]),
    ("another task", alter(3, tid=99), ["each direct stall", "of ftrace's stalls only"]),
    ("another kind", alter(84, kind="memcg"),
     ["each memcg stall", "of ftrace's stalls only", NAMES, "count the same memcg"]),
    ("a line is missing", drop(3),
     ["printed as many as it says", "of ftrace's stalls only", NAMES]),
    ("a line is missing and not said to be", both(drop(3), say(printed=159)),
     ["makes up what it counted", "of ftrace's stalls only", NAMES]),
    ("a line twice", lambda of: of.printed.append(of.printed[-1]),
     ["printed as many as it says", "each memcg stall", "count the same memcg"]),
    ("a stall that it did not count", both(drop(3), say(printed=159, counted=159)),
     ["counted as many stalls as ftrace", "of ftrace's stalls only", NAMES]),
    ("hidden stalls, though the kernel hid none",
     both(drop(3), say(printed=159, hidden=1)), ["no stall that the kernel shows"]),
    ("a stall of unknown request, though the kernel hid none",
     alter(3, order=None, gfp=None), ["unknown time or request"]),
    ("a stall of unknown time, though the kernel hid none",
     both(alter(3, time_us=None), say(untimed=1)), ["unknown time or request"]),
    ("a comm without its escape", alter(95, comm="\\other"), ["comms are ftrace's"]),
    ("no comm to escape",
     lambda of: [alter(i, comm="a")(of) for i, one in enumerate(of.printed) if "\\" in one.comm],
     ["comms are ftrace's", "bytes to escape", NAMES]),
    ("some times far off", both(*[alter(i, time_us=1e9) for i in range(26)]),
     ["times of direct"]),
    ("all times off by 60 us", alter_all(lambda stall: {"time_us": stall.time_us + 60}),
     ["times of direct", "times of memcg"]),
    ("a message on standard error", change("said", "x"), ["ends with status 0"]),
    ("a crash", change("status", "139"), ["ends with status 0"]),
    ("no totals", change("totals", {}), ["ends with status 0"]),
]

# Likewise, of the guest whose kernel hides events.
WRONG_IN_LOSSY = [
    ("a line more missing than said", drop(3),
     ["printed as many as it says", "of ftrace's stalls only", NAMES]),
    ("more hidden than the kernel can have skipped", both(drop(3), say(printed=156, hidden=3)),
     ["no stall that the kernel shows"]),
    ("more of unknown time than it says", both(alter(3, time_us=None), alter(4, time_us=None),
                                               alter(5, time_us=None)),
     ["unknown time or request"]),
    ("more of unknown time than the kernel can have skipped", say(untimed=4),
     ["unknown time or request"]),
    ("an unknown request with pages of no stall", alter(7, time_us=None, order=None, pages=1000),
     ["each direct stall", "of ftrace's stalls only"]),
    ("a page more even so", alter(3, pages=100), ["each direct stall", "of ftrace's stalls only"]),
]


def check_parsing(tap):
    """ftrace's text and reclaimsnoop's output are understood."""
    tap.ok(events.parse_trace(TRACE) == PARSED,
           "a trace gives each stall, with the comm that its task had then")
    tap.ok(events.parse_printed(PRINTED) == [
        Stall(4, "direct", 'odd\\x5c "', 7, 2, "GFP_KERNEL", 1.5, 86401000002),
        Stall(5, "memcg", "b", 0, None, None, None, 86402000000)],
           "lines of JSON give theirs, unknown values too")
    tap.ok(events.parse_totals("5 stalls: 1 printed, 4 lost\n") ==
           ({"counted": 5, "printed": 1, "unselected": 0, "lost": 4, "hidden": 0, "untimed": 0}, "")
           and events.parse_totals("x\n1 stall: 0 printed, 2 not selected, 3 lost, "
                                   "4 hidden by the kernel (5 of unknown time)\n") ==
           ({"counted": 1, "printed": 0, "unselected": 2, "lost": 3, "hidden": 4, "untimed": 5},
            "x"), "so do totals, and messages before them")
    tap.ok(events.parse_totals("error\n") == ({}, "error\n")
           and events.parse_totals("") == ({}, ""), "or there are none")
    both_lists = ('[{"id": 1, "name": "a", "recursion_misses": 1},'
                  ' {"id": 2, "name": "a", "recursion_misses": 7}]')
    tap.ok(events.parse_skipped(both_lists, '[{"id": 1}]') == {"a": 7},
           "programs that were there while it ran, but not afterwards, are its own")


def check_names(tap):
    """Comms are escaped, and named like the plugin does."""
    odd = 'odd\\ "\x01\xe4'
    tap.ok(events.escape(odd) == 'odd\\x5c "\\x01\\xe4' and events.unescape(events.escape(odd)) == odd,
           "bytes are escaped and back")
    tap.ok([events.name_of(*what) for what in (("kworker/u8:3", True), ("Thread-12", False),
                                               ("python3", False), (odd, False), ("-7", False))]
           == ["kworker", "Thread", "python3", "odd", "unknown"], "names are folded and cleaned")
    of = right_events()
    tap.ok(events.count_names(of, "memcg") == {"stress-ng-vm": Counts(60, 1770240, 2000)},
           "stalls of a name are added up")


def check_pairs(tap):
    """Stalls are found again where some are missing."""
    of = right_events()
    whole = events.pair(of.printed, of.truth)
    del of.printed[100:141:4]
    del of.printed[3]
    some = events.pair(of.printed, of.truth)
    tap.ok(len(whole) == 160 and len(some) == 148
           and all(ours.end_us - theirs.end_us == OFFSET_US for ours, theirs in whole + some),
           "a printed stall and ftrace's are paired, also where some are not printed")


def check_judgement(tap):
    """Each wrong figure fails its checks, and no others."""
    for right, cases, what in ((right_events(), WRONG, "right figures pass"),
                               (lossy_events(), WRONG_IN_LOSSY,
                                "and those that lack what the kernel hid")):
        facts = facts_beside()
        if cases is WRONG_IN_LOSSY:
            facts.release = "7.0.1"
        def checks(of, facts=facts):
            return events.check_events(facts, of)
        failed = failures(copy.deepcopy(right), checks)
        tap.ok(failed == [], what)
        tap.note("\n".join(failed))
        check_wrong(tap, right, cases, checks)
    of = right_events()
    facts = facts_beside()
    facts.names["direct"]["writer"].pages += 1
    failed = failures(of, lambda of: events.check_events(facts, of))
    tap.ok(len(failed) == 1 and NAMES in failed[0], "a page more in a name of the plugin's: " + NAMES)


def main():
    """Returns the exit status."""
    tap = Tap()
    check_parsing(tap)
    check_names(tap)
    check_pairs(tap)
    check_judgement(tap)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
