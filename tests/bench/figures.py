# SPDX-License-Identifier: MIT
"""What is made of measurements: medians, ratios, intervals, checks and the table. Pure."""

import dataclasses
import math
import statistics

KINDS = {"read": "page cache", "empty": "back to back"}  # of work
STEADY = "empty"    # whose stalls are all alike
REALISTIC = "read"  # which does something else, too
FEWEST_PAIRS, MOST_PAIRS = 6, 400  # of fewer there is no interval
CLEAR = 0.002       # half of an interval that is narrow enough

# At most so many times a contestant's added time is ours: of those whose programs cannot be
# run alone. For the others, test_alone has steadier ratios.
LIMITS = {"bpftrace": 1 / 5, "script": 1 / 35}
WHOLE_LIMIT = 1.01
# What a ratio may miss its limit by. Single rounds were up to a third off the median of their
# run, on two CPUs that others used too; the median of five should be off by less.
MARGIN = 0.35


@dataclasses.dataclass
class Trial:
    """What one start of a contestant had; times per stall if nothing else is said."""
    added_ns: float = None     # between the watch's programs, less what is there with nothing
    nothing_ns: float = None   # between them with nothing
    program_ns: float = None   # in its programs, as the kernel measures it
    work_cpu_ns: float = None  # of the work, per operation
    cpu_ns: float = None       # of its process
    start_s: float = None      # until its programs saw a stall
    rss_kib: int = None
    stalls: int = None         # that were there to be told of
    told: int = None           # that it told of


def interval(values, outside=0.05):
    """The median of independent values is between these two, but with this probability (by
    ranks: it does not matter how values are distributed). None if there are too few."""
    ordered, count, below, rank = sorted(values), len(values), 0.0, 0
    while True:
        below += math.comb(count, rank) / 2 ** count
        if below > outside / 2:
            break
        rank += 1
    return (ordered[rank - 1], ordered[count - rank]) if rank else None


def is_narrow(values):
    """Whether the median is known well enough."""
    around = interval(values) if len(values) >= 20 else None
    return around is not None and around[1] - around[0] <= 2 * CLEAR


class Figures:
    """Medians over rounds. `rounds` has {(key, kind): Trial} of each; key None is nobody.
    `pairs` has {kind: ratios of the work's CPU time, with the plugin to with empty programs}."""

    def __init__(self, rounds, pairs):
        self.rounds, self.pairs = rounds, pairs

    def _median(self, values):
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    def has(self, key):
        """Whether it was measured."""
        return any(key == measured for measured, _ in self.rounds[0])

    def kinds(self):
        """The kinds of work that were done."""
        return [kind for kind in KINDS if (None, kind) in self.rounds[0]]

    def program_ns(self, key, kind):
        """What its programs take, less what empty ones do."""
        return self._median(one[key, kind].program_ns - one["empty", kind].program_ns
                            for one in self.rounds)

    def ratio(self, key, kind, other="plugin"):
        """How many times another's added time a contestant's is: in each round, since a machine
        is now faster, now slower."""
        return self._median(one[key, kind].added_ns / one[other, kind].added_ns
                            for one in self.rounds)

    def whole(self, key, kind):
        """What CPU time the work takes with it, of what it takes with nobody."""
        return self._median(one[key, kind].work_cpu_ns / one[None, kind].work_cpu_ns
                            for one in self.rounds)

    def median(self, key, kind, what):
        """Of a plain figure."""
        return self._median(getattr(one[key, kind], what) for one in self.rounds)

    def stalls(self, key, kind):
        """How many stalls there were, and how many it did not tell of, in all rounds."""
        trials = [one[key, kind] for one in self.rounds]
        return (sum(trial.stalls for trial in trials),
                sum(trial.stalls - trial.told for trial in trials))


def check(figures, margin=MARGIN):
    """Yields (whether it holds, what) of each thing that must hold."""
    for key, limit in LIMITS.items():
        if not figures.has(key):
            continue
        ratio = 1 / figures.ratio(key, STEADY)
        yield (ratio <= limit * (1 + margin),
               f"the plugin adds at most {limit:.3g} times what {key} adds ({ratio:.3g})")
    for kind in figures.kinds():
        stalls, lost = figures.stalls("plugin", kind)
        yield lost == 0, f"{KINDS[kind]}: none of {stalls} stalls is lost ({lost})"
    if REALISTIC in figures.pairs:
        ratios = figures.pairs[REALISTIC]
        yield (interval(ratios)[0] <= WHOLE_LIMIT,
               f"{KINDS[REALISTIC]}: the whole work takes within 1 % of the CPU time that it takes "
               f"with empty programs ({describe_whole(ratios)})")


def describe_whole(ratios):
    """A ratio of whole works in words."""
    low, high = interval(ratios)
    return (f"{statistics.median(ratios):.4f} times, 95 % sure from {low:.4f} to {high:.4f}, "
            f"{len(ratios)} pairs")


def number(value):
    """Three digits, for people."""
    if value is None:
        return "–"
    if abs(value) >= 100:
        digits = math.floor(math.log10(abs(value))) - 2
        return f"{round(value / 10 ** digits) * 10 ** digits:,}"
    return f"{value:.3g}" if abs(value) >= 10 else f"{value:.2g}"


def _share_lost(figures, key, kind):
    stalls, lost = figures.stalls(key, kind)
    return "0" if lost == 0 else f"{lost / stalls:.2%}"


def _cells(figures, key, counts):
    """The cells of a contestant's row, each a list by kind of work."""
    kinds = figures.kinds()
    yield [number(figures.median(key, kind, "added_ns")) for kind in kinds]
    yield [number(figures.ratio(key, kind)) for kind in kinds]
    yield [number(figures.program_ns(key, kind)) for kind in kinds]
    yield [number(figures.median(key, kind, "cpu_ns") / 100) for kind in kinds]
    yield [_share_lost(figures, key, kind) for kind in kinds] if counts else ["–"]
    yield [f"{figures.whole(key, kind):.1%}" for kind in kinds]
    yield [number(figures.median(key, kinds[0], "start_s") * 1000)]
    yield [number(figures.median(key, kinds[0], "rss_kib") / 1024)]


HEAD = ("", "added to a stall, ns", "times the plugin's", "in programs, ns",
        "CPU, ms per 10,000", "lost", "CPU of the work", "start, ms", "RSS, MiB")


def table(figures, contestants):
    """The table, in Markdown."""
    lines = ["| " + " | ".join(HEAD) + " |", "| --- |" + " ---: |" * (len(HEAD) - 1)]
    for one in contestants:
        if figures.has(one.key):
            cells = [" / ".join(cell) for cell in _cells(figures, one.key, one.counts)]
            lines.append("| " + " | ".join([one.name, *cells]) + " |")
    return "\n".join(lines)
