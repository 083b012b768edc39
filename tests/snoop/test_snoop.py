#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What reclaimsnoop prints against what ftrace saw, and how it behaves at a
terminal, in a pipe and when it is told to end."""

import collections
import ctypes
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time

sys.path.insert(0, f"{os.path.dirname(os.path.abspath(__file__))}/../collectd")

# pylint: disable=wrong-import-position
from harness import (BUILD, MemoryCgroup, Staller, Tap, Trace,
                     need_live_machine, skip_all, wait_for)

SNOOP = f"{os.path.abspath(BUILD)}/reclaimsnoop"
HOSTILE = [b"a\nb 1 2.0 3", b"\x1b[2J\x1b[31mred", b"q\"uo\\te'", b"\xff\xc3(",
           b"\x9b31m", b"\rover", b"$(reboot) %s%n"]
TOTALS = re.compile(
    r"^(\d+) stalls?: (\d+) (?:printed|in stacks|shown)"
    r"(?:, (\d+) without a stack)?(?:, (\d+) not selected)?(?:, (\d+) lost)?"
    r"(?:, (\d+) hidden by the kernel)?(?: \((\d+) of unknown time\))?$")
LINE = re.compile(r"^(.{16}) ([ \d]{7}) ([ .\d-]{10}) ([ \dkM]{7}) "
                  r"(direct  |memcg   |proact  |node    ) ([ \d-]{5})(?:  ?(.*))?$")
ROW = re.compile(r"^(.{15}) (direct|memcg|proact|node) +(\d+) +([\d.]+) +(\d+) +"
                 r"(\d+) +([\d.]+)(?: (.*))?$")


def escape(comm):
    """As the tool does: what drives no terminal."""
    return "".join(chr(byte) if 32 <= byte < 127 and byte != 92
                   else f"\\x{byte:02x}" for byte in comm[:15])


def cut(text, width):
    """A name in a column: what does not fit ends in +, after whole escapes."""
    if len(text) <= width:
        return text
    parts = re.findall(r"\\x..|.", text)
    while len("".join(parts)) > width - 1:
        parts.pop()
    return "".join(parts) + "+"


class Snoop:
    """reclaimsnoop, attached, with its output in files."""

    def __init__(self, *options, **popen):
        self.folder = tempfile.mkdtemp(prefix="reclaim-snoop-")
        self.out, self.err = f"{self.folder}/out", f"{self.folder}/err"
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen(
                [SNOOP, *options], **{"stdout": out, "stderr": err, **popen})
        wait_for(self.is_waiting, "reclaimsnoop to attach")

    def is_waiting(self):
        """It polls only when all is attached; or it has more to write than
        somebody reads."""
        if self.process.poll() is not None:
            return True
        with open(f"/proc/{self.process.pid}/wchan", encoding="ascii") as file:
            return re.search("poll|pipe|tty|wait_woken", file.read())

    def end(self, how=signal.SIGINT):
        """Ends it and returns the lines of its output."""
        if how:
            self.process.send_signal(how)
        self.process.wait(60)
        with open(self.out, "rb") as file:
            lines = file.read().decode("ascii").splitlines()
        with open(self.err, encoding="utf-8") as file:
            self.err = file.read()
        shutil.rmtree(self.folder)
        return lines


def totals_of(text):
    """(counted, printed, without a stack, not selected, lost, hidden)"""
    found = [TOTALS.match(line) for line in text if TOTALS.match(line)]
    return [int(number or 0) for number in found[-1].groups()[:6]]


def lines_of(lines):
    """[(comm, tid, ms, pages, kind)] of the lines below the header."""
    found = []
    for line in lines[1:lines.index("")]:
        fields = LINE.match(line)
        if not fields:
            raise ValueError(f"not a line: {line}")
        found.append((fields[1].rstrip(), int(fields[2]), fields[3].strip(),
                      int(fields[4]), fields[5].strip()))
    return found


def table_of(lines):
    """{name: (stalls, pages)} of kind memcg, of the last table."""
    last = max(i for i, line in enumerate(lines) if line.startswith("NAME "))
    rows = [ROW.match(line) for line in lines[last + 1:]]
    return {row[1].rstrip(): (int(row[3]), int(row[5]))
            for row in rows if row and row[2] == "memcg"}


def sums(stalls):
    """{key: (stalls, pages)} of (key, pages) pairs."""
    found = collections.defaultdict(lambda: [0, 0])
    for key, pages in stalls:
        found[key][0] += 1
        found[key][1] += pages
    return {key: tuple(counts) for key, counts in found.items()}


def truth(trace, stallers):
    """ftrace's {tid: (stalls, pages)} and {comm: …} of what the stallers'
    threads did; None where it lost events."""
    names = {tid: comm for staller in stallers
             for tid, comm in staller.comms.items()}
    try:
        stalls = [stall for stall in trace.stalls()
                  if stall.tid in names and stall.kind == "memcg"]
    except RuntimeError:
        return None, None
    return (sums((stall.tid, stall.pages) for stall in stalls),
            sums((names[stall.tid], stall.pages) for stall in stalls))


def only(counts, keys):
    return {key: value for key, value in counts.items() if key in keys}


def test_lines(tap):
    trace, snoop = Trace(), Snoop()
    stallers = [Staller([b"snoop-one", b"snoop-two"], 96),
                Staller(HOSTILE, 48)]
    for staller in stallers:
        staller.wait()
    lines = snoop.end()
    by_tid, by_comm = truth(trace, stallers)
    trace.remove()
    tap.ok(sum(stalls for stalls, _ in by_tid.values()) > 500,
           "there was something to print", by_tid)
    tap.equal(snoop.process.returncode, 0, "SIGINT ends it with status 0")
    tap.equal(snoop.err, "", "and nothing on stderr")
    printed = lines_of(lines)
    tap.equal(only(sums((tid, pages) for _, tid, _, pages, _ in printed),
                   by_tid), by_tid,
              "lines and their pages equal ftrace's, thread by thread")
    names = {cut(escape(comm), 16) for staller in stallers
             for comm in staller.comms.values()}
    tap.ok(names - {"staller"} <= {comm for comm, *_ in printed},
           "each comm is printed, escaped", names)
    by_name = {cut(escape(comm), 15): counts
               for comm, counts in by_comm.items()}
    tap.equal(only(table_of(lines), by_name), by_name,
              "the summary has the same sums, name by name")
    counted, shown, _, _, lost, hidden = totals_of(lines)
    tap.equal(counted, shown + lost + hidden, "the numbers add up")
    tap.equal(shown, len(printed), "as many lines as it says")


class Forcers:
    """Processes that ask without a pause for a cgroup to be emptied that holds
    nothing but locked memory: the shortest stalls, the most a second."""

    FILE, TEXT = ("memory.force_empty", b"0") \
        if os.path.exists("/sys/fs/cgroup/memory/memory.force_empty") \
        else ("memory.reclaim", b"8M")

    def __init__(self, comms, seconds):
        self.cgroup = MemoryCgroup(64)
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.locked = subprocess.Popen(
            [sys.executable, "-c", "import ctypes, sys\n"
             "held = b'x' * (2 << 20)\n"
             "ctypes.CDLL(None).mlockall(1)\n"
             "print(flush=True)\nsys.stdin.read()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            preexec_fn=self.cgroup.join)
        self.locked.stdout.readline()
        self.comms = {self.fork(comm, seconds): comm for comm in comms}

    def fork(self, comm, seconds):
        pid = os.fork()
        if pid != 0:
            return pid
        self.libc.prctl(15, comm) # PR_SET_NAME
        until = time.monotonic() + seconds
        file = os.open(f"{self.cgroup.path}/{self.FILE}", os.O_WRONLY)
        while time.monotonic() < until:
            try:
                os.pwrite(file, self.TEXT, 0)
            except OSError: # it could not be emptied
                pass
        os._exit(0) # pylint: disable=protected-access

    def wait(self):
        for pid in self.comms:
            os.waitpid(pid, 0)
        self.locked.communicate()
        self.cgroup.remove()


def test_storm(tap, what, make):
    trace, snoop = Trace(), Snoop()
    begin = time.monotonic()
    stallers = [make()]
    stallers[0].wait()
    seconds = time.monotonic() - begin
    lines = snoop.end()
    _, by_comm = truth(trace, stallers)
    trace.remove()
    counted, shown, _, _, lost, hidden = totals_of(lines)
    tap.note(f"{what}: {counted} stalls in {seconds:.1f} s, "
             f"{counted / seconds:.0f} a second: {shown} printed, {lost} lost")
    check_storm(tap, lines, counted, shown, lost, hidden)
    if by_comm is None:
        tap.note("ftrace lost events, and cannot be compared")
        return
    by_name = {escape(comm): counts for comm, counts in by_comm.items()}
    tap.equal(only(table_of(lines), by_name), by_name,
              f"in a storm ({what}) the summary equals ftrace")


def test_end_in_a_storm(tap):
    snoop = Snoop()
    staller = Staller([b"on-and-%d" % i for i in range(8)], 32, seconds=3)
    time.sleep(2)
    lines = snoop.end()
    staller.wait()
    counted, shown, _, _, lost, hidden = totals_of(lines)
    check_storm(tap, lines, counted, shown, lost, hidden)


def check_storm(tap, lines, counted, shown, lost, hidden):
    tap.ok(counted > 500, "there was a storm", counted)
    tap.equal(shown + lost + hidden, counted,
              "lines printed + lost = stalls counted")
    if int(os.uname().release.split(".")[0]) < 7:
        tap.equal(hidden, 0, "this kernel hides none")
    tap.equal(lines.index("") - 1, shown, "as many lines as it says")


def test_slow_reader(tap):
    """A pipe that nobody reads for a while: lines are lost, and counted."""
    read, write = os.pipe()
    snoop = Snoop(stdout=write)
    os.close(write)
    Staller([b"slow-%d" % i for i in range(8)], 32, seconds=3).wait()
    snoop.process.send_signal(signal.SIGINT)
    with open(read, "rb") as pipe:
        lines = pipe.read().decode("ascii").splitlines()
    snoop.end(None)
    counted, shown, _, _, lost, hidden = totals_of(lines)
    tap.note(f"{counted} stalls: {shown} printed, {lost} lost")
    # The ring buffer has room for 2,520, the pipe for some 600.
    tap.ok(lost > 0 or counted < 4000,
           "what a slow reader cannot take is lost", lost)
    check_storm(tap, lines, counted, shown, lost, hidden)


def test_beside_another(tap):
    first, second = Snoop(), Snoop("-i", "60")
    staller = Staller([b"both-see-it", b"and-this"], 96)
    staller.wait()
    tables = [table_of(snoop.end()) for snoop in (first, second)]
    names = {"both-see-it", "and-this"}
    tap.ok(len(only(tables[0], names)) == 2, "both names stalled", tables[0])
    tap.equal(only(tables[1], names), only(tables[0], names),
              "two at the same time count the same")


def run_jq(lines, program):
    """What jq makes of the lines; None where it cannot parse them."""
    jq = subprocess.run(["jq", "-c", program], input="\n".join(lines),
                        capture_output=True, text=True, check=False)
    return [json.loads(line) for line in jq.stdout.splitlines()] \
        if jq.returncode == 0 else None


def test_json(tap):
    trace, snoop = Trace(), Snoop("-j")
    staller = Staller(HOSTILE, 48)
    staller.wait()
    lines = snoop.end()
    by_tid, _ = truth(trace, [staller])
    trace.remove()
    objects = run_jq(lines, ".")
    tap.ok(objects is not None and len(objects) == len(lines),
           "jq parses each line of -j")
    mine = [stall for stall in objects or [] if stall["tid"] in staller.comms]
    tap.equal(sums((stall["tid"], stall["nr_reclaimed"]) for stall in mine),
              by_tid, "they are what ftrace saw")
    tap.ok(all(stall["comm"] == escape(staller.comms[stall["tid"]])
               for stall in mine), "comms are whole, and escaped")
    tap.equal({stall["pid"] for stall in mine}, {staller.process.pid},
              "pid is the process's")
    tap.equal({tuple(stall) for stall in mine},
              {("time", "comm", "pid", "tid", "kind", "latency_ns",
                "nr_reclaimed", "order", "gfp_flags", "cgroup", "cgroup_id")},
              "all have the same fields")
    tap.ok(all(isinstance(stall["latency_ns"], int) and
               "GFP_" in stall["gfp_flags"] and
               (stall["cgroup"] or "/").startswith("/") for stall in mine),
           "of the right types", mine[:1])
    counted, shown, _, _, lost, hidden = totals_of(snoop.err.splitlines())
    tap.equal((shown, shown + lost + hidden), (len(lines), counted),
              "the totals are on stderr")


def test_json_tables(tap):
    trace, snoop = Trace(), Snoop("-j", "-i", "0.3")
    staller = Staller([b"table-1", b"tab\"le\n2"], 64, seconds=1)
    staller.wait()
    lines = snoop.end()
    _, by_comm = truth(trace, [staller])
    trace.remove()
    rows = run_jq(lines, ".") or []
    tap.ok(len({row["time"] for row in rows}) > 2, "each interval has rows",
           lines[:3])
    names = {escape(comm): comm for comm in staller.comms.values()}
    got = collections.defaultdict(lambda: [0, 0])
    for row in rows:
        if row["name"] in names and row["kind"] == "memcg":
            got[names[row["name"]]][0] += row["stalls"]
            got[names[row["name"]]][1] += row["nr_reclaimed"]
    tap.equal({comm: tuple(counts) for comm, counts in got.items()}, by_comm,
              "rows of all intervals add up to what ftrace saw")
    tap.ok(all(sum(row["histogram"].values()) == row["stalls"]
               for row in rows if row["name"] in names),
           "and the histogram has each stall once")


def read_pty(master, process):
    """All that is written to the terminal until the process ends."""
    output = b""
    while True:
        try:
            more = os.read(master, 65536)
        except OSError: # the other side is closed
            break
        if not more:
            break
        output += more
    process.wait(60)
    os.close(master)
    return output


def on_terminal(options, environment):
    """Output at a terminal of 80 columns, under hostile comms."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    snoop = Snoop(*options, "-d", "1.5", stdout=slave,
                  env={**os.environ, "TERM": "xterm", **environment})
    os.close(slave)
    staller = Staller(HOSTILE, 40)
    output = read_pty(master, snoop.process)
    staller.wait()
    snoop.end(None)
    return output.replace(b"\r\n", b"\n")


