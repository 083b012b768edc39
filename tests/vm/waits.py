# SPDX-License-Identifier: MIT
"""Tasks that wait for memory as guest/waits makes them: what ftrace says of
throttled tasks, of direct compaction, of proactive reclaim and of stalls that
last for many reads of the plugin, and whether the plugin says the same. All but
`read_waits` is pure."""

import collections
import dataclasses
import re

import check
from facts import (KINDS, NR_RECLAIMED, Counts, Trace, counts_of, read_facts, read_file,
                   read_last_values, read_series, trace_events)

PROACTIVE = "memcg_proactive"
# The plugin's kinds that only this work provokes.
NEW_KINDS = ("compact", "throttle", PROACTIVE)
MIN_SECTIONS, MIN_THROTTLED, MIN_PROACTIVE = 5, 10, 20

# What a pause of the guest between two stamps may add: stalls are few here.
SPARE_US = 10000

# The share of the calls' time that may lie outside of the zones they compact.
CALL_SHARE, CALL_US = 0.01, 5000

# Tasks wait for a frozen file system for some 20 s. Reads are a second apart.
MIN_LONG_US, MIN_READS, MIN_PROACTIVE_READS = 10 * 1000000, 7, 5

# A read says when it ended and how long it took: when it looked at stalls under
# way lies in between, but for what it and ftrace need to stamp an event.
LOOK_US = 20000

