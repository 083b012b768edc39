#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What weeks do to the plugin, in minutes: a collectd that reads a hundred times
a second, while stalls go on and names come and go. Nothing grows from the
second third of its reads to the last, and the sums are ftrace's.

  test_age.py [--reads NUMBER]"""

import argparse
import collections
import contextlib
import glob
import itertools
import os
import re
import statistics

from counted import Counted
from ends import Ends
from harness import Staller, Tap, cpu_ns, need_live_machine
from test_cgroups import made_cgroups, unified_mount

INTERVAL = 0.01  # a read with stalls takes about so long: it waits for the other table
READS = 6000     # 17 hours at collectd's 10 s
CGROUP_READS = 800
LEAK_BYTES = 100  # a read: what so many reads are enough to see
CGROUP_LEAK_BYTES = 500
WAVE_SECONDS = 2
URGENT = ("nice", "-n", "-15")  # or values wait for the csv writer, and take memory
Sample = collections.namedtuple(
    "Sample", "reads in_use rss_kib size_kib fds threads map_bytes cpu_ns")


def count_reads(collectd):
    """Reads that have been written: a line each, and a headline."""
    reads = 0
    for path in glob.glob(f"{collectd.csv}/reclaim/duration-read-*"):
        with open(path, "rb") as file:
            reads += file.read().count(b"\n") - 1
    return reads


def map_bytes(pid):
    """Kernel memory of the BPF maps that a process has open."""
    total = 0
    for path in glob.glob(f"/proc/{pid}/fdinfo/*"):
        with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii") as file:
            found = re.search(r"^map_type:.*^memlock:\s+(\d+)", file.read(), re.M | re.S)
            total += int(found[1]) if found else 0
    return total


def take_sample(collectd):
    """What collectd has now, and has used."""
    pid = collectd.process.pid
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        status = dict(line.split(":", 1) for line in file)
    return Sample(count_reads(collectd), collectd.in_use(), int(status["VmRSS"].split()[0]),
                  int(status["VmSize"].split()[0]), len(os.listdir(f"/proc/{pid}/fd")),
                  int(status["Threads"]), map_bytes(pid), cpu_ns(pid))


def comms_of(wave):
    """One that is always there, one that comes back, and one that does not."""
    return [b"steady", b"now-%d-and-then" % (wave % 7), b"once-%d-x" % wave]


class Waves:
    """Stallers, two at a time: when the older ends, another begins. With `mount`, each in a
    cgroup of its own, gone with it."""

    def __init__(self, mount=None):
        self.mount, self.numbers, self.running = mount, itertools.count(), []

    def _start(self):
        number = next(self.numbers)
        with contextlib.ExitStack() as stack:
            home = None
            if self.mount:
                home = f"{self.mount}/reclaim-age.slice/wave-{number}x.service"
                stack.enter_context(made_cgroups(self.mount, os.path.relpath(home, self.mount)))
            staller = Staller(comms_of(number), 32, seconds=WAVE_SECONDS, home=home)
            self.running.append((staller, stack.pop_all()))

    def end_oldest(self):
        """Waits for it."""
        staller, cgroup = self.running.pop(0)
        staller.wait()
        cgroup.close()

    def go_on(self):
        """Keeps two going; returns when one has ended."""
        while len(self.running) < 2:
            self._start()
        self.end_oldest()

    def end(self):
        """Waits for the rest. Returns how many there were."""
        while self.running:
            self.end_oldest()
        return next(self.numbers)


def thirds(samples, value):
    """Medians over the second and the last third of the reads."""
    last = samples[-1].reads
    parts = [[value(sample) for sample in samples
              if number * last <= 3 * sample.reads <= (number + 1) * last] for number in (1, 2)]
    return [statistics.median(part) for part in parts]


def cpu_per_read(samples):
    """In us, of the second and of the last third of the reads."""
    last = samples[-1].reads
    ends = [max((sample for sample in samples if 3 * sample.reads <= number * last),
                key=lambda sample: sample.reads) for number in (1, 2, 3)]
    return [(after.cpu_ns - before.cpu_ns) / 1e3 / (after.reads - before.reads)
            for before, after in zip(ends, ends[1:])]


def check_growth(tap, samples, collectd, what, leak):
    """From the second third of the reads to the last; `leak` bytes a read would be seen."""
    reads = samples[-1].reads
    before, after = thirds(samples, lambda sample: sample.in_use)
    figures = [f"allocated {before / 1024:.0f}, {after / 1024:.0f} KiB"]
    tap.ok(after - before < leak * reads / 3 / 2,
           f"{what}: what is allocated does not grow by {leak} bytes a read",
           [sample.in_use for sample in samples])
    for name, text in (("rss_kib", "resident memory"), ("size_kib", "address space")):
        before, after = thirds(samples, lambda sample, name=name: getattr(sample, name))
        figures.append(f"{text} {before:.0f}, {after:.0f} KiB")
        tap.ok(after < 1.5 * before, f"{what}: {text} stays about what it was",
               [getattr(sample, name) for sample in samples])
    for name, text in (("fds", "file descriptors"), ("threads", "threads"),
                       ("map_bytes", "kernel memory of maps")):
        before, after = thirds(samples, lambda sample, name=name: getattr(sample, name))
        figures.append(f"{text} {before:.0f}, {after:.0f}")
        tap.equal(after, before, f"{what}: {text} stay as they are")
    before, after = cpu_per_read(samples)
    figures.append(f"CPU {before:.0f}, {after:.0f} us a read")
    tap.ok(after < 1.5 * before, f"{what}: nor does a read take more CPU", (before, after))
    took = [value for _, value in collectd.values("reclaim/duration-read")]
    third = len(took) // 3
    before, after = statistics.median(took[third:-third]), statistics.median(took[-third:])
    figures.append(f"a read {before * 1e3:.1f}, {after * 1e3:.1f} ms")
    tap.ok(after < 1.5 * before, f"{what}: nor does it wait longer", (before, after))
    tap.note(f"| {what}, second and last third of {reads} reads: {'; '.join(figures)}")


def check_sums(tap, collectd, ends, what):
    """Names and _other, the total, and ftrace."""
    truth = [sum(counts[i] for (kind, _), counts in ends.items() if kind == "memcg")
             for i in (0, 1)]
    for type_name, wanted in zip(("total_events-memcg", "vmpage_action-memcg"), truth):
        names = [series for series in collectd.series()
                 if re.fullmatch(rf"reclaim-.*/{type_name}", series)]
        parts = sum(collectd.growth(series) for series in names)
        tap.equal((parts, collectd.growth(f"reclaim/{type_name}_total")), (wanted, wanted),
                  f"{what}: {type_name} of {len(names)} names, and the total, are ftrace's")
    tap.note(f"| {what}: {truth[0]} stalls, {truth[1]} pages, as ftrace has them")


def age(options, reads, mount=None):
    """Samples of a collectd that reads so often, and the ends of all stalls."""
    collectd = Counted(options, URGENT, INTERVAL).start()
    trace, waves, samples = Ends(), Waves(mount), []
    try:
        while not samples or samples[-1].reads < reads:
            waves.go_on()
            samples.append(take_sample(collectd))
        waves.end()
        collectd.wait_reads(20)
    finally:
        status = collectd.stop()
        lost, ends = trace.lost(), trace.take()
        trace.remove()
    if lost:
        raise RuntimeError(f"ftrace lost {lost} ends")
    return collectd, samples, ends, status


def check(tap, what, options, reads, leak, mount=None):
    """A whole life."""
    collectd, samples, ends, status = age(options, reads, mount)
    check_growth(tap, samples, collectd, what, leak)
    check_sums(tap, collectd, ends, what)
    births = len({series.split("/")[0] for series in collectd.series()}) - 1
    tap.ok(births > 5, f"{what}: {births} names had series")
    tap.ok(sum(counts[0] for counts in ends.values()) > 10 * reads, f"{what}: stalls went on")
    tap.equal([line for line in collectd.log().splitlines() if "suspend" in line], [],
              f"{what}: no read was suspended")
    tap.equal(collectd.complaints(), [], f"{what}: there is nothing to complain of")
    tap.equal(status, 0, f"{what}: collectd ends as always")
    collectd.clean()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--reads", type=int, default=READS)
    reads = parser.parse_args().reads
    need_live_machine()
    tap = Tap()
    options = "Kinds direct memcg\nIdleIntervals 100\nNewNamesPerHour 100000\n"
    check(tap, "by comm", f"{options}MaxNames 8", reads, LEAK_BYTES)
    mount = unified_mount()
    if mount:
        check(tap, "by cgroup, with events",
              f"{options}MaxNames 3\nGroupBy cgroup\nEventThreshold 0.00001\nEventsPerInterval 1",
              CGROUP_READS, CGROUP_LEAK_BYTES, mount)
    tap.done()


if __name__ == "__main__":
    main()
