#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The alerts of conf/alerts, each provoked in a running collectd and Prometheus,
and seen to end. Limits are as shipped; times are seconds instead of minutes."""

import contextlib
import errno
import glob
import json
import os
import re
import shutil
import subprocess
import tempfile

from stores import ENCODING, ROOT, Prometheus, free_port

from harness import BUILD, CSV_HOST, Collectd, Staller, Tap, need_live_machine, skip_all, wait_for

ALERTS = f"{ROOT}/conf/alerts"
# Commands of bpf(2), include/uapi/linux/bpf.h
BPF_MAP_UPDATE_ELEM = 2
BPF_RAW_TRACEPOINT_OPEN = 17
PORT = free_port()
# Reads that fail are tried again ever later, but not so late
RETRY = "MaxReadInterval 2\n"
NOTIFICATION = re.compile(
    rf"Notification: severity = (\w+), host = {CSV_HOST}, plugin = reclaim, "
    r"(?:plugin_instance = (\S+), )?type = (\w+), type_instance = (\w+), message = (.*)")
with open(f"{ALERTS}/threshold.conf", **ENCODING) as shipped:
    THRESHOLD = shipped.read()


class AlertingPrometheus(Prometheus):
    """With the shipped alerts, ten seconds of which are one."""

    RULES = "prometheus-rules.yml"
    TIMES = (("interval: (10s|1m|5m)", "interval: 1s"), ("firing_for: 5m", "firing_for: 3s"),
             ("for: 1m", "for: 2s"), ("for: 30s", "for: 3s"), (r"\[(1m|50s)\]", "[5s]"))

    def __init__(self, interval=1):
        super().__init__(interval)
        with open(f"{ALERTS}/{self.RULES}", **ENCODING) as handle:
            rules = handle.read()
        for shipped, short in self.TIMES:
            rules = re.sub(shipped, short, rules)
        with open(f"{self.folder}/conf/{self.RULES}", "w", **ENCODING) as handle:
            handle.write(rules)

    def firing(self, alert="", **labels):
        """Alerts of this name, or all, that fire and have these labels."""
        found = json.loads(self.ask("/api/v1/alerts"))["data"]["alerts"]
        labels.update({"alertname": alert} if alert else {})
        return [one for one in found if one["state"] == "firing"
                and labels.items() <= one["labels"].items()]


def told(collectd):
    """What the threshold plugin said last of each series of this host: {series:
    (severity, message)}; those of names have a name and / in front."""
    return {f"{name and f'{name}/'}{kind}-{instance}": (severity, message)
            for severity, name, kind, instance, message in NOTIFICATION.findall(collectd.log())}


def last_told(collectd, series):
    """The severity that was told last of a series; None before."""
    return told(collectd).get(series, (None,))[0]


def network(line):
    """collectd's network plugin, with this option."""
    return f"\nLoadPlugin network\n<Plugin network>\n{line}\n</Plugin>\n"


@contextlib.contextmanager
def running(collectd):
    """A collectd from its start to its end; its folder goes too."""
    try:
        yield collectd.start()
    finally:
        if collectd.process and not collectd.has_ended():
            collectd.stop()
        collectd.clean()


