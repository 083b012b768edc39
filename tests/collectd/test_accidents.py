#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What happens to a host, and to collectd with it: the daemon is killed, stopped,
started twice, starved of memory; clocks are set, cgroups go, /proc is not there.
What is counted stays what ftrace saw, and the kernel keeps nothing. With --long,
collectd is stopped for ten minutes."""

import collections
import contextlib
import glob
import os
import platform
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time

from harness import (BUILD, GAUGES, Collectd, MemoryCgroup, Tap, Trace,
                     need_live_machine, wait_for)
from test_cgroups import made_cgroups, unified_mount
from test_hostile import (Hostile, check_sums, names_of, observed, run_renamer, set_limit,
                          written)

LONG = "--long" in sys.argv
ALL_NAMES = "MaxNames 1000\nNewNamesPerHour 100000"
LIBRARY = f'PluginDir "{os.path.abspath(BUILD)}/.libs"'
SYS_BPF = {"x86_64": "321", "aarch64": "280"}.get(platform.machine())
BPF_MAP_UPDATE_ELEM = "0x2"
KILLS = 200 if LONG else 12
COMMS = [b"job-%02x-x" % i for i in range(200)]


def held_objects(process):
    """The BPF programs and maps that a process has open: {(what, id)}. Links are
    theirs: programs stay while they are linked."""
    held = set()
    for path in glob.glob(f"/proc/{process.pid}/fdinfo/*"):
        with contextlib.suppress(OSError):
            with open(path, encoding="ascii") as file:
                held |= set(re.findall(r"^(prog|map)_id:\s+(\d+)", file.read(), re.M))
    return held


def kept_objects(held):
    """Which of them the kernel still has."""
    return {(what, number) for what in ("prog", "map") for number in re.findall(
        r"^(\d+): ", subprocess.run(["bpftool", what, "list"], check=True, text=True,
                                    capture_output=True).stdout, re.M)} & held


def check_nothing_is_left(tap, held, when):
    """The kernel takes objects away some time after their last user."""
    with contextlib.suppress(TimeoutError):
        wait_for(lambda: not kept_objects(held), "the kernel", 10)
    tap.ok(held and not kept_objects(held),
           f"{when}, the kernel keeps none of {len(held)} BPF objects", kept_objects(held))


def check_exact(tap, when):
    """A collectd that starts now counts what ftrace does."""
    with observed(ALL_NAMES) as collectd:
        run_renamer(COMMS * 5)
    check_sums(tap, collectd, collectd.stalls, when)
    collectd.clean()


# /proc

def in_collectd(collectd, *command):
    """In its mount namespace."""
    subprocess.run(["nsenter", "-t", str(collectd.process.pid), "-m", *command], check=True)


def test_without_proc(tap):
    """A /proc without vmstat and tasks, which comes later."""
    other_proc = ("unshare", "-m", "sh", "-c", "load=$(cat /proc/loadavg) && "
                  'mount -t tmpfs none /proc && echo "$load" >/proc/loadavg && exec "$@"', "sh")
    trace, collectd = Trace(), Collectd(ALL_NAMES, prefix=other_proc, interval=0.5).start()
    run_renamer(COMMS * 20)
    collectd.wait_reads(1)
    in_collectd(collectd, "umount", "/proc")
    collectd.wait_reads(3)
    collectd.stop()
    tap.equal([bool(re.search(pattern, collectd.log())) for pattern in (
        r"\[error\] reclaim plugin: cannot read /proc/vmstat: No such file or directory",
        r"\[info\] reclaim plugin: /proc/vmstat can be read again")], [True] * 2,
              "without /proc, that is told when it begins and when it ends")
    check_total(tap, collectd, trace.stalls(), "without /proc")
    trace.remove()
    collectd.clean()


def check_total(tap, collectd, stalls, when):
    memcg = [stall for stall in stalls if stall.kind == "memcg"]
    tap.equal((collectd.growth("reclaim/total_events-memcg_total"),
               collectd.growth("reclaim/vmpage_action-memcg_total")),
              (len(memcg), sum(stall.pages for stall in memcg)),
              f"{when}, {len(memcg)} stalls and their pages are ftrace's")
    written_ms = collectd.growth("reclaim/total_time_in_ms-memcg_total")
    truth_ms = sum(stall.duration for stall in memcg) * 1e3
    tap.ok(abs(written_ms - truth_ms) <= 0.02 * truth_ms + 0.01 * len(memcg),
           f"{when}, so is their time", f"wrote {written_ms} ms, ftrace {truth_ms} ms")


def test_hidden_tasks(tap):
    """hidepid: collectd may not look at tasks of others."""
    hidden = ("unshare", "-m", "sh", "-c", "mount -t proc -o hidepid=2,gid=65534 proc /proc && "
              'exec setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace "$@"', "sh")
    trace, collectd = Trace(), Collectd("", prefix=hidden, interval=0.5).start()
    crowd = Hostile(64, "crowd", "100")
    collectd.wait_reads(6)
    crowd.kill()
    collectd.wait_reads(3)
    collectd.stop()
    stalls = trace.stalls()
    trace.remove()
    tap.equal({value for _, value in collectd.values("reclaim/pending_operations-memcg_total")},
              {0}, "tasks that are hidden are not looked at while they stall")
    check_total(tap, collectd, stalls, "with tasks hidden")
    check_sums(tap, collectd, stalls, "with tasks hidden")
    collectd.clean()


# Clocks

class Clock:
    """The time of day of a collectd that is started with .prefix."""

    def __init__(self):
        self.file = tempfile.NamedTemporaryFile()
        self.step_to(0)
        self.prefix = ("env", f"LD_PRELOAD={BUILD}/tests/collectd/.libs/steps.so",
                       f"RECLAIM_CLOCK={self.file.name}")

    def step_to(self, seconds):
        """From the machine's time of day."""
        self.file.seek(0)
        self.file.write(struct.pack("q", int(seconds * 1e9)))
        self.file.flush()


