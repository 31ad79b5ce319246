"""posix-mq: a queue of messages in the kernel, each with a priority.

    sender --mq_send(3)-->  /name: [ 9: urgent ][ 0: first ][ 0: second ]  --mq_receive(3)-->  receiver: urgent first

What it is. mq_open(3) opens or makes a queue by a name like "/jobs". Each message is copied into the kernel with its
length and a priority (0 to 32767) and out again, whole. A queue can carry both ways, but then a process may get its
own message back: a link is two queues.

Lifetime. The kernel's: a queue and the messages in it stay until mq_unlink(3) and the last close, or a reboot. The
names are files of a file system of their own; where it is not mounted (usually at /dev/mqueue) queues work but
nothing lists them.

Boundaries. Kept: one receive, one message. A receive buffer smaller than the queue's message size is refused
(EMSGSIZE).

Order. Highest priority first, first in first out within one.

Capacity and limits. Chosen when the queue is made: how many messages and how long the longest may be, by default 10
of 8192 bytes, which is also the most that is allowed without CAP_SYS_RESOURCE (/proc/sys/fs/mqueue/msg_max,
msgsize_max). All queues of a user together, full or empty, count against RLIMIT_MSGQUEUE (819200 bytes), all of the
machine's against queues_max. `PosixMqLink.open` takes the largest that fits; `End.limit_bytes` and
`PosixMqLink.depth` tell.

Blocking. Send sleeps while the queue is full, receive while it is empty. On Linux the descriptor can be polled.
mq_notify(3) tells one process, once, by a signal or a new thread, that a message has come into the *empty* queue: ask
again first, then empty the queue, or the next one is missed.

When an end dies. Nothing happens: the queue does not know its users. Messages stay, receivers wait on. Whoever must
know watches the process (`End.watch`: a pidfd polled beside the queue).

Use it when messages must stay whole, urgent ones must overtake, or the receiver may start after the sender has gone.

Not when messages are large, queues many, or the death of the other side must be seen (unix-seqpacket). Go has none.

Man pages. mq_overview(7), mq_open(3), mq_send(3), mq_receive(3), mq_notify(3), mq_unlink(3).
"""

from __future__ import annotations

import errno
import os
import select
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

import posix_ipc

from ipclab.errors import (
    BufferTooSmall,
    IpclabError,
    MessageTooLarge,
    NameInUse,
    NoRoom,
    PeerGone,
    Unavailable,
    UsageError,
)
from ipclab.mechanisms.base import Deadline, End, Link, NativeSpec, Peer, watched
from ipclab.mechanisms.data._mq_sizes import fits_none, mq_limits, sizes_to_try
from ipclab.mechanisms.data._streams import byte_view, wait_ready
from ipclab.processes import registry
from ipclab.records import Limit, Mechanism, Probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from ipclab.mechanisms.base import Side

T = TypeVar("T")
SIDES: tuple[Side, Side] = ("a", "b")

MECHANISM = Mechanism(
    name="posix-mq",
    family="data transfer",
    summary="a kernel queue of messages with priorities",
    lifetime="kernel",
    boundaries=True,
    duplex=True,
    man_pages=("mq_overview(7)", "mq_open(3)", "mq_send(3)", "mq_receive(3)", "mq_notify(3)", "mq_unlink(3)"),
)


def probe() -> Probe:
    """Open a queue that does not exist: ENOENT says that there are queues."""
    try:
        posix_ipc.MessageQueue(f"/ipclab-probe-{os.getpid()}").close()
    except posix_ipc.ExistentialError:
        pass
    except (posix_ipc.Error, OSError) as err:
        return Probe(works=False, reason=f"mq_open: {err}", remedy="a kernel with CONFIG_POSIX_MQUEUE")
    if fits_none():
        reason = "RLIMIT_MSGQUEUE leaves this user no room for any queue"
        return Probe(works=False, reason=reason, remedy="raise it (ulimit -q)")
    return Probe(works=True)


def limits() -> tuple[Limit, ...]:
    """What bounds a queue here, and all of them together."""
    return mq_limits()


