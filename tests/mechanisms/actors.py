"""Processes a test directs: each holds one end of a link, does what it is told, and reports.

    test                                 actor "a"                     actor "b"
    ----                                 ---------                     ---------
    call = b.start("recv", 100)    ->                                  says "started", then blocks in recv_into
    b.until_asleep()               (reads /proc until it sleeps)
    a.call("send", b"x")           ->    end.send(b"x")
    call.result() == b"x"          <-                                  b"x"

So a test is a story told in one place, while every end lives in a process of its own, forked from the one that opened
the link and went on holding it. Actors die with the test (PR_SET_PDEATHSIG), and every wait here has a deadline.
"""

from __future__ import annotations

import itertools
import mmap
import os
import pickle
import select
import signal
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ipclab import _core
from ipclab.errors import TimedOut
from ipclab.mechanisms.base import End, Link, Side
from ipclab.processes import procfs

#: "Only reached in case of a deadlock": how long an answer may take on a busy machine.
DEADLINE_S = 60.0
#: Reads of /proc in a row that must find a process asleep, and the pause between two.
_LOOKS = 4
_LOOK_PAUSE_S = 0.005
_LENGTH = struct.Struct("<Q")


class Stuck(AssertionError):
    """An actor has not answered in time."""


class Dead(AssertionError):
    """An actor has ended instead of answering."""


class Call:
    """Something an actor was told to do. Its answers come in order, so ask in order."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor

    def result(self, timeout_s: float = DEADLINE_S) -> Any:
        """What it returned; raises what it raised."""
        kind, value = self._actor.read_answer(timeout_s)
        if kind == "raised":
            raise value
        assert kind == "returned", kind
        return value


class Actor:
    """The test's handle of a forked process."""

    def __init__(self, link: Any, side: str, others: list[Actor]) -> None:
        self.side = side
        orders_out, orders_in = os.pipe()
        answers_out, answers_in = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            foreign = [orders_in, answers_out, *(fd for other in others for fd in other._fds())]
            _live(link, parent, orders_out, answers_in, foreign)
        os.close(orders_out)
        os.close(answers_in)
        self._orders, self._answers = orders_in, answers_out
        self._ended = False

    def _fds(self) -> tuple[int, int]:
        return self._orders, self._answers

    def start(self, what: str, *args: Any) -> Call:
        """Have it call the method `what` of `Part`; returns when it has begun."""
        _write(self._orders, (what, args))
        assert self.read_answer(DEADLINE_S) == ("started", what)
        return Call(self)

    def call(self, what: str, *args: Any) -> Any:
        """`start`, and wait for the result."""
        return self.start(what, *args).result()

    def read_answer(self, timeout_s: float) -> tuple[str, Any]:
        if not _readable(self._answers, timeout_s):
            raise Stuck(f"{self.side} did not answer within {timeout_s} s: {self.describe()}")
        answer: tuple[str, Any] | None = _read(self._answers)
        if answer is None:
            raise Dead(f"{self.side} has ended")
        return answer

    def until_asleep(self) -> None:
        """Return when it sleeps in what it was told to do: asleep at several looks in a row, and no answer."""
        give_up = time.monotonic() + DEADLINE_S
        asleep = 0
        while asleep < _LOOKS:
            assert not _readable(self._answers, 0), f"{self.side} did not block: {_read(self._answers)!r:.200}"
            assert time.monotonic() < give_up, f"{self.side} does not fall asleep: {self.describe()}"
            asleep = asleep + 1 if procfs.state(self.pid) == "S" else 0
            time.sleep(_LOOK_PAUSE_S)

    def describe(self) -> str:
        return f"pid {self.pid} state {procfs.state(self.pid)} in {procfs.wchan(self.pid)}"

    def interrupt(self) -> None:
        """What Ctrl-C sends."""
        os.kill(self.pid, signal.SIGINT)

    def kill(self) -> None:
        """kill -9, and collect it."""
        if not self._ended:
            self._ended = True
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def leave(self) -> None:
        """Have it end by itself, and collect it."""
        _write(self._orders, None)
        if not _readable(self._answers, DEADLINE_S) or _read(self._answers) is not None:
            raise Stuck(f"{self.side} does not end")
        self._ended = True
        os.waitpid(self.pid, 0)

    def dismiss(self) -> None:
        """Whatever it does: gone, and nothing of it left."""
        self.kill()
        for fd in self._fds():
            os.close(fd)


@contextmanager
def actors(link: Any, *sides: str) -> Iterator[list[Actor]]:
    """One actor for each side named; they have not taken their ends yet. A lock has holders in place of sides."""
    crew: list[Actor] = []
    try:
        for side in sides:
            crew.append(Actor(link, side, crew))
        yield crew
    finally:
        for actor in crew:
            actor.dismiss()


