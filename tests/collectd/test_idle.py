#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the plugin does where nothing stalls: several collectds side by side, with
it, without it, and with a stock plugin that reads the same file."""

import collections
import glob
import time

from counted import Counted
from harness import Collectd, Tap, need_live_machine

INTERVAL = 0.02
READS = 400
TRIES = 6  # until nothing stalls on this machine for so many reads
WATCH_HERTZ = 5  # the events' thread looks for events so often, whatever the interval
Cost = collections.namedtuple("Cost", "cpu_ns switches")


class Stock(Collectd):
    """collectd without the plugin."""

    def __init__(self, more=""):
        super().__init__(more=more, interval=INTERVAL)
        with open(f"{self.folder}/collectd.conf", encoding="ascii") as file:
            conf = file.read()
        with open(f"{self.folder}/collectd.conf", "w", encoding="ascii") as file:
            file.write(conf[:conf.index("PluginDir")])


def threads(collectd):
    """{name of a thread: what it cost} up to now; readers together."""
    costs = collections.defaultdict(lambda: Cost(0, 0))
    for path in glob.glob(f"/proc/{collectd.process.pid}/task/*"):
        with open(f"{path}/comm", encoding="ascii") as file:
            name = file.read().strip().split("#")
        with open(f"{path}/schedstat", encoding="ascii") as file:
            cpu_ns = int(file.read().split()[0])
        with open(f"{path}/status", encoding="ascii") as file:
            switches = next(int(line.split()[1]) for line in file
                            if line.startswith("voluntary_ctxt_switches:"))
        name = name[0] if name[0] == "reader" else "#".join(name)
        costs[name] = Cost(costs[name].cpu_ns + cpu_ns, costs[name].switches + switches)
    return costs


def stalls(collectd):
    """All that the plugin has counted."""
    return sum(collectd.values(series)[-1][1] for series in collectd.series()
               if series.startswith("reclaim/total_events-") and series.endswith("_total"))


def observe(plain, vmem, plugin, watched, counted):
    """What each did in a time without stalls: {name: growth of its threads' costs}, and the
    growth of the counts in each of two halves of that time."""
    everybody = {"plain": plain, "vmem": vmem, "plugin": plugin, "watched": watched}
    for _ in range(TRIES):
        before, begin = {name: threads(one) for name, one in everybody.items()}, time.monotonic()
        counts, stalled = [counted.counts()], stalls(counted)
        for _ in range(2):
            time.sleep(READS * INTERVAL / 2)
            counts.append(counted.counts())
        seconds = time.monotonic() - begin
        after = {name: threads(one) for name, one in everybody.items()}
        counted.wait_reads(2)
        if stalls(counted) == stalled:
            break
    else:
        raise RuntimeError("this machine stalls all the time")
    costs = {name: {thread: Cost(*(new - old for new, old in zip(after[name][thread],
                                                                before[name][thread])))
                    for thread in after[name]} for name in everybody}
    halves = [[new - old for new, old in zip(*pair)] for pair in zip(counts[1:], counts)]
    return costs, halves, seconds


def check_calls(tap, halves):
    """Of the one whose calls are counted."""
    (bpf, own, every), (bpf_later, own_later, every_later) = halves
    tap.equal(bpf + bpf_later, 0, "reads without stalls call bpf() not once")
    tap.equal(own + own_later, 0, "and plugin and libbpf take no memory")
    tap.ok(abs(every - every_later) < 0.05 * every,
           "what collectd takes for values is the same in each half of the time",
           (every, every_later))
    tap.note(f"| {READS} reads without stalls: {bpf + bpf_later} calls of bpf(), "
             f"{own + own_later} allocations by plugin and libbpf, "
             f"{(every + every_later) / READS:.0f} by collectd a read, for values")


def check_cost(tap, costs, reads):
    """CPU of the reading threads, less that of a collectd that reads `load` alone."""
    def us(name):
        return (costs[name]["reader"].cpu_ns - costs["plain"]["reader"].cpu_ns) / 1e3 / reads

    def wakes(name):
        return (costs[name]["reader"].switches - costs["plain"]["reader"].switches) / reads

    tap.note(f"| CPU of a read without stalls: plugin {us('plugin'):.0f} us, vmem "
             f"{us('vmem'):.0f} us; times a reading thread sleeps: plugin {wakes('plugin'):.2f}, "
             f"vmem {wakes('vmem'):.2f}")
    tap.ok(us("plugin") < 2 * us("vmem"), "a read costs what that of a stock plugin does")
    tap.ok(wakes("plugin") < wakes("vmem") + 0.5, "and wakes as often", costs)


def check_sleep(tap, costs, seconds):
    """Threads beside those that read."""
    tap.equal(sorted(costs["plugin"]), sorted(costs["plain"]),
              "the plugin has no thread of its own")
    watch = costs["watched"].get("reclaim#events", Cost(0, 0))
    hertz = watch.switches / seconds
    tap.note(f"| the events' thread: {hertz:.1f} wake-ups and {watch.cpu_ns / 1e3 / seconds:.0f} "
             "us of CPU a second")
    tap.ok(0 < hertz <= 1.2 * WATCH_HERTZ, "but for events: that sleeps between its looks", watch)


def main():
    need_live_machine()
    tap = Tap()
    everybody = [Stock(), Stock("LoadPlugin vmem"), Collectd(interval=INTERVAL),
                 Collectd("EventThreshold 0.001", interval=INTERVAL), Counted(interval=INTERVAL)]
    for collectd in everybody:
        collectd.start()
    for collectd in everybody[2:]:
        collectd.wait_reads(20)
    costs, halves, seconds = observe(*everybody)
    check_calls(tap, halves)
    check_cost(tap, costs, seconds / INTERVAL)
    check_sleep(tap, costs, seconds)
    for collectd in everybody:
        collectd.stop()
        collectd.clean()
    tap.done()


if __name__ == "__main__":
    main()
