#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The judgement of guest/waits, without a guest: right figures pass, and each
kind of wrong ones fails where it should. Prints TAP."""

import dataclasses
import sys

import waits
from facts import Counts, trace_events
from tap import Tap
from test_check import change, check_wrong, failures, right_facts
from waits import Compaction, Read, Span, Waits, time_in_stretch

TRACE = """\
              sh-152     [001] .....    44.000000: compact_call: (try_to_compact_pages+0x4/0x300)
              sh-152     [001] .....    44.000005: mm_compaction_try_to_compact_pages: order=9 gfp_mask=GFP_KERNEL priority=2
              sh-152     [001] .....    44.000010: mm_compaction_begin: zone_start=0x1 migrate_pfn=0x1 free_pfn=0x0 zone_end=0x1000, mode=async
     kcompactd0-40       [000] .....    44.000015: mm_compaction_begin: zone_start=0x1 migrate_pfn=0x1 free_pfn=0x0 zone_end=0x1000, mode=async
              sh-152     [000] .....    44.000100: mm_compaction_end: zone_start=0x1 migrate_pfn=0x1 free_pfn=0x0 zone_end=0x1000, mode=async status=complete
              sh-152     [000] .....    44.000110: mm_compaction_begin: zone_start=0x1 migrate_pfn=0x1 free_pfn=0x0 zone_end=0x1000, mode=async
              sh-152     [000] .....    44.000130: mm_compaction_end: zone_start=0x1 migrate_pfn=0x1 free_pfn=0x0 zone_end=0x1000, mode=async status=complete
              sh-152     [001] .....    44.000131: compact_return: (__alloc_pages_slowpath.constprop.0+0x66c/0x1400 <- try_to_compact_pages) result=8
   x [1] compact-153     [001] .....    44.000200: compact_call: (try_to_compact_pages+0x4/0x300)
   x [1] compact-153     [001] .....    44.000201: mm_compaction_try_to_compact_pages: order=9 gfp_mask=GFP_KERNEL priority=2
              sh-152     [000] .....    44.000210: mm_compaction_begin: zone_start=0x1 migrate_pfn=0x1 free_pfn=0x0 zone_end=0x1000, mode=sync
   x [1] compact-153     [001] .....    44.000230: compact_return: (__alloc_pages_slowpath.constprop.0+0x66c/0x1400 <- try_to_compact_pages) result=2
     kcompactd0-40       [000] .....    44.000315: mm_compaction_end: zone_start=0x1 migrate_pfn=0x1 free_pfn=0x0 zone_end=0x1000, mode=async status=complete
              sh-152     [000] .....    44.000410: mm_compaction_end: zone_start=0x1 migrate_pfn=0x1 free_pfn=0x0 zone_end=0x1000, mode=sync status=complete
          waiter-154     [000] .....    45.000000: mm_vmscan_throttled: nid=0 usec_timeout=20000 usect_delayed=20000 reason=VMSCAN_THROTTLE_ISOLATED
          waiter-154     [000] .....    45.100000: mm_vmscan_throttled: nid=0 usec_timeout=20000 usect_delayed=4000 reason=VMSCAN_THROTTLE_ISOLATED
          waiter-155     [000] .....    45.200000: mm_vmscan_throttled: nid=0 usec_timeout=100000 usect_delayed=0 reason=VMSCAN_THROTTLE_WRITEBACK
         kswapd0-49      [000] .....    45.300000: mm_vmscan_throttled: nid=0 usec_timeout=100000 usect_delayed=8000 reason=VMSCAN_THROTTLE_WRITEBACK
"""

MEMCG = """\
              sh-400     [001] .....    50.000000: mm_vmscan_memcg_reclaim_begin: order=0 gfp_flags=GFP_KERNEL
          waiter-310     [000] .....    50.000100: mm_vmscan_memcg_reclaim_begin: order=0 gfp_flags=GFP_KERNEL
              sh-400     [001] .....    50.000700: mm_vmscan_memcg_reclaim_end: nr_reclaimed=33
          waiter-310     [000] .....    50.001100: mm_vmscan_memcg_reclaim_end: nr_reclaimed=0