def wait_rows(collectd, more):
    """Reads, whatever their time is."""
    series = "reclaim/count-rows"
    wanted = len(collectd.values(series)) + more
    wait_for(lambda: len(collectd.values(series)) >= wanted, f"{more} reads")


def test_clock_steps(tap):
    clock = Clock()
    trace = Trace()
    collectd = Collectd("MaxNames 4\nNewNamesPerHour 1\nIdleIntervals 2\nReportMaximum true\n"
                        "EventThreshold 0.000001", prefix=clock.prefix, interval=0.5).start()
    for step in (0, 3600, 3598, 2 * 86400, 2 * 86400 - 2):
        clock.step_to(step)
        run_renamer([b"%dstep%x" % (step, i) for i in range(500)])
        wait_rows(collectd, 3)
    collectd.stop()
    stalls = trace.stalls()
    trace.remove()
    times = [when for when, _ in collectd.values("reclaim/count-rows")]
    steps = [b - a for a, b in zip(times, times[1:])]
    tap.ok(max(steps) > 86400, f"collectd's time of day went on by {max(steps):.0f} s at once")
    tap.ok(len(times) < 60, "and it made no reads for the time in between", len(times))
    values = {series: [value for _, value in collectd.values(series)]
              for series in collectd.series()}
    tap.equal([series for series, each in values.items()
               if series.startswith("reclaim/") and series.split("/")[1].split("-")[0] not in GAUGES
               and sorted(each) != each], [], "no counter goes down")
    tap.equal([(series, max(each)) for series, each in values.items()
               if re.search("latency|duration", series) and not
               0 <= min(each) <= max(each) < 10], [], "no time is negative, or a giant")
    names = names_of(collectd) - {"_other"}
    tap.ok(len(names) <= 4 + 2 + 1, f"a new day brings no new names: {len(names)} had series",
           sorted(names))
    check_total(tap, collectd, stalls, "with steps of the clock")
    check_sums(tap, collectd, stalls, "with steps of the clock")
    collectd.clean()


# Cgroups that go

def enter_beside(hostile, folder):
    """The v2 hierarchy's cgroup, where the limit is that of a v1 hierarchy."""
    if os.path.exists(f"{hostile.own.path}/memory.limit_in_bytes"):
        with open(f"{folder}/cgroup.procs", "w", encoding="ascii") as procs:
            procs.write(str(hostile.process.pid))


