#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What stores have of one run, asked of each in its own way, against what ftrace
saw: by name and in total, to the unit.

Everything is compared series by series; a series is called as collectd's csv files
are, `reclaim-NAME/TYPE-INSTANCE`."""

import collections
import contextlib
import glob
import os
import re
import socket

from stores import CSV_HOST, Graphite, InfluxDB, Prometheus, RRDtool, Server

from harness import Collectd, Staller, Tap, Trace, need_live_machine, skip_all, wait_for

# write_graphite and rrdtool know whole seconds only, and a read can be late.
INTERVAL = 3
OPTIONS = """Kinds memcg
MaxNames 1000
NewNamesPerHour 100000
ReportMaximum true
ReportFruitless true
Histogram names
Percentile 99"""

# What stores choke on, names that fall together, and names that look like ours.
HOSTILE = {b"../x\n%s\xff/1": "x__s", b"a.b": "a_b", b"a_b": "a_b", b"a:b": "a_b",
           b";tag=1": "tag_1", b'{comm="x"}': "comm__x", b"_gone": "gone",
           b"_other": "other", b"memcg_total": "memcg_total", b"*": "unknown",
           b"total_events": "total_events", b"fifteen-bytes-x": "fifteen-bytes-x"}
# What the command below `Did it arrive?` prints when it did: a name and a number.
PROOFS = {Server: rf"/{CSV_HOST}/reclaim/count-rows-.* <==\n[\d.]+,[\d.]+$",
          RRDtool: rf"/{CSV_HOST}/reclaim/count-rows.rrd\n value\n\n\d+: \d+$",
          Graphite: rf'"collectd\.{CSV_HOST}\.reclaim\.count\.rows".*\[\d+\.\d+, \d+\]',
          InfluxDB: rf'"host":"{CSV_HOST}".*"values":\[\["[^"]+",\d+\]\]',
          Prometheus: rf'"instance":"{CSV_HOST}".*"value":\[[\d.]+,"\d+"\]'}
STALLS, PAGES, TIME = "total_events", "vmpage_action", "total_time_in_ms"
GAUGES = ("count", "duration", "gauge", "latency", "pending_operations")
SECONDS = dict(zip(  # the label `le` of each bound
    "1e-05 3e-05 0.0001 0.0003 0.001 0.003 0.01 0.03 0.1 0.3 1 3 10 +Inf".split(),
    "10us 30us 100us 300us 1ms 3ms 10ms 30ms 100ms 300ms 1s 3s 10s inf".split()))


def load(collectd):
    """Programs of chosen names, one of them shorter than an interval; {tid: name}."""
    names = {}
    collectd.wait_reads(1)
    short = Staller([b"short-lived"], 64)
    short.wait()
    steady = Staller([b"steady"], 64, seconds=6)
    hostile = Staller(list(HOSTILE), 32)
    hostile.wait()
    steady.wait()
    for staller in short, steady, hostile:
        names.update({tid: HOSTILE.get(comm, comm.decode(errors="replace"))
                      for tid, comm in staller.comms.items()})
    return names


def truth_of(stalls, names):
    """{name: (stalls, pages, ms)}; of all names together under None."""
    sums = collections.defaultdict(lambda: [0, 0, 0.0])
    for stall in stalls:
        if stall.kind != "memcg":
            continue
        for name in names.get(stall.tid, "?"), None:
            sums[name][0] += 1
            sums[name][1] += stall.pages
            sums[name][2] += stall.duration * 1e3
    return {name: tuple(values) for name, values in sums.items()}


def growth(points):
    """Of a counter from its first point to its last."""
    return points[-1][1] - points[0][1]


# What each store has: {series: [(time in s, value)]}

def csv_points(folder):
    """collectd's csv files."""
    points = collections.defaultdict(list)
    for path in sorted(glob.glob(f"{folder}/reclaim*/*")):
        series = "/".join(path.split("/")[-2:])[:-len("-2000-01-01")]
        with open(path, encoding="ascii") as handle:
            points[series] += [tuple(map(float, line.split(","))) for line in
                               handle.readlines()[1:]]
    return points


def graphite_points(store):
    """collectd.HOST.reclaim[.NAME].TYPE.INSTANCE"""
    points = {}
    for path, values in store.query(f"collectd.{CSV_HOST}.reclaim.*.*",
                                    f"collectd.{CSV_HOST}.reclaim.*.*.*").items():
        *name, kind, instance = path.split(".")[3:]
        points["-".join(["reclaim", *name]) + f"/{kind}-{instance}"] = values
    return points


def influxdb_points(store):
    """Measurement reclaim_SOURCE, tags instance, type, type_instance."""
    points = {}
    for series in store.query("SELECT value FROM /^reclaim_/ GROUP BY *"):
        tags = series["tags"]
        name = f"-{tags['instance']}" if tags.get("instance") else ""
        points[f"reclaim{name}/{tags['type']}-{tags['type_instance']}"] = [
            (when / 1e9, value) for when, value in series["values"]]
    return points


