#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How little the plugin can do with: collectd as a user without any rights but two
capabilities, without system calls that tracing tools are used to, and without what
may be hidden from it. What it counts is ftrace's all the same."""

import contextlib
import ctypes
import glob
import os
import re
import shutil
import struct
import subprocess
import sys

from harness import (BUILD, TRACING, Collectd, Staller, Tap, Trace, need_live_machine,
                     sanitizer)

NOBODY = 65534
CAPABILITIES = {"bpf": 39, "perfmon": 38}  # include/uapi/linux/capability.h

# What the plugin has no need of; other tools that load BPF programs do.
FORBIDDEN = ["perf_event_open", "mount", "umount2", "setns", "unshare", "ptrace", "kcmp",
             "process_vm_readv", "open_by_handle_at", "init_module", "finit_module",
             "syslog", "keyctl", "userfaultfd"]
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ALLOW = 0x80000000, 0x7fff0000
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # classic BPF, of 32-bit words

# As ProtectProc=invisible and the like do, and a host on which these are not mounted.
HIDDEN = f"""
mount -t proc -o hidepid=2 proc /proc
for file in vmstat pressure/memory kallsyms; do mount --bind "$0" /proc/$file; done
for folder in {TRACING} /sys/fs/bpf /sys/kernel/debug; do
  mount -t tmpfs -o mode=0 none $folder
done
exec "$@"
"""


def system_calls():
    """{name: number}, as this machine's headers have them."""
    macros = subprocess.run(["cc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c",
                             "/dev/null"], check=True, capture_output=True, text=True).stdout
    return {name: int(number) for name, number in
            re.findall(r"^#define __NR_(\w+) (\d+)$", macros, re.M)}


def forbid(names):
    """Whoever makes one of these system calls from now on is killed. A sanitizer looks for
    leaks by ptrace."""
    if sanitizer():
        names = set(names) - {"ptrace"}
    numbers = [number for name, number in system_calls().items() if name in names]
    filters = [(LOAD, 0, 0, 0)]
    filters += [(JUMP_IF_EQUAL, len(numbers) - i, 0, number) for i, number in enumerate(numbers)]
    filters += [(RETURN, 0, 0, SECCOMP_RET_ALLOW), (RETURN, 0, 0, SECCOMP_RET_KILL_PROCESS)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in filters))
    header = struct.pack("HxxxxxxP", len(filters), ctypes.addressof(program))
    libc = ctypes.CDLL(None, use_errno=True)
    if (libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header)):
        raise OSError(ctypes.get_errno(), "prctl")


def as_nobody(*capabilities):
    """A prefix: no user's rights, and so many capabilities."""
    kept = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    return ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
            "--no-new-privs", f"--bounding-set={kept}", f"--inh-caps={kept}",
            f"--ambient-caps={kept}")


CONFINED = (sys.executable, os.path.abspath(__file__), "forbid")


