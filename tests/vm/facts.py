# SPDX-License-Identifier: MIT
"""What a guest's raw files say: the plugin's counters, ftrace's events, the
kernel's own counters."""

import collections
import dataclasses
import glob
import json
import os
import re

KINDS = ("direct", "memcg")
# Types with fractions; all others that the plugin uses are counters.
GAUGES = ("gauge", "latency", "count", "duration", "pending_operations")

# " comm-TID  [CPU] flags  seconds.micros: event: fields"; a comm may hold
# anything, hence the greedy start.
TRACE_LINE = re.compile(
    r"^.*-(\d+)\s+\[\d+\]\s+\S+\s+(\d+)\.(\d{6}): (\w+): ?(.*)$")
TRACE_EDGE = re.compile(r"mm_vmscan_(direct|memcg)_reclaim_(begin|end)")
TRACE_LRU = "mm_vmscan_lru_shrink_inactive"
NR_RECLAIMED = re.compile(r"\bnr_reclaimed=(\d+)")


@dataclasses.dataclass
class Counts:
    """Stalls of one kind, as one witness counted them."""
    stalls: int = 0
    time_us: int = 0
    pages: int = 0
    fruitless: int = 0

    def add(self, other):
        """Adds another witness's, or another stall's."""
        self.stalls += other.stalls
        self.time_us += other.time_us
        self.pages += other.pages
        self.fruitless += other.fruitless


@dataclasses.dataclass
class Trace:
    """Events of one kind in ftrace."""
    counts: Counts = dataclasses.field(default_factory=Counts)
    begins: int = 0
    lru_pages: int = 0  # of the pages, those from LRU lists; the rest is slab
    short: int = 0      # ends that report less than the stall's LRU pages
    unpaired: int = 0   # ends without a begin, begins without an end
    outside: int = 0    # events before or after the marked stretch
    each: list = dataclasses.field(default_factory=list)  # Counts of each stall


@dataclasses.dataclass
class Facts:
    """All that is known of one guest's run."""
    release: str
    version: str         # of the distribution's package
    preemption: str      # modes, the one in force in brackets; may be empty
    attached: dict       # kind: whether the plugin says so
    attached_again: bool  # whether it says that each program is
    skipped: dict        # BPF program: how often the kernel skipped it
    totals: dict         # kind: Counts
    names: dict          # kind: {name: Counts}, `_other` among them
    pending: dict        # kind: stalls under way at the end, None if not said
    unattributed: int    # None where the plugin did not say
    untimed: int         # likewise
    trace: dict          # kind: Trace
    trace_lost: int      # records that ftrace had no room for
    growth: dict         # /proc/vmstat, from mark to mark
    node_counters: set   # names in the vmstat of a node
    collectd_status: str
    collectd_errors: list
    bpf_tests: list      # (name, exit status, output)
    beside: dict         # what ran beside it: how much it did; None: nothing


def read_package(folder):
    """What dpkg says of the package that the guest installed: its state and version,
    and files that are not as they should be. None if it has installed none."""
    path = os.path.join(folder, "installed")
    return read_file(folder, "installed") if os.path.exists(path) else None


def read_file(folder, name):
    """A raw file as text."""
    path = os.path.join(folder, name)
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _read_if_there(folder, name):
    return read_file(folder, name) if os.path.exists(os.path.join(folder, name)) else ""


def _read_vmstat(folder, name):
    return {key: int(value) for key, value in
            (line.split() for line in read_file(folder, name).splitlines())}


def read_series(folder):
    """All values of each series: {(plugin instance, type, type instance):
    [(time in us, value)]}. The csv plugin writes a file a day."""
    series = collections.defaultdict(list)
    for path in sorted(glob.glob(os.path.join(folder, "csv/guest/reclaim*/*"))):
        instance = os.path.basename(os.path.dirname(path))[len("reclaim-"):]
        name = os.path.basename(path).rsplit("-", 3)[0]  # less the date
        type_name, _, type_instance = name.partition("-")
        number = float if type_name in GAUGES else int
        with open(path, encoding="ascii") as file:
            rows = [line.split(",") for line in file.read().splitlines()[1:]]
        series[instance, type_name, type_instance] += [
            (round(float(epoch) * 1000000), number(value)) for epoch, value in rows]
    return series


def read_last_values(folder):
    """The last value of each series."""
    return {key: values[-1][1] for key, values in read_series(folder).items() if values}


def counts_of(values, instance, kind):
    """What the plugin counted of a name, `<kind>_total` for the total."""
    def value(type_name, suffix=""):
        return values.get((instance, type_name, kind + suffix), 0)
    return Counts(value("total_events"), value("total_time_in_ms") * 1000,
                  value("vmpage_action"), value("total_events", "_fruitless"))


@dataclasses.dataclass
class _Stall:
    begin_us: int
    lru_pages: int = 0


def _take_begin(trace, under_way, tid, now_us):
    trace.begins += 1
    trace.unpaired += tid in under_way
    under_way[tid] = _Stall(now_us)


