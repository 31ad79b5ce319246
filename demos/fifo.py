"""fifo: a pipe with a name in the file system, at which processes meet that know nothing of each other.

    python demos/fifo.py        (or: ipclab demo fifo)

Look at: open(2). It is the meeting: a reader sleeps in it until a writer has opened too, and the other way round. After
that a FIFO is a pipe, and only the name is a file: the bytes never touch the disk, and die with the last process that
has it open, while the name stays until somebody removes it.
man: fifo(7), mkfifo(3), PIPE_BUF in pipe(7)
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import termios
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from ipclab.processes import Stage, registry, say

FAMILY = "data transfer"
NEEDS = ("fifo",)
BETTER_WITH = ()

RECORD = 512  # bytes; POSIX promises a PIPE_BUF of 512 at least: up to there a write is never mixed with another
RECORDS = 300  # from each writer: together several times what a pipe holds, so that the writers do collide


def main() -> int:
    with Stage("fifo", "How do two processes meet that have inherited nothing from each other?") as stage:
        with new_fifo("meeting") as path:
            opening_is_meeting(stage, path)
            writers_do_not_mix(stage, path)
            name_outlives_the_bytes(stage, path)
        stage.verdict("a FIFO is a pipe with a name: open(2) waits for the other side, its bytes do not last")
    return stage.exit_code


@contextmanager
def new_fifo(label: str) -> Iterator[Path]:
    path = registry.new_path(label, ".fifo")
    os.mkfifo(path, 0o600)
    try:
        yield path
    finally:
        path.unlink()
        registry.forget("path", str(path))


# --- 1: open(2) is the meeting ---------------------------------------------------------------------------------------
def opening_is_meeting(stage: Stage, path: Path) -> None:
    stage.scene("Two processes and one path name")
    mode = path.stat().st_mode
    stage.check(stat.S_ISFIFO(mode), f"mkfifo(3) has made {path.name}: {stat.filemode(mode)}")
    refusal = open_without_waiting(path)
    told = errno.errorcode.get(refusal, "nothing")
    stage.check(refusal == errno.ENXIO, f"open(O_WRONLY | O_NONBLOCK) with no reader is told {told}")

    reader = stage.spawn("reader", read_greeting, path)
    stage.release()
    stage.check(stage.asleep_in(reader, syscall="openat"), "reader sleeps in open(2): nobody has opened the other side")
    stage.look(reader)
    writer = stage.spawn("writer", write_greeting, path)
    stage.check(writer.wait(20).exit_code == reader.wait(20).exit_code == 0, "writer opened it, and both went on")


def open_without_waiting(path: Path) -> int:
    """The errno of an open(2) for writing that may not wait; 0 when it succeeded."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        return error.errno or 0
    return 0


def read_greeting(path: Path) -> int:
    with path.open("rb") as fifo:
        say("open(2) has returned")
        text = fifo.read()
    say(f"read {text!r}, then end-of-file")
    return 0 if text == b"hello" else 1


def write_greeting(path: Path) -> None:
    with path.open("wb") as fifo:
        say("open(2) has returned")
        fifo.write(b"hello")


# --- 2: several writers ----------------------------------------------------------------------------------------------
def writers_do_not_mix(stage: Stage, path: Path) -> None:
    atomic = os.pathconf(path, "PC_PIPE_BUF")
    stage.scene(f"Three writers, one reader: {RECORDS} records of {RECORD} bytes each; PIPE_BUF is {atomic}")
    writers = [stage.spawn(f"writer-{letter}", write_records, path, letter.encode() * RECORD) for letter in "abc"]
    stage.check(all(stage.asleep_in(writer, syscall="openat") for writer in writers), "all three sleep in open(2)")
    reader = stage.spawn("reader", read_records, path)
    stage.check(all(writer.wait(20).exit_code == 0 for writer in writers), "a reader came, and each wrote all it had")
    stage.check(reader.wait(20).exit_code == 0, "every record came, each in one piece: writes up to PIPE_BUF never mix")


def write_records(path: Path, record: bytes) -> None:
    fifo = os.open(path, os.O_WRONLY)
    for _ in range(RECORDS):
        os.write(fifo, record)


def read_records(path: Path) -> int:
    with path.open("rb") as fifo, path.open("wb"):  # with a write end of its own it sees no end-of-file between writers
        data = fifo.read(3 * RECORDS * RECORD)
    records = [data[at : at + RECORD] for at in range(0, len(data), RECORD)]
    turns = sum(before != after for before, after in pairwise(records))
    say(f"{len(data)} bytes; {turns} times the next record was another writer's")
    whole = Counter(record[:1].decode() for record in records if record == record[:1] * RECORD)
    return 0 if whole == dict.fromkeys("abc", RECORDS) else 1


# --- 3: the name and the bytes ---------------------------------------------------------------------------------------
def name_outlives_the_bytes(stage: Stage, path: Path) -> None:
    stage.scene("A writer leaves bytes behind, and the last process closes the FIFO")
    holder = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # lets the writer open; reads nothing
    writer = stage.spawn("writer", write_greeting, path)
    stage.check(writer.wait(20).exit_code == 0, "writer wrote into the FIFO and ended")
    waiting, on_disk = bytes_in(holder), path.stat().st_size
    stage.check(waiting == 5, f"FIONREAD: {waiting} bytes wait in the kernel for whoever reads")
    stage.check(on_disk == 0, f"the file on disk has {on_disk} bytes: it is a name and no more")
    os.close(holder)
    holder = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    stage.check(bytes_in(holder) == 0, "closed by the last one and opened again: the name is there, the bytes are gone")
    os.close(holder)


def bytes_in(fifo: int) -> int:
    return int.from_bytes(fcntl.ioctl(fifo, termios.FIONREAD, bytes(4)), sys.byteorder)


if __name__ == "__main__":
    sys.exit(main())