def test_terminal(tap):
    for options in ([], ["-T"], ["-P"], ["-T", "-P"], ["-i", "1"]):
        what = " ".join(options) or "no option"
        output = on_terminal(options, {})
        plain = re.sub(rb"\x1b\[(0|31|33)m", b"", output)
        tap.ok(re.fullmatch(rb"[ -~\n]*", plain),
               f"at a terminal, {what}: nothing but text and our colours")
        lines = plain.decode("ascii").splitlines()
        tap.ok(len(lines) > 20 or "-i" in options, "there are lines", lines)
        wide = [line for line in lines if len(line) > 80]
        tap.equal(wide, [], "none is wider than 80 columns")
        if not options:
            broken = [line for line in lines[1:lines.index("")]
                      if not LINE.match(line)]
            tap.equal(broken, [], "and columns stand below each other")
    tap.ok(b"\x1b" not in on_terminal([], {"NO_COLOR": "1"}),
           "with NO_COLOR there is none")


def test_closed_pipe(tap):
    staller = Staller([b"for-the-pipe"], 64, seconds=4)
    shell = subprocess.run(
        ["bash", "-c", f"{SNOOP} | head -n 1; echo ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, check=False, timeout=30)
    staller.wait()
    header, status = shell.stdout.splitlines()
    tap.ok(header.startswith("COMM") and status == "0",
           "a closed pipe ends it with status 0", shell.stdout)
    tap.equal(shell.stderr, "", "quietly")

    # A parent may have ignored SIGPIPE, as Python does, or blocked it.
    check_closed_pipe(tap, [], None)
    check_closed_pipe(tap, [], default_sigpipe)
    check_closed_pipe(tap, [], block_sigpipe)
    check_closed_pipe(tap, ["-j"], None)
    check_closed_pipe(tap, ["-i", "9"], None)


def default_sigpipe():
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def block_sigpipe():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])


