# SPDX-License-Identifier: MIT
"""ftrace's account of how stalls end, read as the kernel keeps it: of millions,
where the text of Trace would take minutes."""

import array
import collections
import glob
import os
import struct

from harness import TRACING, Trace

KINDS = {"memcg": "mm_vmscan_memcg_reclaim_end", "direct": "mm_vmscan_direct_reclaim_end"}
HEADER = 16  # of a page: time stamp, bytes behind the header
EVENT_WORDS = 5  # header, common fields and pid, nr_reclaimed


class Ends(Trace):
    """Counts the ends of stalls by kind and thread. `mib` of buffer for each CPU hold some
    50,000 ends each."""

    def __init__(self, mib=32):
        self.path = f"{TRACING}/instances/reclaim-test-{os.getpid()}"
        os.mkdir(self.path)
        self.write("buffer_size_kb", str(mib << 10))
        self.ids = {}
        for kind, event in KINDS.items():
            with open(f"{self.path}/events/vmscan/{event}/id", encoding="ascii") as file:
                self.ids[int(file.read())] = kind
            self.write(f"events/vmscan/{event}/enable", "1")

    def _statistic(self, name):
        total = 0
        for path in glob.glob(f"{self.path}/per_cpu/cpu*/stats"):
            with open(path, encoding="ascii") as file:
                total += sum(int(line.split(":")[1]) for line in file
                             if line.startswith(f"{name}:"))
        return total

    def lost(self):
        """Ends that found no room."""
        return sum(self._statistic(name)
                   for name in ("overrun", "commit overrun", "dropped events"))

    def entries(self):
        """Ends up to now that have not been read."""
        return self._statistic("entries")

    def _pages(self):
        """The data of each page of each CPU, taken out."""
        for path in glob.glob(f"{self.path}/per_cpu/cpu*/trace_pipe_raw"):
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            size = os.sysconf("SC_PAGESIZE")
            try:
                while page := os.read(fd, size):
                    used = struct.unpack_from("=Q", page, 8)[0] & 0xfffff
                    yield page[HEADER:HEADER + used]
            except BlockingIOError:
                pass
            os.close(fd)

    def _events(self, data):
        """The words of each event in a page, without what only tells of time."""
        words, at = array.array("I", data), 0
        while at < len(words):
            type_len = words[at] & 31
            if type_len in (30, 31):  # time_extend, time_stamp
                at += 2
            elif type_len == EVENT_WORDS - 1:
                yield words[at:at + EVENT_WORDS]
                at += EVENT_WORDS
            elif type_len == 29:  # padding, up to the end
                return
            else:
                raise RuntimeError(f"an event of {4 * type_len} bytes")

    def take(self):
        """{(kind, tid): [stalls, pages]} of all ends that were not taken before."""
        sums = collections.defaultdict(lambda: [0, 0])
        for data in self._pages():
            for _, common, tid, low, high in self._events(data):
                counts = sums[self.ids[common & 0xffff], tid]
                counts[0] += 1
                counts[1] += low | high << 32
        return sums
