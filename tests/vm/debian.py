# SPDX-License-Identifier: MIT
"""What comes from Debian's archive: kernels, and the packages of the root
image. The machine's own apt is asked where the archive is and how it is
reached; nothing of it is changed."""

import glob
import os
import re
import shutil

from host import Unavailable, run

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# The suite that has each kernel; sid has the newest.
KERNELS = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie", "sid": "sid"}
KERNEL_PACKAGE = "linux-image-cloud-amd64"
# sid splits a kernel's files over packages of these names. Those without a
# version are empty, and old suites' mirrors do not keep them all.
KERNEL_PARTS = re.compile(r"\blinux-(?:image|binary|modules|base)-\d[\w.+-]+")


def _archives():
    """Addresses of the archive and of its security part."""
    uris = run("apt-get", "indextargets", "--format", "$(REPO_URI)",
               "Created-By: Packages").split()
    security = [uri for uri in uris if "security" in uri]
    main = [uri for uri in uris
            if uri.endswith("/debian/") and uri not in security]
    if not main or not os.path.exists(KEYRING):
        raise Unavailable("apt has no source of Debian's archive, or its keyring is missing")
    return main[0], security[0] if security else main[0][:-1] + "-security/"


def sources(suite, kind="deb"):
    """Lines of a sources.list for a suite, its security updates included, of
    binary packages or (deb-src) of sources."""
    main, security = _archives()
    lines = [f"{kind} [signed-by={KEYRING}] {main} {suite} main"]
    if suite != "sid":
        lines.append(f"{kind} [signed-by={KEYRING}] {security} {suite}-security main")
    return lines


def acquire_options():
    """How this machine downloads, proxies included. Suites at the end of
    their life are no longer signed anew."""
    ours = ("Acquire::IndexTargets", "Acquire::Languages", "Acquire::GzipIndexes")
    lines = [line for line in run("apt-config", "dump").splitlines()
             if line.startswith("Acquire::") and not line.startswith(ours)]
    return lines + ['Acquire::Languages "none";',
                    'Acquire::Check-Valid-Until "false";']


class Apt:
    """An apt of its own below a folder: sources, lists, an empty package
    status. None of the machine's files is read but its passwords for
    archives."""

    def __init__(self, folder, suite, kind="deb"):
        for name in ("etc/apt", "var/lib/apt/lists/partial", "var/lib/dpkg",
                     "var/cache/apt/archives/partial"):
            os.makedirs(os.path.join(folder, name))
        self._write(folder, "var/lib/dpkg/status", [])
        self._write(folder, "etc/apt/sources.list", sources(suite, kind))
        config = self._write(folder, "apt.conf", [
            f'Dir "{folder}";',
            'Dir::Etc::netrc "/etc/apt/auth.conf";',
            'Dir::Etc::netrcparts "/etc/apt/auth.conf.d";',
            'APT::Architecture "amd64";',
            'APT::Architectures { "amd64"; };',
            # Else root's downloads go to a user who cannot write here.
            'APT::Sandbox::User "root";',
            *acquire_options()])
        self.environment = {**os.environ, "APT_CONFIG": config}

    @staticmethod
    def _write(folder, name, lines):
        path = os.path.join(folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)
        return path

    def run(self, *command, **options):
        """Runs a command of apt's on this configuration."""
        return run(*command, env=self.environment, **options)


def _kernel_packages(apt):
    """The packages that hold the newest kernel of a suite."""
    wanted, found = [KERNEL_PACKAGE], []
    while wanted:
        about = apt.run("apt-cache", "show", "--no-all-versions", wanted.pop())
        depends = re.search(r"^Depends: (.*)$", about, re.MULTILINE)
        for part in set(KERNEL_PARTS.findall(depends[1] if depends else "")):
            if part not in found:
                found.append(part)
                wanted.append(part)
    return found


def _find_vmlinuz(tree, modules):
    """The kernel proper; sid keeps it beside its modules."""
    places = glob.glob(os.path.join(tree, "boot/vmlinuz-*"))
    return places[0] if places else os.path.join(modules, "vmlinuz")


def fetch_kernel(label, folder):
    """Puts `vmlinuz`, `release` (a line) and `lib/modules/` of a kernel into
    a new folder."""
    os.makedirs(folder)
    work = os.path.join(folder, "work")
    apt = Apt(os.path.join(work, "apt"), KERNELS[label])
    apt.run("apt-get", "-qq", "update")
    apt.run("apt-get", "-qq", "download", *_kernel_packages(apt), cwd=work)
    tree = os.path.join(work, "tree")
    for package in glob.glob(os.path.join(work, "*.deb")):
        run("dpkg-deb", "-x", package, tree)

    modules, = glob.glob(os.path.join(tree, "**/lib/modules/*"), recursive=True)
    release = os.path.basename(modules)
    os.makedirs(os.path.join(folder, "lib/modules"))
    os.rename(_find_vmlinuz(tree, modules), os.path.join(folder, "vmlinuz"))
    os.rename(modules, os.path.join(folder, "lib/modules", release))
    run("depmod", "-b", folder, release)
    with open(os.path.join(folder, "release"), "w", encoding="ascii") as file:
        file.write(release + "\n")
    shutil.rmtree(work)
