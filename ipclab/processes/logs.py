"""Records and narration, from any process to its launcher's book, through multiprocessing-logging.

    role                                                        launcher
    ----                                                        --------
    logging.info(...), say(...)
      -> MultiProcessingHandler.emit  (formats, drops what cannot travel)
        -> RecordPipe.put_nowait  -->  one shared pipe  -->  pump -> RecordPipe.records -> sub_handler -> book
    a killable role, the same:    -->  a pipe of its own -->

The handler is multiprocessing-logging's; the queue it sends through is ours, because the one it comes with, a
multiprocessing.Queue, fails a role of a laboratory in ways that were all met:
  - its feeder thread appears with the first record: the role is no longer single-threaded (a fork in it may deadlock),
    a signal that the role has blocked is delivered to the feeder, which has not; os._exit loses what it still holds;
  - a SIGKILL in the middle of a record leaves its lock taken for every process;
  - a signal handler that logs while a record is being put waits for its own process's lock;
  - its semaphores have names in /dev/shm for a moment, and a kill in that moment leaves them.
A RecordPipe has no thread, no lock and no name. It rests on one promise of pipe(7): a write of at most PIPE_BUF bytes
is atomic. A record is cut into frames of that size, each naming its process and record; the reader joins them again.
A process that is killed between two frames leaves a record that is never finished, and nothing else. `put_nowait`
returns when the kernel has the record, so os._exit right after it loses nothing. It blocks while the pipe is full.

That is why handler and receiving thread are not made by the library's constructor: it would make its queue, and start a
thread before the roles are forked. The launcher's pump receives instead.

Where the start method is not fork, a handler cannot be inherited: `queue_handler` is for those.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import logging.handlers
import os
import select
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from multiprocessing_logging import MultiProcessingHandler

#: The narration's logger: a record of it is shown without level and name.
SAY = "ipclab.say"
#: Levels of records a role's own wrapper sends, above everything a user would use.
RAISED, UNAVAILABLE = 101, 102

# Frame: length of the payload, 1 when it is the record's last frame, pid, number of the record in its process.
_HEAD = struct.Struct("<HHII")
#: pipe(7); select.PIPE_BUF is the same number, 4096 on Linux.
_FRAME_BYTES = select.PIPE_BUF - _HEAD.size
#: A record is cut off here, so that one process cannot make the launcher hold any amount of memory.
RECORD_LIMIT_BYTES = 1 << 18


class Wire(msgspec.Struct, array_like=True, frozen=True):
    """A record as it travels. The time is the monotonic clock at the moment of the logging call."""

    at_ns: int
    role: str
    pid: int
    level: int
    logger: str
    text: str


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Wire)


class RecordPipe:
    """One end of a pipe of records, with the face of the queue MultiProcessingHandler wants. Does not own the fd."""

    def __init__(self, fd: int, role: str = "") -> None:
        self.fd = fd
        self.role = role
        self._numbers = itertools.count(1)

    # --- the writing end, in a role ---

    def put_nowait(self, record: logging.LogRecord) -> None:
        """Send a record. Blocks while the pipe is full; BrokenPipeError when the launcher is gone."""
        data = _encoder.encode(self._wire(record))
        number = next(self._numbers) & 0xFFFFFFFF
        for start in range(0, len(data), _FRAME_BYTES):
            part = data[start : start + _FRAME_BYTES]
            last = start + _FRAME_BYTES >= len(data)
            os.write(self.fd, _HEAD.pack(len(part), last, os.getpid(), number) + part)

    def _wire(self, record: logging.LogRecord) -> Wire:
        text = record.getMessage()
        if record.exc_text:
            text += "\n" + record.exc_text
        if record.stack_info:
            text += "\n" + record.stack_info
        text = text[:RECORD_LIMIT_BYTES].encode("utf-8", "backslashreplace").decode("utf-8")
        at_ns = getattr(record, "monotonic_ns", None) or time.monotonic_ns()
        return Wire(at_ns, self.role, os.getpid(), record.levelno, record.name, text)

    def close(self) -> None:
        """For MultiProcessingHandler. The descriptor belongs to who made the pipe."""

    def join_thread(self) -> None:
        """For MultiProcessingHandler. There is no thread."""


class RecordReader:
    """Puts frames together; one per pipe. Bytes that are no frame end it: `broken` is True and the rest is dropped."""

    def __init__(self) -> None:
        self.broken = False
        self._bytes = bytearray()
        self._parts: dict[tuple[int, int], bytearray] = {}

    def feed(self, data: bytes) -> Iterator[Wire]:
        """The records that are complete with these bytes."""
        if self.broken:
            return
        self._bytes += data
        while len(self._bytes) >= _HEAD.size:
            size, last, pid, number = _HEAD.unpack_from(self._bytes)
            if size > _FRAME_BYTES or last > 1:
                self.broken = True
                self._bytes.clear()
                return
            end = _HEAD.size + size
            if len(self._bytes) < end:
                return
            whole = self._join(pid, number, bool(last), bytes(self._bytes[_HEAD.size : end]))
            del self._bytes[:end]
            if whole is not None:
                yield whole

    def _join(self, pid: int, number: int, last: bool, part: bytes) -> Wire | None:
        data = self._parts.pop((pid, number), bytearray())
        if not last:
            if len(data) <= 4 * RECORD_LIMIT_BYTES:
                self._parts[pid, number] = data + part
            return None
        try:
            return _decoder.decode(data + part)
        except msgspec.MsgspecError:
            return None  # the end of a record whose beginning was not believed


class RoleHandler(MultiProcessingHandler):  # type: ignore[misc]
    """multiprocessing-logging's handler over a RecordPipe; see the module's text for why.

    In a role it sends; in the launcher `deliver` hands what arrived to `sub_handler`, as the library's thread would.
    """

    def __init__(self, pipe: RecordPipe, sub_handler: logging.Handler | None = None) -> None:
        logging.Handler.__init__(self)  # on purpose not the library's: it makes its queue and starts its thread
        self.sub_handler = sub_handler or logging.NullHandler()
        self.queue = pipe
        self._is_closed = False
        self.addFilter(_stamp)

    def close(self) -> None:
        """Nothing to wait for: there is no thread and nothing is buffered."""
        self._is_closed = True
        logging.Handler.close(self)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A launcher that is gone wants no more records; everything else is told as logging does."""
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)

    def deliver(self, wire: Wire) -> None:
        """In the launcher: one record that arrived."""
        record = logging.LogRecord(wire.logger, wire.level, "", 0, wire.text, None, None)
        record.role, record.process, record.monotonic_ns = wire.role, wire.pid, wire.at_ns
        self.sub_handler.emit(record)


