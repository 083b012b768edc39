# SPDX-License-Identifier: MIT
"""Stalls one by one: what reclaimsnoop printed of each against ftrace's events.
All but `read_events` is pure."""

import collections
import dataclasses
import datetime
import json
import os
import re
import statistics

import check
from facts import KINDS, Counts, parse_programs

# " comm-TID  [CPU] flags  seconds.micros: event: fields"
LINE = re.compile(
    r"^ *(.*)-(\d+)\s+\[\d+\]\s+\S+\s+(\d+)\.(\d{6}): (\w+): ?(.*)$", re.DOTALL)
UNKNOWN_COMM = "<...>"  # ftrace remembers those of some tasks only
EDGE = re.compile(r"mm_vmscan_(direct|memcg)_reclaim_(begin|end)")
BEGIN = re.compile(r"\border=(\d+) gfp_flags=(\S+)")
END = re.compile(r"\bnr_reclaimed=(\d+)")
NEW_TASK = re.compile(r"pid=(\d+) comm=(.*) clone_flags=\S+ oom_score_adj=-?\d+ ?$", re.DOTALL)
RENAME = re.compile(r"(?:pid=(\d+) )?oldcomm=.* newcomm=(.*) oom_score_adj=-?\d+ ?$", re.DOTALL)

TOTALS = re.compile(
    r"(\d+) stalls?: (\d+) printed(?:, (\d+) not selected)?, (\d+) lost"
    r"(?:, (\d+) hidden by the kernel)?(?: \((\d+) of unknown time\))?")
EPOCH = datetime.datetime(1970, 1, 1)

# A pause of an emulated CPU between two stamps of one event adds to a single
# stall what no share of its time allows. So this many must be within the
# margins, and the typical difference must be small.
SHARE_NEAR = 0.75
OTHER_STALL = 10**12


@dataclasses.dataclass(frozen=True)
class Stall:
    """One stall, as one witness saw it."""
    tid: int
    kind: str
    comm: str     # with escapes; None: not known
    pages: int
    order: int    # None: not known
    gfp: str      # likewise
    time_us: float  # likewise
    end_us: int   # by the witness's clock

    def request(self):
        """What both witnesses must say alike."""
        return (self.tid, self.kind, self.pages, self.order, self.gfp)


@dataclasses.dataclass
class Events:
    """What ftrace and reclaimsnoop saw of one guest's run."""
    truth: list      # stalls
    printed: list    # stalls
    totals: dict     # what reclaimsnoop says at its end; empty if it does not
    said: str        # anything else on its standard error
    status: str
    skipped: dict    # its BPF programs: how often the kernel skipped each
    kthreads: set    # threads of the kernel


def escape(comm):
    """A comm, a character a byte, as reclaimsnoop prints it."""
    return "".join(c if " " <= c <= "~" and c != "\\" else f"\\x{ord(c):02x}" for c in comm)


def unescape(text):
    """The comm in what reclaimsnoop printed."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), text)


def name_of(comm, kthread):
    """A comm as the plugin names it with Fold."""
    if kthread:
        folded = re.split("[/:0-9]", comm)[0]
    else:
        folded = re.sub(r"[-_#:/. ][0-9]+\Z", "", comm)
    return re.sub("[^A-Za-z0-9_-]", "_", folded).strip("_") or "unknown"


class _Comms:
    """The comm of each task at any time. ftrace prints the one that a task had
    last in front of all its events; births and renames tell when."""

    def __init__(self):
        self.now = {}

    def take(self, tid, event, fields):
        """Learns from an event."""
        if event == "task_newtask":
            child, comm = NEW_TASK.match(fields).groups()
            self.now[int(child)] = comm
        elif event == "task_rename":
            other, comm = RENAME.match(fields).groups()
            self.now[int(other or tid)] = comm

    def find(self, tid, printed):
        """A task's comm now, escaped; None if it is not known."""
        comm = self.now.get(tid, printed)
        return None if comm == UNKNOWN_COMM else escape(comm)


