#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Users without privileges that do what they can against the plugin: names,
masses of threads and of processes. The sums stay ftrace's, and the host pays no
more for them. With --long, more of each."""

import collections
import contextlib
import itertools
import math
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from harness import (BUILD, Collectd, MemoryCgroup, Staller, Tap, Trace,
                     cpu_ns, need_live_machine, wait_for)

LONG = "--long" in sys.argv
NOBODY = "54321"  # no user that the host knows
MAX_NAMES, NEW_NAMES_PER_HOUR, EVENTS_PER_INTERVAL = 20, 20, 10  # README, Configuration
FILE_WRITTEN = 1  # descriptors of collectd's writer, now and then
ALL_NAMES = "MaxNames 1000\nNewNamesPerHour 100000"

PIECES = [
    b"", b" ", b"%s%n%x%p", b"../../..", b"/etc/", b".", b"..", b"\x1b[2J\x1b[31m", b"\r\n",
    b"\nSeverity", b"a.b.c", b"{a,b}*", b"[0-9]", b";tag=x", b"a b", b'"} 1\n', b"\\\\", b"$(id)",
    b"`id`", b"'\"", b"#", b"_other", b"_gone", b"_total", b"reclaim", b"reclaim-", b"unknown",
    b"kworker/", b"migrat:", b"memcg", b"-", b"--", b"sim.ilar", b"sim_ilar", b"sim ilar",
    b"\xc3\xa9", b"\xff\xfe", b"\xe2\x80\xae"]


def hostile_comms(number):
    """As many comms, all different; in 255 of them there is every byte."""
    special = [b"kworker/u8:3", b"../../../etc/x", b"_other", b"reclaim", b"", b"  ", b"/", b"."]
    made = (PIECES[i % len(PIECES)][:9] + bytes([1 + i % 255]) + b"%05x" % i
            for i in itertools.count())
    return special + list(itertools.islice(made, number - len(special)))


def clean(comm):
    """The name that README promises for the comm of a task with Fold."""
    folded = re.sub(rb"[-_#:/. ][0-9]+\Z", b"", comm[:15])
    return re.sub(rb"[^A-Za-z0-9_-]", b"_", folded).strip(b"_").decode() or "unknown"


def set_limit(cgroup, mib):
    with open(f"{cgroup.path}/{MemoryCgroup.parent()[1]}", "w", encoding="ascii") as limit:
        limit.write(str(mib << 20))


class Hostile:
    """tests/collectd/hostile at work in a memory cgroup, else one of its own."""

    def __init__(self, limit_mib, *what, stdin=None, cgroup=None):
        self.own = None if cgroup else MemoryCgroup(limit_mib)
        path = (cgroup or self.own).path
        if self.own and os.path.exists(f"{path}/memory.oom_control"):
            # Who finds no memory is refused it, not killed; v2 has no such switch.
            with open(f"{path}/memory.oom_control", "w", encoding="ascii") as oom:
                oom.write("1")
        file = tempfile.mktemp(prefix="reclaim-test-", dir="/var/tmp")
        self.process = subprocess.Popen(
            [f"{BUILD}/tests/collectd/hostile", path, file, NOBODY, *what],
            stdin=stdin, stdout=subprocess.PIPE)

    def wait(self):
        self.process.communicate()
        self.remove()
        if self.process.returncode != 0:
            raise RuntimeError(f"hostile ended with {self.process.returncode}")

    def kill(self):
        """In the midst of its stalls."""
        self.process.kill()
        if self.own:
            set_limit(self.own, 4096)  # else the last of thousands wait for each other
        self.process.communicate()
        self.remove()

    def remove(self):
        if self.own:
            self.own.remove()


def run_renamer(comms):
    with tempfile.TemporaryFile() as file:
        file.write(b"".join(comm.ljust(16, b"\0") for comm in comms))
        file.seek(0)
        Hostile(32, "rename", stdin=file).wait()


class Sampler:
    """What collectd takes while it runs, as often as it reads."""

    Sample = collections.namedtuple("Sample", "cpu_ns rss_kib fds")

    def __init__(self, collectd):
        self.pid = collectd.process.pid
        self.samples, self.end = [], threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    @classmethod
    def sample(cls, pid):
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            rss_kib = int(re.search(r"^VmRSS:\s+(\d+)", file.read(), re.M)[1])
        return cls.Sample(cpu_ns(pid), rss_kib, len(os.listdir(f"/proc/{pid}/fd")))

    def run(self):
        while not self.end.wait(0.5):
            self.samples.append(self.sample(self.pid))

    def stop(self):
        self.end.set()
        self.thread.join()
        return self.samples


def thirds(values):
    """Medians of the second and of the last third: in the first, tables whose
    size is configured are used for the first time."""
    third = len(values) // 3
    return statistics.median(values[third:2 * third]), statistics.median(values[-third:])


class GraphiteReceiver:
    """All lines that collectd's write_graphite sends."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.received = b""
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        self.socket.settimeout(60)
        connection, _ = self.socket.accept()
        with connection:
            while piece := connection.recv(1 << 16):
                self.received += piece

    def configuration(self):
        return f"""LoadPlugin write_graphite
<Plugin write_graphite>
  <Node "test">
    Host "127.0.0.1"
    Port "{self.socket.getsockname()[1]}"
    Protocol "tcp"
  </Node>
</Plugin>"""

    def lines(self):
        """When collectd has ended."""
        self.thread.join(60)
        self.socket.close()
        return self.received.splitlines()


