# SPDX-License-Identifier: MIT
"""What the harness needs of the machine it runs on: commands, packages, a
cache outside of the source tree."""

import contextlib
import fcntl
import os
import shutil
import subprocess

# Where a command comes from; the packages' names are Debian's.
PACKAGES = {
    "busybox": "busybox-static",
    "cpio": "cpio",
    "e2fsck": "e2fsprogs",
    "genext2fs": "genext2fs",
    "mmdebstrap": "mmdebstrap",
    "modprobe": "kmod",
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "xz": "xz-utils",
    "zstd": "zstd",
}


class Unavailable(Exception):
    """This machine cannot run the guests. The first line says why, further
    ones have details."""


def run(*command, **options):
    """Runs a command and returns what it printed; one that fails, or cannot
    be run, makes the machine unavailable."""
    options = {"capture_output": True, "text": True, **options}
    try:
        done = subprocess.run(command, check=False, **options)
    except OSError as error:
        raise Unavailable(f"cannot run {command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        said = (done.stdout or "") + (done.stderr or "")
        raise Unavailable(
            f"{' '.join(command[:4])} failed\n{tail(said, 15)}")
    return done.stdout


def tail(text, lines):
    """The last lines of a text."""
    return "\n".join(text.splitlines()[-lines:])


def _is_there(command):
    """Whether a command can be used. An initrd has no libraries, so busybox
    counts only if it is linked statically, which makes ldd fail."""
    path = shutil.which(command)
    if path is None or command != "busybox":
        return path is not None
    ldd = subprocess.run(["ldd", path], check=False, capture_output=True)
    return ldd.returncode != 0


def need_commands():
    """Installs what is missing, as root; without root that is a reason not to
    run."""
    # Users do not have the folders of system commands in their path.
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if os.uname().machine != "x86_64" or not shutil.which("dpkg-deb"):
        raise Unavailable("guests are made on x86-64 Debian and its kin only")
    missing = [PACKAGES[name] for name in PACKAGES if not _is_there(name)]
    if not missing:
        return
    if os.geteuid() != 0:
        raise Unavailable(f"not root, and packages are missing: {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # A source that cannot be updated need not be the one that is wanted.
    subprocess.run(["apt-get", "-qq", "update"], check=False,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run("apt-get", "-qq", "-y", "--no-install-recommends",
        "-o", "DPkg::Lock::Timeout=300", "install", *missing, env=environment,
        stdin=subprocess.DEVNULL)


def cache_folder():
    """The folder of downloads, images and last results."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = (os.environ.get("RECLAIM_VM_CACHE")
              or os.path.join(base, "collectd-reclaim-vm"))
    os.makedirs(folder, exist_ok=True)
    return os.path.abspath(folder)


@contextlib.contextmanager
def locked(folder):
    """Holds a folder alone: of two runs, the second waits for what the first
    one prepares."""
    with open(os.path.join(folder, "lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove(path):
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.unlink(path)


def cached(path, make):
    """Makes a file or folder by `make(unfinished path)` unless it is there.
    What is under its final name is whole."""
    if not os.path.exists(path):
        part = os.path.join(os.path.dirname(path), "part-" + os.path.basename(path))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _remove(part)
        make(part)
        os.rename(part, path)
    return path


def replace_folder(new, old):
    """Puts a finished folder in the place of an older one."""
    os.makedirs(os.path.dirname(old), exist_ok=True)
    _remove(old)
    os.rename(new, old)
