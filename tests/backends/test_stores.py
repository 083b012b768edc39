#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What stores have of one run, asked of each in its own way, against what ftrace
saw: by name and in total, to the unit.

Everything is compared series by series; a series is called as collectd's csv files
are, `reclaim-NAME/TYPE-INSTANCE`."""

import collections
import contextlib
import math
import os
import re
import socket

from stores import CSV_HOST, Graphite, InfluxDB, Prometheus, RRDtool, Server

from harness import GAUGES, Collectd, Staller, Tap, Trace, need_live_machine, read_csv, \
    skip_all, wait_for

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
    return {series: [(float(when), float(value)) for when, value in rows]
            for series, rows in read_csv(folder).items()}


def graphite_points(store, since="-1h"):
    """collectd.HOST.reclaim[.NAME].TYPE.INSTANCE"""
    points = {}
    for path, values in store.query(f"collectd.{CSV_HOST}.reclaim.*.*",
                                    f"collectd.{CSV_HOST}.reclaim.*.*.*", since=since).items():
        *name, kind, instance = path.split(".")[3:]
        points["-".join(["reclaim", *name]) + f"/{kind}-{instance}"] = values
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


# What is compared. Of each series: how much the counter grew, as a store can tell, and
# how far that can be off; how many values there are, if all are kept; the largest.
Kept = collections.namedtuple("Kept", "sums off counts longest")
EXACT = collections.Counter()


def graphite_sums(points, csv):
    """Rates times the steps they are of, and how far that can be off: steps are known
    from the csv files' times, which are rounded to ms, and rates to six digits."""
    reads = [when for when, _ in csv["reclaim/count-names"]]
    sums, off = collections.Counter(), collections.Counter()
    for series, values in points.items():
        for when, rate in values:
            read = min(range(len(reads)), key=lambda read: abs(reads[read] - when))
            # A gauge has a point at the first read too, which is of no step.
            step = reads[read] - reads[read - 1] if read else 0
            sums[series] += rate * step
            off[series] += rate * 0.001 + step * 0.5e-6
    return sums, off


def rrdtool_sums(points):
    """Rate times its row's second."""
    return {series: sum(rate for _, rate in rows) for series, rows in points.items()}


def counts_of(points, until):
    """How many values each series has."""
    return {series: sum(when < until for when, _ in values) for series, values in points.items()}


def largest(points):
    """The largest value of each series."""
    return {series: max(value for _, value in values)
            for series, values in points.items() if values}


def arrived(points, until):
    """The points, when they reach until then; else None."""
    reads = points.get("reclaim/count-names", [(0, 0)])
    return points if max(reads)[0] > until else None


def read_store(store, csv, until):
    """What any store kept."""
    if isinstance(store, RRDtool):
        return Kept(rrdtool_sums(rrdtool_points(store, "AVERAGE", csv)), EXACT, {},
                    largest(rrdtool_points(store, "MAX", csv)))
    read = {Server: lambda _: csv_points(f"{store.folder}/data/{CSV_HOST}"),
            Graphite: graphite_points, InfluxDB: InfluxDB.points,
            Prometheus: prometheus_points}[type(store)]
    points = wait_for(lambda: arrived(read(store), until), f"the last read in {store.NAME}")
    if isinstance(store, Graphite):
        return Kept(*graphite_sums(points, csv), {}, largest(points))
    if isinstance(store, Prometheus):
        # It need not have seen the first value.
        return Kept({series: values[-1][1] - csv.get(series, values)[0][1]
                     for series, values in points.items()}, EXACT, {}, largest(points))
    return Kept({series: growth(values) for series, values in points.items()}, EXACT,
                counts_of(points, until), largest(points))


def of_name(values, name):
    """(stalls, pages, ms) of a name, or in total."""
    series, instance = (f"reclaim-{name}", "memcg") if name else ("reclaim", "memcg_total")
    return [values[f"{series}/{kind}-{instance}"] for kind in (STALLS, PAGES, TIME)]


def largest_allowed(store, series, points):
    """The largest value that a store may have of these: Prometheus has what there was
    when it looked, which was often enough to see what went on; the others have all."""
    values = {value for _, value in points}
    if store.NAME != Prometheus.NAME:
        return {max(values)}
    return values - {0} if series.startswith(("reclaim/", "reclaim-steady/")) else values


def check_store(tap, store, kept, csv, until):
    """A store's values against collectd's own csv files."""
    name = store.NAME
    tap.equal(sorted(set(kept.sums) ^ set(csv)), [], f"{name}: no series is lost, none invented")
    if kept.counts:
        tap.equal(set(kept.counts.items()) ^ set(counts_of(csv, until).items()), set(),
                  f"{name}: no value is lost, none invented")
    # PSI goes on between the reads of one store and those of another.
    wanted = {series: growth(values) for series, values in csv.items()
              if series.split("/")[1].split("-")[0] not in GAUGES and "psi_" not in series}
    tap.equal({series: (kept.sums.get(series), grown) for series, grown in wanted.items()
               if abs(kept.sums.get(series, -1) - grown) > 0.001 + kept.off[series]}, {},
              f"{name}: {len(wanted)} counters grew as in collectd")
    wanted = {series: largest_allowed(store, series, values)
              for series, values in csv.items() if "/latency-" in series}
    # write_graphite writes six digits after the point
    tap.equal({series: (kept.longest.get(series), values) for series, values in wanted.items()
               if all(abs(kept.longest.get(series, -1) - value) > 0.51e-6 for value in values)},
              {}, f"{name}: {len(wanted)} longest stalls and percentiles are as in collectd")