def check_closed_pipe(tap, options, prepare):
    """Whether it ends in silence where nobody reads from the start; without a
    line to write, by looking."""
    read, write = os.pipe()
    with tempfile.TemporaryFile() as err:
        process = subprocess.Popen([SNOOP, *options], stdout=write, stderr=err,
                                   restore_signals=False, preexec_fn=prepare)
        os.close(write)
        os.close(read)
        status = process.wait(30)
        err.seek(0)
        tap.equal((status, err.read()), (0, b""),
                  f"a pipe without a reader, options {options}, "
                  f"{prepare.__name__ if prepare else 'SIGPIPE ignored'}")


def test_closed_socket(tap):
    ours, its = socket.socketpair()
    with subprocess.Popen([SNOOP, "-i", "9"], stdout=its,
                          stderr=subprocess.PIPE) as process:
        its.close()
        ours.close()
        try:
            status = process.wait(10)
        except subprocess.TimeoutExpired:
            status = None
            process.kill()
        tap.equal((status, process.stderr.read()), (0, b""),
                  "a socket whose peer has gone ends it, quietly")


def test_closed_files(tap):
    snoop = Snoop("-d", "1", preexec_fn=lambda: os.closerange(0, 3))
    folder = f"/proc/{snoop.process.pid}/fd"
    files = [os.readlink(f"{folder}/{fd}") for fd in range(3)
             if os.path.lexists(f"{folder}/{fd}")]
    snoop.end(None)
    tap.equal((snoop.process.returncode, files), (0, ["/dev/null"] * 3),
              "without stdin, stdout and stderr it has /dev/null there")


