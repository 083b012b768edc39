# SPDX-License-Identifier: MIT
"""What a guest boots from: root image, initrd, disks. Nothing is mounted on
this machine."""

import hashlib
import os
import shutil
import subprocess
import tempfile

from debian import acquire_options, sources
from host import cached, run

GUEST_FILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guest")

ROOT_SUITE = "bookworm"
# bpftrace and libbpf-tools are independent counts to compare the plugin with.
ROOT_PACKAGES = ["bpftool", "bpftrace", "collectd-core", "e2fsprogs", "iproute2", "kmod",
                 "libbpf-tools", "libbpf1", "mount", "procps", "stress-ng", "systemd-sysv",
                 "util-linux"]
ROOT_LEFT_OUT = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"]

# Of initrd: the first four find and mount the root image; loop is for
# file systems in files.
MODULES = ["virtio_pci", "virtio_blk", "ext4", "overlay", "loop"]
UNPACKERS = {".xz": ["xz", "-dc"], ".zst": ["zstd", "-dc"], ".gz": ["gzip", "-dc"]}

JOB_MIB = 128
SWAP_MIB = 1024


def _make_root(path):
    """A file system of packages only: what is tested comes by the job disk.
    It is made in the format that mmdebstrap writes without root, too."""
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as options:
        options.writelines(line + "\n" for line in acquire_options())
        options.flush()
        run("mmdebstrap", "--variant=essential", "--format=ext2",
            "--architectures=amd64", f"--aptopt={options.name}",
            *[f"--dpkgopt=path-exclude={pattern}" for pattern in ROOT_LEFT_OUT],
            f"--include={','.join(ROOT_PACKAGES)}", ROOT_SUITE, path,
            *sources(ROOT_SUITE))


def root_image(cache):
    """The root image that all guests share. A changed recipe makes another
    one, and removes the old."""
    recipe = repr((ROOT_SUITE, ROOT_PACKAGES, ROOT_LEFT_OUT))
    name = f"root-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.ext2"
    path = cached(os.path.join(cache, name), _make_root)
    for old in os.listdir(cache):
        if old.startswith("root-") and old != name:
            os.unlink(os.path.join(cache, old))
    return path


def _module_files(kernel, release, modules):
    """Files of modules and of what they need, in the order of loading. Those that
    are built in have none."""
    files = []
    for module in modules:
        for line in run("modprobe", "-d", kernel, "-S", release,
                        "--show-depends", module).splitlines():
            action, file = line.split()[:2]
            if action == "insmod" and file not in files:
                files.append(file)
    return files


def _unpack_module(file, folder):
    """Puts a module, which may be compressed, into a folder; returns its
    name."""
    name, suffix = os.path.splitext(os.path.basename(file))
    if suffix not in UNPACKERS:
        return os.path.basename(shutil.copy(file, folder))
    with open(os.path.join(folder, name), "wb") as module:
        subprocess.run([*UNPACKERS[suffix], file], stdout=module, check=True)
    return name


def make_initrd(kernel, release, path, modules):
    """Makes the initrd of a kernel: busybox, modules, guest/init."""
    with tempfile.TemporaryDirectory() as tree:
        for name in ("bin", "modules", "proc", "sys", "dev", "root", "rw"):
            os.mkdir(os.path.join(tree, name))
        shutil.copy(shutil.which("busybox"), os.path.join(tree, "bin"))
        os.chmod(shutil.copy(os.path.join(GUEST_FILES, "init"), tree), 0o755)
        folder = os.path.join(tree, "modules")
        names = [_unpack_module(file, folder)
                 for file in _module_files(kernel, release, modules)]
        with open(os.path.join(folder, "order"), "w", encoding="ascii") as order:
            order.writelines(name + "\n" for name in names)
        run("sh", "-c", 'find . | cpio -o -H newc -R 0:0 >"$1"', "sh", path,
            cwd=tree)


def _program_proper(build, path):
    """A program of a build folder. Where libtool left a wrapper, the program
    proper is in a .libs beside it or at the top."""
    folder, name = os.path.split(path)
    places = [os.path.join(folder, ".libs", name),
              os.path.join(build, ".libs", name), path]
    return next(place for place in places if os.path.exists(place))


def _bpf_tests(build):
    """Programs of tests/bpf in a build folder."""
    folder = os.path.join(build, "tests/bpf")
    for name in sorted(os.listdir(folder) if os.path.isdir(folder) else []):
        path = os.path.join(folder, name)
        if (name.startswith("test_") and os.path.isfile(path)
                and os.access(path, os.X_OK)):
            yield _program_proper(build, path)


def plugin_of(build):
    """Where a build folder has the plugin."""
    return os.path.join(build, ".libs/reclaim.so")


def snoop_of(build):
    """Where a build folder has reclaimsnoop."""
    return os.path.join(build, "reclaimsnoop")


def waiter_of(build):
    """Where a build folder has the program that makes tasks wait."""
    return os.path.join(build, "tests/vm/waiter")


def make_job_disk(build, package, path, files=()):
    """Makes the disk that a guest gets its work and further files from, and
    leaves its results on, in `out`. Plugin and tool come from the build, or from
    a Debian package that the guest installs."""
    with tempfile.TemporaryDirectory() as tree:
        shutil.copytree(GUEST_FILES, tree, dirs_exist_ok=True)
        for file in files:
            shutil.copy(file, tree)
        os.mkdir(os.path.join(tree, "out"))
        tests = os.path.join(tree, "bpf-tests")
        os.mkdir(tests)
        if package:
            shutil.copy(package, os.path.join(tree, "package.deb"))
        else:
            shutil.copy(plugin_of(build), tree)
            shutil.copy(snoop_of(build), tree)
        for program in _bpf_tests(build):
            shutil.copy(program, tests)
        if os.path.exists(waiter_of(build)):
            shutil.copy(_program_proper(build, waiter_of(build)), tree)
        run("mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", tree,
            path, f"{JOB_MIB}M")


def make_swap_disk(path):
    """Makes an empty disk; the guest formats it."""
    with open(path, "wb") as disk:
        disk.truncate(SWAP_MIB << 20)


def take_results(disk, folder):
    """Copies `out` of a job disk to a new folder. The journal of a guest that
    was cut off is replayed first; e2fsck then returns 1 for `repaired`."""
    subprocess.run(["e2fsck", "-fp", disk], check=False,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.makedirs(folder)
    run("debugfs", "-R", f"rdump /out {folder}", disk)
    return os.path.join(folder, "out")
