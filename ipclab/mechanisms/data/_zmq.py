"""What zmq-ipc and zmq-tcp share: one PAIR socket on each side, and learning from it that the other one is gone.

    process a                                                     process b
    End -- pipe, HWM --> I/O thread --[ Unix socket or TCP ]--> I/O thread -- pipe, HWM --> End

Three things ZeroMQ does not do by itself:

  - survive a fork. A Context has threads, and threads do not cross fork(2); it even looks open in the child. So `open`
    makes no Context: it makes the listening kernel socket, which a later hands to its own Context (ZMQ_USE_FD), and
    whose address b knows from the start.
  - tell a waiting receiver that the peer is gone. It is made to reconnect for ever, silently. Here it does not, and a
    monitor (zmq_socket_monitor(3)) reports the end of the connection. Every wait polls both.
  - deliver before that report. The I/O thread may report the end just before it hands over the last messages. So after
    the report we wait until it sleeps again; a receive that finds nothing then is final.
  - deliver what a closing peer had sent, whenever its queues were full: see _zmq_linger.py.

Rejected: a goodbye message in band (a killed peer says none); heartbeats (seconds late); polling the pidfd alone (the
I/O thread may still hold messages when the process is gone).
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack
from importlib.util import find_spec
from math import ceil
from typing import TYPE_CHECKING

from ipclab.errors import BufferTooSmall, IpclabError, MessageTooLarge, NoRoom, PeerGone, TimedOut, Unavailable
from ipclab.mechanisms.base import Deadline, End, Link, NativeSpec, Peer
from ipclab.mechanisms.data import _zmq_linger as linger
from ipclab.mechanisms.data._cloakroom import Cloakroom
from ipclab.mechanisms.data._sockets import CLOSED, ENDED, FILES_HINT
from ipclab.mechanisms.data._streams import byte_view
from ipclab.records import Limit, Probe

if TYPE_CHECKING:
    from collections.abc import Callable

    import zmq
    from typing_extensions import Buffer

    from ipclab.mechanisms.base import Side

#: How long `close` may wait for the peer to fetch what was sent (ZMQ_LINGER). Chosen: long enough for a busy machine.
LINGER_MS = 5000
#: How long after the end of a watched process its last messages may still be on their way through our I/O thread.
LAST_LOOK_S = 0.1
#: The longest single poll: a signal that comes just before it does not cut it short, and its handler runs after it.
#: libzmq's threads wake us several times while they connect, so that Ctrl-C does come there.
SLICE_S = 0.2
#: Messages from this size on are received without a copy of pyzmq's own. Chosen by pyzmq's own threshold for sending.
_FRAME_BYTES = 65536
#: ZMQ_RECONNECT_IVL: twelve days. Not -1, "never": libzmq then drops what came before the end and was not received yet
#: (reconnect and term_endpoint in session_base.cpp and socket_base.cpp). Not more: twice this has to fit an int.
_NEVER_MS = 2**30
#: ZMQ_MAXMSGSIZE holds for the frames of the handshake too.
_LEAST_MAXMSGSIZE = 4096


class ZmqEnd(End):
    """One PAIR socket with a Context of its own: two threads and some descriptors, gone after `close`."""

    limit_source = "message_bytes given to open, kept by ZMQ_MAXMSGSIZE; ZeroMQ itself has no limit"

    def __init__(self, what: str, message_bytes: int, depth: int) -> None:
        import zmq

        self._zmq = zmq
        self._what = what
        self.limit_bytes = message_bytes
        self._limit_bytes = message_bytes
        self._peer: Peer | None = None
        self._held: bytes | memoryview | None = None
        self._closed = False
        self._sent = False
        #: How this end learnt that the other side is gone; empty before.
        self._gone = ""
        #: When to stop hoping for last messages of a watched process that has ended.
        self._last_look_s: float | None = None
        #: On the listening side: whether the peer was let in, and the connections of which one is the peer's.
        self._met = False
        self._connections: set[int] = set()
        self._listens = False
        self._endpoint = ""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        before = linger.tasks()
        try:
            self._socket, self._monitor = self._make_sockets(depth)
        except zmq.ZMQError as err:
            self._context.destroy(0)
            raise NoRoom(f"{what}: {err.strerror}", hint=FILES_HINT, errno=err.errno, syscall="zmq_socket") from err
        #: The Context's I/O thread and its reaper, which the first socket has started.
        self._threads = linger.tasks() - before

    def _make_sockets(self, depth: int) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        zmq = self._zmq
        main = self._context.socket(zmq.PAIR)
        main.setsockopt(zmq.LINGER, 0)  # `close` says how long; a connection that broke keeps this one, and must not
        for option in (zmq.SNDHWM, zmq.RCVHWM):
            main.setsockopt(option, max(1, depth))  # 0 would be: no limit
        main.setsockopt(zmq.MAXMSGSIZE, max(self._limit_bytes, _LEAST_MAXMSGSIZE))
        main.setsockopt(zmq.RECONNECT_IVL, _NEVER_MS)
        main.setsockopt(zmq.HANDSHAKE_IVL, 0)  # the other side may take its end much later
        monitor = main.get_monitor_socket(
            zmq.EVENT_ACCEPTED
            | zmq.EVENT_CONNECTED
            | zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_DISCONNECTED
            | zmq.EVENT_CLOSED
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        )
        return main, monitor

    def listen(self, listener: socket.socket, endpoint: str) -> None:
        """Serve on a kernel socket that listens already; it belongs to the Context from then on."""
        self._listens = True
        self._socket.setsockopt(self._zmq.USE_FD, listener.fileno())
        self._attach(self._socket.bind, endpoint, "zmq_bind")
        listener.detach()

    def connect(self, endpoint: str) -> None:
        """Connect in the background; messages sent meanwhile are queued."""
        self._attach(self._socket.connect, endpoint, "zmq_connect")

    def introduce(self, user: bytes, word: bytes) -> None:
        """Show these when connecting (PLAIN)."""
        self._socket.setsockopt(self._zmq.PLAIN_USERNAME, user)
        self._socket.setsockopt(self._zmq.PLAIN_PASSWORD, word)

    def use_ipv6(self) -> None:
        """Take IPv6 addresses too, which libzmq does not by default."""
        self._socket.setsockopt(self._zmq.IPV6, 1)

    def _attach(self, call: Callable[[str], object], endpoint: str, name: str) -> None:
        self._endpoint = endpoint
        try:
            call(endpoint)
        except self._zmq.ZMQError as err:
            raise IpclabError(f"{self._what}: {endpoint}: {err.strerror}", errno=err.errno, syscall=name) from err

    # --- the interface of base.End ----------------------------------------------------------------------------------

    def send(self, data: Buffer, timeout_s: float | None = None) -> None:
        """Hand one message to the I/O thread; waits while as many as the HWM allows are queued on both sides.

        Sent means queued: what is queued here dies with this process. The buffer is copied before this returns.
        """
        self._check()
        size = memoryview(data).nbytes
        if size > self._limit_bytes:
            hint = "ask for it with open(message_bytes=)"
            raise MessageTooLarge(size, self._limit_bytes, self.limit_source, hint=hint, errno=None)
        deadline: Deadline | None = None
        while not self._gone:
            try:
                self._socket.send(data, self._zmq.NOBLOCK, copy=True)
                self._sent = True
                return
            except self._zmq.Again:
                deadline = deadline or Deadline(timeout_s)
                self._wait(self._zmq.POLLOUT, deadline)
        raise PeerGone(f"{self._what}: {self._gone}")

    def recv_into(self, buffer: Buffer, timeout_s: float | None = None) -> int:
        """Receive one message; one that does not fit is kept for the next call."""
        self._check()
        with byte_view(buffer, writable=True) as view:
            message, self._held = self._held, None
            if message is None:
                message = self._receive(len(view) >= _FRAME_BYTES, timeout_s)
            size = len(message)
            if size > len(view):
                self._held = message
                raise BufferTooSmall(
                    f"{self._what}: the message of {size} bytes does not fit the buffer of {len(view)} bytes",
                    hint="it is kept: receive it into a larger buffer",
                )
            view[:size] = message
            return size

    def fileno(self) -> int:
        """ZMQ_FD: a descriptor that becomes readable when *something* has changed. It is edge-triggered.

        Readable does not mean that a message is there, and a message that is there need not make it readable. So before
        every wait on it, the first one too, receive with `timeout_s=0` until TimedOut; only a socket found empty
        promises to report the next message. Nobody learns from it that the peer is gone: that is for the waits in here.
        """
        self._check()
        return int(self._socket.getsockopt(self._zmq.FD))

    def native(self) -> NativeSpec:
        """None: libzmq would have to be called from the core."""
        raise Unavailable(f"{self._what}: only through pyzmq", hint="use the Python driver")

    def watch(self, pid: int) -> None:
        """Notice the end of `pid` also when no connection was ever made, or a process it forked keeps it open."""
        self._check()
        self._peer = Peer.instead_of(self._peer, pid)

    def close(self) -> None:
        """Close the socket and end the Context; waits until the peer has taken what was sent, LINGER_MS at most.

        A peer that is gone is not waited for. Twice is allowed.
        """
        if self._closed:
            return
        self._closed = True
        if self._peer is not None:
            self._peer.close()
        self._read_monitor()
        with ExitStack() as kept:
            fds = () if self._gone else self._connections
            connections = [kept.enter_context(sock) for sock in linger.keep(fds, self._is_ours)]
            deadline = Deadline(LINGER_MS / 1000)
            there = self._sent and not self._gone and linger.until_taken(connections, self._threads, deadline)
            self._close_door()
            self._socket.disable_monitor()
            self._monitor.close(0)
            self._socket.close(ceil((deadline.left_s() or 0) * 1000) if there else 0)
            self._context.term()
            if there:
                linger.until_taken(connections, self._threads, deadline)
            for sock in connections:
                linger.drain(sock)

    def _is_ours(self, sock: socket.socket) -> bool:
        return endpoint_of(sock.getsockname() if self._listens else sock.getpeername()) == self._endpoint

    def _check(self) -> None:
        if self._closed:
            raise IpclabError(f"{self._what}: this end is closed")

    # --- for kinds --------------------------------------------------------------------------------------------------

    def _doorbell(self) -> zmq.Socket[bytes] | None:
        """A socket that every wait polls too, as long as there is one."""
        return None

    def _answer_door(self) -> None:
        """Called in every wait: look at the doorbell; never blocks."""

    def _close_door(self) -> None:
        """Called when the peer has been let in, and at the end."""

    # --- the wait ---------------------------------------------------------------------------------------------------

    def _receive(self, frame: bool, timeout_s: float | None) -> bytes | memoryview:
        deadline: Deadline | None = None
        while True:
            if gone := self._gone:  # asked before the receive: what comes before the end has come by then
                linger.until_asleep(self._threads, Deadline(LAST_LOOK_S))
            try:
                if frame:
                    return self._socket.recv(self._zmq.NOBLOCK, copy=False).buffer
                return self._socket.recv(self._zmq.NOBLOCK)
            except self._zmq.Again:
                if gone:
                    raise PeerGone(f"{self._what}: {gone}") from None
                deadline = deadline or Deadline(timeout_s)
                self._wait(self._zmq.POLLIN, deadline)

    def _wait(self, event: int, deadline: Deadline) -> None:
        """Sleep until the socket is ready or the peer is gone, which is noted. Raises TimedOut."""
        poller = self._zmq.Poller()
        poller.register(self._socket, event)
        poller.register(self._monitor, self._zmq.POLLIN)
        if (doorbell := self._doorbell()) is not None:
            poller.register(doorbell, self._zmq.POLLIN)
        watched = self._peer is not None and self._last_look_s is None
        if watched and self._peer is not None and self._peer.fd is not None:
            poller.register(self._peer.fd, self._zmq.POLLIN)
        ready = {what for what, _ in poller.poll(self._patience_ms(deadline))}
        if self._socket in ready:
            return
        self._answer_door()
        self._read_monitor()
        if self._gone:
            return
        if watched and self._peer is not None and self._peer.gone():
            self._last_look_s = time.monotonic() + LAST_LOOK_S
        elif self._last_look_s is not None and time.monotonic() >= self._last_look_s:
            self._gone = ENDED
        elif not ready and deadline.over():
            raise TimedOut(f"{self._what}: {'recv' if event == self._zmq.POLLIN else 'send'}: the time is over")

    def _patience_ms(self, deadline: Deadline) -> int:
        left_s = deadline.slice_s(SLICE_S)
        if self._last_look_s is not None:
            left_s = min(left_s, max(0.0, self._last_look_s - time.monotonic()))
        elif self._peer is not None and self._peer.fd is None:
            left_s = 0.0
        return ceil(left_s * 1000)

    def _read_monitor(self) -> None:
        """Take in what the I/O thread has reported about connections.

        The connecting side has one connection: its end is the end. The listening side may have met strangers before its
        peer was let in. Usually they are gone by then; who is still there cannot be told from the peer (the report of a
        success names no connection), so the peer is gone for sure when all of them are. Whoever comes later is nobody.
        """
        from zmq.utils.monitor import recv_monitor_message

        zmq = self._zmq
        while self._monitor.poll(0):
            report = recv_monitor_message(self._monitor)
            if report["event"] == zmq.EVENT_CONNECTED:
                self._connections.add(report["value"])
            elif not self._listens:
                if report["event"] != zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    self._gone = CLOSED
            elif report["event"] == zmq.EVENT_ACCEPTED and not self._met:
                self._connections.add(report["value"])
            elif report["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._met = True
                self._close_door()
            elif report["event"] == zmq.EVENT_DISCONNECTED:
                self._connections.discard(report["value"])
        if self._listens and self._met and not self._connections:
            self._gone = CLOSED


def endpoint_of(name: object) -> str:
    """A socket's address as ZeroMQ writes it."""
    if isinstance(name, tuple):
        host, port = name[:2]
        return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
    return f"ipc://{name}"


