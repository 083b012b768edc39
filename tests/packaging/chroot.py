# SPDX-License-Identifier: MIT
"""A small Debian in a folder, of the release that this machine has, with Debian's
collectd: where a package is installed, used and removed."""

import os
import subprocess
import tempfile

from debian import acquire_options, sources
from host import run

# Seen in namespaces of its own: nothing stays mounted, no process stays.
ENTER = ('mount -t proc proc "$0/proc" && mount --rbind /sys "$0/sys" && '
         'exec chroot "$0" "$@"')
# What changes by itself: what apt and dpkg remember, what collectd writes.
CHANGING = ("/tmp", "/var/cache", "/var/lib/apt", "/var/lib/collectd",
            "/var/lib/dpkg/status-old", "/var/log")


class Chroot:
    """Made in a folder that does not exist yet; whoever made that removes it. On leaving
    it, what was started inside and still runs is killed."""

    def __init__(self, root, suite):
        self.root = root
        self.started = []
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as options:
            options.writelines(line + "\n" for line in acquire_options())
            options.flush()
            run("mmdebstrap", "--mode=root", "--variant=apt", "--include=collectd",
                f"--aptopt={options.name}", "--dpkgopt=force-unsafe-io",
                "--skip=cleanup/apt/lists", suite, root, *sources(suite))

    def command(self, *command):
        """What runs a command inside."""
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child",
                "sh", "-c", ENTER, self.root, *command]

    def start(self, *command):
        """Starts a command inside, whose words nobody needs."""
        # pylint: disable-next=consider-using-with
        process = subprocess.Popen(self.command(*command), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        self.started.append(process)
        return process

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.started:
            process.kill()
            process.wait()

    def run(self, *command):
        """Runs a command inside; returns how it ended, and what it said, as one."""
        return subprocess.run(
            self.command(*command), check=False, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C",
                 "DEBIAN_FRONTEND": "noninteractive"})

    def apt(self, *arguments):
        """apt-get, which nobody answers; returns what it said."""
        done = self.run("apt-get", "-y", "--no-install-recommends", *arguments)
        if done.returncode != 0:
            raise RuntimeError(f"apt-get {' '.join(arguments)} failed:\n{done.stdout}")
        return done.stdout

    def path(self, path):
        """Where a file is, seen from outside."""
        return self.root + path

    def read(self, path):
        with open(self.path(path), "rb") as file:
            return file.read()

    def write(self, path, text):
        with open(self.path(path), "w", encoding="ascii") as file:
            file.write(text)

    def files(self):
        """All paths, but for what changes by itself."""
        found = set()
        for folder, folders, files in os.walk(self.root):
            inside = folder[len(self.root):]
            found |= {f"{inside}/{name}" for name in folders + files
                      if not f"{inside}/{name}".startswith(CHANGING)}
        return found
