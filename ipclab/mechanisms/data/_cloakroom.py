"""Where the descriptors of both sides wait until each side takes its own: nowhere but inside a socket.

The problem. Whoever opens a link and then forks two processes would keep every pipe end open himself, and so would the
other process. A pipe reports end-of-file only when the *last* copy of its write end is closed, so neither would ever
learn of the other's death.

Rejected: "close after the second fork" (the opener cannot know when that was); handing descriptors out by a thread of
the opener (a thread in a process that forks).

Here the opener sends the descriptors to itself with SCM_RIGHTS (unix(7)) and closes its own. In flight, they belong
to the queue of a socket alone. Processes forked later inherit only that socket; `fetch` receives the descriptors out
of it, once, and is then their only holder. What nobody fetches is closed with the last copy of the socket.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from ipclab.errors import IpclabError, NoRoom, UsageError, from_os_error
from ipclab.mechanisms.data._rights import recv_rights, send_rights

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ipclab.mechanisms.base import Side

_MOST_FDS = 16  # per side; links have at most four


class Cloakroom:
    """Keeps descriptors for side "a" and side "b" over a fork. Close it when both have been fetched or nobody will."""

    def __init__(self, what: str) -> None:
        self._what = what
        try:
            # One pair serves both sides: a's descriptors travel one way, b's the other.
            self._left, self._right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as err:
            raise from_os_error(err, what, syscall="socketpair") from err

    def leave(self, side: Side, fds: Iterable[int]) -> None:
        """Put the descriptors of one side away; this process's own copies are closed, also when it fails."""
        mine = list(fds)
        try:
            send_rights(self._left if side == "a" else self._right, b"fds", mine, socket.MSG_DONTWAIT)
        except OSError as err:
            hint = "raise RLIMIT_NOFILE (ulimit -n)"
            raise NoRoom(f"{self._what}: too many descriptors", hint=hint, errno=err.errno, syscall="sendmsg") from err
        finally:
            for fd in mine:
                os.close(fd)

    def fetch(self, side: Side) -> list[int]:
        """The descriptors of one side, in the order they were left; never blocks. Raises UsageError the second time."""
        if self._left.fileno() < 0:
            raise IpclabError(f"{self._what}: the link is closed")
        box = self._right if side == "a" else self._left
        try:
            _, fds, lost = recv_rights(box, 8, _MOST_FDS, socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise UsageError(f"{self._what}: side {side!r} has been taken already") from None
        except OSError as err:
            raise from_os_error(err, self._what, syscall="recvmsg") from err
        if lost:  # the kernel could not install them all: this process is at RLIMIT_NOFILE
            for fd in fds:
                os.close(fd)
            raise NoRoom(f"{self._what}: no descriptor left in this process", hint="raise RLIMIT_NOFILE (ulimit -n)")
        return fds

    def close(self) -> None:
        """Give this process's copy back; descriptors that nobody can fetch any more are closed by the kernel."""
        self._left.close()
        self._right.close()
