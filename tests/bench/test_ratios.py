#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the plugin adds to a stall is so many times less than what tools add, on the same
stalls: ratios only, since times are the machine's. A short run of the bench."""

import os

import contestants
import measure
from contestants import harness
from figures import LIMITS, REALISTIC, STEADY, Figures, check

ROUNDS, SECONDS = 5, 0.4
WHOLE_SECONDS = 12


def choose(tap):
    """Those whose ratios are limited, as far as they can be run; where nothing may be left out,
    all of them can."""
    wanted = [one for one in contestants.ALL if one.key in ("plugin", *LIMITS)]
    missing = {one.key: why for one in wanted if (why := one.missing())}
    for key, why in missing.items():
        if os.environ.get("CI") == "true":
            tap.ok(False, f"{key} is there to compare with", why)
        else:
            tap.note(f"left out: {key}: {why}")
    return [one for one in wanted if one.key not in missing]


def run(chosen):
    """A few rounds of steady work, and the whole of a realistic one."""
    ends = [one for key in ("empty", "plugin") for one in contestants.ALL if one.key == key]
    work = measure.Work()
    try:
        rounds = list(measure.run_rounds(chosen, work, [STEADY], ROUNDS, SECONDS, False))
        return Figures(rounds, {
            REALISTIC: measure.compare_whole(ends, work, REALISTIC, WHOLE_SECONDS)})
    finally:
        work.close()


def main():
    """Measures and checks."""
    measure.need_machine()
    tap = harness.Tap()
    for passed, what in check(run(choose(tap))):
        tap.ok(passed, what)
    tap.done()


main()
