"""The one interface of everything that carries data, and what a mechanism's module must offer.

A `Link` is one mechanism set up between two processes, side "a" and side "b". The process that opens it creates every
kernel object; each of the two processes then *takes* its side and gets an `End`. What one end sends the other receives,
both ways: a one-way object such as a pipe is simply there twice.

    opener                     process a                     process b
    ------                     ---------                     ---------
    with X.open() as link:
      fork, fork        ->     end = link.take("a")          end = link.take("b")
                               end.send(b"...")      --->    n = end.recv_into(buffer)
      waits                    end.close()                   end.close()
    leaving the with removes every name the link has

The opener may itself be one of the two. `take` is called after the fork, in the process that will use the end; it
closes what belongs to the other side, so that end-of-file and EPIPE arrive when they should.

What all ends promise
  - `send` sends the whole message or raises; a byte stream loops over short writes.
  - `recv_into` on a mechanism that keeps boundaries receives exactly one message and returns its length; a buffer that
    is too small raises BufferTooSmall, it never truncates in silence. On a byte stream it fills the whole buffer (the
    receiver has to know how much it wants: that is what a stream is) and an empty buffer returns 0 at once.
  - `timeout_s=None` waits for ever, 0 does not wait; when the time is over TimedOut is raised. A byte stream that has
    moved part of a message by then is broken and says so.
  - a peer that closed or died raises PeerGone, after what it sent has been delivered. Where the kernel tells nobody
    (message queues, shared memory, datagrams), only after `watch(pid)`: then a death is noticed within 0.2 s.
  - EINTR is not seen by the caller; a KeyboardInterrupt is.
  - neither keeps a reference to the buffer after it has returned.
"""

from __future__ import annotations

import os
import select
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Self

from ipclab.errors import PeerGone, TimedOut, Unavailable, from_os_error

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ipclab.records import Limit, Mechanism, Probe

Side = Literal["a", "b"]

#: How long a wait that cannot poll a pidfd may sleep before it looks whether the watched peer still lives. Chosen, not
#: measured: twenty looks a second cost less than 0.1 % of a CPU.
PEER_LOOK_S = 0.05


def other(side: Side) -> Side:
    """The opposite side."""
    return "b" if side == "a" else "a"


class Deadline:
    """A moment on the monotonic clock; `None` is never.

    >>> Deadline(None).left_s() is None
    True
    """

    __slots__ = ("_at_ns",)

    def __init__(self, timeout_s: float | None) -> None:
        self._at_ns = None if timeout_s is None else time.monotonic_ns() + int(timeout_s * 1e9)

    def left_s(self) -> float | None:
        """Seconds left, never below 0; None for ever."""
        if self._at_ns is None:
            return None
        return max(0, self._at_ns - time.monotonic_ns()) / 1e9

    def slice_s(self, longest_s: float = PEER_LOOK_S) -> float:
        """The next wait: what is left, but at most `longest_s`."""
        left_s = self.left_s()
        return longest_s if left_s is None else min(left_s, longest_s)

    def over(self) -> bool:
        """Whether the moment has passed."""
        return self._at_ns is not None and time.monotonic_ns() >= self._at_ns

    def check(self, what: str) -> None:
        """Raise TimedOut when the moment has passed; `what` names what was waited for."""
        if self.over():
            raise TimedOut(f"{what}: the time is over")


class Peer:
    """A watched process: a pidfd, which becomes readable when that process has ended (pidfd_open(2))."""

    __slots__ = ("fd", "pid")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self.fd: int | None = os.pidfd_open(pid)
        except ProcessLookupError:
            self.fd = None  # gone already, and waited for
        except OSError as err:
            raise from_os_error(err, f"watching process {pid}", syscall="pidfd_open") from err

    @classmethod
    def instead_of(cls, before: Peer | None, pid: int) -> Peer:
        """Watch this process from now on, and the one before no longer. Raises NoRoom, and then nothing has changed."""
        peer = cls(pid)
        if before is not None:
            before.close()
        return peer

    def gone(self) -> bool:
        """Whether the process has ended; never blocks."""
        if self.fd is None:
            return True
        poller = select.poll()
        poller.register(self.fd, select.POLLIN)
        return bool(poller.poll(0))

    def close(self) -> None:
        """Give the pidfd back; the peer counts as gone from then on."""
        fd, self.fd = self.fd, None
        if fd is not None:
            os.close(fd)


class NativeSpec(NamedTuple):
    """What the C core needs to move messages over an end by itself: `_core.Carrier(*spec)` (core/carrier.h).

    Descriptors and buffer stay the end's. Make the carrier, use it, close it, close the end: an end that has been used
    natively is good for nothing else, since the two do not tell each other what they have sent.
    """

    kind: str
    fds: tuple[int, ...]
    buffer: Buffer | None
    numbers: dict[str, int]


class Counters(NamedTuple):
    """What one side has done so far, where its own code knows: all counted since the end was taken."""

    system_calls: int
    sleeps: int
    #: System calls made for nothing but to wake the other side.
    wakes: int


def watched(peer: Peer | None) -> dict[str, int]:
    """The number by which a native loop knows the watched process: nothing when there is none. Raises PeerGone."""
    if peer is None:
        return {}
    if peer.fd is None:
        raise PeerGone(f"process {peer.pid} has ended")
    return {"watch": peer.fd}


