#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""tests/backends/fleet/scale, on a small fleet: it counts what arrives, and what
does not."""

import importlib.machinery
import importlib.util

import fleet
from harness import Tap, skip_all

HOSTS, READS = 200, 4


def load_scale():
    """The script as a module; its name has no suffix."""
    loader = importlib.machinery.SourceFileLoader("scale", f"{fleet.HERE}/scale")
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("scale", loader))
    loader.exec_module(module)
    return module


def main():
    """Measures each mode; ends with Tap's exit status."""
    reason = fleet.missing()
    if reason:
        skip_all(reason)
    scale, tap = load_scale(), Tap()
    recording = fleet.Recording(scale.RECORDING, READS)
    for mode in scale.MODES:
        row = scale.measure(mode, HOSTS, 1, READS)
        tap.equal(row.sent, HOSTS * sum(map(len, recording.values.values())),
                  f"{mode}: each value of {HOSTS} hosts is sent")
        # What the kernel dropped, on a machine that was too busy, is known.
        tap.equal(row.accepted == row.sent, row.dropped == 0,
                  f"{mode}: what was not dropped arrives")
        if row.written is not None:
            tap.equal(row.written, row.accepted, f"{mode}: what arrives is written")
        tap.ok(scale.table_row(row).count("|") == scale.HEAD.splitlines()[0].count("|"),
               f"{mode}: the table has a row of it")
    tap.done()


if __name__ == "__main__":
    main()
