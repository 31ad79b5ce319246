"""Facts about this machine, this user and this installation, as `ipclab doctor` shows them.

Every look-up stands alone and never raises: parts of /proc and /sys may be hidden, and then a fact has the value None
and a note that says what could not be read. Nothing is changed, started or connected to.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from ipclab.machine import cgroups
from ipclab.records import Fact, Limit, Package

#: The bits of CapEff in /proc/PID/status, in order: capabilities(7), linux/capability.h.
_CAPABILITY_WORDS = (
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service "
    "net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin "
    "sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override "
    "mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore"
)
CAPABILITIES = tuple(f"CAP_{word.upper()}" for word in _CAPABILITY_WORDS.split())

#: What each value of kernel.yama.ptrace_scope means here: Documentation/admin-guide/LSM/Yama.rst.
_PTRACE_SCOPES = {
    "0": "any process of this user may read another's memory",
    "1": "only a parent may read its child's memory, or whom the child names (PR_SET_PTRACER)",
    "2": "needs CAP_SYS_PTRACE",
    "3": "nobody may",
}
_SECCOMP = {"0": "off", "1": "strict", "2": "filter"}


def version() -> str:
    """ipclab's own version, as it was installed."""
    from importlib import metadata

    try:
        return metadata.version("ipclab")
    except metadata.PackageNotFoundError:
        return "not installed"


def gather() -> tuple[Fact, ...]:
    """Every fact, in the order in which they are shown."""
    return (*_machine(), *_processors(), *_memory(), *_privileges(), *_python())


def limits() -> tuple[Limit, ...]:
    """The resource limits that IPC meets first, soft and hard: getrlimit(2)."""
    wanted = (
        ("nofile", "files", resource.RLIMIT_NOFILE),
        ("nproc", "processes", resource.RLIMIT_NPROC),
        ("msgqueue", "bytes", resource.RLIMIT_MSGQUEUE),
        ("memlock", "bytes", resource.RLIMIT_MEMLOCK),
        ("sigpending", "signals", resource.RLIMIT_SIGPENDING),
    )
    return tuple(
        Limit(
            name=name if kind == "soft" else f"{name} ({kind})",
            value=None if value == resource.RLIM_INFINITY else value,
            unit=unit,
            source=f"getrlimit RLIMIT_{name.upper()}, {kind}",
        )
        for name, unit, number in wanted
        for kind, value in zip(("soft", "hard"), resource.getrlimit(number), strict=True)
    )


def packages() -> tuple[Package, ...]:
    """The packages ipclab asks for and the versions found; what is missing has the command that installs it."""
    from importlib import metadata

    try:
        wanted = metadata.requires("ipclab") or []
    except metadata.PackageNotFoundError:
        return ()
    found = []
    for requirement in wanted:
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", requirement)
        which = extra[1] if extra else ""
        try:
            version: str | None = metadata.version(name)
            remedy = ""
        except metadata.PackageNotFoundError:
            version = None
            remedy = f"pip install 'ipclab[{which}]'" if which else f"pip install {name}"
        found.append(Package(name=name, version=version, extra=which, remedy=remedy))
    return tuple(found)


# --- the machine -------------------------------------------------------------------------------------------------


def _machine() -> Iterator[Fact]:
    uname = os.uname()
    release = tuple(int(part) for part in re.findall(r"\d+", uname.release)[:2])
    note = "" if release >= (5, 15) else "ipclab is made for Linux 5.15 or later"
    if "microsoft" in uname.release.lower():
        note = note or "WSL"
    yield Fact(group="machine", name="kernel", value=uname.release, source="uname(2)", note=note)
    yield Fact(group="machine", name="architecture", value=uname.machine, source="uname(2)")
    yield Fact(
        group="machine",
        name="C library",
        value=" ".join(platform.libc_ver()).strip() or "not glibc",
        source="the interpreter",
    )
    yield Fact(group="machine", name="page size", value=resource.getpagesize(), unit="bytes", source="sysconf(3)")
    pid_max = "/proc/sys/kernel/pid_max"
    value = _number(pid_max)
    yield Fact(group="machine", name="largest pid", value=value, source=pid_max, note=_unread(value))


def _processors() -> Iterator[Fact]:
    online = os.cpu_count()
    allowed = os.sched_getaffinity(0)
    yield Fact(group="processors", name="online", value=online, unit="CPUs", source="sysconf(3)")
    note = "" if online is None or len(allowed) >= online else f"{len(allowed)} of {online}: the others are not for us"
    yield Fact(group="processors", name="affinity", value=_ranges(allowed), source="sched_getaffinity(2)", note=note)
    quota = cgroups.cpu_quota()
    note = "a process that uses it up sleeps for the rest of the period" if quota.value is not None else "no quota"
    yield Fact(group="processors", name="cgroup quota", value=quota.value, unit="CPUs", source=quota.source, note=note)
    pids = cgroups.pids_max()
    count = None if pids.value is None else int(pids.value)
    note = "no limit" if count is None else ""
    yield Fact(
        group="processors", name="cgroup processes", value=count, unit="processes", source=pids.source, note=note
    )


