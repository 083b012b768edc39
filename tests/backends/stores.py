# SPDX-License-Identifier: MIT
"""Metric stores from Debian's packages, run as conf/backends has them, but on
free ports of loopback and with all data in a folder of their own."""

import glob
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request

ROOT = os.path.abspath(f"{os.path.dirname(__file__)}/../..")
sys.path.insert(0, f"{ROOT}/tests/collectd")

from harness import CSV_HOST, wait_for  # noqa: E402  pylint: disable=wrong-import-position

BACKENDS = f"{ROOT}/conf/backends"
ENCODING = {"encoding": "utf-8"}


def free_port():
    """A port of loopback that nothing listens on, by TCP or UDP."""
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 0))
        udp.bind(tcp.getsockname())
        return tcp.getsockname()[1]


def fetch(url):
    """What a GET answers; None while nothing listens or is ready."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        if error.code == 503:
            return None
        raise RuntimeError(f"{url}: {error}: {error.read().decode()}") from error
    except (urllib.error.URLError, ConnectionError):
        return None


class Store:
    """One store. `interval` is collectd's in seconds."""

    NAME = ""         # its folder in conf/backends
    PROGRAMS = ()     # what it needs, and the Debian package of each
    PLUGINS = ()      # collectd's, whose libraries Debian only suggests
    PORTS = ()        # as in conf/backends; the first is that of queries
    COMMAND = ()
    PING = ""         # a path that is answered when the store is up
    DATA = None       # the folder that its configuration names

    @classmethod
    def missing(cls):
        """The Debian packages that are not there."""
        missing = [package for program, package in cls.PROGRAMS
                   if not shutil.which(program) and not os.path.exists(program)]
        for plugin in cls.PLUGINS:
            libraries = subprocess.run(
                ["ldd", *glob.glob(f"/usr/lib*/collectd/{plugin}.so")],
                check=False, capture_output=True, text=True).stdout
            missing += [name + version for name, version in re.findall(
                r"(\S+)\.so\.(\d+) => not found", libraries)]
        return missing

    def __init__(self, interval=1):
        self.folder = tempfile.mkdtemp(prefix=f"reclaim-{self.NAME}-", dir="/var/tmp")
        self.ports = {port: free_port() for port in self.PORTS}
        self.interval, self.process = interval, None
        os.mkdir(f"{self.folder}/conf")
        for name in os.listdir(f"{BACKENDS}/{self.NAME}"):
            self._place(name)

    def _place(self, name):
        """Copies a file of the configuration, ports and folder replaced."""
        source, target = f"{BACKENDS}/{self.NAME}/{name}", f"{self.folder}/conf/{name}"
        with open(source, **ENCODING) as handle:
            text = handle.read()
        for port, free in self.ports.items():
            text = re.sub(rf"\b{port}\b", str(free), text)
        if self.DATA:
            text = text.replace(self.DATA, f"{self.folder}/data")
        with open(target, "w", **ENCODING) as handle:
            handle.write(self.adapt(text))
        shutil.copymode(source, target)

    def adapt(self, text):
        """What else a file of the configuration needs for tests."""
        return text

    def collectd_conf(self):
        """collectd's part, for harness.Collectd(more=...)."""
        with open(f"{self.folder}/conf/collectd.conf", **ENCODING) as handle:
            return handle.read()

    def proof(self):
        """What the command prints that its collectd.conf has below `Did it arrive?`."""
        conf = self.collectd_conf()
        command = re.findall("^#   (.*)", conf[conf.index("# Did it arrive?"):], re.M)
        return subprocess.run("\n".join(command), shell=True, check=False, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout

    def url(self, path, **query):
        """An address of the store."""
        return (f"http://127.0.0.1:{self.ports[self.PORTS[0]]}{path}"
                f"{'?' if query else ''}{urllib.parse.urlencode(query, doseq=True)}")

    def start(self):
        """Starts, and returns itself when it answers."""
        values = {"conf": f"{self.folder}/conf", "data": f"{self.folder}/data",
                  "port": self.ports[self.PORTS[0]]}
        with open(f"{self.folder}/log", "wb") as log:
            self.process = subprocess.Popen(
                [word.format(**values) for word in self.COMMAND], stdout=log, stderr=log)
        try:
            wait_for(lambda: self.process.poll() is not None or self.answers(),
                     f"{self.NAME} to answer")
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.NAME} ended: {self.log()}")
        except BaseException:
            self.stop()
            raise
        return self

    def answers(self):
        """Whether it is up."""
        return fetch(self.url(self.PING)) is not None

    def ask(self, path, **query):
        """What a store answers that is up."""
        answer = fetch(self.url(path, **query))
        if answer is None:
            raise ConnectionError(f"{self.NAME} does not answer")
        return answer

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def log(self):
        """What it printed."""
        with open(f"{self.folder}/log", errors="replace", **ENCODING) as handle:
            return handle.read()

    def stop(self):
        """Ends it, and removes its data."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder)


class Graphite(Store):
    """carbon and graphite-web: rates per second."""

    NAME = "graphite"
    PROGRAMS = (("carbon-cache", "graphite-carbon"), ("django-admin", "graphite-web"),
                ("curl", "curl"), ("/usr/share/graphite-web/graphite.wsgi", "graphite-web"))
    PORTS = (8080, 2003, 2004, 7002)
    COMMAND = ("{conf}/run", "{data}")
    PING = "/metrics/find?query=*"

    def adapt(self, text):
        return text.replace("retentions = 10s:", f"retentions = {self.interval}s:")

    def query(self, *targets, since="-1h"):
        """{target: [(time in s, value)]}, points without a value left out."""
        answer = json.loads(self.ask("/render", **{
            "target": targets, "format": "json", "noCache": 1, "from": since}))
        return {series["target"]: [(when, value) for value, when in series["datapoints"]
                                   if value is not None] for series in answer}


class InfluxDB(Store):
    """InfluxDB 1.x with its listener for collectd: counters."""

    NAME = "influxdb"
    PROGRAMS = (("influxd", "influxdb"), ("curl", "curl"))
    PLUGINS = ("network",)
    PORTS = (8086, 8088, 25826)
    COMMAND = ("influxd", "run", "-config", "{conf}/influxdb.conf")
    PING = "/ping"
    DATA = "/var/lib/influxdb"

    def query(self, text):
        """The series of a SELECT: each with name, tags, columns, values."""
        result = json.loads(self.ask("/query", db="collectd", q=text, epoch="ns"))
        result = result["results"][0]
        if "error" in result:
            raise RuntimeError(f"{text}: {result['error']}")
        return result.get("series", [])

    def points(self, condition=""):
        """{series, called as collectd's csv files are: [(time in s, value)]}"""
        points = {}
        for series in self.query(f"SELECT value FROM /^reclaim_/ {condition} GROUP BY *"):
            tags = series["tags"]
            name = f"-{tags['instance']}" if tags.get("instance") else ""
            points[f"reclaim{name}/{tags['type']}-{tags['type_instance']}"] = [
                (when / 1e9, value) for when, value in series["values"]]
        return points


class Prometheus(Store):
    """Prometheus, which scrapes collectd's write_prometheus: counters."""

    NAME = "prometheus"
    PROGRAMS = (("prometheus", "prometheus"), ("curl", "curl"))
    PLUGINS = ("write_prometheus",)
    PORTS = (9090, 9103)
    COMMAND = ("prometheus", "--config.file={conf}/prometheus.yml",
               "--storage.tsdb.path={data}", "--web.listen-address=127.0.0.1:{port}")
    PING = "/-/ready"

    def adapt(self, text):
        return text.replace("scrape_interval: 5s", f"scrape_interval: {self.interval * 500}ms")

    def query(self, text):
        """The series of an expression now: each with metric, and value or values."""
        return json.loads(self.ask("/api/v1/query", query=text))["data"]["result"]


class RRDtool(Store):
    """RRD files, which collectd writes itself: rates per second."""

    NAME = "rrdtool"
    PROGRAMS = (("rrdtool", "rrdtool"),)
    PLUGINS = ("rrdtool",)
    DATA = "/var/lib/collectd/rrd"

    def start(self):
        return self

    def stop(self):
        shutil.rmtree(self.folder)

    def rows(self, function, since):
        """{series: [(end of the row in s, value)]} of AVERAGE, MIN or MAX in the finest
        rows; series as the files are named, rows without a value left out."""
        root = f"{self.folder}/data"
        names = [path[len(root) + 1:-len(".rrd")] for path in glob.glob(f"{root}/*/*/*.rrd")]
        printed = subprocess.run(
            ["rrdtool", "-"], check=True, capture_output=True, text=True, cwd=root,
            input="".join(f"fetch {name}.rrd {function} -s {since}\n" for name in names)).stdout
        tables = printed.split("\nOK ")[:-1]
        return {name: [(int(when), float(value)) for when, value in
                       re.findall(r"^(\d+): ([-\d.e+]+)$", table, re.M)]
                for name, table in zip(names, tables, strict=True)}


class Server(Store):
    """A second collectd: gets values encrypted, and stores them as CSV."""

    NAME = "csv"
    PROGRAMS = (("collectd", "collectd-core"),)
    PLUGINS = ("network",)
    PORTS = (25827,)
    COMMAND = ("collectd", "-f", "-C", "{conf}/server.conf")
    DATA = "/var/lib/collectd/csv"

    def start(self):
        port, conf = self.ports[self.PORTS[0]], f"{self.folder}/conf"
        with open(f"{conf}/passwords", "w", **ENCODING) as handle:
            handle.write("reclaim: secret\n")
        with open(f"{conf}/server.conf", "w", **ENCODING) as handle:
            handle.write(f"""
Hostname "server"
BaseDir "{self.folder}"
PIDFile "{self.folder}/pid"
TypesDB "/usr/share/collectd/types.db"
LoadPlugin logfile
<Plugin logfile>
  File STDOUT
</Plugin>
Include "{conf}/collectd.conf"
LoadPlugin network
<Plugin network>
  <Listen "127.0.0.1" "{port}">
    SecurityLevel Encrypt
    AuthFile "{conf}/passwords"
  </Listen>
</Plugin>
""")
        return super().start()

    def answers(self):
        return "Initialization complete" in self.log()

    def client_conf(self):
        """For the collectd that sends."""
        return f"""
LoadPlugin network
<Plugin network>
  <Server "127.0.0.1" "{self.ports[self.PORTS[0]]}">
    SecurityLevel Encrypt
    Username "reclaim"
    Password "secret"
  </Server>
</Plugin>
"""
