# SPDX-License-Identifier: MIT
"""Lives of the plugin in the stand-in for collectd, and what may come of one in
which a call fails."""

import collections
import concurrent.futures
import os
import re
import subprocess
import threading

BUILD = os.environ.get("RECLAIM_BUILD", ".")
PLUGIN = os.path.abspath(f"{BUILD}/.libs/reclaim.so")
DAEMON = f"{BUILD}/tests/faults/daemon"
ERROR, WARNING, INFO = 3, 4, 6
PAGES = 3  # of a stall; as in daemon.c
NAME_OF_LEADER, NAME_OF_THREAD = "fault-leader", "fault-stall"

# `name` is that of the series of the stalls; None: nothing is to start.
# `pretends`: functions that only seem to succeed. `may_be_other`: who cannot be
# told to have a selected name is among _other.
Scenario = collections.namedtuple(
    "Scenario", "title options steps name weak pretends may_be_other",
    defaults=(NAME_OF_THREAD, False, (), False))
EVENTS = ["EventThreshold=0.000001", "EventsPerInterval=3"]
STEPS = "mcisrhrerrS"
STEPS_EVENTS = "mcisrwhrewsrwrrS"
GONE = "Name=/^_gone$/"
BAD = ["Kinds=kswapd", "GroupBy=pod", "Fold=1", "Name=7", "Name=/(/",
       "IgnoreSelected=maybe", "MaxNames=0 true", "Histogram=all",
       "Percentile=100", "EventThreshold=0", "BTF=vmlinux", "MaxName=3"]


def scenarios(cgroup):
    """`cgroup`: the name of the cgroup that the stalls are made in."""
    return [
        Scenario("defaults, one name", ["Name=fault-stall"], STEPS),
        Scenario("GroupBy process, BTF from a file, all series",
                 ["GroupBy=process", "BTF=/sys/kernel/btf/vmlinux",
                  "Name=/^fault-/", "Name=nobody", "Histogram=names",
                  "Percentile=50", "Percentile=99.9", "Percentile=50",
                  "ReportMaximum=true", "ReportFruitless=true",
                  "Kinds=direct memcg node compact throttle"],
                 STEPS, NAME_OF_LEADER, may_be_other=True),
        # Not every kernel lets programs attach to functions.
        Scenario("memory_reclaim, pretended", ["Name=fault-stall"], STEPS,
                 pretends=("bpf_prog_load", "bpf_raw_tracepoint_open")),
        Scenario("notifications", ["Name=fault-stall"] + EVENTS, STEPS_EVENTS),
        Scenario("GroupBy cgroup, notifications",
                 ["GroupBy=cgroup", f"Name={cgroup}", GONE] + EVENTS, STEPS_EVENTS,
                 cgroup),
        Scenario("GroupBy cgroup without CAP_DAC_READ_SEARCH",
                 ["GroupBy=cgroup", f"Name={cgroup}", GONE], STEPS, cgroup, True),
        Scenario("options that are refused", BAD, "mcirS", None),
    ]


class Life:
    """What a life printed."""

    def __init__(self, lines):
        self.steps, self.logs, self.left, self.has = [], [], [], []
        self.values, self.sites, self.fell = {}, {}, []
        self.heap = self.fired = 0
        self.made = self.least_ns = self.most_ns = self.notified = 0
        self.crash = self.end = ""
        for line in lines:
            self.take(*line.rstrip("\n").partition(" ")[::2])

    def take(self, what, rest):
        words = rest.split(" ")
        if what == "did":
            self.steps.append((words[0], int(words[1])))
        elif what == "log":
            self.logs.append((int(words[0]), rest.partition(" ")[2],
                              len(self.steps)))
        elif what == "value":
            self.values[words[0]] = float(words[1])
            self.fell += [words[0]] * (words[-1] == "fell")
        elif what == "site":
            key = int(words[0]), int(words[1], 16), words[2]
            self.sites[key] = int(words[3])
        elif what == "left" or what == "inherited":
            self.left.append(f"{what} {rest}")
        elif what == "has":
            self.has.append(rest)
        elif what == "made":
            self.made, self.least_ns, self.most_ns = map(int, words)
        elif what == "notified":
            self.notified = int(words[0])
        elif what in ("heap", "fired"):
            setattr(self, what, int(rest))
        elif what == "crashed":
            self.crash = rest
        elif what in ("exit", "signal", "hang"):
            self.end = f"{what} {rest}".strip()

    def results(self, step):
        return [result for name, result in self.steps if name == step]

    def errors(self):
        """ERRORs that name a cause."""
        return [text for level, text, _ in self.logs if level == ERROR and
                "the options named above have to be mended" not in text]

    def warnings(self):
        return [text for level, text, _ in self.logs if level == WARNING]

    def attached(self, kind="memcg"):
        return self.values.get(f"reclaim/gauge-attached_{kind}") == 1

    def series(self, name, what="total_events", suffix=""):
        return self.values.get(f"reclaim-{name}/{what}-memcg{suffix}", 0)


WORKERS = 8  # most of the time they wait