def parse_trace(text):
    """Stalls in ftrace's text, which has a character for each byte."""
    stalls, under_way, comms = [], {}, _Comms()
    for match in filter(None, map(LINE.match, text.split("\n"))):
        printed, tid, seconds, micros, event, fields = match.groups()
        tid, now_us = int(tid), int(seconds) * 1000000 + int(micros)
        comms.take(tid, event, fields)
        edge = EDGE.fullmatch(event)
        if edge and edge[2] == "begin":
            order, gfp = BEGIN.search(fields).groups()
            under_way[tid, edge[1]] = (now_us, int(order), gfp)
        elif edge and (tid, edge[1]) in under_way:
            begin_us, order, gfp = under_way.pop((tid, edge[1]))
            stalls.append(Stall(tid, edge[1], comms.find(tid, printed),
                                int(END.search(fields)[1]), order, gfp,
                                now_us - begin_us, now_us))
    return stalls


def _microseconds(text):
    since = datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ") - EPOCH
    return since // datetime.timedelta(microseconds=1)


def parse_printed(text):
    """Stalls that `reclaimsnoop -j` printed."""
    stalls = []
    for said in map(json.loads, text.splitlines()):
        ns = said["latency_ns"]
        stalls.append(Stall(said["tid"], said["kind"], said["comm"], said["nr_reclaimed"],
                            said["order"], said["gfp_flags"], None if ns is None else ns / 1000,
                            _microseconds(said["time"])))
    return stalls


def parse_totals(errors):
    """What reclaimsnoop wrote on standard error: its totals, and the rest."""
    *rest, last = errors.splitlines() or [""]
    match = TOTALS.fullmatch(last)
    if not match:
        return {}, errors
    what = ("counted", "printed", "unselected", "lost", "hidden", "untimed")
    return dict(zip(what, (int(number or 0) for number in match.groups()))), "\n".join(rest)


def parse_skipped(both, others):
    """How often the kernel skipped the programs that bpftool listed while
    reclaimsnoop ran, but not afterwards."""
    left = {program["id"] for program in json.loads(others)}
    return parse_programs(json.dumps([program for program in json.loads(both)
                                      if program["id"] not in left]))


def read_events(folder):
    """Reads a folder of raw files."""
    def read(name):
        with open(os.path.join(folder, name), encoding="latin-1", newline="\n") as file:
            return file.read()
    totals, said = parse_totals(read("snoop-errors"))
    return Events(parse_trace(read("trace")), parse_printed(read("snoop")), totals, said,
                  read("snoop-status").strip(),
                  parse_skipped(read("programs-with-snoop"), read("programs")),
                  {int(tid) for tid in read("kthreads").split()})


def _of_kind(stalls, kind):
    return [stall for stall in stalls if stall.kind == kind]


def _by_task(stalls):
    """Each task's stalls of a kind, in the order that both witnesses keep."""
    tasks = collections.defaultdict(list)
    for stall in stalls:
        tasks[stall.tid, stall.kind].append(stall)
    return tasks


def _unlike(ours, theirs):
    """How much speaks against two being the same stall; more than any
    difference of times does where pages are not the same."""
    apart_us = abs(ours.time_us - theirs.time_us) if ours.time_us is not None else 0
    return apart_us + (OTHER_STALL if ours.pages != theirs.pages else 0)


def _align(ours, theirs):
    """Pairs one task's stalls, where `theirs` may have more, so that the least
    speaks against them all. The n-th of ours is the n-th of theirs or a later
    one, by a shift that only grows."""
    slack = len(theirs) - len(ours)
    if slack <= 0:
        return list(zip(ours, theirs))
    best = [(0, None)] * (slack + 1)  # of each shift: cost, (shift, the ones before)
    for number, stall in enumerate(ours):
        cheapest = best[0]
        for shift in range(slack + 1):
            cheapest = min(cheapest, best[shift], key=lambda way: way[0])
            cost, shifts = cheapest
            best[shift] = (cost + _unlike(stall, theirs[number + shift]), (shift, shifts))
    shifts, pairs = min(best, key=lambda way: way[0])[1], []
    for number in range(len(ours) - 1, -1, -1):
        shift, shifts = shifts
        pairs.append((ours[number], theirs[number + shift]))
    return pairs[::-1]