def check_truth(tap, name, kept, truth):
    """A store's stalls, pages and ms against ftrace's."""
    names = {series.split("/")[0][len("reclaim-"):] or None for series in kept.sums}
    written = {series: of_name(kept.sums, series) for series in names}
    allowed = {series: of_name(kept.off, series) for series in names}
    wrong = {series: (written[series], truth.get(series)) for series in names
             if series not in truth or any(
                 abs(written[series][i] - truth[series][i]) > 0.001 + allowed[series][i]
                 for i in (0, 1))}
    tap.ok(not wrong and names == set(truth), f"{name}: stalls and pages of each name, and in "
           "total, are ftrace's", f"{wrong}, {set(truth) - names} is not there")
    off = sum(abs(values[2] - truth.get(series, values)[2]) for series, values in written.items())
    # Rounded down to ms, and stamped by ftrace in us, a moment before or after.
    tap.ok(off < len(written) + 0.002 * truth[None][0] + sum(ms for *_, ms in allowed.values()),
           f"{name}: ms too, within 1 ms a series and 2 us a stall",
           f"{off} ms in all: {written}, ftrace {truth}")
    for column, what in enumerate(("stalls", "pages", "ms")):
        seen, total = truth[None][column], written[None][column]
        sum_of_names = sum(values[column] for series, values in written.items() if series)
        tap.note(f"| {name:10} | {what:6} | {seen:9.0f} | {sum_of_names:9.1f} | {total:9.1f} "
                 f"| {total - seen:+6.1f} | {allowed[None][column]:6.1f} |")


def check_rows_of_a_minute(tap, store):
    """What Graphite has left after a day is as much as what it has before."""
    def wrong():
        seconds, minutes = graphite_points(store), graphite_points(store, since="-2d")
        found = {}
        for series, points in seconds.items():
            kind = series.split("/")[1].split("-")[0]
            merge, length = (max, 1) if kind == "latency" else (sum, 60)
            fine, coarse = (merge(value for _, value in rows)
                            for rows in (points, minutes[series]))
            if kind in ("latency", STALLS, PAGES, TIME) and \
                    not math.isclose(fine, length * coarse, rel_tol=1e-9):
                found[series] = fine, length * coarse
        return found
    with contextlib.suppress(TimeoutError):
        wait_for(lambda: not wrong(), "carbon to write")
    tap.equal(wrong(), {}, f"{store.NAME}: rows of a minute have the same stalls in all, "
              "and the longest")


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


def errors(collectd):
    """What it complained of; write_prometheus does at each start, of nothing."""
    return collectd.complaints() + [
        line for line in collectd.log().splitlines()
        if "[error]" in line and "MHD_OPTION_EXTERNAL_LOGGER" not in line]


@contextlib.contextmanager
def running(collectd):
    """collectd, until the end of the block."""
    try:
        yield collectd.start()
    finally:
        collectd.stop()


def observe(stores, tap):
    """Runs collectd with all stores; (its csv, ftrace's stalls, {tid: name})."""
    conf = [store.client_conf() if isinstance(store, Server) else store.collectd_conf()
            for store in stores]
    with contextlib.ExitStack() as stack:
        trace = Trace()
        stack.callback(trace.remove)
        collectd = Collectd(OPTIONS, interval=INTERVAL, more="\n".join(conf))
        stack.callback(collectd.clean)
        with running(collectd):
            for store in stores:
                if isinstance(store, Prometheus):
                    wait_for(lambda: store.query("collectd_load_shortterm"), "a scrape")
            names = load(collectd)
            collectd.wait_reads(2)
            for store in stores:
                shown = store.proof()
                tap.ok(re.search(PROOFS[type(store)], shown, re.M), f"{store.NAME}: its "
                       "collectd.conf has a command that shows what arrived", shown)
        tap.equal(errors(collectd), [], "there is nothing to complain of")
        return csv_points(collectd.csv), trace.stalls(), names


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
        tap.note("| back end   |        |    ftrace | all names |     total | differ | may be |")
        check_truth(tap, "collectd", Kept({series: growth(values) for series, values
                                           in csv.items()}, EXACT, {}, {}), truth)
        # All stalls were over at the read before the last.
        until = csv["reclaim/count-names"][-1][0] - 1.5 * INTERVAL
        for store in stores:
            try:
                kept = read_store(store, csv, until)
            except OSError as error:  # does not answer, or in time
                tap.ok(False, f"{store.NAME}: what came last is there", error)
                continue
            check_store(tap, store, kept, csv, until)
            check_truth(tap, store.NAME, kept, truth)
            if isinstance(store, Graphite):
                check_rows_of_a_minute(tap, store)
            if isinstance(store, Prometheus):
                check_histograms(tap, store, csv)
    tap.done()


main()
