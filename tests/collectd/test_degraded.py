#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What collectd does when the plugin cannot do its work, each cause provoked
for real: the daemon and its other plugins live on, and one message tells what
happened, why, and what to do."""

import errno
import os
import re
import shutil
import statistics
import subprocess
import tempfile

from harness import (BUILD, TRACING, Collectd, Staller, Tap, bpf_objects,
                     need_live_machine, wait_for)

KERNEL_BTF = "/sys/kernel/btf/vmlinux"
WITHOUT_OWN_BTF = ("unshare", "-m", "sh", "-c",
                   f'mount -t tmpfs none {os.path.dirname(KERNEL_BTF)} && exec "$@"', "sh")
NO_BPF = ("setpriv", "--bounding-set=-bpf,-perfmon,-sys_admin",
          "--inh-caps=-bpf,-perfmon,-sys_admin")

BAD_OPTIONS = [
    ("Kinds kswapd", "must be some of direct, memcg, memcg_proactive, node, "
     "compact, throttle"),
    ("GroupBy pod", "must be one of comm, process, cgroup"),
    ("Fold 1", "must be true or false"),
    ('Name "a.b"', "nothing can have this name"),
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
    ("EventThreshold 0", "must be one number of seconds from 0.000001 to 3600"),
    ("EventsPerInterval 0", "must be one whole number from 1 to 10000"),
    ('BTF "vmlinux"', "must be the absolute path of one BTF file"),
    ("ReportHost 1", "must be true or false"),
    ("MaxName 3", "unknown option"),
]


HOST = {"reclaim/gauge-coverage", "reclaim/total_time_in_ms-psi_some",
        "reclaim/total_time_in_ms-psi_full"} | {
            f"reclaim/total_events-{what}"
            for what in ("allocstall", "compact_stall", "oom_kill")}


def last_value(collectd, series):
    values = collectd.values(series)
    return values[-1][1] if values else None


def check_other_plugins(tap, collectd, when):
    before = len(collectd.values("load/load"))
    collectd.wait_reads(2, "load/load")
    tap.ok(len(collectd.values("load/load")) >= before + 2,
           f"{when}, collectd's other plugins go on")


def check_version(tap, collectd, when):
    """The version, once, as the terminal tool of the same build has it."""
    tool = subprocess.run([f"{BUILD}/reclaimsnoop", "--version"], check=True,
                          capture_output=True, text=True).stdout
    tap.equal(re.findall("reclaim plugin: version (.*)", collectd.log()), tool.split()[1:],
              f"{when}, the log has the plugin's version")


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
    rest = [series for series in collectd.series() if "attached" not in series]
    tap.equal([series for series in rest if series not in HOST], [],
              f"{when}, nothing is invented")
    tap.ok("reclaim/total_events-allocstall" in rest,
           f"{when}, the host's own account goes on")
    check_other_plugins(tap, collectd, when)
    check_version(tap, collectd, when)
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
    """The kernel's own BTF; and as a file, where the kernel seems to have none."""
    folder = tempfile.mkdtemp()
    copied = f"{folder}/copied"
    shutil.copyfile(KERNEL_BTF, copied)
    for file, prefix in (KERNEL_BTF, ()), (copied, WITHOUT_OWN_BTF):
        collectd = Collectd(f'BTF "{file}"\n GroupBy process', prefix=prefix).start()
        collectd.wait_reads(1)
        staller = Staller([b"a-thread"], 96, leader=b"leader")
        staller.wait()
        collectd.wait_reads(2)
        tap.ok(collectd.growth("reclaim-leader/total_events-memcg") > 100 and
               not collectd.complaints(), f"{os.path.basename(file)} is taken "
               "as BTF, and task_struct read by it", collectd.log())
        collectd.stop()
        collectd.clean()
    shutil.rmtree(folder)


# Commands of bpf(2), include/uapi/linux/bpf.h
BPF_MAP_UPDATE_ELEM = 2
BPF_MAP_CREATE = 0
BPF_PROG_LOAD = 5
BPF_RAW_TRACEPOINT_OPEN = 17
BPF_MAP_LOOKUP_AND_DELETE_BATCH = 25


def with_fault(command, error, file):
    """A prefix for collectd that makes one command of bpf() fail."""
    return ("env", f"LD_PRELOAD={BUILD}/tests/collectd/.libs/faults.so",
            f"RECLAIM_FAULT={command} {error} {file}")


def test_without_memory(tap):
    check_without_bpf(
        tap, Collectd(prefix=with_fault(BPF_MAP_CREATE, errno.ENOMEM, "/")),
        "without kernel memory",
        ["Cannot allocate memory", "a smaller MaxTracked (4096)"])


def test_refused_by_a_security_module(tap):
    check_without_bpf(
        tap, Collectd(prefix=with_fault(BPF_PROG_LOAD, errno.EACCES, "/")),
        "with a security module against it",
        ["Permission denied", "CAP_BPF", "the leave of a security module"])


def test_old_kernel(tap):
    check_without_bpf(
        tap, Collectd(prefix=with_fault(BPF_MAP_LOOKUP_AND_DELETE_BATCH,
                                        errno.EINVAL, "/")),
        "without batch operations",
        ["Invalid argument", "reclaim needs Linux 5.10 or later"])


