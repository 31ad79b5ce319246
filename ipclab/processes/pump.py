"""The pump: one thread of the launcher that reads every pipe of its roles and turns the book's pages.

It runs from the release of the roles to the end of the launcher, and is stopped for the moment of every fork in
between, so that the launcher is single-threaded whenever it forks (unless its program has threads of its own). Without
it nobody reads: a role that speaks before the release would wait, but before the release no role runs.

It takes no signals: they are for the launcher's main thread, whose blocking calls they interrupt.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable

from ipclab.processes import procfs

#: Bytes of one read; the kernel's pipe holds as many.
_READ_BYTES = 65536
#: Reads of one pipe in one turn: more than a pipe holds that nobody has enlarged, and so few that one talkative role
#: does not keep the others from being heard.
_READS_PER_TURN = 4
#: After so many, everything that was in the largest pipe (1 MiB) has been read, however much its writers add.
_READS_OF_A_FULL_PIPE = 16
#: How long the launcher waits for the pump to have heard everything: microseconds, unless our own output blocks.
_SYNC_S = 5.0

#: Takes what was read; empty bytes say that the last writer has closed.
Consumer = Callable[[bytes], None]


class Pump:
    """See the module's text. `tick` is called at every turn and returns the seconds after which to call it again."""

    def __init__(self, tick: Callable[[], float | None], close_fd: Callable[[int], None] = os.close) -> None:
        self._tick = tick
        self._close_fd = close_fd
        self._consumers: dict[int, Consumer] = {}
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._wanted = 0
        self._served = 0
        self._heard = threading.Condition()
        #: When the last pass over all pipes began: everything written before has been taken.
        self.heard_ns = 0
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    @property
    def wake_fd(self) -> int:
        """The descriptor it is woken through; the launcher's other processes close it."""
        return self._wake

    def add(self, fd: int, consumer: Consumer) -> None:
        """Read this descriptor from now on; the pump owns it. Only while the thread does not run."""
        assert self._thread is None
        os.set_blocking(fd, False)
        self._consumers[fd] = consumer

    def start(self) -> None:
        """Start the thread."""
        if self._thread is not None:
            return
        self._stopping = False
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            thread = threading.Thread(target=self._run, name="ipclab-pump", daemon=True)
            thread.start()
            self._thread = thread
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def pause(self) -> bool:
        """End the thread, at most one turn later; True: it ran."""
        thread = self._thread
        if thread is None:
            return False
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        thread.join()
        self._thread = None
        return True

    def sync(self) -> bool:
        """Return when everything that was written before the call has been taken; False: not within 5 s, because our
        own output is blocked by whoever reads it."""
        if self._thread is None:
            self._wanted += 1
            self._turn(0)
            return True
        with self._heard:
            self._wanted += 1
            wanted = self._wanted
            os.eventfd_write(self._wake, 1)
            return self._heard.wait_for(lambda: self._served >= wanted, _SYNC_S)

    def close(self) -> None:
        """End the thread and close every pipe."""
        self.pause()
        for fd in self._consumers:
            self._close_fd(fd)
        self._consumers.clear()
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1

    def _run(self) -> None:
        procfs.set_name("ipclab-pump")
        while not self._stopping:
            self._turn(self._tick())

    def _turn(self, timeout_s: float | None) -> None:
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        for fd in self._consumers:
            poller.register(fd, select.POLLIN)
        poller.poll(None if timeout_s is None else timeout_s * 1e3 + 1)
        self._drain_wake()
        wanted, began_ns = self._wanted, time.monotonic_ns()
        reads = _READS_PER_TURN if wanted == self._served else _READS_OF_A_FULL_PIPE
        for fd in list(self._consumers):
            self._read(fd, reads)
        self.heard_ns = began_ns
        with self._heard:
            self._served = wanted
            self._heard.notify_all()

    def _drain_wake(self) -> None:
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            return

    def _read(self, fd: int, reads: int) -> None:
        for _ in range(reads):
            try:
                data = os.read(fd, _READ_BYTES)
            except BlockingIOError:
                return
            self._consumers[fd](data)
            if not data:
                del self._consumers[fd]
                self._close_fd(fd)  # its number may be anybody's from now on: the launcher has to forget it
                return
