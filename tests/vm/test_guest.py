#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tests when a guest is booted again. Shells stand in for QEMU. Prints TAP."""

import os
import sys
import tempfile
import time

import guest
from tap import Tap


class Shells(guest.Guest):
    """A guest of which each boot runs the next script, at last the last one; $0 is
    its console."""

    def __init__(self, cache, *scripts):
        super().__init__("shells", guest.Variant("none"), cache, None)
        self.scripts = scripts

    def _boot(self):
        script = self.scripts[min(self.boots, len(self.scripts) - 1)]
        self.command = ["sh", "-c", script, self._path("console")]
        super()._boot()

    def _command(self, *_):
        return None


def run_shells(cache, *scripts):
    """A guest that has ended."""
    made = Shells(cache, *scripts)
    made.start("none")
    while not made.ended():
        time.sleep(0.01)
    made.close()
    return made


def main():
    """Returns the exit status."""
    tap = Tap()
    dies, works = "echo panic >$0", f"echo '{guest.BOOTED}' >$0"
    with tempfile.TemporaryDirectory() as cache:
        os.makedirs(f"{cache}/kernels/none")
        with open(f"{cache}/kernels/none/release", "w", encoding="ascii") as file:
            file.write("0.0\n")
        again = run_shells(cache, dies, works)
        tap.ok(again.boots == 2 and again.failed_boots == ["panic"],
               "a guest that does not come to its work is booted again, and its words are kept "
               f"({again.boots} boots, {again.failed_boots})")
        once = run_shells(cache, f"{works}; exit 1")
        tap.ok(once.boots == 1 and once.failed_boots == [],
               f"a guest whose work fails is not booted again ({once.boots} boots)")
        never = run_shells(cache, dies)
        tap.ok(never.boots == guest.MAX_BOOTS == len(never.failed_boots) + 1,
               f"a guest that never comes to its work is given up ({never.boots} boots)")
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