class ZmqLink(Link):
    """A listening kernel socket for a, its address for b. Kinds say which."""

    def __init__(self, cloakroom: Cloakroom, endpoint: str, message_bytes: int, depth: int) -> None:
        self._opener_pid = os.getpid()
        self._cloakroom = cloakroom
        #: Where b connects, as ZeroMQ writes it.
        self.endpoint = endpoint
        self._message_bytes = message_bytes
        self._depth = depth

    def _make_end(self, side: Side) -> ZmqEnd:
        return ZmqEnd(self.name, self._message_bytes, self._depth)

    def take(self, side: Side) -> ZmqEnd:
        """This side's PAIR socket in a Context of its own; never blocks, the connection is made in the background."""
        fds = self._cloakroom.fetch(side)
        with ExitStack() as undo:
            listeners = [undo.enter_context(socket.socket(fileno=fd)) for fd in fds]
            end = self._make_end(side)
            undo.callback(end.close)
            if side == "a":
                end.listen(listeners[0], self.endpoint)
            else:
                end.connect(self.endpoint)
            undo.pop_all()
        for listener in listeners:
            listener.close()  # b's placeholder; a's was handed over
        return end

    def close(self) -> None:
        """Let go of what nobody has taken; in the process that opened the link, remove the name it has."""
        self._cloakroom.close()


