# SPDX-License-Identifier: MIT
"""What must hold in each guest: the plugin's counters against ftrace's events
and the kernel's own counters, over the same stretch of time. Pure."""

import re

from facts import KINDS

# Kinds that are counted by another one's programs.
PROGRAMS = {"memcg_proactive": "memcg"}

MIN_STALLS = {"direct": 20, "memcg": 50}
CULPRIT, CULPRIT_SHARE = "stress-ng-vm", 0.8
# Threads of collectd, which stall when they are swapped out, and what runs
# beside it. The slower the guest, the more of the load's time they live through.
BYSTANDERS = ("collectd", "reader", "writer", "reclaimsnoop", "sysctl", "bpftrace",
              "bpftool")

# ftrace and the BPF programs stamp the same events one after the other, so
# each stall differs by some microseconds; an interrupt between the two stamps
# takes longer, more so under emulation.
TIME_SHARE, TIME_US_PER_STALL = 0.01, 50

# Since commit a46023d5616e the kernel preempts programs on tracepoints, and
# skips them meanwhile (kernel/trace/bpf_trace.c: __bpf_trace_run). A task may
# have to wait for its CPU between the two stamps, then.
PREEMPTING_SINCE = 7
PREEMPTED_TIME_SHARE, PREEMPTED_TIME_US_PER_STALL = 0.05, 1000


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


def is_preempting(facts):
    """Whether the kernel preempts programs on tracepoints."""
    return int(facts.release.split(".")[0]) >= PREEMPTING_SINCE


def _time_margin_us(facts, truth):
    """How far the plugin's sum of times may be from ftrace's."""
    share, us_per_stall = TIME_SHARE, TIME_US_PER_STALL
    if is_preempting(facts):
        share, us_per_stall = PREEMPTED_TIME_SHARE, PREEMPTED_TIME_US_PER_STALL
    return truth.time_us * share + truth.stalls * us_per_stall + 1000


def _skipped_by_all(facts, kind, edge):
    """How many events of a kind at most no copy of a program saw; none where
    there is but one copy."""
    program = f"{PROGRAMS.get(kind, kind)}_{edge}"
    return min(facts.skipped.get(program + copy, 0) for copy in ("", "_2", "_3"))


def _lost(facts, kind):
    """How many stalls of a kind at most the plugin knows by their number
    only: no more than it says, and no more than the kernel can have skipped."""
    return min(facts.unattributed or 0, _skipped_by_all(facts, kind, "end"))


def _untimed(facts, kind):
    """Likewise without a time."""
    return min(facts.untimed or 0,
               _lost(facts, kind) + _skipped_by_all(facts, kind, "begin"))


def most(trace, field, number):
    """What so many stalls can make up of a sum, at most."""
    values = sorted((getattr(stall, field) for stall in trace.each), reverse=True)
    return sum(values[:number])


def check_witnesses(facts):
    """Nobody failed who counts."""
    yield facts.trace_lost == 0, f"ftrace lost no record ({facts.trace_lost})"
    yield (facts.collectd_status == "0" and not facts.collectd_errors,
           "collectd ends with status 0 and no error in its log "
           f"({'; '.join([facts.collectd_status, *facts.collectd_errors[:3]])})")


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
    if facts.beside is not None:
        for what, number in facts.beside.items():
            yield number > 0, f"there are {what} beside the plugin ({number})"
    yield (facts.attached_again == is_preempting(facts),
           f"each program is attached {'three times' if is_preempting(facts) else 'once'}")
    yield from check_witnesses(facts)


def check_sums(facts, kind):
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


def _equation(ours, theirs, missing):
    """Both sums, and what stalls that the kernel hid may have had."""
    return f"{ours} = {theirs}" + (f", less up to {missing} unseen" if missing else "")


def check_stalls_and_time(facts, kind, spare_us=0):
    """A kind's total against ftrace. Where stalls are few, a pause of the guest
    between two stamps shows; so much of it is let pass."""
    total, truth = facts.totals[kind], facts.trace[kind].counts
    yield (total.stalls == truth.stalls,
           f"stalls of kind {kind} equal ftrace's ({total.stalls} = {truth.stalls})")
    margin_us = _time_margin_us(facts, truth) + spare_us
    missing_us = most(facts.trace[kind], "time_us", _untimed(facts, kind))
    yield (truth.time_us - margin_us - missing_us <= total.time_us <= truth.time_us + margin_us,
           f"time of kind {kind} is ftrace's ({total.time_us / 1000:.0f} and "
           f"{truth.time_us / 1000:.0f} ms, {(margin_us + missing_us) / 1000:.0f} ms allowed)")