def names_of(collectd):
    return {series.split("/")[0][len("reclaim-"):] for series in collectd.series()
            if series.startswith("reclaim-") and series.endswith("/total_events-memcg")}


def written(collectd, name):
    return tuple(collectd.growth(f"reclaim-{name}/{type_name}-memcg")
                 for type_name in ("total_events", "vmpage_action"))


def check_sums(tap, collectd, stalls, when):
    """Total, and names with _other, against ftrace."""
    stalls = [stall for stall in stalls if stall.kind == "memcg"]
    truth = len(stalls), sum(stall.pages for stall in stalls)
    total = tuple(collectd.growth(f"reclaim/{type_name}-memcg_total")
                  for type_name in ("total_events", "vmpage_action"))
    tap.equal(total, truth, f"{when}, the total of {truth[0]} stalls and their pages is ftrace's")
    names = [written(collectd, name) for name in names_of(collectd)]
    tap.equal(tuple(map(sum, zip(*names))), truth, f"{when}, so is the sum of names and _other")
    unattributed, untimed = (collectd.growth(f"reclaim/total_events-{health}")
                             for health in ("unattributed", "untimed"))
    tap.ok(unattributed <= (written(collectd, "_other") or [0])[0],
           f"{when}, what is unattributed is in _other")
    tap.equal(untimed, 0, f"{when}, nothing is untimed")
    tap.equal(collectd.complaints(), [], f"{when}, there is nothing to complain of")
    return unattributed


@contextlib.contextmanager
def observed(options, interval=0.5, more=""):
    """collectd and ftrace for a `with` block; afterwards .stalls has what ftrace
    saw, and .samples what collectd took during the block."""
    trace, collectd = Trace(), Collectd(options, interval=interval, more=more).start()
    sampler = Sampler(collectd)
    try:
        yield collectd
        collectd.samples = sampler.stop()
        collectd.wait_reads(3)
    finally:
        sampler.stop()
        collectd.stop()
        collectd.stalls = trace.stalls()
        trace.remove()


def test_each_name(tap):
    """Threads of hostile comms, one by one against ftrace."""
    with observed(ALL_NAMES) as collectd:
        staller = Staller(list(filter(None, hostile_comms(300))), 1)
        staller.wait()
    truth = collections.defaultdict(lambda: [0, 0])
    for stall in collectd.stalls:
        if stall.kind == "memcg" and stall.tid in staller.comms:
            name = clean(staller.comms[stall.tid])
            truth[name][0] += 1
            truth[name][1] += stall.pages
    truth = {name: tuple(counts) for name, counts in truth.items()}
    tap.ok(len(truth) > 200, f"threads of {len(truth)} names stalled")
    tap.equal({name: written(collectd, name) for name in names_of(collectd) & set(truth)}, truth,
              "hostile comms have the names that README says, and their stalls and pages")
    tap.equal(collectd.complaints(), [], "and the log has no complaint")
    collectd.clean()