def prometheus_points(store):
    """collectd_reclaim_TYPE[_seconds][_total]{comm, kind, le}"""
    points = {}
    for series in store.query('{__name__=~"collectd_reclaim_.+"}[15m]'):
        labels = series["metric"]
        kind = labels["__name__"][len("collectd_reclaim_"):]
        kind = kind.removesuffix("_seconds").removesuffix("_total")
        name = f"-{labels['comm']}" if "comm" in labels else ""
        bound = f"_le_{SECONDS[labels['le']]}" if "le" in labels else ""
        known = {"__name__", "instance", "job", "comm", "kind", "le"}
        other = "".join(sorted(set(labels) - known))
        points[f"reclaim{name}/{kind}-{labels['kind']}{bound}{other}"] = [
            (when, float(value)) for when, value in series["values"]]
    return points


def rrdtool_points(store, function, csv):
    """One consolidation function's rows."""
    since = int(min(points[0][0] for points in csv.values())) - INTERVAL
    return {series[len(CSV_HOST) + 1:]: rows
            for series, rows in store.rows(function, since).items()
            if series.startswith(f"{CSV_HOST}/reclaim")}


# How much a counter grew, as each store can tell: {series: growth}

def graphite_sums(points, csv):
    """Rate times the step it is of. The csv files have times as exact as a ms. All
    values of one read have one time: how long a step was exactly is known from the
    rate of the total's pages, and must be what the csv files have within that ms."""
    pages, steps = csv[f"reclaim/{PAGES}-memcg_total"], {}
    for when, rate in points[f"reclaim/{PAGES}-memcg_total"]:
        read = min(range(1, len(pages)), key=lambda read: abs(pages[read][0] - when))
        took, grown = (pages[read][i] - pages[read - 1][i] for i in (0, 1))
        steps[when] = grown / rate if rate else took
        if abs(steps[when] - took) > 0.001 + 1e-6:
            raise ValueError(f"a step of {took} s has the rate of one of {steps[when]} s")
    # A gauge has a point at the first read too, which is of no step.
    return {series: sum(rate * steps.get(when, 0) for when, rate in values)
            for series, values in points.items()}


def rrdtool_sums(points):
    """Rate times its row's second."""
    return {series: sum(rate for _, rate in rows) for series, rows in points.items()}


def counter_sums(points, csv):
    """Counters are kept as they are. (Prometheus need not have seen the first value.)"""
    return {series: values[-1][1] - csv.get(series, values)[0][1]
            for series, values in points.items()}


def arrived(points, until):
    """The points, when they reach until then; else None."""
    reads = points.get("reclaim/count-names", [(0, 0)])
    return points if max(reads)[0] > until else None


def read_store(store, csv):
    """({series: growth}, {series: longest}) of any store."""
    if isinstance(store, RRDtool):
        rates = rrdtool_points(store, "AVERAGE", csv)
        longest = rrdtool_points(store, "MAX", csv)
        return rrdtool_sums(rates), {name: max(value for _, value in rows)
                                          for name, rows in longest.items() if rows}
    read = {Server: lambda _: csv_points(f"{store.folder}/data/{CSV_HOST}"),
            Graphite: graphite_points, InfluxDB: influxdb_points,
            Prometheus: prometheus_points}[type(store)]
    # All stalls were over at the read before the last.
    until = csv["reclaim/count-names"][-1][0] - 1.5 * INTERVAL
    points = wait_for(lambda: arrived(read(store), until), f"the last read in {store.NAME}")
    sums = (graphite_sums if isinstance(store, Graphite) else counter_sums)(points, csv)
    return sums, {name: max(value for _, value in values) for name, values in points.items()}


def by_name(sums):
    """{name: (stalls, pages, ms)}, the total under None."""
    names = {series.split("/")[0] for series in sums}
    return {name[len("reclaim-"):] or None:
            tuple(round(sums[f"{name}/{kind}-memcg{'' if name[7:] else '_total'}"])
                  for kind in (STALLS, PAGES, TIME)) for name in names}


def check_store(tap, name, sums, longest, csv):
    """A store's values against collectd's own csv files."""
    tap.equal(sorted(set(sums) ^ set(csv)), [], f"{name}: no series is lost, none invented")
    # PSI goes on between the reads of one store and those of another.
    wanted = {series: growth(values) for series, values in csv.items()
              if series.split("/")[1].split("-")[0] not in GAUGES and "psi_" not in series}
    tap.equal({series: (sums.get(series), grown) for series, grown in wanted.items()
               if abs(sums.get(series, -1) - grown) > 0.001}, {},
              f"{name}: {len(wanted)} counters grew as in collectd")
    # Of a gauge, Prometheus has what there was when it looked, the others all.
    wanted = {series: [value for _, value in values] if name == Prometheus.NAME else
              [max(value for _, value in values)]
              for series, values in csv.items() if "/latency-" in series}
    # write_graphite writes six digits after the point
    tap.equal({series: (longest.get(series), values) for series, values in wanted.items()
               if all(abs(longest.get(series, -1) - value) > 0.51e-6 for value in values)},
              {}, f"{name}: {len(wanted)} longest stalls and percentiles are as in collectd")


