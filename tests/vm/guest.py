# SPDX-License-Identifier: MIT
"""One kernel in QEMU."""

import concurrent.futures
import dataclasses
import os
import shutil
import subprocess
import tempfile
import time

import debian
import host
import image

MEMORY_MIB = 512
# The console is the only way a guest speaks; a panic ends it at once; PSI is
# off by default in Debian's kernels; on a busy machine the timer of an emulated
# one may fail the kernel's test, which is a panic.
COMMAND_LINE = ("console=ttyS0 panic=-1 mitigations=off random.trust_cpu=on "
                "psi=1 no_timer_check quiet")
TIMEOUT_S = 420
CONSOLE_LINES = 40
# An emulated kernel may die while it boots, before anything of ours has run.
MAX_BOOTS = 3
BOOTED = "start: the work begins"  # as guest/start says
FOLDER_PREFIX = "guest-"


@dataclasses.dataclass(frozen=True)
class Variant:
    """What is booted, and how."""
    kernel: str
    cpus: int = 2
    append: str = ""      # words for the kernel's command line
    beside: bool = False  # whether others trace and call bpf() during the load
    network: bool = False  # whether it reaches this machine's loopback, as 10.0.2.2

    def special(self):
        """What is not as usual, for people."""
        words = [f"`{word}`" for word in self.append.split()]
        if self.cpus != Variant.cpus:
            words.append(f"{self.cpus} CPUs")
        if self.beside:
            words.append("other tracers beside")
        return ", ".join(words)


# The last one is all that makes the kernel preempt and skip programs.
VARIANTS = {**{kernel: Variant(kernel) for kernel in debian.KERNELS},
            "sid-hard": Variant("sid", cpus=4, append="preempt=full", beside=True)}


def _qemu(accelerator, *more):
    """QEMU that ends with the process that started it, whatever becomes of
    that one."""
    cpu = "host" if accelerator == "kvm" else "max"
    return ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64",
            "-accel", accelerator, "-cpu", cpu, "-no-reboot",
            "-display", "none", "-monitor", "none", *more]


