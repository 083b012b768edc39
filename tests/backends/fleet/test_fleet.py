#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A fleet of 50 hosts, seven of which have the same culprit: all send, encrypted,
to one aggregator, which feeds InfluxDB and Graphite. One query of each finds the
culprit and its hosts, and nothing is lost on the way.

Recorded values stand in for hosts. With --guests, three of them are guests in QEMU
(tests/vm) with the plugin, each with a kernel and programs of its own."""

import argparse
import collections
import contextlib
import time

import fleet
import guests
from harness import Tap, skip_all, wait_for
from stores import Graphite, InfluxDB

HOSTS, CULPRIT_HOSTS, CULPRIT = 50, 7, "leaky-batch"
READS = 25
CALM, BUSY = f"{fleet.HERE}/calm.txt", f"{fleet.HERE}/culprit.txt"

Fleet = collections.namedtuple("Fleet", "aggregator influxdb graphite")


def growth(where, *groups):
    """InfluxQL: how much counters grew, added up over what is not in groups."""
    return (f"SELECT sum(growth) AS growth FROM (SELECT spread(value) AS growth "
            f"FROM reclaim_value WHERE {where} GROUP BY host, instance, type_instance) "
            f"GROUP BY {', '.join(groups)}")


def by_tag(series, tag):
    """{tag: value} of what `growth` finds."""
    return {one["tags"][tag]: one["values"][0][1] for one in series}


class Replayed:
    """The hosts of a recording."""

    def __init__(self, aggregator, path, prefix, hosts, start):
        self.names = fleet.hosts_of(prefix, hosts)
        self.recording = fleet.Recording(path, READS)
        self.replay = fleet.Replay(aggregator, path, prefix, hosts, READS, start)
        self.sent = None

    def wait(self):
        """Until all is sent."""
        self.sent = self.replay.wait()


def check_strangers(tap, fleet_, start):
    """Who does not know the password, or sends in the clear, is not heard."""
    fleet.Replay(fleet_.aggregator, CALM, "stranger", 1, 1, start, password="wrong").wait()
    fleet.Replay(fleet_.aggregator, CALM, "stranger", 1, 1, start, security="none").wait()
    for behaviour, words in (
            ("a wrong password is told in the aggregator's log",
             f"network plugin: Checksum mismatch. Username: {fleet.USER}"),
            ("so is what is not encrypted",
             "network plugin: Unencrypted packet or part has been ignored")):
        with contextlib.suppress(TimeoutError):
            wait_for(lambda words=words: words in fleet_.aggregator.log(), words, 60)
        tap.ok(words in fleet_.aggregator.log(), behaviour, fleet_.aggregator.log())


def count_points(influxdb, where):
    """How many values InfluxDB has. Durations are apart: the type's data source
    is `seconds`."""
    series = influxdb.query(f"SELECT count(value) FROM /^reclaim_/ WHERE {where}")
    return sum(one["values"][0][1] for one in series)


def check_influxdb(tap, influxdb, replayed):
    """Each value that was sent for replayed hosts is there, to the unit."""
    for one in replayed:
        where = f"host =~ /^{one.names[0][:-5]}\\d+$/"
        with contextlib.suppress(TimeoutError):
            wait_for(lambda where=where, one=one:
                     count_points(influxdb, where) >= one.sent.values, "InfluxDB", 60)
        tap.equal(count_points(influxdb, where), one.sent.values,
                  f"InfluxDB has each value of {len(one.names)} hosts")
        for kind in "total_events", "total_time_in_ms":
            found = by_tag(influxdb.query(growth(
                f"{where} AND type = '{kind}' AND type_instance = 'memcg'", "instance")),
                "instance")
            truth = {name: value * len(one.names)
                     for name, value in one.recording.programs(f"{kind}-memcg").items()}
            tap.equal(found, truth, f"sums of {kind} are those that were sent")


def check_graphite(tap, graphite, replayed):
    """Rates of replayed hosts, added up, are the growth of what was sent. Their
    times are an interval apart to the microsecond, so each has a point."""
    for one in replayed:
        targets = {name: f"sumSeries(collectd.{one.names[0][:-5]}*.reclaim.{name}."
                         "total_events.memcg)"
                   for name in one.recording.programs("total_events-memcg")}
        truth = {name: value * len(one.names)
                 for name, value in one.recording.programs("total_events-memcg").items()}

        def found(targets=targets):
            points = graphite.query(*targets.values())
            return {name: round(sum(value for _, value in points.get(target, ())))
                    for name, target in targets.items()}
        with contextlib.suppress(TimeoutError):
            wait_for(lambda found=found, truth=truth: found() == truth, "Graphite", 120)
        tap.equal(found(), truth, f"rates in Graphite of {len(one.names)} hosts add up")


def find_culprit(tap, fleet_, hosts):
    """One query a store for the program, and one for its hosts."""
    top = fleet_.influxdb.query(
        "SELECT top(growth, instance, 3) FROM ("
        + growth("type = 'total_time_in_ms' AND instance != '' AND host != 'fleet'",
                 "instance") + ")")
    names = [row[one["columns"].index("instance")] for one in top for row in one["values"]]
    tap.equal(names[:1], [CULPRIT], "the culprit is first of InfluxDB's programs")
    found = by_tag(fleet_.influxdb.query(growth(
        f"type = 'total_time_in_ms' AND instance = '{CULPRIT}'", "host")), "host")
    tap.equal(sorted(found), sorted(hosts), "InfluxDB names its hosts, and no others")

    top = fleet_.graphite.query(
        "sortByTotal(groupByNode(collectd.*.reclaim.*.total_time_in_ms.*, 3, 'sum'))")
    tap.equal(list(top)[:1], [CULPRIT], "the culprit is first of Graphite's programs")
    found = fleet_.graphite.query(
        f"groupByNode(collectd.*.reclaim.{CULPRIT}.total_time_in_ms.*, 1, 'sum')")
    tap.equal(sorted(found), sorted(hosts), "Graphite names its hosts, and no others")


def on_time(points, interval):
    """The longest stretch in which one point came after another as they should:
    a late sum has two values of a host."""
    best = stretch = points[:1]
    for before, point in zip(points, points[1:]):
        punctual = 0.7 < (point[0] - before[0]) / interval < 1.3
        stretch = stretch + [point] if punctual else [point]
        best = max(best, stretch, key=len)
    return best


def check_sums(tap, fleet_):
    """The aggregator's sum over the fleet grows as what hosts sent. It is made of
    rates, and of whole intervals: the first and last can be on either side."""
    answer = fleet_.influxdb.query(
        "SELECT value FROM aggregation_value WHERE host = 'fleet' AND instance = 'sum' "
        "AND type = 'total_events' AND type_instance = 'memcg_total'")
    points = on_time([(when / 1e9, value) for one in answer for when, value in one["values"]],
                     fleet_.aggregator.interval)
    if not tap.ok(len(points) >= 5, "the aggregator makes sums on time",
                  f"{len(points)} points"):
        return
    (begin, first), (end, last) = points[0], points[-1]

    def truth(begin, end):
        return sum(by_tag(fleet_.influxdb.query(growth(
            "type = 'total_events' AND type_instance = 'memcg_total' AND host != 'fleet' "
            f"AND time >= {int(begin * 1e9)} AND time <= {int(end * 1e9)}", "host")),
            "host").values())
    low, high = truth(begin + 1, end - 2) * 0.95, truth(begin - 2, end) * 1.05
    tap.ok(low <= last - first <= high and high > 0,
           "the aggregator's sum over the fleet grows as what hosts sent",
           f"{last - first} is not from {low} to {high}")
    answer = fleet_.influxdb.query(
        "SELECT last(value) FROM aggregation_value WHERE host = 'fleet' "
        "AND type = 'total_time_in_ms' AND type_instance = 'memcg' GROUP BY instance")
    tap.ok(f"{CULPRIT}-sum" in by_tag(answer, "instance"),
           "it has a sum of the culprit's as well", answer)


def run_fleet(tap, fleet_, real):
    """Plays the fleet, and judges what arrived."""
    real.wait_for_values(fleet_.influxdb)
    start = int(time.time()) + 0.003  # no host's times are those where a point ends
    busy = CULPRIT_HOSTS - len(real.culprits)
    replayed = [Replayed(fleet_.aggregator, CALM, "web", HOSTS - busy - len(real.names), start),
                Replayed(fleet_.aggregator, BUSY, "batch", busy, start)]
    tap.equal(len(real.names) + sum(len(one.names) for one in replayed), HOSTS,
              f"the fleet has {HOSTS} hosts, {len(real.names)} of them with a kernel")
    check_strangers(tap, fleet_, start)
    for one in replayed:
        one.wait()
    tap.equal(real.wait(), [], "each guest does its work and powers off")
    check_influxdb(tap, fleet_.influxdb, replayed)
    check_graphite(tap, fleet_.graphite, replayed)
    find_culprit(tap, fleet_, real.culprits + replayed[1].names)
    check_sums(tap, fleet_)
    real.check(tap, fleet_.influxdb)
    arrived = fleet_.influxdb.query("SHOW TAG VALUES FROM reclaim_value WITH KEY = host")
    tap.equal(sorted(host for _, host in arrived[0]["values"]),
              sorted(real.names + replayed[0].names + replayed[1].names),
              "nobody else's values arrived")
    tap.equal(fleet_.aggregator.socket()[1], 0, "the kernel dropped no packet")


def main():
    """Plays the fleet; ends with Tap's exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guests", nargs="+", metavar="KERNEL", choices=guests.KERNELS,
                        help=f"of {', '.join(guests.KERNELS)}; three guests share them")
    options = parser.parse_args()
    reason = fleet.missing() or "".join(
        f"needs the Debian package {package}"
        for store in (InfluxDB, Graphite) for package in store.missing()[:1])
    if reason:
        skip_all(reason)
    tap = Tap()
    with contextlib.ExitStack() as stack:
        influxdb = stack.enter_context(InfluxDB())
        graphite = stack.enter_context(Graphite())
        aggregator = stack.enter_context(fleet.Aggregator())
        aggregator.start(aggregator.as_shipped(influxdb.ports[25826], graphite.ports[2003]))
        real = stack.enter_context(guests.Guests(options.guests, aggregator))
        run_fleet(tap, Fleet(aggregator, influxdb, graphite), real)
    tap.done()


if __name__ == "__main__":
    main()