class Host(contextlib.ExitStack):
    """collectd with the threshold plugin's alerts, and what can be made to go wrong:
    while the file `switch` exists, or always by another fault, calls of bpf() fail."""

    def __init__(self, prometheus, options="", fault=None):
        super().__init__()
        self.prometheus = prometheus
        self.folder = tempfile.mkdtemp(prefix="reclaim-alerts-")
        self.switch = f"{self.folder}/reads-fail"
        self.set_allocstall(0)
        more = prometheus.collectd_conf() + THRESHOLD + RETRY + \
            network(f'Server "127.0.0.1" "{PORT}"')
        fault = fault or f"{BPF_MAP_UPDATE_ELEM} {errno.EPERM} {self.switch}"
        self.collectd = Collectd(f"ReportMaximum true\n{options}", more=more, prefix=(
            "unshare", "--mount", "sh", "-c",
            f"mount --bind {self.folder}/vmstat /proc/vmstat && exec \"$@\"", "sh",
            "env", f"LD_PRELOAD={BUILD}/tests/collectd/.libs/faults.so", f"RECLAIM_FAULT={fault}"))

    def __enter__(self):
        with contextlib.ExitStack() as started:
            started.callback(shutil.rmtree, self.folder)
            started.enter_context(running(self.collectd))
            self.push(started.pop_all())
        return self

    def set_allocstall(self, stalls):
        """What collectd takes for the kernel's count of direct stalls."""
        with open(f"{self.folder}/vmstat", "w", encoding="ascii") as handle:
            handle.write(f"allocstall_normal {1000 + stalls}\n")

    def bad(self):
        """What is not OKAY by the threshold plugin."""
        return {series: message for series, (severity, message) in told(self.collectd).items()
                if severity != "OKAY"}

    def programs(self, name):
        """The ids of collectd's BPF programs of this name."""
        held = set()
        for path in glob.glob(f"/proc/{self.collectd.process.pid}/fdinfo/*"):
            with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii") as file:
                held.update(map(int, re.findall(r"^prog_id:\s*(\d+)", file.read(), re.M)))
        listing = subprocess.run(["bpftool", "-j", "prog", "list"], check=True, capture_output=True)
        return [str(program["id"]) for program in json.loads(listing.stdout)
                if program.get("name") == name and program["id"] in held]

    @contextlib.contextmanager
    def stalled(self, kind, comm):
        """A task that is in one stall meanwhile."""
        command = [f"{BUILD}/tests/backends/long_staller",
                   *self.programs(f"{kind}_begin"), *self.programs(f"{kind}_end"), comm]
        with subprocess.Popen(command, stdin=subprocess.PIPE):
            yield


def comes(condition, seconds=30):
    """Whether condition() becomes true in time."""
    with contextlib.suppress(TimeoutError):
        return wait_for(condition, "an alert", seconds)
    return False


def check_calm(tap, host, when):
    """All alerts end, or there was none."""
    tap.ok(comes(lambda: not host.bad() and not host.prometheus.firing()),
           f"{when}, there is no alert", (host.bad(), host.prometheus.firing()))


def check_both(tap, host, series, severities, alert, **labels):
    """An alert by the threshold plugin on a series, and one by Prometheus, of which
    the annotations are returned."""
    tap.ok(comes(lambda: last_told(host.collectd, series) in severities),
           f"threshold: {series} is a {' or '.join(severities)}", told(host.collectd))
    firing = comes(lambda: host.prometheus.firing(alert, **labels))
    tap.ok(firing, f"Prometheus: {' '.join([alert, *labels.values()])} fires",
           host.prometheus.query('{__name__=~"collectd_reclaim.*",comm=""}'))
    return firing[0]["annotations"] if firing else {"programs": ""}


def test_not_attached(tap, prometheus):
    """One kind is not there, and the kernel counts stalls of it."""
    fault = f"{BPF_RAW_TRACEPOINT_OPEN} {errno.ENOENT} direct"
    with Host(prometheus, "Kinds direct memcg", fault) as host:
        check_both(tap, host, "gauge-attached_direct", ["WARNING"],
                   "ReclaimNotAttached", kind="direct")
        tap.ok(set(host.bad()) == {"gauge-attached_direct"}
               and not prometheus.firing("ReclaimNotAttached", kind="memcg"),
               "and nothing else is told: the other kind is attached", host.bad())
        host.set_allocstall(100)
        comes(lambda: "gauge-coverage" in host.bad())
        low = [value for _, value in host.collectd.values("reclaim/gauge-coverage") if value < 0.95]
        tap.ok(len(low) >= 3, "threshold: Hits 1 waits for the third value", low)
        check_both(tap, host, "gauge-coverage", ["WARNING"], "ReclaimCoverageLow")
        host.set_allocstall(0)
        tap.ok(comes(lambda: "gauge-coverage" not in host.bad()
                     and not prometheus.firing("ReclaimCoverageLow")),
               "both end when what was counted is what the kernel counts", host.bad())


