#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What collectd writes against what ftrace saw, to the unit. The command line
may name some of the tests."""

import collections
import sys
import time

from harness import (Collectd, Staller, Tap, Trace, bpf_objects,
                     need_live_machine)

HOSTILE = b"../x\n%s\xff/1"  # climbs, breaks lines, formats, is no UTF-8
ALL_NAMES = "MaxNames 1000\nNewNamesPerHour 100000"


def truth_by_name(stalls, names):
    """{name: (stalls, pages)} where `names` is {tid: name}."""
    sums = collections.defaultdict(lambda: [0, 0])
    for stall in stalls:
        counts = sums[names.get(stall.tid, "?")]
        counts[0] += 1
        counts[1] += stall.pages
    return {name: tuple(counts) for name, counts in sums.items()}


def written_by_name(collectd):
    """{name: (stalls, pages)} as the counters have it at the end."""
    names = {series.split("/")[0][len("reclaim-"):]
             for series in collectd.series() if series.startswith("reclaim-")}
    return {name: (collectd.growth(f"reclaim-{name}/total_events-memcg"),
                   collectd.growth(f"reclaim-{name}/vmpage_action-memcg"))
            for name in names}


def written_total(collectd):
    return (collectd.growth("reclaim/total_events-memcg_total"),
            collectd.growth("reclaim/vmpage_action-memcg_total"))


def total(stalls):
    memcg = [stall for stall in stalls if stall.kind == "memcg"]
    return len(memcg), sum(stall.pages for stall in memcg)


def sum_of(counts):
    return tuple(map(sum, zip(*counts)))


def observe(options, load):
    """Runs collectd and ftrace while `load` makes stalls and returns {tid:
    name}; ends two reads after the last of them."""
    before = bpf_objects()
    trace, collectd = Trace(), Collectd(options).start()
    try:
        names = load(collectd)
        collectd.wait_reads(2)
    finally:
        collectd.stop()
        stalls = trace.stalls()
        trace.remove()
    return collectd, stalls, names, bpf_objects() - before


def name_threads(staller, rename=lambda comm: comm.decode()):
    return {tid: rename(comm) for tid, comm in staller.comms.items()}


def varied_load(collectd):
    """Programs of chosen names, one after the other and together."""
    names = {}
    short = Staller([b"short-lived"], 96)
    short.wait()
    names.update(name_threads(short))
    steady = Staller([b"steady"], 64, seconds=3)
    hostile = Staller([HOSTILE], 96)
    hostile.wait()
    names.update(name_threads(hostile, lambda comm: "x__s"))
    pool = Staller([b"Thread-%d" % i for i in range(1, 6)], 32)
    pool.wait()
    names.update(name_threads(pool, lambda comm: "Thread"))
    many = Staller([b"w%03dx" % i for i in range(200)], 1)
    many.wait()
    names.update(name_threads(many))
    steady.wait()
    names.update(name_threads(steady))
    collectd.wait_reads(1)
    return names


def test_every_name(tap):
    collectd, stalls, names, left = observe(
        f"{ALL_NAMES}\nReportMaximum true\nReportFruitless true",
        varied_load)
    truth, written = truth_by_name(stalls, names), written_by_name(collectd)
    tap.note(f"{len(stalls)} stalls of {len(truth)} names")
    tap.ok(len(stalls) > 1000 and len(truth) > 150,
           "there was something to count", f"{len(stalls)} {len(truth)}")
    for name in "short-lived", "x__s", "Thread", "steady":
        tap.ok(name in truth and written.get(name) == truth[name],
               f"stalls and pages of {name} equal ftrace's",
               f"wrote {written.get(name)}, ftrace {truth.get(name)}")
    tap.equal(written, truth, "and so for each of 200 threads")
    tap.equal(written_total(collectd), total(stalls),
              "the total equals ftrace's")
    check_time(tap, collectd, stalls)
    tap.equal(collectd.growth("reclaim/total_events-unattributed"), 0,
              "nothing is unattributed")
    tap.equal(collectd.growth("reclaim/total_events-untimed"), 0,
              "nothing is untimed")
    tap.equal(collectd.complaints(), [], "there is nothing to complain of")
    tap.equal(left, set(), "shutdown leaves no BPF program or map behind")
    collectd.clean()


def check_time(tap, collectd, stalls):
    """ftrace's stamps are taken within microseconds of the plugin's."""
    written_ms = collectd.growth("reclaim/total_time_in_ms-memcg_total")
    truth_ms = sum(stall.duration for stall in stalls) * 1e3
    slack_ms = 0.02 * truth_ms + 0.01 * len(stalls)
    tap.ok(abs(written_ms - truth_ms) <= slack_ms,
           "the time equals ftrace's within 10 us a stall and 2 %",
           f"wrote {written_ms} ms, ftrace {truth_ms} ms")
    longest = max(stall.duration for stall in stalls)
    written = max(value for _, value in
                  collectd.values("reclaim/latency-memcg_total_max"))
    tap.ok(abs(written - longest) <= 0.1 * longest + 1e-3,
           "the longest stall is within 10 % and 1 ms of ftrace's",
           f"wrote {written} s, ftrace {longest} s")


def test_defaults_bound_the_names(tap):
    collectd, stalls, _, _ = observe("", varied_load)
    written = written_by_name(collectd)
    tap.ok(len(written) <= 21 and "_other" in written,
           "by default 20 names and _other have series", sorted(written))
    tap.equal(sum_of(written.values()), total(stalls),
              "they add up to what ftrace saw")
    tap.ok("steady" in written, "the steady program is among them")
    collectd.clean()


def test_process(tap):
    def load(collectd):
        staller = Staller([b"GC_Thread-1", b"Compiler", b"main-loop"], 64,
                          leader=b"java")
        staller.wait()
        collectd.wait_reads(1)
        return {tid: "java" for tid in staller.comms}

    collectd, stalls, names, _ = observe("GroupBy process", load)
    tap.ok(len(stalls) > 100, "threads stalled", len(stalls))
    tap.equal(written_by_name(collectd), truth_by_name(stalls, names),
              "GroupBy process gives threads their leader's name")
    collectd.clean()


def test_short_table(tap):
    def load(collectd):
        staller = Staller([b"w%03dx" % i for i in range(300)], 1)
        staller.wait()
        collectd.wait_reads(1)
        return name_threads(staller)

    collectd, stalls, _, _ = observe(f"MaxTracked 64\n{ALL_NAMES}", load)
    written = written_by_name(collectd)
    tap.ok(collectd.growth("reclaim/total_events-unattributed") > 0,
           "more comms than rows: some stalls are unattributed")
    tap.equal(written["_other"][0] >=
              collectd.growth("reclaim/total_events-unattributed"), True,
              "they are in _other")
    tap.equal(sum_of(written.values()), total(stalls), "and none is lost")
    collectd.clean()


def test_restart(tap):
    """Under steady load, only what falls between two collectds is not seen."""
    trace = Trace()
    staller = Staller([b"steady"], 64, seconds=8)
    runs = []
    for _ in range(2):
        collectd = Collectd(ALL_NAMES).start()
        collectd.wait_reads(3)
        if not runs:
            collectd.stop()
        runs.append(collectd)
    staller.wait()
    runs[1].wait_reads(2)
    runs[1].stop()
    stalls = trace.stalls()
    trace.remove()

    offset = time.time() - time.monotonic()
    series = "reclaim/total_events-memcg_total"
    last_read = runs[0].values(series)[-1][0]
    took = runs[0].values("reclaim/duration-read")[-1][1]
    next_read = runs[1].values(series)[0][0]
    first_read = runs[0].values(series)[0][0]
    ends = [stall.end + offset for stall in stalls]
    before = sum(end < first_read for end in ends)
    gap = sum(last_read - took - 0.05 <= end <= next_read + 0.05
              for end in ends)
    written = sum(run.growth(series) for run in runs)
    lost = len(stalls) - written
    tap.note(f"{len(stalls)} stalls, {written} written, {before} before the "
             f"first read, {gap} between the runs")
    tap.ok(0 <= lost <= before + gap,
           "a restart loses at most what falls between last and first read",
           f"lost {lost} of {len(stalls)}")
    tap.ok(written > len(stalls) / 3, "both runs saw their part", written)
    for run in runs:
        run.clean()


def main():
    need_live_machine()
    tap = Tap()
    tests = {test.__name__: test for test in (
        test_every_name, test_defaults_bound_the_names, test_process, test_short_table,
        test_restart)}
    for name in sys.argv[1:] or tests:
        tests[name](tap)
    tap.done()


main()
