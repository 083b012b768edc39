# SPDX-License-Identifier: MIT
"""What must hold in each guest: the plugin's counters against ftrace's events
and the kernel's own counters, over the same stretch of time. Pure."""

import re

from facts import KINDS

MIN_STALLS = {"direct": 20, "memcg": 50}
CULPRIT, CULPRIT_SHARE = "stress-ng-vm", 0.8
# Threads of collectd, which stall when they are swapped out. The slower the
# guest, the more of the load's time they live through.
BYSTANDERS = ("collectd", "reader", "writer")

# ftrace and the BPF programs stamp the same events one after the other, so
# each stall differs by some microseconds; an interrupt between the two stamps
# takes longer, more so under emulation.
TIME_SHARE, TIME_US_PER_STALL = 0.01, 50


def sum_allocstall(growth):
    """Direct reclaims that the kernel counted, over all zones."""
    return sum(value for key, value in growth.items()
               if key.startswith("allocstall"))


def sum_pgsteal(growth):
    """LRU pages that tasks reclaimed themselves. khugepaged stalls like any
    task, but newer kernels count its pages apart (reclaimer_offset in
    mm/vmscan.c)."""
    return growth["pgsteal_direct"] + growth.get("pgsteal_khugepaged", 0)


def pgsteal_has_memcg(facts):
    """Whether pgsteal_direct counts memcg reclaim's pages. 5.10, 6.1 and 6.12
    have, in shrink_inactive_list (and evict_folios) of mm/vmscan.c,
        if (!cgroup_reclaim(sc)) __count_vm_events(item, nr_reclaimed);
    which leaves them out. `mm: move pgscan, pgsteal, pgrefill to node stats`
    (2026, in 7.2) makes it
        mod_lruvec_state(lruvec, item, nr_reclaimed);
    which does not; the same change puts the counter among those of a node."""
    return "pgsteal_direct" in facts.node_counters


def _check_conditions(facts):
    """Without these, the figures prove nothing."""
    for kind in KINDS:
        trace, least = facts.trace[kind], MIN_STALLS[kind]
        yield facts.attached[kind], f"kind {kind} is attached"
        yield (trace.counts.stalls >= least,
               f"{kind} reclaim was provoked at least {least} times ({trace.counts.stalls})")
        yield (trace.unpaired == 0 and trace.begins == trace.counts.stalls,
               f"ftrace pairs all {kind} begins and ends ({trace.begins}, "
               f"{trace.counts.stalls}, {trace.unpaired} without partner)")
        yield (trace.short == 0,
               f"no {kind} end in ftrace has less than the pages from LRU lists ({trace.short})")
        yield (trace.outside == 0,
               f"no {kind} event lies outside of the stretch that is compared ({trace.outside})")
    yield facts.trace_lost == 0, f"ftrace lost no record ({facts.trace_lost})"
    yield (facts.collectd_status == "0" and not facts.collectd_errors,
           "collectd ends with status 0 and no error in its log "
           f"({'; '.join([facts.collectd_status, *facts.collectd_errors[:3]])})")


def _check_sums(facts, kind):
    """All names and `_other` make up the total."""
    total, names = facts.totals[kind], facts.names[kind].values()
    for field, what in (("stalls", "stalls"), ("pages", "pages")):
        summed, whole = sum(getattr(n, field) for n in names), getattr(total, field)
        yield summed == whole, f"{what} of all names are those of {kind}_total ({summed} = {whole})"
    summed_ms = sum(name.time_us for name in names) // 1000
    total_ms = total.time_us // 1000
    yield (total_ms - len(names) <= summed_ms <= total_ms,
           f"ms of all names are those of {kind}_total, each rounded down "
           f"({summed_ms} and {total_ms}, {len(names)} names)")


def _check_against_ftrace(facts, kind):
    total, truth = facts.totals[kind], facts.trace[kind].counts
    for field, what in (("stalls", "stalls"), ("pages", "pages reclaimed"),
                        ("fruitless", "fruitless stalls")):
        ours, theirs = getattr(total, field), getattr(truth, field)
        yield ours == theirs, f"{what} of kind {kind} equal ftrace's ({ours} = {theirs})"
    margin_us = truth.time_us * TIME_SHARE + truth.stalls * TIME_US_PER_STALL + 1000
    yield (abs(total.time_us - truth.time_us) <= margin_us,
           f"time of kind {kind} is ftrace's ({total.time_us / 1000:.0f} and "
           f"{truth.time_us / 1000:.0f} ms, {margin_us / 1000:.0f} ms allowed)")


