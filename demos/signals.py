"""signals: what interrupts a process - five of one number become one, real-time ones queue with their payloads.

    python demos/signals.py        (or: ipclab demo signals)

Look at: the pending mask and SigQ in /proc/PID/status before anything is delivered, and how many of five come out; the
lines of straight code into which a handler broke; and si_code, which tells who made a signal: sigqueue(3), the kernel
for SIGIO, a message for mq_notify(3). man: signal(7), sigwaitinfo(2), F_SETOWN in fcntl(2)
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import re
import signal
import socket
import sys
import traceback
from collections import Counter
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import posix_ipc

from ipclab import _core, mechanisms
from ipclab.processes import Stage, procfs, registry, say

FAMILY = "signals"
NEEDS = ("signal", "rt-signal")
BETTER_WITH = ("posix-mq",)

RT = signal.SIGRTMIN + 3
PAYLOADS = [10, 20, 30, 40, 50]
SI_QUEUE, SI_MESGQ, SI_KERNEL = -1, -3, 0x80  # si_code: who made the signal, <asm-generic/siginfo.h>
POKES, LETTER = 300, b"please stop"  # signals sent to running code, and a message that does not interrupt it


def main() -> int:
    with Stage("signals", "Can one process interrupt another, and does every signal arrive?") as stage:
        five_of_each(stage)
        between_any_two_instructions(stage)
        sigio_and_mq_notify(stage)
        stage.verdict("signals alone interrupt, at any instruction; standard ones coalesce, real-time ones queue")
    return stage.exit_code


def five_of_each(stage: Stage) -> None:
    stage.scene("Five SIGUSR1 and five real-time signals to a process that has blocked both")
    ours, theirs = Pipe()
    receiver = stage.spawn("receiver", receive, theirs)
    stage.release()
    stage.hear(ours)
    stage.spawn("sender", send, receiver.pid).wait(20)
    status = procfs.status(receiver.pid)
    stage.say(f"/proc/PID/status: ShdPnd {status['ShdPnd']}, one bit per signal; SigQ {status['SigQ']} queued")
    ours.send("all are sent")
    taken = stage.hear(ours)
    standard = [signo for signo, *_ in taken].count(signal.SIGUSR1)
    payloads = [value for signo, code, _pid, _uid, value in taken if (signo, code) == (RT, SI_QUEUE)]
    stage.check(standard == 1, f"five SIGUSR1 became {standard}: a standard signal is one bit, set or not")
    stage.check(payloads == PAYLOADS, f"five real-time signals stayed five, payloads in order: {payloads}")


def receive(notes: Connection) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, RT])
    notes.send("blocked")
    notes.recv()  # sleeps in read(2), and no signal ends that
    taken = list(iter(lambda: _core.sigwaitinfo_value([signal.SIGUSR1, RT], 0), None))
    for signo, code, pid, _uid, value in taken:
        say(f"took signal {signo} of process {pid}, si_code {code}, value {value}")
    notes.send(taken)


def send(pid: int) -> None:
    for value in PAYLOADS:
        os.kill(pid, signal.SIGUSR1)
        _core.sigqueue(pid, RT, value)
    say(f"kill(2) with SIGUSR1 and sigqueue(3) with signal {RT} returned 0 five times each")


def between_any_two_instructions(stage: Stage) -> None:
    stage.scene("A handler breaks into running code; a message does not")
    (trace_r, trace_w), (letters, letterbox) = os.pipe(), socket.socketpair()
    letters.send(LETTER)
    worker = stage.spawn("worker", work, trace_w, letterbox)
    stage.release()
    os.read(trace_r, 1)  # now its handlers stand
    trace, outermost = "", f"in {traceback.extract_stack()[0].name}\n"
    for poke in range(POKES):
        worker.signal(signal.SIGUSR1)
        while trace.count(outermost) <= poke:  # the frame that is written last, and once
            trace += os.read(trace_r, 4096).decode()
    lines = Counter(re.findall(r"line (\d+) in work", trace))
    worker.signal(signal.SIGTERM)
    unread = worker.wait(20).exit_code
    stage.say(f"{POKES} signals, {lines.total()} runs of the handler, by line of code: {dict(sorted(lines.items()))}")
    stage.check(len(lines) >= 3, f"it broke in at {len(lines)} different lines of code that calls nothing, never asks")
    stage.check(unread == len(LETTER), f"the letter sent before all that interrupted nobody: {unread} bytes, unread")


def work(trace: int, letterbox: socket.socket) -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(len(letterbox.recv(100, socket.MSG_PEEK))))
    faulthandler.register(signal.SIGUSR1, file=trace, all_threads=False)  # a handler in C: writes where it broke in
    a, b, x = os.write(trace, b"!"), 1, 1.0
    while True:
        a += 1
        b = a * 3 % 1001
        x = x * 1.0001 + b
        x %= 97.0


def sigio_and_mq_notify(stage: Stage) -> None:
    stage.scene("SIGIO and mq_notify are signals too")
    queue = registry.new_name("posix-mq", "notify") if mechanisms.load("posix-mq").probe().works else None
    (inbox, outbox), (ours, theirs) = socket.socketpair(), Pipe()
    stage.spawn("owner", own, inbox, queue, theirs)
    stage.release()
    stage.hear(ours)
    friend = stage.spawn("friend", write, outbox, queue)
    seen = [info[:3] for info in stage.hear(ours)]
    friend.wait(20)
    stage.check((signal.SIGIO, SI_KERNEL, 0) in seen, "a byte in a socket became SIGIO, made by the kernel: si_pid 0")
    if queue:
        stage.check((signal.SIGUSR1, SI_MESGQ, friend.pid) in seen, "a message became SIGUSR1, si_pid its sender's")
        posix_ipc.unlink_message_queue(queue)
        registry.forget("posix-mq", queue)


def own(inbox: socket.socket, queue: str | None, notes: Connection) -> None:
    wanted: list[int] = [signal.SIGIO, signal.SIGUSR1] if queue else [signal.SIGIO]
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    fcntl.fcntl(inbox, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(inbox, fcntl.F_SETFL, os.O_ASYNC)
    if queue:
        posix_ipc.MessageQueue(queue, posix_ipc.O_CREX, 0o600, 1, 1).request_notification(signal.SIGUSR1)
    notes.send("ready")
    notes.send([_core.sigwaitinfo_value(wanted, 5_000_000_000) for _ in wanted])


def write(outbox: socket.socket, queue: str | None) -> None:
    say(f"wrote {outbox.send(b'x')} byte into a socket whose other end has O_ASYNC and an F_SETOWN")
    if queue:
        posix_ipc.MessageQueue(queue).send(b"y")
        say("sent a message to a queue on which somebody had called mq_notify(3)")


if __name__ == "__main__":
    sys.exit(main())