def test_full_disk(tap):
    for options in (["-d", "1"], ["-c"], ["--help"], ["--version"]):
        with open("/dev/full", "wb") as full:
            run = subprocess.run([SNOOP, *options], stdout=full, check=False,
                                 stderr=subprocess.PIPE, text=True, timeout=30)
        tap.ok(run.returncode == 1 and run.stderr ==
               "reclaimsnoop: cannot write: No space left on device\n",
               f"{options[0]}: a full disk is an error, told once", run)


def test_ends(tap):
    begin = time.monotonic()
    run = subprocess.run([SNOOP, "-d", "0.5"], capture_output=True, text=True,
                         check=False, timeout=30)
    took = time.monotonic() - begin
    tap.ok(run.returncode == 0 and TOTALS.match(run.stdout.splitlines()[-1])
           and took > 0.5, "-d ends it with its totals", run)
    snoop = Snoop()
    lines = snoop.end(signal.SIGTERM)
    tap.ok(snoop.process.returncode == 0 and TOTALS.match(lines[-1]),
           "so does SIGTERM", lines)
    starts = []
    for _ in range(5):
        begin = time.monotonic()
        with subprocess.Popen([SNOOP], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            starts.append((time.monotonic() - begin) * 1e3)
            process.send_signal(signal.SIGINT)
    tap.note("start to first line: " +
             ", ".join(f"{start:.0f}" for start in starts) + " ms")


def test_usage(tap):
    for options in ("-x", "-k swap", "-k direct,", "-k", "-p 0", "-p 1x",
                    "-p -1", "-m -1", "-m nan", "-d 0", "-i 0", "-d 1s",
                    "--frobnicate", "dd", "-S -P"):
        run = subprocess.run([SNOOP, *options.split()], capture_output=True,
                             text=True, check=False, timeout=30)
        tap.ok(run.returncode == 2 and run.stdout == "" and
               "usage: reclaimsnoop" in run.stderr,
               f"{options}: a usage error", run)
    for option, text in ("--help", "usage: reclaimsnoop"), \
                        ("--version", "reclaimsnoop "):
        run = subprocess.run([SNOOP, option], capture_output=True, text=True,
                             check=False, timeout=30)
        tap.ok(run.returncode == 0 and run.stdout.startswith(text) and
               run.stderr == "", f"{option} is answered", run)


def test_check(tap):
    run = subprocess.run([SNOOP, "-c"], capture_output=True, text=True,
                         check=False, timeout=60)
    words = [line.split()[0] for line in run.stdout.splitlines()[:-1]]
    tap.ok(run.returncode == 0 and len(words) > 15 and "FAIL" not in words,
           "-c finds all that lines need", run.stdout)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        shutil.copy(SNOOP, folder)
        nobody = ["setpriv", "--reuid=65534", "--regid=65534",
                  "--clear-groups", f"{folder}/reclaimsnoop", "-c"]
        run = subprocess.run(nobody, capture_output=True, text=True,
                             check=False, timeout=60)
        bare = subprocess.run(
            ["unshare", "-m", "bash", "-ec",
             "! [ -d /sys/kernel/debug ] || mount -t tmpfs none "
             "/sys/kernel/debug; exec \"$@\"", "bare", *nobody],
            capture_output=True, text=True, check=False, timeout=60)
    failed = [line for line in run.stdout.splitlines()
              if line.startswith("FAIL ")]
    tap.ok(run.returncode == 1 and any(" capabilities " in line
                                       for line in failed),
           "as nobody it tells what fails", run.stdout)
    tap.ok(failed and all("; for " in line and "; cure: " in line
                          for line in failed),
           "what for, and the cure", failed)
    tap.ok(re.search("^warn  names of flags .*: Permission denied;",
                     bare.stdout, re.M),
           "of two places for tracefs, why the first cannot be read",
           bare.stdout)
    run = subprocess.run([SNOOP, "-c", "--btf", "/etc/passwd"], text=True,
                         capture_output=True, check=False, timeout=60)
    tap.ok(re.search("^FAIL  BTF .*/etc/passwd: (?!Unknown)", run.stdout, re.M),
           "libbpf's own errors have a text", run.stdout)
    run = subprocess.run([SNOOP, "-c", "--btf", "/nonexistent"], text=True,
                         capture_output=True, check=False, timeout=60)
    tap.ok(run.returncode == 1 and
           re.search(r"^FAIL  BTF .*/nonexistent", run.stdout, re.M),
           "with types that cannot be read, too", run.stdout)
    run = subprocess.run([SNOOP, "--btf", "/nonexistent"], text=True,
                         capture_output=True, check=False, timeout=60)
    tap.ok(run.returncode == 1 and run.stderr.startswith(
        "reclaimsnoop: cannot load BPF programs: "),
        "and then it does not start", run)


def test_filters(tap):
    everything, snoops = Snoop("-j"), [Snoop("-n", "lter-o"),
                                       Snoop("-k", "direct,node"),
                                       Snoop("-m", "0.1"), Snoop("-P"),
                                       Snoop("-i", "60", "-n", "lter-o")]
    staller = Staller([b"filter-one", b"filter-two"], 96, leader=b"the-leader")
    staller.wait()
    all_stalls = [json.loads(line) for line in everything.end()]
    named, direct, longer, process, table = [snoop.end() for snoop in snoops]
    ones = [stall for stall in all_stalls if stall["comm"] == "filter-one"]
    tap.equal([len(lines_of(named)), {comm for comm, *_ in lines_of(named)},
               set(table_of(named))],
              [len(ones), {"filter-one"}, {"filter-one"}],
              "-n selects lines and rows by a part of the comm")
    counted, shown, _, unselected, lost, hidden = totals_of(named)
    tap.ok(unselected > 0 and
           counted == shown + unselected + lost + hidden,
           "the rest is not selected", named[-1])
    tap.ok(TOTALS.match(table[-1]), "tables tell what -n leaves out", table[-1])
    counted, shown, _, unselected, _, hidden = totals_of(table)
    tap.ok(unselected > 0 and shown == len(ones) and
           counted == shown + unselected + hidden,
           "and the numbers add up, too", table[-1])
    tap.ok("memcg" not in " ".join(direct), "-k selects kinds", direct[:3])
    times = sorted(float(ms) for _, _, ms, _, _ in lines_of(longer))
    tap.ok(not times or times[0] >= 0.1, "-m selects by time", times[:3])
    counted, shown, _, unselected, lost, _ = totals_of(longer)
    rows = table_of(longer)
    tap.ok(counted == shown + unselected + lost and
           rows["filter-one"][0] == len(ones),
           "but the summary counts all", rows)
    tap.ok(any(re.search(rf" {staller.process.pid} the-leader  ", line)
               for line in process) and "the-leader" in table_of(process),
           "-P has the process in lines and summary", process[:3])


def test_pid(tap):
    staller = Staller([b"one-of-many"], 64, seconds=3)
    others = Staller([b"not-this-one"], 64, seconds=3)
    tid = next(tid for tid, comm in staller.comms.items()
               if comm == b"one-of-many")
    by_thread = Snoop("-p", str(tid), "-d", "1")
    by_process = Snoop("-p", str(staller.process.pid), "-d", "1")
    outputs = [by_thread.end(None), by_process.end(None)]
    staller.wait()
    others.wait()
    for output, what in zip(outputs, ("thread", "process")):
        printed = lines_of(output)
        tap.ok(printed and {stall[1] for stall in printed} == {tid} and
               set(table_of(output)) == {"one-of-many"},
               f"-p takes the id of a {what}", output[-3:])


class Pressure:
    """One program in a memory cgroup at its limit, under a name of its own."""

    def __init__(self, name, program, *arguments):
        self.folder = tempfile.mkdtemp(prefix="reclaim-snoop-", dir="/var/tmp")
        self.file = f"{self.folder}/file"
        self.cgroup = MemoryCgroup(48)
        self.program = f"{self.folder}/{name}"
        os.symlink(shutil.which(program), self.program)
        with open(self.file, "wb") as file:
            file.truncate(128 << 20)
        self.arguments = [argument.format(file=self.file,
                                          cgroup=self.cgroup.path)
                          for argument in arguments]

    def run(self):
        subprocess.run(["dd", f"if={self.file}", "of=/dev/null", "bs=64k"],
                       stderr=subprocess.DEVNULL, check=True,
                       preexec_fn=self.cgroup.join)
        subprocess.run([self.program, *self.arguments], check=True,
                       stderr=subprocess.DEVNULL,
                       preexec_fn=self.cgroup.join)
        shutil.rmtree(self.folder)
        self.cgroup.remove()


def test_stacks(tap):
    cases = [
        ("page faults", r"handle_mm_fault", r"vfs_read|vfs_write",
         Pressure("faulter", "python3", "-c", "len(b'x' * (24 << 20))")),
        ("file reads", r"filemap_read", r"handle_mm_fault|vfs_write",
         Pressure("reader", "dd", "if={file}", "of=/dev/null", "bs=64k")),
        (Forcers.FILE, r"force_empty|memory_reclaim|proactive_reclaim",
         r"handle_mm_fault|vfs_read",
         Pressure("forcer", "bash", "-c",
                  f"echo {Forcers.TEXT.decode()} >{{cgroup}}/{Forcers.FILE}"))]
    for what, has, has_not, pressure in cases:
        name = os.path.basename(pressure.program)
        as_json, text = Snoop("-S", "-j", "-n", name), Snoop("-S", "-n", name)
        pressure.run()
        stacks = run_jq(as_json.end(), ".")
        lines = text.end()
        right = [stack for stack in stacks
                 if re.search(has, " ".join(stack["frames"])) and
                 not re.search(has_not, " ".join(stack["frames"]))]
        tap.ok(right and {comm["comm"] for stack in stacks
                          for comm in stack["comms"]} == {name},
               f"-S names the path of {what}", stacks)
        tap.equal({stack["frames"][0] for stack in right},
                  {"try_to_free_mem_cgroup_pages"},
                  "which begins where the tracepoint is")
        tap.ok(re.match(rf"[\d.]+ ms in \d+ stalls?: {name} \d+$", lines[0])
               and lines[1] == "    try_to_free_mem_cgroup_pages",
               "as text, too", lines[:3])
        counted, shown, stackless, unselected, lost, hidden = totals_of(lines)
        tap.equal(counted, shown + stackless + unselected + lost + hidden,
                  "and the numbers add up")


HIDE_PROGRAMS = r"""grep -v '\[bpf\]' /proc/kallsyms >"$1"
mount --bind "$1" /proc/kallsyms
shift
exec "$@"
"""


def test_hidden_programs(tap):
    """As with net.core.bpf_jit_harden."""
    pressure = Pressure("reader", "dd", "if={file}", "of=/dev/null", "bs=64k")
    with tempfile.NamedTemporaryFile() as symbols, subprocess.Popen(
            ["unshare", "-m", "bash", "-ec", HIDE_PROGRAMS, "hide",
             symbols.name, SNOOP, "-S", "-j", "-n", "reader", "-d", "4"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True) as snoop:
        time.sleep(2)
        pressure.run()
        output, err = snoop.communicate(timeout=60)
    stacks = run_jq(output.splitlines(), ".") or []
    tap.equal({stack["frames"][0] for stack in stacks},
              {"try_to_free_mem_cgroup_pages"},
              "stacks begin at the tracepoint where the kernel hides programs")
    tap.ok(TOTALS.match(err.strip()), "and nothing is complained of", err)


def tables_of(lines):
    """[{name: stalls}] of each table of kind memcg, and of the whole run."""
    tables = []
    for line in lines:
        row = ROW.match(line)
        if line.startswith("NAME "):
            tables.append({})
        elif row and row[2] == "memcg":
            tables[-1][row[1].rstrip()] = int(row[3])
    return tables[:-1], tables[-1]


def test_intervals(tap):
    snoop = Snoop("-i", "0.4", "-d", "2.2")
    staller = Staller([b"in-the-table"], 64, seconds=1)
    lines = snoop.end(None)
    staller.wait()
    tables, whole = tables_of(lines)
    tap.ok(len(tables) >= 5, "-i prints a table each interval", lines)
    tap.ok(any("in-the-table" not in table for table in tables),
           "also where nothing stalled", lines)
    tap.ok(re.match(r"^\d+ stalls?( \(|$)", lines[-1]) and
           not any(line.startswith("COMM") for line in lines),
           "no lines, and the totals at the end", lines[-2:])
    at = lines.index("whole run")
    tap.ok(lines[at - 1] == "" and lines[at + 1].startswith("NAME ") and
           lines[at:].count(lines[at + 1]) == 1,
           "a line tells the table of the whole run apart", lines)
    check_sum(tap, tables, whole, "in-the-table")

    snoop = Snoop("-i", "60")
    Staller([b"rest-of-it"], 64).wait()
    check_sum(tap, *tables_of(snoop.end()), "rest-of-it")


def test_idle(tap):
    """What it costs where nothing is to be told."""
    tables = Snoop("-i", "60")
    stacks = Snoop("-S", "-i", "0.1", "-n", "nobody-is-this")
    before = switches_of(tables), seconds_of(stacks)
    time.sleep(2)
    woken = switches_of(tables) - before[0]
    seconds = seconds_of(stacks) - before[1]
    begin = time.monotonic()
    tables.end()
    tap.ok(time.monotonic() - begin < 5, "SIGINT ends a long wait at once")
    stacks.end()
    tap.ok(woken < 20, "tables sleep from one to the next", woken)
    tap.ok(seconds < 0.4, "symbols are not read where there is no stack",
           seconds)


def switches_of(snoop):
    with open(f"/proc/{snoop.process.pid}/status", encoding="ascii") as file:
        return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", file.read(),
                             re.M)[1])


