#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Each call of the plugin that can fail is made to fail, in the built plugin,
in each of the ways that are likely for it.

  test_calls.py [--all] [--write]

--all: each single call that libbpf makes for the plugin; else of those at one
place the first, one in the middle, and all.
--write: what came of it goes to FAULTS.md."""

import collections
import errno
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path += [f"{HERE}/../collectd", f"{HERE}/../vm"]

import calls  # noqa: E402
import lives  # noqa: E402
import readme  # noqa: E402
from harness import Tap, need_live_machine, skip_all  # noqa: E402

FOR_EVER = 1 << 32
TRIES = 3

# Calls that are in the plugin, but never made, or never in vain: (function that
# calls, function called): why.
EXEMPT = {
    ("bpf_source_stack", "bpf_map_lookup_elem"):
        "stacks are only for reclaimsnoop",
    ("cgroup_paths_new", "open"): "the plugin takes the first mount there is",
    ("take_types", "btf__type_by_id"): "each id up to the last has a type",
}

Run = collections.namedtuple("Run", "scenario site faults once")


def is_exempt(site):
    return (site.caller, site.function) in EXEMPT


class Sweep:
    """Lives, and the calls that were come to in them, of some objects to the
    functions in `table`."""

    def __init__(self, cgroup, objects, table, each=False):
        self.objects, self.table, self.each = objects, table, each
        self.daemons = lives.Daemons(cgroup, objects, table)
        self.scenarios = lives.scenarios(os.path.basename(cgroup))
        self.reached = {}  # site: (scenario, object, address, calls, faults)

    def site_at(self, at, address, function):
        name = self.objects[at]
        return calls.Site(address, function, name, f"{name}+{address:#x}",
                          False)

    def beside(self, _):
        """Faults that all lives of a scenario have."""
        return []

    def live(self, scenario, faults=()):
        life = self.daemons.live(
            scenario, list(faults) + self.beside(scenario))
        for (at, address, function), number in life.sites.items():
            self.reached.setdefault(
                self.site_at(at, address, function),
                (scenario, at, address, number, list(faults)))
        return life

    def run(self, run):
        """Whether another thread comes to a call in time is chance."""
        for _ in range(TRIES):
            life = self.live(run.scenario, run.faults)
            if life.fired:
                break
        return life

    def runs(self, site):
        """All that is done to a site: each way at its first call and at one in
        the middle, or with --all at each; and the first way at all calls."""
        scenario, at, address, number, before = self.reached[site]
        ways = self.table[site.function]
        which = range(1, number + 1) if self.each else {1, number // 2 + 1}
        plan = [(way, call, call) for way in ways for call in which]
        if number > 1 and site.function not in calls.NOT_FOR_EVER:
            plan += [(ways[0], 1, FOR_EVER)]
        return [Run(scenario, site, [(at, address, first, last, way)] + before,
                    first == last and not before)
                for way, first, last in plan]


class PluginSweep(Sweep):
    """Calls of the plugin itself, which are known before."""

    def __init__(self, cgroup):
        super().__init__(cgroup, ["reclaim.so"], calls.FAILING)
        self.sites = calls.sites(lives.PLUGIN)

    def site_at(self, at, address, function):
        return self.sites.get((address, function)) or \
            self.sites[calls.OUTSIDE, function]

    def beside(self, scenario):
        return [(0, address, 1, FOR_EVER, calls.Fault(calls.PRETEND, 0, 0))
                for (address, function), site in self.sites.items()
                if function in scenario.pretends and not site.tail]

    def missed(self):
        """Lines that were not come to; of one that the compiler has put into
        several places, one will do."""
        found = {line_of(site) for site in self.reached}
        return sorted({f"{site.where} {site.caller}: {site.function}"
                       for site in self.sites.values()
                       if line_of(site) not in found and not is_exempt(site)})


def describe(run):
    first = run.faults[0]
    which = "each call" if first[3] > first[2] else f"call {first[2]}"
    way = first[4]
    return (f"{run.site.where} {run.site.function}, {which}, "
            f"result {way.result}, errno {way.error}, mode {way.mode}, "
            f"{run.scenario.title}")


def test_lists(tap):
    unknown = [name for name in calls.imports(lives.PLUGIN)
               if name not in calls.FAILING and name not in calls.SAFE]
    tap.equal(unknown, [], "of each imported function it is known how it fails")
    tap.equal(sorted(calls.pointers(lives.PLUGIN)), [],
              "none that can fail is called by its address")


def test_without_faults(tap, sweep):
    for scenario in sweep.scenarios:
        life = sweep.live(scenario)
        name = scenario.name
        tap.equal(lives.problems(life, scenario), [],
                  f"without faults: {scenario.title}")
        if name:
            tap.ok(life.series(name) == life.made > 0 and
                   life.series(name, "vmpage_action") ==
                   lives.PAGES * life.made and
                   life.series(name, "total_time_in_ms") >=
                   life.least_ns // 1000000,
                   f"each stall is counted: {scenario.title}",
                   f"{life.made} made, {life.series(name)} counted")
        if set(lives.EVENTS) <= set(scenario.options):
            tap.ok(life.notified > 0 and life.has,
                   f"stalls are told one by one: {scenario.title}")


def sweep_sites(sweep):
    """Makes each site fail; then those that only a failure leads to, after
    that. Returns [(run, life)]."""
    done, results = set(), []
    while True:
        new = sorted((site for site in set(sweep.reached) - done
                      if not is_exempt(site)), key=lambda site: site.address)
        if not new:
            return results
        done |= set(new)
        runs = [run for site in new for run in sweep.runs(site)]
        results += zip(runs, sweep.daemons.spread(sweep.run, runs))


def line_of(site):
    return site.where, site.function


def report(tap, results, what):
    """A test for each function that was called. Returns the lives in which
    something failed: others on the machine stall, and make cgroups, so that
    calls may be fewer than they were."""
    failed = [(run, life) for run, life in results if life.fired]
    lines = {line_of(run.site) for run, _ in failed}
    bad = collections.defaultdict(list)
    for run, life in results:
        function = run.site.function
        if run.site.caller == "libelf.so.1":
            life.heap = 0  # libc keeps the text of the message
        for problem in lives.problems(life, run.scenario, run.once):
            bad[function].append(f"{describe(run)}: {problem}")
        if line_of(run.site) not in lines:
            bad[function].append(f"{describe(run)}: not come to")
    for function in sorted({run.site.function for run, _ in results}):
        num = len({run.site for run, _ in failed
                   if run.site.function == function})
        tap.equal(bad[function], [], f"{what}: {function} fails, at {num} places")
    return failed


def test_plugin(tap, sweep):
    failed = report(tap, sweep_sites(sweep), "the plugin")
    num = len({run.site for run, _ in failed})
    tap.equal(sweep.missed(), [], f"all {num} calls that can fail are made to")
    return failed


def test_libraries(tap, sweep):
    for scenario in sweep.scenarios:
        if scenario.name:
            tap.equal(lives.problems(sweep.live(scenario), scenario), [],
                      f"libraries without faults: {scenario.title}")
    return report(tap, sweep_sites(sweep), "libraries")


DOUBLE = {
    "mS": "shutdown without init",
    "mSS": "shutdown twice",
    "mcS": "shutdown after the configuration",
    "mcSS": "shutdown twice after the configuration",
    "mciisrrS": "init twice",
    "mcisriisrrSS": "init twice after a read, shutdown twice",
    "mccisrhrerrS": "a second <Plugin> block",
    "mciSisrrS": "init after shutdown",
    "mcisrSrrS": "reads after shutdown",
    "mrS": "reads without init",
    "misrrS": "no configuration",
}


def test_double_calls(tap, sweep):
    """What collectd does not do, or seldom: twice, in another order, not at
    all."""
    asked = [(scenario, steps) for scenario in sweep.scenarios[:4]
             for steps in DOUBLE]
    done = sweep.daemons.spread(lambda ask: sweep.daemons.live(
        ask[0], sweep.beside(ask[0]), ask[1]), asked)
    for (scenario, steps), life in zip(asked, done):
        tap.equal(lives.problems(life, scenario, once=False), [],
                  f"{DOUBLE[steps]}: {scenario.title}")


def ways_in_words(function, table):
    """How it was made to fail."""
    words = []
    for way in table[function]:
        if way.mode == calls.SHORT:
            words.append("short")
        elif way.error or way.result > 0 and function.startswith("pthread"):
            words.append(errno.errorcode[way.error or way.result])
        else:
            words.append("REG_ESPACE" if way.result > 0 else "an error")
    return ", ".join(words)


def make_table(results, table):
    """Of [(run, life)], a line for each function that was called."""
    sites, outcomes = collections.defaultdict(set), {}
    for run, life in results:
        function = run.site.function
        sites[function].add(run.site)
        outcomes.setdefault(function, collections.Counter())[
            lives.outcome(life, run.scenario)] += 1
    lines = ["| call | places | made to fail | what came of it |",
             "| --- | --- | --- | --- |"]
    for function in sorted(sites):
        came = "; ".join(f"{what}: {number}" for what, number in
                         outcomes[function].most_common())
        lines.append(f"| `{function}` | {len(sites[function])} | "
                     f"{ways_in_words(function, table)} | {came} |")
    total = sum(map(len, sites.values()))
    return "\n".join(lines + [f"| all | {total} | | {len(results)} lives |"])


def write_tables(plugin, libraries):
    exempt = "\n".join(f"- `{function}` in `{caller}`: {why}"
                       for (caller, function), why in sorted(EXEMPT.items()))
    readme.update(f"{HERE}/FAULTS.md", {
        "plugin": make_table(plugin, calls.FAILING) + "\n",
        "exempt": exempt + "\n",
        "libraries": make_table(libraries, calls.LIBRARY) + "\n"})


def make_cgroup():
    """A cgroup (v2) for the stalls, or None."""
    for mount in "/sys/fs/cgroup/unified", "/sys/fs/cgroup":
        if os.path.exists(f"{mount}/cgroup.procs") and \
                os.path.exists(f"{mount}/cgroup.controllers"):
            path = f"{mount}/reclaim-fault-{os.getpid()}"
            os.mkdir(path)
            return path
    return None


def main():
    if not calls.is_here():
        skip_all("is written for x86-64")
    need_live_machine()  # others look for BPF objects that are left
    cgroup = make_cgroup()
    if not cgroup:
        skip_all("needs a cgroup v2 hierarchy")
    tap = Tap()
    test_lists(tap)
    plugin = PluginSweep(cgroup)
    libraries = Sweep(cgroup, calls.LIBRARIES, calls.LIBRARY,
                      "--all" in sys.argv)
    try:
        test_without_faults(tap, plugin)
        of_plugin = test_plugin(tap, plugin)
        test_double_calls(tap, plugin)
        of_libraries = test_libraries(tap, libraries)
    finally:
        plugin.daemons.close()
        libraries.daemons.close()
        os.rmdir(cgroup)
    if "--write" in sys.argv and tap.failures == 0:
        write_tables(of_plugin, of_libraries)
    tap.done()


main()
