# SPDX-License-Identifier: MIT
"""What the tests with a real collectd share: TAP, collectd with the plugin,
memory cgroups at their limit, and ftrace as an independent count."""

import collections
import contextlib
import fcntl
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

BUILD = os.environ.get("RECLAIM_BUILD", ".")
# The plugin's folder; tests of packages name one of their own.
PLUGINS = os.path.abspath(os.environ.get("RECLAIM_PLUGINS", f"{BUILD}/.libs"))
TRACING = "/sys/kernel/tracing"
CSV_HOST = "testhost"
LOCK = None
# What a sanitizer makes collectd end with when it found something; races only where
# our code takes part.
SANITIZER_STATUS = 86
SANITIZER_OPTIONS = {"ASAN": "", "LSAN": "", "UBSAN": "print_stacktrace=1",
                     "TSAN": "ignore_noninstrumented_modules=1"}
# Other types of the plugin are counters.
GAUGES = ("gauge", "latency", "count", "duration", "pending_operations")


class Tap:
    """Prints TAP; a test ends with done()."""

    def __init__(self):
        self.tests = self.failures = 0

    def ok(self, passed, behaviour, detail=""):
        self.tests += 1
        self.failures += not passed
        print(f"{'ok' if passed else 'not ok'} {self.tests} - {behaviour}")
        if not passed and detail:
            for line in str(detail).splitlines():
                print(f"# {line}")
        sys.stdout.flush()
        return passed

    def equal(self, got, wanted, behaviour):
        return self.ok(got == wanted, behaviour, f"got {got}, wanted {wanted}")

    def note(self, text):
        print(f"# {text}")

    def done(self):
        print(f"1..{self.tests}")
        sys.exit(1 if self.failures else 0)


def skip_all(reason):
    """Ends a test that this machine cannot run; where nothing may be left out,
    that is a failure."""
    live = os.environ.get("RECLAIM_LIVE_TESTS") != "no"
    if os.environ.get("CI") == "true" and live:
        print(f"Bail out! CI must not skip: {reason}")
        sys.exit(1)
    print(f"1..0 # SKIP {reason}")
    sys.exit(0)


def need_live_machine():
    """Skips unless this machine can run collectd under memory pressure."""
    if os.environ.get("RECLAIM_LIVE_TESTS") == "no":
        skip_all("live tests are off")
    if os.geteuid() != 0:
        skip_all("needs root")
    if not shutil.which("collectd"):
        skip_all("needs collectd (Debian package collectd-core)")
    if not os.path.exists(f"{TRACING}/events") and \
            subprocess.run(["mount", "-t", "tracefs", "tracefs", TRACING],
                           check=False).returncode != 0:
        skip_all("needs tracefs, to count independently")
    if not MemoryCgroup.parent():
        skip_all("needs a memory cgroup hierarchy")
    # All stalls of the machine are counted: one such test at a time.
    global LOCK
    LOCK = open("/run/lock/collectd-reclaim-tests", "w", encoding="ascii")
    fcntl.flock(LOCK, fcntl.LOCK_EX)
    remove_leftovers()


def remove_leftovers():
    """What tests could not that were killed: ftrace instances and empty memory cgroups of
    processes that are gone."""
    for path in glob.glob(f"{TRACING}/instances/reclaim-test-*") + \
            glob.glob(f"{MemoryCgroup.parent()[0]}/reclaim-test-*"):
        owner = re.search(r"reclaim-test-(\d+)", path)
        if owner and not os.path.exists(f"/proc/{owner[1]}"):
            with contextlib.suppress(OSError):
                os.rmdir(path)


