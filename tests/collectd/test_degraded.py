#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What collectd does when the plugin cannot do its work, each cause provoked
for real: the daemon and its other plugins live on, and one message tells what
happened, why, and what to do."""

import shutil
import tempfile

from harness import (TRACING, Collectd, Staller, Tap, bpf_objects,
                     need_live_machine)

NO_BPF = ("setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin",
          "--inh-caps=-bpf,-perfmon,-sys_admin")

BAD_OPTIONS = [
    ("Kinds compact", "must be some of direct, memcg, node"),
    ("GroupBy cgroup", "must be one of comm, process"),
    ("Fold 1", "must be true or false"),
    ('Name "a.b"', "no task can have this name"),
    ('Name "/(/"', "must be a POSIX extended regular expression"),
    ("IgnoreSelected maybe", "must be true or false"),
    ("MaxNames 0", "must be one whole number from 1 to 1000"),
    ("MaxTracked 63", "must be one whole number from 64 to 65536"),
    ("IdleIntervals 1", "must be one whole number from 2 to 100000"),
    ("NewNamesPerHour 0", "must be one whole number from 1 to 100000"),
    ("ReportFruitless 3", "must be true or false"),
    ("ReportMaximum 3", "must be true or false"),
    ("Histogram all", "must be one of none, total, names"),
    ("Percentile 100", "must be one number from 1 to 99.9"),
    ('BTF "vmlinux"', "must be the absolute path of one BTF file"),
    ("ReportHost true", "unknown option"),
    ("MaxName 3", "unknown option"),
]


def last_value(collectd, series):
    values = collectd.values(series)
    return values[-1][1] if values else None


def check_other_plugins(tap, collectd, when):
    before = len(collectd.values("load/load"))
    collectd.wait_reads(2, "load/load")
    tap.ok(len(collectd.values("load/load")) >= before + 2,
           f"{when}, collectd's other plugins go on")


def check_without_bpf(tap, collectd, when, wanted):
    """One ERROR with each of the `wanted` pieces, gauges at 0, no totals."""
    collectd.start()
    collectd.wait_reads(2, "reclaim/gauge-attached_direct")
    errors = collectd.complaints()
    tap.ok(len(errors) == 1 and "[error]" in errors[0] and
           all(piece in errors[0] for piece in wanted),
           f"{when}, one error tells cause and cure", "\n".join(errors))
    tap.equal([last_value(collectd, f"reclaim/gauge-attached_{kind}")
               for kind in ("direct", "memcg")], [0, 0],
              f"{when}, gauge-attached_* is 0")
    tap.equal([series for series in collectd.series()
               if "attached" not in series], [], f"{when}, nothing is invented")
    check_other_plugins(tap, collectd, when)
    tap.equal(collectd.stop(), 0, f"{when}, collectd ends as always")
    collectd.clean()


def test_without_capabilities(tap):
    check_without_bpf(
        tap, Collectd(prefix=NO_BPF), "without capabilities",
        ["cannot load BPF programs: Operation not permitted", "CAP_BPF",
         "CAP_PERFMON", "README, Capabilities"])


def test_bogus_btf(tap):
    folder = tempfile.mkdtemp()
    bogus = f"{folder}/btf"
    with open(bogus, "wb") as file:
        file.write(b"no BTF at all")
    check_without_bpf(
        tap, Collectd(f'BTF "{bogus}"'), "with a file that is no BTF",
        [f"cannot read the kernel's types from {bogus}",
         "CONFIG_DEBUG_INFO_BTF", "README, BTF"])
    check_without_bpf(
        tap, Collectd(f'BTF "{folder}/absent"'), "without the BTF file",
        [f"cannot read the kernel's types from {folder}/absent: "
         "No such file or directory"])
    shutil.rmtree(folder)


def test_given_btf(tap):
    collectd = Collectd('BTF "/sys/kernel/btf/vmlinux"').start()
    collectd.wait_reads(1, "reclaim/gauge-attached_memcg")
    tap.equal(last_value(collectd, "reclaim/gauge-attached_memcg"), 1,
              "a BTF file that fits is taken")
    collectd.stop()
    collectd.clean()


def test_without_tracefs(tap):
    """In a mount namespace that has no tracefs."""
    script = f"umount {TRACING} && [ ! -e {TRACING}/events ] && exec \"$@\""
    collectd = Collectd(prefix=("unshare", "-m", "sh", "-c", script, "sh"))
    collectd.start()
    collectd.wait_reads(1)
    staller = Staller([b"no-tracefs"], 96)
    staller.wait()
    collectd.wait_reads(2)
    tap.ok(collectd.growth("reclaim-no-tracefs/total_events-memcg") > 100,
           "stalls are counted without tracefs", collectd.log())
    tap.equal(collectd.complaints(), [], "and without complaint")
    collectd.stop()
    collectd.clean()


def test_calm_host(tap):
    collectd = Collectd(plugin_block=False).start()
    collectd.wait_reads(3)
    tap.equal(collectd.complaints(), [], "a calm host has no complaints")
    tap.ok("reclaim plugin: attached: direct memcg; two tables of 4096 rows, "
           in collectd.log(), "one line says what is attached")
    times = [when for when, _ in
             collectd.values("reclaim/total_events-direct_total")]
    tap.ok(len(times) >= 3 and max(b - a for a, b in
                                   zip(times, times[1:])) < 1.5,
           "reads without stalls are not failures: none is put off", times)
    tap.equal(last_value(collectd, "reclaim/total_events-memcg_total"), 0,
              "totals are there, and 0")
    tap.equal([series for series in collectd.series()
               if series.startswith("reclaim-")], [], "no name is")
    collectd.stop()
    collectd.clean()


def test_bad_options(tap):
    for option, reason in BAD_OPTIONS:
        check = Collectd(option)
        tap.ok(check.run_once() != 0, f"collectd -T dislikes `{option}'")
        check.clean()
        collectd = Collectd(option).start()
        errors = collectd.complaints()
        tap.ok(errors and reason in errors[0] and
               f"block <Plugin reclaim>, option `{option.split()[0]} " in
               errors[0], f"because it {reason}", "\n".join(errors))
        tap.ok(collectd.values("load/load") and not collectd.series() and
               not collectd.has_ended(),
               "the daemon reads load beside it, and nothing of the plugin")
        collectd.stop()
        collectd.clean()


def test_bad_option_in_the_daemon(tap):
    collectd = Collectd("MaxNames 0\nFold 7").start()
    check_other_plugins(tap, collectd, "with bad options")
    errors = collectd.complaints()
    tap.equal([piece in "\n".join(errors) for piece in
               ("`MaxNames 0'", "`Fold 7'", "not started")], [True] * 3,
              "each bad option is named")
    tap.equal(collectd.series(), [], "the plugin does not start")
    collectd.stop()
    collectd.clean()


def test_good_configuration_check(tap):
    collectd = Collectd("Kinds direct\nName java\nPercentile 99")
    tap.equal(collectd.run_once(), 0, "collectd -T likes good options")
    collectd.clean()


def main():
    need_live_machine()
    before = bpf_objects()
    tap = Tap()
    test_without_capabilities(tap)
    test_bogus_btf(tap)
    test_given_btf(tap)
    test_without_tracefs(tap)
    test_calm_host(tap)
    test_good_configuration_check(tap)
    test_bad_options(tap)
    test_bad_option_in_the_daemon(tap)
    tap.equal(bpf_objects() - before, set(),
              "after all that, no BPF object is left")
    tap.done()


main()