class Resource(ABC):
    """Something to be given back. A context manager; leaving it closes it."""

    @abstractmethod
    def close(self) -> None:
        """Give back what this process holds of it. Closing twice is allowed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class End(Resource):
    """One side of a link, in the process that uses it. A context manager; leaving it closes it."""

    #: Largest message in bytes; None on a byte stream, which has no messages and so no limit.
    limit_bytes: int | None = None
    #: Where that limit comes from, as MessageTooLarge names it.
    limit_source: str = ""

    @abstractmethod
    def send(self, data: Buffer, timeout_s: float | None = None) -> None:
        """Send one message; blocks while the kernel object is full.

        The buffer is borrowed for the call. Raises MessageTooLarge, PeerGone, TimedOut.
        """

    @abstractmethod
    def recv_into(self, buffer: Buffer, timeout_s: float | None = None) -> int:
        """Receive one message into a writable buffer and return its length; blocks while there is none.

        The buffer is borrowed for the call. Raises BufferTooSmall, PeerGone, TimedOut.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back what this process holds of the link. Closing twice is allowed."""

    def fileno(self) -> int:
        """The descriptor to wait on for a message with poll(2), where there is one; else OSError, as socket has it."""
        raise OSError(f"{type(self).__name__} has no file descriptor")

    def watch(self, pid: int) -> None:
        """Watch the process on the other side, so that a wait ends with PeerGone when it dies.

        Does nothing where the kernel reports a dead peer by itself (pipes and connected sockets).
        """
        return

    def native(self) -> NativeSpec:
        """How the C core moves messages over this end; call it after `watch`. Raises Unavailable with the reason."""
        raise Unavailable(f"{type(self).__name__} has no native loop: it works through its Python interface only")

    def counters(self) -> Counters | None:
        """What this side has done so far; None: only the kernel knows."""
        return None


class Link(Resource):
    """One mechanism set up between two processes; see the module's text."""

    #: The name under which `ipclab list` shows the mechanism.
    name: ClassVar[str]
    #: Whether the kernel drops messages when nobody reads them fast enough, instead of making the sender wait. Its ends
    #: then never block in `send`; the receiver raises on meeting the gap.
    lossy: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        """Create the kernel objects, with room for about `depth` messages of `message_bytes` bytes each way.

        Where the kernel sets the largest message, or the room, that size is a wish: what the kernel gives is taken,
        `End.limit_bytes` tells what that is, and `send` refuses what is larger. Where the room is memory the link
        itself has to make (ipclab.mechanisms.shared) it is a demand: NoRoom where this machine has not that much,
        MessageTooLarge where no address space has. Raises Unavailable, NoRoom, NameInUse.
        """

    @abstractmethod
    def take(self, side: Side) -> End:
        """This process's end. Called once in each of the two processes, after the fork; blocks at most until the
        other side has taken its own (only connecting kinds do)."""

    @abstractmethod
    def close(self) -> None:
        """Give back this process's part; in the process that opened the link, remove every name it has."""


class Bell(Resource):
    """One side of a mechanism that carries no data, made to answer: ring the other side, wait to be rung by it.

    The Python counterpart of a native ping-pong. A context manager; leaving it closes it.
    """

    @abstractmethod
    def ring(self) -> None:
        """Wake the other side; never blocks. Raises PeerGone where the kernel knows."""

    @abstractmethod
    def wait(self, timeout_s: float | None = None) -> None:
        """Sleep until the other side rings; each ring ends one wait. Raises TimedOut, PeerGone when it is watched."""

    @abstractmethod
    def native(self) -> NativeSpec:
        """How the C core does the same; call it after `watch`."""

    @abstractmethod
    def watch(self, pid: int) -> None:
        """Watch the process on the other side, so that a wait ends with PeerGone when it dies."""

    @abstractmethod
    def close(self) -> None:
        """Give back what this process holds. Closing twice is allowed."""


class PingPong(Resource):
    """A mechanism without data set up for two processes that take turns; used as a Link is: open, fork, take, close."""

    #: The name under which `ipclab list` shows the mechanism.
    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def open(cls) -> Self:
        """Create the kernel objects. Raises Unavailable, NoRoom."""

    @abstractmethod
    def take(self, side: Side) -> Bell:
        """This process's side; called once in each of the two processes, after the fork. Where they must know each
        other's pid it blocks until the other side has been taken too. Raises TimedOut."""

    @abstractmethod
    def close(self) -> None:
        """Give back this process's part; in the process that opened it, remove every name it has."""


class MechanismModule:
    """What every module under mechanisms/data, shared, signals and sync offers (checked by a test).

    - its docstring: the page a student learns from
    - `MECHANISM`: its record
    - `probe()`: whether it works here, by trying the cheapest real call, in under a millisecond; leaves nothing behind
    - `limits()`: its limits, read live
    - `LINK`: its Link class, if it carries data
    - `PING_PONG`: its PingPong class, if it carries none and two processes can take turns by it (else absent)
    """

    MECHANISM: Mechanism
    LINK: type[Link] | None

    @staticmethod
    def probe() -> Probe:
        """Whether it works here."""
        raise NotImplementedError

    @staticmethod
    def limits() -> tuple[Limit, ...]:
        """The limits as this machine has them now."""
        raise NotImplementedError
