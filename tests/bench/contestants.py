# SPDX-License-Identifier: MIT
"""Who is measured: the plugin, what people use today, and yardsticks. Each can
be started and stopped, and says how many stalls of the work it has told of."""

import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, f"{HERE}/../collectd")

import harness  # noqa: E402  pylint: disable=wrong-import-position

WORK = "work"  # the names of the work's threads begin so


def _version(package):
    """The version of a Debian package, or nothing."""
    return subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], check=False,
                          capture_output=True, text=True).stdout


class Contestant:
    """A command that watches stalls in memory cgroups until it is interrupted, and prints a
    line for each."""

    key = name = ""      # on the command line; in tables
    what = ""            # how it works, for people
    package = ""         # Debian's, whose version is told
    command = ()
    counts = True        # whether it can say how many stalls it has told of

    def __init__(self):
        self.folder = self.process = None

    def missing(self):
        """Why it cannot be run here; None if it can."""
        program = self.command[0]
        return None if shutil.which(program) else f"{program} is not installed"

    def version(self):
        """Which one it is, for people."""
        return f"{self.package} {_version(self.package)}" if self.package else ""

    def prepare(self):
        """What is to be done before its start is timed."""
        self.folder = tempfile.mkdtemp(prefix="reclaim-bench-")

    def start(self):
        """Starts; what it prints goes to files."""
        with open(f"{self.folder}/out", "wb") as out, open(f"{self.folder}/err", "wb") as err:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=out,
                                            stderr=err, cwd=self.folder)

    def settle(self):
        """Returns when all that it tells of is told."""

    def stop(self):
        """Ends it, and cleans up. Returns how many stalls of the work it has told of; None if
        it does not count."""
        self.interrupt()
        told = self.told()
        self.clean()
        return told

    def interrupt(self):
        """As Ctrl-C does. A signal that comes at a bad moment is not heard by all."""
        for _ in range(10):
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(3)
                return
            except subprocess.TimeoutExpired:
                pass
        raise RuntimeError(f"{self.name} does not end")

    def clean(self):
        """Removes its files."""
        shutil.rmtree(self.folder)

    def abandon(self):
        """Ends it where something failed."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def read(self, name="out"):
        """What it printed."""
        with open(f"{self.folder}/{name}", encoding="latin-1") as file:
            return file.read()

    def told(self):
        """Counts the lines with a thread of the work and its id."""
        return len(re.findall(rf"(?:^| ){WORK}-\S* +\d+ ", self.read(), re.M))


class Set(Contestant):
    """Programs of contestants.bpf.c."""

    def __init__(self, key, name, what, counts=True):
        super().__init__()
        self.key, self.name, self.what, self.counts = key, name, what, counts

    @property
    def command(self):
        """The loader."""
        return (os.path.abspath(f"{harness.BUILD}/tests/bench/contestant"), self.key)

    def wait(self):
        """Returns when it is attached."""
        harness.wait_for(lambda: "READY" in self.read(), f"{self.name} to attach")

    def interrupt(self):
        self.process.stdin.close()
        self.process.wait(30)

    def told(self):
        return int(self.read().split()[1]) if self.counts else None


class Plugin(Contestant):
    """collectd with the plugin, which reads each second."""

    key, name, options = "plugin", "this plugin", ""
    what = "collectd with the plugin and the csv writer, `Interval 1`"
    package = "collectd-core"
    command = ("collectd",)

    def prepare(self):
        self.collectd = harness.Collectd(self.options)
        self.folder = self.collectd.folder

    def start(self):
        self.process = self.collectd.process = subprocess.Popen(
            self.collectd.command("-f"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait(self):
        """Returns when it is attached, and has read and written for the first time."""
        harness.wait_for(lambda: self.collectd.values("load/load"), "the first read")

    def settle(self):
        """A stall is told of at the next read but one, since a name is 0 first."""
        self.collectd.wait_reads(3)

    def interrupt(self):
        self.collectd.stop()

    def clean(self):
        self.collectd.clean()

    def told(self):
        return int(sum(self.collectd.values(series)[-1][1] for series in self.collectd.series()
                       if re.fullmatch(rf"reclaim-{WORK}.*/total_events-memcg", series)))


class Bare(Plugin):
    """collectd alone."""

    name = "collectd without the plugin"

    def prepare(self):
        super().prepare()
        with open(f"{self.folder}/collectd.conf", encoding="ascii") as file:
            conf = file.read()
        with open(f"{self.folder}/collectd.conf", "w", encoding="ascii") as file:
            file.write(conf[:conf.index("PluginDir")])


class Events(Plugin):
    """The same, where each stall makes a record for notifications."""

    key, name = "events", "this plugin, with events"
    what = "the same with `EventThreshold 0.000001`: each stall makes a record. Lost are those " \
           "that found the ring buffer full; they are in all the counters"
    options = "EventThreshold 0.000001\nEventsPerInterval 1"

    def told(self):
        return super().told() - int(self.collectd.values("reclaim/total_events-events_lost")[-1][1])


class Snoop(Contestant):
    """Our terminal tool."""

    key, name = "reclaimsnoop", "reclaimsnoop"
    what = "`reclaimsnoop -k memcg`: prints a line for each stall, to a file"

    @property
    def command(self):
        """From the build."""
        return (os.path.abspath(f"{harness.BUILD}/reclaimsnoop"), "-k", "memcg")


class Bpftrace(Contestant):
    """Sums by comm, in bpftrace."""

    key, name, package = "bpftrace", "bpftrace", "bpftrace"
    what = "`tests/bench/stalls.bt`: count, sum and histogram of times and sum of pages by comm"
    command = ("bpftrace", f"{HERE}/stalls.bt")

    def told(self):
        return sum(map(int, re.findall(rf"^@stalls\[{WORK}.*\]: (\d+)$", self.read(), re.M)))


def find_headers():
    """A folder of kernel headers, for the running kernel if there are any: tracepoints'
    arguments are read from tracefs, the rest is alike in all versions."""
    own = f"/lib/modules/{os.uname().release}/build"
    return own if os.path.exists(own) else max(glob.glob("/lib/modules/*/build"), default=None)


# Where BCC looks for the running kernel's headers there are none: others are put there,
# for this process alone.
WITH_HEADERS = """
build=$(readlink -f "$1") source=$(readlink -f "${1%build}source")
own=/lib/modules/$(uname -r)
shift
mount -t tmpfs none /lib/modules && mkdir "$own" && ln -s "$build" "$own/build" || exit
[ ! -d "$source" ] || ln -s "$source" "$own/source"
exec "$@"
"""


class Bcc(Contestant):
    """A Python script that BCC compiles at start."""

    package = "python3-bpfcc"
    script = ""

    def missing(self):
        if subprocess.run(["/usr/bin/python3", "-c", "import bcc"], check=False,
                          stderr=subprocess.DEVNULL).returncode != 0:
            return "python3-bpfcc is not installed"
        return None if find_headers() else "no kernel headers are installed"

    @property
    def command(self):
        """With headers from elsewhere if the running kernel has none."""
        return ("unshare", "-m", "sh", "-c", WITH_HEADERS, "sh", find_headers(),
                "/usr/bin/python3", "-B", self.script)


class Script(Bcc):
    """The way of the scripts of BCC's collection."""

    key, name = "script", "Python BCC script"
    what = "`tests/bench/script.py`: begin times in a hash, a perf event for each stall, " \
           "which wakes Python to print a line; compiled at start"
    script = f"{HERE}/script.py"


