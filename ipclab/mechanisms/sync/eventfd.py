"""eventfd: a counter in the kernel with a descriptor, so that it can be waited for together with others.

What it is. eventfd2(2) makes a 64-bit counter behind a descriptor. write(2) of 8 bytes adds to it; read(2) takes: all
of it at once in the plain mode ("something happened, n times"), one at a time with EFD_SEMAPHORE (tickets). poll,
select and epoll see it readable while it is above 0. It is the cheapest thing that can wake an event loop.

Lifetime. Process: it is gone with the last descriptor. It has no name: inherit it, or pass it (see fd-passing).

Boundaries. None: additions add up, and the reader cannot tell two from one of two. It carries no data but the number.

Order. None among readers: one of those who sleep gets it.

Capacity and limits. 2^64 - 2; an addition that would go beyond waits. RLIMIT_NOFILE for the descriptors.

Blocking. read waits while the counter is 0, write while the addition does not fit. The descriptor here is non-blocking
and waits are poll(2)'s, which has a deadline. O_NONBLOCK belongs to the open file description: all who share it see it.
POLLOUT says that 1 would fit, no more.

When an end dies. The kernel closes its descriptors; the counter stays as it was, and unlike a pipe it has no ends: a
reader whose writers are all dead waits on. Poll a pidfd beside it.

Use it when an event loop must be woken, or a count handed over between processes that share descriptors.

Not when data belongs to the event (pipe), strangers must find it (posix-sem), or nobody polls (a futex costs less).

Man pages. eventfd(2), poll(2), read(2), write(2).
"""

from __future__ import annotations

import os
import select
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from ipclab.errors import IpclabError, TimedOut, UsageError, from_os_error
from ipclab.mechanisms.base import Bell, Deadline, Link, NativeSpec, Resource
from ipclab.mechanisms.shared import _live
from ipclab.mechanisms.sync._bell import SyncBell, Turns
from ipclab.mechanisms.sync._lock import SHORTEST_PAUSE_S
from ipclab.records import Limit, Mechanism, Probe

MECHANISM = Mechanism(
    name="eventfd",
    family="synchronisation",
    summary="a counter with a descriptor: wait for it together with sockets and pipes",
    lifetime="process",
    man_pages=("eventfd(2)", "poll(2)"),
)
LINK: type[Link] | None = None

#: The largest count; 2**64 - 1 cannot be written (EINVAL).
MOST = 2**64 - 2


class EventFd(Resource):
    """An eventfd, inherited by fork. Leaving the `with` closes this process's descriptor."""

    def __init__(self, fd: int, *, semaphore: bool) -> None:
        #: Whether take() takes one at a time.
        self.semaphore = semaphore
        self._fd: int | None = fd

    @classmethod
    def create(cls, value: int = 0, *, semaphore: bool = False) -> Self:
        """A new one. Raises UsageError for an impossible value (the kernel takes 32 bits here), NoRoom."""
        if not 0 <= value < 1 << 32:
            raise UsageError(f"an eventfd cannot begin with {value}", hint="0 to 2**32 - 1; add more later")
        flags = os.EFD_CLOEXEC | os.EFD_NONBLOCK | (os.EFD_SEMAPHORE if semaphore else 0)
        try:
            return cls(os.eventfd(value, flags), semaphore=semaphore)
        except OSError as err:
            raise from_os_error(err, "eventfd", syscall="eventfd2", hint="see ulimit -n") from err

    def fileno(self) -> int:
        """The descriptor: readable while the counter is above 0. IpclabError when closed."""
        if self._fd is None:
            raise IpclabError("the eventfd is closed in this process")
        return self._fd

    def add(self, value: int = 1, timeout_s: float | None = None) -> None:
        """Add to the counter and wake readers; waits while it would go beyond 2**64 - 2. Raises TimedOut."""
        if not 0 <= value <= MOST:
            raise UsageError(f"{value} cannot be added to an eventfd", hint=f"0 to {MOST}")
        deadline = Deadline(timeout_s)
        while True:
            try:
                os.eventfd_write(self.fileno(), value)
                return
            except BlockingIOError:
                self._await(select.POLLOUT, deadline, "the counter is too full to add to")
                if value > 1:  # POLLOUT speaks for 1 alone: do not spin
                    time.sleep(deadline.slice_s(SHORTEST_PAUSE_S))

    def take(self, timeout_s: float | None = None) -> int:
        """The whole counter, which is 0 then; one of it with `semaphore`. Waits while it is 0. Raises TimedOut."""
        deadline = Deadline(timeout_s)
        while True:
            try:
                return os.eventfd_read(self.fileno())
            except BlockingIOError:
                self._await(select.POLLIN, deadline, "nobody has added to it")

    def count(self) -> int:
        """The counter now, without taking it, as /proc/self/fdinfo shows it."""
        for line in Path(f"/proc/self/fdinfo/{self.fileno()}").read_text().splitlines():
            if line.startswith("eventfd-count:"):
                return int(line.split(":")[1], 16)
        raise IpclabError("/proc/self/fdinfo does not tell the counter")

    def close(self) -> None:
        """Close this process's descriptor."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _await(self, event: int, deadline: Deadline, what: str) -> None:
        """Sleep in poll(2) until the event; another process may be quicker afterwards."""
        poller = select.poll()
        poller.register(self.fileno(), event)
        left_s = deadline.left_s()
        if not poller.poll(None if left_s is None else left_s * 1000) and deadline.over():
            raise TimedOut(f"eventfd: {what} in time")
        deadline.check(f"eventfd: {what}")


def probe() -> Probe:
    """Make one and close it."""
    try:
        os.close(os.eventfd(0, os.EFD_CLOEXEC))
    except OSError as err:
        return Probe(works=False, reason=f"eventfd2: {err.strerror}", remedy="raise RLIMIT_NOFILE (ulimit -n)")
    return Probe(works=True)


def limits() -> tuple[Limit, ...]:
    """The largest count, and descriptors."""
    return (
        Limit(name="largest count", value=MOST, unit="", source="eventfd(2): 2^64 - 2"),
        _live.open_files(),
        _live.sysctl("fs/file-max", "open files of the whole machine", "files"),
    )


class EventFdPingPong(Turns[EventFd]):
    """Two eventfds, one each way."""

    name = "eventfd"

    @classmethod
    def _make(cls, stack: ExitStack) -> tuple[EventFd, EventFd]:
        return stack.enter_context(EventFd.create()), stack.enter_context(EventFd.create())

    @staticmethod
    def _bell(incoming: EventFd, outgoing: EventFd) -> Bell:
        spec = NativeSpec("eventfd", (incoming.fileno(), outgoing.fileno()), None, {})
        return SyncBell(incoming.take, outgoing.add, spec)


PING_PONG = EventFdPingPong