def _stamp(record: logging.LogRecord) -> bool:
    if not hasattr(record, "monotonic_ns"):
        record.monotonic_ns = time.monotonic_ns()
    return True


class BookHandler(logging.Handler):
    """Writes records into a book: narration as it is, everything else with its level and logger."""

    def __init__(self, write: Callable[[str, int, str, str, int], None], role: str) -> None:
        super().__init__()
        self._write, self._role = write, role

    def emit(self, record: logging.LogRecord) -> None:
        """One record, of this process or another."""
        role, at_ns = getattr(record, "role", self._role), getattr(record, "monotonic_ns", time.monotonic_ns())
        text, kind = record.getMessage(), "say"
        if record.name != SAY:
            text, kind = f"{record.levelname} {record.name}: {text}", "log"
        self._write(role, record.process or 0, kind, text, at_ns)


# --- the roles' side -------------------------------------------------------------------------------------------------

_say_here: Callable[[str], None] | None = None


def say(text: str) -> None:
    """One line of narration, from any process of a Launcher or Stage, and of their children.

    The line shows role, pid and the time. Blocks while the launcher does not read; without a launcher it is printed.
    """
    if _say_here is not None:
        _say_here(text)
    else:
        from ipclab.processes.book import to_stdout

        to_stdout(text)


def set_say(function: Callable[[str], None] | None) -> Callable[[str], None] | None:
    """Who answers `say` in this process; returns who did before. For launchers and roles."""
    global _say_here
    before, _say_here = _say_here, function
    return before


def speak_for(role: str, fd: int) -> None:
    """In a child that is no role (the launcher's program forked it by itself): `say` goes into this record pipe."""
    pipe = RecordPipe(fd, role)

    def speak(text: str) -> None:
        with contextlib.suppress(OSError):
            pipe.put_nowait(logging.LogRecord(SAY, logging.INFO, "", 0, text, None, None))

    set_say(speak)


def install(handler: RoleHandler) -> None:
    """In a role: every record of this process goes through this handler alone, from INFO on."""
    root = logging.getLogger()
    root.handlers[:] = [handler]
    if root.level == logging.WARNING:  # logging's default: nobody chose it
        root.setLevel(logging.INFO)
    logger = logging.getLogger(SAY)
    logger.handlers[:] = [handler]
    logger.propagate, logger.disabled = False, False
    logger.setLevel(logging.INFO)
    set_say(logger.info)


def queue_handler(queue: Any, role: str) -> logging.handlers.QueueHandler:
    """For processes of another start method (spawn, forkserver): a handler that puts records on a queue.

    The process adds it to its root logger; the launcher takes them out of the same queue within `launcher.listen`. A
    multiprocessing.Queue's feeder thread holds records back: end such a process by returning, or with queue.close()
    and queue.join_thread() before os._exit.
    """
    handler = _StampedQueueHandler(queue)
    handler.role = role
    return handler


class _StampedQueueHandler(logging.handlers.QueueHandler):
    role = ""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        _stamp(record)
        record.role = self.role
        prepared: logging.LogRecord = super().prepare(record)
        return prepared
