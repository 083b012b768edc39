# SPDX-License-Identifier: MIT
"""What a run says in README: the table, the plot and what belongs to them."""

import os
import re
import subprocess
import sys

from figures import KINDS, describe_whole, number, table
from plot import plot

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, f"{HERE}/../vm")

import readme  # noqa: E402  pylint: disable=wrong-import-position

PLOT = "tests/bench/costs.svg"
IN_SHORT = ("clocks", "hashes", "exporter", "bpftrace", "script")


def machine():
    """What it was measured on."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = re.search(r"^model name\s*: (.*)$", file.read(), re.M)
    system = os.uname()
    release = ".".join(system.release.split(".")[:2])
    return (f"Linux {release} ({system.machine}), {os.cpu_count()} CPUs"
            f"{f' ({model[1]})' if model else ''}")


def ratios(figures):
    """In short, for who waits."""
    return "; ".join(
        f"{KINDS[kind]}: " + ", ".join(f"{key} {number(figures.ratio(key, kind))}"
                                       for key in IN_SHORT if figures.has(key))
        for kind in figures.kinds())


def circumstances(figures, chosen, left_out, options, bare):
    """On what, with what and for how long it was measured, a sentence a line."""
    versions = dict.fromkeys(one.version() for one in chosen if one.version())
    rss_kib, cpu_ns = bare
    yield f"{machine()}; medians of {options.rounds} rounds of {options.seconds} s."
    yield f"Debian's {', '.join(versions)}."
    yield (f"collectd without the plugin: RSS {number(rss_kib / 1024)} MiB, "
           f"{number(cpu_ns / 1e6)} ms of CPU a second.")
    nothing = [number(figures.median(None, kind, "nothing_ns")) for kind in figures.kinds()]
    yield f"From one program to the next with nothing between: {' / '.join(nothing)} ns."
    for name, why in left_out.items():
        yield f"Left out: {name} ({why})."


def section(figures, chosen, left_out, options, bare):
    """The table and what belongs to it, in Markdown."""
    kinds = " / ".join(KINDS[kind] for kind in figures.kinds())
    return "\n".join([
        f"Two figures are of {kinds}." if len(figures.kinds()) > 1 else f"All are of {kinds}.",
        "", table(figures, chosen),
        "", *circumstances(figures, chosen, left_out, options, bare),
        "", "| what it is | |", "| --- | --- |",
        *[f"| {one.name} | {one.what} |" for one in chosen],
        "", "CPU time of the whole work beside the plugin, to that beside empty programs:", "",
        *[f"- {KINDS[kind]}: {describe_whole(ratios)}" for kind, ratios in figures.pairs.items()]])


def _output(build, program):
    """The lines that a program of tests/bench prints."""
    run = subprocess.run([os.path.join(build, "tests/bench", program)], text=True, check=True,
                         stdout=subprocess.PIPE)
    return run.stdout.splitlines()


def reads(build):
    """What a start and reads take in user space, without what the source says in its log."""
    return "".join(f"{line}\n" for line in _output(build, "reads") if not line.startswith("#"))


def alone(build):
    """What programs take that run alone."""
    rows = [line[2:] for line in _output(build, "test_alone") if line.startswith("# |")]
    return "\n".join(["| | ns for begin and end | the plugin's, times that |",
                      "| --- | ---: | ---: |", *rows]) + "\n"


def write(source, text, figures, chosen, build):
    """Puts a section into README.md, and the plot where it is looked for; and what is measured
    by itself."""
    rows = {one.name: {kind: figures.median(one.key, kind, "added_ns")
                       for kind in figures.kinds()} for one in chosen}
    with open(os.path.join(source, PLOT), "w", encoding="utf-8") as file:
        file.write(plot(rows))
    readme.update(os.path.join(source, "README.md"), {
        "costs": f"![What each adds to a stall]({PLOT})\n\n{text}\n",
        "alone": alone(build), "reads": reads(build)})