def test_cgroup_is_removed(tap):
    """Killed in the midst of stalls, and its cgroup removed at once."""
    mount = unified_mount()
    for options in "", "GroupBy cgroup":
        trace, collectd = Trace(), Collectd(options, interval=0.5).start()
        for i in range(10):
            with made_cgroups(mount, f"reclaim-test-{i}"):
                crowd = Hostile(32, "crowd", "20")
                crowd.process.stdout.readline()
                enter_beside(crowd, f"{mount}/reclaim-test-{i}")
                time.sleep(random.uniform(0.05, 0.3))
                crowd.kill()
        collectd.wait_reads(3)
        collectd.stop()
        when = f"with cgroups removed in mid-stall{', ' * bool(options)}{options}"
        stalls = trace.stalls()
        trace.remove()
        check_sums(tap, collectd, stalls, when)
        names = "hostile|_other" if not options else r"reclaim-test-[0-9-]+|root|_gone|_other"
        tap.equal({name for name in names_of(collectd) if not re.fullmatch(names, name)}, set(),
                  f"{when}, {len(names_of(collectd))} names are those that they were, or _gone")
        collectd.clean()


# Signals

def syscalls(process):
    """What its threads do in the kernel: (number, first argument) of calls."""
    found = []
    for path in glob.glob(f"/proc/{process.pid}/task/*/syscall"):
        with contextlib.suppress(OSError):
            with open(path, encoding="ascii") as file:
                found.append(tuple(file.read().split()[:2]))
    return found


def is_in_bpf(process, command=None):
    return any(call[0] == SYS_BPF and command in (None, call[1]) for call in syscalls(process))


def attachments(collectd):
    """How often the plugin has told that it is attached."""
    try:
        return collectd.log().count("reclaim plugin: attached:")
    except FileNotFoundError:
        return 0


def start_until_attached(collectd):
    """libbpf's own updates of maps are over then."""
    before = attachments(collectd)
    start_collectd(collectd)
    wait_for(lambda: attachments(collectd) > before, "the plugin")


def wait_until_swapping(process, seconds=10):
    until = time.monotonic() + seconds
    while not is_in_bpf(process, BPF_MAP_UPDATE_ELEM):
        if time.monotonic() > until:
            return False
    return True


