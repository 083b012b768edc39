# SPDX-License-Identifier: MIT
"""Measures contestants, one at a time: windows of work, and what is added to it."""

import os
import subprocess
import time

from contestants import Bare, harness
from figures import FEWEST_PAIRS, MOST_PAIRS, Trial, is_narrow

LIMIT_MIB = 16
TICK_SECONDS = 0.001
OPERATIONS = {"read": 150, "empty": 400}  # at a time, where whole works are compared


def need_machine():
    """Skips what cannot be run here."""
    harness.need_live_machine()
    if not os.path.exists("/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        harness.skip_all("needs memory cgroups of version 1, which can be made to stall at will")
    if not os.path.exists(f"{harness.BUILD}/tests/bench/watch"):
        harness.skip_all(f"needs what `make check TESTS=` builds in {harness.BUILD}")


def cpu_ns(pid):
    """What CPU a process has used: its clock (include/linux/posix-timers_types.h)."""
    return time.clock_gettime_ns(~pid << 3 | 2)


def rss_kib(pid):
    """What memory a process has."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


class Work:
    """A memory cgroup (v1) to stall in, with a process that holds memory in it."""

    def __init__(self):
        self.cgroup = harness.MemoryCgroup(LIMIT_MIB)
        self.holder = subprocess.Popen(["sleep", "inf"], preexec_fn=self.cgroup.join)

    def close(self):
        """Removes the cgroup."""
        self.holder.kill()
        self.holder.wait()
        self.cgroup.remove()

    def tick(self):
        """Makes this process stall a little."""
        with open(f"{self.cgroup.path}/memory.force_empty", "w", encoding="ascii") as file:
            try:
                file.write("0")
                file.flush()
            except OSError:
                pass  # busy: it reclaimed in vain, as it was to

    def _start(self, kind, operations):
        return subprocess.Popen(
            [f"{harness.BUILD}/tests/bench/work", self.cgroup.path, kind, "1", "1",
             str(operations)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, kind, seconds=0, operations=0):
        """Works so long or so much. CPU time of an operation in ns."""
        with self._start(kind, operations) as process:
            if seconds:
                process.stdout.readline()
                time.sleep(seconds)
                process.stdin.close()
            done, cpu, _ = process.stdout.read().split()[-3:]
        return int(cpu) / int(done)


class Reading:
    """What the watch has seen up to now: stalls of the work, those that it timed, their ns
    between its programs before and after and with nothing between, and {id of a BPF program:
    (ns, runs) as far as it was measured}."""

    def __init__(self, sums, programs):
        self.sums, self.programs = sums, programs
        self.stalls, self.timed, self.between_ns, self.nothing_ns = sums

    def since(self, old):
        """What came since."""
        return Reading([new - before for new, before in zip(self.sums, old.sums)],
                       {program: (ns - old.programs.get(program, (0, 0))[0], runs)
                        for program, (ns, runs) in self.programs.items()})


class Watch:
    """tests/bench/watch, running."""

    def __init__(self):
        self.process = subprocess.Popen([f"{harness.BUILD}/tests/bench/watch"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._expect("READY")

    def _expect(self, wanted):
        got = self.process.stdout.readline().strip()
        if got != wanted:
            raise RuntimeError(f"watch says {got!r}, not {wanted}")

    def _send(self, command):
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

    def do(self, command):
        """Has it obey."""
        self._send(command)
        self._expect("OK")

    def read(self):
        """What it has seen."""
        self._send("read")
        sums = list(map(int, self.process.stdout.readline().split()))
        programs = {}
        for line in iter(self.process.stdout.readline, ".\n"):
            program, *spent = map(int, line.split())
            programs[program] = tuple(spent)
        return Reading(sums, programs)

    def close(self):
        """Detaches and ends it."""
        self.process.stdin.close()
        self.process.wait()


def _start(contestant, watch, work):
    """Starts a contestant. The seconds until its programs saw a stall, and their ids."""
    old = watch.read().programs
    watch.do("stats")
    begin = time.monotonic()
    contestant.start()
    while True:
        work.tick()
        programs = {program: runs for program, (_, runs) in watch.read().programs.items()
                    if program not in old}
        seconds = time.monotonic() - begin
        if sum(runs > 0 for runs in programs.values()) >= 2:  # of begin and of end
            break
        if contestant.process.poll() is not None or seconds > 60:
            raise RuntimeError(f"{contestant.name} does not start: {contestant.folder}")
        time.sleep(TICK_SECONDS)
    watch.do("plain")
    return seconds, programs


def _rest(pid, seconds=10):
    """Waits until a process has nothing to do any more."""
    until = time.monotonic() + seconds
    spent = cpu_ns(pid)
    while time.monotonic() < until:
        time.sleep(0.1)
        spent, before = cpu_ns(pid), spent
        if spent - before < 5_000_000:
            return


def _measure(trial, contestant, watch, work, kind, seconds):
    """What a contestant adds to work, and takes itself."""
    pid = contestant.process.pid if contestant else os.getpid()
    before, before_ns = watch.read(), cpu_ns(pid)
    trial.work_cpu_ns = work.run(kind, seconds)
    if contestant:
        _rest(pid)
    new = watch.read().since(before)
    trial.added_ns = (new.between_ns - new.nothing_ns) / new.timed
    trial.nothing_ns = new.nothing_ns / new.timed
    trial.cpu_ns = (cpu_ns(pid) - before_ns) / new.stalls


def _measure_programs(trial, programs, watch, work, kind, seconds):
    """What its programs take. The kernel measures that, which adds to what they cost."""
    before = watch.read()
    watch.do("stats")
    work.run(kind, seconds)
    watch.do("plain")
    new = watch.read().since(before)
    trial.program_ns = sum(ns for program, (ns, _) in new.programs.items()
                             if program in programs) / new.stalls


def run_trial(contestant, work, kind, seconds, with_programs=True):
    """Starts a contestant (None: nobody), measures it, and stops it."""
    watch, programs, trial = Watch(), (), Trial()
    try:
        if contestant:
            contestant.prepare()
            trial.start_s, programs = _start(contestant, watch, work)
        watch.do("after")
        time.sleep(0.2)  # until readers are ready, too
        _measure(trial, contestant, watch, work, kind, seconds)
        if with_programs:
            _measure_programs(trial, programs, watch, work, kind, seconds / 2)
        if contestant:
            trial.rss_kib = rss_kib(contestant.process.pid)
            _rest(contestant.process.pid)
            contestant.settle()
            trial.stalls, trial.told = watch.read().stalls, contestant.stop()
    finally:
        if contestant:
            contestant.abandon()
        watch.close()
    return trial


def run_rounds(contestants, work, kinds, rounds, seconds, with_programs=True):
    """Yields {(key of a contestant, kind of work): Trial} for each round; nobody is a
    contestant, too. Each round has another order."""
    turns = [(contestant, kind) for contestant in (None, *contestants) for kind in kinds]
    for number in range(rounds):
        first = number * len(turns) // rounds
        yield {(contestant.key if contestant else None, kind):
               run_trial(contestant, work, kind, seconds, with_programs)
               for contestant, kind in turns[first:] + turns[:first]}


def _work_alone(contestant, work, kind):
    """The CPU time of an operation beside a contestant, without the watch: the least of some,
    as what else the machine does only adds to it."""
    contestant.prepare()
    try:
        contestant.start()
        contestant.wait()
        return min(work.run(kind, operations=OPERATIONS[kind]) for _ in range(3))
    finally:
        contestant.stop()


def compare_whole(pair, work, kind, seconds):
    """Ratios of the whole work's CPU time beside the second of two contestants to that beside
    the first, until they are clear or so much time has passed."""
    until, ratios = time.monotonic() + seconds, []
    while len(ratios) < FEWEST_PAIRS or (
            time.monotonic() < until and len(ratios) < MOST_PAIRS and not is_narrow(ratios)):
        turns = pair if len(ratios) % 2 else pair[::-1]
        spent = {one.key: _work_alone(one, work, kind) for one in turns}
        ratios.append(spent[pair[1].key] / spent[pair[0].key])
    return ratios


def measure_bare(seconds=2):
    """(RSS in KiB, CPU time in ns a second) of collectd without the plugin."""
    bare = Bare()
    bare.prepare()
    bare.start()
    try:
        bare.wait()
        before = cpu_ns(bare.process.pid)
        time.sleep(seconds)
        return (rss_kib(bare.process.pid), (cpu_ns(bare.process.pid) - before) / seconds)
    finally:
        bare.interrupt()
        bare.clean()
