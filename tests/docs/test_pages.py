#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Whether man and mandoc can show the manual pages without a complaint."""

import glob
import os
import shutil
import subprocess
import sys

from manual import ROOT

sys.path.append(f"{ROOT}/tests/collectd")
from harness import Tap, skip_all

# What shows or judges a page: the Debian packages that have it, how it is called, and how its
# output begins where all is well. (In some containers, man is a script that only says that it
# is not there.)
TOOLS = {"man": ("man-db and groff-base", ["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"],
                 "x T utf8"),
         "mandoc": ("mandoc", ["-T", "lint", "-W", "warning"], "")}


def main():
    for tool, (packages, _, _) in TOOLS.items():
        if not shutil.which(tool):
            skip_all(f"needs {tool} (Debian {packages})")
    tap = Tap()
    for page in sorted(glob.glob(f"{ROOT}/conf/*.[58]")):
        for tool, (_, arguments, begin) in TOOLS.items():
            run = subprocess.run([tool, *arguments, page], check=False, capture_output=True,
                                 text=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
            tap.equal((run.returncode, run.stderr, run.stdout.partition("\n")[0]),
                      (0, "", begin), f"{tool} has nothing to say of {os.path.basename(page)}")
    tap.done()


main()