"""


def check_parsing(tap):
    """ftrace's text and the guest's files are understood."""
    events = list(trace_events(TRACE))
    tap.ok(waits.parse_compaction(events) == Compaction(
        direct=[Span(152, 44000010, 44000100), Span(152, 44000110, 44000130)],
        idle=[Span(40, 44000015, 44000315), Span(152, 44000210, 44000410)],
        calls=[Span(152, 44000000, 44000131), Span(153, 44000200, 44000230)],
        announced=2, unpaired=0),
           "direct compaction is what lies within a call, in the same thread")
    tap.ok(waits.parse_memcg(list(trace_events(MEMCG))) == [
        (Span(400, 50000000, 50000700), Counts(1, 700, 33, 0)),
        (Span(310, 50000100, 50001100), Counts(1, 1000, 0, 1))],
           "each memcg reclaim has its thread, its time and its pages")
    halves = [event for event in events if event[1] not in (44000015, 44000131)]
    tap.ok(waits.parse_compaction(halves).unpaired == 2,
           "begins without an end are told, and ends without a begin")
    tap.ok(waits.parse_throttled(events, {49}) == (
        {"ISOLATED": [20000, 4000], "WRITEBACK": [0]}, [8000]),
           "throttled tasks are counted by reason, kswapd apart")
    tap.ok(waits.parse_parts("compact 50 1050\nfrozen 100 1100\nthawed 220 1220\n") == (
        {"compact": 50, "frozen": 100, "thawed": 220}, 1000),
           "both clocks of each part are understood")
    tap.ok(waits.PROBE.findall("  compact_call       27      0\n  compact_return  25  2\n")
           == [("compact_call", "27", "0"), ("compact_return", "25", "2")],
           "so is how often a probe was missed")
    series = {("", "duration", "read"): [(1500, 0.0003), (2500, 0.0001)],
              ("", "total_time_in_ms", "memcg_total"): [(1500, 4), (2500, 5), (3500, 5)],
              ("", "pending_operations", "memcg_total"): [(2500, 3.0)]}
    tap.ok(waits.make_reads(series, "memcg", 1000) == [
        Read(200, 500, 4000, None, None), Read(1400, 1500, 5000, 3.0, None)],
           "a read begins as long before its end as it says")


def check_time_in_stretch(tap):
    """Time passes in the intervals it passes in."""
    stalls = [Span(1, 100, 200), Span(2, 150, 400), Span(3, 500, 500)]
    for begin_us, end_us, time_us, what in (
            (0, 1000, 350, "whole stalls"),
            (120, 180, 90, "the part of two tasks' stalls that lies in a stretch"),
            (200, 300, 100, "a stall that lasts throughout"),
            (0, 100, 0, "nothing before a stall"),
            (400, 1000, 0, "nothing after it"),
            (180, 180, 0, "nothing in a moment"),
            (300, 200, 0, "nothing in a stretch that ends before it begins")):
        found = time_in_stretch(stalls, begin_us, end_us)
        tap.ok(found == time_us, f"time in a stretch: {what} ({found} = {time_us})")
    edges = [0, 120, 130, 300, 450, 600]
    parts = [time_in_stretch(stalls, *stretch) for stretch in zip(edges, edges[1:])]
    tap.ok(sum(parts) == time_in_stretch(stalls, 0, 600) == waits.total_us(stalls),
           f"parts of a stretch add up to the whole ({parts})")


def _right_reads(stalls):
    """A second apart, and 10 ms long; what they tell is of their middle."""
    reads = []
    for now_us in range(100500000, 117500000, 1000000):
        at_us = now_us - 5000
        under_way = [stall for stall in stalls if stall.begin_us <= at_us < stall.end_us]
        reads.append(Read(
            now_us - 10000, now_us, time_in_stretch(stalls, 0, at_us) // 1000 * 1000,
            len(under_way), max((at_us - stall.begin_us for stall in under_way), default=0) / 1e6))
    return reads


def right():
    """Facts and waits of a guest in which all is well, with all kinds."""
    direct = [Span(152, at, at + 20000) for at in range(0, 3000000, 100000)]
    calls = [Span(152, span.begin_us - 10, span.end_us + 10) for span in direct]
    idle = [Span(40, 1, 5000000), Span(152, 4000000, 4500000)]
    throttled = {"ISOLATED": [20000] * 30, "WRITEBACK": [4500]}
    stalls = [Span(310, 102000000, 113100000), Span(311, 102100000, 113000000),
              Span(310, 113200000, 114300000), Span(312, 115600000, 115601000)]
    facts = right_facts()
    proactive = [Span(400, 90000000 + at, 90000500 + at) for at in range(0, 30000, 1000)]
    proactive += [Span(400, 104000000, 114000000)]
    facts.attached.update(compact=True, throttle=True, memcg_proactive=True)
    facts.trace["compact"] = waits.as_trace([span.length_us() for span in direct])
    facts.trace["throttle"] = waits.as_trace(sum(throttled.values(), []))
    for kind, spans in (("memcg", stalls), (waits.PROACTIVE, proactive)):
        facts.trace[kind] = waits.trace_of([Counts(1, span.length_us(), 32) for span in spans])
    for kind in ("memcg", *waits.NEW_KINDS):
        facts.totals[kind] = dataclasses.replace(facts.trace[kind].counts)
    facts.totals["throttle"].time_us = 604000
    return facts, Waits(
        Compaction(direct, idle, [*calls, Span(153, 7, 9)], len(calls) + 1, 0), True, throttled,
        [4000] * 3, stalls, 101900000, _right_reads(stalls), True, proactive,
        _right_reads(proactive))


def today():
    """The same with a plugin that has neither the new kinds nor looks at stalls
    under way."""
    facts, of = right()
    for kind in waits.NEW_KINDS:
        del facts.attached[kind]
        facts.totals[kind] = Counts()
    of.stalls += of.proactive
    each = facts.trace["memcg"].each + facts.trace[waits.PROACTIVE].each
    facts.trace["memcg"] = waits.trace_of(each)
    facts.totals["memcg"] = dataclasses.replace(facts.trace["memcg"].counts)
    for read in of.reads:
        read.pending = read.oldest_s = None
        read.time_us = sum(stall.length_us() for stall in of.stalls
                           if stall.end_us <= read.end_us)
    return facts, of


def old_kernel():
    """The same where nobody can write to memory.reclaim."""
    facts, of = right()
    del facts.attached[waits.PROACTIVE]
    facts.totals[waits.PROACTIVE], facts.trace[waits.PROACTIVE] = Counts(), waits.trace_of([])
    of.can_reclaim, of.proactive, of.proactive_reads = False, [], []
    return facts, of


def in_facts(path, value):
    """Sets something of the facts."""
    return lambda pair: change(path, value)(pair[0])


def in_waits(path, value):
    """Sets something of the waits."""
    return lambda pair: change(path, value)(pair[1])


def in_read(number, field, by):
    """Adds to what a read said."""
    def alter(pair):
        read = pair[1].reads[number]
        setattr(read, field, getattr(read, field) + by)
    return alter


def at_the_end(pair):
    """Time is credited when a stall ends."""
    for read, late in zip(pair[1].reads, today()[1].reads):
        read.time_us = late.time_us


def drop_long_stalls(pair):
    """Stalls are over in a moment."""
    pair[1].stalls = [Span(stall.tid, stall.begin_us, stall.begin_us + 1000)
                               for stall in pair[1].stalls]
    pair[1].reads = _right_reads(pair[1].stalls)


def as_memcg(pair):
    """Nothing is told apart."""
    totals = pair[0].totals
    totals["memcg"].add(totals[waits.PROACTIVE])
    totals[waits.PROACTIVE] = Counts()


def late_proactive(pair):
    """Proactive time is credited when a stall ends."""
    for read in pair[1].proactive_reads:
        read.time_us = sum(stall.length_us() for stall in pair[1].proactive
                           if stall.end_us <= read.end_us)


def no_proactive_pending(pair):
    """Proactive stalls are not looked at while under way."""
    for read in pair[1].proactive_reads:
        read.pending, read.oldest_s = 0, 0


def long_read(pair):
    """A read lasts for seconds, like the next; a proactive stall ends meanwhile."""
    stalls, reads = pair[1].proactive, pair[1].proactive_reads
    first = next(i for i, read in enumerate(reads) if read.end_us > 110000000)
    del reads[first + 1:first + 4]
    reads[first].end_us, reads[first + 1].begin_us = 113900000, 113910000
    told_us = time_in_stretch(stalls, 0, 113920000)
    reads[first + 1].time_us = told_us // 1000 * 1000
    reads[first + 1].pending, reads[first + 1].oldest_s = 1, 9.92
    return reads[first + 1], reads[first]


def late_behind_long_read(pair):
    """The next one finds the stall no more, and its time comes a read late."""
    read, before = long_read(pair)
    read.time_us, read.pending, read.oldest_s = before.time_us, 0, 0


CREDIT, PENDING, OLDEST = "growth of memcg time", "number of memcg stalls", "age of the oldest"

# What is altered, how, and words of each check that must fail then.
WRONG = [
    ("too few zones", lambda pair: pair[1].compaction.direct.__delitem__(slice(4, None)),
     ["at least 5 zones"]),
    ("a call that no probe saw", in_waits("compaction.missed", 1), ["misses no call"]),
    ("a call that ftrace did not announce", in_waits("compaction.announced", 30),
     ["misses no call"]),
    ("half a section", in_waits("compaction.unpaired", 1), ["misses no call"]),
    ("no compaction on request by a task that allocated", in_waits("compaction.idle", []),
     ["because it was asked to"]),
    ("time in calls outside of zones",
     in_waits("compaction.calls", [Span(152, -10000, 3020000)]),
     ["misses no call", "within a per cent"]),
    ("a section that the plugin does not count", in_facts("totals.compact.stalls", 29),
     ["stalls of kind compact"]),
    ("one on request that it counts", in_facts("totals.compact", Counts(31, 1100000)),
     ["stalls of kind compact", "time of kind compact"]),
    ("a kind that is wanted and not attached", in_facts("attached.compact", False),
     ["kind compact is attached"]),
    ("too few throttled tasks", in_facts("trace.throttle", waits.as_trace([4500])),
     ["throttled at least", "stalls of kind throttle", "time of kind throttle"]),
    ("kswapd's as tasks'", in_facts("totals.throttle", Counts(34, 616000)),
     ["stalls of kind throttle", "time of kind throttle"]),
    ("throttled time lost", in_facts("totals.throttle.time_us", 603000),
     ["time of kind throttle"]),
    ("throttled tasks of a kernel that has none", in_waits("can_throttle", False),
     ["throttled at least", "kind throttle is not attached"]),
    ("a memcg stall dropped", in_facts("totals.memcg.stalls", 3), ["stalls of kind memcg"]),
    ("a proactive stall dropped", in_facts("totals.memcg_proactive.stalls", 30),
     ["stalls of kind memcg_proactive"]),
    ("proactive stalls as memcg's", as_memcg, ["stalls of kind memcg equal", "time of kind memcg ",
     "pages reclaimed of kind memcg equal", "stalls of kind memcg_p", "time of kind memcg_p",
     "pages reclaimed of kind memcg_p"]),
    ("a page of a limit's as proactive", in_facts("totals.memcg_proactive.pages", 993),
     ["pages reclaimed of kind memcg_p"]),
    ("a fruitful stall as a fruitless one", in_facts("totals.memcg_proactive.fruitless", 1),
     ["fruitless stalls of kind memcg_p"]),
    ("too few writes", in_waits("proactive", [Span(400, 104000000, 114000000)]),
     ["stalls at least 20 times"]),
    ("writes on a kernel without", in_waits("can_reclaim", False),
     ["stalls at least 20 times", "memcg_proactive is not attached"]),
    ("a kernel with, and not attached", in_facts("attached.memcg_proactive", False),
     ["memcg_proactive is attached"]),
    ("proactive time at the end only", late_proactive, ["growth of memcg_proactive time"]),
    ("proactive time a read late behind a long one", late_behind_long_read,
     ["growth of memcg_proactive time"]),
    ("no proactive stall under way", no_proactive_pending,
     ["number of memcg_proactive stalls", "age of the oldest", "reads find a proactive"]),
    ("no long stall", drop_long_stalls, ["lasts for at least", "reads on"]),
    ("too few reads", lambda pair: pair[1].reads.__delitem__(slice(3, 9)), ["reads on"]),
    ("time credited at the end only", at_the_end, [CREDIT]),
    ("time of one interval in the next one", in_read(5, "time_us", -300000), [CREDIT]),
    ("time twice", in_read(-1, "time_us", 2000000), [CREDIT]),
    ("time of one task only", in_read(6, "time_us", -1000000), [CREDIT]),
    ("one stall under way too few", in_read(6, "pending", -1), [PENDING]),
    ("one too many", in_read(6, "pending", 1), [PENDING]),
    ("one that stays under way", in_read(15, "pending", 1), [PENDING]),
    ("an age that is too great", in_read(6, "oldest_s", 0.2), [OLDEST]),
    ("an age that stands still", in_read(6, "oldest_s", -1), [OLDEST]),
    ("an error in collectd's log", in_facts("collectd_errors", ["x"]), ["collectd ends"]),
    ("a lost record", in_facts("trace_lost", 1), ["ftrace lost"]),
]


def check_judgement(tap):
    """Each wrong figure fails its checks, and no others."""
    def checks(pair):
        return waits.check_waits(*pair)
    tap.ok(failures(right(), checks) == [], "right figures pass")
    tap.ok(not any("NOT" in line for line in waits.describe(*right())), "all of them compared")
    tap.ok(failures(old_kernel(), checks) == [], "so do those of a kernel without memory.reclaim")
    long = right()
    long_read(long)
    tap.ok(failures(long, checks) == [], "so do those of a read that lasts for seconds")
    tap.ok(failures(today(), checks) == [], "so do those of a plugin without the new kinds")
    notes = [line for line in waits.describe(*today()) if "NOT COMPARED" in line]
    tap.ok(len(notes) == 4, f"which is said ({len(notes)} notes)")
    check_wrong(tap, right(), WRONG, checks)


def main():
    """Returns the exit status."""
    tap = Tap()
    check_parsing(tap)
    check_time_in_stretch(tap)
    check_judgement(tap)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
