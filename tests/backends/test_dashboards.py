#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The dashboards at work: every panel of each, asked of the real store, which three
hosts feed; ftrace and the csv files say what is true. All hosts are this
machine: they have the same stalls, and a fleet has three times as many."""

import collections
import contextlib
import itertools
import json
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

# The values of all but the first come by way of it, but for InfluxDB. The name of the
# second, taken for a pattern, is that of the first as well.
HOSTS = ("db2-example", "db2.example", "testhost")
KINDS = ("direct", "memcg")

Truth = collections.namedtuple("Truth", "collectds ranking start end")


def start_collectds(stores):
    """A collectd of each host."""
    port, found = free_port(), []
    network = '<Plugin network>\n  {} "127.0.0.1" "{}"\n</Plugin>'
    first = [store.collectd_conf() for store in stores] + [network.format("Listen", port)]
    others = [store.collectd_conf() for store in stores if store.NAME == "influxdb"] + [
        network.format("Server", port)]
    for harness.CSV_HOST, more in zip(HOSTS, (first, others, others)):
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
        self.hosts = HOSTS if which == "fleet" else HOSTS[1:2]
        self.name, self.store = f"{store.NAME}, {which}", store
        self.dashboard = panels.load(f"{folder}/{store.NAME}-{which}.json")
        self.where = (store.url(""), truth.start - INTERVAL, truth.end + INTERVAL)
        self.host = self.called(HOSTS[1]) if which == "host" else None
        self.asker = self.ask()
        self.panels = {f"{panel['title']} ({panel['type']})": panel
                       for panel in self.dashboard["panels"]}
        self.lines = {key: self.asker.lines(panel) for key, panel in self.panels.items()}

    def ask(self, **values):
        """Who asks with these values of variables; with all programs, also of others
        that stall on this machine, if not told otherwise."""
        return panels.Asker(self.dashboard, *self.where,
                            **{"host": self.host, "top": "50", **values})

    def called(self, host):
        """What the store calls a host."""
        return host.replace(".", "_") if self.store.NAME == "graphite" else host

    def table(self, key, **values):
        """The names of a table's rows."""
        return list(self.ask(**values).lines(self.panels[key]))

    def programs(self, asker):
        """The names in each panel that has a line per program."""
        return {key: set(asker.lines(panel)) for key, panel in self.panels.items()
                if "this program" in json.dumps(panel) and panel["type"] == "timeseries"}

    def empty(self):
        """The panels that show nothing though they could, or something that is none."""
        return [key for key, lines in self.lines.items()
                if not lines or not all(math.isfinite(value) for points in lines.values()
                                        for _, value in points)]

    def sum(self, key, asker=None):
        """What the rates of a panel amount to: an answer has a point per step."""
        lines = asker.lines(self.panels[key]) if asker else self.lines[key]
        step = self.asker.step(self.panels[key])
        return sum(map(panels.total, lines.values())) * (
            INTERVAL if self.store.NAME == "graphite" else step)


def grown(truth, board, series, hosts=None, kinds=KINDS):
    """The growth of the kinds that are shown, as a store can know it: Graphite
    has rates, and takes each for one of a whole step."""
    total = 0
    for host, kind in itertools.product(hosts or board.hosts, kinds):
        values = truth.collectds[host].values(series.replace("KIND", kind))
        if not values:      # a name that did not stall in this way
            continue
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
    for host, kind in itertools.product(board.hosts, KINDS):
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
    tap.equal(set(truth.ranking) - set(board.asker.choices("name")), set(),
              f"{name}: so can programs")
    first = board.table("Programs (table)", name=truth.ranking, top="1")
    tap.equal(first[:1], [(truth.ranking[0],)], f"{name}: on top is who stalled most")
    # InfluxQL has no choice by rank
    tap.ok(board.store.NAME == "influxdb" or len(first) == 1, f"{name}: alone, if so chosen")
    total = grown(truth, board, "reclaim/total_events-KIND_total")
    for key in "Stalls (stat)", "Stalls, by program (timeseries)", "How long stalls last (heatmap)":
        tap.ok(near(board.store, board.sum(key), total), f"{name}: {key} has all stalls, once",
               f"{board.sum(key)}, wanted {total}")
    total = grown(truth, board, "reclaim/total_time_in_ms-KIND_total")
    for key in "Time stalled, by program (timeseries)", "Programs (table)":
        tap.ok(near(board.store, board.sum(key), total), f"{name}: {key} has all the time, once",
               f"{board.sum(key)}, wanted {total}")
    got = 1000 * board.sum("Tasks stalled on average (stat)")
    tap.ok(near(board.store, got, total), f"{name}: so many tasks stalled on average",
           f"{got}, wanted {total}")
    points = {len(points) for key in ("Programs (table)", "Tasks stalled on average (stat)")
              for points in lines[key].values()}
    tap.ok(len(points) == 1, f"{name}: means of programs and of all are of the same time", points)
    worst = max((value for points in lines["Longest stall (stat)"].values()
                 for _, value in points), default=0)
    tap.ok(math.isclose(worst, longest(truth, board), abs_tol=1e-6),
           f"{name}: the longest stall is that of the csv file",
           f"{worst}, wanted {longest(truth, board)}")
    buckets = lines["How long stalls last (heatmap)"]
    tap.ok(all(value >= 0 for points in buckets.values() for _, value in points),
           f"{name}: no bucket has less than no stall")
    # as Grafana orders them
    ends = [float(bucket) for bucket in buckets if not bucket.endswith("s")]
    tap.ok(len(ends) == len(buckets) and ends == sorted(set(ends)) and math.inf in ends,
           f"{name}: names of buckets are numbers that ascend", list(buckets))