THROTTLED = re.compile(r"\busect?_delayed=(\d+) reason=(?:VMSCAN_THROTTLE_)?(\S+)")
# "  name  hits  misses"
PROBE = re.compile(r"^\s*(\w+)\s+(\d+)\s+(\d+)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Span:
    """From the begin of something to its end, in one thread."""
    tid: int
    begin_us: int
    end_us: int

    def length_us(self):
        """How long it took."""
        return self.end_us - self.begin_us

    def holds(self, other):
        """Whether another one lies within this one, in the same thread."""
        return (self.tid == other.tid and self.begin_us <= other.begin_us
                and other.end_us <= self.end_us)


@dataclasses.dataclass
class Compaction:
    """What ftrace saw of compaction."""
    direct: list      # spans: one zone each, for the memory that the task needs
    idle: list        # spans: one zone each, by kcompactd or because it was asked for
    calls: list       # spans of try_to_compact_pages
    announced: int    # how often the kernel said that it is in such a call
    unpaired: int     # begins without an end, ends without a begin
    missed: int = 0   # probes that the kernel had no room for

    def again(self):
        """Of `idle`, those of tasks that compacted for themselves before."""
        tids = {call.tid for call in self.calls}
        return [span for span in self.idle if span.tid in tids]

    def busy_calls(self):
        """Calls that compact a zone; others find that there is no point."""
        return [call for call in self.calls if any(map(call.holds, self.direct))]


@dataclasses.dataclass
class Read:
    """What a read of the plugin said of a kind, on ftrace's clock."""
    begin_us: int
    end_us: int
    time_us: int
    pending: float  # None where the plugin does not look at stalls under way
    oldest_s: float


@dataclasses.dataclass
class Waits:
    """All that is known of one guest's waits, beside its Facts."""
    compaction: Compaction
    can_throttle: bool  # whether the kernel has the event
    throttled: dict     # reason: us of each time, of tasks
    kswapd: list        # us of each time of kswapd, which nobody waits for
    stalls: list        # spans of kind memcg
    frozen_us: int      # when a file system is frozen; the guest is calm then
    reads: list         # of kind memcg
    can_reclaim: bool   # whether the kernel has memory.reclaim
    proactive: list     # spans of tasks that write to it, which `stalls` has not
                        # where the plugin tells them apart
    proactive_reads: list


def total_us(spans):
    """How long all of them took."""
    return sum(span.length_us() for span in spans)


def time_in_stretch(stalls, begin_us, end_us):
    """How much of the stalls' time passed between two moments."""
    return sum(max(0, min(stall.end_us, end_us) - max(stall.begin_us, begin_us))
               for stall in stalls)


def in_stretch(stalls, begin_us, end_us):
    """Stalls of which any part lies between two moments."""
    return [stall for stall in stalls
            if stall.begin_us <= end_us and stall.end_us >= begin_us]


def through_stretch(stalls, begin_us, end_us):
    """Stalls of which some part lies before one moment, and some after another."""
    return [stall for stall in stalls
            if stall.begin_us < begin_us and stall.end_us > end_us]


def pair_spans(events, begin, end):
    """Spans from one event to another in each thread, and how many events have
    no partner."""
    spans, under_way, unpaired = [], {}, 0
    for tid, now_us, event, _ in events:
        if event == begin:
            unpaired += tid in under_way
            under_way[tid] = now_us
        elif event == end:
            if tid in under_way:
                spans.append(Span(tid, under_way.pop(tid), now_us))
            else:
                unpaired += 1
    return spans, unpaired + len(under_way)


def parse_compaction(events):
    """Direct compaction is what lies within a call of try_to_compact_pages:
    kcompactd and who writes to compact_memory make none."""
    zones, unpaired = pair_spans(events, "mm_compaction_begin", "mm_compaction_end")
    calls, half_calls = pair_spans(events, "compact_call", "compact_return")
    calls_of = collections.defaultdict(list)
    for call in calls:
        calls_of[call.tid].append(call)
    direct = [zone for zone in zones if any(call.holds(zone) for call in calls_of[zone.tid])]
    return Compaction(
        direct, [zone for zone in zones if zone not in direct], calls,
        sum(event == "mm_compaction_try_to_compact_pages" for _, _, event, _ in events),
        unpaired + half_calls)


def parse_throttled(events, kswapd):
    """How long tasks were throttled each time, by reason; and kswapd, whose
    threads are given."""
    reasons, others = collections.defaultdict(list), []
    for tid, _, event, fields in events:
        if event == "mm_vmscan_throttled":
            delayed, reason = THROTTLED.search(fields).groups()
            (others if tid in kswapd else reasons[reason]).append(int(delayed))
    return dict(reasons), others


def parse_parts(text):
    """When each part of the work began, and what to take from the time of day
    to have ftrace's time, both in us."""
    parts = {name: (int(mono), int(day)) for name, mono, day in map(str.split, text.splitlines())}
    mono, day = parts["frozen"]
    return {name: times[0] for name, times in parts.items()}, day - mono


def make_reads(series, kind, ahead_us):
    """The plugin's reads of a kind. Series of one read carry one time; one in
    which collectd ended lacks its last."""
    def values(type_name, type_instance):
        return dict(series.get(("", type_name, type_instance), []))
    took = values("duration", "read")
    pending = values("pending_operations", f"{kind}_total")
    oldest = values("duration", f"{kind}_total_oldest")
    return [Read(now_us - ahead_us - round(took[now_us] * 1000000), now_us - ahead_us,
                 time_ms * 1000, pending.get(now_us), oldest.get(now_us))
            for now_us, time_ms in values("total_time_in_ms", f"{kind}_total").items()
            if now_us in took]


def trace_of(each):
    """Stalls as ftrace's of a kind."""
    counts = Counts()
    for stall in each:
        counts.add(stall)
    return Trace(counts, len(each), each=each)


def as_trace(times_us):
    """Stalls that reclaim nothing."""
    return trace_of([Counts(1, time_us) for time_us in times_us])


def parse_memcg(events):
    """Spans of memcg reclaim, whoever asked for it, and what ftrace says of
    each."""
    ends = "mm_vmscan_memcg_reclaim_end"
    spans, _ = pair_spans(events, "mm_vmscan_memcg_reclaim_begin", ends)
    pages = {(tid, now_us): int(NR_RECLAIMED.search(fields)[1])
             for tid, now_us, event, fields in events if event == ends}
    return [(span, Counts(1, span.length_us(), pages[span.tid, span.end_us],
                          int(pages[span.tid, span.end_us] == 0))) for span in spans]


def read_waits(folder):
    """Reads a folder of raw files: facts, in which the new kinds are, and
    waits."""
    facts, values = read_facts(folder), read_last_values(folder)
    events = list(trace_events(read_file(folder, "trace")))
    parts, ahead_us = parse_parts(read_file(folder, "parts"))
    compaction = parse_compaction(events)
    compaction.missed = sum(int(misses) for _, _, misses in
                            PROBE.findall(read_file(folder, "probes")))
    reasons, kswapd = parse_throttled(
        events, set(map(int, read_file(folder, "kswapd").split())))
    for kind in NEW_KINDS:
        attached = values.get(("", "gauge", f"attached_{kind}"))
        if attached is not None:
            facts.attached[kind] = attached == 1
        facts.totals[kind] = counts_of(values, "", f"{kind}_total")
    facts.trace["compact"] = as_trace([zone.length_us() for zone in compaction.direct])
    facts.trace["throttle"] = as_trace(sum(reasons.values(), []))
    stalls, series = parse_memcg(events), read_series(folder)
    writers = set(map(int, read_file(folder, "writers").split()))
    proactive = [stall for stall in stalls if stall[0].tid in writers]
    facts.trace[PROACTIVE] = trace_of([counts for _, counts in proactive])
    if facts.attached.get(PROACTIVE):
        stalls = [stall for stall in stalls if stall[0].tid not in writers]
        facts.trace["memcg"] = trace_of([counts for _, counts in stalls])
    return facts, Waits(
        compaction, read_file(folder, "throttled").strip() == "yes", reasons, kswapd,
        [span for span, _ in stalls], parts["frozen"], make_reads(series, "memcg", ahead_us),
        read_file(folder, "proactive").strip() == "yes", [span for span, _ in proactive],
        make_reads(series, PROACTIVE, ahead_us))


def long_stall(waits):
    """The longest one."""
    return max(waits.stalls, key=Span.length_us, default=Span(0, 0, 0))


def is_looking(waits):
    """Whether the plugin looks at stalls under way."""
    return any(read.pending is not None for read in waits.reads)


def has_kind(facts, kind):
    """Whether the plugin has a kind at all; if so it says whether it is
    attached."""
    return kind in facts.attached


def _check_truth(facts, waits):
    """What is compared with was provoked, and ftrace's figures agree among
    themselves."""
    compaction, direct_us = waits.compaction, total_us(waits.compaction.direct)
    yield (len(compaction.direct) >= MIN_SECTIONS,
           f"at least {MIN_SECTIONS} zones were compacted by tasks that allocate "
           f"({len(compaction.direct)})")
    yield (compaction.unpaired == compaction.missed == 0
           and len(compaction.calls) == compaction.announced,
           "ftrace pairs all begins and ends of compaction, and misses no call "
           f"({len(compaction.calls)} of {compaction.announced}, {compaction.unpaired} without "
           f"partner, {compaction.missed} missed)")
    yield (len(compaction.again()) > 0,
           "a task that allocated compacts because it was asked to, too, which is no stall "
           f"({len(compaction.again())})")
    calls_us = total_us(compaction.busy_calls())
    margin_us = calls_us * CALL_SHARE + len(compaction.busy_calls()) * CALL_US + SPARE_US
    yield (calls_us - margin_us <= direct_us <= calls_us,
           f"compaction of zones is the time of calls within a per cent ({direct_us / 1000:.1f} "
           f"and {calls_us / 1000:.1f} ms)")
    throttled = facts.trace["throttle"].counts.stalls
    yield (throttled >= MIN_THROTTLED if waits.can_throttle else throttled == 0,
           f"tasks were throttled at least {MIN_THROTTLED} times, if the kernel tells "
           f"({throttled})")
    proactive = len(waits.proactive)
    yield (proactive >= MIN_PROACTIVE if waits.can_reclaim else proactive == 0,
           f"who writes to memory.reclaim stalls at least {MIN_PROACTIVE} times, if the kernel "
           f"has that ({proactive})")


def _check_throttle(facts):
    """The event carries its time: there are not two clocks."""
    total, trace = facts.totals["throttle"], facts.trace["throttle"]
    yield (total.stalls == trace.counts.stalls,
           f"stalls of kind throttle equal ftrace's ({total.stalls} = {trace.counts.stalls})")
    missing_us = check.most(trace, "time_us", facts.unattributed or 0)
    yield (trace.counts.time_us - missing_us - 1000 < total.time_us <= trace.counts.time_us,
           f"time of kind throttle is ftrace's, rounded down to ms ({total.time_us} and "
           f"{trace.counts.time_us} us, less up to {missing_us} unseen)")


def _check_new_kinds(facts, waits):
    """Kinds that only this work provokes, as far as the plugin has them."""
    for kind in NEW_KINDS:
        if has_kind(facts, kind):
            there = {"throttle": waits.can_throttle, PROACTIVE: waits.can_reclaim}.get(kind, True)
            yield (facts.attached[kind] == there,
                   f"kind {kind} is {'attached' if there else 'not attached, the kernel has none'}")
    if has_kind(facts, "compact"):
        yield from check.check_stalls_and_time(facts, "compact", SPARE_US)
    if has_kind(facts, "throttle"):
        yield from _check_throttle(facts)
    if has_kind(facts, PROACTIVE):
        yield from check.check_stalls_and_time(facts, PROACTIVE, SPARE_US)
        for kind in ("memcg", PROACTIVE):
            yield from check.check_pages(facts, kind)


def _check_long_stall(waits):
    """Reads go on while a stall lasts."""
    stall = long_stall(waits)
    yield (stall.length_us() >= MIN_LONG_US,
           f"a stall lasts for at least {MIN_LONG_US // 1000000} s ({stall.length_us() / 1e6:.1f})")
    reads = [read for read in waits.reads if stall.begin_us < read.end_us < stall.end_us]
    yield (len(reads) >= MIN_READS,
           f"the plugin reads on meanwhile (at least {MIN_READS} times: {len(reads)})")


def calm_reads(waits, reads):
    """Pairs of reads one after the other, since the file system was frozen."""
    return [(before, read) for before, read in zip(reads, reads[1:])
            if read.end_us >= waits.frozen_us]


def growth_range_ms(stalls, before, read):
    """How much time a read may tell more than the one before, at least and at
    most: both looked somewhen while they lasted. All are rounded down."""
    margin_us = 2000 + len(in_stretch(stalls, before.begin_us, read.end_us)) * LOOK_US
    least = time_in_stretch(stalls, before.end_us, read.begin_us)
    most = time_in_stretch(stalls, before.begin_us, read.end_us)
    return (least - margin_us) / 1000, (most + margin_us) / 1000


def pending_range(stalls, read):
    """How many stalls a read may find under way, at least and at most."""
    window = read.begin_us - LOOK_US, read.end_us + LOOK_US
    return len(through_stretch(stalls, *window)), len(in_stretch(stalls, *window))


def oldest_range_s(stalls, read):
    """How old the oldest of them may be."""
    window = read.begin_us - LOOK_US, read.end_us + LOOK_US
    sure, possible = through_stretch(stalls, *window), in_stretch(stalls, *window)
    least = max((window[0] - stall.begin_us for stall in sure), default=0)
    most = max((window[1] - stall.begin_us for stall in possible), default=0)
    return least / 1e6, most / 1e6


def _check_reads(what, found):
    """Of each read: its end, what it told, and what it may, at least and at most."""
    wrong = [f"{value} of {least:g} to {most:g} at {end_us / 1e6:.3f} s"
             for end_us, value, (least, most) in found
             if value is None or not least <= value <= most]
    return (found != [] and not wrong,
            f"{what} ({len(found)} reads, {len(wrong)} wrong: {'; '.join(wrong[:3]) or 'none'})")


def _check_under_way(kind, stalls, pairs):
    """Each read says what is under way, and credits the time that passed."""
    yield _check_reads(
        f"each read's growth of {kind} time is what passed since the one before, in ms",
        [(read.end_us, (read.time_us - before.time_us) // 1000,
          growth_range_ms(stalls, before, read)) for before, read in pairs])
    yield _check_reads(
        f"each read tells the number of {kind} stalls under way",
        [(read.end_us, read.pending, pending_range(stalls, read)) for _, read in pairs])
    yield _check_reads(
        f"each read tells the age of the oldest {kind} stall",
        [(read.end_us, read.oldest_s, oldest_range_s(stalls, read)) for _, read in pairs])


def check_waits(facts, waits):
    """Yields (whether it holds, what) for each thing that must hold."""
    yield from check.check_witnesses(facts)
    yield from _check_truth(facts, waits)
    for kind in KINDS:
        yield facts.attached[kind], f"kind {kind} is attached"
        yield from check.check_stalls_and_time(facts, kind, SPARE_US)
    yield from _check_new_kinds(facts, waits)
    yield from _check_long_stall(waits)
    if is_looking(waits):
        yield from _check_under_way("memcg", waits.stalls, calm_reads(waits, waits.reads))
    if facts.attached.get(PROACTIVE):
        pairs = calm_reads(waits, waits.proactive_reads)
        yield from _check_under_way(PROACTIVE, waits.proactive, pairs)
        found = sum(read.pending == 1 for _, read in pairs)
        yield (found >= MIN_PROACTIVE_READS,
               f"reads find a proactive stall under way (at least {MIN_PROACTIVE_READS}: "
               f"{found})")


def describe(facts, waits):
    """What a person wants to know of a guest; and what no check said, for the
    plugin does not have it."""
    compaction = waits.compaction
    for kind in NEW_KINDS:
        if not has_kind(facts, kind):
            yield f"NOT COMPARED: the plugin has no kind {kind}"
    if not is_looking(waits):
        yield "NOT COMPARED: the plugin does not look at stalls under way"
    yield (f"compaction: {len(compaction.direct)} zones in {len(compaction.busy_calls())} of "
           f"{len(compaction.calls)} calls, {total_us(compaction.direct) / 1000:.1f} of "
           f"{total_us(compaction.calls) / 1000:.1f} ms; not for the task itself: "
           f"{len(compaction.idle)} zones, {len(compaction.again())} of them by such a task")
    reasons = [f"{reason} {len(times)} times, {sum(times)} us"
               for reason, times in sorted(waits.throttled.items())]
    yield (f"throttled: {'; '.join(reasons) or 'none'}; kswapd: {len(waits.kswapd)} times, "
           f"{sum(waits.kswapd)} us")
    truth = facts.trace[PROACTIVE].counts
    yield (f"proactive: {truth.stalls} stalls, {truth.pages} pages, {truth.time_us} us; of "
           f"{truth.stalls + len(waits.stalls)} of memory cgroups"
           if has_kind(facts, PROACTIVE) else f"proactive: {truth.stalls} stalls, told as memcg")
    stall = long_stall(waits)
    yield (f"longest stall: {stall.length_us() / 1e6:.2f} s; under way with it: "
           f"{len(in_stretch(waits.stalls, stall.begin_us, stall.end_us)) - 1}")
