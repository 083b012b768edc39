# SPDX-License-Identifier: MIT
"""Results in TAP."""

import os


class Tap:
    """Prints results as they come in."""

    def __init__(self):
        self.tests = self.failures = 0

    def ok(self, passed, behaviour):
        """One result."""
        self.tests += 1
        self.failures += not passed
        print(f"{'ok' if passed else 'not ok'} {self.tests} - {behaviour}", flush=True)

    @staticmethod
    def note(text):
        """Text beside the results."""
        for line in text.splitlines():
            print(f"# {line}", flush=True)

    def done(self):
        """The plan; returns the exit status."""
        print(f"1..{self.tests}")
        return 1 if self.failures else 0


def skip_all(reason):
    """Ends a run that this machine cannot do; returns the exit status. The
    first line is the reason, further ones are details. In CI nothing may be
    left out."""
    first, *details = str(reason).splitlines()
    for line in details:
        print(f"# {line}")
    if os.environ.get("CI") == "true":
        print(f"Bail out! {first}")
        return 1
    print(f"1..0 # SKIP {first}")
    return 0
