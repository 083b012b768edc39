# SPDX-License-Identifier: MIT
"""What an object calls of others: which calls can fail, and how; and where in
the object they are."""

import collections
import errno
import os
import re
import subprocess

INSTEAD, AFTER, SHORT, NONE, PRETEND = range(5)  # enum hook_mode of hooks.h
Fault = collections.namedtuple("Fault", "mode result error")


def _errors(result, *errors):
    return [Fault(INSTEAD, result, error) for error in errors]


def _negative(*errors):
    """libbpf and pthreads return what others leave in errno."""
    return [Fault(INSTEAD, -error, error) for error in errors]


def _done(error=errno.EIO):
    """It has done its work when it fails."""
    return [Fault(AFTER, -1, error)]


def _positive(*errors):
    return [Fault(INSTEAD, error, 0) for error in errors]


REG_ESPACE = 12  # regex.h
_NO_MEMORY = _errors(0, errno.ENOMEM)

# Calls that can fail: how.
FAILING = {
    # memory
    **{name: _NO_MEMORY for name in (
        "malloc", "calloc", "realloc", "strdup", "strndup")},
    "mmap": _errors(-1, errno.ENOMEM, errno.EPERM),
    "munmap": _done(errno.ENOMEM),
    # files
    "open": _errors(-1, errno.EMFILE, errno.ENOENT, errno.EACCES),
    "openat": _errors(-1, errno.EMFILE, errno.ENOENT),
    "open_by_handle_at": _errors(-1, errno.EPERM, errno.ESTALE, errno.EMFILE),
    "fopen": _errors(0, errno.EMFILE, errno.ENOMEM),
    "fdopendir": _errors(0, errno.ENOMEM),
    "read": _errors(-1, errno.ESRCH, errno.EINTR) + [Fault(SHORT, 0, 0)],
    "pread": _errors(-1, errno.EIO, errno.EINTR) + [Fault(SHORT, 0, 0)],
    "readlink": _errors(-1, errno.EACCES),
    "readdir": _errors(0, errno.EIO),
    "fgets": _errors(0, errno.EIO),
    "getdelim": _errors(-1, errno.ENOMEM, errno.EIO),
    "__getdelim": _errors(-1, errno.ENOMEM, errno.EIO),
    "fstat": _errors(-1, errno.EIO),
    "stat": _errors(-1, errno.ENOENT, errno.EACCES),
    "fstatat": _errors(-1, errno.ENOENT, errno.EACCES),
    "access": _errors(-1, errno.ENOENT, errno.EACCES),
    "close": _done(), "fclose": _done(), "closedir": _done(),
    # time, threads, regular expressions
    "nanosleep": _errors(-1, errno.EINTR),
    "pthread_create": _positive(errno.EAGAIN, errno.EPERM),
    "pthread_setname_np": _positive(errno.EMFILE),
    "regcomp": _positive(REG_ESPACE),
    "regexec": _positive(REG_ESPACE),
    # libbpf
    "bpf_object__open_skeleton": _negative(errno.ENOMEM, errno.EINVAL),
    "bpf_object__load_skeleton":
        _negative(errno.EPERM, errno.ENOMEM, errno.EINVAL, errno.EMFILE),
    "bpf_map__set_max_entries": _negative(errno.ENOMEM),
    "bpf_map__set_autocreate": _negative(errno.EBUSY),
    "bpf_program__set_autoload": _negative(errno.EINVAL),
    "bpf_program__attach_raw_tracepoint":
        _errors(0, errno.EPERM, errno.ENOENT, errno.ENOMEM, errno.EMFILE),
    "bpf_prog_load": _negative(errno.EPERM, errno.ENOMEM, errno.EMFILE),
    "bpf_raw_tracepoint_open": _negative(errno.EPERM, errno.EMFILE),
    "bpf_link__destroy": [Fault(AFTER, -errno.EBADF, errno.EBADF)],
    "bpf_map_update_batch":
        _negative(errno.ENOMEM, errno.EPERM, errno.EBUSY),
    "bpf_map_lookup_and_delete_batch":
        _negative(errno.EPERM, errno.EINVAL) +
        [Fault(NONE, -errno.ENOMEM, errno.ENOMEM)],
    "bpf_map_lookup_elem": _negative(errno.ENOENT),
    "bpf_map_update_elem": _negative(errno.ENOMEM, errno.EPERM, errno.EBUSY),
    "bpf_obj_get_info_by_fd": _negative(errno.EPERM),
    "ring_buffer__new": _errors(0, errno.ENOMEM, errno.EMFILE),
    "ring_buffer__consume": _negative(errno.EINVAL, errno.EINTR),
    "btf__parse": _errors(0, errno.ENOMEM, errno.EIO, errno.EACCES),
    "btf__type_by_id": _errors(0, errno.EINVAL),
    "btf__resolve_type": _negative(errno.EINVAL),
    "btf__name_by_offset": _errors(0, errno.EINVAL),
    # collectd
    "plugin_register_complex_config": _errors(-1, 0),
    "plugin_register_init": _errors(-1, 0),
    "plugin_register_read": _errors(-1, 0),
    "plugin_register_shutdown": _errors(-1, 0),
    "plugin_dispatch_values": _errors(-1, 0),
    "plugin_dispatch_notification": _errors(-1, 0),
    "plugin_notification_meta_add_string": _errors(-1, 0),
    "plugin_notification_meta_add_unsigned_int": _errors(-1, 0),
    "plugin_notification_meta_free": [Fault(AFTER, -1, 0)],
}

