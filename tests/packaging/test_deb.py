#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The Debian package: built twice, looked at, then installed, used, upgraded, removed
and purged in a Debian of its own."""

import argparse
import glob
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [os.path.join(HERE, "../collectd"), os.path.join(HERE, "../vm")]

import harness
from chroot import Chroot
from harness import Staller, Tap, need_live_machine, skip_all, wait_for
from host import Unavailable, run, tail
from package import check_build, version

COMMANDS = {"dpkg-buildpackage": "dpkg-dev", "dh": "debhelper", "lintian": "lintian",
            "mmdebstrap": "mmdebstrap", "readelf": "binutils"}
CONFFILE = "/etc/collectd/collectd.conf.d/reclaim.conf"
PLUGIN = "/usr/lib/collectd/reclaim.so"
DOC = "/usr/share/doc/collectd-reclaim"
# Read before Debian's other files below collectd.conf.d.
OURS = "/etc/collectd/collectd.conf.d/00-test.conf"
OUR_CONF = """Hostname "testhost"
Interval 1
LoadPlugin logfile
<Plugin logfile>
  LogLevel info
  File "/tmp/log"
</Plugin>
LoadPlugin csv
<Plugin csv>
  DataDir "/tmp/csv"
  StoreRates false
</Plugin>
"""


def need_machine():
    """Skips where the package cannot be made and tried; returns the suite's name."""
    system = platform.freedesktop_os_release()
    if system["ID"] != "debian" or "VERSION_CODENAME" not in system:
        skip_all("needs a release of Debian")
    missing = [package for command, package in COMMANDS.items()
               if not shutil.which(command)]
    if missing:
        skip_all(f"packages are missing: {' '.join(missing)}")
    need_live_machine()
    harness.LOCK.close()  # What is built meanwhile needs no silence.
    return system["VERSION_CODENAME"]


# Making it

def make_deb(build, umask, surroundings):
    """Runs make deb in a build folder and returns its log."""
    done = subprocess.run(["make", "-C", build, "deb"], check=False, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          umask=umask, env={**os.environ, **surroundings})
    if done.returncode != 0:
        raise RuntimeError(f"make deb failed:\n{tail(done.stdout, 30)}")
    return done.stdout


def build_again(build, folder):
    """Another build folder, of the tarball that the first one makes."""
    run("make", "-C", build, "dist")
    name = f"collectd-reclaim-{version()}"
    run("tar", "-xzf", f"{build}/{name}.tar.gz", "-C", folder)
    again = os.path.join(folder, "some/where/else")
    os.makedirs(again)
    run(f"{folder}/{name}/configure", "-q", cwd=again)
    return again


