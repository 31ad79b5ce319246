"""signalfd: signals that interrupt nobody: they are read, in their turn, like any message.

    python demos/signalfd.py       (or: ipclab demo signalfd)

Look at: one process that sleeps in one poll(2) on a socket and on its signals; the record it reads, which tells the
signal, its sender and its payload; and the five equal signals that are one record, as for any handler.
man: signalfd(2), signal(7)
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from ipclab import _core
from ipclab.processes import Stage, say

FAMILY = "signals"
NEEDS = ("signalfd",)
BETTER_WITH = ()

RT = signal.SIGRTMIN + 4
RECORD = struct.Struct("IiiIIiIIIIii80x")  # struct signalfd_siginfo: ssi_signo is field 0, ssi_pid 3, ssi_int 11
PAYLOADS = [3, 1, 2]


def main() -> int:
    with Stage("signalfd", "Can a process take its signals when it wants them, not when they come?") as stage:
        signals_and_messages_in_one_poll(stage)
        stage.verdict("a blocked signal read from a signalfd is a message with a sender, and poll(2) waits for it")
    return stage.exit_code


def signals_and_messages_in_one_poll(stage: Stage) -> None:
    stage.scene("A server that waits for letters and for signals in one call")
    ours, theirs = Pipe(duplex=False)
    outside, inside = socket.socketpair()
    server = stage.spawn("server", serve, inside, theirs)
    stage.release()
    stage.check(stage.asleep_in(server, syscall="poll"), "it sleeps in poll(2)")
    outside.send(b"a letter")
    stage.check(stage.hear(ours) == "a letter", "the letter woke it")
    stage.check(stage.asleep_in(server, syscall="poll"), "it sleeps again")
    sender = stage.spawn("sender", send, server.pid)
    seen = stage.hear(ours)
    sender.wait(20)
    values = [value for signo, pid, value in seen if (signo, pid) == (RT, sender.pid)]
    stage.check(values == PAYLOADS, f"the signals woke it: {len(values)} of its sender, payloads in order {values}")

    stage.scene("Five times SIGUSR1, before it can read the first")
    server.signal(signal.SIGSTOP)
    server.wait_state("T")
    for _ in range(5):
        server.signal(signal.SIGUSR1)
    server.signal(signal.SIGCONT)
    seen = stage.hear(ours)
    stage.check([signo for signo, _pid, _value in seen] == [signal.SIGUSR1], "five SIGUSR1 are one record")


def serve(inbox: socket.socket, notes: Connection) -> None:
    wanted: list[int] = [signal.SIGUSR1, RT]
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    fd = _core.signalfd(-1, wanted)
    poll = select.poll()
    for source in (inbox.fileno(), fd):
        poll.register(source, select.POLLIN)
    for _ in range(3):
        ((source, _events),) = poll.poll()
        if source == fd:
            records = [RECORD.unpack(record) for record in chunks(os.read(fd, 64 * RECORD.size))]
            say(f"read(2) of the signalfd gave {len(records)} records: signals {[fields[0] for fields in records]}")
            notes.send([(fields[0], fields[3], fields[11]) for fields in records])
        else:
            notes.send(inbox.recv(100).decode())


def chunks(data: bytes) -> list[bytes]:
    return [data[at : at + RECORD.size] for at in range(0, len(data), RECORD.size)]


def send(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)  # so that it finds all of them at once
    for value in PAYLOADS:
        _core.sigqueue(pid, RT, value)
    os.kill(pid, signal.SIGCONT)
    say(f"sigqueue(3) returned 0 {len(PAYLOADS)} times")


if __name__ == "__main__":
    sys.exit(main())
