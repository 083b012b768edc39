#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the bench makes of measurements, tried with known ones."""

import os
import sys
import xml.dom.minidom

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[1:1] = [f"{HERE}/../collectd", f"{HERE}/../vm"]

# pylint: disable=wrong-import-position
import figures  # noqa: E402
import plot  # noqa: E402
from figures import Figures, Trial  # noqa: E402
from harness import Tap  # noqa: E402

# What each adds to a stall.
ADDED_NS = {None: 0, "empty": 100, "clocks": 200, "plugin": 300, "hashes": 700, "exporter": 800,
            "bpftrace": 1600, "script": 12000}


def trial(key, slow=1, lost=0):
    """A trial on a machine that is now so slow."""
    ns = ADDED_NS[key] * slow
    return Trial(added_ns=ns, program_ns=ns / 2, work_cpu_ns=10000 + ns, cpu_ns=50,
                   start_s=0.25, rss_kib=2048, stalls=1000, told=1000 - lost)


def rounds(without=(), **changed):
    """Three rounds of steady work, the second on a machine three times as slow."""
    keys = [key for key in ADDED_NS if key not in without]
    return [{(key, "empty"): changed.get(key, trial(key, slow)) for key in keys}
            for slow in (1, 3, 1)]


def check_interval(tap):
    """The interval of a median."""
    tap.equal(figures.interval(range(5)), None, "five values do not say where the median is")
    tap.equal(figures.interval([6, 2, 3, 5, 4, 1]), (1, 6), "six do, all in between")
    tap.equal(figures.interval(range(1, 101)), (40, 61), "of a hundred, it has a fifth")
    tap.ok(figures.is_narrow([1.0] * 20) and not figures.is_narrow([1.0] * 19),
           "twenty equal values are clear, fewer are not")
    tap.ok(not figures.is_narrow([1.0, 1.005] * 50), "half a percent is not")


def check_medians(tap):
    """Medians and ratios."""
    made = Figures(rounds(), {})
    tap.equal(made.median("plugin", "empty", "added_ns"), 300, "one slow round of three is "
              "not the median")
    tap.equal(made.program_ns("plugin", "empty"), 100, "what empty programs take is taken off")
    tap.equal(made.ratio("bpftrace", "empty"), 1600 / 300, "a ratio is of one round")
    tap.equal(made.whole("plugin", "empty"), 1.03, "the whole work's CPU is beside nobody's")
    tap.equal(made.stalls("plugin", "empty"), (3000, 0), "stalls are summed up")
    tap.equal(made.kinds(), ["empty"], "only works that were done are told")
    uneven = rounds()
    uneven[1]["plugin", "empty"] = trial("plugin", 1)  # the machine was slow for others alone
    tap.equal(Figures(uneven, {}).ratio("hashes", "empty"), 700 / 300,
              "one round of three does not make the ratio")


def failed(made, margin=0.0):
    """The checks that fail, in words."""
    return [what for passed, what in figures.check(made, margin) if not passed]


def check_checks(tap):
    """What must hold."""
    good = {"read": [1.0, 1.02] * 10}
    tap.equal(failed(Figures(rounds(), good)), [], "all holds of a cheap plugin")
    slow = failed(Figures(rounds(plugin=trial("hashes")), good))
    tap.equal(len(slow), 2, "a plugin as dear as two hashes misses both ratios")
    dearer = rounds(plugin=Trial(added_ns=340, program_ns=1, stalls=9, told=9))
    tap.equal(failed(Figures(dearer, good)),
              ["the plugin adds at most 0.2 times what bpftrace adds (0.212)"],
              "a little dearer, it misses the one that is near")
    tap.equal(failed(Figures(dearer, good), 0.07), [], "but not with a margin")
    tap.equal(len(list(figures.check(Figures(rounds(without=["script"]), good), 0))),
              len(list(figures.check(Figures(rounds(), good), 0))) - 1,
              "who was left out is not checked against")
    tap.equal(failed(Figures(rounds(plugin=trial("plugin", lost=1)), good)),
              ["back to back: none of 3000 stalls is lost (3)"], "no stall may be lost")
    tap.equal(len(failed(Figures(rounds(), {"read": [1.011, 1.03] * 10}))), 1,
              "more than 1 % of CPU, and sure of it, fails")
    tap.equal(failed(Figures(rounds(), {"read": [1.0, 1.03] * 10})), [],
              "more than 1 %, but not sure of it, does not")


def check_words(tap):
    """How figures are shown."""
    tap.equal([figures.number(value) for value in (None, 0.123, 4.56, 78.91, 234.5, 12345)],
              ["–", "0.12", "4.6", "78.9", "234", "12,300"], "numbers have three digits at most")
    lines = figures.table(Figures(rounds(plugin=trial("plugin", lost=1)), {}),
                          [Row("plugin", "ours"), Row("script", "theirs"), Row("gone", "nobody")])
    tap.equal(lines.splitlines()[2:],
              ["| ours | 300 | 1 | 100 | 0.5 | 0.10% | 103.0% | 250 | 2 |",
               "| theirs | 12,000 | 40 | 5,950 | 0.5 | 0 | 220.0% | 250 | 2 |"],
              "the table has the rows of those that were measured")
    drawn = plot.plot({"a < b": {"read": 100, "empty": 10000}, "c": {"read": -5, "empty": 1}})
    root = xml.dom.minidom.parseString(drawn).documentElement
    bars = [float(bar.getAttribute("width")) for bar in root.getElementsByTagName("rect")][2:]
    tap.equal(bars, [250.0, 500.0, 0.0, 0.0], "bars are as long as logarithms")


class Row:
    """A contestant, as far as the table asks."""

    def __init__(self, key, name):
        self.key, self.name, self.counts = key, name, True


def main():
    """Runs them all."""
    tap = Tap()
    for part in check_interval, check_medians, check_checks, check_words:
        part(tap)
    tap.done()


main()
