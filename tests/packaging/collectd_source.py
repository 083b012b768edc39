# SPDX-License-Identifier: MIT
"""collectd's sources, from Debian's archive; they stay in the cache of tests/vm."""

import contextlib
import glob
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../vm"))

from debian import Apt  # noqa: E402
from host import Unavailable, cache_folder, cached, locked, run  # noqa: E402

# Archives do not keep each suite's files: the first that are there.
SUITES = ["bookworm", "trixie", "sid"]
VERSION = "5.12.0"
# Upstream's, which has no ./configure, and Debian's changes to it
TARBALLS = {"tar": f"collectd_{VERSION}.orig.tar.*",
            "diff": f"collectd_{VERSION}-*.debian.tar.*"}


def _fetch(suite, folder):
    """Downloads what the archive has of a suite's tarballs into a new folder."""
    os.makedirs(folder)
    apt = Apt(f"{folder}/apt", suite, "deb-src")
    apt.run("apt-get", "-qq", "update")
    for part in TARBALLS:
        with contextlib.suppress(Unavailable):
            apt.run("apt-get", "-qq", "source", "--download-only", f"--{part}-only",
                    "collectd", cwd=folder)
    shutil.rmtree(f"{folder}/apt")


def find_tarballs(*parts):
    """The paths of some of TARBALLS."""
    found = {}
    for suite in SUITES:
        with locked(cache_folder()):
            folder = cached(f"{cache_folder()}/sources/{suite}",
                            lambda path, suite=suite: _fetch(suite, path))
        for part in parts:
            for path in glob.glob(f"{folder}/{TARBALLS[part]}"):
                found.setdefault(part, path)
        if len(found) == len(parts):
            return [found[part] for part in parts]
    raise Unavailable(f"Debian's archive has not all of collectd {VERSION}: {' '.join(parts)}")


def unpack(tarball, folder):
    """The one folder of a tarball, under a new name."""
    os.makedirs(folder)
    run("tar", "xf", tarball, "-C", folder, "--strip-components=1")
    return folder