def _check_against_vmstat(facts):
    direct = facts.totals["direct"]
    # A reclaim that starts over (`retry` in do_try_to_free_pages, mm/vmscan.c)
    # counts another allocstall, but is one stall.
    allocstall = sum_allocstall(facts.growth)
    sign = "=" if direct.stalls == allocstall else "<="
    yield (direct.stalls <= allocstall,
           "stalls of kind direct are the growth of allocstall_*, less where "
           f"reclaim retried ({direct.stalls} {sign} {allocstall})")
    # nr_reclaimed has slab pages too (flush_reclaim_state and its like in
    # mm/vmscan.c), pgsteal has not.
    pages, who, truths = direct.pages, "direct", [facts.trace["direct"]]
    if pgsteal_has_memcg(facts):
        pages, who = pages + facts.totals["memcg"].pages, "direct and memcg"
        truths.append(facts.trace["memcg"])
    pgsteal = sum_pgsteal(facts.growth)
    slab = sum(truth.counts.pages - truth.lru_pages for truth in truths)
    yield (pages == pgsteal + slab,
           f"pages of kind {who} are the growth of pgsteal_direct and slab pages "
           f"({pages} = {pgsteal} + {slab})")


def _check_account(facts):
    """Names and health."""
    stalls = {name: counts.stalls for name, counts in facts.names["direct"].items()
              if name not in BYSTANDERS}
    culprit, total = stalls.get(CULPRIT, 0), sum(stalls.values())
    yield (culprit > CULPRIT_SHARE * total,
           f"{CULPRIT} has most of the direct stalls but for collectd's own "
           f"({culprit} of {total})")
    for kind in KINDS:
        # Where the plugin looks at begin words under way, at all.
        if facts.pending[kind] is not None:
            yield (facts.pending[kind] == 0,
                   f"no {kind} stall stays under way after the load ({facts.pending[kind]:g})")
    yield facts.unattributed == 0, f"no stall is unattributed ({facts.unattributed})"
    yield facts.untimed == 0, f"no stall is untimed ({facts.untimed})"


def _check_bpf_test(name, status, output):
    """Each line of a test in TAP, and one for the test as a whole."""
    points = re.findall(r"^(ok|not ok)\b[ \d]*(?:- )?(.*)$", output, re.MULTILINE)
    for result, behaviour in points:
        yield result == "ok", f"{name}: {behaviour}"
    plan = re.search(r"^1\.\.(\d+)", output, re.MULTILINE)
    planned = int(plan[1]) if plan else None
    yield (status == "0" and planned == len(points) > 0,
           f"{name}: ends with status 0 and all its tests ({status}, "
           f"{len(points)} of {planned})")


def check(facts):
    """Yields (whether it holds, what) for each thing that must hold."""
    yield from _check_conditions(facts)
    for kind in KINDS:
        yield from _check_against_ftrace(facts, kind)
        yield from _check_sums(facts, kind)
    yield from _check_against_vmstat(facts)
    yield from _check_account(facts)
    for test in facts.bpf_tests:
        yield from _check_bpf_test(*test)


TABLE_HEAD = """\
| kernel | stalls: plugin | ftrace | allocstall | pages: plugin | ftrace | pgsteal_direct | time in ms: plugin | ftrace | \
memcg stalls: plugin | ftrace | pages: plugin | ftrace | untimed |
|""" + " --- |" * 14


def table_row(facts):
    """A guest's figures, as a row below TABLE_HEAD."""
    direct, memcg = facts.totals["direct"], facts.totals["memcg"]
    direct_truth, memcg_truth = (facts.trace[kind].counts for kind in KINDS)
    pgsteal = str(sum_pgsteal(facts.growth))
    if pgsteal_has_memcg(facts):
        pgsteal += ", memcg included"
    cells = [facts.release, direct.stalls, direct_truth.stalls,
             sum_allocstall(facts.growth), direct.pages, direct_truth.pages, pgsteal,
             direct.time_us // 1000, direct_truth.time_us // 1000,
             memcg.stalls, memcg_truth.stalls, memcg.pages, memcg_truth.pages,
             facts.untimed]
    return "| " + " | ".join(map(str, cells)) + " |"