@contextmanager
def pair(link: Link, watch: bool = True) -> Iterator[tuple[Actor, Actor]]:
    """Both ends taken, each in its process, each watching the other if wanted."""
    with actors(link, "a", "b") as (a, b):
        for call in [actor.start("take", actor.side) for actor in (a, b)]:
            call.result()
        if watch:
            a.call("watch", b.pid)
            b.call("watch", a.pid)
        yield a, b


class Part:
    """What an actor can do, in its own process. Everything it returns is pickled."""

    def __init__(self, link: Any) -> None:
        self.link = link
        self.end: End = None  # type: ignore[assignment]  # until `take`

    def take(self, side: Side) -> None:
        self.end = self.link.take(side)

    def watch(self, pid: int) -> None:
        self.end.watch(pid)

    def send(self, data: bytes, timeout_s: float | None = None) -> None:
        self.end.send(data, timeout_s)

    def recv(self, room: int, timeout_s: float | None = None) -> bytes:
        """One message; of a byte stream exactly `room` bytes."""
        buffer = bytearray(room)
        return bytes(buffer[: self.end.recv_into(buffer, timeout_s)])

    def send_all(self, messages: list[bytes]) -> None:
        for message in messages:
            self.end.send(message)

    def recv_all(self, rooms: list[int]) -> list[bytes]:
        return [self.recv(room) for room in rooms]

    def exchange(self, messages: list[bytes], rooms: list[int]) -> list[bytes]:
        """Send all and receive as many, a few ahead: enough to have both directions busy, not enough to fill them."""
        received: list[bytes] = []
        for at, message in enumerate(messages):
            self.end.send(message)
            if at >= 2:
                received.append(self.recv(rooms[len(received)]))
        return received + [self.recv(room) for room in rooms[len(received) :]]

    def echo(self, rooms: list[int]) -> None:
        """Send back what comes, message by message."""
        for room in rooms:
            self.end.send(self.recv(room))

    def send_too_large(self) -> None:
        """One byte over the limit: pages that are only promised, so that a limit of gigabytes costs nothing."""
        size = (self.end.limit_bytes or 0) + 1
        self.end.send(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ), 5.0)

    def send_until_full(self, data: bytes, timeout_s: float) -> int:
        """Messages sent before one took longer than `timeout_s`."""
        for count in itertools.count():
            try:
                self.end.send(data, timeout_s)
            except TimedOut:
                return count
        raise AssertionError

    def send_for_ever(self, data: bytes) -> None:
        """Until it blocks, and whatever ends that."""
        while True:
            self.end.send(data)

    def limit(self) -> tuple[int | None, str]:
        return self.end.limit_bytes, self.end.limit_source

    def readable(self, timeout_s: float) -> bool | None:
        """Whether poll(2) finds a message at the end's descriptor; None: it has none."""
        try:
            fd = self.end.fileno()
        except OSError:
            return None
        return _readable(fd, timeout_s)

    def close(self) -> None:
        self.end.close()

    def close_link(self) -> None:
        self.link.close()

    def count_fds(self) -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Anything else: a function of the test's module that is given the part."""
        return function(self, *args)


# --- the actor's side of the pipes ------------------------------------------------------------------------------------


def _live(link: Any, parent: int, orders: int, answers: int, foreign: list[int]) -> None:
    """The whole life of an actor; does not return."""
    try:
        _core.set_pdeathsig(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        for fd in foreign:
            os.close(fd)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        part = Part(link)
        while (order := _read(orders)) is not None:
            _obey(part, answers, *order)
        os._exit(0)
    finally:
        os._exit(2)


def _obey(part: Part, answers: int, what: str, args: tuple[Any, ...]) -> None:
    _write(answers, ("started", what))
    try:
        answer = ("returned", getattr(part, what)(*args))
    except BaseException as err:
        answer = ("raised", err)
    _write(answers, answer)


def _readable(fd: int, timeout_s: float) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(timeout_s * 1000))


def _write(fd: int, value: object) -> None:
    data = pickle.dumps(value)
    view = memoryview(_LENGTH.pack(len(data)) + data)
    while view:
        view = view[os.write(fd, view) :]


def _read(fd: int) -> Any:
    """The next value; None at the end."""
    head = _read_exactly(fd, _LENGTH.size)
    return None if head is None else pickle.loads(_read_exactly(fd, _LENGTH.unpack(head)[0]) or b"N.")


def _read_exactly(fd: int, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(fd, size - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)
