# SPDX-License-Identifier: MIT
"""What is to be of any distribution's package."""

import os
import re

from host import run, tail

CHANGELOG = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../CHANGELOG.md")


def version():
    """What CHANGELOG.md says."""
    with open(CHANGELOG, encoding="utf-8") as file:
        return re.search(r"^## (\S+) - ", file.read(), re.M)[1]


def check_build(tap, plugin, log, foreign):
    """The hardening flags, by what is in the plugin; the BPF object and the unit tests, by
    the build's log. No flag that `foreign` matches is for BPF."""
    about = run("readelf", "-dsW", plugin)
    tap.ok("BIND_NOW" in about and "__stack_chk_fail" in about and "_chk@" in about,
           "the distribution's hardening flags reach the plugin", about)
    compiled = [line for line in log.splitlines() if "-target bpf" in line]
    tap.ok(compiled and not any(re.search(foreign, line, re.I) for line in compiled),
           "and not the BPF object, which is compiled here", compiled)
    tap.ok(re.search(r"^PASS: tests/unit/test_ledger 1\b", log, re.M),
           "the unit tests run when it is built", tail(log, 30))