def put_away_listener(what: str, listener: socket.socket) -> Cloakroom:
    """Leave the listening socket for a, and a placeholder for b, so that b too can take its side once only."""
    try:
        cloakroom = Cloakroom(what)
    except BaseException:
        listener.close()
        raise
    try:
        cloakroom.leave("a", [listener.detach()])
        cloakroom.leave("b", [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach()])
    except BaseException:
        cloakroom.close()
        raise
    return cloakroom


# --- what bounds it ---------------------------------------------------------------------------------------------------


def probe_zmq() -> Probe:
    """Whether pyzmq is installed. It is not imported: that takes fifty times as long as a probe may."""
    if find_spec("zmq") is None:
        return Probe(works=False, reason="pyzmq is not installed", remedy="pip install pyzmq")
    return Probe(works=True)


def zmq_limits() -> tuple[Limit, ...]:
    """What bounds ZeroMQ here; imports it and asks a fresh socket for its defaults."""
    try:
        import zmq
    except ImportError as err:
        return (Limit(name="high-water mark", value=None, unit="messages", source=f"pyzmq cannot be imported: {err}"),)
    version = f"libzmq {zmq.zmq_version()}, pyzmq {zmq.pyzmq_version()}"
    rows = (
        ("messages queued to send, by default", zmq.SNDHWM, "messages (0: no limit)", "ZMQ_SNDHWM"),
        ("messages queued to receive, by default", zmq.RCVHWM, "messages (0: no limit)", "ZMQ_RCVHWM"),
        ("message, by default", zmq.MAXMSGSIZE, "bytes (-1: no limit)", "ZMQ_MAXMSGSIZE"),
        ("wait of close for unsent messages, by default", zmq.LINGER, "ms (-1: for ever)", "ZMQ_LINGER"),
    )
    with zmq.Context() as context, context.socket(zmq.PAIR) as sock:
        found = [
            Limit(name=name, value=int(sock.getsockopt(option)), unit=unit, source=f"{source}, {version}")
            for name, option, unit, source in rows
        ]
        most = Limit(
            name="sockets of a Context",
            value=int(context.get(zmq.MAX_SOCKETS)),
            unit="sockets",
            source=f"ZMQ_MAX_SOCKETS, {version}",
        )
    return (*found, most)
