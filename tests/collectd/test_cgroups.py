#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""GroupBy cgroup against ftrace, in cgroups as systemd makes them, and the
host's own account against what the kernel says."""

import contextlib
import os
import re

from harness import Collectd, Staller, Tap, Trace, need_live_machine, skip_all

CONTAINER = "0123456789abcdef" * 4


def unified_mount():
    """Where the v2 hierarchy is, None where there is none."""
    with open("/proc/self/mounts", encoding="ascii") as file:
        found = re.search(r"^\S+ (\S+) cgroup2 ", file.read(), re.M)
    return found[1] if found else None


@contextlib.contextmanager
def made_cgroups(mount, *paths):
    """Cgroups below the mount, gone afterwards with the folders above them."""
    for path in paths:
        os.makedirs(f"{mount}/{path}", exist_ok=True)
    try:
        yield
    finally:
        for path in paths:
            with contextlib.suppress(OSError):
                os.rmdir(f"{mount}/{path}")
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(f"{mount}/{path}"))


def sums(collectd, name):
    return (collectd.growth(f"reclaim-{name}/total_events-memcg"),
            collectd.growth(f"reclaim-{name}/vmpage_action-memcg"))


def test_names(tap, mount):
    paths = {"reclaim-test.slice/nginx.service": "nginx",
             f"reclaim-test.slice/docker-{CONTAINER}.scope":
                 "docker-0123456789ab"}
    with made_cgroups(mount, *paths):
        trace = Trace()
        collectd = Collectd("GroupBy cgroup\nKinds memcg").start()
        collectd.wait_reads(1)
        wanted = {}
        for path, name in paths.items():
            staller = Staller([b"thread-a", b"thread-b"], 64,
                              home=f"{mount}/{path}")
            staller.wait()
            mine = [stall for stall in trace.stalls() if stall.tid in staller.comms]
            wanted[name] = (len(mine), sum(stall.pages for stall in mine))
        collectd.wait_reads(3)
        for name, (stalls, pages) in wanted.items():
            tap.ok(stalls > 50, f"{stalls} stalls in {name}")
            tap.equal(sums(collectd, name), (stalls, pages),
                      f"{name} has its cgroup's stalls and pages, to the unit")
        total = trace.stalls()
        tap.equal(collectd.growth("reclaim/total_events-memcg_total"), len(total),
                  "the total has all stalls")
        tap.equal(sum(collectd.growth(series) for series in collectd.series()
                      if re.fullmatch(r"reclaim-.*/total_events-memcg", series)),
                  len(total), "and names add up to it")
        tap.equal(collectd.complaints(), [], "and the log has no complaint")
        collectd.stop()
        collectd.clean()
        trace.remove()


def test_gone(tap, mount):
    path = "reclaim-test-short.service"
    with made_cgroups(mount, path):
        collectd = Collectd("GroupBy cgroup\nKinds memcg", interval=5).start()
        collectd.wait_reads(1)
        staller = Staller([b"short"], 64, home=f"{mount}/{path}")
        staller.wait()
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(f"{mount}/{path}")
    collectd.wait_reads(3)
    tap.ok(collectd.growth("reclaim-_gone/total_events-memcg") > 50 or
           collectd.growth("reclaim-reclaim-test-short/total_events-memcg") > 50,
           "a cgroup that is gone when it is asked for is _gone",
           collectd.series())
    collectd.stop()
    collectd.clean()


def test_host(tap):
    collectd = Collectd().start()
    collectd.wait_reads(2)
    collectd.stop()
    with open("/proc/vmstat", encoding="ascii") as file:
        vmstat = {key: int(value) for key, value in map(str.split, file)}
    account = {"allocstall": sum(value for key, value in vmstat.items()
                                 if key.startswith("allocstall")),
               "compact_stall": vmstat.get("compact_stall"),
               "oom_kill": vmstat.get("oom_kill")}
    for name, value in account.items():
        values = collectd.values(f"reclaim/total_events-{name}")
        tap.ok(bool(values) == (value is not None) and
               (not values or value - 10 <= values[-1][1] <= value),
               f"{name} is what /proc/vmstat says", (values[-1:], value))
    has_psi = os.path.exists("/proc/pressure/memory")
    tap.equal(bool(collectd.values("reclaim/total_time_in_ms-psi_some")), has_psi,
              "PSI is there where the kernel has it")
    tap.equal(collectd.values("reclaim/gauge-coverage")[-1][1], 1,
              "coverage is 1 where nothing was missed")
    collectd.clean()

    quiet = Collectd("ReportHost false").start()
    quiet.wait_reads(1)
    quiet.stop()
    tap.equal([series for series in quiet.series()
               if re.search("allocstall|psi|coverage|oom", series)], [],
              "ReportHost false leaves it out")
    quiet.clean()


def main():
    need_live_machine()
    tap = Tap()
    test_host(tap)
    mount = unified_mount()
    if not mount:
        skip_all("needs a cgroup v2 hierarchy")
    test_names(tap, mount)
    test_gone(tap, mount)
    tap.done()


if __name__ == "__main__":
    main()
