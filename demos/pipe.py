"""pipe: three processes in a row, end-of-file, a full pipe that puts its writer to sleep, and a broken pipe.

    python demos/pipe.py        (or: ipclab demo pipe)

Look at: who holds which end. End-of-file is not a byte somebody sends: it is what read(2) says once the last write end
is closed, whoever held it. A broken pipe is what write(2) says once the last read end is closed. In between a pipe is a
small queue in the kernel, and who writes into a full one sleeps until somebody has read.
man: pipe(7), pipe(2), F_GETPIPE_SZ in fcntl(2)
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import sys
import termios

from ipclab.processes import Process, Stage, say

FAMILY = "data transfer"
NEEDS = ("pipe",)
BETTER_WITH = ()

TEXT = b"three processes\ntwo pipes\none direction\n"
PAGE = os.sysconf("SC_PAGE_SIZE")  # the kernel gives a pipe its room in pages
BROKEN = 3  # exit code of a writer that was told EPIPE


def main() -> int:
    with Stage("pipe", "What travels through a pipe, what ends it, and who has to wait?") as stage:
        pipeline_and_end_of_file(stage)
        full_pipe_puts_its_writer_to_sleep(stage)
        pipe_without_a_reader_is_broken(stage)
        stage.verdict("a pipe ends when its last writer closes, breaks when its last reader does, and sleeps when full")
    return stage.exit_code


# --- 1: source | upper | sink ----------------------------------------------------------------------------------------
def pipeline_and_end_of_file(stage: Stage) -> None:
    stage.scene("source | upper | sink: three processes and two pipes")
    (read_1, write_1), (read_2, write_2), (read_3, write_3) = pipes = os.pipe(), os.pipe(), os.pipe()
    ends = {end for pipe in pipes for end in pipe}
    source = stage.spawn("source", write_text, ends, write_1)
    upper = stage.spawn("upper", make_upper_case, ends, read_1, write_2)
    sink = stage.spawn("sink", collect, ends, read_2, write_3)
    close_all_but(ends, read_3, write_1)  # read_3: where sink reports to us. write_1 is of no use to us: a mistake
    stage.release()

    stage.check(source.wait(20).exit_code == 0, "source has written everything and ended")
    stage.check(stage.asleep_in(upper, syscall="read"), "upper read it all, yet sleeps in read(2): no end-of-file")
    stage.say(f"because one write end of that pipe is still open: fd {write_1}, here. Closing it")
    os.close(write_1)
    stage.check(upper.wait(20).exit_code == 0, "that was the last one: upper was told end-of-file, and ended")
    stage.check(sink.wait(20).exit_code == 0, "with upper its write end closed, so sink was told end-of-file in turn")
    with open(read_3, "rb") as report:
        stage.check(report.read() == TEXT.upper(), f"sink has all {len(TEXT)} bytes, in order and in upper case")


def write_text(ends: set[int], out: int) -> None:
    close_all_but(ends, out)
    say(f"write(2) took {os.write(out, TEXT)} bytes")


def make_upper_case(ends: set[int], incoming: int, out: int) -> None:
    close_all_but(ends, incoming, out)
    while text := os.read(incoming, PAGE):
        say(f"read(2) gave {len(text)} bytes, write(2) passed on {os.write(out, text.upper())}")
    say("read(2) gave 0 bytes: end-of-file")


def collect(ends: set[int], incoming: int, report: int) -> None:
    close_all_but(ends, incoming, report)
    with open(incoming, "rb") as pipe:
        text = pipe.read()  # read(2) again and again, until end-of-file
    say(f"end-of-file after {len(text)} bytes")
    os.write(report, text)


def close_all_but(ends: set[int], *mine: int) -> None:
    """A fork copies every end; one that is kept by mistake is an end-of-file that never comes."""
    for end in ends - set(mine):
        os.close(end)


# --- 2: a full pipe --------------------------------------------------------------------------------------------------
def full_pipe_puts_its_writer_to_sleep(stage: Stage) -> None:
    stage.scene("A writer that never stops, and nobody reads")
    read_end, write_end = os.pipe()
    room = fcntl.fcntl(write_end, fcntl.F_GETPIPE_SZ)
    writer = stage.spawn("writer", write_for_ever, read_end, write_end, signal.SIG_DFL, killable=True)
    expect_full(stage, writer, read_end, room)
    stage.say(f"we read one page: {len(os.read(read_end, PAGE))} bytes")
    expect_full(stage, writer, read_end, room)
    writer.kill()
    writer.wait(20)
    stage.check(bytes_in(read_end) == room, "writer was killed, and what it had written is still there to be read")
    os.close(write_end)
    os.close(read_end)


def expect_full(stage: Stage, writer: Process, read_end: int, room: int) -> None:
    stage.check(stage.asleep_in(writer, syscall="write"), "writer sleeps in write(2)")
    stage.look(writer)
    inside = bytes_in(read_end)
    stage.check(inside == room, f"FIONREAD: {inside} bytes are in the pipe; F_GETPIPE_SZ: it has room for {room}")


def bytes_in(end: int) -> int:
    return int.from_bytes(fcntl.ioctl(end, termios.FIONREAD, bytes(4)), sys.byteorder)


def write_for_ever(read_end: int, write_end: int, on_sigpipe: signal.Handlers) -> int:
    os.close(read_end)  # else this process would be a reader itself, and its pipe would never break
    signal.signal(signal.SIGPIPE, on_sigpipe)
    try:
        while True:
            os.write(write_end, bytes(PAGE))
    except BrokenPipeError as error:
        say(f"write(2) says {errno.errorcode[error.errno or 0]}: {error.strerror}")
        return BROKEN


# --- 3: a broken pipe ------------------------------------------------------------------------------------------------
def pipe_without_a_reader_is_broken(stage: Stage) -> None:
    stage.scene("Two writers asleep in a full pipe, and its last reader closes")
    read_end, write_end = os.pipe()
    plain = stage.spawn("plain", write_for_ever, read_end, write_end, signal.SIG_DFL)
    careful = stage.spawn("careful", write_for_ever, read_end, write_end, signal.SIG_IGN)
    stage.check(all(stage.asleep_in(writer, syscall="write") for writer in (plain, careful)), "both sleep in write(2)")
    os.close(read_end)
    by = plain.wait(20).signal
    stage.check(by == signal.SIGPIPE, "plain was killed by SIGPIPE: what the kernel does unless told otherwise")
    stage.check(careful.wait(20).exit_code == BROKEN, "careful ignores SIGPIPE: its write(2) failed with EPIPE instead")
    os.close(write_end)


if __name__ == "__main__":
    sys.exit(main())