class PosixMqEnd(End):
    """One queue to send into and one to receive from. Owns both descriptors."""

    limit_source = "the queue's message size, bounded by /proc/sys/fs/mqueue/msgsize_max and RLIMIT_MSGQUEUE"

    def __init__(self, outgoing: posix_ipc.MessageQueue, incoming: posix_ipc.MessageQueue) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._limit_bytes = int(outgoing.max_message_size)
        self.limit_bytes = self._limit_bytes
        self._peer: Peer | None = None
        #: A message that was received into a buffer too small for it, and its priority. mq_receive cannot look first.
        self._held: tuple[bytes, int] | None = None
        self._closed = False

    def send(self, data: Buffer, timeout_s: float | None = None, *, priority: int = 0) -> None:
        """Send one message; blocks while the queue is full. A higher `priority` (0 to 32767) overtakes lower ones."""
        self._check_open()
        if not 0 <= priority <= posix_ipc.QUEUE_PRIORITY_MAX:
            raise UsageError(f"priority {priority} is not within 0 and {posix_ipc.QUEUE_PRIORITY_MAX}, MQ_PRIO_MAX - 1")
        with byte_view(data) as view:
            if len(view) > self._limit_bytes:
                hint = "ask for it with open(message_bytes=), raise msgsize_max, or send it in parts"
                raise MessageTooLarge(len(view), self._limit_bytes, self.limit_source, hint=hint, syscall="mq_send")
            self._when_ready(
                lambda patience_s: self._outgoing.send(view, patience_s, priority),
                self._outgoing.mqd,
                select.POLLOUT,
                timeout_s,
            )

    def recv_into(self, buffer: Buffer, timeout_s: float | None = None) -> int:
        """Receive the oldest of the messages of highest priority; blocks while there is none."""
        return self.recv_with_priority(buffer, timeout_s)[0]

    def recv_with_priority(self, buffer: Buffer, timeout_s: float | None = None) -> tuple[int, int]:
        """As `recv_into`; returns the length and the priority.

        The kernel hands a message out whole: one that is longer than `buffer` is kept here for the next call.
        """
        self._check_open()
        with byte_view(buffer, writable=True) as view:
            held = self._held
            if held is None:
                held = self._when_ready(self._incoming.receive, self._incoming.mqd, select.POLLIN, timeout_s)
            message, priority = held
            if len(message) > len(view):
                self._held = held
                raise BufferTooSmall(f"posix-mq: a message of {len(message)} bytes, a buffer of {len(view)} bytes")
            self._held = None
            view[: len(message)] = message
            return len(message), priority

    def notify_by_signal(self, signo: int) -> None:
        """Have the kernel send `signo` to this process when a message comes into the empty queue, once."""
        self._request(signo)

    def notify_by_thread(self, call: Callable[[object], None], argument: object = None) -> None:
        """Have `call(argument)` run in a new thread when a message comes into the empty queue: once.

        This is glibc's doing: it keeps a helper thread and a netlink socket in this process from then on, for good.
        """
        self._request((call, argument))

    def notify_cancel(self) -> None:
        """Take the request back; nothing happens when there is none."""
        self._check_open()
        self._incoming.request_notification(None)

    def _request(self, what: object) -> None:
        self._check_open()
        try:
            self._incoming.request_notification(what)
        except posix_ipc.BusyError:
            raise IpclabError(
                "posix-mq: a process has asked to be notified of this queue already, only one may",
                hint="cancel that request, or wait until it has fired",
                errno=errno.EBUSY,
                syscall="mq_notify",
            ) from None

    @property
    def waiting(self) -> int:
        """How many messages are in the incoming queue now."""
        self._check_open()
        return int(self._incoming.current_messages) + (self._held is not None)

    def watch(self, pid: int) -> None:
        """Watch the process on the other side: the queue itself tells nobody of its end."""
        self._check_open()
        self._peer = Peer.instead_of(self._peer, pid)

    def native(self) -> NativeSpec:
        """By mq_send(3) and mq_receive(3)."""
        self._check_open()
        queues = (int(self._incoming.mqd), int(self._outgoing.mqd))
        return NativeSpec("posix-mq", queues, None, watched(self._peer))

    def fileno(self) -> int:
        """The incoming queue's descriptor: on Linux mqd_t is one, and poll(2) takes it."""
        self._check_open()
        return int(self._incoming.mqd)

    def close(self) -> None:
        """Close both descriptors; the queues and their messages stay."""
        if self._closed:
            return
        self._closed = True
        if self._peer is not None:
            self._peer.close()
        self._outgoing.close()
        self._incoming.close()

    def _check_open(self) -> None:
        if self._closed:
            raise IpclabError("posix-mq: this end is closed")

    def _when_ready(self, call: Callable[[float | None], T], fd: int, events: int, timeout_s: float | None) -> T:
        """The result of `call(None)`, which waits, or of `call(0)` repeated as often as poll(2) says it may work."""
        patience_s = None if timeout_s is None and self._peer is None else 0
        deadline = Deadline(timeout_s)
        peer_gone = False
        while True:
            try:
                return call(patience_s)
            except posix_ipc.SignalError:
                continue  # EINTR: the handler has run and has not raised
            except posix_ipc.BusyError:
                if peer_gone:
                    raise PeerGone("posix-mq: the process on the other side has ended") from None
            peer_gone = not wait_ready(fd, events, deadline, self._peer, "posix-mq: the queue is not ready")


