"""The descriptors of a launcher: a role closes all of them, and each is closed once.

A number is somebody else's from the moment it is closed, so whoever closes goes through `close` here, and the second
time nothing happens.
"""

from __future__ import annotations

import contextlib
import os
import sys

from ipclab.errors import NoRoom

#: Descriptors kept back, so that a launcher can end its roles when its program has used up all others: looking for
#: strays takes two at a time, the registry three.
_RESERVED = 3

#: Those of all launchers of this process.
_private: set[int] = set()


class Descriptors:
    """Those of one launcher."""

    def __init__(self) -> None:
        self._mine: set[int] = set()
        self._reserve: list[int] = []

    def own(self, fd: int) -> int:
        """From now on it is one of them; returns it."""
        self._mine.add(fd)
        _private.add(fd)
        return fd

    def close(self, fd: int) -> None:
        """Close it, if it is one of them still."""
        if fd in self._mine:
            self._mine.discard(fd)
            _private.discard(fd)
            os.close(fd)

    def pipe(self, undo: contextlib.ExitStack) -> tuple[int, int]:
        """A new pipe's reading and writing end, closed when `undo` is. Raises NoRoom."""
        try:
            ends = os.pipe()
        except OSError as err:
            raise NoRoom("no room for another pipe", hint="see ulimit -n", errno=err.errno, syscall="pipe2") from err
        for fd in ends:
            undo.callback(self.close, self.own(fd))
        return ends

    def reserve(self, undo: contextlib.ExitStack) -> None:
        """Keep some back for the end, until `undo` is closed. Raises NoRoom."""
        undo.callback(self.free_reserve)
        while len(self._reserve) < _RESERVED:
            self._reserve += self.pipe(undo)

    def free_reserve(self) -> None:
        """It is the end."""
        while self._reserve:
            self.close(self._reserve.pop())

    def disown_all(self) -> None:
        """Those that somebody else has closed by now are no longer ours."""
        _private.difference_update(self._mine)
        self._mine.clear()


def foreign(*keep: int) -> tuple[int, ...]:
    """What a new role has to close: all but these."""
    return tuple(_private - set(keep))


def forget_all() -> None:
    """In a forked process: the numbers are free for others."""
    _private.clear()


def occupy_standard() -> None:
    """Open /dev/null in place of 0, 1 and 2 where they are closed: a pipe with such a number would be in the way."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def flush_standard() -> None:
    """Write out what the standard streams hold: a forked process must not write it a second time."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
