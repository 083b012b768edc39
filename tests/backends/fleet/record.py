#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes of what collectd's csv writer wrote of a host (StoreRates false) a
recording for replay.

    record.py FOLDER_OF_THE_HOST >FILE
"""

import collections
import glob
import os
import sys

# Other types of the plugin are counters.
GAUGES = ("gauge", "latency", "count", "duration", "pending_operations")


def read_csv(folder):
    """{series: [(time, value)]}, times and values as text. There is a file a
    day, its name ends in the date."""
    series = collections.defaultdict(list)
    for path in sorted(glob.glob(os.path.join(folder, "reclaim*/*"))):
        instance, name = path.split(os.sep)[-2:]
        with open(path, encoding="ascii") as file:
            rows = [line.strip().split(",") for line in file.readlines()[1:]]
        series[f"{instance}/{name.rsplit('-', 3)[0]}"] += map(tuple, rows)
    return series


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
