#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Builds the plugin inside collectd's own source tree, by the patch for that,
and compares what this collectd counts with ftrace. Prints TAP."""

import argparse
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

ROOT = os.path.abspath(f"{os.path.dirname(__file__)}/../..")
sys.path.insert(0, f"{ROOT}/tests/vm")

# pylint: disable=wrong-import-position
from collectd_source import find_tarballs, unpack  # noqa: E402
from host import Unavailable, run, tail  # noqa: E402
from tap import Tap, skip_all  # noqa: E402

PATCH = f"{ROOT}/conf/packaging/collectd-5.12.patch"
LOCK = "/run/lock/collectd-reclaim-tests"
MANUALS = ["conf/collectd-reclaim.5", "conf/reclaimsnoop.8"]
PACKAGES = {"flock": "util-linux", "lex": "flex", "bison": "bison", "patch": "patch",
            "podchecker": "perl", "xz": "xz-utils"}
OPTIONS = ["-C", "--disable-all-plugins", "--enable-csv", "--enable-load", "--enable-logfile",
           "--without-java", "--without-perl-bindings"]
# What takes a requirement away, and the reason that configure gives
MISSING = {"ac_cv_path_CLANG=": "no (clang not found)",
           "ac_cv_path_BPFTOOL=": "no (bpftool not found)",
           "--with-libbpf=%s/old":
               "no (pkg-config could not find libbpf 1.0 or later, libelf and zlib)"}
OLD_LIBBPF = "Name: libbpf\nDescription: an old one\nVersion: 0.8.1\n"


def read(path):
    """A file's text."""
    with open(path, encoding="utf-8") as file:
        return file.read()


# Sources

def change_as_debian(tree, tarball):
    """Applies Debian's patches."""
    patches = f"{unpack(tarball, f'{tree}/debian')}/patches"
    for line in read(f"{patches}/series").splitlines():
        name = line.split("#")[0].strip()
        if name:
            run("patch", "-s", "-p1", "-i", f"{patches}/{name}", cwd=tree)
    return tree


# Building

def attempt(*command, **options):
    """Whether a command succeeds, and what it prints."""
    done = subprocess.run(command, check=False, text=True, errors="replace",
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **options)
    return done.returncode == 0, done.stdout


def told(tap, passed, behaviour, said):
    """A result; what was said is told of a failed one."""
    tap.ok(passed, behaviour)
    if not passed:
        tap.note(tail(said, 30))
    return passed


def check_patch(tap, tree, whose, unwanted):
    """The patch fits a tree, and patch(1) does not speak of what is unwanted."""
    fits, said = attempt("patch", "--dry-run", "-F0", "-p1", "-i", PATCH, cwd=tree)
    told(tap, fits and not re.search(unwanted, said),
         f"the patch fits {whose} without {unwanted.replace('|', ' or ')}", said)


def build(tap, tree, out, prefix):
    """As README, Inside collectd, has it, but out of tree. Whether it works."""
    os.makedirs(out)
    sources, said = f"{tree}/src/reclaim", ""
    for where, *command in (
            (tree, "patch", "-p1", "-i", PATCH),
            (tree, "mkdir", sources),
            (ROOT, "cp", "-r", "plugin", "bpf", *MANUALS, sources),
            (tree, "./build.sh"),
            (out, f"{tree}/configure", *OPTIONS, "--enable-reclaim", f"--prefix={prefix}"),
            (out, "make", f"-j{os.cpu_count()}"),
            (out, "make", "install")):
        passed, said = attempt(*command, cwd=where)
        if not passed:
            break
    return told(tap, passed, "build.sh, configure, make and make install work", said)


def sources_in(folder):
    """The plugin's sources below a folder."""
    return sorted(os.path.relpath(path, folder) for path in
                  glob.glob(f"{folder}/plugin/*.[ch]") + glob.glob(f"{folder}/bpf/*.[ch]"))


def check_built(tap, tree, out, prefix):
    """How it was built, and what is there then."""
    flags = re.search(r"^AM_CFLAGS = (.*)$", read(f"{out}/Makefile"), re.MULTILINE)[1]
    told(tap, "-Wall -Werror" in flags, "warnings were errors", flags)
    tap.ok(sources_in(f"{tree}/src/reclaim") == sources_in(ROOT),
           "nothing that is made lies among the sources")
    version = re.search(r"^PACKAGE_VERSION = (.*)$", read(f"{out}/Makefile"), re.MULTILINE)[1]
    _, said = attempt(f"{prefix}/sbin/reclaimsnoop", "--version")
    told(tap, said == f"reclaimsnoop {version}\n", "reclaimsnoop has collectd's version", said)
    tap.ok(all(glob.glob(f"{prefix}/share/man/man?/{os.path.basename(manual)}")
               for manual in MANUALS), "manuals are installed")


def configure(tree, out, folder, *options):
    """Configures in another folder, with what was found before but of libbpf."""
    os.makedirs(folder)
    with open(f"{folder}/config.cache", "w", encoding="utf-8") as cache:
        cache.writelines(line + "\n" for line in read(f"{out}/config.cache").splitlines()
                         if "LIBBPF" not in line)
    return attempt(f"{tree}/configure", "-C", *options, cwd=folder)


