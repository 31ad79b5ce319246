"""zmq-ipc: ZeroMQ messages over a Unix socket: queues and a thread of its own on each side of a plain stream.

    send -> [ queue, SNDHWM ] -> I/O thread --[ Unix stream ]--> I/O thread -> [ queue, RCVHWM ] -> recv

What it is. A library, not a kernel object: libzmq keeps a queue and an I/O thread in each process and speaks ZMTP, a
framing protocol, over an ordinary stream socket, here a Unix one with a name in the file system. Patterns say what a
socket does with its messages: PUSH/PULL shares them out, REQ/REP takes turns, PUB/SUB copies and drops, PAIR, used
here, connects exactly two. The name lies in ipclab's runtime folder, mode 0700: nobody else can connect.

Lifetime. The queues live in the processes and die with them. The socket's path stays in the file system until the
opener closes the link; `ipclab clean` finds what a killed opener left. A Context does not survive fork(2), since its
threads do not: each process makes its own when it takes its side. pyzmq's looks open in the child, and hangs.

Boundaries. Kept: a message arrives whole or not at all.

Order. First in, first out.

Capacity and limits. Counted in messages, not bytes: ZMQ_SNDHWM at the sender, ZMQ_RCVHWM at the receiver (1000 each by
default, 0 is none; the link sets both to `depth`), and between them what the kernel's socket buffers hold. A message
has no limit but memory; the link keeps to `message_bytes` and says so to libzmq (ZMQ_MAXMSGSIZE), which drops the
connection of whoever sends more. A path has at most 107 bytes.

Blocking. send waits while the high-water mark is reached; recv while no message is there. What PAIR, PUSH and REQ do by
waiting, PUB does by dropping. send returning means queued, not sent: that the message has left the process nobody says.
ZMQ_FD, the descriptor for poll(2), is edge-triggered: see `fileno`. A wait shows in /proc as poll, whatever it is for.

When an end dies. libzmq tells nobody: it reconnects for ever and a receiver waits for ever. The link does not reconnect
and listens to the socket's monitor instead, so that close and death both end a wait with PeerGone, after what had come.
But what a killed sender had only queued is lost with it, although send had returned; and a receiver whose queue was
full loses what its kernel still held. An orderly `close` waits up to 5 s until the peer's I/O thread has read what was
sent. ZMQ_LINGER alone waits for ever, and still loses messages when the queues are full: see _zmq_linger.py.

Use it when you want its patterns (many workers, fan-out, a broker), or one program for threads, processes and machines.

Not when speed between two processes is what counts: every message crosses two threads and two wake-ups on its way; or
when a message must not be lost with its sender (posix-mq keeps it in the kernel).

Man pages. zmq_ipc(7), zmq_socket(3), zmq_setsockopt(3), zmq_socket_monitor(3), unix(7).
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Self

from ipclab.mechanisms.data._sockets import probe_socket
from ipclab.mechanisms.data._unix import PATH_LIMIT_BYTES, listen, path_name
from ipclab.mechanisms.data._zmq import ZmqLink, probe_zmq, put_away_listener, zmq_limits
from ipclab.records import Limit, Mechanism, Probe

MECHANISM = Mechanism(
    name="zmq-ipc",
    family="data transfer",
    summary="ZeroMQ messages over a Unix socket",
    lifetime="file system",
    boundaries=True,
    duplex=True,
    man_pages=("zmq_ipc(7)", "zmq_socket(3)", "zmq_setsockopt(3)", "zmq_socket_monitor(3)", "unix(7)"),
)


def probe() -> Probe:
    """Whether pyzmq is installed and a Unix socket can be made."""
    found = probe_zmq()
    return probe_socket(socket.AF_UNIX, socket.SOCK_STREAM) if found.works else found


def limits() -> tuple[Limit, ...]:
    """What bounds ZeroMQ over Unix sockets here."""
    path = Limit(name="path of a socket", value=PATH_LIMIT_BYTES, unit="bytes", source="sun_path, unix(7)")
    return (*zmq_limits(), path)


class ZmqIpcLink(ZmqLink):
    """A path in the runtime folder: a serves it, b connects to it."""

    name = "zmq-ipc"
    #: Where the socket is; None once it has been removed.
    path: Path | None = None

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        """Make the listening socket, mode 0600, in the 0700 runtime folder. Raises Unavailable, NoRoom."""
        from ipclab.processes import registry

        path = registry.new_path("zmq", ".sock")
        try:
            listener = listen(path_name(path), socket.SOCK_STREAM)
            link = cls(put_away_listener(cls.name, listener), f"ipc://{path}", message_bytes, depth)
        except BaseException:
            _remove(path)
            raise
        link.path = path
        return link

    def close(self) -> None:
        """Let go of what nobody has taken; in the process that opened the link, remove the path."""
        super().close()
        if self.path is not None and os.getpid() == self._opener_pid:
            _remove(self.path)
            self.path = None


def _remove(path: Path) -> None:
    from ipclab.processes import registry

    with suppress(FileNotFoundError):
        path.unlink()
    registry.forget("path", path)


LINK = ZmqIpcLink