class Drsnoop(Contestant):
    """libbpf-tools' drsnoop; the names of tracepoints in its binary are replaced."""

    key, name, package = "drsnoop", "drsnoop (libbpf-tools)", "libbpf-tools"
    what = "prints a line for each stall, to a file; in a copy, the names of its tracepoints " \
           "are replaced by those of memory cgroups, since it is for direct reclaim"
    command = ("./drsnoop",)
    original = "/usr/sbin/drsnoop"

    def missing(self):
        return None if os.path.exists(self.original) else "libbpf-tools is not installed"

    def prepare(self):
        super().prepare()
        with open(self.original, "rb") as file:
            binary = file.read()
        for edge in b"begin", b"end":
            binary = binary.replace(b"direct_reclaim_%b\0" % edge, b"memcg_reclaim_%b\0\0" % edge)
        with open(f"{self.folder}/drsnoop", "wb") as file:
            file.write(binary)
        os.chmod(f"{self.folder}/drsnoop", 0o700)


class BccDrsnoop(Bcc):
    """BCC's own drsnoop, its tracepoints replaced."""

    key, name, package = "drsnoop-bpfcc", "drsnoop (Python BCC)", "bpfcc-tools"
    what = "the same in Python, likewise"
    original = "/usr/sbin/drsnoop-bpfcc"
    script = "drsnoop"

    def missing(self):
        if not os.path.exists(self.original):
            return "bpfcc-tools is not installed"
        with open("/proc/kallsyms", encoding="ascii") as symbols:
            if not re.search(r" (vm_stat|vm_zone_stat)$", symbols.read(), re.M):
                return "the kernel does not tell it where vm_zone_stat is " \
                       "(CONFIG_KALLSYMS_ALL)"
        return super().missing()

    def prepare(self):
        super().prepare()
        with open(self.original, encoding="utf-8") as file:
            text = file.read()
        with open(f"{self.folder}/drsnoop", "w", encoding="utf-8") as file:
            file.write(text.replace("mm_vmscan_direct_", "mm_vmscan_memcg_"))


ALL = (
    Set("empty", "empty programs", "a program each for begin and end, which returns: what it "
        "costs to be called", False),
    Set("clocks", "two clock reads", "and nothing else: whoever measures time does that", False),
    Plugin(),
    Events(),
    Snoop(),
    Set("hashes", "hash + hash", "begin times in a hash, and in another count, time and pages "
        "by comm"),
    Set("exporter", "exporter-like", "begin times in a hash, and in another a histogram of "
        "times by comm, built as those of ebpf_exporter's examples are"),
    Bpftrace(),
    Script(),
    Drsnoop(),
    BccDrsnoop(),
)
