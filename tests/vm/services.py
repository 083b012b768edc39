# SPDX-License-Identifier: MIT
"""collectd as a service of systemd, as guest/systemd runs it: what each scene's
process may do, and whether the plugin does its work with that or says what it
lacks. All but `read_scenes` is pure."""

import dataclasses
import os
import re

import check
from facts import (Counts, count_lost, counts_of, parse_programs, parse_trace, read_file,
                   read_last_values, read_package)

# include/uapi/linux/capability.h
CAP_DAC_READ_SEARCH, CAP_PERFMON, CAP_BPF = 2, 38, 39
LEAST = frozenset({CAP_PERFMON, CAP_BPF})
MIN_STALLS = 20
# What a pause of an emulated CPU between two stamps may add: stalls are few here.
SPARE_US = 100000

ATTACHED = re.compile(r"reclaim plugin: attached:((?: \w+)*)")
COMPLAINT = re.compile(r"\[(?:error|warning)\] reclaim plugin: (.*)")
REFUSAL = ("cannot load BPF programs: Operation not permitted", "CAP_BPF", "CAP_PERFMON",
           "LimitMEMLOCK=infinity", "README, Capabilities")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is to be of a scene."""
    root: bool = False
    capabilities: frozenset = LEAST  # None: all
    confined: bool = True      # no new privileges, and a filter of system calls
    attached: bool = True
    memlock: str = ""          # the limit of locked memory; empty: any
    complaint: str = ""        # words of what the plugin complains of again and again
    name: str = "waiter"       # under which the load counts


DEBIAN = Wanted(root=True, capabilities=None, confined=False)
HARDENED = Wanted(memlock="infinity")
UPSTREAM = Wanted(root=True, confined=False)
SCENES = {
    # Only where guests have a package; its conffile says to load the plugin.
    "package": DEBIAN,
    "debian": DEBIAN,
    "hardened": HARDENED,
    "hardened-cgroup": dataclasses.replace(
        HARDENED, capabilities=LEAST | {CAP_DAC_READ_SEARCH}, name="small"),
    "hardened-proc": dataclasses.replace(HARDENED, complaint="cannot read /proc/vmstat"),
    "hardened-users": dataclasses.replace(HARDENED, attached=False),
    "upstream": dataclasses.replace(UPSTREAM, capabilities=frozenset(), attached=False),
    "upstream-reclaim": dataclasses.replace(UPSTREAM, memlock="infinity"),
    "upstream-memlock": dataclasses.replace(UPSTREAM, memlock="65536"),
}


@dataclasses.dataclass
class Scene:
    """All that is known of one. The fields from `release` on are also those of
    Facts."""
    root: bool
    capabilities: frozenset
    confined: bool
    shown: dict            # what systemd tells of the service while it runs
    ended: str             # and at its end
    attached: list         # kinds
    complaints: list
    names: dict            # name: Counts of kind memcg
    release: str
    totals: dict
    trace: dict
    trace_lost: int
    skipped: dict
    unattributed: int
    untimed: int


def charges_maps(release):
    """Whether BPF maps are charged to the limit of locked memory: before Linux
    5.11, where memory cgroups took that over."""
    return tuple(map(int, release.split(".")[:2])) < (5, 11)


def wanted_of(name, release):
    """What is to be of a scene on a kernel."""
    wanted = SCENES[name]
    if name == "upstream-memlock" and charges_maps(release):
        return dataclasses.replace(wanted, attached=False)
    return wanted


def parse_process(text):
    """User, capabilities and confinement, of /proc/PID/status."""
    field = dict(re.findall(r"^(\w+):\s*(\S+)", text, re.MULTILINE))
    effective = int(field["CapEff"], 16)
    return (field["Uid"] == "0", frozenset(i for i in range(64) if effective >> i & 1),
            field["NoNewPrivs"] == "1" and field["Seccomp"] == "2")


def read_scene(folder, release):
    """Reads a folder of raw files."""
    values, log = read_last_values(folder), read_file(folder, "collectd.log")
    programs = os.path.join(folder, "programs")
    said = ATTACHED.search(log)
    return Scene(
        *parse_process(read_file(folder, "process")),
        shown=dict(line.split("=", 1) for line in read_file(folder, "show").splitlines()),
        ended=" ".join(read_file(folder, "ended").split()),
        attached=said[1].split() if said else [], complaints=COMPLAINT.findall(log),
        names={key[0]: counts_of(values, key[0], "memcg") for key in values
               if key[0] and key[1:] == ("total_events", "memcg")},
        release=release, totals={"memcg": counts_of(values, "", "memcg_total")},
        trace={"memcg": parse_trace(read_file(folder, "trace"))["memcg"]},
        trace_lost=count_lost(read_file(folder, "trace-stats")),
        skipped=parse_programs(read_file(folder, "programs") if os.path.exists(programs) else ""),
        unattributed=values.get(("", "total_events", "unattributed")),
        untimed=values.get(("", "total_events", "untimed")))


def read_scenes(folder):
    """Reads all scenes of a guest."""
    release = read_file(folder, "release").strip()
    names = [name for name in SCENES if name != "package" or read_package(folder)]
    return {name: read_scene(os.path.join(folder, name), release) for name in names}


def _check_process(scene, wanted):
    """The service has the rights that the scene is about."""
    state = scene.shown["SubState"]
    yield (state == "running" and scene.ended == "success dead",
           f"the service runs, and ends when it is told to ({state}, {scene.ended})")
    yield (scene.root == wanted.root and scene.confined == wanted.confined,
           f"collectd is {'root' if wanted.root else 'a user of its own'}, "
           f"{'confined' if wanted.confined else 'not confined'}")
    has_all = wanted.capabilities is None and scene.capabilities > LEAST
    yield (has_all or scene.capabilities == wanted.capabilities,
           f"its capabilities are those of the unit ({describe_capabilities(scene)})")
    bounds = scene.shown["CapabilityBoundingSet"].split()
    yield (len(bounds) == len(scene.capabilities),
           f"systemctl show tells them ({' '.join(bounds[:3]) or 'none'}, {len(bounds)} in all)")
    yield (wanted.memlock in ("", scene.shown["LimitMEMLOCK"]),
           f"it may lock memory as the unit says ({scene.shown['LimitMEMLOCK']})")


def _check_refused(scene):
    """Nothing is attached, and one line says why and what to do."""
    yield scene.attached == [], "nothing is attached"
    yield (len(scene.complaints) == 1 and all(words in scene.complaints[0] for words in REFUSAL),
           f"one message names the cure ({'; '.join(scene.complaints) or 'none'})")


def _check_at_work(scene, wanted, kinds):
    """As much is attached as root has, and the sums are ftrace's."""
    yield (scene.attached == kinds != [],
           f"what root attaches is attached ({' '.join(scene.attached) or 'nothing'})")
    yield (bool(scene.complaints) == bool(wanted.complaint)
           and all(wanted.complaint in line for line in scene.complaints),
           f"the plugin complains of {wanted.complaint or 'nothing'} "
           f"({'; '.join(scene.complaints[:2]) or 'nothing'})")
    trace = scene.trace["memcg"]
    yield (scene.trace_lost == trace.unpaired == 0 and trace.counts.stalls >= MIN_STALLS,
           f"ftrace saw at least {MIN_STALLS} stalls, all of them ({trace.counts.stalls})")
    yield from check.check_stalls_and_time(scene, "memcg", SPARE_US)
    yield from check.check_pages(scene, "memcg")
    named = scene.names.get(wanted.name, Counts()).stalls
    yield (named >= 0.8 * scene.totals["memcg"].stalls > 0,
           f"they count under the name {wanted.name} ({named})")


def check_scenes(scenes):
    """Yields (whether it holds, what) for each thing that must hold."""
    for name, scene in scenes.items():
        wanted = wanted_of(name, scene.release)
        of_scene = [*_check_process(scene, wanted),
                    *(_check_at_work(scene, wanted, scenes["debian"].attached)
                      if wanted.attached else _check_refused(scene))]
        for holds, what in of_scene:
            yield holds, f"{name}: {what}"


def describe_capabilities(scene):
    """For people."""
    names = {CAP_DAC_READ_SEARCH: "dac_read_search", CAP_PERFMON: "perfmon", CAP_BPF: "bpf"}
    if len(scene.capabilities) > len(names):
        return "all"
    return " ".join(names.get(i, str(i)) for i in sorted(scene.capabilities)) or "none"


def describe(scenes):
    """A line a scene."""
    for name, scene in scenes.items():
        ours, theirs = scene.totals["memcg"], scene.trace["memcg"].counts
        what = (f"{ours.stalls} / {theirs.stalls} stalls, {ours.pages} / {theirs.pages} pages"
                if scene.attached else "refused")
        yield f"{name}, capabilities {describe_capabilities(scene)}: {what}"
