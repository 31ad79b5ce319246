"""fifo: a pipe with a name in the file system, so that strangers can meet.

    writer --open(2), write(2)-->  /some/folder/name  --open(2), read(2)-->  reader

What it is. mkfifo(3) makes a file of type p. Opening it gives an end of a pipe in the kernel; the file holds no data
and no byte ever reaches the disk. A FIFO goes one way, so a link is two of them.

Lifetime. The name stays in the file system until it is unlinked, also after a reboot where the folder does. The pipe
behind it exists only while somebody has the FIFO open: with the last close, bytes nobody has read are lost.

Boundaries. None, as in every pipe; a write of at most PIPE_BUF bytes is not split.

Order. First in, first out.

Capacity and limits. Those of a pipe (see there). Who may open it, the mode of the file says: here 0600 in a 0700
folder.

Blocking. open(2) itself blocks: for reading until a writer opens, for writing until a reader does. With O_NONBLOCK
the reader gets its end at once, the writer ENXIO. Two processes that each open "their" reading end first and wait
would never meet; and a reader that did not wait cannot tell "no writer yet" from "the writer is gone": read returns 0
for both. `take` therefore 1. opens its reading end without waiting, 2. opens the other FIFO for reading *and*
writing, which on Linux never blocks (fifo(7)), and leaves one byte in it, 3. waits with poll(2) and a deadline for
the other side's byte, after which both have writers and readers, 4. opens its writing end and closes the helper of
step 2.

When an end dies. As with a pipe: end-of-file for the reader, SIGPIPE or EPIPE for the writer, after a kill too. The
name stays behind until its owner, or `ipclab clean`, removes it.

Use it when unrelated programs on one machine pass a stream and a file name is all they can agree on; in shells.

Not when there are several clients (their bytes mix, and the server cannot answer one of them: unix-stream), or the
two are parent and child (pipe).

Man pages. fifo(7), mkfifo(3), pipe(7), open(2).
"""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ipclab.errors import IpclabError, PeerGone, from_os_error
from ipclab.mechanisms.base import Deadline, Link, other
from ipclab.mechanisms.data._pipes import close_all, enlarge, pipe_limits, probe_pipe
from ipclab.mechanisms.data._streams import PipeEnd, wait_ready
from ipclab.processes import registry
from ipclab.records import Limit, Mechanism, Probe

if TYPE_CHECKING:
    from ipclab.mechanisms.base import Side

MECHANISM = Mechanism(
    name="fifo",
    family="data transfer",
    summary="a pipe with a name in the file system",
    lifetime="file system",
    go="syscall.Mkfifo",
    boundaries=False,
    duplex=False,
    man_pages=("fifo(7)", "mkfifo(3)", "pipe(7)", "open(2)"),
)

#: How long `take` waits for the other side, unless told otherwise. Chosen: longer than any start of a process.
MEET_S = 30.0


def probe() -> Probe:
    """Make a FIFO in the runtime folder and remove it."""
    works = probe_pipe()
    if not works.works:
        return works
    try:
        path = registry.new_path("fifo-probe")
        try:
            os.mkfifo(path, 0o600)
            path.unlink()
        finally:
            registry.forget("path", path)
    except (OSError, IpclabError) as err:
        return Probe(works=False, reason=f"mkfifo: {err}", remedy="set XDG_RUNTIME_DIR or TMPDIR to a folder of yours")
    return works


def limits() -> tuple[Limit, ...]:
    """What bounds a FIFO here: the same as a pipe."""
    return pipe_limits()


class FifoLink(Link):
    """Two FIFOs in the runtime folder, one for each direction. Holds no descriptor: `take` opens."""

    name = "fifo"

    def __init__(self, paths: dict[Side, Path], wanted_bytes: int) -> None:
        self._paths = paths
        self._wanted_bytes = wanted_bytes
        self._opener_pid = os.getpid()
        #: How long `take` waits until the other side has taken its end, in seconds; None: for ever.
        self.meet_s: float | None = MEET_S

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        """Make both FIFOs, mode 0600. Raises NameInUse, NoRoom, Unavailable."""
        link = cls({}, message_bytes * depth)
        try:
            for side in ("a", "b"):
                path = registry.new_path(f"fifo-to-{side}")
                try:
                    os.mkfifo(path, 0o600)
                except BaseException:
                    registry.forget("path", path)  # what is there is not ours to remove
                    raise
                link._paths[side] = path
        except BaseException as err:
            link.close()
            if isinstance(err, OSError) and not isinstance(err, IpclabError):
                raise from_os_error(err, "fifo: no FIFO in the runtime folder", syscall="mkfifo") from err
            raise
        return link

    @property
    def paths(self) -> dict[Side, Path]:
        """The file each side reads from."""
        return dict(self._paths)

    def take(self, side: Side) -> PipeEnd:
        """Open this side's ends; blocks until the other side has done the same, at most `meet_s` seconds.

        Raises TimedOut when it does not come, PeerGone when it came and left.
        """
        if not self._paths:
            raise IpclabError("fifo: the link is closed")
        fds: list[int] = []
        try:
            self._meet(side, fds)
        except BaseException as err:
            close_all(fds)
            if isinstance(err, OSError) and not isinstance(err, IpclabError):
                raise from_os_error(err, f"FIFO {self._paths.get(side)}", syscall="open") from err
            raise
        read_fd, write_fd = fds
        return PipeEnd(read_fd, write_fd, self.name)

    def _meet(self, side: Side, fds: list[int]) -> None:
        """Steps 1 to 4 of the module's text; appends what is open to `fds`."""
        deadline = Deadline(self.meet_s)
        theirs = self._paths[other(side)]
        fds.append(os.open(self._paths[side], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        fds.append(os.open(theirs, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        enlarge(fds[1], self._wanted_bytes)
        os.write(fds[1], b"!")
        wait_ready(fds[0], select.POLLIN, deadline, None, "fifo: waiting until the other side has taken its end")
        if not os.read(fds[0], 1):
            raise PeerGone("fifo: the other side has taken its end and closed it")
        fds.append(os.open(theirs, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        os.close(fds.pop(1))

    def close(self) -> None:
        """Remove both names, in the process that opened the link; ends that were taken stay as they are."""
        if os.getpid() != self._opener_pid:
            return
        while self._paths:
            _, path = self._paths.popitem()
            path.unlink(missing_ok=True)
            registry.forget("path", path)


LINK = FifoLink
