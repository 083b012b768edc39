#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""As many stalls as this machine can make: the plugin counts them all, and of
events what found no room is counted as lost."""

import os
import re
import signal
import subprocess
import time

from ends import Ends
from harness import BUILD, Collectd, MemoryCgroup, Tap, need_live_machine

WORKERS = 4
NAMES = 50  # of each worker; the same for all
SECONDS = 8
BUFFER_MIB = 128  # of ftrace, for each CPU


class Work:
    """tests/bench/work in cgroups of their own."""

    def __init__(self):
        self.cgroups = [MemoryCgroup(16) for _ in range(WORKERS)]
        writes = os.path.exists(f"{self.cgroups[0].path}/memory.limit_in_bytes")
        self.processes = [subprocess.Popen(
            [f"{BUILD}/tests/bench/work", cgroup.path, "limit" if writes else "read", "1",
             str(NAMES), "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for cgroup in self.cgroups]
        for process in self.processes:
            process.stdout.readline()

    def end(self):
        """Ends it, and cleans up."""
        for process in self.processes:
            process.communicate()
        for cgroup in self.cgroups:
            cgroup.remove()


def freeze(collectd, seconds):
    """Nobody takes events meanwhile."""
    collectd.process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    collectd.process.send_signal(signal.SIGCONT)


def run(options, frozen=0):
    """A collectd that has seen it, (stalls, pages) as ftrace saw them, and how many a second
    there were."""
    trace, collectd = Ends(BUFFER_MIB), Collectd(f"Kinds direct memcg\n{options}").start()
    try:
        work, begin, before = Work(), time.monotonic(), trace.entries()
        time.sleep(SECONDS - frozen)
        if frozen:
            freeze(collectd, frozen)
        rate = (trace.entries() - before) / (time.monotonic() - begin)
        work.end()
        collectd.wait_reads(4)
    finally:
        collectd.stop()
        lost, ends = trace.lost(), trace.take()
        trace.remove()
    if lost:
        raise RuntimeError(f"ftrace lost {lost} ends")
    truth = [sum(counts[i] for (kind, _), counts in ends.items() if kind == "memcg")
             for i in (0, 1)]
    return collectd, truth, rate


def check_sums(tap, collectd, truth, what):
    """Stalls and pages of names and _other, the total, and ftrace."""
    for series, wanted in zip(("total_events-memcg", "vmpage_action-memcg"), truth):
        parts = sum(collectd.growth(name) for name in collectd.series()
                    if re.fullmatch(rf"reclaim-.*/{series}", name))
        tap.equal((parts, collectd.growth(f"reclaim/{series}_total")), (wanted, wanted),
                  f"{what}: {series} of names, and the total, are ftrace's")
    tap.equal([collectd.growth(f"reclaim/total_events-{name}")
               for name in ("unattributed", "untimed")], [0, 0],
              f"{what}: each has a name and a time")
    tap.equal(collectd.complaints(), [], f"{what}: there is nothing to complain of")


def told(collectd):
    """(stalls told one by one, stalls in closing notifications)"""
    return (len(re.findall(r" stalled [\d.]+ ms in memcg ", collectd.log())),
            sum(map(int, re.findall(r"more stalls of at least 0.001 ms in 1 s: (\d+)",
                                    collectd.log()))))


def test_counts(tap):
    collectd, truth, rate = run("MaxNames 100")
    tap.note(f"| {rate:.0f} stalls a second for {SECONDS} s: {truth[0]} in ftrace, "
             f"{collectd.growth('reclaim/total_events-memcg_total')} in the plugin")
    tap.ok(truth[0] > 10000, "as many stalls as can be")
    check_sums(tap, collectd, truth, "counts")
    collectd.clean()


def test_events(tap):
    collectd, truth, rate = run("MaxNames 100\nEventThreshold 0.000001\nEventsPerInterval 3",
                                frozen=2)
    single, closing = told(collectd)
    lost = collectd.growth("reclaim/total_events-events_lost")
    tap.note(f"| with events, {rate:.0f} stalls a second: {single} told one by one, "
             f"{closing} in sums, {lost} of these lost")
    check_sums(tap, collectd, truth, "with events")
    tap.ok(lost > 1000, "far more events than the ring buffer holds, while collectd is frozen")
    tap.equal(single + closing, truth[0], "told and lost events are all that were due")
    collectd.clean()


def main():
    need_live_machine()
    tap = Tap()
    test_counts(tap)
    test_events(tap)
    tap.done()


if __name__ == "__main__":
    main()
