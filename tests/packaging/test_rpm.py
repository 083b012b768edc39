#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The RPM package: built twice by `rpmbuild -ta` with the flags of Fedora's compiler,
looked at, then installed into a folder, where collectd loads it, and removed. Fedora is
not here: rpm, compilers, libraries and collectd are Debian's."""

import argparse
import glob
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [os.path.join(HERE, "../collectd"), os.path.join(HERE, "../vm")]

from collectd_source import VERSION, find_tarballs, unpack  # noqa: E402
from harness import Tap, skip_all  # noqa: E402
from host import Unavailable, run, tail  # noqa: E402
from package import check_build, version  # noqa: E402

COMMANDS = ("apt-get", "bison", "bzip2", "collectd", "flex", "readelf", "rpm", "rpmbuild", "xz")
# What Fedora says of its packages, where Debian's rpm has nothing or something else.
FEDORA = {
    "dist": ".fc99",
    "_docdir_fmt": "%%{NAME}",
    "_pkgdocdir": "%{_datadir}/doc/%{name}",
    "_buildhost": "reproducible",
    "source_date_epoch_from_changelog": "1",
    "clamp_mtime_to_source_date_epoch": "1",
    "use_source_date_epoch_as_buildtime": "1",
    "optflags": "-O2 -flto=auto -ffat-lto-objects -fexceptions -g -pipe -Wall"
                " -Werror=format-security -Wp,-D_FORTIFY_SOURCE=2"
                " -Wp,-D_GLIBCXX_ASSERTIONS -fstack-protector-strong"
                " -fasynchronous-unwind-tables -fstack-clash-protection",
    "build_ldflags": "-Wl,-z,relro -Wl,--as-needed -Wl,-z,now -Wl,--build-id=sha1",
}
CONFIG = "/etc/collectd.d/reclaim.conf"
PLUGIN = "/usr/lib64/collectd/reclaim.so"
DOC, MAN = "/usr/share/doc/collectd-reclaim/", "/usr/share/man/"
LICENSE = "/usr/share/licenses/collectd-reclaim/LICENSE"


def need_machine():
    """Skips where the package cannot be made and tried."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [name for name in COMMANDS if not shutil.which(name)]
    if missing:
        skip_all(f"commands are missing: {' '.join(missing)}")
    if os.geteuid() != 0:
        skip_all("needs root")


def read(path):
    with open(path, "rb") as file:
        return file.read()


# Making it

def make_sources(build, collectd, folder):
    """Both tarballs in one folder, as `rpmbuild -ta` wants them; returns ours. That of
    collectd has ./configure when it is released, Debian's copy has not."""
    name = f"collectd-{VERSION}"
    tree = unpack(collectd, f"{folder}/{name}")
    run("./build.sh", cwd=tree)
    run("tar", "-cjf", f"{folder}/sources/{name}.tar.bz2", "-C", folder, name)
    run("make", "-C", build, "dist")
    tarball, = glob.glob(f"{build}/collectd-reclaim-*.tar.gz")
    return shutil.copy(tarball, f"{folder}/sources")


def build_environment(build, folder):
    """With the tools that the build folder has found; and each configure keeps what it
    finds out for the next build."""
    with open(f"{build}/Makefile", encoding="utf-8") as makefile:
        tools = dict(re.findall(r"^(CLANG|BPFTOOL) = (.*)$", makefile.read(), re.M))
    with open(f"{folder}/config.site", "w", encoding="ascii") as site:
        site.write(f'cache_file="{folder}/$(basename "$PWD").cache"\n')
    return {**os.environ, **tools, "CONFIG_SITE": site.name}


def make_rpm(tarball, top, environment, *options):
    """Runs rpmbuild and returns its log. Debian's packages are not in rpm's database,
    and where it builds is in what is not stripped."""
    defines = {"_topdir": top, "_tmppath": os.path.dirname(top), **FEDORA}
    arguments = [word for name, value in defines.items()
                 for word in ("--define", f"{name} {value}")]
    done = subprocess.run(
        ["rpmbuild", "-ta", "--nodeps", *arguments, *options, tarball], check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"rpmbuild failed:\n{tail(done.stdout, 30)}")
    return done.stdout


def make_all(build, collectd, folder):
    """The log of the first build, and the folders with the packages of both."""
    os.mkdir(f"{folder}/sources")
    tarball = make_sources(build, collectd, folder)
    environment = build_environment(build, folder)
    top, first = f"{folder}/top", f"{folder}/first"
    log = make_rpm(tarball, top, environment)
    os.rename(top, first)
    make_rpm(tarball, top, {**environment, "TZ": "Asia/Tokyo"}, "--nocheck")
    return log, first, top


def rpm_of(top):
    """The package that can be installed."""
    rpm, = glob.glob(f"{top}/RPMS/*/*.rpm")
    return rpm


# What it is

def query(rpm, *what):
    return run("rpm", "-qp", *what, rpm)


def test_same_bytes(tap, first, second):
    tap.ok(read(first) == read(second), "built at another time, it has the same bytes")


def test_version(tap, rpm):
    tap.equal(query(rpm, "--qf", "%{VERSION}-%{RELEASE}"), f"{version()}-1.fc99",
              "the version is CHANGELOG.md's")
    tap.ok(query(rpm, "--changelog").splitlines()[0].endswith(f"- {version()}-1"),
           "and that of the first entry in its changelog", query(rpm, "--changelog"))


