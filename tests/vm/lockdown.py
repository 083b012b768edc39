# SPDX-License-Identifier: MIT
"""A kernel that is locked down, as guest/lockdown uses it: all works under
integrity; under confidentiality the plugin reads no kernel memory, says so, and
counts all the same. All but `read_lockdown` is pure."""

import dataclasses
import re

import check
from facts import KINDS, read_facts, read_file
from services import ATTACHED, COMPLAINT, SPARE_US

MODES = ("integrity", "confidentiality")
# Reclaim that starts over counts another allocstall.
LEAST_SHARE = 0.9
# Of what a stall frees, slab pages are not in pgsteal; some are freed without a shrinker
# that scans (mm/vmscan.c: mm_account_reclaimed_pages).
SLAB_SHARE, SLAB_PAGES = 0.03, 64
WARNING = ("does not let BPF programs read its memory", "lockdown=confidentiality",
           "kernel threads are folded like other tasks", "stalls of kind compact are not counted")


@dataclasses.dataclass
class Lockdown:
    """All that is known, beside Facts."""
    mode: str           # in force
    wanted: str         # by the command line
    attached: list      # kinds
    complaints: list
    cgroup_pages: int   # that the kernel counted as stolen from the cgroup


def parse_mode(text):
    """The mode in force stands in brackets."""
    return re.search(r"\[(\w+)\]", text)[1]


def read_lockdown(folder):
    """Reads a folder of raw files: facts, and what is of lockdown."""
    log = read_file(folder, "collectd.log")
    stolen = dict(line.split() for line in read_file(folder, "memory-stat").splitlines())
    said = ATTACHED.search(log)
    return read_facts(folder), Lockdown(
        parse_mode(read_file(folder, "lockdown")),
        re.search(r"\blockdown=(\w+)", read_file(folder, "cmdline"))[1],
        said[1].split() if said else [], COMPLAINT.findall(log), int(stolen["pgsteal"]))


def _check_attached(facts, of):
    """What is there, and what the log says is not."""
    yield (of.mode == of.wanted in MODES,
           f"the kernel is locked down from its start ({of.mode}, {of.wanted} is wanted)")
    for kind in KINDS:
        yield facts.attached[kind], f"kind {kind} is attached"
    open_to_read = of.mode == "integrity"
    yield (("compact" in of.attached) == open_to_read,
           f"kind compact is {'attached' if open_to_read else 'not attached'}")
    warned = len(of.complaints) == 1 and all(words in of.complaints[0] for words in WARNING)
    yield (of.complaints == [] if open_to_read else warned,
           f"{'no complaint' if open_to_read else 'one warning says what is missing'} "
           f"({'; '.join(of.complaints) or 'none'})")


def _check_against_vmstat(facts, of):
    """Where there is no ftrace, the kernel's own counters are all there is."""
    direct, allocstall = facts.totals["direct"], check.sum_allocstall(facts.growth)
    least = max(check.MIN_STALLS["direct"], allocstall * LEAST_SHARE)
    yield (least <= direct.stalls <= allocstall,
           f"direct stalls are the growth of allocstall_*, less where reclaim retried "
           f"({direct.stalls} of {allocstall})")
    stolen = check.sum_pgsteal(facts.growth)
    slab = int(facts.growth["slabs_scanned"] + stolen * SLAB_SHARE + SLAB_PAGES)
    cgroup = facts.totals["memcg"].pages
    yield (0 < of.cgroup_pages <= cgroup <= of.cgroup_pages + slab,
           f"memcg pages are what the cgroup's own count has ({cgroup} and {of.cgroup_pages}, "
           f"up to {slab} of slab more)")
    pages = direct.pages + (cgroup if check.pgsteal_has_memcg(facts) else 0)
    yield (stolen <= pages <= stolen + slab,
           f"pages are the growth of pgsteal_direct ({pages} and {stolen}, up to {slab} of slab "
           f"more)")


def check_lockdown(facts, of):
    """Yields (whether it holds, what) for each thing that must hold."""
    yield from check.check_witnesses(facts)
    yield from _check_attached(facts, of)
    yield from _check_against_vmstat(facts, of)
    for kind in KINDS:
        if of.mode == "integrity":  # then there is ftrace, too
            yield from check.check_stalls_and_time(facts, kind, SPARE_US)
            yield from check.check_pages(facts, kind)
        yield from check.check_sums(facts, kind)
    yield from check.check_account(facts)


def describe(facts, of):
    """What a person wants to know."""
    direct, memcg = facts.totals["direct"], facts.totals["memcg"]
    yield (f"{facts.version}, {of.mode}: attached {' '.join(of.attached)}; direct {direct.stalls} "
           f"of {check.sum_allocstall(facts.growth)} stalls, {direct.pages} pages "
           f"({check.sum_pgsteal(facts.growth)} by the kernel); memcg {memcg.stalls} stalls, "
           f"{memcg.pages} pages ({of.cgroup_pages})")