class Daemons:
    """The stand-ins: one for each scenario in each of some threads."""

    def __init__(self, cgroup, objects, functions):
        self.cgroup, self.objects, self.functions = cgroup, objects, functions
        self.mine = threading.local()
        self.all = []
        self.pool = concurrent.futures.ThreadPoolExecutor(WORKERS)

    def spread(self, work, items):
        """What `work` returns of each item, done by the threads."""
        return list(self.pool.map(work, items))

    def _start(self, scenario):
        process = subprocess.Popen(
            # Without random addresses, those of callers stay what they are.
            ["setarch", "-R", DAEMON, ",".join(self.objects), f",{','.join(self.functions)},",
             PLUGIN, self.cgroup] + ["--weak"] * scenario.weak +
            scenario.options,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
            env=dict(os.environ, GLIBC_TUNABLES="glibc.malloc.tcache_count=0"))
        self.all.append(process)
        return process

    def live(self, scenario, faults=(), steps=None):
        """`faults`: (object's number, address, first call, last, Fault)"""
        mine = self.mine.__dict__
        process = mine.get(scenario.title)
        if not process:
            process = mine[scenario.title] = self._start(scenario)
        asked = [steps or scenario.steps]
        for at, address, first, last, fault in faults:
            asked += [str(at), f"{address:x}", str(first), str(last),
                      str(fault.mode), str(fault.result), str(fault.error)]
        process.stdin.write((" ".join(asked) + "\n").encode())
        lines = []
        while not lines or not re.match(r"exit|signal|hang", lines[-1]):
            line = process.stdout.readline().decode(errors="replace")
            if not line:
                raise RuntimeError(f"the stand-in has ended: {scenario.title}")
            lines.append(line)
        if lines[-1] == "hang\n":
            process.stdout.readline()
        return Life(lines)

    def close(self):
        self.pool.shutdown()
        for process in self.all:
            process.stdin.close()
            process.wait()
            process.stdout.close()


# What must not be, whatever failed. Each looks at one life.

def _ends(life, **_):
    if life.end != "exit 0":
        yield f"{life.end} {life.crash}"


def _leaves_nothing(life, **_):
    yield from life.left
    if life.heap != 0:
        yield f"{life.heap} bytes of memory are not freed"


def _is_deaf_to_signals(life, **_):
    if "thread hears" in life.has:
        yield "a thread takes signals"


def _tells_why(life, scenario, once, **_):
    """Who does not start says why, once; an error says what to do."""
    errors = life.errors()
    if not scenario.name:
        return
    if once and -1 in life.results("i") and len(errors) != 1:
        yield f"not started, and {len(errors)} errors"
    if once and len(set(errors)) > 1:
        yield f"errors: {errors}"
    for error in set(errors):
        if not re.search("; |must |: out of memory$", error):
            yield f"what is to be done? {error}"


REFUSALS = "Operation not permitted|Permission denied|Invalid argument"


def _blames_nobody_else(life, **_):
    """Of privileges, and of lockdown, speaks who was refused; of kernels also
    whom libbpf told why."""
    for text in life.errors() + life.warnings():
        if re.search("CAP_|lockdown|needs Linux", text) and \
                not re.search(REFUSALS + r"|\(libbpf: ", text):
            yield f"is that the cause? {text}"


def _is_exact(life, scenario, once, **_):
    if life.fell:
        yield f"counters went back: {life.fell}"
    name = scenario.name
    stalls, pages = life.series(name), life.series(name, "vmpage_action")
    ms = life.series(name, "total_time_in_ms")
    elsewhere = life.values.get("reclaim/total_events-unattributed", 0) + \
        life.series("_gone") + life.series("_other") * scenario.may_be_other
    if stalls > life.made or pages > PAGES * life.made or \
            ms > life.most_ns / 1e6:
        yield (f"counted {stalls} stalls of {pages} pages and {ms} ms, made "
               f"{life.made} of {PAGES * life.made} and {life.most_ns / 1e6}")
    if once and life.attached() and life.results("r")[-1:] == [0] and \
            stalls + elsewhere < life.made:
        yield f"counted {stalls} and {elsewhere} stalls, made {life.made}"


def _reads_again(life, once, **_):
    reads = life.results("r")
    if once and sum(map(bool, reads)) > 1:
        yield f"a fault that is gone stops reads: {reads}"
    if any(reads) and not life.errors():
        yield f"reads fail without a word: {reads}"


def _tells_stalls(life, scenario, once, **_):
    if set(EVENTS) <= set(scenario.options) and once and life.attached() and \
            "S" in dict(life.steps) and not life.notified:
        yield "no stall is told"


RULES = [_ends, _leaves_nothing, _is_deaf_to_signals, _tells_why,
         _blames_nobody_else, _is_exact, _reads_again, _tells_stalls]


def problems(life, scenario, once=True):
    """What came of a life that must not. `once`: the fault went away."""
    if life.end != "exit 0":
        return list(_ends(life))
    return [problem for rule in RULES
            for problem in rule(life, scenario=scenario, once=once)]


def outcome(life, scenario):
    """What the plugin did, in a few words."""
    if life.end != "exit 0":
        return life.end
    if scenario.name is None:
        return "the options are refused"
    if -1 in life.results("i"):
        refused = any("option `" in error for error in life.errors())
        return "an option is refused" if refused else "not started, one error"
    if any(life.results("r")):
        return "a read is put off, one error"
    if life.errors() and not any(
            life.attached(kind) for kind in ("direct", "memcg")):
        return "without BPF, one error"
    if life.errors():
        return "goes on with less, one error"
    if life.warnings():
        return "goes on with less, one warning"
    return "goes on"