# The same of what libbpf, libelf and libz call for the plugin. bpf(2) is called by
# syscall(2).
LIBRARIES = ["libbpf.so.1", "libelf.so.1", "libz.so.1"]
LIBRARY = {
    **{name: FAILING[name] for name in (
        "malloc", "calloc", "realloc", "strdup", "mmap", "munmap", "open",
        "read", "pread", "close")},
    "reallocarray": _NO_MEMORY, "posix_memalign": _positive(errno.ENOMEM),
    "mmap64": FAILING["mmap"], "open64": FAILING["open"],
    "pread64": FAILING["pread"],
    "fopen64": FAILING["fopen"], "fmemopen": _NO_MEMORY,
    "fread": _errors(0, errno.EIO), "fgets": FAILING["fgets"],
    "faccessat": FAILING["access"],
    "fcntl": _errors(-1, errno.EMFILE), "fcntl64": _errors(-1, errno.EMFILE),
    "dup3": _errors(-1, errno.EMFILE),
    "epoll_create1": _errors(-1, errno.EMFILE),
    "epoll_ctl": _errors(-1, errno.ENOMEM),
    "setrlimit": _errors(-1, errno.EPERM),
    "setrlimit64": _errors(-1, errno.EPERM),
    "syscall": _errors(-1, errno.EPERM, errno.ENOMEM, errno.EINVAL,
                       errno.EMFILE),
}

# To fail each time would be no fault, but another kernel.
NOT_FOR_EVER = {"nanosleep"}