def _take_end(trace, under_way, tid, now_us, pages):
    counts = Counts(1, 0, pages, int(pages == 0))
    stall = under_way.pop(tid, None)
    if stall:
        counts.time_us = now_us - stall.begin_us
        trace.lru_pages += stall.lru_pages
        trace.short += pages < stall.lru_pages
    else:
        trace.unpaired += 1
    trace.counts.add(counts)
    trace.each.append(counts)


def trace_events(text):
    """Yields (thread, time in us, event, fields)."""
    for match in filter(None, map(TRACE_LINE.match, text.splitlines())):
        tid, seconds, micros, event, fields = match.groups()
        yield int(tid), int(seconds) * 1000000 + int(micros), event, fields


def parse_trace(text):
    """Events of each kind. The job wrote `begin` and `quiet` into the trace
    where it read the kernel's counters."""
    traces = {kind: Trace() for kind in KINDS}
    under_way = {kind: {} for kind in KINDS}
    inside = False
    for tid, now_us, event, fields in trace_events(text):
        edge = TRACE_EDGE.fullmatch(event)
        pages = NR_RECLAIMED.search(fields)
        if event == "tracing_mark_write":
            inside = fields == "begin"
        elif event == TRACE_LRU:
            for stalls in under_way.values():
                if tid in stalls:
                    stalls[tid].lru_pages += int(pages[1])
        elif edge:
            kind = edge[1]
            traces[kind].outside += not inside
            if edge[2] == "begin":
                _take_begin(traces[kind], under_way[kind], tid, now_us)
            else:
                _take_end(traces[kind], under_way[kind], tid, now_us, int(pages[1]))
    for kind in KINDS:
        traces[kind].unpaired += len(under_way[kind])
    return traces


def count_lost(stats):
    """How many records ftrace had no room for."""
    lost = re.findall(r"^(?:overrun|commit overrun|dropped events): (\d+)", stats,
                      re.MULTILINE)
    return sum(map(int, lost))


def _read_bpf_tests(folder):
    tests = []
    for path in sorted(glob.glob(os.path.join(folder, "bpf-tests/*.status"))):
        name = os.path.basename(path)[:-len(".status")]
        tests.append((name, read_file(folder, f"bpf-tests/{name}.status").strip(),
                      read_file(folder, f"bpf-tests/{name}")))
    return tests


def parse_programs(text):
    """How often the kernel skipped each BPF program, from what bpftool says;
    kernels that never do, or do not count it, are silent."""
    return {program["name"]: program.get("recursion_misses", 0)
            for program in json.loads(text or "[]") if "name" in program}


def parse_bpftrace(text):
    """Maps and lost events that bpftrace printed, as {name: value}."""
    maps = {"lost": 0}
    for line in text.splitlines():
        said = json.loads(line) if line.startswith("{") else {}
        if said.get("type") in ("map", "stats"):
            maps.update(said["data"])
        elif said.get("type") == "lost_events":
            maps["lost"] += said["data"]["events"]
    return maps


def _read_beside(folder):
    if "reclaim_beside" not in read_file(folder, "cmdline"):
        return None
    counted = parse_bpftrace(_read_if_there(folder, "beside-tracer")).get("@", {})
    return {"traced events": sum(counted.values()),
            "rounds of bpf() calls": len(_read_if_there(folder, "beside-rounds"))}


def _debian_version(text):
    """The package's version in what `uname -v` says."""
    version = re.search(r"Debian (\S+)", text)
    return version[1] if version else text.strip()


def read_facts(folder):
    """Reads a folder of raw files."""
    values = read_last_values(folder)
    instances = sorted({key[0] for key in values} - {""})
    names = collections.defaultdict(dict)
    for kind in KINDS:
        for name in instances:
            if (name, "total_events", kind) in values:
                names[kind][name] = counts_of(values, name, kind)
    before = _read_vmstat(folder, "vmstat-begin")
    after = _read_vmstat(folder, "vmstat-quiet")
    log = read_file(folder, "collectd.log") + read_file(folder, "collectd.out")
    return Facts(
        release=read_file(folder, "release").strip(),
        version=_debian_version(read_file(folder, "version")),
        preemption=_read_if_there(folder, "preemption").strip(),
        attached={kind: values.get(("", "gauge", f"attached_{kind}")) == 1
                  for kind in KINDS},
        attached_again=", each program three times" in log,
        skipped=parse_programs(_read_if_there(folder, "programs")),
        totals={kind: counts_of(values, "", f"{kind}_total") for kind in KINDS},
        names={kind: names[kind] for kind in KINDS},
        pending={kind: values.get(("", "pending_operations", f"{kind}_total"))
                 for kind in KINDS},
        unattributed=values.get(("", "total_events", "unattributed")),
        untimed=values.get(("", "total_events", "untimed")),
        trace=parse_trace(read_file(folder, "trace")),
        trace_lost=count_lost(read_file(folder, "trace-stats")),
        growth={key: after[key] - before.get(key, 0) for key in after},
        node_counters={line.split()[0] for line in
                       read_file(folder, "node-vmstat").splitlines()},
        collectd_status=read_file(folder, "collectd.status").strip(),
        collectd_errors=[line for line in log.splitlines() if "[error]" in line],
        bpf_tests=_read_bpf_tests(folder),
        beside=_read_beside(folder))