def check_missing(tap, tree, out, folder):
    """Where a requirement is missing, the plugin is off; if it was asked for,
    that is an error. Its sources are distributed all the same."""
    os.makedirs(f"{folder}/old/lib/pkgconfig")
    with open(f"{folder}/old/lib/pkgconfig/libbpf.pc", "w", encoding="ascii") as file:
        file.write(OLD_LIBBPF)
    tries = [(["--disable-all-plugins", "--enable-reclaim"], taken, f"{reason} (dependency error)")
             for taken, reason in MISSING.items()]
    tries.append(([], *list(MISSING.items())[0]))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(lambda number: configure(
            tree, out, f"{folder}/try-{number}", *tries[number][0],
            tries[number][1].replace("%s", folder)), range(len(tries)))
    for (asked, _, reason), (passed, said) in zip(tries, done):
        told(tap, passed != bool(asked) and summary(said) == reason,
             f"configure {'fails' if asked else 'leaves the plugin out'}: {reason}",
             f"{summary(said)}\n{tail(said, 1)}")

    off = f"{folder}/try-{len(tries) - 1}"
    passed, said = attempt("make", "distdir", "distdir=dist", cwd=off)
    told(tap, passed and sources_in(f"{off}/dist/src/reclaim") == sources_in(ROOT)
         and all(os.path.exists(f"{off}/dist/src/reclaim/{os.path.basename(manual)}")
                 for manual in MANUALS),
         "collectd's tarball has all sources then, too", said)


def summary(said):
    """What configure's summary has of the plugin."""
    return (re.findall(r"^    reclaim [. ]+ (.*)$", said, re.MULTILINE) or [""])[0]


def podchecked(tree):
    """Whether podchecker accepts the manual, and what it warns of, without line numbers."""
    accepted, said = attempt("podchecker", "-warnings", f"{tree}/src/collectd.conf.pod")
    return accepted, re.sub(r"at line \d+ in file .*", "", said)


# Running

def check_sample(tap, prefix):
    """collectd starts and reads once, with its own sample and the plugin's part of
    that switched on."""
    conf = f"{prefix}/etc/collectd.conf"
    text, switched = re.subn(
        r"^#(LoadPlugin reclaim\n|<Plugin reclaim>\n.*?^#</Plugin>\n)",
        lambda part: re.sub("^#", "", part[0], flags=re.MULTILINE), read(conf),
        flags=re.MULTILINE | re.DOTALL)
    with open(conf, "w", encoding="utf-8") as file:
        file.write(text + "FQDNLookup false\n")
    passed, said = attempt("flock", LOCK, f"{prefix}/sbin/collectd", "-T")
    told(tap, switched == 2 and passed and "reclaim plugin: attached: " in said,
         "collectd -T takes its sample with the plugin switched on", said)


def check_truth(tap, prefix, build_folder):
    """Real stalls, counted by this collectd and by ftrace."""
    environment = {**os.environ, "PATH": f"{prefix}/sbin:{os.environ['PATH']}",
                   "RECLAIM_PLUGINS": f"{prefix}/lib/collectd", "RECLAIM_BUILD": build_folder}
    passed, said = attempt(sys.executable, "-B", f"{ROOT}/tests/collectd/test_truth.py",
                           "test_every_name", env=environment)
    skipped = re.search(r"^1\.\.0 (# SKIP .*)", said, re.MULTILINE)
    if told(tap, passed, "this collectd counts each name's stalls and pages as ftrace does"
            + (f" {skipped[1]}" if skipped else ""), said) and not skipped:
        tap.note(re.search(r"^# (.* names)$", said, re.MULTILINE)[1])
    return not skipped


def run_tests(tap, tarball, changes, folder, build_folder):
    """All of it, in a new folder."""
    tree, out, prefix = f"{folder}/tree", f"{folder}/out", f"{folder}/installed"
    unpack(tarball, tree)
    check_patch(tap, tree, "upstream's tree", "fuzz|offset")
    check_patch(tap, change_as_debian(unpack(tarball, f"{folder}/debian"), changes),
                f"the tree of {os.path.basename(changes)}", "fuzz")
    podchecked_before = podchecked(tree)
    if not build(tap, tree, out, prefix):
        return
    check_built(tap, tree, out, prefix)
    accepted, said = podchecked(tree)
    told(tap, (accepted, said) == podchecked_before, "podchecker finds nothing new in it", said)
    check_missing(tap, tree, out, folder)
    if check_truth(tap, prefix, build_folder):
        check_sample(tap, prefix)


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=f"{ROOT}/build", metavar="DIR",
                        help="where the tests' programs were built (default: build)")
    return parser.parse_args()


def main():
    """Returns the exit status."""
    build_folder = os.path.abspath(parse_arguments().build)
    missing = [PACKAGES[name] for name in PACKAGES if not shutil.which(name)]
    if missing:
        return skip_all(f"needs Debian's packages {' '.join(missing)}")
    if not os.path.exists(f"{build_folder}/tests/collectd/staller"):
        return skip_all(f"needs `make check TESTS=' in {build_folder}")
    try:
        tarball, changes = find_tarballs("tar", "diff")
    except Unavailable as reason:
        return skip_all(reason)

    tap = Tap()
    with tempfile.TemporaryDirectory(prefix="reclaim-upstream-", dir="/var/tmp") as folder:
        run_tests(tap, tarball, changes, folder, build_folder)
    return tap.done()


sys.exit(main())