def seconds_of(snoop):
    with open(f"/proc/{snoop.process.pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def check_sum(tap, tables, whole, name):
    tap.ok(whole.get(name, 0) > 0 and
           whole[name] == sum(table.get(name, 0) for table in tables),
           "the tables of all intervals, the last and partial one too, add up "
           "to the whole run", (tables, whole))


def main():
    need_live_machine()
    if not shutil.which("jq"):
        skip_all("needs jq")
    tap = Tap()
    test_usage(tap)
    test_check(tap)
    test_ends(tap)
    test_lines(tap)
    test_json(tap)
    test_json_tables(tap)
    test_beside_another(tap)
    test_filters(tap)
    test_pid(tap)
    test_intervals(tap)
    test_idle(tap)
    test_stacks(tap)
    test_hidden_programs(tap)
    test_terminal(tap)
    test_closed_pipe(tap)
    test_closed_socket(tap)
    test_closed_files(tap)
    test_full_disk(tap)
    test_slow_reader(tap)
    test_end_in_a_storm(tap)
    test_storm(tap, "reads",
               lambda: Staller([b"storm-%d" % i for i in range(8)], 32, 3))
    test_storm(tap, Forcers.FILE,
               lambda: Forcers([b"force-%d" % i for i in range(4)], 3))
    tap.done()


main()