def make_both(build, folder):
    """Two packages, made at different times, places, and in other surroundings: the first
    one's log, and the second one's build folder."""
    again = build_again(build, folder)
    other = {"TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "DEB_BUILD_OPTIONS": "nocheck"}
    with ThreadPoolExecutor() as pool:
        log, _ = pool.map(make_deb, (build, again), (0o022, 0o077), ({}, other))
    return log, again


def deb_of(build):
    """The package in a build folder."""
    deb, = glob.glob(f"{build}/deb/collectd-reclaim_*.deb")
    return deb


def read(path):
    with open(path, "rb") as file:
        return file.read()


# What it is

def field(deb, name):
    return run("dpkg-deb", "-f", deb, name).strip()


def test_same_bytes(tap, build, again):
    for pattern in ("collectd-reclaim_*.deb", "collectd-reclaim-dbgsym_*.deb", "*.dsc",
                    "*.debian.tar.xz", "*.orig.tar.gz"):
        first, second = (glob.glob(f"{folder}/deb/{pattern}")[0]
                         for folder in (build, again))
        tap.ok(read(first) == read(second),
               f"{pattern} has the same bytes from another folder, at another time",
               f"cmp {first} {second}")


def test_version(tap, deb):
    tap.equal(field(deb, "Version"), f"{version()}-1", "the version is CHANGELOG.md's")
    depends = field(deb, "Depends").split(", ")
    tap.ok("collectd-core (>= 5.9)" in depends, "it depends on collectd-core", depends)
    tap.ok(any(re.fullmatch(r"libbpf1 \(>= \S+\)", need) for need in depends),
           "and on libbpf, as Debian's symbols of it say", depends)


def test_lintian(tap, build):
    # Closing a bug of Debian's is for what goes into Debian's archive.
    done = subprocess.run(
        ["lintian", "--fail-on", "error,warning", "--suppress-tags",
         "initial-upload-closes-no-bugs", *glob.glob(f"{build}/deb/*.changes")],
        check=False, capture_output=True, text=True)
    tap.ok(done.returncode == 0, "lintian has no error and no warning",
           done.stdout + done.stderr)


def files_wanted():
    """{path: whether it can be run} of all that the package should have."""
    here = [f"{SOURCE}/{path}" for path in (
        "README.md", "conf/reclaim.conf", "tests/bench/costs.svg", "tests/faults/FAULTS.md",
        "tests/vm/COMPARISON.md")]
    for name in "alerts", "backends", "dashboards", "systemd":
        here += [f"{folder}/{file}" for folder, _, files in os.walk(f"{SOURCE}/conf/{name}")
                 for file in files if not file.endswith(".pyc")]
    wanted = {path.replace(SOURCE, DOC): os.access(path, os.X_OK) for path in here}
    for page in glob.glob(f"{SOURCE}/conf/*.[58]"):
        wanted[f"/usr/share/man/man{page[-1]}/{os.path.basename(page)}.gz"] = False
    wanted.update(dict.fromkeys([f"{DOC}/{name}" for name in (
        "changelog.gz", "changelog.Debian.gz", "copyright")], False))
    return {**wanted, f"{DOC}/LICENSE": True,  # a link
            CONFFILE: False, PLUGIN: False, "/usr/sbin/reclaimsnoop": True}


def test_contents(tap, deb):
    listing = [line.split() for line in run("dpkg-deb", "-c", deb).splitlines()]
    files = {words[5][1:]: "x" in words[0] for words in listing if words[0][0] != "d"}
    tap.equal(sorted(files.items()), sorted(files_wanted().items()),
              "it has the files that it should, no others, and those run that should")
    tap.equal(run("dpkg-deb", "-I", deb, "conffiles").split(), [CONFFILE],
              "the sample is its only conffile")


def test_build(tap, deb, log, folder):
    run("dpkg-deb", "-x", deb, folder)
    check_build(tap, folder + PLUGIN, log, "fortify|protector")
    with open(folder + CONFFILE, encoding="ascii") as file:
        tap.ok(all(re.match(r"#|$", line) for line in file),
               "the sample is wholly commented")


# What it does

class Daemon:
    """Debian's collectd in the system, with OUR_CONF beside its own configuration."""

    def __init__(self, system):
        self.system = system
        for path in "/tmp/csv", "/tmp/log":
            run("rm", "-rf", system.path(path))
        self.process = system.start("collectd", "-f")
        wait_for(lambda: self.reads("load/load") or self.process.poll() is not None,
                 "the first read")
        if self.process.poll() is not None:
            raise RuntimeError(f"collectd ended: {system.read('/tmp/log')}")

    def growth(self, series):
        """From the first to the last value of a counter of the plugin."""
        rows = harness.read_csv(self.system.path("/tmp/csv/testhost"))[series]
        return int(rows[-1][1]) - int(rows[0][1]) if rows else 0

    def reads(self, series):
        """How often a series was written, of whatever plugin."""
        return sum(len(read(path).splitlines()) - 1 for path in glob.glob(
            self.system.path(f"/tmp/csv/testhost/{series}-*")))

    def wait_reads(self, reads, series):
        """Waits until there are more than `reads` further ones."""
        enough = self.reads(series) + reads
        wait_for(lambda: self.reads(series) > enough, f"{reads} reads of {series}")

    def pid(self):
        """collectd itself, seen from outside: what unshare started."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children",
                  encoding="ascii") as file:
            return int(file.read())

    def plugin_mapped(self):
        """What the daemon has mapped of the plugin, as /proc names it."""
        with open(f"/proc/{self.pid()}/maps", encoding="utf-8") as maps:
            return {line.split(None, 5)[5].strip() for line in maps
                    if "reclaim.so" in line}

    def stop(self):
        os.kill(self.pid(), 15)
        return self.process.wait(60)


def tried(system):
    """collectd -T: (how it ended, what it and its log said)."""
    run("rm", "-f", system.path("/tmp/log"))
    done = system.run("collectd", "-T")
    log = system.path("/tmp/log")
    return done.returncode, done.stdout + (
        read(log).decode() if os.path.exists(log) else "")


def enable(system, more=""):
    """What an operator does to the sample."""
    text = system.read(CONFFILE).decode()
    system.write(CONFFILE, text.replace("#LoadPlugin reclaim", "LoadPlugin reclaim") + more)


def test_install(tap, system):
    system.apt("install", "/tmp/new.deb")
    status, said = tried(system)
    tap.ok(status == 0 and "reclaim" not in said,
           "installed, it changes nothing: collectd -T does not know of it", said)
    daemon = Daemon(system)
    daemon.wait_reads(1, "load/load")
    mapped = daemon.plugin_mapped()
    tap.equal((daemon.stop(), mapped, glob.glob(system.path("/tmp/csv/*/reclaim*"))),
              (0, set(), []), "nor does collectd load it")


def test_stalls(tap, system):
    enable(system)
    status, said = tried(system)
    tap.ok(status == 0 and "reclaim plugin: attached: " in said,
           "with LoadPlugin reclaim uncommented collectd -T attaches it", said)
    daemon = Daemon(system)
    daemon.wait_reads(1, "reclaim/count-rows")
    Staller([b"packaged"], 64, seconds=2).wait()
    daemon.wait_reads(2, "reclaim/count-rows")
    tap.equal(daemon.stop(), 0, "collectd ends as it should")
    stalls = daemon.growth("reclaim-packaged/total_events-memcg")
    total = daemon.growth("reclaim/total_events-memcg_total")
    tap.ok(total >= stalls > 0, "what stalls is in the metric store, by name and in the total",
           f"{stalls} of {total}")


def test_remove(tap, system):
    edited = system.read(CONFFILE)
    system.apt("remove", "--auto-remove", "collectd-reclaim")
    left = {path: system.read(path) for path in system.files()
            if "reclaim" in path and not path.startswith("/var/lib/dpkg/info/")}
    tap.equal(left, {f"{CONFFILE}.removed": edited},
              "removed, it leaves the operator's configuration, set aside as it was")
    status, said = tried(system)
    tap.ok(status == 0 and "reclaim" not in said,
           "collectd starts without the plugin, though that was enabled", said)

    system.apt("install", "/tmp/new.deb")
    tap.equal((system.read(CONFFILE), os.path.exists(system.path(f"{CONFFILE}.removed"))),
              (edited, False), "installed again, the configuration is in its place")


def test_loaded_elsewhere(tap, system):
    elsewhere = "/etc/collectd/collectd.conf.d/site.conf"
    system.write(elsewhere, '<LoadPlugin "reclaim">\n  Interval 10\n</LoadPlugin>\n')
    said = system.apt("remove", "collectd-reclaim")
    tap.ok(re.search(rf"collectd will not start .*: {elsewhere}$", said, re.M),
           "removal names another file that loads the plugin", said)
    status, said = tried(system)
    tap.ok(status != 0 and "Could not find plugin" in said,
           "with which collectd does not start", said)
    os.unlink(system.path(elsewhere))


def test_purge(tap, system, before):
    system.apt("purge", "--auto-remove", "collectd-reclaim")
    tap.equal(system.files() ^ before, set(), "purged, nothing of it is left")


def make_older(deb, folder):
    """The package as an earlier version had it, with another plugin."""
    run("dpkg-deb", "-R", deb, folder)
    for path, change in (
            ("/DEBIAN/control", lambda text: text.replace(b"\nVersion: ", b"\nVersion: 0~")),
            (PLUGIN, lambda text: text + b"of an earlier version")):
        changed = change(read(folder + path))
        with open(folder + path, "wb") as file:
            file.write(changed)
    run("dpkg-deb", "-b", folder, f"{folder}.deb")
    return f"{folder}.deb"


def test_upgrade(tap, system):
    system.apt("install", "/tmp/old.deb")
    old = system.read(PLUGIN)
    enable(system, "<Plugin reclaim>\n  ReportMaximum true\n</Plugin>\n")
    edited = system.read(CONFFILE)
    daemon = Daemon(system)
    daemon.wait_reads(1, "reclaim/count-rows")
    system.apt("install", "/tmp/new.deb")
    tap.ok(system.read(PLUGIN) != old, "an upgrade replaces the plugin")
    tap.equal(system.read(CONFFILE), edited, "and keeps what the operator changed")
    daemon.wait_reads(2, "reclaim/count-rows")
    mapped = daemon.plugin_mapped()
    tap.ok(mapped and all(path.endswith(" (deleted)") for path in mapped),
           "a running collectd goes on with the old plugin", mapped)
    tap.equal(daemon.stop(), 0, "and ends as it should")
    daemon = Daemon(system)
    daemon.wait_reads(1, "reclaim/count-rows")
    mapped = daemon.plugin_mapped()
    tap.ok(mapped and not any(path.endswith(" (deleted)") for path in mapped),
           "restarted, it has the new one", mapped)
    daemon.stop()


def test_installed(tap, system, deb, folder):
    shutil.copy(deb, system.path("/tmp/new.deb"))
    shutil.copy(make_older(deb, f"{folder}/older"), system.path("/tmp/old.deb"))
    # Most of what Debian's configuration loads needs more than this system has.
    conf = "/etc/collectd/collectd.conf"
    system.write(conf, re.sub(r"^LoadPlugin (?!load$)", "#LoadPlugin ",
                              system.read(conf).decode(), flags=re.M))
    system.write(OURS, OUR_CONF)
    before = system.files()
    test_install(tap, system)
    test_stalls(tap, system)
    test_remove(tap, system)
    test_loaded_elsewhere(tap, system)
    test_purge(tap, system, before)
    test_upgrade(tap, system)
    test_purge(tap, system, before)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build", help="a build folder")
    build = harness.BUILD = os.path.abspath(parser.parse_args().build)
    suite = need_machine()
    with tempfile.TemporaryDirectory(prefix="reclaim-deb-", dir="/var/tmp") as folder:
        try:
            system = Chroot(f"{folder}/system", suite)
        except Unavailable as reason:
            skip_all(reason)
        run("make", "-C", build, "tests/collectd/staller")
        log, again = make_both(build, folder)
        tap, deb = Tap(), deb_of(build)
        test_same_bytes(tap, build, again)
        test_version(tap, deb)
        test_lintian(tap, build)
        test_contents(tap, deb)
        test_build(tap, deb, log, f"{folder}/unpacked")
        need_live_machine()
        with system:
            test_installed(tap, system, deb, folder)
        tap.done()


main()