def check_pages(facts, kind):
    """A kind's pages and its stalls without any, against ftrace."""
    total, truth = facts.totals[kind], facts.trace[kind].counts
    for field, what in (("pages", "pages reclaimed"), ("fruitless", "fruitless stalls")):
        ours, theirs = getattr(total, field), getattr(truth, field)
        missing = most(facts.trace[kind], field, _lost(facts, kind))
        yield (theirs - missing <= ours <= theirs,
               f"{what} of kind {kind} equal ftrace's ({_equation(ours, theirs, missing)})")


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
    kinds = KINDS if pgsteal_has_memcg(facts) else ("direct",)
    pages = sum(facts.totals[kind].pages for kind in kinds)
    slab = sum(facts.trace[kind].counts.pages - facts.trace[kind].lru_pages for kind in kinds)
    missing = sum(most(facts.trace[kind], "pages", _lost(facts, kind)) for kind in kinds)
    pgsteal = sum_pgsteal(facts.growth)
    yield (pgsteal + slab - missing <= pages <= pgsteal + slab,
           f"pages of kind {' and '.join(kinds)} are the growth of pgsteal_direct and slab pages "
           f"({_equation(pages, f'{pgsteal} + {slab}', missing)})")


def check_account(facts):
    """Names and health."""
    stalls = {name: counts.stalls for name, counts in facts.names["direct"].items()
              if name not in BYSTANDERS}
    culprit, total = stalls.get(CULPRIT, 0), sum(stalls.values())
    yield (culprit > CULPRIT_SHARE * total,
           f"{CULPRIT} has most of the direct stalls but for collectd's own "
           f"({culprit} of {total})")
    yield from check_unseen(facts)


def check_unseen(facts):
    """Health: nothing stays under way, or was not seen, but what the kernel hid."""
    for kind in KINDS:
        # Where the plugin looks at begin words under way, at all.
        if facts.pending[kind] is not None:
            yield (facts.pending[kind] <= _lost(facts, kind),
                   f"no {kind} stall stays under way after the load ({facts.pending[kind]:g})")
    for edges, field in ((("end",), "unattributed"), (("begin", "end"), "untimed")):
        number = getattr(facts, field)
        unseen = sum(_skipped_by_all(facts, kind, edge) for kind in KINDS for edge in edges)
        yield (number is not None and number <= unseen,
               f"no stall that the kernel shows is {field} ({number}, up to {unseen} not shown)")


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
        yield from check_stalls_and_time(facts, kind)
        yield from check_pages(facts, kind)
        yield from check_sums(facts, kind)
    yield from _check_against_vmstat(facts)
    yield from check_account(facts)
    yield facts.bpf_tests != [], "the build folder has tests of the BPF programs"
    for test in facts.bpf_tests:
        yield from _check_bpf_test(*test)


def describe(facts):
    """What a person wants to know of a guest and no check can say."""
    skipped = [f"{program} {times}" for program, times in sorted(facts.skipped.items())
               if times and program.startswith(KINDS)]
    return (f"preemption: {facts.preemption or 'not said'}; "
            f"skipped by the kernel: {', '.join(skipped) or 'nothing'}; "
            f"unattributed: {facts.unattributed}; untimed: {facts.untimed}")


TABLE_HEAD = """\
| kernel | direct stalls | pages | pgsteal_direct | memcg stalls | pages |
| --- |""" + " ---: |" * 5


def table_row(facts, special):
    """A guest's figures, as a row below TABLE_HEAD: the plugin's, ftrace's, and
    the kernel's stalls. `special` is how it was booted, if not as usual."""
    direct, memcg = (facts.totals[kind] for kind in KINDS)
    direct_truth, memcg_truth = (facts.trace[kind].counts for kind in KINDS)
    cells = [f"{facts.version}, {special}" if special else facts.version,
             f"{direct.stalls} / {direct_truth.stalls} / {sum_allocstall(facts.growth)}",
             f"{direct.pages} / {direct_truth.pages}",
             f"{sum_pgsteal(facts.growth)}{' *' if pgsteal_has_memcg(facts) else ''}",
             f"{memcg.stalls} / {memcg_truth.stalls}",
             f"{memcg.pages} / {memcg_truth.pages}"]
    return "| " + " | ".join(cells) + " |"
