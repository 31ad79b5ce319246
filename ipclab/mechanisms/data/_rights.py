"""SCM_RIGHTS, the two calls (unix(7), cmsg(3)).

Not socket.send_fds and socket.recv_fds: they take `flags` and drop them, so that MSG_DONTWAIT waits and, without
MSG_CMSG_CLOEXEC, what is received is inherited by every program that is started.
"""

from __future__ import annotations

import array
import socket
from collections.abc import Sequence

_INT_BYTES = array.array("i").itemsize


def send_rights(sock: socket.socket, note: bytes, fds: Sequence[int], flags: int = 0) -> None:
    """Send descriptors with a note of at least one byte; the caller's stay open. Raises OSError. Never SIGPIPE."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
    sock.sendmsg([note], ancillary, flags | socket.MSG_NOSIGNAL)


def recv_rights(sock: socket.socket, room_bytes: int, most: int, flags: int = 0) -> tuple[bytes, list[int], bool]:
    """The note, the descriptors (close-on-exec, the caller's to close), and whether some were lost (MSG_CTRUNC).

    The room is CMSG_LEN, not CMSG_SPACE: padding would be room for one more than was asked for. Raises OSError.
    """
    flags |= socket.MSG_CMSG_CLOEXEC
    note, ancillary, msg_flags, _ = sock.recvmsg(room_bytes, socket.CMSG_LEN(most * _INT_BYTES), flags)
    fds = array.array("i")
    for level, kind, raw in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(raw[: len(raw) - len(raw) % _INT_BYTES])
    return note, list(fds), bool(msg_flags & socket.MSG_CTRUNC)