def wanted_files(build, folder):
    """{path: permissions} of what `make install` installs and of what only packages
    have."""
    run("make", "-C", build, "install", f"DESTDIR={folder}", "prefix=/usr",
        "libdir=/usr/lib64")
    os.unlink(f"{folder}{PLUGIN[:-2]}la")
    found = {f"/{os.path.relpath(path, folder)}": stat.filemode(os.stat(path).st_mode)
             for path in glob.glob(f"{folder}/**", recursive=True) if os.path.isfile(path)}
    return {**found, CONFIG: "-rw-r--r--", LICENSE: "-rw-r--r--"}


def test_contents(tap, rpm, wanted):
    listing = query(rpm, "--qf", r"[%{FILEMODES:perms} %{FILEFLAGS:fflags} %{FILENAMES}\n]")
    files = {}
    for line in listing.splitlines():
        permissions, *flags, path = line.split()
        if permissions[0] == "-":
            files[path] = permissions, "".join(flags)
    tap.equal({path: permissions for path, (permissions, _) in files.items()}, wanted,
              "it has what make install installs, the configuration and the license")
    flagged = {flag: {path for path, (_, flags) in files.items() if flags == flag}
               for flag in ("cn", "d", "l")}
    tap.equal(flagged, {"cn": {CONFIG}, "l": {LICENSE},
                        "d": {path for path in wanted if path.startswith((DOC, MAN))}},
              "configuration that is not replaced, documentation, license: marked as that")


def test_dependencies(tap, rpm):
    requires = query(rpm, "--requires")
    tap.ok(re.search(r"^collectd\(\S+\) >= 5\.9$", requires, re.M)
           and re.search(r"^libbpf\.so\.1\(", requires, re.M),
           "it needs collectd and libbpf", requires)
    tap.ok(not re.search("^/|python", requires, re.M), "and nothing for its samples",
           requires)


def test_rpmlint(tap, top):
    behaviour = "rpmlint has no error"
    if not shutil.which("rpmlint"):
        tap.ok(os.environ.get("CI") != "true", f"{behaviour} # SKIP rpmlint is not installed")
        return
    packages = glob.glob(f"{top}/*RPMS/**/*.rpm", recursive=True)
    done = subprocess.run(
        ["rpmlint", "-r", f"{SOURCE}/conf/packaging/collectd-reclaim.rpmlintrc", *packages],
        check=False, capture_output=True, text=True)
    said = done.stdout + done.stderr
    tap.ok(done.returncode == 0 and " 2 packages " in said and ": E: " not in said,
           behaviour, said)


# What it does

def rpm_into(root, *arguments):
    """rpm below a folder, where nothing else is installed."""
    run("rpm", "--root", root, "--nodeps", "--force-debian", *arguments)


def tried(root):
    """collectd -T with the whole of a root's collectd.d, as Fedora's collectd.conf
    includes it: how it ended and what it said."""
    with open(f"{root}/collectd.conf", "w", encoding="ascii") as file:
        file.write(f'TypesDB "/usr/share/collectd/types.db"\n'
                   f'PluginDir "{root}{os.path.dirname(PLUGIN)}"\n'
                   f'Include "{root}{os.path.dirname(CONFIG)}"\n')
    done = subprocess.run(["collectd", "-T", "-C", file.name], check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def test_install(tap, root):
    status, said = tried(root)
    tap.ok(status == 0 and "reclaim" not in said,
           "installed, it changes nothing: collectd does not load it", said)
    sample = read(root + CONFIG)
    with open(root + CONFIG, "wb") as file:
        file.write(sample.replace(b"#LoadPlugin reclaim", b"LoadPlugin reclaim"))
    status, said = tried(root)
    tap.ok(status == 0 and "reclaim plugin: attached: " in said,
           "with LoadPlugin reclaim uncommented, collectd attaches it", said)


def test_remove(tap, root):
    edited = read(root + CONFIG)
    rpm_into(root, "-e", "collectd-reclaim")
    kept = f"{os.path.dirname(CONFIG)}/.reclaim.conf.rpmsave"
    left = {path for path in (f"/{os.path.relpath(file, root)}" for file in glob.glob(
        f"{root}/**", recursive=True, include_hidden=True)) if "reclaim" in path}
    tap.equal(left, {kept}, "removed, it leaves the changed configuration")
    tap.equal(read(root + kept), edited, "which is as it was")
    status, said = tried(root)
    tap.ok(status == 0 and "reclaim" not in said, "and which collectd does not read", said)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build", help="a build folder")
    build = os.path.abspath(parser.parse_args().build)
    need_machine()
    try:
        collectd, = find_tarballs("tar")
    except Unavailable as reason:
        skip_all(reason)
    with tempfile.TemporaryDirectory(prefix="reclaim-rpm-", dir="/var/tmp") as folder:
        log, first, second = make_all(build, collectd, folder)
        tap, rpm, root = Tap(), rpm_of(first), f"{folder}/root"
        test_same_bytes(tap, rpm, rpm_of(second))
        test_version(tap, rpm)
        test_contents(tap, rpm, wanted_files(build, f"{folder}/installed"))
        test_dependencies(tap, rpm)
        test_rpmlint(tap, first)
        os.mkdir(root)
        rpm_into(root, "-i", rpm)
        check_build(tap, root + PLUGIN, log, "fortify|protector|lto")
        test_install(tap, root)
        test_remove(tap, root)
        tap.done()


main()