def check_choice(tap, board, truth):
    """What is not chosen is not shown."""
    asker = board.ask(name=[GUILTY])
    names = board.programs(asker)
    tap.ok(names and set().union(*names.values()) == {GUILTY},
           f"{board.name}: one program alone", names)
    for type_, key in ("total_time_in_ms", "Time stalled, by program (timeseries)"), (
            "total_events", "Stalls, by program (timeseries)"):
        got = board.sum(key, asker)
        wanted = grown(truth, board, f"reclaim-{GUILTY}/{type_}-KIND")
        tap.ok(near(board.store, got, wanted), f"{board.name}: {key} has all of it, once",
               f"{got}, wanted {wanted}")
    got = board.sum("Stalls (stat)", board.ask(kind=["memcg"]))
    wanted = grown(truth, board, "reclaim/total_events-KIND_total", kinds=["memcg"])
    tap.ok(near(board.store, got, wanted), f"{board.name}: one kind has all its stalls",
           f"{got}, wanted {wanted}")
    got = board.sum("Stalls (stat)", board.ask(kind=["memcg_proactive"]))
    tap.equal(got, 0, f"{board.name}: a kind that did not occur has none")


def check_fleet(tap, board, truth):
    """What only the fleet's dashboard has."""
    hosts = {board.called(host) for host in HOSTS}
    time = "Time stalled, by host (timeseries)"
    tap.equal(set(board.lines[time]), hosts, f"{board.name}: time is shown of each host")
    pairs = board.table("Programs on hosts (table)", name=truth.ranking)
    tap.equal(set(pairs[:len(HOSTS)]), {(host, truth.ranking[0]) for host in hosts},
              f"{board.name}: on top is who stalled most, on each host")
    for some in HOSTS[1:], HOSTS[1:2]:
        asker = board.ask(host=[board.called(host) for host in some])
        tap.equal(set(asker.lines(board.panels[time])), set(map(board.called, some)),
                  f"{board.name}: {len(some)} of {len(HOSTS)} hosts alone")
        got = board.sum("Stalls (stat)", asker)
        wanted = grown(truth, board, "reclaim/total_events-KIND_total", some)
        tap.ok(near(board.store, got, wanted), f"{board.name}: with all their stalls, once",
               f"{got}, wanted {wanted}")


def check_pending(tap, board, truth):
    """Tasks stalled now are as many as were read of each kind, or of both."""
    read = [{value for _, value in truth.collectds[board.hosts[0]].values(
        f"reclaim/pending_operations-{kind}_total")} for kind in KINDS]
    for form, wanted in ("stat", {sum(both) for both in itertools.product(*read)}), (
            "timeseries", set().union(*read)):
        shown = {value for points in board.lines[f"Tasks stalled now ({form})"].values()
                 for _, value in points}
        # of two reads Prometheus has one point, the last
        some = max(wanted) == 0 or max(shown) > 0 or board.store.NAME == "prometheus"
        tap.ok(some and shown <= wanted,
               f"{board.name}: as many tasks are stalled now ({form}) as the csv file has",
               f"{shown}, wanted some of {wanted}")


def check_host(tap, board, truth):
    """What only a host's dashboard has."""
    shown = {name for name in board.lines["Time stalled beside PSI (timeseries)"] if "psi" in name}
    wanted = {"psi_some", "psi_full"} if os.path.exists("/proc/pressure/memory") else set()
    tap.equal(shown, wanted, f"{board.name}: PSI is shown where the kernel has it")
    got = board.sum("Pages reclaimed by the stalled (timeseries)")
    wanted = grown(truth, board, "reclaim/vmpage_action-KIND_total")
    tap.ok(near(board.store, got, wanted), f"{board.name}: all pages are shown, once",
           f"{got}, wanted {wanted}")
    check_pending(tap, board, truth)
    asker = board.ask(kind=["memcg"])
    tap.equal([set(asker.lines(board.panels[f"{title} (timeseries)"])) for title in (
        "Tasks stalled now", "Oldest stall under way", "Attached")],
        [{"memcg_total"}, {"memcg_total_oldest"}, {"attached_memcg"}],
        f"{board.name}: one kind alone")


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
                check_choice(tap, board, truth)
                (check_fleet if which == "fleet" else check_host)(tap, board, truth)
        for collectd in truth.collectds.values():
            collectd.clean()
    tap.done()


if __name__ == "__main__":
    main()
