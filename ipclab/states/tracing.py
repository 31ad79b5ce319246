"""The source `trace` set up: two instances in tracefs, their events, and where the fields of these events are.

    ipclab-PID-START-sched-1   sched_switch, wake-ups, fork, exec, of the tracked threads alone (set_event_pid), and of
                               what they fork from now on (the option event-fork)
    ipclab-PID-START-ends-2    exit, wait and free of every process: set_event_pid lets an event through when the thread
                               that *makes* it is tracked, and a process is freed by whoever is on the CPU then

Both are removed by `close`; after a kill -9 the registry's journal knows them, and the next tracker of this user or
`ipclab clean` removes them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Self

from ipclab.errors import IpclabError, Unavailable
from ipclab.processes import journal, registry, tracefs

#: The first pid namespace: the ids in events are those it has (PROC_PID_INIT_INO).
_FIRST_PID_NAMESPACE = 0xEFFFFFFC
#: Per CPU. Chosen: 20,000 forks in a second are 12 MB of events; it is read 20 times a second at least.
BUFFER_KB = 8192
ENDS_KB = 1024

#: In the order of enum traced, core/trace.h: event, the fields wanted of it.
_SCHED = {
    "sched_switch": ("prev_pid", "prev_state", "next_pid"),
    "sched_wakeup": ("pid",),
    "sched_wakeup_new": ("pid",),
    "sched_process_fork": ("parent_pid", "child_pid"),
    "sched_process_exec": ("pid",),
}
_ENDS = {"sched_process_exit": ("pid",), "sched_process_wait": ("pid",), "sched_process_free": ("pid",)}


def why_not() -> tuple[str, str]:
    """("", "") where this user may use it, else the reason and the way out. Makes nothing."""
    if journal.pid_namespace() != _FIRST_PID_NAMESPACE:
        return "events carry the pids of the first pid namespace, and this is another", "run outside the container"
    try:
        with tracefs.root() as fd:
            if not os.access(tracefs.INSTANCES, os.W_OK, dir_fd=fd, effective_ids=True):
                raise PermissionError(errno.EACCES, "no right to make an instance")
            os.stat("events/sched/sched_switch/format", dir_fd=fd)
    except PermissionError:
        return "tracefs is for root", "run as root (sudo), or take `switch`"
    except OSError as err:
        return f"tracefs: {err.strerror}", "a kernel with CONFIG_EVENT_TRACING"
    return "", ""


class Trace:
    """The two instances, ready to be read. `add` before a process is followed, `close` removes all."""

    def __init__(self) -> None:
        """Raises Unavailable where tracefs may not be used."""
        self._names: list[str] = []
        self._on = False
        self._undo = contextlib.ExitStack()
        reason, remedy = why_not()
        if reason:
            raise Unavailable(f"the source trace is not here: {reason}", hint=remedy)
        registry.clean()  # what a tracker killed before us has left still costs every switch of the machine
        try:
            self._set_up()
        except OSError as err:
            self.close()
            raise Unavailable(f"the source trace is not here: {err.strerror} ({err.filename})") from err
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        self._root = self._undo.enter_context(tracefs.root())
        self._sched = self._make("sched", _SCHED, BUFFER_KB)
        self._ends = self._make("ends", _ENDS, ENDS_KB)
        self.layout = self._layout()
        self.fds, self.cpus = self._raw_files()

    def _make(self, label: str, events: Iterable[str], buffer_kb: int) -> int:
        name = registry.new_instance(label)
        self._names.append(name)
        path = f"{tracefs.INSTANCES}/{name}"
        os.mkdir(path, dir_fd=self._root)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root)
        self._undo.callback(os.close, fd)
        if label == "sched":
            _write(fd, "tracing_on", "0")  # an empty set_event_pid lets everything through: on with the first `add`
        _write(fd, "trace_clock", "mono")
        _write(fd, "buffer_size_kb", str(buffer_kb))
        if label == "sched":
            _write(fd, "options/event-fork", "1")
        for event in events:
            _write(fd, f"events/sched/{event}/enable", "1")
        return fd

    def lacking(self) -> str:
        """Why the events here are not to be believed; "": what a thread of ours does on each CPU is told.

        Before the first `add`. Takes some milliseconds per CPU: the thread sleeps a few times on each. Some kernels do
        not tell every switch, and have no counter that says so. Raises Unavailable when the kernel refuses.
        """
        try:
            return self._lacking()
        except OSError as err:
            raise Unavailable(f"the source trace is not here: {err.strerror} ({err.filename})") from err

    def _lacking(self) -> str:
        with _Sleeper() as sleeper:
            self.add([sleeper.tid])
            sleeper.go()
        _write(self._sched, "tracing_on", "0")
        told = _read(self._sched, "trace")
        for path in ("set_event_pid", "trace"):  # opened for writing anew, they are empty
            _write(self._sched, path, "\n")
        self._on = False
        for cpu in sleeper.cpus:
            lines = [line for line in told.splitlines() if f"[{cpu:03}]" in line and "sched_switch:" in line]
            on = sum(f"next_pid={sleeper.tid} " in line for line in lines)
            off = sum(f"prev_pid={sleeper.tid} " in line for line in lines)
            if abs(on - off) > 1:  # it comes from one CPU and goes on to the next
                return f"on CPU {cpu} this kernel told of {off} switches away from a thread and of {on} to it"
        return ""

    def add(self, tids: Iterable[int]) -> None:
        """Let events of these threads through, and of what they fork. One that is gone is passed over."""
        for tid in tids:
            with contextlib.suppress(ProcessLookupError):
                _write(self._sched, "set_event_pid", str(tid), append=True)
                if not self._on:
                    _write(self._sched, "tracing_on", "1")
                    self._on = True

    def _layout(self) -> tuple[int, ...]:
        page = _fields(_read(self._root, "events/header_page"))
        data_at, data_bytes = page["data"]
        common = _fields(_read(self._sched, "events/sched/sched_switch/format"))
        numbers = [data_at + data_bytes, page["commit"][0], data_at, common["common_pid"][0]]
        for event, wanted in {**_SCHED, **_ENDS}.items():
            text = _read(self._sched, f"events/sched/{event}/format")
            fields = _fields(text)
            number = re.search(r"^ID: (\d+)$", text, re.MULTILINE)
            assert number
            at = [fields[name][0] for name in wanted]
            numbers += [int(number[1]), *at, *[-1] * (3 - len(at))]
        return tuple(numbers)

    def _raw_files(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        found = [(fd, cpu) for instance in (self._sched, self._ends) for fd, cpu in _open_raw(instance)]
        return tuple(fd for fd, _cpu in found), tuple(cpu for _fd, cpu in found)

    def overrun(self) -> int:
        """Events the kernel has overwritten or dropped so far, of all CPUs."""
        total = 0
        for instance in (self._sched, self._ends):
            for cpu in sorted(set(self.cpus)):
                text = _read(instance, f"per_cpu/cpu{cpu}/stats")
                total += sum(int(n) for n in re.findall(r"^(?:overrun|dropped events): (\d+)$", text, re.MULTILINE))
        return total

    def discard(self) -> None:
        """Close it when its raw files were given to nobody."""
        for fd in self.fds:
            os.close(fd)
        self.close()

    def close(self) -> None:
        """Remove both instances. The raw files must be closed before: whoever was given them does that."""
        self._undo.close()
        for name in self._names:
            try:
                tracefs.remove(name)
            except OSError as err:
                raise IpclabError(f"cannot remove the tracefs instance {name}: {err.strerror}") from err
            registry.forget(registry.TRACE_KIND, name)
        self._names = []


class _Sleeper:
    """A thread that sleeps a few times on every CPU it may use, when told to go; joined at the end of the block."""

    TIMES = 5

    def __init__(self) -> None:
        self.cpus = sorted(os.sched_getaffinity(0))
        self._ready, self._go = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._sleep, name="states-self-test", daemon=True)
        self.tid = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_error: object) -> None:
        self._go.set()
        self._thread.join()

    def go(self) -> None:
        self._go.set()

    def _sleep(self) -> None:
        self.tid = threading.get_native_id()
        self._ready.set()
        self._go.wait()
        for cpu in self.cpus:
            with contextlib.suppress(OSError):  # it has been taken from us since
                os.sched_setaffinity(0, {cpu})  # of this thread alone
            for _ in range(self.TIMES):
                time.sleep(0.0003)


def _open_raw(instance: int) -> Iterator[tuple[int, int]]:
    folder = os.open("per_cpu", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=instance)
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - a descriptor has no Path
    finally:
        os.close(folder)
    for name in names:
        path = f"per_cpu/{name}/trace_pipe_raw"
        yield os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=instance), int(name.removeprefix("cpu"))


def _fields(text: str) -> dict[str, tuple[int, int]]:
    """name -> (offset, size) of every field in a format file."""
    pattern = r"field:[^;]*?(\w+)(?:\[\w*\])?;\s*offset:(\d+);\s*size:(\d+);"
    return {name: (int(offset), int(size)) for name, offset, size in re.findall(pattern, text)}


def _read(folder: int, path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    with open(fd, encoding="utf-8", errors="replace") as file:
        return file.read()


def _write(folder: int, path: str, text: str, *, append: bool = False) -> None:
    flags = os.O_WRONLY | os.O_CLOEXEC | (os.O_APPEND if append else os.O_TRUNC)
    fd = os.open(path, flags, dir_fd=folder)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
