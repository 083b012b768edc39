#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The limits of conf/alerts/threshold.conf, by collectd's threshold plugin: values
made up for it, on both sides of each limit. test_alerts.py has them cross for real."""

import collections
import contextlib
import itertools
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time

from stores import ENCODING, ROOT

from harness import Tap, skip_all, wait_for

LIMITS = f"{ROOT}/conf/alerts/threshold.conf"
INTERVAL = 10
# type: what is told of values that come one by one, W(arning), F(ailure) or O(kay)
# behind a value, and nothing where nothing changes. Counters: their growth per second,
# of which the first OKAY has none.
RATE_HOST = "0 100 100 100 100 101 101 101 W 51 49 O 501 501 501 F 451 449 449 449 W 49 O"
RATE_CGROUP = ("0 1000 1000 1000 1000 1001 1001 1001 W 501 499 O "
               "4001 4001 4001 F 3501 3499 3499 3499 W 499 O")
LATENCY = "0 O 1 1.001 W 1 O"
OLDEST = "0 O 10 10.001 F 10 O"
ATTACHED = "1 O 0 W 1 O"
TOLD = {
    # no limits
    "total_time_in_ms-memcg_proactive_total": "0 100000 100000 100000 100000",
    "total_time_in_ms-compact_total": "0 100000 100000 100000 100000",
    "total_time_in_ms-throttle_total": "0 100000 100000 100000 100000",
    "latency-throttle_total_max": "100",
    "latency-memcg_proactive_total_max": "100",
    "duration-memcg_proactive_total_oldest": "100",
    "duration-read": "100",
    # limits; the last is told last
    "total_time_in_ms-direct_total": RATE_HOST,
    "total_time_in_ms-node_total": RATE_HOST,
    "total_time_in_ms-memcg_total": RATE_CGROUP,
    **{f"latency-{kind}_total_max": LATENCY for kind in ("direct", "memcg", "node", "compact")},
    **{f"duration-{kind}_total_oldest": OLDEST
       for kind in ("direct", "memcg", "node", "compact")},
    "gauge-coverage": "1 O 0.95 0.95 0.95 0.949 0.949 0.949 W 0.95 O",
    "count-rows": "0 O 4096",
    "gauge-attached_throttle": ATTACHED,
}
SEVERITIES = {"O": "OKAY", "W": "WARNING", "F": "FAILURE"}
NOTIFICATION = re.compile(
    r"severity = (\w+), host = made_up, plugin = reclaim, type = (\w+), type_instance = (\w+), "
    r"message = .* is (?:currently )?(\S+\d)")


class Collectd:
    """collectd with the limits alone, which takes values from a socket."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="reclaim-threshold-")
        with open(f"{self.folder}/collectd.conf", "w", **ENCODING) as conf:
            conf.write(f"""
BaseDir "{self.folder}"
PIDFile "{self.folder}/pid"
TypesDB "/usr/share/collectd/types.db"
WriteThreads 1
LoadPlugin logfile
<Plugin logfile>
  File "{self.folder}/log"
</Plugin>
LoadPlugin unixsock
<Plugin unixsock>
  SocketFile "{self.folder}/socket"
</Plugin>
Include "{LIMITS}"
""")
        self.process = subprocess.Popen(["collectd", "-f", "-C", f"{self.folder}/collectd.conf"],
                                        stderr=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder)

    def put(self, lines):
        """Gives PUTVAL lines, and waits until they are taken."""
        wait_for(lambda: os.path.exists(f"{self.folder}/socket"), "collectd", 10)
        with socket.socket(socket.AF_UNIX) as connection, connection.makefile("r") as answers:
            connection.connect(f"{self.folder}/socket")
            for line in lines:
                connection.sendall(line.encode())
                if not answers.readline().startswith("0 "):
                    raise RuntimeError(f"collectd does not take {line}")

    def told(self):
        """{series: [(severity, value)]} that the log has."""
        told = collections.defaultdict(list)
        with open(f"{self.folder}/log", **ENCODING) as log:
            for severity, kind, instance, value in NOTIFICATION.findall(log.read()):
                told[f"{kind}-{instance}"].append((severity, value))
        return told


def values(series, history):
    """What is sent: the numbers of a history, of counters their sums."""
    numbers = [word for word in history.split() if word not in SEVERITIES]
    if not series.startswith("total_"):
        return numbers
    return list(itertools.accumulate((int(rate) * INTERVAL for rate in numbers), initial=0))


def wanted(history):
    """[(severity, value)] to be told of a history."""
    words = history.split()
    return [(SEVERITIES[severity], f"{float(value):f}")
            for value, severity in itertools.pairwise(words) if severity in SEVERITIES]


def main():
    if not shutil.which("collectd"):
        skip_all("needs collectd (Debian package collectd-core)")
    tap = Tap()
    with open(LIMITS, **ENCODING) as handle:
        limits = re.findall(r'<Type "(\w+)">\s+Instance "(\w+)"', handle.read())
    tap.equal({"-".join(limit) for limit in limits} - set(TOLD), set(), "each limit is looked at")
    begin = int(time.time())
    with Collectd() as collectd:
        collectd.put(f'PUTVAL "made_up/reclaim/{series}" interval={INTERVAL} '
                     f"{begin + i * INTERVAL}:{value}\n" for series, history in TOLD.items()
                     for i, value in enumerate(values(series, history)))
        last, history = list(TOLD.items())[-1]
        with contextlib.suppress(TimeoutError):
            wait_for(lambda: len(collectd.told()[last]) >= len(wanted(history)), last, 10)
        told = collectd.told()
    for series, history in TOLD.items():
        tap.equal(told[series], wanted(history), f"{series}: {history}")
    tap.done()


main()