class Unprivileged(Collectd):
    """collectd as nobody. The build folder may be nobody's to read, hence a copy."""

    def __init__(self, options="", capabilities=tuple(CAPABILITIES), prefix=CONFINED):
        super().__init__(options, prefix=[*prefix, *as_nobody(*capabilities)])
        shutil.copy(f"{BUILD}/.libs/reclaim.so", self.folder)
        with open(f"{self.folder}/collectd.conf", "r+", encoding="ascii") as file:
            text = re.sub("PluginDir .*", f'PluginDir "{self.folder}"', file.read())
            file.seek(0)
            file.truncate()
            file.write(text)
        for path in [self.folder, *glob.glob(f"{self.folder}/*")]:
            os.chown(path, NOBODY, NOBODY)

    def status(self, field):
        """A line of the process's status, as the kernel has it."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            return re.search(rf"^{field}:\t(.*)$", file.read(), re.M)[1]

    def attached(self):
        """What the plugin says that it has attached."""
        return re.search("reclaim plugin: attached: .*|$", self.log())[0]


@contextlib.contextmanager
def running(collectd):
    """Runs collectd from its first read to its end."""
    try:
        collectd.start()
        yield collectd
    finally:
        if collectd.process and not collectd.has_ended():
            collectd.stop()
        collectd.clean()


def check_counts(tap, collectd, comm, when):
    """Tasks of another user stall; each is counted and named."""
    trace = Trace()
    try:
        staller = Staller([comm], 64)
        staller.wait()
        collectd.wait_reads(3)
        mine = [stall for stall in trace.stalls() if stall.tid in staller.comms]
    finally:
        trace.remove()
    named = [stall for stall in mine if staller.comms[stall.tid] == comm]
    name = f"reclaim-{comm.decode()}"
    tap.equal((collectd.growth(f"{name}/total_events-memcg"),
               collectd.growth(f"{name}/vmpage_action-memcg")),
              (len(named), sum(stall.pages for stall in named)),
              f"{when}, stalls and pages of another user's task are ftrace's")
    ours_ms = collectd.growth(f"{name}/total_time_in_ms-memcg")
    theirs_ms = sum(stall.duration for stall in named) * 1000
    tap.ok(len(named) > 50 and abs(ours_ms - theirs_ms) <= 2 + theirs_ms * 0.05 + len(named) * 0.05,
           f"{when}, so is their time ({len(named)} stalls)", f"{ours_ms} and {theirs_ms} ms")


def root_attaches():
    """What a collectd attaches that may do everything."""
    collectd = Collectd()
    collectd.run_once()
    said = re.search("reclaim plugin: attached: .*|$", collectd.log())[0]
    collectd.clean()
    return said


def programs_of(collectd, *names):
    """The ids of its BPF programs of these names."""
    found = {}
    for path in glob.glob(f"/proc/{collectd.process.pid}/fdinfo/*"):
        with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
            number = re.search(r"^prog_id:\s*(\d+)", file.read(), re.M)
        if number:
            said = subprocess.run(["bpftool", "prog", "show", "id", number[1]], check=False,
                                  capture_output=True, text=True).stdout
            found[re.search(r" name (\S+)|$", said)[1]] = number[1]
    return [found[name] for name in names]


def test_least(tap):
    """Two capabilities, and nothing else."""
    with running(Unprivileged()) as collectd:
        collectd.wait_reads(1)
        wanted = sum(1 << number for number in CAPABILITIES.values())
        tap.equal([collectd.status(field) for field in
                   ("Uid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")],
                  ["\t".join([str(NOBODY)] * 4), f"{wanted:016x}", f"{wanted:016x}", "1", "2"],
                  "collectd is nobody, with CAP_BPF and CAP_PERFMON, and cannot get more")
        tap.equal(collectd.attached(), root_attaches(), "what root attaches is attached")
        check_counts(tap, collectd, b"least", "with two capabilities")
        tap.equal(collectd.complaints(), [], "and without complaint")
        tap.equal(collectd.stop(), 0, "and without a system call that is forbidden")


def test_each_is_needed(tap):
    """Less than that is refused, with one message."""
    for left in CAPABILITIES:
        with running(Unprivileged(capabilities=[left])) as collectd:
            collectd.wait_reads(1, "reclaim/gauge-attached_direct")
            errors = collectd.complaints()
            tap.ok(len(errors) == 1 and not collectd.attached() and all(
                words in errors[0] for words in (
                    "cannot load BPF programs: Operation not permitted", "CAP_BPF",
                    "CAP_PERFMON", "README, Capabilities")),
                   f"CAP_{left.upper()} alone is not enough; one error tells what is",
                   errors)


def test_cgroups(tap):
    """GroupBy cgroup without CAP_DAC_READ_SEARCH."""
    with open("/proc/self/mounts", encoding="ascii") as file:
        mount = re.search(r"^\S+ (\S+) cgroup2 ", file.read(), re.M)
    if not mount:
        tap.note("no cgroup v2 hierarchy: no cgroup is named without CAP_DAC_READ_SEARCH")
        return
    home = f"{mount[1]}/reclaim-test-{os.getpid()}"
    os.mkdir(home)
    try:
        with running(Unprivileged("GroupBy cgroup\nKinds memcg", prefix=())) as collectd:
            collectd.wait_reads(1)
            Staller([b"inside"], 64, home=home).wait()
            collectd.wait_reads(3)
            name = f"reclaim-{os.path.basename(home)}/total_events-memcg"
            tap.ok(collectd.growth(name) > 50 and not collectd.complaints(),
                   "a cgroup has its name also without CAP_DAC_READ_SEARCH",
                   (collectd.series(), collectd.log()))
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(home)


def test_under_way(tap, prefix, seen):
    """A stall under way of another user, which hidepid hides."""
    with running(Unprivileged(prefix=prefix)) as collectd:
        collectd.wait_reads(1)
        if not seen:
            check_counts(tap, collectd, b"hidden", "with much of /proc and /sys hidden")
            errors = collectd.complaints()
            tap.ok(errors and all("cannot read /proc/vmstat: Permission denied" in line
                                  for line in errors),
                   "only the host's own account is missing, which is said", errors)
        command = [f"{BUILD}/tests/backends/long_staller",
                   *programs_of(collectd, "memcg_begin", "memcg_end"), "for-long"]
        with subprocess.Popen(command, stdin=subprocess.PIPE):
            collectd.wait_reads(3)
        collectd.wait_reads(3)
        most = max(value for _, value in
                   collectd.values("reclaim/pending_operations-memcg_total"))
        tap.equal(most, seen, "another user's stall is " +
                  ("seen under way" if seen else "not seen under way where it is hidden"))
        values = collectd.values("reclaim-for-long/total_time_in_ms-memcg")
        tap.ok(values and values[-1][1] > 1500, "and has its name and its time in the end", values)


def main():
    need_live_machine()
    tap = Tap()
    test_least(tap)
    test_each_is_needed(tap)
    test_cgroups(tap)
    test_under_way(tap, (), 1)
    with open(f"/run/reclaim-unreadable-{os.getpid()}", "w", encoding="ascii") as unreadable:
        os.chmod(unreadable.name, 0)
        test_under_way(tap, ("unshare", "-m", "sh", "-c", HIDDEN, unreadable.name), 0)
        os.unlink(unreadable.name)
    tap.done()


if sys.argv[1:2] == ["forbid"]:
    forbid(FORBIDDEN)
    os.execvp(sys.argv[2], sys.argv[2:])
else:
    main()
