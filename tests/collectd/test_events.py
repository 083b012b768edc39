#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Notifications of single stalls, through collectd's own ways to a program:
what arrives there, against ftrace's account of the same stalls."""

import collections
import glob
import os
import re
import statistics
import tempfile
import time

from harness import (Collectd, Staller, Tap, Trace, bpf_objects,
                     need_live_machine, sanitizer, wait_for)

FORGER = b"\nSeverity: OKAY"  # all that fits into a comm
FORGER_TEXT = r"\x0aSeverity: OKAY"
UNPRIVILEGED = "nobody"  # the exec plugin runs nothing as root

Arrival = collections.namedtuple("Arrival", "when headers message")


class Inbox:
    """What a NotificationExec program was given, a file a notification."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="reclaim-inbox-")
        os.chmod(self.folder, 0o777)
        self.program = f"{self.folder}/notified"
        with open(self.program, "w", encoding="ascii") as script:
            script.write("#!/bin/sh\n"
                         f"cat >{self.folder}/$$.part\n"
                         f"mv {self.folder}/$$.part {self.folder}/$$.$(date +%s.%N)\n")
        os.chmod(self.program, 0o755)

    def configuration(self):
        return (f'LoadPlugin exec\n<Plugin exec>\n  NotificationExec '
                f'"{UNPRIVILEGED}" "{self.program}"\n</Plugin>')

    def arrivals(self):
        """All that arrived, oldest first; a header that comes twice has both
        values."""
        found = []
        for path in glob.glob(f"{self.folder}/[0-9]*.[0-9]*.[0-9]*"):
            with open(path, encoding="ascii") as file:
                head, _, message = file.read().partition("\n\n")
            headers = collections.defaultdict(list)
            for line in head.splitlines():
                name, _, value = line.partition(": ")
                headers[name].append(value)
            when = float(os.path.basename(path).partition(".")[2])
            found.append(Arrival(when, headers, message.rstrip("\n")))
        return sorted(found, key=lambda arrival: arrival.when)

    def clean(self):
        for path in glob.glob(f"{self.folder}/*"):
            os.unlink(path)
        os.rmdir(self.folder)


def one(arrival, header):
    """The value of a header that must be there once."""
    values = arrival.headers.get(header, [])
    return values[0] if len(values) == 1 else f"{header} is there {len(values)} times"


def is_of_one_stall(arrival):
    return "tid" in arrival.headers


def own_cgroup():
    """The path in the v2 hierarchy, None where there is none."""
    with open("/proc/self/cgroup", encoding="ascii") as file:
        found = re.search(r"^0::(.*)$", file.read(), re.M)
    return found[1] if found else None


def match(arrivals, stalls):
    """Pairs of an arrival and the stall of ftrace that it tells of: same
    thread and pages, and ends that are closest."""
    offset = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
    left, pairs = list(stalls), []
    for arrival in arrivals:
        end = float(one(arrival, "Time")) - offset
        alike = [stall for stall in left
                 if str(stall.tid) == one(arrival, "tid")
                 and str(stall.pages) == one(arrival, "nr_reclaimed")]
        if alike:
            nearest = min(alike, key=lambda stall: abs(stall.end - end))
            left.remove(nearest)
            pairs.append((arrival, nearest))
    return pairs


def check_fields(tap, pairs):
    """What each notification says, against ftrace."""
    tap.equal([(one(a, "order"), one(a, "gfp_flags")) for a, _ in pairs],
              [(str(s.order), s.gfp_flags) for _, s in pairs],
              "order and gfp_flags are as ftrace prints them")
    differences = [abs(int(one(a, "latency_ns")) / 1e9 - s.duration)
                   for a, s in pairs]
    tap.ok(statistics.median(differences) < 0.01 * statistics.median(
        s.duration for _, s in pairs) + 0.00005,
        "the time of a stall is that of ftrace", differences)
    tap.ok(all(a.message.startswith(f"{one(a, 'comm')}[{s.tid}] stalled ")
               and f" ms in memcg reclaim: {s.pages} pages, order {s.order}, " in a.message
               for a, s in pairs), "the message says the same",
           "\n".join(a.message for a, _ in pairs))


def check_staller(tap, arrivals, staller):
    """What notifications say of whom we know: others may stall beside."""
    mine = [a for a in arrivals if int(one(a, "tid")) in staller.comms]
    tap.equal({one(a, "PluginInstance"): one(a, "comm") for a in mine},
              {"Severity__OKAY": FORGER_TEXT, "plain": "plain"},
              "instances are names, comms are escaped")
    tap.equal({one(a, "pid") for a in mine}, {str(staller.process.pid)},
              "pid is the process")
    cgroup = own_cgroup()
    if cgroup:
        tap.equal({one(a, "cgroup") for a in mine}, {cgroup},
                  "cgroup is the path in the v2 hierarchy")


def test_every_stall(tap):
    """All stalls of a load, few told one by one, the rest in sums."""
    inbox, trace = Inbox(), Trace()
    collectd = Collectd("EventThreshold 0.000001\nEventsPerInterval 60\nKinds memcg",
                        more=inbox.configuration()).start()
    staller = Staller([b"plain", FORGER], 64, seconds=3, leader=b"leader")
    staller.wait()
    collectd.wait_reads(3)
    stalls = trace.stalls()
    tap.equal(collectd.stop(), 0, "collectd ends as always")
    # The last programs may be at work when collectd has ended.
    wait_for(lambda: not glob.glob(f"{inbox.folder}/*.part"), "the last program")
    arrivals = inbox.arrivals()
    single = [a for a in arrivals if is_of_one_stall(a)]
    closing = [a for a in arrivals if not is_of_one_stall(a)]
    told = len(single) + sum(int(one(a, "stalls")) for a in closing)
    lost = sum(int(one(a, "events_lost")) for a in closing)
    tap.note(f"{len(stalls)} stalls: {len(single)} told one by one, {lost} lost")
    tap.equal(told, len(stalls), "each stall is told, alone or in a sum")
    tap.equal(collectd.growth("reclaim/total_events-events_lost"), lost,
              "what was lost is what the health series says")
    tap.ok(closing and len(closing) < len(single) <= 60 * (len(closing) + 1),
           "EventsPerInterval are told one by one", (len(closing), len(single)))

    tap.ok({one(a, "Severity") for a in arrivals} == {"WARNING"} and
           {one(a, "Host") for a in arrivals} == {"testhost"},
           "no comm forges a header", arrivals)
    check_staller(tap, single, staller)
    tap.ok({one(a, "Type") for a in arrivals} == {"latency"} and
           {one(a, "TypeInstance") for a in single} == {"memcg"},
           "type and kind")
    pairs = match(single, stalls)
    tap.equal(len(pairs), len(single), "each tells of a stall that ftrace saw")
    check_fields(tap, pairs)
    tap.equal(collectd.complaints(), [], "and the log has no complaint")
    trace.remove()
    collectd.clean()
    inbox.clean()


def test_latency_and_threshold(tap):
    """How soon a notification comes, where reads are seconds apart; and the
    threshold plugin on the longest stall."""
    interval = 4
    inbox = Inbox()
    collectd = Collectd(
        "EventThreshold 0.00002\nEventsPerInterval 4", interval=interval,
        more=inbox.configuration() + '''
LoadPlugin threshold
<Plugin threshold>
  <Plugin "reclaim">
    <Type "latency">
      Instance "memcg_total_max"
      FailureMax 0.00002
    </Type>
  </Plugin>
</Plugin>''').start()
    staller = Staller([b"plain", FORGER], 512, leader=b"leader")
    staller.wait()
    def alarms():
        return [one(a, "Severity") for a in inbox.arrivals()
                if "CurrentValue" in a.headers]
    wait_for(lambda: "FAILURE" in alarms() and alarms()[-1] == "OKAY",
             "the threshold to be crossed both ways")
    tap.ok(True, "an alarm on latency-memcg_total_max comes, and clears itself")
    collectd.stop()
    single = [a for a in inbox.arrivals() if is_of_one_stall(a)]
    delays = sorted(a.when - float(one(a, "Time")) for a in single)
    tap.note(f"{len(delays)} notifications, from a stall's end to the program: "
             f"median {statistics.median(delays):.3f} s, longest {delays[-1]:.3f} s")
    tap.ok(len(delays) > 3 and statistics.median(delays) < interval / 4,
           "a notification does not wait for the next read", delays)
    tap.ok(all(int(one(a, "latency_ns")) >= 20000 for a in single),
           "none is of a shorter stall than EventThreshold")
    collectd.clean()
    inbox.clean()


def test_logged(tap):
    """As the log has them, which takes no other program."""
    trace = Trace()
    collectd = Collectd("EventThreshold 0.000001\nEventsPerInterval 10000\n"
                        "GroupBy cgroup\nKinds memcg").start()
    staller = Staller([b"plain", FORGER], 64)
    staller.wait()
    collectd.wait_reads(3)
    stalls = sum(stall.tid in staller.comms for stall in trace.stalls())
    collectd.stop()
    told = sum(int(tid) in staller.comms for tid in
               re.findall(r"message = .*\[(\d+)\] stalled ", collectd.log()))
    lost = collectd.growth("reclaim/total_events-events_lost")
    tap.equal((told + lost, stalls > 100), (stalls, True),
              "each stall is told in collectd's log")
    trace.remove()
    collectd.clean()


def thread_names(collectd):
    names = []
    for path in glob.glob(f"/proc/{collectd.process.pid}/task/*/comm"):
        with open(path, encoding="ascii") as file:
            names.append(file.read().strip())
    return names


def test_off(tap):
    before = bpf_objects()
    plain = Collectd().start()
    without = len(bpf_objects() - before)
    tap.ok("reclaim#events" not in thread_names(plain),
           "without EventThreshold there is no thread for events")
    plain.stop()
    plain.clean()
    before = bpf_objects()
    watched = Collectd("EventThreshold 1").start()
    tap.ok("reclaim#events" in thread_names(watched), "with it there is one")
    tap.equal(len(bpf_objects() - before) - without, 3,
              "and three maps more: the ring buffer, two kinds' details")
    watched.stop()
    watched.clean()


def main():
    need_live_machine()
    tap = Tap()
    if sanitizer():
        tap.note("without the exec plugin: it forks while other threads hold "
                 "locks of the sanitizer")
    else:
        test_every_stall(tap)
        test_latency_and_threshold(tap)
    test_logged(tap)
    test_off(tap)
    tap.done()


if __name__ == "__main__":
    main()
