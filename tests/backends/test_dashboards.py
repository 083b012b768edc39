#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The dashboards at work: every panel of each, asked of the real store, which two
hosts feed; ftrace and the csv files say what is true. Both hosts are this
machine: they have the same stalls, and a fleet has twice as many."""

import collections
import contextlib
import itertools
import math
import os
import subprocess
import sys
import tempfile

sys.path[:0] = [os.path.dirname(__file__), f"{os.path.dirname(__file__)}/../collectd",
                f"{os.path.dirname(__file__)}/../../conf/dashboards"]

# pylint: disable=wrong-import-position
import harness  # noqa: E402
import panels  # noqa: E402
from harness import Collectd, Staller, Tap, Trace, need_live_machine, skip_all, \
    wait_for  # noqa: E402
from stores import ROOT, Graphite, InfluxDB, Prometheus, free_port  # noqa: E402

STORES = (Graphite, InfluxDB, Prometheus)
INTERVAL = 2
OPTIONS = "ReportMaximum true\nReportFruitless true\nHistogram total"
GUILTY = "guilty"
NEEDS = {"Time stalled beside PSI": "/proc/pressure/memory"}

# The second one's values come by way of the first, but for InfluxDB.
HOSTS = ("testhost", "db2.example")

Truth = collections.namedtuple("Truth", "collectds ranking start end")


def start_collectds(stores):
    """A collectd of each host."""
    port, found = free_port(), []
    network = '<Plugin network>\n  {} "127.0.0.1" "{}"\n</Plugin>'
    first = [store.collectd_conf() for store in stores] + [network.format("Listen", port)]
    second = [store.collectd_conf() for store in stores if store.NAME == "influxdb"] + [
        network.format("Server", port)]
    for harness.CSV_HOST, more in zip(HOSTS, (first, second)):
        found.append(Collectd(OPTIONS, interval=INTERVAL, more="\n".join(more)).start())
    return found


def stall(stores):
    """Feeds the stores with stalls of which one program has most: the Truth."""
    need_live_machine()
    trace = Trace()
    collectds = start_collectds(stores)
    # it begins to fetch seconds after its start
    prometheus = next(store for store in stores if store.NAME == "prometheus")
    wait_for(lambda: len(prometheus.query('collectd_reclaim_count{kind="names"}')) == len(HOSTS),
             "Prometheus to fetch")
    wait_reads(collectds, 1)
    stallers = [Staller([GUILTY.encode()] * 4, 64, 8)]
    wait_reads(collectds, 2)
    stallers += [Staller([b"small"], 64), Staller([b"some"], 64, 3)]
    comms = {}
    for staller in stallers:
        comms.update(staller.comms)
        staller.wait()
    wait_reads(collectds, 3)
    times = [when for collectd in collectds for when, _ in collectd.values("reclaim/count-rows")]
    for collectd in reversed(collectds):
        collectd.stop()
    stalled = collections.Counter()
    for one in trace.stalls():
        stalled[comms.get(one.tid, b"").decode()] += one.duration
    trace.remove()
    harness.LOCK.close()
    return Truth(dict(zip(HOSTS, collectds)), [name for name, _ in stalled.most_common() if name],
                 min(times), max(times))


def wait_reads(collectds, reads):
    """Waits for so many reads of each."""
    for collectd in collectds:
        collectd.wait_reads(reads)


class Board:
    """One dashboard of a store, asked about the time of the stalls."""

    def __init__(self, store, which, folder, truth):
        self.hosts = HOSTS if which == "fleet" else HOSTS[1:]
        self.name, self.store = f"{store.NAME}, {which}", store
        self.dashboard = panels.load(f"{folder}/{store.NAME}-{which}.json")
        self.where = (store.url(""), truth.start - INTERVAL, truth.end + INTERVAL)
        self.host = self.called(HOSTS[1]) if which == "host" else None
        self.asker = panels.Asker(self.dashboard, *self.where, host=self.host)
        self.lines, self.steps = {}, {}
        for panel in self.dashboard["panels"]:
            key = f"{panel['title']} ({panel['type']})"
            self.lines[key] = self.asker.lines(panel)
            self.steps[key] = INTERVAL if store.NAME == "graphite" else self.asker.step(panel)

    def called(self, host):
        """What the store calls a host."""
        return host.replace(".", "_") if self.store.NAME == "graphite" else host

    def first(self):
        """The programs of the table, where one is asked for."""
        asker = panels.Asker(self.dashboard, *self.where, host=self.host, top="1")
        panel = next(panel for panel in self.dashboard["panels"] if panel["title"] == "Programs")
        return [row[-1] for row in asker.lines(panel)]

    def empty(self):
        """The panels that show nothing though they could, or something that is none."""
        return [key for key, lines in self.lines.items()
                if not lines or not all(math.isfinite(value) for points in lines.values()
                                        for _, value in points)]

    def sum(self, key):
        """What the rates of a panel amount to: an answer has a point per step."""
        return sum(map(panels.total, self.lines[key].values())) * self.steps[key]


def grown(truth, board, series):
    """The growth of both kinds that are shown, as a store can know it: Graphite
    has rates, and takes each for one of a whole step."""
    total = 0
    for host, kind in itertools.product(board.hosts, ("direct", "memcg")):
        values = truth.collectds[host].values(series.replace("KIND", kind))
        if board.store.NAME == "graphite":
            total += INTERVAL * sum({
                int(when) // INTERVAL: (value - before) / (when - earlier)
                for (earlier, before), (when, value) in zip(values, values[1:])}.values())
        else:
            total += values[-1][1] - values[0][1]
    return total


def near(store, got, wanted):
    """Whether all is there, and once, but for what a store misses at the edges;
    rate() misses more where Prometheus fetches late, as on a busy machine."""
    return abs(got - wanted) <= wanted * (0.3 if store.NAME == "prometheus" else 0.1)


def longest(truth, board):
    """The longest stall, as a store can know it: of the values of one step
    Graphite keeps the last."""
    steps = {}
    for host, kind in itertools.product(board.hosts, ("direct", "memcg")):
        for when, value in truth.collectds[host].values(f"reclaim/latency-{kind}_total_max"):
            step = int(when) // INTERVAL if board.store.NAME == "graphite" else when
            steps[host, kind, step] = value
    return max(steps.values())


def check(tap, board, truth):
    """One dashboard."""
    name, lines = board.name, board.lines
    missing = [f"{title} (timeseries)" for title, path in NEEDS.items()
               if not os.path.exists(path)]
    tap.equal(set(board.empty()) - set(missing), set(), f"{name}: every panel shows something")
    hosts = sorted(map(board.called, HOSTS))
    tap.equal(board.asker.choices("host"), hosts, f"{name}: the hosts can be chosen")
    tap.equal(board.asker.choices("name"), sorted(truth.ranking), f"{name}: so can programs")
    # InfluxQL has no choice by rank
    wanted = truth.ranking if board.store.NAME == "influxdb" else truth.ranking[:1]
    tap.equal(board.first(), wanted, f"{name}: on top is who stalled most")
    total = grown(truth, board, "reclaim/total_events-KIND_total")
    for key in "Stalls (stat)", "Stalls, by program (timeseries)", "How long stalls last (heatmap)":
        tap.ok(near(board.store, board.sum(key), total), f"{name}: {key} has all stalls, once",
               f"{board.sum(key)}, wanted {total}")
    total = grown(truth, board, "reclaim/total_time_in_ms-KIND_total")
    for key in "Time stalled, by program (timeseries)", "Programs (table)":
        tap.ok(near(board.store, board.sum(key), total), f"{name}: {key} has all the time, once",
               f"{board.sum(key)}, wanted {total}")
    points = {len(points) for points in lines["Programs (table)"].values()}
    tap.ok(len(points) == 1, f"{name}: means of programs are of the same time", points)
    worst = max((value for points in lines["Longest stall (stat)"].values()
                 for _, value in points), default=0)
    tap.ok(math.isclose(worst, longest(truth, board), abs_tol=1e-6),
           f"{name}: the longest stall is that of the csv file",
           f"{worst}, wanted {longest(truth, board)}")
    tap.ok(all(value >= 0 for points in lines["How long stalls last (heatmap)"].values()
               for _, value in points), f"{name}: no bucket has less than no stall")


def check_hosts(tap, board, truth):
    """What only the fleet's dashboard has."""
    hosts = {board.called(host) for host in HOSTS}
    tap.equal(set(board.lines["Time stalled, by host (timeseries)"]), hosts,
              f"{board.name}: time is shown of each host")
    pairs = list(board.lines["Programs on hosts (table)"])
    tap.equal(set(pairs[:2]), {(host, truth.ranking[0]) for host in hosts},
              f"{board.name}: on top is who stalled most, on each host")


