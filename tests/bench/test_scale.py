#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What tests/bench/scale makes of what it measured, without measuring."""

import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[1:1] = [f"{HERE}/../collectd", f"{HERE}/../vm"]

# pylint: disable=wrong-import-position
import readme  # noqa: E402
import scaling  # noqa: E402
from harness import Tap  # noqa: E402

LISTING = json.dumps([
    {"id": 7, "name": "memcg_begin", "run_time_ns": 9, "run_cnt": 1},
    {"id": 8, "name": "memcg_begin", "run_time_ns": 5, "run_cnt": 2},
    {"id": 9, "name": "memcg_end"},
    {"id": 10, "name": "direct_begin", "run_time_ns": 3, "run_cnt": 3},
    {"id": 11}])


def works(*pairs_ns):
    """Work of 10 stalls each, that took so long beside empty programs of 50 ns."""
    return [scaling.Work({"memcg_begin": (0, 10), "memcg_end": (10 * ns, 10),
                          "empty_begin": (250, 10), "empty_end": (250, 10)}) for ns in pairs_ns]


def check_programs(tap):
    """Which programs are ours."""
    tap.equal(scaling.read_programs(LISTING, {8}), {"memcg_begin": (9, 1), "memcg_end": (0, 0)},
              "programs are found by name, those that were there before are not")
    tap.equal(scaling.read_ids(LISTING), {7, 8, 9, 10, 11}, "all programs have ids")
    before = dict.fromkeys(scaling.PROGRAMS, (100, 10))
    after = dict.fromkeys(scaling.PROGRAMS, (400, 30))
    tap.equal(scaling.Work.between(before, after).programs,
              dict.fromkeys(scaling.PROGRAMS, (300, 20)), "what was before is taken off")


def check_sums(tap):
    """A line whose sums do not hold is refused."""
    work, = works(500)
    tap.equal(work.complaints(10), [], "sums that hold are not complained of")
    tap.equal(len(work.complaints(9)), 4, "a stall that was not told of is")
    tap.ok(scaling.Work(dict.fromkeys(scaling.PROGRAMS, (0, 0))).complaints(0),
           "so is work without stalls")
    work.programs["empty_end"] = (250, 11)
    tap.equal(work.complaints(10), ["empty_end was run 11 times, 10 stalls were told of"],
              "and one that the plugin's programs did not see")


def check_tables(tap):
    """What people read."""
    tap.equal(scaling.cost_cells(works(3000, 200, 1000)), ["1,000", "20.0"],
              "the cost is the median of a pair, and of its ratio to empty programs")
    tap.equal(scaling.median_ratio(works(300, 200, 1000), works(100, 200, 200)), 3,
              "what goes up and down meanwhile does not change a ratio")
    tap.equal(scaling.table(["comms", "ns"], [["1", 2], ["3", 4]]),
              "| comms | ns |\n| --- | ---: |\n| 1 | 2 |\n| 3 | 4 |", "a table is one")
    text = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n"
    tap.equal(readme.replace(text, "x", "new\n"),
              "a\n<!-- x: begin -->\nnew\n<!-- x: end -->\nb\n", "a table of its name is replaced")


def main():
    """All of it."""
    tap = Tap()
    check_programs(tap)
    check_sums(tap)
    check_tables(tap)
    tap.done()


if __name__ == "__main__":
    main()
