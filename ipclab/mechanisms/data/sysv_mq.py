"""sysv-mq: System V's queue of messages, each with a type by which a receiver chooses.

    msgsnd(2), type 1 -->  [ 1: to b ][ 2: to a ][ 1: to b ]  --> msgrcv(2) asking for type 1: the oldest of type 1

What it is. msgget(2) finds or makes a queue by a number, the key. A message is a positive long, its type, and a text.
msgrcv takes the oldest of one type, or of any (0), or the one with the lowest type up to a bound (negative): so one
queue serves many receivers, or priorities. Here one queue carries both directions, type 1 from a to b, type 2 back.

Lifetime. The kernel's: the queue stays until msgctl(IPC_RMID) or a reboot, whoever has died. It has no descriptor and
no name in any folder: `ipcs -q` and /proc/sysvipc/msg list it, `ipcrm -q` removes it.

Boundaries. Kept: one msgrcv, one message; a buffer too small fails with E2BIG, or truncates if MSG_NOERROR asks for
that.

Order. First in, first out within a type.

Capacity and limits. msgmax bytes in a message, msgmnb bytes in a queue (more with CAP_SYS_RESOURCE, by
msgctl(IPC_SET)), msgmni queues in the machine, all below /proc/sys/kernel. The room is shared by all types: a full
direction also stops the other one. Two that both send before they receive can block each other for ever; two queues
would not.

Blocking. msgsnd sleeps while the queue is full, msgrcv while no message of the type is there; neither knows a
timeout, and there is nothing to poll. Without deadline and watched peer the blocking call is made. Otherwise
IPC_NOWAIT is tried with naps that grow from 0.1 ms to 50 ms: the price of a deadline here is latency. SA_RESTART
restarts neither.

When an end dies. Nothing happens: the queue does not know its users (it does note the pid of the last sender and
receiver). When the queue is removed every sleeper gets EIDRM: the one way to tell them all to go. Use `End.watch`.

Use it when a program from before POSIX queues speaks it, or receivers choose by type.

Not when you may choose: no descriptor, no timeout, keys that collide, queues that stay behind. Go has none.

Man pages. sysvipc(7), msgget(2), msgsnd(2), msgrcv(2), msgctl(2), svipc(7).
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ipclab.errors import (
    BufferTooSmall,
    IpclabError,
    MessageTooLarge,
    NameInUse,
    NoRoom,
    PeerGone,
    Unavailable,
    UsageError,
    from_os_error,
)
from ipclab.mechanisms import _sysv
from ipclab.mechanisms.base import PEER_LOOK_S, Deadline, End, Link, NativeSpec, Peer, other, watched
from ipclab.mechanisms.data._pipes import sysctl
from ipclab.mechanisms.data._streams import byte_view
from ipclab.processes import registry
from ipclab.records import Limit, Mechanism, Probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from ipclab.mechanisms.base import Side

T = TypeVar("T")

MECHANISM = Mechanism(
    name="sysv-mq",
    family="data transfer",
    summary="System V's kernel queue of messages chosen by type",
    lifetime="kernel",
    boundaries=True,
    duplex=True,
    man_pages=("sysvipc(7)", "msgget(2)", "msgsnd(2)", "msgrcv(2)", "msgctl(2)"),
)

_KERNEL = Path("/proc/sys/kernel")
#: The first nap between two tries; each next one is twice as long, up to PEER_LOOK_S. Chosen: a message that is under
#: way takes some microseconds.
_FIRST_NAP_S = 1e-4
#: The type under which each side's messages are sent.
TYPES: dict[Side, int] = {"a": 1, "b": 2}


def probe() -> Probe:
    """Ask for a key that nobody has, and whether the table has room."""
    return _sysv.probe("SysV queues", "msg", _sysv.most("msgmni"), lambda sysv_ipc, key: sysv_ipc.MessageQueue(key))


def limits() -> tuple[Limit, ...]:
    """What bounds a message, a queue and all queues here."""
    rows = (
        ("bytes in a message", "msgmax", "bytes"),
        ("bytes in a new queue", "msgmnb", "bytes"),
        ("queues of this machine", "msgmni", "queues"),
    )
    read = [Limit(name=n, value=sysctl(_KERNEL / f), unit=unit, source=str(_KERNEL / f)) for n, f, unit in rows]
    now = Limit(name="queues in use now", value=_sysv.in_use("msg"), unit="queues", source="/proc/sysvipc/msg")
    return (*read, now)


class SysvMqEnd(End):
    """One side of the queue: sends its own type, receives the other's. Holds nothing that needs closing."""

    def __init__(self, queue: Any, send_type: int, recv_type: int, limit_bytes: int, limit_source: str) -> None:
        self._sysv_ipc = _sysv.load("SysV queues")
        self._queue = queue
        self._send_type = send_type
        self._recv_type = recv_type
        self._limit_bytes = limit_bytes
        self.limit_bytes = limit_bytes
        self.limit_source = limit_source
        self._peer: Peer | None = None
        #: By type asked for: messages received into a buffer that was too small, with their types.
        self._held: dict[int, tuple[bytes, int]] = {}
        self._closed = False

    def send(self, data: Buffer, timeout_s: float | None = None) -> None:
        """Send one message under this side's type; blocks while the queue, both directions together, is full."""
        self.send_type(data, self._send_type, timeout_s)

    def send_type(self, data: Buffer, message_type: int, timeout_s: float | None = None) -> None:
        """Send one message under any type from 1 up."""
        self._check_open()
        if message_type < 1:
            raise UsageError(f"{message_type} is no type of a message", hint="a type is a positive number")
        with byte_view(data) as view:
            if len(view) > self._limit_bytes:
                raise MessageTooLarge(len(view), self._limit_bytes, self.limit_source, syscall="msgsnd")
            self._when_ready(lambda block: self._queue.send(view, block, message_type), timeout_s)

    def recv_into(self, buffer: Buffer, timeout_s: float | None = None) -> int:
        """Receive the oldest message of the other side's type; blocks while there is none."""
        return self.recv_type_into(buffer, self._recv_type, timeout_s)[0]

    def recv_type_into(self, buffer: Buffer, wanted: int, timeout_s: float | None = None) -> tuple[int, int]:
        """Receive by type as msgrcv(2) has it (0 any, negative: the lowest up to -wanted); the length and the type.

        A message longer than `buffer` is kept here for the next call that asks for the same.
        """
        self._check_open()
        with byte_view(buffer, writable=True) as view:
            if wanted in self._held:
                message, got_type = self._held[wanted]
            else:
                message, got_type = self._when_ready(lambda block: self._queue.receive(block, wanted), timeout_s)
            if len(message) > len(view):
                self._held[wanted] = message, got_type
                raise BufferTooSmall(f"sysv-mq: a message of {len(message)} bytes, a buffer of {len(view)} bytes")
            self._held.pop(wanted, None)
            view[: len(message)] = message
            return len(message), got_type

    def watch(self, pid: int) -> None:
        """Watch the process on the other side: the queue itself tells nobody of its end."""
        self._check_open()
        self._peer = Peer.instead_of(self._peer, pid)

    def native(self) -> NativeSpec:
        """By msgsnd(2) and msgrcv(2)."""
        self._check_open()
        numbers = {"id": int(self._queue.id), "send_type": self._send_type, "receive_type": self._recv_type}
        return NativeSpec("sysv-mq", (), None, numbers | watched(self._peer))

    def close(self) -> None:
        """Forget the queue; it stays, with its messages."""
        if self._peer is not None:
            self._peer.close()
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise IpclabError("sysv-mq: this end is closed")

    def _when_ready(self, call: Callable[[bool], T], timeout_s: float | None) -> T:
        """The result of `call(True)`, which waits, or of `call(False)` repeated after naps that grow."""
        block = timeout_s is None and self._peer is None
        deadline = Deadline(timeout_s)
        nap_s = _FIRST_NAP_S
        peer_gone = False
        while True:
            try:
                return self._translated(call, block)
            except self._sysv_ipc.BusyError:
                if peer_gone:
                    raise PeerGone("sysv-mq: the process on the other side has ended") from None
            except self._sysv_ipc.Error:
                continue  # EINTR: the handler has run and has not raised
            peer_gone = self._peer is not None and self._peer.gone()
            if not peer_gone:
                deadline.check("sysv-mq: the queue is not ready")
                time.sleep(deadline.slice_s(nap_s))
                nap_s = min(2 * nap_s, PEER_LOOK_S)

    def _translated(self, call: Callable[[bool], T], block: bool) -> T:
        try:
            return call(block)
        except self._sysv_ipc.ExistentialError as err:
            raise PeerGone("sysv-mq: the queue has been removed", errno=errno.EIDRM, syscall="msgrcv") from err
        except self._sysv_ipc.PermissionsError as err:
            raise Unavailable("sysv-mq: no permission for this queue", errno=errno.EACCES, syscall="msgrcv") from err
        except OSError as err:
            if err.errno in (errno.EINVAL, errno.EIDRM):  # the length and type were checked: the id is no more
                raise PeerGone("sysv-mq: the queue has been removed", errno=err.errno, syscall="msgsnd") from err
            raise from_os_error(err, "sysv-mq", syscall="msgrcv") from err


