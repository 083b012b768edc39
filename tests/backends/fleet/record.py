#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes of what collectd's csv writer wrote of a host (StoreRates false) a
recording for replay.

    record.py FOLDER_OF_THE_HOST >FILE
"""

import os
import sys

sys.path.append(f"{os.path.dirname(os.path.abspath(__file__))}/../../collectd")

from harness import GAUGES, read_csv  # noqa: E402  pylint: disable=wrong-import-position


def make_recording(series):
    """Lines `READ TYPE SERIES VALUE`, of values that are not as before. All
    values of a read have one time."""
    times = sorted({when for values in series.values() for when, _ in values}, key=float)
    read_of = {when: number for number, when in enumerate(times)}
    lines = []
    for name, values in series.items():
        kind = "GAUGE" if name.split("/")[1].split("-")[0] in GAUGES else "DERIVE"
        before = None
        for when, value in values:
            if value != before:
                lines.append((read_of[when], f"{kind} {name} {value}"))
            before = value
    return [f"{read} {rest}" for read, rest in sorted(lines)]


if __name__ == "__main__":
    print("\n".join(make_recording(read_csv(sys.argv[1]))))
