#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Prometheus's own tool on its alerts: limits, times and texts of each, on series
made up for it (alerts_test.yml). test_alerts.py has them fire for real."""

import os
import shutil
import subprocess
import tempfile

from stores import BACKENDS, ROOT

from harness import Tap, skip_all

FOLDER = os.path.dirname(os.path.abspath(__file__))


def check(tap, behaviour, *arguments):
    """One run of promtool that must succeed."""
    run = subprocess.run(["promtool", *arguments], check=False, capture_output=True, text=True)
    tap.ok(run.returncode == 0, behaviour, run.stdout + run.stderr)


def main():
    if not shutil.which("promtool"):
        skip_all("needs promtool (Debian package prometheus)")
    tap = Tap()
    rules = f"{ROOT}/conf/alerts/prometheus-rules.yml"
    with tempfile.TemporaryDirectory(prefix="reclaim-rules-") as folder:
        for file in rules, f"{BACKENDS}/prometheus/prometheus.yml":
            shutil.copy(file, folder)
        check(tap, "prometheus.yml finds the alerts that are copied beside it",
              "check", "config", f"{folder}/prometheus.yml")
    check(tap, "the alerts are well formed", "check", "rules", "--lint-fatal", rules)
    check(tap, "each alert comes and goes at its limit and time, and says who",
          "test", "rules", f"{FOLDER}/alerts_test.yml")
    tap.done()


main()
