"""Tiny readers of /proc/PID, see proc(5). Every call is one or two reads and never blocks.

A process that does not exist (any more) has state "X"; what the kernel refuses to tell is None. `syscall` and `wchan`
need the right to trace the process (ptrace(2)): the same user and, where Yama restricts it, an ancestor.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

from ipclab.errors import NoRoom, Unavailable

#: name -> (number on x86_64, number on aarch64), the calls we narrate; None where the architecture has no such call
_CALLS: dict[str, tuple[int | None, int | None]] = {
    "accept": (43, 202),
    "accept4": (288, 242),
    "clock_nanosleep": (230, 115),
    "clone": (56, 220),
    "clone3": (435, 435),
    "close": (3, 57),
    "connect": (42, 203),
    "copy_file_range": (326, 285),
    "epoll_pwait": (281, 22),
    "epoll_pwait2": (441, 441),
    "epoll_wait": (232, None),
    "execve": (59, 221),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "fallocate": (285, 47),
    "fcntl": (72, 25),
    "fdatasync": (75, 83),
    "flock": (73, 32),
    "fork": (57, None),
    "fsync": (74, 82),
    "futex": (202, 98),
    "futex_waitv": (449, 449),
    "getdents64": (217, 61),
    "getrandom": (318, 278),
    "io_uring_enter": (426, 426),
    "ioctl": (16, 29),
    "kill": (62, 129),
    "madvise": (28, 233),
    "membarrier": (324, 283),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "mq_timedreceive": (243, 183),
    "mq_timedsend": (242, 182),
    "msgrcv": (70, 188),
    "msgsnd": (69, 189),
    "munmap": (11, 215),
    "nanosleep": (35, 101),
    "newfstatat": (262, 79),
    "open": (2, None),
    "openat": (257, 56),
    "pause": (34, None),
    "poll": (7, None),
    "ppoll": (271, 73),
    "pread64": (17, 67),
    "process_vm_readv": (310, 270),
    "pselect6": (270, 72),
    "pwrite64": (18, 68),
    "read": (0, 63),
    "readv": (19, 65),
    "recvfrom": (45, 207),
    "recvmmsg": (299, 243),
    "recvmsg": (47, 212),
    "rename": (82, None),
    "restart_syscall": (219, 128),
    "rt_sigsuspend": (130, 133),
    "rt_sigtimedwait": (128, 137),
    "sched_setaffinity": (203, 122),
    "sched_yield": (24, 124),
    "select": (23, None),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "sendfile": (40, 71),
    "sendmmsg": (307, 269),
    "sendmsg": (46, 211),
    "sendto": (44, 206),
    "splice": (275, 76),
    "statx": (332, 291),
    "sync": (162, 81),
    "tee": (276, 77),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "vfork": (58, None),
    "vmsplice": (278, 75),
    "wait4": (61, 260),
    "waitid": (247, 95),
    "write": (1, 64),
    "writev": (20, 66),
}

#: Calls the C library exchanges for one another: who asks for one is content with the others.
_ALIKE = (
    {"accept", "accept4"},
    {"epoll_wait", "epoll_pwait", "epoll_pwait2"},
    {"nanosleep", "clock_nanosleep"},
    {"open", "openat"},
    {"pause", "rt_sigsuspend", "ppoll"},
    {"poll", "ppoll"},
    {"select", "pselect6"},
    {"semop", "semtimedop"},
    {"wait4", "waitid"},
)


def _names() -> dict[int, str]:
    column = {"x86_64": 0, "aarch64": 1}.get(os.uname().machine)
    if column is None:
        return {}
    return {numbers[column]: name for name, numbers in _CALLS.items() if numbers[column] is not None}  # type: ignore[misc]


_NAMES = _names()


def _read(pid: int, name: str) -> bytes | None:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError as err:
        _told(err)
        return None


def _told(err: OSError) -> None:
    """Raise NoRoom where it is we who cannot look: that says nothing about the process, and not that it is dead."""
    if err.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise NoRoom("no room to look into /proc", hint="see ulimit -n", errno=err.errno, syscall="openat") from err


def check() -> None:
    """Raise Unavailable unless /proc is that of this pid namespace: else its numbers are those of other processes."""
    try:
        shown = str(Path("/proc/self").readlink())
    except OSError as err:
        _told(err)
        shown = ""
    if shown != str(os.getpid()):
        wrong = "is not mounted" if not shown else "belongs to another pid namespace"
        raise Unavailable(f"/proc {wrong}", hint="mount it: mount -t proc proc /proc")


def stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third on (index 0 is the state); None: no such process.

    The second field, the name, may itself hold blanks and brackets: what follows its last bracket is what counts.
    """
    text = _read(pid, "stat")
    if not text:
        return None
    return text[text.rindex(b")") + 2 :].decode("ascii").split()


