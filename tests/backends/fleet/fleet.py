# SPDX-License-Identifier: MIT
"""An aggregator run as conf/backends/fleet has it, and hosts that a replay of
recorded values stands in for."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(f"{HERE}/../../..")
sys.path[:0] = [f"{ROOT}/tests/collectd", f"{ROOT}/tests/backends"]

from harness import BUILD, wait_for  # noqa: E402  pylint: disable=wrong-import-position
from stores import ENCODING, free_port  # noqa: E402  pylint: disable=wrong-import-position

FLEET = f"{ROOT}/conf/backends/fleet"
REPLAY = f"{BUILD}/tests/backends/fleet/replay"
USER, PASSWORD = "fleet", "correct horse"
# Where the machine is busy, the fleet goes before what keeps it busy.
FIRST = ("nice", "-n", "-10") if os.geteuid() == 0 else ()


def missing():
    """Why no fleet can be played here; empty if it can."""
    if os.environ.get("RECLAIM_LIVE_TESTS") == "no":
        return "live tests are off"
    if not shutil.which("collectd"):
        return "needs collectd (Debian package collectd-core)"
    if not os.path.exists(REPLAY):
        return "needs libcollectdclient and libgcrypt when it is built " \
            "(Debian packages libcollectdclient-dev, libgcrypt20-dev)"
    return ""


def read_file(path):
    """A file's text."""
    with open(path, **ENCODING) as file:
        return file.read()


def adapt(text, *replacements):
    """A configuration with other words in place of its own, each of which must
    be there."""
    for old, new in replacements:
        if old not in text:
            raise ValueError(f"the configuration has no {old}")
        text = text.replace(old, new)
    return text


class Aggregator:
    """collectd, called `aggregator`, with a configuration that listens on
    `port` of loopback."""

    BASE = """
Hostname "aggregator"
BaseDir "{folder}"
PIDFile "{folder}/pid"
TypesDB "/usr/share/collectd/types.db"
Interval {interval}
LoadPlugin logfile
<Plugin logfile>
  LogLevel info
  File "{folder}/log"
  PrintSeverity true
</Plugin>
"""

    def __init__(self, interval=1):
        self.folder = tempfile.mkdtemp(prefix="reclaim-fleet-", dir="/var/tmp")
        self.port = free_port()
        self.interval = interval
        self.process = None
        with open(f"{self.folder}/auth_file", "w", **ENCODING) as file:
            file.write(adapt(read_file(f"{FLEET}/auth_file"),
                             ("change-me", PASSWORD)))

    def as_shipped(self, influxdb, graphite):
        """conf/backends/fleet/aggregator.conf, with ports of two stores."""
        return adapt(
            read_file(f"{FLEET}/aggregator.conf"),
            ('"192.0.2.1" "25826"', f'"127.0.0.1" "{self.port}"'),
            ("/etc/collectd/auth_file", f"{self.folder}/auth_file"),
            ('"127.0.0.1" "25826"', f'"127.0.0.1" "{influxdb}"'),
            ('Port "2003"', f'Port "{graphite}"'))

    def start(self, configuration):
        """Starts, and returns when it listens."""
        with open(f"{self.folder}/collectd.conf", "w", **ENCODING) as file:
            file.write(self.BASE.format(folder=self.folder, interval=self.interval)
                       + configuration)
        self.process = subprocess.Popen(
            [*FIRST, "collectd", "-f", "-C", f"{self.folder}/collectd.conf"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: self.process.poll() is not None or self.socket(),
                 "the aggregator to listen")
        if self.process.poll() is not None:
            raise RuntimeError(f"the aggregator ended: {self.log()}")

    def socket(self):
        """The kernel's account of its socket: (bytes in it, packets dropped)."""
        for line in read_file("/proc/net/udp").splitlines()[1:]:
            words = line.split()
            if int(words[1].split(":")[1], 16) == self.port:
                return int(words[4].split(":")[1], 16), int(words[12])
        return None

    def log(self):
        """What it said."""
        return read_file(f"{self.folder}/log")

    def stop(self):
        """Ends it, if it runs."""
        if self.process:
            self.process.terminate()
            self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder)


@dataclasses.dataclass
class Sent:
    """What a replay sent."""
    values: int
    packets: int
    bytes: int
    cpu: float          # s, of the replay


class Replay:
    """A process that sends a recording as so many hosts."""

    def __init__(self, aggregator, recording, prefix, hosts, reads, start=None,
                 security="encrypt", password=PASSWORD):
        command = [*FIRST, REPLAY, recording, prefix, str(hosts), "127.0.0.1",
                   str(aggregator.port), security, str(aggregator.interval), str(reads)]
        if start is not None:
            command.append(f"{start:.3f}")
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "REPLAY_USER": USER, "REPLAY_PASSWORD": password})

    def wait(self):
        """What was sent, when all is."""
        said = self.process.stdout.read()
        self.process.stdout.close()
        status, usage = os.wait4(self.process.pid, 0)[1:]
        self.process.returncode = status
        words = re.fullmatch(r"values (\d+) packets (\d+) bytes (\d+)\n", said)
        if status != 0 or not words:
            raise RuntimeError(f"replay ended with {status}: {said}")
        return Sent(*map(int, words.groups()), usage.ru_utime + usage.ru_stime)


def hosts_of(prefix, hosts):
    """The names that a replay gives to hosts."""
    return [f"{prefix}{number:05d}" for number in range(1, hosts + 1)]


class Recording:
    """What a replay sends for each host."""

    def __init__(self, path, reads):
        self.values = {}  # series: [value of each read since its birth]
        lines = [line.split() for line in read_file(path).splitlines()]
        changes = {}
        for read, _, series, value in lines:
            changes.setdefault(int(read), []).append((series, value))
        for read in range(reads):
            for values in self.values.values():
                values.append(values[-1])
            for series, value in changes.get(read, ()):
                self.values.setdefault(series, [None])[-1] = float(value)

    def growth(self, series):
        """How much a counter grows."""
        values = self.values.get(series, [0])
        return values[-1] - values[0]

    def programs(self, kind_and_type):
        """{program: growth} of a type, like total_events-memcg."""
        return {series[len("reclaim-"):].split("/")[0]: self.growth(series)
                for series in self.values
                if series.startswith("reclaim-") and series.endswith("/" + kind_and_type)}