def wait_for(condition, what, seconds=60):
    """Waits until condition() is true and returns what it returned."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        result = condition()
        if result:
            return result
        time.sleep(0.02)
    raise TimeoutError(f"waited {seconds} s for {what}")


class MemoryCgroup:
    """A memory cgroup with a limit, of whichever version the host has."""

    serial = 0

    @staticmethod
    def parent():
        """(folder, name of the limit's file) or None"""
        if os.path.exists("/sys/fs/cgroup/memory/memory.limit_in_bytes"):
            return "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
        try:
            with open("/sys/fs/cgroup/cgroup.subtree_control", "r+",
                      encoding="ascii") as control:
                if "memory" not in control.read():
                    control.write("+memory")
            return "/sys/fs/cgroup", "memory.max"
        except OSError:
            return None

    def __init__(self, limit_mib=32, home=None):
        parent, limit_file = self.parent()
        MemoryCgroup.serial += 1
        self.home = home
        if home and home.startswith(parent):
            self.path = home
            above = os.path.dirname(home)
            with open(f"{above}/cgroup.subtree_control", "w",
                      encoding="ascii") as control:
                control.write("+memory")
        else:
            self.path = f"{parent}/reclaim-test-{os.getpid()}-{self.serial}"
            os.mkdir(self.path)
        with open(f"{self.path}/{limit_file}", "w", encoding="ascii") as limit:
            limit.write(str(limit_mib << 20))

    def join(self):
        """Moves the calling process in; for a child before its exec."""
        for path in {self.path, self.home or self.path}:
            with open(f"{path}/cgroup.procs", "w", encoding="ascii") as procs:
                procs.write(str(os.getpid()))

    def remove(self):
        def removed():
            try:
                os.rmdir(self.path)
                return True
            except OSError:
                return False
        wait_for(removed, f"{self.path} to be empty")


class Staller:
    """Threads of given comms that stall in memcg reclaim; with `home`, in this
    folder of the v2 hierarchy, which on a host with v1 beside has no limit."""

    def __init__(self, comms, mib, seconds=0, leader=b"staller", home=None):
        self.cgroup = MemoryCgroup(home=home)
        self.comms = {}
        file = tempfile.mktemp(prefix="reclaim-test-", dir="/var/tmp")
        self.process = subprocess.Popen(
            [f"{BUILD}/tests/collectd/staller", file, str(mib), str(seconds),
             leader.hex()] + [comm.hex() for comm in comms],
            stdout=subprocess.PIPE, preexec_fn=self.cgroup.join)
        for _ in range(len(comms) + 1):
            tid, comm = self.process.stdout.readline().split()
            self.comms[int(tid)] = bytes.fromhex(comm.decode())

    def wait(self):
        self.process.stdout.close()
        if self.process.wait() != 0:
            raise RuntimeError(f"staller ended with {self.process.returncode}")
        self.cgroup.remove()


Stall = collections.namedtuple(
    "Stall", "tid kind pages end duration order gfp_flags")


class Trace:
    """ftrace's own account of reclaim, in an instance of its own."""

    EVENT = re.compile(
        rb"-(\d+) +\[\d+\] .*? (\d+\.\d+): "
        rb"mm_vmscan_(direct|memcg)_reclaim_(begin|end): (.*)")

    def __init__(self):
        self.path = f"{TRACING}/instances/reclaim-test-{os.getpid()}"
        os.mkdir(self.path)
        self.write("buffer_size_kb", "32768")
        self.write("trace_clock", "mono")
        for kind in "direct", "memcg":
            for edge in "begin", "end":
                self.write(f"events/vmscan/mm_vmscan_{kind}_reclaim_{edge}/"
                           "enable", "1")

    def write(self, file, text):
        with open(f"{self.path}/{file}", "w", encoding="ascii") as handle:
            handle.write(text)

    def stalls(self):
        """All stalls since the instance was made; times in seconds of
        CLOCK_MONOTONIC."""
        for stats in glob.glob(f"{self.path}/per_cpu/cpu*/stats"):
            with open(stats, encoding="ascii") as handle:
                if not re.search(r"^overrun: 0$", handle.read(), re.M):
                    raise RuntimeError("ftrace lost events")
        begins, stalls = {}, []
        with open(f"{self.path}/trace", "rb") as handle:
            for line in handle:
                event = self.EVENT.search(line)
                if not event:
                    continue
                tid, kind = int(event[1]), event[3].decode()
                when = float(event[2])
                if event[4] == b"begin":
                    asked = dict(field.split("=") for field in
                                 event[5].decode().split())
                    begins[tid, kind] = (when, int(asked["order"]),
                                         asked["gfp_flags"])
                    continue
                pages = int(re.search(rb"nr_reclaimed=(\d+)", event[5])[1])
                begin, order, gfp_flags = begins.pop((tid, kind),
                                                     (when, None, None))
                stalls.append(Stall(tid, kind, pages, when, when - begin,
                                    order, gfp_flags))
        return stalls

    def remove(self):
        self.write("events/enable", "0")
        os.rmdir(self.path)


def read_csv(folder):
    """{series: [(time, value)]} of what the csv writer wrote of a host, as text.
    There is a file a day, its name ends in the date."""
    series = collections.defaultdict(list)
    for path in sorted(glob.glob(f"{glob.escape(folder)}/reclaim*/*")):
        instance, name = path.split("/")[-2:]
        with open(path, encoding="ascii") as file:
            rows = [line.strip().split(",") for line in file.readlines()[1:]]
        series[f"{instance}/{name.rsplit('-', 3)[0]}"] += map(tuple, rows)
    return series


def sanitizer():
    """The runtime of the sanitizer that the plugin is built with, or ''."""
    listing = subprocess.run(["ldd", f"{PLUGINS}/reclaim.so"], check=True,
                             capture_output=True, text=True).stdout
    runtime = re.search(r"(\S+/lib[at]san\.so\S*) \(", listing)
    return runtime[1] if runtime else ""


def under_sanitizer(command):
    """A sanitizer's runtime has to be there from the start, and before what the
    test preloads."""
    if not sanitizer():
        return command
    options = [f"{name}_OPTIONS=exitcode={SANITIZER_STATUS}:{value}"
               for name, value in SANITIZER_OPTIONS.items()]
    return ["setarch", "-R", "env", *options, "sh", "-c",
            f'LD_PRELOAD="{sanitizer()} $LD_PRELOAD" exec "$@"', "sh", *command]


def cpu_ns(pid):
    """CPU time that the threads of a process have used."""
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        with open(path, encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total


class Collectd:
    """collectd in the foreground, with the plugin, the csv writer and `load`
    beside it, once each `interval` seconds. `more` is further configuration."""

    def __init__(self, options="", prefix=(), plugin_block=True, interval=1,
                 more=""):
        self.folder = tempfile.mkdtemp(prefix="reclaim-collectd-")
        self.csv = f"{self.folder}/csv/{CSV_HOST}"
        self.prefix = list(prefix)
        self.process = None
        block = f"<Plugin reclaim>\n{options}\n</Plugin>" if plugin_block \
            else ""
        with open(f"{self.folder}/collectd.conf", "w",
                  encoding="ascii") as conf:
            conf.write(f"""
Hostname "{CSV_HOST}"
BaseDir "{self.folder}"
PIDFile "{self.folder}/pid"
Interval {interval}
# The csv writer takes no lock: under load, two write threads that make one
# file at the same time garble its first lines.
WriteThreads 1
LoadPlugin logfile
<Plugin logfile>
  LogLevel info
  File "{self.folder}/log"
  Timestamp true
  PrintSeverity true
</Plugin>
LoadPlugin csv
<Plugin csv>
  DataDir "{self.folder}/csv"
  StoreRates false
</Plugin>
LoadPlugin load
{more}
PluginDir "{PLUGINS}"
LoadPlugin reclaim
{block}
""")

    def command(self, *flags):
        return self.prefix + under_sanitizer(
            ["collectd", *flags, "-C", f"{self.folder}/collectd.conf"])

    def begin(self, *flags):
        self.process = subprocess.Popen(
            self.command(*flags), stdout=subprocess.DEVNULL,
            stderr=None if sanitizer() else subprocess.DEVNULL)

    def end(self):
        """Its exit status; what a sanitizer found is on stderr by then."""
        status = self.process.wait(120)
        if status == SANITIZER_STATUS:
            raise RuntimeError("a sanitizer found what is told above")
        return status

    def run_once(self):
        """collectd -T: init, one read, writes, shutdown. Its exit status."""
        self.begin("-T")
        return self.end()

    def start(self):
        """Starts, and returns when the first read has been written."""
        self.begin("-f")
        wait_for(lambda: self.values("load/load") or self.has_ended(),
                 "the first read")
        if self.has_ended():
            raise RuntimeError(f"collectd ended: {self.log()}")
        return self

    def has_ended(self):
        return self.process.poll() is not None

    def wait_reads(self, reads, series="reclaim/count-rows"):
        """Waits until `reads` more reads of `series` have been made and
        written: those that were made before are not counted when they are
        written late."""
        now = time.time()
        wait_for(lambda: sum(when > now for when, _ in self.values(series))
                 >= reads, f"{reads} reads of {series}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.end()

    def log(self):
        with open(f"{self.folder}/log", encoding="utf-8") as handle:
            return handle.read()

    def complaints(self):
        """The plugin's own lines of severity error or warning; collectd calls
        a thread UNKNOWN that does not say whose it is."""
        return [line for line in self.log().splitlines() if re.search(
            r"\[(error|warning)\].* (reclaim|UNKNOWN) plugin: ", line)]

    def series(self):
        """All series of the plugin: instance/type, as files have them."""
        return sorted({path[len(self.csv) + 1:-len("-2000-01-01")]
                       for path in glob.glob(f"{self.csv}/reclaim*/*")})

    def values(self, series):
        """[(time in s since the epoch, value)] of `instance/type`."""
        rows = []
        for path in sorted(glob.glob(
                f"{glob.escape(f'{self.csv}/{series}')}-????-??-??")):
            with open(path, encoding="ascii") as handle:
                for line in handle.readlines()[1:]:
                    when, value = line.split(",")[:2]
                    rows.append((float(when), float(value)))
        return rows

    def growth(self, series):
        """How much a counter grew; that of a name begins again from 0 with each birth."""
        values = [value for _, value in self.values(series)]
        return int(sum(max(0, after - before) for before, after in zip(values, values[1:])))

    def clean(self):
        shutil.rmtree(self.folder)


def bpf_objects():
    """The ids of the plugin's BPF programs and maps in the kernel."""
    found = set()
    for what in "prog", "map":
        listing = subprocess.run(["bpftool", what, "list"], check=True,
                                 capture_output=True, text=True).stdout
        found |= {(what, int(line[1])) for line in re.finditer(
            r"^(\d+): .* name "
            r"(?:(?:direct|memcg|node)_(?:begin|end|words|details)|table_[01]|"
            r"open_table|events|stacks|proactive_\w+|reclaim_\.|programs_are_)", listing,
            re.M)}
    return found