def check_names_are_few(tap, collectd, seconds):
    at_once = collections.Counter(
        when for name in names_of(collectd) - {"_other"}
        for when, _ in collectd.values(f"reclaim-{name}/total_events-memcg"))
    tap.ok(0 < max(at_once.values()) <= MAX_NAMES, "MaxNames names have series at a time",
           at_once)
    births = MAX_NAMES + MAX_NAMES // 4 + 1 + math.ceil(NEW_NAMES_PER_HOUR * seconds / 3600)
    names = names_of(collectd) - {"_other"}
    tap.ok(len(names) <= births,
           f"of all of them {len(names)} ever had, at most {births} may have", sorted(names))


def check_tree(tap, collectd):
    """The files that collectd wrote: nothing beside, and no strange name."""
    good = re.compile(r"log|collectd\.conf|pid|csv/testhost/(load/load|"
                      r"reclaim(-[A-Za-z0-9_-]{1,63})?/[a-z_]+-[A-Za-z0-9_]+)-[0-9-]{10}")
    paths = [os.path.relpath(f"{folder}/{file}", collectd.folder)
             for folder, _, files in os.walk(collectd.folder) for file in files]
    strange = [path for path in paths if not good.fullmatch(path)]
    tap.ok(len(paths) > 50 and not strange, f"all of {len(paths)} files have plain names", strange)


def check_graphite(tap, lines):
    good = re.compile(rb"testhost(\.[A-Za-z0-9_-]+){2,3} ([0-9.e+-]+|nan) [0-9]+")
    strange = [line for line in lines if not good.fullmatch(line)]
    tap.ok(len(lines) > 100 and not strange, f"all of {len(lines)} lines for Graphite are plain",
           strange[:5])


def check_log(tap, collectd, reads):
    per_read = EVENTS_PER_INTERVAL + 1
    with open(f"{collectd.folder}/log", "rb") as file:
        lines = file.read().split(b"\n")[:-1]
    tap.ok(sum(b"Notification" in line for line in lines) > reads / 2,
           "notifications are in the log")
    tap.ok(len(lines) <= reads * per_read + 20,
           f"{len(lines)} lines of log of {reads} reads: it is not flooded")
    tap.equal([line for line in lines if re.search(rb"[^ -~]", line)], [],
              "none has a byte that is no printable ASCII")


def check_flat(tap, renamed, calm):
    """CPU and memory do not grow with the names that there were."""
    for what, values, margin in (
            ("CPU per read", lambda samples: [b.cpu_ns - a.cpu_ns for a, b in
                                              zip(samples, samples[1:])], 2),
            ("resident memory", lambda samples: [each.rss_kib for each in samples], 1.3)):
        before, last = thirds(values(renamed))
        calm_before, calm_last = thirds(values(calm))
        growth, calm_growth = last / before, calm_last / calm_before
        tap.note(f"{what}: {last / calm_last:.2f} times that with one name")
        tap.ok(growth <= margin * max(1, calm_growth),
               f"{what} is {growth:.2f} times what it was, with one name {calm_growth:.2f} times")
    before, last = thirds([each.fds for each in renamed])
    tap.ok(last <= before + FILE_WRITTEN, "and no descriptor more is open", (before, last))


def test_renamer(tap):
    number = 100000 if LONG else 30000
    graphite = GraphiteReceiver()
    begin = time.monotonic()
    with observed("EventThreshold 0.000001", more=graphite.configuration()) as collectd:
        comms = hostile_comms(number)
        run_renamer(comms)
    seconds = time.monotonic() - begin
    tap.ok(len(set(comms)) == number and
           {byte for comm in comms for byte in comm} == set(range(1, 256)),
           f"{number} names, all bytes in them")
    check_sums(tap, collectd, collectd.stalls, "of a renamer")
    check_names_are_few(tap, collectd, seconds)
    check_tree(tap, collectd)
    check_graphite(tap, graphite.lines())
    check_log(tap, collectd, len(collectd.values("reclaim/count-rows")))
    with observed("EventThreshold 0.000001") as calm:
        run_renamer([b"one-name"] * number)
    check_flat(tap, collectd.samples, calm.samples)
    collectd.clean()
    calm.clean()


