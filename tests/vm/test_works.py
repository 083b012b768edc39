#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Whether wrong figures fail in what is checked of services, of kernels that are
locked down, of CPUs that come and go, and of many stalls; and which guests are booted."""

import copy
import os
import sys
import tempfile

import faults
import guest
import lockdown
import services
from facts import Counts, Trace, read_package
from faults import Faults, Rates
from lockdown import Lockdown
from services import CAP_DAC_READ_SEARCH, LEAST, Scene
from tap import Tap
from test_check import change, check_wrong, failures, right_facts
from works import WORKS, choose, find_files

ALL = frozenset(range(41))
REFUSAL = ("cannot load BPF programs: Operation not permitted; collectd needs CAP_BPF and "
           "CAP_PERFMON, before Linux 5.11 also LimitMEMLOCK=infinity; see README, Capabilities")
WARNING = ("the kernel does not let BPF programs read its memory (Operation not permitted; "
           "lockdown=confidentiality does that): kernel threads are folded like other tasks, "
           "stalls of kind compact are not counted")
STATUS = "Name:\tcollectd\nUid:\t{}\t1\t1\t1\nCapEff:\t{:016x}\nNoNewPrivs:\t{}\nSeccomp:\t{}\n"
SHOWN = "SubState=running\nCapabilityBoundingSet={}\nLimitMEMLOCK={}\n"


def right_scene(name, release):
    """A scene in which all is well."""
    wanted = services.wanted_of(name, release)
    held = ALL if wanted.capabilities is None else wanted.capabilities
    stalls = Counts(100, 2000000, 3000, 1)
    seen = stalls if wanted.attached else Counts()
    complaints = [] if wanted.attached else [REFUSAL]
    return Scene(
        root=wanted.root, capabilities=held, confined=wanted.confined,
        shown={"SubState": "running", "LimitMEMLOCK": wanted.memlock or "8388608",
               "CapabilityBoundingSet": " ".join(f"cap_{i}" for i in held)},
        ended="success dead", attached=["direct", "memcg"] if wanted.attached else [],
        complaints=[wanted.complaint] if wanted.complaint else complaints,
        names={wanted.name: copy.copy(seen)} if wanted.attached else {}, release=release,
        totals={"memcg": copy.copy(seen)}, trace={"memcg": Trace(stalls, 100)}, trace_lost=0,
        skipped={}, unattributed=0, untimed=0)


def right_scenes(release):
    """A guest in which all is well."""
    return {name: right_scene(name, release) for name in services.SCENES}


def in_scene(name, path, value):
    """Sets something of a scene."""
    return lambda scenes: change(path, value)(scenes[name])


# What is altered, how, and words of each check that must fail then.
WRONG_SCENES = [
    ("a service that was restarted", in_scene("debian", "shown.SubState", "auto-restart"),
     ["debian: the service runs"]),
    ("one that crashes at its end", in_scene("hardened", "ended", "failed core-dump"),
     ["hardened: the service runs"]),
    ("root, where there should be a user", in_scene("hardened", "root", True),
     ["hardened: collectd is a user"]),
    ("no filter of system calls", in_scene("hardened", "confined", False),
     ["hardened: collectd is a user"]),
    ("a capability too many", in_scene("hardened", "capabilities", LEAST | {CAP_DAC_READ_SEARCH}),
     ["hardened: its capabilities", "hardened: systemctl show"]),
    ("a capability that the unit takes away", in_scene("upstream", "capabilities", LEAST),
     ["upstream: its capabilities", "upstream: systemctl show"]),
    ("root without all capabilities", in_scene("debian", "capabilities", frozenset()),
     ["debian: its capabilities", "debian: systemctl show"]),
    ("another bounding set than systemd tells",
     in_scene("upstream-reclaim", "shown.CapabilityBoundingSet", ""),
     ["upstream-reclaim: systemctl show"]),
    ("a limit of locked memory", in_scene("upstream-reclaim", "shown.LimitMEMLOCK", "8388608"),
     ["upstream-reclaim: it may lock"]),
    ("none where one is tried", in_scene("upstream-memlock", "shown.LimitMEMLOCK", "infinity"),
     ["upstream-memlock: it may lock"]),
    ("less attached than root has", in_scene("hardened", "attached", ["memcg"]),
     ["hardened: what root attaches"]),
    ("something attached without capabilities", in_scene("upstream", "attached", ["memcg"]),
     ["upstream: nothing is attached"]),
    ("no message", in_scene("upstream", "complaints", []), ["upstream: one message"]),
    ("two messages", in_scene("upstream", "complaints", [REFUSAL] * 2),
     ["upstream: one message"]),
    ("a message that names no cure",
     in_scene("hardened-users", "complaints", [REFUSAL.replace("CAP_PERFMON", "it")]),
     ["hardened-users: one message"]),
    ("a complaint", in_scene("hardened", "complaints", ["cannot read the BPF maps"]),
     ["hardened: the plugin complains of nothing"]),
    ("no word of /proc/vmstat", in_scene("hardened-proc", "complaints", []),
     ["hardened-proc: the plugin complains"]),
    ("another complaint than that", in_scene("hardened-proc", "complaints", ["x"]),
     ["hardened-proc: the plugin complains"]),
    ("a stall dropped", in_scene("hardened", "totals.memcg.stalls", 99),
     ["hardened: stalls of kind memcg"]),
    ("a page dropped", in_scene("upstream-reclaim", "totals.memcg.pages", 2999),
     ["upstream-reclaim: pages reclaimed"]),
    ("time lost", in_scene("debian", "totals.memcg.time_us", 1800000), ["debian: time of kind"]),
    ("no name", in_scene("hardened", "names", {}), ["hardened: they count under the name waiter"]),
    ("a comm instead of a cgroup",
     in_scene("hardened-cgroup", "names", {"waiter": Counts(100)}),
     ["hardened-cgroup: they count under the name small"]),
    ("an event that ftrace lost", in_scene("hardened", "trace_lost", 1),
     ["hardened: ftrace saw"]),
]


def check_services(tap):
    """Scenes of collectd as a service."""
    old, new = right_scenes("5.10.0-1"), right_scenes("6.1.0-1")
    tap.ok(failures(old, services.check_scenes) == [], "right scenes pass, of Linux 5.10")
    tap.ok(failures(new, services.check_scenes) == [], "and of later ones")
    tap.ok(not old["upstream-memlock"].attached and new["upstream-memlock"].attached
           and services.charges_maps("5.10.9") and not services.charges_maps("5.11.0"),
           "before Linux 5.11 locked memory is needed")
    check_wrong(tap, new, WRONG_SCENES, services.check_scenes)
    tap.ok(len(list(services.describe(new))) == len(new)
           and "hardened-users, capabilities perfmon bpf: refused" in services.describe(new),
           "there is a line for each scene")
    tap.ok(services.parse_process(STATUS.format(1, 3 << 38, 1, 2)) == (False, LEAST, True)
           and services.parse_process(STATUS.format(0, 0, 0, 0)) == (True, frozenset(), False)
           and not services.parse_process(STATUS.format(0, 0, 1, 0))[2],
           "user, capabilities and confinement of a process are understood")
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (
                ("process", STATUS.format(1, 3 << 38, 1, 2)), ("ended", "success\ndead\n"),
                ("show", SHOWN.format("cap_bpf cap_perfmon", "infinity")), ("trace", ""),
                ("trace-stats", "overrun: 3\n"), ("collectd.log", (
                    "[x] [info] reclaim plugin: attached: direct memcg, each program three times;"
                    f"\n[x] [error] reclaim plugin: {REFUSAL}\n[x] [error] csv plugin: y\n"))):
            with open(os.path.join(folder, name), "w", encoding="ascii") as file:
                file.write(text)
        scene = services.read_scene(folder, "6.1.0")
        packages = [read_package(folder)]
        with open(os.path.join(folder, "installed"), "w", encoding="ascii") as file:
            file.write("ii 1-1\n??5?????? /usr/lib/x\n")
        packages.append(read_package(folder))
    tap.ok((scene.attached, scene.complaints, scene.trace_lost, scene.shown["LimitMEMLOCK"],
            scene.ended) == (["direct", "memcg"], [REFUSAL], 3, "infinity", "success dead"),
           "so are the raw files of a scene")
    tap.ok(packages == [None, "ii 1-1\n??5?????? /usr/lib/x\n"],
           "and what dpkg says of a package")


def right_lockdown(mode):
    """Facts and lockdown of a guest in which all is well."""
    facts, kinds = right_facts(), ["direct", "memcg"]
    facts.growth["slabs_scanned"] = 500
    if mode == "integrity":
        return facts, Lockdown(mode, mode, [*kinds, "compact"], [], 1990)
    for trace in facts.trace.values():
        trace.counts, trace.begins = Counts(), 0
    return facts, Lockdown(mode, mode, kinds, [WARNING], 1990)


def in_first(path, value):
    """Sets something of the facts."""
    return lambda pair: change(path, value)(pair[0])


def in_second(path, value):
    """Sets something of what is beside them."""
    return lambda pair: change(path, value)(pair[1])


def drop_direct(pair):
    """One stall in five is not counted."""
    for counts in (pair[0].totals["direct"], pair[0].names["direct"]["stress-ng-vm"]):
        counts.stalls -= 20


WRONG_LOCKED = [
    ("a kernel that is not locked down", in_second("mode", "none"),
     ["the kernel is locked down"]),
    ("one that is in another way", in_second("wanted", "integrity"),
     ["the kernel is locked down"]),
    ("a kind that is not attached", in_first("attached.memcg", False), ["kind memcg is attached"]),
    ("one that cannot be", in_second("attached", ["direct", "memcg", "compact"]),
     ["kind compact is not attached"]),
    ("no warning", in_second("complaints", []), ["one warning says"]),
    ("a warning that does not say it", in_second("complaints", ["x"]), ["one warning says"]),
    ("stalls that are lost", drop_direct, ["direct stalls are the growth"]),
    ("stalls that nobody counts", in_first("growth.allocstall_normal", 50),
     ["direct stalls are the growth"]),
    ("memcg pages that the cgroup has not", in_second("cgroup_pages", 1300),
     ["memcg pages are"]),
    ("memcg pages lost", in_second("cgroup_pages", 2001), ["memcg pages are"]),
    ("pages lost", in_first("growth.pgsteal_direct", 3991), ["pages are the growth"]),
    ("a name missing", lambda pair: pair[0].names["direct"].pop("_other"),
     ["stalls of all names", "pages of all names", "ms of all names"]),
    ("an error in collectd's log", in_first("collectd_errors", ["x"]), ["collectd ends"]),
]
WRONG_OPEN = [
    ("a complaint under integrity", in_second("complaints", [WARNING]), ["no complaint"]),
    ("no compaction under integrity", in_second("attached", ["direct", "memcg"]),
     ["kind compact is attached"]),
    ("a stall that ftrace has not", in_first("trace.memcg.counts.stalls", 59),
     ["stalls of kind memcg equal"]),
]


def check_lockdown(tap):
    """Kernels that are locked down."""
    def checks(pair):
        return lockdown.check_lockdown(*pair)
    for mode, wrong in (("confidentiality", WRONG_LOCKED), ("integrity", WRONG_OPEN)):
        tap.ok(failures(right_lockdown(mode), checks) == [], f"right figures pass, under {mode}")
        check_wrong(tap, right_lockdown(mode), wrong, checks)
    newer = right_lockdown("confidentiality")
    newer[0].node_counters = {"pgsteal_direct"}
    newer[0].growth["pgsteal_direct"] += 2000
    tap.ok(failures(newer, checks) == [], "so do those where pgsteal has memcg's pages")
    tap.ok(lockdown.parse_mode("none [integrity] confidentiality\n") == "integrity",
           "the mode in force is understood")
    line, = lockdown.describe(*right_lockdown("integrity"))
    tap.ok("integrity: attached direct memcg compact; direct 100 of 100" in line,
           "figures are told")


def right_faults():
    """Facts and faults of a guest in which all is well."""
    return right_facts(), Faults(
        4, 2, ["2 1", "1 0"] * 6, [(86401, 8), (-3600, 2), (3601, 9)],
        {("", "total_events", "memcg_total"): [0, 5, 60, 60],
         ("", "pending_operations", "memcg_total"): [0, 4.0, 0],
         ("", "duration", "memcg_total_oldest"): [0, 2.5, 0], ("", "count", "rows"): []})


def in_series(key, values):
    """Sets the values of a series."""
    return lambda pair: pair[1].series.update({key: values})


WRONG_FAULTS = [
    ("all CPUs online at the start", in_second("online", 4), ["fewer CPUs"]),
    ("CPUs that only come", in_second("plugged", ["2 1"] * 12), ["come and go"]),
    ("too few changes", in_second("plugged", ["2 1", "2 0"]), ["come and go"]),
    ("a clock that was not set", in_second("steps", [(0, 8), (-3600, 2), (3600, 9)]),
     ["the clock is set"]),
    ("a step that is missing", in_second("steps", [(86401, 8), (-3600, 2)]),
     ["the clock is set", "reads at least"]),
    ("no reads after the clock went forth", in_second("steps", [(86400, 2), (-3600, 2), (3600, 9)]),
     ["reads at least"]),
    ("a counter that shrinks", in_series(("", "total_events", "memcg_total"), [5, 4]),
     ["no counter shrinks"]),
    ("an age of a day", in_series(("", "duration", "memcg_total_oldest"), [86400.0]),
     ["no gauge is giant"]),
    ("an age below 0", in_series(("", "duration", "memcg_total_oldest"), [-1.0]),
     ["no gauge is giant"]),
    ("more stalls under way than tasks", in_series(("", "pending_operations", "x"), [65.0]),
     ["no gauge is giant"]),
    ("a stall dropped with a CPU", in_first("totals.memcg.stalls", 59),
     ["stalls of kind memcg equal", "stalls of all names"]),
    ("an hour of stalls", in_first("totals.memcg.time_us", 3603000000),
     ["time of kind memcg", "ms of all names"]),
    ("a begin without an end", in_first("trace.memcg.unpaired", 1), ["ftrace pairs all"]),
    ("a word that a CPU took along", in_first("pending.direct", 1), ["stays under way"]),
    ("a crash", in_first("collectd_status", "139"), ["collectd ends"]),
]


def right_rates():
    """Likewise of many stalls."""
    facts = right_facts()
    total = Counts(3300, 3000000, 2000, 3200)
    facts.totals["memcg"], facts.names["memcg"] = total, {"work": copy.copy(total)}
    facts.trace["memcg"] = Trace(copy.copy(total), 3300)
    return facts, Rates(16, 200, 20.0)


WRONG_RATES = [
    ("too few to tell", lambda pair: [change("stalls", 999)(counts) for counts in (
        pair[0].totals["memcg"], pair[0].names["memcg"]["work"], pair[0].trace["memcg"].counts)]
     + [change("begins", 999)(pair[0].trace["memcg"])], ["at least 1000 stalls"]),
    ("a stall dropped", in_first("totals.memcg.stalls", 3299),
     ["stalls of kind memcg equal", "stalls of all names"]),
    ("more work than stalls", in_second("operations", 201), ["of each write of the work"]),
    ("unattributed stalls", in_first("unattributed", 1), ["unattributed"]),
    ("records that ftrace lost", in_first("trace_lost", 7), ["ftrace lost"]),
]


def check_faults(tap):
    """CPUs and clocks, and many stalls."""
    for right, wrong, checks in (
            (right_faults(), WRONG_FAULTS, lambda pair: faults.check_faults(*pair)),
            (right_rates(), WRONG_RATES, lambda pair: faults.check_rates(*pair))):
        tap.ok(failures(right, checks) == [], "right figures pass")
        check_wrong(tap, right, wrong, checks)
    tap.ok([faults.parse_cpus(text) for text in ("0\n", "0-3\n", "0-1,3,5-6\n")] == [1, 4, 5],
           "sets of CPUs are understood")
    told = [*faults.describe_faults(*right_faults()), *faults.describe_rates(*right_rates())]
    tap.ok("12 times a CPU came or went: 60 / 60 stalls" in told[0]
           and "16 CPUs: 165 stalls/s for 20.0 s, 3300 / 3300 stalls" in told[1],
           "figures are told")


def check_works(tap):
    """Which guests are booted, with what."""
    usual = choose(WORKS["lockdown"], None, {})
    tap.ok(list(usual) == ["5.10-confidentiality", "sid-integrity"]
           and usual["sid-integrity"] == guest.Variant("sid", append="lockdown=integrity"),
           "without a word, a work's usual guests are booted")
    tap.ok(list(choose(WORKS["lockdown"], ["6.12"], {})) == ["6.12-integrity",
                                                            "6.12-confidentiality"]
           and list(choose(WORKS["waits"], None, {})) == [
               "5.10-waits", "6.1-waits", "6.12-waits", "sid-waits"],
           "of a kernel all kinds of guests, of a work all its kernels")
    tap.ok(choose(WORKS["faults"], ["6.1"], {"cpus": 8})["6.1-faults"]
           == guest.Variant("6.1", cpus=8, append="maxcpus=2"), "what is asked for comes first")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "tests/bench")
        os.makedirs(path)
        tap.ok(find_files(WORKS["rates"], folder, "/nowhere") == ([], ["tests/bench/work"]),
               "a file that is missing is named")
        with open(os.path.join(path, "work"), "wb"):
            tap.ok(find_files(WORKS["rates"], "/nowhere", folder)
                   == ([os.path.join(path, "work")], []), "one that is there is found")


def main():
    """Returns the exit status."""
    tap = Tap()
    check_services(tap)
    check_lockdown(tap)
    check_faults(tap)
    check_works(tap)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