# Calls that cannot fail, as they are made here: why.
SAFE = {
    "works on memory that it is given": """__errno_location memchr memcmp memcpy
        memmove memset stpcpy strcasecmp strchr strchrnul strcmp strcpy strcspn
        strlen strncmp strnlen strrchr strspn strstr sigfillset llround qsort""",
    "what it could not read is seen in what it returns, and looked at":
        "strtoull __isoc99_sscanf __isoc23_sscanf __isoc23_strtoull",
    "numbers and short texts, into memory that it is given":
        "snprintf vsnprintf __snprintf_chk __vsnprintf_chk",
    "has an answer for each errno": "strerror libbpf_strerror regerror",
    "returns nothing": """free regfree __cxa_finalize btf__free
        bpf_object__destroy_skeleton ring_buffer__free daemon_log c_complain
        c_do_release __stack_chk_fail""",
    "these clocks, this question and this signal set are always there":
        "clock_gettime sysconf pthread_sigmask cdtime",
    "fails only for arguments that are wrong": """pthread_cond_destroy
        pthread_cond_init pthread_cond_signal pthread_condattr_destroy
        pthread_condattr_init pthread_condattr_setclock pthread_join
        pthread_mutex_destroy pthread_mutex_init pthread_mutex_lock
        pthread_mutex_unlock""",
    "only its time runs out": "pthread_cond_timedwait",
    "tells what collectd keeps for the thread":
        "plugin_get_ctx plugin_get_interval plugin_set_ctx",
    "looks up what is in the plugin's own BPF object": """bpf_map__fd
        bpf_object__find_map_by_name bpf_object__find_program_by_name
        bpf_object__next_map bpf_program__fd bpf_program__insn_cnt
        bpf_program__insns bpf_program__name btf__type_cnt libbpf_set_print""",
}
SAFE = {name: why for why, names in SAFE.items() for name in names.split()}

OUTSIDE = 0  # for an address in another object
Site = collections.namedtuple("Site", "address function caller where tail")


def _disassembly(path):
    """[(address, function that it is in, instruction)]"""
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", path],
                          check=True, capture_output=True, text=True).stdout
    inside = ""
    for line in text.splitlines():
        begin = re.match(r"[0-9a-f]+ <(.*)>:", line)
        if begin:
            inside = begin[1]
        instruction = re.match(r" *([0-9a-f]+):\s+(\S.*)", line)
        if instruction:
            yield int(instruction[1], 16), inside, instruction[2]


def _lines(path, addresses):
    """{address: (function, file:line)} as the source has them, inlined ones
    too; an address behind a call is taken for the call."""
    asked = [f"{address - 1:#x}" for address in addresses]
    out = subprocess.run(["addr2line", "-f", "-e", path] + asked, check=True,
                         capture_output=True, text=True).stdout.splitlines()
    return {address: (out[2 * i], re.sub(r".*/(\w+/[^/]+:\d+).*", r"\1",
                                         out[2 * i + 1]))
            for i, address in enumerate(addresses)}


def imports(path):
    """Names of the functions that the object takes from others."""
    text = subprocess.run(["objdump", "-R", path], check=True,
                          capture_output=True, text=True).stdout
    return sorted(set(re.findall(r"JUMP_SLOT? +([^@\s]+)", text)))


def pointers(path):
    """Functions of others whose addresses it takes: calls by these would not
    be seen."""
    text = subprocess.run(["objdump", "-R", path], check=True,
                          capture_output=True, text=True).stdout
    return set(re.findall(r"GLOB_DAT +([^@\s]+)", text)) & set(FAILING)


def sites(path):
    """{(address behind the call, function called): Site} of calls that can
    fail. A tail call has the address behind the call of what it is in, or
    OUTSIDE."""
    code = list(_disassembly(path))
    found, tails, callers = [], [], collections.defaultdict(list)
    for (_, inside, text), (behind, _, _) in zip(code, code[1:]):
        call = re.match(r"(?:bnd |notrack )?(call|jmp)q? +[0-9a-f]+ <(.*)>", text)
        if not call:
            continue
        callee = call[2]
        if not callee.endswith("@plt"):
            if call[1] == "call":
                callers[callee].append(behind)
            continue
        name = callee[:-len("@plt")]
        if name in FAILING and call[1] == "call":
            found.append((behind, name, inside, False))
        elif name in FAILING:
            tails.append((behind, name, inside, True))
    lines = _lines(path, [address for address, *_ in found + tails])
    whole = {(address, name): Site(address, name, *lines[address], tail)
             for address, name, _, tail in found}
    for address, name, inside, tail in tails:
        site = Site(address, name, *lines[address], tail)
        for caller in callers[inside] + [OUTSIDE]:
            whole[caller, name] = site
    return whole


def is_here():
    """What this needs: the machine that the hooks are written for, binutils."""
    return os.uname().machine == "x86_64"