def find_accelerator(vmlinuz):
    """Whether KVM works is known only by trying: it may be there and fail, or
    hang. A kernel without a root panics, and so ends QEMU."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    trial = _qemu("kvm", "-nic", "none", "-m", "256", "-serial", "null", "-kernel", vmlinuz,
                  "-append", "panic=-1")
    try:
        works = subprocess.run(trial, check=False, timeout=20,
                               stdin=subprocess.DEVNULL, capture_output=True)
    except subprocess.TimeoutExpired:
        return "tcg"
    return "kvm" if works.returncode == 0 else "tcg"


def remove_leftovers(cache):
    """Removes what a run that was killed could not: folders of guests that
    are a day old."""
    for name in os.listdir(cache):
        path = os.path.join(cache, name)
        if (name.startswith(FOLDER_PREFIX)
                and time.time() - os.path.getmtime(path) > 24 * 3600):
            shutil.rmtree(path)


def prepare(cache, kernels):
    """Gets kernels and root image, all at once."""
    host.need_commands()
    with host.locked(cache), concurrent.futures.ThreadPoolExecutor() as pool:
        remove_leftovers(cache)
        making = [pool.submit(image.root_image, cache)]
        for kernel in kernels:
            making.append(pool.submit(
                host.cached, os.path.join(cache, "kernels", kernel),
                lambda path, kernel=kernel: debian.fetch_kernel(kernel, path)))
        for made in making:
            made.result()


class Guest:
    """A guest, from its disks to its results. What it needs lies in a
    temporary folder below the cache and goes with `close`."""

    def __init__(self, label, variant, cache, options):
        self.label = label
        self.variant = variant
        self.cache = cache
        self.kernel = os.path.join(cache, "kernels", variant.kernel)
        self.options = options
        with open(os.path.join(self.kernel, "release"), encoding="ascii") as file:
            self.release = file.read().strip()
        self.folder = tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX, dir=cache)
        self.command = None
        self.process = None
        self.deadline = None
        self.cut_off = False
        self.boots = 0
        self.failed_boots = []  # what each wrote last

    def _path(self, name):
        return os.path.join(self.folder.name, name)

    def _command(self, work, serial, files=()):
        network = self.variant.network
        image.make_initrd(self.kernel, self.release, self._path("initrd"),
                          image.MODULES + ["virtio_net"] * network)
        image.make_job_disk(self.options.build, self.options.package, self._path("job"), files)
        image.make_swap_disk(self._path("swap"))
        disks = {"root": f"{image.root_image(self.cache)},readonly=on",
                 "job": self._path("job"), "swap": self._path("swap")}
        words = f"{COMMAND_LINE} reclaim_work={work} {self.variant.append}"
        if self.variant.beside:
            words += " reclaim_beside"
        command = _qemu(
            self.options.accelerator, *serial,
            "-nic", "user,model=virtio-net-pci" if network else "none",
            "-m", str(MEMORY_MIB), "-smp", str(self.variant.cpus),
            "-kernel", os.path.join(self.kernel, "vmlinuz"),
            "-initrd", self._path("initrd"),
            "-append", words)
        for name, file in disks.items():
            # None of it has to survive this machine: no flushing.
            command += ["-drive", f"id={name},if=none,format=raw,cache=unsafe,file={file}",
                        "-device", f"virtio-blk-pci,drive={name},serial={name}"]
        return command

    def start(self, work, files=()):
        """Boots the guest with a work, a file of guest/, and returns. It has
        further files in /job."""
        serial = ["-serial", f"file:{self._path('console')}"]
        self.command = self._command(work, serial, files)
        self._boot()

    def _boot(self):
        with open(self._path("qemu"), "wb") as errors:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL,
                                            stdout=subprocess.DEVNULL, stderr=errors)
        self.deadline = time.monotonic() + TIMEOUT_S
        self.boots += 1

    def shell(self):
        """Boots the guest with a shell on this terminal, and waits."""
        serial = ["-chardev", "stdio,id=tty,signal=off", "-serial", "chardev:tty"]
        return subprocess.run(self._command("shell", serial), check=False).returncode

    def ended(self):
        """Whether the guest is off. One that takes too long is cut off; one that
        did not come to its work is booted again."""
        if self.process.poll() is None and time.monotonic() > self.deadline:
            self.process.kill()
            self.process.wait()
            self.cut_off = True
        if self.process.poll() is None:
            return False
        if self.cut_off or self.boots == MAX_BOOTS or BOOTED in self._words():
            return True
        self.failed_boots.append(self.last_words())
        self._boot()
        return False

    def results(self):
        """The folder of raw results below the cache, or None if the guest did
        not finish its work. For one that ended."""
        folder = image.take_results(self._path("job"), self._path("results"))
        with open(os.path.join(folder, "console"), "w", encoding="utf-8") as file:
            file.write(self._words())
        kept = os.path.join(self.cache, "results", self.label)
        host.replace_folder(folder, kept)
        status = os.path.join(kept, "status")
        if not os.path.exists(status):
            return None
        with open(status, encoding="ascii") as file:
            return kept if file.read().strip() == "0" else None

    def _words(self):
        words = ""
        for name in ("qemu", "console"):
            if os.path.exists(self._path(name)):
                with open(self._path(name), encoding="utf-8", errors="replace") as file:
                    words += file.read()
        return words.replace("\r", "")

    def last_words(self):
        """What the guest and QEMU wrote last."""
        cut = f"\n(cut off after {TIMEOUT_S} s)" if self.cut_off else ""
        return host.tail(self._words() + cut, CONSOLE_LINES)

    def close(self):
        """Ends the guest if need be, and removes its files."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()