def test_calm(tap, host):
    """All limits have their series, and keep still."""
    limits = set(re.findall(r'<Type "(\w+)">\s+Instance "(\w+)"', THRESHOLD))
    wanted = {"-".join(limit) for limit in limits if not limit[1].startswith("node")}
    host.collectd.wait_reads(4)
    wait_for(lambda: host.prometheus.query('collectd_reclaim_count{kind="rows"}'), "Prometheus")
    tap.equal(wanted - set(told(host.collectd)), set(), "each limit of threshold.conf has a series")
    check_calm(tap, host, "with all kinds attached")


def test_cgroup_stalls(tap, host):
    """Real ones, of eight threads that share a small cgroup."""
    staller = Staller([b"greedy"] * 8, 32, seconds=10)
    try:
        said = check_both(tap, host, "total_time_in_ms-memcg_total", ["WARNING", "FAILURE"],
                          "ReclaimCgroupStalls", kind="memcg")
        tap.ok(said["programs"].startswith("greedy "), "and names the program", said)
    finally:
        staller.wait()
    check_calm(tap, host, "when the program is gone")


def test_long_stalls(tap, host):
    """Two that last: the BPF programs run as the kernel does, the kernel does not stall."""
    seen = int(host.collectd.values("reclaim/total_events-direct_total")[-1][1])
    with host.stalled("direct", "stuck-direct"), host.stalled("memcg", "stuck-memcg"):
        host.set_allocstall(seen + 1)
        for kind in "direct", "memcg":
            said = check_both(tap, host, f"duration-{kind}_total_oldest", ["FAILURE"],
                              "ReclaimStuck", kind=kind)
            tap.ok(said["programs"].startswith(f"stuck-{kind} "), "and names the program", said)
            check_both(tap, host, f"latency-{kind}_total_max", ["WARNING"],
                       "ReclaimLongStall", kind=kind)
        check_both(tap, host, "total_time_in_ms-direct_total", ["FAILURE"],
                   "ReclaimHostStalls", kind="direct", severity="critical")
        coverage = host.collectd.values("reclaim/gauge-coverage")
        tap.ok(coverage[-1][1] >= 1, "a direct stall under way is one that is seen", coverage)
        tap.equal([series for series in told(host.collectd) if "/" in series], [],
                  "threshold: limits are for totals, no name has any")
    check_calm(tap, host, "when these stalls end")


def test_failing_reads(tap, host):
    """The plugin is there and has nothing to say."""
    with open(host.switch, "w", encoding="ascii"):
        check_both(tap, host, "count-rows", ["FAILURE"], "ReclaimAbsent", instance="testhost")
    tap.equal(set(host.bad()), {"count-rows"}, "one series tells of it, not each")
    os.unlink(host.switch)
    check_calm(tap, host, "when reads succeed again")


def test_stopped(tap, host):
    """What a server with the same limits and Prometheus say of a collectd that ends."""
    listen = network(f'Listen "127.0.0.1" "{PORT}"')
    with running(Collectd(more=f'Hostname "server"\n{listen}{THRESHOLD}')) as server:
        tap.ok(comes(lambda: last_told(server, "count-rows") == "OKAY"),
               "threshold on a server: count-rows is OKAY", server.log())
        host.collectd.stop()
        tap.ok(comes(lambda: last_told(server, "count-rows") == "FAILURE"),
               "threshold on a server: count-rows is a FAILURE when collectd is stopped",
               server.log())
        for alert in "ReclaimCollectdDown", "ReclaimAbsent":
            tap.ok(comes(lambda alert=alert: host.prometheus.firing(alert)),
                   f"Prometheus: so does {alert}", host.prometheus.firing())


def main():
    need_live_machine()
    missing = Prometheus.missing()
    if missing:
        skip_all(f"needs Debian's packages {' '.join(missing)}")
    tap = Tap()
    with AlertingPrometheus() as prometheus:
        test_not_attached(tap, prometheus)
        with Host(prometheus) as host:
            test_calm(tap, host)
            test_cgroup_stalls(tap, host)
            test_long_stalls(tap, host)
            test_failing_reads(tap, host)
            test_stopped(tap, host)
    tap.done()


main()