class PosixMqLink(Link):
    """Two queues, one for each direction."""

    name = "posix-mq"

    def __init__(self) -> None:
        self._opener_pid = os.getpid()
        #: The queue each side receives from.
        self.names: dict[Side, str] = {}
        #: Messages each queue can hold.
        self.depth = 0
        self._ends: dict[Side, PosixMqEnd] = {}
        self._created: list[str] = []  # names that are ours to unlink

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        """Make both queues, as near to what is asked as the limits allow. Raises NoRoom, NameInUse, Unavailable."""
        link = cls()
        try:
            for side in SIDES:
                link.names[side] = registry.new_name("posix-mq", f"to-{side}")
            link._create_largest(message_bytes, depth)
        except BaseException:
            link.close()
            raise
        return link

    def _create_largest(self, message_bytes: int, depth: int) -> None:
        refused: Exception | None = None
        for count, size in sizes_to_try(message_bytes, depth, len(SIDES)):
            try:
                self._create(count, size)
                return
            except ValueError as err:  # EINVAL: over msg_max or msgsize_max, and no CAP_SYS_RESOURCE
                refused = err
            except posix_ipc.ExistentialError as err:
                raise NameInUse(f"posix-mq: a queue {self.names} exists already", hint="see `ipclab clean`") from err
            except posix_ipc.PermissionsError as err:
                raise Unavailable("posix-mq: may not make a queue", errno=errno.EACCES, syscall="mq_open") from err
            except (OSError, MemoryError) as err:  # posix_ipc keeps the text of errno, not its number
                refused = err
                if "files open" not in str(err):  # EMFILE: over RLIMIT_MSGQUEUE, or no descriptor left
                    break  # ENOSPC, ENOMEM: a smaller one will not do either
        raise NoRoom(
            f"posix-mq: no message queue left ({refused})",
            hint="run `ipclab clean`, or raise RLIMIT_MSGQUEUE (ulimit -q), queues_max or RLIMIT_NOFILE (ulimit -n)",
            syscall="mq_open",
        ) from refused

    def _create(self, count: int, size: int) -> None:
        """Make both queues and open each twice, once for either process; leaves nothing when it fails."""
        made: list[posix_ipc.MessageQueue] = []
        try:
            for side in SIDES:
                queue = partial(posix_ipc.MessageQueue, self.names[side])
                made.append(queue(posix_ipc.O_CREX, 0o600, count, size, write=False))
                self._created.append(self.names[side])
                made.append(queue(read=False))
        except BaseException:
            for queue in made:
                queue.close()
            self._unlink()
            raise
        to_a, into_a, to_b, into_b = made
        self.depth = count
        self._ends = {"a": PosixMqEnd(into_b, to_a), "b": PosixMqEnd(into_a, to_b)}

    def take(self, side: Side) -> PosixMqEnd:
        """This side's two descriptors; never blocks. Closes the other side's in a process forked from the opener."""
        end = self._ends.pop(side, None)
        if end is None:
            raise UsageError(f"posix-mq: side {side!r} has been taken already, or the link is closed")
        if os.getpid() != self._opener_pid:
            self._close_ends()
        return end

    def close(self) -> None:
        """Close what nobody has taken; in the process that opened the link, unlink both queues."""
        self._close_ends()
        if os.getpid() == self._opener_pid:
            self._unlink()
            while self.names:
                registry.forget("posix-mq", self.names.popitem()[1])

    def _close_ends(self) -> None:
        while self._ends:
            self._ends.popitem()[1].close()

    def _unlink(self) -> None:
        while self._created:
            with suppress(posix_ipc.ExistentialError):
                posix_ipc.unlink_message_queue(self._created.pop())


LINK = PosixMqLink