def check_psi(tap, board):
    """PSI is shown where the kernel has it."""
    shown = {name for name in board.lines["Time stalled beside PSI (timeseries)"] if "psi" in name}
    wanted = {"psi_some", "psi_full"} if os.path.exists("/proc/pressure/memory") else set()
    tap.equal(shown, wanted, f"{board.name}: PSI is shown where the kernel has it")


def main():
    """Feeds the stores, asks every panel."""
    missing = sorted({package for store in STORES for package in store.missing()})
    if missing:
        skip_all(f"needs Debian packages {' '.join(missing)}")
    tap = Tap()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        subprocess.run([sys.executable, "-B", f"{ROOT}/conf/dashboards/generate",
                        "--interval", str(INTERVAL), folder], check=True)
        stores = [stack.enter_context(store(INTERVAL)) for store in STORES]
        truth = stall(stores)
        tap.equal(truth.ranking[0], GUILTY, "the guilty program stalled most, ftrace says")
        for store in stores:
            for which in "fleet", "host":
                board = Board(store, which, folder, truth)
                check(tap, board, truth)
                if which == "fleet":
                    check_hosts(tap, board, truth)
                else:
                    check_psi(tap, board)
        for collectd in truth.collectds.values():
            collectd.clean()
    tap.done()


if __name__ == "__main__":
    main()
