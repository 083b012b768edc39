# SPDX-License-Identifier: MIT
"""What guests can do beside the matrix: how each work's guests are booted, how their
raw files are read, judged and described, and what files they need."""

import collections
import dataclasses
import glob
import os

import debian
import faults
import guest
import lockdown
import services
import waits

# `kinds` of guests have a name and a kernel's command line or CPUs of their own;
# `usual` are (kernel, kind) of those that are booted if nothing is said; `files` are
# patterns below the source tree or the build folder.
Work = collections.namedtuple("Work", "help kinds usual read check describe files")


def _read_services(folder):
    return (services.read_scenes(folder),)


WORKS = {
    "waits": Work(
        "wait for memory in other ways: throttled, in compaction, for many seconds",
        {"waits": {}}, [(kernel, "waits") for kernel in debian.KERNELS],
        waits.read_waits, waits.check_waits, waits.describe, []),
    "systemd": Work(
        "run collectd as a service, with and without the drop-ins of conf/systemd",
        {"systemd": {}}, [("5.10", "systemd"), ("sid", "systemd")],
        _read_services, services.check_scenes, services.describe, ["conf/systemd/*.conf"]),
    "lockdown": Work(
        "run out of memory on a kernel that is locked down",
        {mode: {"append": f"lockdown={mode}"} for mode in lockdown.MODES},
        [("5.10", "confidentiality"), ("sid", "integrity")],
        lockdown.read_lockdown, lockdown.check_lockdown, lockdown.describe, []),
    "faults": Work(
        "stall while CPUs come and go and the clock is set",
        {"faults": {"cpus": 4, "append": "maxcpus=2"}}, [("6.1", "faults"), ("sid", "faults")],
        faults.read_faults, faults.check_faults, faults.describe_faults, []),
    "rates": Work(
        "stall as often as 16 CPUs can",
        {"rates": {"cpus": 16}}, [("6.1", "rates")],  # sid has no cgroups of version 1
        faults.read_rates, faults.check_rates, faults.describe_rates, ["tests/bench/work"]),
}


def choose(work, kernels, changes):
    """The guests of a work, as {label: variant}: the usual ones, or all kinds on each of
    these kernels. `changes` are of a variant's fields."""
    pairs = [(kernel, kind) for kernel in kernels or () for kind in work.kinds] or work.usual
    return {f"{kernel}-{kind}": dataclasses.replace(
        guest.VARIANTS[kernel], **{**work.kinds[kind], **changes}) for kernel, kind in pairs}


def find_files(work, source, build):
    """The files that guests need, and patterns of which there is none."""
    found, missing = [], []
    for pattern in work.files:
        paths = {path for folder in (source, build)
                 for path in glob.glob(os.path.join(folder, pattern))}
        found += sorted(paths)
        missing += [] if paths else [pattern]
    return found, missing