def test_missing_tracepoint(tap):
    fault = with_fault(BPF_RAW_TRACEPOINT_OPEN, errno.ENOENT, "direct")
    for options, severity, gauge in (("", "info", None),
                                     ("Kinds direct memcg", "warning", 0)):
        collectd = Collectd(options, prefix=fault).start()
        collectd.wait_reads(2)
        tap.ok(f"[{severity}] reclaim plugin: this kernel has no tracepoint "
               "vmscan:mm_vmscan_direct_reclaim_end: stalls of kind direct "
               "are not counted" in collectd.log(),
               f"a tracepoint that is missing is told as {severity}",
               collectd.log())
        tap.equal([last_value(collectd, f"reclaim/gauge-attached_{kind}")
                   for kind in ("direct", "memcg")], [gauge, 1],
                  "only who names it wants it; the other kind is attached")
        staller = Staller([b"memcg-only"], 96)
        staller.wait()
        collectd.wait_reads(2)
        tap.ok(collectd.growth("reclaim-memcg-only/total_events-memcg") > 100,
               "and counted")
        collectd.stop()
        collectd.clean()


def test_no_task_struct(tap):
    """As under lockdown=confidentiality, the object that reads is refused."""
    fault = with_fault(BPF_PROG_LOAD, errno.EPERM, "once")
    collectd = Collectd("GroupBy process\nKinds direct memcg compact",
                        prefix=fault).start()
    collectd.wait_reads(2)
    lines = collectd.complaints()
    tap.ok(len(lines) == 1 and "[warning]" in lines[0] and
           "does not let BPF programs read its memory" in lines[0] and
           ", GroupBy is comm, stalls of kind compact are not" in lines[0],
           "without kernel memory to read there is one warning", "\n".join(lines))
    staller = Staller([b"thread-name"], 96, leader=b"leader")
    staller.wait()
    collectd.wait_reads(2)
    tap.ok(collectd.growth("reclaim-thread-name/total_events-memcg") > 100,
           "and names go on, by comm")
    collectd.stop()
    collectd.clean()


def test_reads_that_fail(tap):
    """The maps cannot be read for a while; nothing is lost."""
    for command, error in ((BPF_MAP_UPDATE_ELEM, errno.EPERM),
                           (BPF_MAP_LOOKUP_AND_DELETE_BATCH, errno.EPERM)):
        folder = tempfile.mkdtemp()
        switch = f"{folder}/fails"
        collectd = Collectd(prefix=with_fault(command, error, switch)).start()
        collectd.wait_reads(2)
        with open(switch, "w", encoding="ascii"):
            check_other_plugins(tap, collectd, f"while bpf({command}) fails")
        staller = Staller([b"meanwhile"], 96)
        staller.wait()
        wait_for(lambda: "cannot read the BPF maps" in collectd.log(), "a read that fails")
        os.unlink(switch)
        collectd.wait_reads(3)  # the table that was closed already goes first
        log = collectd.log()
        tap.ok("[error] reclaim plugin: cannot read the BPF maps: Operation "
               "not permitted; nothing is lost yet" in log and
               "reclaim plugin: the BPF maps can be read again" in log,
               "it is told when it begins and when it ends", log)
        tap.ok(collectd.growth("reclaim-meanwhile/total_events-memcg") > 100,
               "what stalled meanwhile is counted afterwards")
        collectd.stop()
        collectd.clean()
        shutil.rmtree(folder)


def test_each_kind_alone(tap):
    collectd = Collectd("Kinds memcg").start()
    collectd.wait_reads(1)
    staller = Staller([b"alone"], 96)
    staller.wait()
    collectd.wait_reads(2)
    tap.ok(collectd.growth("reclaim-alone/total_events-memcg") > 100 and
           collectd.growth("reclaim/total_events-memcg_total") > 100 and
           not collectd.values("reclaim/total_events-direct_total"),
           "Kinds memcg counts memcg alone")
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


def test_without_cgroups_v2(tap):
    """In a mount namespace that has no such hierarchy."""
    script = 'umount --lazy --all --types cgroup2 && exec "$@"'
    collectd = Collectd("GroupBy cgroup",
                        prefix=("unshare", "-m", "sh", "-c", script, "sh")).start()
    check_other_plugins(tap, collectd, "without cgroups v2")
    errors = "\n".join(collectd.complaints())
    tap.ok("GroupBy cgroup needs a cgroup v2 hierarchy, and none is mounted" in errors,
           "GroupBy cgroup is refused, and told why", errors)
    tap.equal(collectd.series(), [], "and the plugin does not start")
    collectd.stop()
    collectd.clean()


def test_calm_host(tap):
    collectd = Collectd(plugin_block=False).start()
    collectd.wait_reads(6)
    tap.equal(collectd.complaints(), [], "a calm host has no complaints")
    tap.ok(re.search("reclaim plugin: attached: direct memcg( memcg_proactive)? compact "
                     "throttle[^;]*; two tables of 4096 rows, ", collectd.log()),
           "one line says what is attached")
    check_version(tap, collectd, "on a calm host")
    times = [when for when, _ in
             collectd.values("reclaim/total_events-direct_total")]
    gaps = [b - a for a, b in zip(times, times[1:])]
    tap.ok(statistics.median(gaps) < 1.5,
           "reads without stalls are not failures: they are not put off", gaps)
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
    test_without_memory(tap)
    test_refused_by_a_security_module(tap)
    test_old_kernel(tap)
    test_missing_tracepoint(tap)
    test_no_task_struct(tap)
    test_reads_that_fail(tap)
    test_each_kind_alone(tap)
    test_without_tracefs(tap)
    test_without_cgroups_v2(tap)
    test_calm_host(tap)
    test_good_configuration_check(tap)
    test_bad_options(tap)
    test_bad_option_in_the_daemon(tap)
    tap.equal(bpf_objects() - before, set(),
              "after all that, no BPF object is left")
    tap.done()


main()
