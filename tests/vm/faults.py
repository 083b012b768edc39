# SPDX-License-Identifier: MIT
"""What guest/faults and guest/rates do: CPUs come and go and the wall clock is set
while tasks stall, and as many stalls as a guest can make. The sums are ftrace's all
the same. All but `read_faults` and `read_rates` is pure."""

import dataclasses
import re

import check
from facts import GAUGES, read_facts, read_file, read_series

MIN_PLUGGED = 12
# By how much the clock is set; the way back is collectd's pause.
STEPS_S = (86400, -3600, 3600)
SLOW_S = 60       # that a guest may take to set it
MIN_READS = 3
TASKS = 64        # more than there are
GAUGE_MOST = 300  # of seconds and of everything else that is told: no guest lasts longer
# memory.force_empty ends when it has reclaimed so often in vain (mm/memcontrol-v1.c:
# MAX_RECLAIM_RETRIES).
FRUITLESS_A_WRITE = 16
MIN_RATE_STALLS = 1000


@dataclasses.dataclass
class Faults:
    """All that is known, beside Facts."""
    possible: int       # CPUs
    online: int         # of them, at the start
    plugged: list       # CPU and `1`, on, or `0`, off
    steps: list         # (by how many s the clock was set, reads until the next)
    series: dict        # values as they came: {series: [value]}


@dataclasses.dataclass
class Rates:
    """Likewise."""
    cpus: int
    operations: int     # of the work
    seconds: float


def parse_cpus(text):
    """How many `0-2,5` are."""
    ends = [list(map(int, part.split("-"))) for part in text.strip().split(",")]
    return sum(end[-1] - end[0] + 1 for end in ends)


def read_faults(folder):
    """Reads a folder of raw files."""
    return read_facts(folder), Faults(
        parse_cpus(read_file(folder, "cpus-possible")),
        parse_cpus(read_file(folder, "cpus-online")),
        read_file(folder, "plugged").splitlines(),
        [tuple(map(int, line.split())) for line in read_file(folder, "steps").splitlines()],
        {key: [value for _, value in values] for key, values in read_series(folder).items()})


def read_rates(folder):
    """Likewise. The work prints how much it did, and how long it took in ns."""
    numbers = list(map(int, re.findall(r"\d+", read_file(folder, "work"))))
    return read_facts(folder), Rates(
        parse_cpus(read_file(folder, "cpus-online")), numbers[0], numbers[-1] / 1e9)


def _check_sums(facts):
    """Nothing is lost, nothing is invented."""
    yield from check.check_witnesses(facts)
    trace = facts.trace["memcg"]
    yield (trace.unpaired == trace.outside == 0 and trace.begins == trace.counts.stalls,
           f"ftrace pairs all begins and ends ({trace.begins}, {trace.counts.stalls})")
    yield from check.check_stalls_and_time(facts, "memcg")
    yield from check.check_pages(facts, "memcg")
    yield from check.check_sums(facts, "memcg")
    yield from check.check_unseen(facts)


def _check_provoked(of):
    """Without these, the sums prove nothing."""
    yield (of.online < of.possible,
           f"fewer CPUs are online at the start than possible ({of.online} of {of.possible})")
    on_and_off = {change.split()[1] for change in of.plugged}
    yield (len(of.plugged) >= MIN_PLUGGED and on_and_off == {"0", "1"},
           f"CPUs come and go at least {MIN_PLUGGED} times ({len(of.plugged)})")
    by = [seconds for seconds, _ in of.steps]
    yield (len(by) == len(STEPS_S) and all(abs(one - other) < SLOW_S for one, other in
                                           zip(by, STEPS_S)),
           f"the clock is set by a day, back by an hour and forth again ({by})")
    reads = [number for _, number in of.steps]
    yield (len(reads) == len(STEPS_S) and reads[0] >= MIN_READS <= reads[-1],
           f"the plugin reads at least {MIN_READS} times after the clock went forth ({reads})")


def _check_values(series):
    """Counters grow, and no gauge is out of this world."""
    shrunk = ["-".join(key) for key, values in series.items() if key[1] not in GAUGES
              and any(after < before for before, after in zip(values, values[1:]))]
    yield shrunk == [], f"no counter shrinks ({' '.join(shrunk[:3]) or 'none'})"
    giant = [f"{'-'.join(key)} {max(values):g}" for key, values in series.items()
             if key[1] in GAUGES and values and not 0 <= min(values) <= max(values) <=
             (TASKS if key[1] == "pending_operations" else GAUGE_MOST)]
    yield giant == [], f"no gauge is giant or below 0 ({'; '.join(giant[:3]) or 'none'})"


def check_faults(facts, of):
    """Yields (whether it holds, what) for each thing that must hold."""
    yield from _check_provoked(of)
    yield from _check_sums(facts)
    yield from _check_values(of.series)


def check_rates(facts, of):
    """Likewise. The work counts, too."""
    yield from _check_sums(facts)
    stalls = facts.totals["memcg"].stalls
    yield (stalls >= MIN_RATE_STALLS,
           f"there are at least {MIN_RATE_STALLS} stalls ({stalls})")
    fruitless = facts.totals["memcg"].fruitless
    yield (fruitless == of.operations * FRUITLESS_A_WRITE,
           f"{FRUITLESS_A_WRITE} in vain are of each write of the work "
           f"({fruitless} of {of.operations} writes)")


def describe_faults(facts, of):
    """What a person wants to know."""
    ours, theirs = facts.totals["memcg"], facts.trace["memcg"].counts
    yield (f"{facts.version}: {len(of.plugged)} times a CPU came or went: "
           f"{ours.stalls} / {theirs.stalls} stalls, {ours.pages} / {theirs.pages} pages, "
           f"{ours.time_us // 1000} / {theirs.time_us // 1000} ms")


def describe_rates(facts, of):
    """What a person wants to know."""
    ours, theirs = facts.totals["memcg"], facts.trace["memcg"].counts
    yield (f"{facts.version}, {of.cpus} CPUs: {ours.stalls / of.seconds:.0f} stalls/s for "
           f"{of.seconds:.1f} s, {ours.stalls} / {theirs.stalls} stalls, in vain "
           f"{ours.fruitless} / {theirs.fruitless} / {of.operations * FRUITLESS_A_WRITE} (work); "
           f"unattributed {facts.unattributed}, untimed {facts.untimed}, ftrace lost "
           f"{facts.trace_lost}")