class SysvMqLink(Link):
    """One queue for both directions."""

    name = "sysv-mq"

    def __init__(self) -> None:
        self._opener_pid = os.getpid()
        self._queue: Any = None
        self._free: set[Side] = set()
        self._limit_bytes = 0
        self._limit_source = ""
        #: The queue's key; None once the link is closed.
        self.key: int | None = None

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        """Make the queue, mode 0600; enlarge it where CAP_SYS_RESOURCE allows.

        Raises NoRoom, NameInUse, Unavailable.
        """
        sysv_ipc = _sysv.load("SysV queues")
        link = cls()
        try:
            link.key = registry.new_key("sysv-mq", "both-ways")
            longest = sysctl(_KERNEL / "msgmax") or 8192
            link._create(sysv_ipc, longest, 2 * depth * min(message_bytes, longest))
        except BaseException:
            link.close()
            raise
        return link

    def _create(self, sysv_ipc: Any, longest: int, wanted_bytes: int) -> None:
        try:
            queue = sysv_ipc.MessageQueue(self.key, sysv_ipc.IPC_CREX, 0o600, longest)
        except sysv_ipc.ExistentialError as err:
            raise NameInUse(f"sysv-mq: key {self.key:#x} is in use", errno=errno.EEXIST, syscall="msgget") from err
        except sysv_ipc.Error as err:
            raise Unavailable(f"sysv-mq: no queue: {err}", syscall="msgget") from err
        except (OSError, MemoryError) as err:
            hint = "`ipcs -q` lists them, `ipclab clean` removes forgotten ones; or raise /proc/sys/kernel/msgmni"
            raise NoRoom(f"sysv-mq: no message queue left ({err})", syscall="msgget", hint=hint) from err
        self._queue, self._free = queue, {"a", "b"}
        if wanted_bytes > queue.max_size:
            with suppress(sysv_ipc.Error, OSError):  # without CAP_SYS_RESOURCE it stays at msgmnb
                queue.max_size = wanted_bytes
        room = int(queue.max_size)
        self._limit_bytes = min(longest, room)
        self._limit_source = str(_KERNEL / "msgmax") if longest <= room else "the queue's msg_qbytes, msgctl(2)"

    def take(self, side: Side) -> SysvMqEnd:
        """This side of the queue; never blocks."""
        if side not in self._free:
            raise UsageError(f"sysv-mq: side {side!r} has been taken already, or the link is closed")
        self._free.discard(side)
        mine, theirs = TYPES[side], TYPES[other(side)]
        return SysvMqEnd(self._queue, mine, theirs, self._limit_bytes, self._limit_source)

    def close(self) -> None:
        """In the process that opened the link, remove the queue: whoever still waits on it gets EIDRM, PeerGone."""
        self._free.clear()
        queue, self._queue = self._queue, None
        if os.getpid() != self._opener_pid or self.key is None:
            return
        key, self.key = self.key, None
        if queue is not None:
            with suppress(_sysv.load("SysV queues").ExistentialError):
                queue.remove()
        registry.forget("sysv-mq", key)


LINK = SysvMqLink