def pair(printed, truth):
    """The same stall of both witnesses: [(printed, true)]. Each task's come in
    the same order; the clock that is printed may be set and is no help."""
    ours, theirs = _by_task(printed), _by_task(truth)
    return [both for task, stalls in ours.items() for both in _align(stalls, theirs[task])]


def differences_us(pairs):
    """How far the times of each pair are apart, least first."""
    return sorted(abs(ours.time_us - theirs.time_us) for ours, theirs in pairs
                  if ours.time_us is not None)


def quantile(values, share):
    """The value that this share of them does not exceed; of sorted ones."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0


def compare_requests(printed, truth):
    """Stalls that only one witness has: (too many, missing), as Counters of
    requests. One that is printed without order and flags, since the kernel hid
    its begin, stands for any of its task with as many pages."""
    left = collections.Counter(stall.request() for stall in truth)
    left.subtract(stall.request() for stall in printed if stall.order is not None)
    for stall in printed:
        if stall.order is None:
            request = next((request for request, number in left.items()
                            if number > 0 and request[:3] == stall.request()[:3]),
                           stall.request())
            left[request] -= 1
    return -left, +left


def _skipped_by_all(events, edges):
    """How many events at most no copy of reclaimsnoop's programs saw."""
    return sum(min(events.skipped.get(f"{kind}_{edge}{copy}", 0) for copy in ("", "_2", "_3"))
               for kind in KINDS for edge in edges)


def _check_totals(events):
    """Its own account."""
    yield (events.status == "0" and not events.said and events.totals != {},
           f"reclaimsnoop ends with status 0 and its totals ({events.status}, "
           f"{events.totals}, {events.said or 'no message'})")
    if not events.totals:
        return
    totals, counted = events.totals, events.totals["counted"]
    yield (counted == len(events.truth),
           f"reclaimsnoop counted as many stalls as ftrace ({counted} = {len(events.truth)})")
    yield (totals["printed"] == len(events.printed),
           f"it printed as many as it says ({len(events.printed)} = {totals['printed']})")
    yield (totals["printed"] + totals["lost"] + totals["hidden"] == counted,
           "what it printed, lost and did not get to see makes up what it counted "
           f"({totals['printed']} + {totals['lost']} + {totals['hidden']} = {counted})")
    unseen = _skipped_by_all(events, ["end"])
    yield (totals["hidden"] <= unseen,
           f"no stall that the kernel shows is hidden ({totals['hidden']}, "
           f"up to {unseen} not shown)")
    unknown = sum(stall.time_us is None or stall.order is None for stall in events.printed)
    unseen = _skipped_by_all(events, ["begin", "end"])
    yield (unknown <= totals["untimed"] <= unseen,
           f"none is of unknown time or request ({unknown}, {totals['untimed']} said, "
           f"up to {unseen} not shown)")


def _gone(events):
    """Stalls that reclaimsnoop says it did not print."""
    return events.totals.get("lost", 0) + events.totals.get("hidden", 0)


def _some(requests):
    """A few of many, for people."""
    return ", ".join(map(str, list(requests)[:3])) or "none"


def _check_requests(events):
    """Each stall's pages, order and flags."""
    missing_number = 0
    for kind in KINDS:
        printed, truth = _of_kind(events.printed, kind), _of_kind(events.truth, kind)
        extra, missing = compare_requests(printed, truth)
        missing_number += missing.total()
        yield (printed != [] and not extra,
               f"each {kind} stall that reclaimsnoop printed is one of ftrace's: task, pages, "
               f"order, flags ({len(printed)} printed, others: {_some(extra)})")
    orders, flags = ({getattr(stall, field) for stall in events.truth} for field in ("order", "gfp"))
    yield (len(orders) > 1 and len(flags) > 1,
           f"stalls differ in what they ask for ({len(orders)} orders, {len(flags)} sets of flags)")
    yield (missing_number == _gone(events),
           "of ftrace's stalls only those are missing that reclaimsnoop says it did not print "
           f"({missing_number} of {len(events.truth)}, {_gone(events)} said)")


