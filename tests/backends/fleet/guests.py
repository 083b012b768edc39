# SPDX-License-Identifier: MIT
"""Hosts of the fleet that are guests in QEMU (tests/vm), each with a kernel, the
plugin and programs of its own."""

import contextlib
import itertools
import os
import sys
import tempfile
import types

import fleet
from harness import BUILD, read_csv, skip_all, wait_for

VM = f"{fleet.ROOT}/tests/vm"
sys.path.append(VM)

import facts  # noqa: E402  pylint: disable=wrong-import-position
from debian import KERNELS  # noqa: E402  pylint: disable=wrong-import-position
import guest  # noqa: E402  pylint: disable=wrong-import-position
import host  # noqa: E402  pylint: disable=wrong-import-position

# What they run, as words for tests/backends/fleet/guest.
WORDS = {"real-1": "reclaim_light=indexer,nightly-backup",
         "real-2": "reclaim_light=indexer,log-shipper",
         "real-3": "reclaim_light=indexer reclaim_heavy=leaky-batch"}
CULPRITS = ["real-3"]


def collectd_conf(name, port):
    """The configuration of a guest: that of tests/vm, which writes CSV files, with
    conf/backends/fleet/client.conf for its part of the plugin."""
    base = fleet.read_file(f"{VM}/guest/collectd.conf").split("PluginDir")[0]
    return fleet.adapt(
        base + fleet.read_file(f"{fleet.FLEET}/client.conf"),
        ('Hostname "guest"', f'Hostname "{name}"'),
        ('"aggregator.example.net" "25826"', f'"10.0.2.2" "{port}"'),
        ("change-me", fleet.PASSWORD),
        ("LoadPlugin reclaim", 'PluginDir "/job"\nLoadPlugin reclaim'))


class Guests:
    """Some with one of these kernels each, or without kernels none."""

    def __init__(self, kernels, aggregator):
        self.names = list(WORDS) if kernels else []
        self.culprits = CULPRITS if kernels else []
        self.aggregator, self.running, self.results = aggregator, {}, {}
        if kernels:
            self._make(kernels)

    def _make(self, kernels):
        cache = host.cache_folder()
        try:
            guest.prepare(cache, kernels)
        except host.Unavailable as reason:
            skip_all(reason)
        options = types.SimpleNamespace(
            build=BUILD, package=None, accelerator=guest.find_accelerator(
                os.path.join(cache, "kernels", kernels[0], "vmlinuz")))
        for (name, words), kernel in zip(WORDS.items(), itertools.cycle(kernels)):
            variant = guest.Variant(kernel, cpus=1, network=True,
                                    append=f"reclaim_host={name} {words}")
            self.running[name] = guest.Guest(f"fleet-{name}", variant, cache, options)

    def __enter__(self):
        with tempfile.TemporaryDirectory() as folder:
            for name, one in self.running.items():
                with open(f"{folder}/collectd.conf", "w", encoding="ascii") as file:
                    file.write(collectd_conf(name, self.aggregator.port))
                one.start("guest", [f"{folder}/collectd.conf", f"{fleet.HERE}/guest"])
        return self

    def __exit__(self, *_):
        for one in self.running.values():
            one.close()

    def wait_for_values(self, influxdb):
        """Until something of each has arrived."""
        def arrived(name):
            # The database itself is made by the first value.
            with contextlib.suppress(RuntimeError):
                return influxdb.query(
                    f"SELECT last(value) FROM reclaim_value WHERE host = '{name}'")
            return []
        for name in self.names:
            wait_for(lambda name=name: arrived(name), f"{name} to send", guest.TIMEOUT_S)

    def wait(self):
        """Until all are off; returns the last words of those that failed."""
        for name, one in self.running.items():
            wait_for(one.ended, f"{name} to power off", guest.TIMEOUT_S + 10)
            self.results[name] = one.results()
        return [f"{name}: {one.last_words()}" for name, one in self.running.items()
                if not self.results[name]]

    def check(self, tap, influxdb):
        """What each wrote itself, and what ftrace saw there, is what arrived."""
        for name, folder in self.results.items():
            wrote = read_csv(f"{folder}/csv/{name}")
            arrived = influxdb.points(f"WHERE host = '{name}'")
            tap.equal(difference(wrote, arrived), [],
                      f"each value that {name} wrote has arrived, and no others")
            trace = facts.parse_trace(facts.read_file(folder, "trace"))["memcg"].counts
            last = {key: arrived[f"reclaim/{key}-memcg_total"][-1][1]
                    for key in ("total_events", "vmpage_action")}
            tap.ok(trace.stalls > 0, f"programs stall on {name}")
            tap.equal(last, {"total_events": trace.stalls, "vmpage_action": trace.pages},
                      f"the stalls and pages of {name} are those that ftrace saw")


def difference(wrote, arrived):
    """The series that are not alike: {series: [(s, value)]} as text of CSV files,
    which is rounded to ms and, of gauges, to six digits; and the same as numbers."""
    def alike(csv_values, values):
        return len(csv_values) == len(values) and all(
            abs(float(when) - exact) <= 0.001 and abs(float(text) - value) < 1e-6
            for (when, text), (exact, value) in zip(csv_values, values))
    return [(key, wrote.get(key), arrived.get(key)) for key in sorted({*wrote, *arrived})
            if not alike(wrote.get(key, ()), arrived.get(key, ()))]