def state(pid: int) -> str:
    """One letter: R S D T t Z X I, as /proc/PID/stat has it; X also when there is no such process."""
    fields = stat(pid)
    return fields[0] if fields else "X"


def parent(pid: int) -> int | None:
    """The parent's pid as this pid namespace sees it (0: outside of it); None: no such process."""
    fields = stat(pid)
    return int(fields[1]) if fields else None


def start_time(pid: int) -> int:
    """When it started, in clock ticks since boot: with the pid the identity of a process. ProcessLookupError: gone."""
    fields = stat(pid)
    if fields is None:
        raise ProcessLookupError(f"no process {pid}")
    return int(fields[19])


def pid_alive(pid: int, start: int) -> bool:
    """Whether the process with this pid that started then still runs; a zombie does not.

    A leader that ended while other threads of it run looks like a zombie and is not one: it counts as alive.
    """
    fields = stat(pid)
    if fields is None or int(fields[19]) != start:
        return False
    return fields[0] not in "ZXx" or int(fields[17]) > 1


def group(pid: int) -> int | None:
    """Its process group; None: no such process."""
    fields = stat(pid)
    return int(fields[2]) if fields else None


def wchan(pid: int) -> str | None:
    """The kernel function it sleeps in; None when it does not sleep or the kernel does not tell."""
    text = _read(pid, "wchan")
    name = text.decode("ascii", "replace").strip() if text else ""
    return None if name in ("", "0") else name


def syscall(pid: int) -> str | None:
    """The system call it is blocked in ("syscall 999" for one that has no name here); None: none, or not told."""
    text = _read(pid, "syscall")
    first = text.split(None, 1)[0] if text and text.split() else b"running"
    if first in (b"running", b"-1"):
        return None
    return syscall_name(int(first))


def syscall_name(number: int) -> str:
    """The name of a system call of this architecture; "syscall 999" for one that has no name here."""
    return _NAMES.get(number, f"syscall {number}")


def same_call(seen: str, wanted: str) -> bool:
    """Whether the call seen is the one wanted, or one the C library uses in its place.

    A sleep that a stop and a continue interrupted goes on as restart_syscall: that fits every wish.
    """
    if seen in (wanted, "restart_syscall"):
        return True
    return any(seen in group_ and wanted in group_ for group_ in _ALIKE)


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status as it stands, key -> text; empty when there is no such process."""
    text = _read(pid, "status")
    if not text:
        return {}
    pairs = (line.partition(":") for line in text.decode("utf-8", "replace").splitlines())
    return {key: value.strip() for key, _, value in pairs}


def voluntary_switches(pid: int) -> int | None:
    """How often its main thread went to sleep of its own accord; None: not told."""
    value = status(pid).get("voluntary_ctxt_switches")
    return int(value) if value else None


def children(pid: int) -> list[int]:
    """Its children now, zombies included, of all its threads. Exact for a process that forks nothing meanwhile."""
    found: list[int] = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            text = (thread / "children").read_text("ascii")
            found += [int(word) for word in text.split()]
    except FileNotFoundError:
        # The kernel was built without CONFIG_PROC_CHILDREN, or a thread has just ended: ask every process instead.
        return [child for child in pids() if parent(child) == pid]
    except OSError as err:
        _told(err)
    return found


def set_name(name: str) -> None:
    """Give the calling thread another name (comm, 15 bytes; the main thread's is the process's); where that is not
    allowed it keeps the one it has."""
    with contextlib.suppress(OSError), open("/proc/thread-self/comm", "w", encoding="utf-8") as comm:
        comm.write(name[:15])


def descendants(pids: Iterable[int]) -> list[int]:
    """The children of these, their children, and so on, without these; as exact as `children` is."""
    known = set(pids)
    found: list[int] = []
    level = list(known)
    while level:
        level = [child for pid in level for child in children(pid) if child not in known]
        known.update(level)
        found += level
    return found


def pids() -> list[int]:
    """Every process this /proc shows."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