def _check_comms(events):
    """Each stall's comm."""
    wrong = {(ours.comm, theirs.comm) for ours, theirs in pair(events.printed, events.truth)
             if theirs.comm not in (None, ours.comm)}
    yield not wrong, f"their comms are ftrace's (others: {_some(wrong)})"
    odd = {stall.comm for stall in events.printed if "\\" in stall.comm}
    yield bool(odd), f"one has bytes to escape ({_some(odd)})"


def _check_times(facts, events):
    """Each stall's time."""
    share, least_us = check.TIME_SHARE, check.TIME_US_PER_STALL
    if check.is_preempting(facts):
        share, least_us = check.PREEMPTED_TIME_SHARE, check.PREEMPTED_TIME_US_PER_STALL
    for kind in KINDS:
        pairs = [(ours, theirs) for ours, theirs in
                 pair(_of_kind(events.printed, kind), _of_kind(events.truth, kind))
                 if ours.time_us is not None]
        median_us = quantile(differences_us(pairs), 0.5)
        near = sum(abs(ours.time_us - theirs.time_us) <= theirs.time_us * share + least_us
                   for ours, theirs in pairs)
        yield (near >= SHARE_NEAR * len(pairs) and median_us <= least_us,
               f"times of {kind} stalls are ftrace's one by one ({near} of {len(pairs)} near, "
               f"half within {median_us:.0f} us of {least_us})")


def count_names(events, kind):
    """Printed stalls of a kind as the plugin names them: {name: Counts}."""
    names = collections.defaultdict(Counts)
    for stall in _of_kind(events.printed, kind):
        names[name_of(unescape(stall.comm), stall.tid in events.kthreads)].add(
            Counts(1, round(stall.time_us or 0), stall.pages, int(stall.pages == 0)))
    return dict(names)


def _check_names(facts, events):
    """Its stalls and the plugin's, which has those of unknown name in another."""
    allowed = _gone(events) + (facts.unattributed or 0)
    none = Counts()
    for kind in KINDS:
        ours, theirs = count_names(events, kind), facts.names[kind]
        names = (ours.keys() | theirs.keys()) - {"_other"}
        apart = {field: sum(abs(getattr(ours.get(name, none), field)
                                - getattr(theirs.get(name, none), field)) for name in names)
                 for field in ("stalls", "pages")}
        yield (apart["stalls"] <= allowed and (allowed > 0 or apart["pages"] == 0),
               f"reclaimsnoop and the plugin count the same {kind} stalls and pages of each name "
               f"({len(names)} names, {apart['stalls']} stalls and {apart['pages']} pages apart, "
               f"{allowed} stalls allowed)")


def check_events(facts, events):
    """Yields (whether it holds, what) for each thing that must hold."""
    yield from _check_totals(events)
    yield from _check_requests(events)
    yield from _check_comms(events)
    yield from _check_times(facts, events)
    yield from _check_names(facts, events)


def describe(events):
    """What a person wants to know of a guest and no check can say."""
    parts = [f"{kind}: {len(_of_kind(events.printed, kind))} printed, times apart by "
             "{:.0f} us (half), {:.0f} us (99 %), {:.0f} us (most)".format(
                 *(quantile(apart, share) for share in (0.5, 0.99, 1)))
             for kind in KINDS
             for apart in [differences_us(pair(_of_kind(events.printed, kind),
                                               _of_kind(events.truth, kind)))]]
    orders = collections.Counter(stall.order for stall in events.printed)
    return (f"reclaimsnoop: {events.totals}; {'; '.join(parts)}; orders: {dict(orders)}; "
            f"flags: {len({stall.gfp for stall in events.printed})} kinds")