def test_short_table(tap):
    with observed("MaxTracked 64") as collectd:
        run_renamer(hostile_comms(20000 if LONG else 5000))
    unattributed = check_sums(tap, collectd, collectd.stalls, "with 64 rows for thousands of comms")
    tap.ok(unattributed > len(collectd.stalls) / 2,
           f"{unattributed} of {len(collectd.stalls)} stalls are unattributed")
    collectd.clean()


def under_way(stalls, begin, end):
    """(stalls that span a time, stalls that are under way in it)"""
    begins = [(stall.end - stall.duration, stall.end) for stall in stalls]
    return (sum(since < begin and until > end for since, until in begins),
            sum(since < end and until > begin for since, until in begins))


def pending_of(collectd):
    """For each read: pending_operations, and what ftrace says it may be. The
    plugin counts stalls that are under way when a read looks at begin words, and
    have not ended when the table is closed."""
    took = dict(collectd.values("reclaim/duration-read"))
    offset = time.time() - time.monotonic()
    return [(pending, *under_way(collectd.stalls, when - offset - took[when] - 0.01,
                                 when - offset + 0.01))
            for when, pending in collectd.values("reclaim/pending_operations-memcg_total")
            if when in took]


def test_crowd(tap):
    """Thousands of threads that all are in a stall."""
    threads = 5000
    with observed("MaxTracked 16384", interval=1) as collectd:
        crowd = Hostile(128, "crowd", str(threads))
        wait_for(lambda: any(pending > 100 for _, pending in collectd.values(
            "reclaim/pending_operations-memcg_total")), "a crowd at a read")
        collectd.wait_reads(10 if LONG else 2)
        crowd.kill()
    reads = pending_of(collectd)
    tap.note("pending, at least, at most: " + ", ".join(
        f"{pending:.0f} {least} {most}" for pending, least, most in reads if most))
    longest = max(seconds for _, seconds in collectd.values("reclaim/duration-read"))
    tap.note(f"the longest read took {longest:.1f} s")
    tap.ok(max(least for _, least, _ in reads) > 50 and max(most for _, _, most in reads) > 500,
           f"of {threads} threads many are in a stall, some throughout a read")
    tap.ok(all(least <= pending <= most for pending, least, most in reads),
           "pending_operations is what ftrace says", reads)
    check_sums(tap, collectd, collectd.stalls, "of a crowd")
    check_time(tap, collectd, collectd.stalls)
    collectd.clean()


def check_time(tap, collectd, stalls):
    """All of it is told, though most of it passes in stalls that last for reads."""
    written_ms = collectd.growth("reclaim/total_time_in_ms-memcg_total")
    truth_ms = sum(stall.duration for stall in stalls) * 1e3
    tap.ok(abs(written_ms - truth_ms) <= 0.02 * truth_ms + 0.01 * len(stalls),
           f"the time is ftrace's, {truth_ms:.0f} ms", written_ms)


def test_bomb(tap):
    """Processes that live for a stall, as many as a limit lets be at once."""
    number = 20000 if LONG else 5000
    with observed("") as collectd:
        before = Sampler.sample(collectd.process.pid)
        Hostile(64, "bomb", str(number), "30").wait()
    tap.ok(len({stall.tid for stall in collectd.stalls}) > number / 4,
           f"many of {number} processes stalled")
    check_sums(tap, collectd, collectd.stalls, "of a fork bomb")
    tap.ok(collectd.samples[-1].fds <= before.fds + FILE_WRITTEN, "no descriptor more is open",
           (before, collectd.samples[-1]))
    tap.ok(collectd.samples[-1].rss_kib < 1.3 * before.rss_kib, "and no memory taken",
           (before, collectd.samples[-1]))
    collectd.clean()


def main():
    need_live_machine()
    tap = Tap()
    test_each_name(tap)
    test_renamer(tap)
    test_short_table(tap)
    test_crowd(tap)
    test_bomb(tap)
    tap.done()


if __name__ == "__main__":
    main()