def start_collectd(collectd):
    """Without waiting for anything."""
    collectd.process = subprocess.Popen(collectd.command("-f"), stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def steady_load():
    """Stalls all the time."""
    crowd = Hostile(32, "crowd", "4")
    try:
        yield
    finally:
        crowd.kill()


def test_killed(tap):
    """SIGKILL at any moment, and while a read waits for the kernel."""
    held, swapping = set(), 0
    collectd = Collectd(ALL_NAMES, interval=0.1)
    with steady_load():
        for i in range(KILLS):
            if i % 2:
                start_collectd(collectd)
                time.sleep(random.uniform(0, 0.6))
            else:
                start_until_attached(collectd)
                swapping += wait_until_swapping(collectd.process)
            held |= held_objects(collectd.process)
            collectd.process.kill()
            collectd.process.wait()
    tap.ok(swapping == KILLS / 2,
           f"collectd was killed {KILLS} times, {swapping} times in a swap of tables")
    check_nothing_is_left(tap, held, "killed")
    check_exact(tap, "after that")
    collectd.clean()


def test_terminated(tap):
    """SIGTERM while it starts, and while a read waits for the kernel."""
    held = set()
    with steady_load():
        collectd = Collectd(ALL_NAMES)
        statuses = set()
        for _ in range(5):
            start_collectd(collectd)
            wait_for(lambda: is_in_bpf(collectd.process), "bpf() of init")
            held |= held_objects(collectd.process)
            statuses.add(collectd.stop())
        # collectd has no handler for it until all plugins have started.
        tap.ok(statuses <= {0, -signal.SIGTERM}, "SIGTERM while programs are loaded ends collectd",
               statuses)
        collectd.clean()
        collectd = Collectd(ALL_NAMES, interval=0.2)
        statuses, swapping = [], 0
        for _ in range(5):
            start_until_attached(collectd)
            swapping += wait_until_swapping(collectd.process)
            held |= held_objects(collectd.process)
            statuses.append(collectd.stop())
        tap.equal((swapping, statuses), (5, [0] * 5),
                  "SIGTERM in a swap of tables ends collectd as always")
    tap.equal(collectd.complaints(), [], "and there is nothing to complain of")
    check_nothing_is_left(tap, held, "terminated")
    collectd.clean()


def test_restarts(tap):
    held, objects, counts = set(), set(), []
    trace = Trace()
    with steady_load():
        for _ in range(20):
            collectd = Collectd(ALL_NAMES, interval=0.1).start()
            objects.add(len(held_objects(collectd.process)))
            held |= held_objects(collectd.process)
            wait_for(lambda: collectd.growth("reclaim/total_events-memcg_total"), "stalls")
            collectd.stop()
            counts.append(collectd.growth("reclaim/total_events-memcg_total"))
            collectd.clean()
    stalls = trace.stalls()
    trace.remove()
    tap.equal(len(objects), 1, f"20 restarts, each has {objects} BPF objects while it runs")
    check_nothing_is_left(tap, held, "after 20 restarts")
    tap.ok(sum(counts) <= len(stalls),
           f"all together they counted no more than there were: {sum(counts)} of {len(stalls)}",
           counts)


def test_suspended(tap):
    """SIGSTOP: no read, and nobody who empties the ring buffer."""
    seconds = 600 if LONG else 15
    threshold = "EventThreshold 0.000001\nHistogram total"
    with observed(threshold) as collectd:
        run_renamer(COMMS)
        collectd.process.send_signal(signal.SIGSTOP)
        stopped = time.time()
        while time.time() < stopped + seconds:
            run_renamer(COMMS * 2 if not LONG else COMMS[:50])
            time.sleep(0.5)
        collectd.process.send_signal(signal.SIGCONT)
        run_renamer(COMMS)
    when = f"stopped for {seconds} s"
    unattributed = check_sums(tap, collectd, collectd.stalls, when)
    tap.equal(unattributed, 0, f"{when}, nothing is unattributed")
    check_total(tap, collectd, collectd.stalls, when)
    lost = collectd.growth("reclaim/total_events-events_lost")
    tap.ok(0 < lost < len(collectd.stalls), f"{when}, events were lost, and are counted: {lost}")
    times = [when for when, _ in collectd.values("reclaim/count-rows")]
    gap, after = max((b - a, b) for a, b in zip(times, times[1:]))
    tap.ok(gap > seconds - 2, f"one interval is {gap:.1f} s long")
    values = collectd.values("reclaim/total_time_in_ms-memcg_total")
    rates = [(b - a) / 1e3 / (then - since)
             for (since, a), (then, b) in zip(values, values[1:])]
    tap.ok(0 <= min(rates) and max(rates) < 1.1,
           f"one thread stalls for {max(rates):.2f} s in a second at most", rates)
    longest = [value for _, value in collectd.values("reclaim/latency-memcg_total_max")]
    tap.ok(max(longest) <= 1.1 * max(stall.duration for stall in collectd.stalls) + 1e-3,
           "the longest stall is one that there was", longest)
    collectd.clean()


# Configurations

def test_loaded_twice(tap):
    for what, more, options in (
            ("two LoadPlugin lines", f"{LIBRARY}\nLoadPlugin reclaim", ALL_NAMES),
            ("two <Plugin reclaim> blocks", "",
             "MaxNames 1000\n</Plugin>\n<Plugin reclaim>\nNewNamesPerHour 100000"),
            ("a LoadPlugin block with an Interval",
             f"{LIBRARY}\n<LoadPlugin reclaim>\nInterval 0.25\n</LoadPlugin>", ALL_NAMES)):
        with observed(options, more=more) as collectd:
            objects = len(held_objects(collectd.process))
            run_renamer(COMMS * 5)
        check_sums(tap, collectd, collectd.stalls, f"with {what}")
        tap.equal(len(names_of(collectd)), len(COMMS) + ("hostile" in names_of(collectd)),
                  f"with {what}, options hold")
        tap.equal(collectd.log().count("reclaim plugin: attached:"), 1,
                  f"with {what}, it starts once: {objects} BPF objects")
        times = [when for when, _ in collectd.values("reclaim/count-rows")]
        gaps = sorted(b - a for a, b in zip(times, times[1:]))
        tap.ok(abs(gaps[len(gaps) // 2] - (0.25 if "Interval" in what else 0.5)) < 0.1,
               f"with {what}, it reads as often as it is told", gaps)
        collectd.clean()


def test_two_collectds(tap):
    trace = Trace()
    first, second = (Collectd(options, interval=0.5).start()
                     for options in (ALL_NAMES, ALL_NAMES + "\nGroupBy process"))
    held = held_objects(first.process) | held_objects(second.process)
    run_renamer(COMMS * 10)
    for collectd in first, second:
        collectd.wait_reads(3)
    first.stop()
    check_sums(tap, first, trace.stalls(), "two collectds, the first")
    run_renamer(COMMS * 10)
    second.wait_reads(3)
    second.stop()
    check_sums(tap, second, trace.stalls(), "two collectds, the second, which outlives it")
    trace.remove()
    check_nothing_is_left(tap, held, "after two collectds")
    first.clean()
    second.clean()


# Memory

def entering(cgroup):
    return ("sh", "-c", f'echo $$ >{cgroup.path}/cgroup.procs && exec "$@"', "sh")


def forbid_swap(cgroup, mib):
    for name, limit in (("memory.swap.max", 0), ("memory.memsw.limit_in_bytes", mib << 20)):
        with contextlib.suppress(FileNotFoundError):
            with open(f"{cgroup.path}/{name}", "r+", encoding="ascii") as file:
                file.write(str(limit))


def test_out_of_memory(tap):
    """The kernel kills collectd, for it has no memory left where that is."""
    cgroup = MemoryCgroup(64)
    forbid_swap(cgroup, 64)
    collectd = Collectd(ALL_NAMES, prefix=entering(cgroup), interval=0.5).start()
    with open(f"/proc/{collectd.process.pid}/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")
    held = held_objects(collectd.process)
    hog = subprocess.Popen([*entering(cgroup), "tail", "/dev/zero"], stderr=subprocess.DEVNULL)
    tap.equal(collectd.process.wait(60), -signal.SIGKILL, "the kernel kills collectd")
    hog.kill()
    hog.wait()
    check_nothing_is_left(tap, held, "killed for want of memory")
    check_exact(tap, "then")
    cgroup.remove()
    collectd.clean()


def threads_of(process):
    """{tid: comm}"""
    found = {}
    for path in glob.glob(f"/proc/{process.pid}/task/*/comm"):
        with open(path, encoding="ascii") as file:
            found[int(path.split("/")[-2])] = file.read().strip()
    return found


def test_own_stalls(tap):
    """collectd shares its cgroup with who fills it, and stalls itself."""
    cgroup = MemoryCgroup(64)
    trace = Trace()
    collectd = Collectd(ALL_NAMES, prefix=entering(cgroup), interval=0.2).start()
    set_limit(cgroup, 24)
    crowd = Hostile(0, "crowd", "4", cgroup=cgroup)
    collectd.wait_reads(25)
    threads = threads_of(collectd.process)
    crowd.kill()
    set_limit(cgroup, 64)
    collectd.wait_reads(3)
    collectd.stop()
    stalls = trace.stalls()
    trace.remove()
    own = collections.defaultdict(lambda: [0, 0])
    for stall in stalls:
        if stall.tid in threads:
            name = re.sub(r"#\d+$", "", threads[stall.tid])
            own[name][0] += 1
            own[name][1] += stall.pages
    tap.ok(own, f"collectd stalled itself: {dict(own)}")
    tap.equal({name: written(collectd, name) for name in own},
              {name: tuple(counts) for name, counts in own.items()},
              "its own stalls are counted like others")
    check_sums(tap, collectd, stalls, "in a cgroup at its limit")
    cgroup.remove()
    collectd.clean()


def main():
    need_live_machine()
    tap = Tap()
    test_without_proc(tap)
    test_hidden_tasks(tap)
    test_clock_steps(tap)
    if unified_mount():
        test_cgroup_is_removed(tap)
    test_killed(tap)
    test_terminated(tap)
    test_restarts(tap)
    test_suspended(tap)
    test_loaded_twice(tap)
    test_two_collectds(tap)
    test_out_of_memory(tap)
    test_own_stalls(tap)
    tap.done()


if __name__ == "__main__":
    main()