def check_truth(tap, name, written, truth):
    """A store's stalls, pages and ms against ftrace's."""
    tap.equal({name: values[:2] for name, values in written.items()},
              {name: values[:2] for name, values in truth.items()},
              f"{name}: stalls and pages of each name, and in total, are ftrace's")
    off = sum(abs(values[2] - truth.get(series, values)[2]) for series, values in written.items())
    # Rounded down to ms, and stamped by ftrace in us, a moment before or after.
    tap.ok(off < len(written) + 0.002 * truth[None][0], f"{name}: ms too, within 1 ms a "
           "series and 2 us a stall", f"{off} ms in all: {written}, ftrace {truth}")
    names = [values for series, values in written.items() if series]
    for column, what in enumerate(("stalls", "pages", "ms")):
        seen, total = truth[None][column], written[None][column]
        tap.note(f"| {name:10} | {what:6} | {seen:9.0f} | "
                 f"{sum(values[column] for values in names):9} | {total:9} | "
                 f"{total - seen:+6.1f} |")


def check_histograms(tap, store, csv):
    """The highest quantile is the least bound that all stalls of a name are within."""
    answer = store.query("histogram_quantile(1, last_over_time("
                         "collectd_reclaim_total_operations_total{comm!=''}[15m]))")
    wanted = {}
    for series, points in csv.items():
        name, is_bound, bound = series.partition("/total_operations-memcg_le_")
        if is_bound and growth(points) == growth(csv[f"{name}{is_bound}inf"]):
            label = next(label for label, text in SECONDS.items() if text == bound)
            wanted[name] = min(float(label), wanted.get(name, float("inf")))
    tap.equal({f"reclaim-{series['metric']['comm']}": float(series["value"][1])
               for series in answer}, wanted, f"{store.NAME}: histogram_quantile() works")


def observe(stores, tap):
    """Runs collectd with all stores; (its csv, ftrace's stalls, {tid: name})."""
    trace = Trace()
    conf = [store.client_conf() if isinstance(store, Server) else store.collectd_conf()
            for store in stores]
    collectd = Collectd(OPTIONS, interval=INTERVAL, more="\n".join(conf)).start()
    try:
        for store in stores:
            if isinstance(store, Prometheus):
                wait_for(lambda: store.query("collectd_load_shortterm"), "a scrape")
        names = load(collectd)
        collectd.wait_reads(2)
        for store in stores:
            shown = store.proof()
            tap.ok(re.search(PROOFS[type(store)], shown, re.M), f"{store.NAME}: its "
                   "collectd.conf has a command that shows what arrived", shown)
    finally:
        collectd.stop()
        stalls = trace.stalls()
        trace.remove()
    csv = csv_points(collectd.csv)
    tap.equal(collectd.complaints(), [], "there is nothing to complain of")
    collectd.clean()
    return csv, stalls, names


def check_taken_port(tap):
    """carbon's port is taken: Graphite must not run on without it."""
    store, said = Graphite(), ""
    with socket.create_server(("127.0.0.1", store.ports[2003])):
        try:
            with store:  # graphite-web may answer before carbon ends
                wait_for(lambda: store.process.poll() is not None, "Graphite to end")
                said = store.log()
        except (RuntimeError, TimeoutError) as error:
            said = str(error)
    tap.ok("Address already in use" in said, "graphite: says why it cannot start", said)
    tap.ok(not os.path.exists(store.folder) and not store.answers(), "and leaves nothing behind")


def need_stores(tap):
    """The stores that are there."""
    missing = {store: store.missing() for store in
               (Server, RRDtool, Graphite, InfluxDB, Prometheus)}
    there = [store for store, packages in missing.items() if not packages]
    reasons = {store.NAME: f"needs {' '.join(packages)} (Debian packages)"
               for store, packages in missing.items() if packages}
    if reasons and (os.environ.get("CI") == "true" or not there):
        skip_all("; ".join(f"{name} {reason}" for name, reason in reasons.items()))
    for name, reason in reasons.items():
        tap.ok(True, f"{name} # SKIP {reason}")
    return there


def main():
    need_live_machine()
    tap = Tap()
    there = need_stores(tap)
    if Graphite in there:
        check_taken_port(tap)
    with contextlib.ExitStack() as stack:
        # carbon: steps of a second, so that no two reads fall into one
        stores = [stack.enter_context(store(1 if store is Graphite else INTERVAL))
                  for store in there]
        csv, stalls, names = observe(stores, tap)
        truth = truth_of(stalls, names)
        tap.ok(set(names.values()) <= set(truth) | {"staller"} and len(stalls) > 1000,
               "each program stalled", sorted(map(str, truth)))
        tap.note("| back end   |        |    ftrace | all names |     total | difference |")
        check_truth(tap, "collectd", by_name(counter_sums(csv, csv)), truth)
        for store in stores:
            try:
                sums, longest = read_store(store, csv)
            except (OSError, ValueError) as error:
                tap.ok(False, f"{store.NAME}: what came last is there", error)
                continue
            check_store(tap, store.NAME, sums, longest, csv)
            check_truth(tap, store.NAME, by_name(sums), truth)
            if isinstance(store, Prometheus):
                check_histograms(tap, store, csv)
    tap.done()


main()