def _memory() -> Iterator[Fact]:
    try:
        shm = os.statvfs("/dev/shm")
    except OSError as err:
        note = err.strerror or str(err)
        yield Fact(group="memory and queues", name="/dev/shm size", value=None, source="/dev/shm", note=note)
    else:
        size, free = shm.f_blocks * shm.f_frsize, shm.f_bavail * shm.f_frsize
        writable = os.access("/dev/shm", os.W_OK | os.X_OK)
        where = "statvfs(2) of /dev/shm"
        note = "" if writable else "this user may not write there"
        yield Fact(group="memory and queues", name="/dev/shm size", value=size, unit="bytes", source=where, note=note)
        yield Fact(group="memory and queues", name="/dev/shm free", value=free, unit="bytes", source=where)
    kind = _mounted_at("/dev/mqueue")
    note = {
        None: "cannot read /proc/self/mounts",
        "": "not mounted; queues work all the same, they only cannot be listed with ls",
    }.get(kind, "")
    yield Fact(
        group="memory and queues",
        name="/dev/mqueue",
        value=None if kind is None else bool(kind),
        source="/proc/self/mounts",
        note=note,
    )


def _privileges() -> Iterator[Fact]:
    status = _status()
    yield Fact(group="privileges", name="uid", value=os.geteuid(), source="geteuid(2)")
    yield _capabilities(status)
    scope = _text("/proc/sys/kernel/yama/ptrace_scope")
    hidden = _text("/proc/sys/kernel/ostype") is None
    without_yama = "cannot be read" if hidden else "no Yama: the ordinary rules of ptrace(2)"
    yield Fact(
        group="privileges",
        name="ptrace_scope",
        value=None if scope is None else int(scope) if scope.isdigit() else scope,
        source="/proc/sys/kernel/yama/ptrace_scope",
        note=_PTRACE_SCOPES.get(scope, "") if scope is not None else without_yama,
    )
    yield _word("seccomp", _SECCOMP.get(status.get("Seccomp", "")), "/proc/self/status Seccomp")
    yield _word("no_new_privs", status.get("NoNewPrivs"), "/proc/self/status NoNewPrivs")
    paranoid = "/proc/sys/kernel/perf_event_paranoid"
    level = _number(paranoid)
    yield Fact(group="privileges", name="perf_event_paranoid", value=level, source=paranoid, note=_unread(level))
    yield _user_namespaces()


def _python() -> Iterator[Fact]:
    yield Fact(group="python", name="version", value=platform.python_version(), source=sys.implementation.name)
    yield Fact(group="python", name="interpreter", value=sys.executable or "unknown", source="sys.executable")
    encoding = getattr(sys.stdout, "encoding", None) or "none"
    yield Fact(group="python", name="output encoding", value=encoding, source="sys.stdout")


def _capabilities(status: dict[str, str]) -> Fact:
    source = "/proc/self/status CapEff"
    try:
        bits = int(status["CapEff"], 16)
    except (KeyError, ValueError):
        return Fact(group="privileges", name="capabilities", value=None, source=source, note="cannot be read")
    names = [name for number, name in enumerate(CAPABILITIES) if bits >> number & 1]
    text = "none" if not names else ", ".join(names)
    missing = [name for number, name in enumerate(CAPABILITIES) if not bits >> number & 1]
    if len(names) > len(missing):
        text = "all" if not missing else f"all but {', '.join(missing)}"
    return Fact(group="privileges", name="capabilities", value=text, source=source)


def _user_namespaces() -> Fact:
    most = "/proc/sys/user/max_user_namespaces"
    count = _number(most)
    note = _unread(count)
    if _text("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        note = "only with CAP_SYS_ADMIN (kernel.unprivileged_userns_clone is 0)"
    elif _text("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        note = "restricted by AppArmor (kernel.apparmor_restrict_unprivileged_userns is 1)"
    mapping = (_text("/proc/self/uid_map") or "").split()
    if mapping and mapping != ["0", "0", "4294967295"]:
        note = f"{note}; we are in one" if note else "we are in one"
    return Fact(group="privileges", name="user namespaces", value=count, unit="at most", source=most, note=note)


# --- reading -----------------------------------------------------------------------------------------------------


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _number(path: str) -> int | None:
    text = _text(path)
    return int(text) if text is not None and re.fullmatch(r"-?\d+", text) else None


def _status() -> dict[str, str]:
    pairs = (line.partition(":") for line in (_text("/proc/self/status") or "").splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _unread(value: object) -> str:
    """The note of a fact that may be hidden."""
    return "cannot be read" if value is None else ""


def _word(name: str, value: str | None, source: str) -> Fact:
    return Fact(group="privileges", name=name, value=value, source=source, note=_unread(value))


def _mounted_at(point: str) -> str | None:
    """The type of the file system mounted there; "" when none is, None when that cannot be read."""
    text = _text("/proc/self/mounts")
    if text is None:
        return None
    return {fields[1]: fields[2] for line in text.splitlines() if len(fields := line.split()) > 2}.get(point, "")


def _ranges(cpus: set[int]) -> str:
    """{0, 1, 2, 5} as "0-2,5".

    >>> _ranges({5, 0, 1, 2})
    '0-2,5'
    """
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and runs[-1][1] == cpu - 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
