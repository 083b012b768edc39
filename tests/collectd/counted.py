# SPDX-License-Identifier: MIT
"""A collectd whose allocations and calls of bpf() are counted, by counts.c."""

import os
import struct

from harness import BUILD, Collectd


class Counted(Collectd):
    """collectd with the plugin, whose calls are counted."""

    def __init__(self, options="", prefix=(), interval=1):
        super().__init__(options, interval=interval)
        self.file = f"{self.folder}/counts"
        self.prefix = [*prefix, "env", f"RECLAIM_COUNTS={self.file}",
                       f"LD_PRELOAD={os.path.abspath(BUILD)}/tests/collectd/.libs/counts.so"]

    def _objects(self):
        """{(first address, last)} of what is mapped of the plugin and libbpf."""
        with open(f"/proc/{self.process.pid}/maps", encoding="ascii") as file:
            for line in file:
                if "/reclaim.so" in line or "/libbpf.so" in line:
                    yield tuple(int(end, 16) for end in line.split()[0].split("-"))

    def _words(self):
        with open(self.file, "rb") as file:
            return [word for word, in struct.iter_unpack("=q", file.read())]

    def in_use(self):
        """Bytes that are allocated now."""
        return self._words()[1]

    def counts(self):
        """(calls of bpf(), allocations by plugin and libbpf, all allocations)"""
        objects, words = list(self._objects()), self._words()
        callers = list(zip(words[2::2], words[3::2]))
        own = sum(calls for caller, calls in callers
                  if any(first <= caller < last for first, last in objects))
        return words[0], own, sum(calls for _, calls in callers)
