"""go-ipc: what Go's standard library offers of all this, side by side with what the kernel has.

    python demos/go_ipc.py        (or: ipclab demo go-ipc)

Look at: how short the list is - pipe, signal, socket, and what package syscall passes through raw. Between goroutines
Go has channels; between processes it has files, and what can be treated like one. The three are then run here, each
beside the lines that do the same in Go; and os.Pipe, which is the kernel's, is told from io.Pipe, which is not.
See: pkg.go.dev/os#Pipe, pkg.go.dev/io#Pipe, pkg.go.dev/os/signal, pkg.go.dev/net; man: pipe(2), signal(7), socket(2)
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ipclab.mechanisms import CATALOGUE, load
from ipclab.processes import Stage, registry, say

FAMILY = "comparison"
NEEDS = ("pipe", "signal", "unix-stream")
BETTER_WITH = ("tcp",)

TEXT = b"hello from another process"


def main() -> int:
    with Stage("go-ipc", "What of all this does a Go program get from its standard library?") as stage:
        offered = what_go_offers(stage)
        pipe(stage)
        signals(stage)
        sockets(stage)
        stage.verdict(f"{offered} of {len(CATALOGUE)}: pipe, signal, socket and a few raw calls; not the rest")
    return stage.exit_code


def what_go_offers(stage: Stage) -> int:
    stage.scene("Every mechanism here, and its name in Go's standard library")
    records = [load(name).MECHANISM for name in CATALOGUE]
    for family in dict.fromkeys(record.family for record in records):
        members = [record for record in records if record.family == family]
        for record in members:
            if record.go:
                stage.say(f"{family:<16} {record.name:<15} {record.go}")
        stage.say(f"{family:<16} not in Go: {', '.join(record.name for record in members if not record.go)}")
    offered = {record.name for record in records if record.go}
    stage.check({"pipe", "signal", "unix-stream"} <= offered, "pipe, signal and socket are there")
    missing = {"posix-mq", "sysv-mq", "posix-shm", "sysv-shm", "posix-sem", "robust-mutex"}
    stage.check(not missing & offered, "message queues, shared memory and semaphores between processes are not")
    return len(offered)


# --- pipe ------------------------------------------------------------------------------------------------------------
def pipe(stage: Stage) -> None:
    stage.scene("pipe.    Go: r, w, err := os.Pipe(); go w.Write(text); r.Read(buffer)")
    read_end, write_end = os.pipe()
    writer = stage.spawn("writer", write_to, write_end)
    stage.release()
    stage.check(writer.wait(5).exit_code == 0, "os.Pipe is pipe(2): two descriptors, and writer has inherited one")
    text = os.read(read_end, 100)
    stage.check(text == TEXT, f"writer had ended before anybody read: {len(text)} bytes waited in the kernel")
    stage.say("io.Pipe is no kernel object: no descriptor, no room inside; its Write waits until a Read has taken all.")
    stage.say("So it joins two goroutines of one process, and can never lead out of it")
    os.close(read_end)
    os.close(write_end)


def write_to(end: int) -> int:
    say(f"fd {end} here is {Path(f'/proc/self/fd/{end}').readlink()}")
    return 0 if os.write(end, TEXT) == len(TEXT) else 1


# --- signal ----------------------------------------------------------------------------------------------------------
def signals(stage: Stage) -> None:
    stage.scene("signal.  Go: c := make(chan os.Signal, 1); signal.Notify(c, syscall.SIGUSR1); s := <-c")
    listener = stage.spawn("listener", listen)
    stage.check(stage.asleep_in(listener, syscall="read"), "listener sleeps in read(2)")
    listener.signal(signal.SIGUSR1)
    stage.check(listener.wait(5).exit_code == 0, "the signal became data: a byte to read, as in Go a value to receive")
    stage.say("so your code is never interrupted half-way: in both, the runtime catches the signal and passes it on")


def listen() -> int:
    """Python's nearest to signal.Notify: the handler of the runtime writes the number into a pipe."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.set_wakeup_fd(write_end)
    number = os.read(read_end, 1)[0]
    say(f"read {number}: {signal.Signals(number).name}")
    return 0 if number == signal.SIGUSR1 else 1


# --- socket ----------------------------------------------------------------------------------------------------------
def sockets(stage: Stage) -> None:
    stage.scene('socket.  Go: l, _ := net.Listen("unix", path); c, _ := l.Accept()  |  c, _ := net.Dial("unix", path)')
    with new_path("go") as path, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        server = stage.spawn("server", serve, listener)
        stage.check(stage.asleep_in(server, syscall="accept4"), "server sleeps in accept(2)")
        client = stage.spawn("client", dial, str(path))
        stage.check(client.wait(5).exit_code == server.wait(5).exit_code == 0, "client dialled and was answered")
    stage.say('net.Listen("tcp", "127.0.0.1:0"): nothing changes but the address, in Go as here')


def serve(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(connection.recv(100).upper())


def dial(path: str) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(TEXT)
        answer = connection.recv(100)
    say(f"sent {TEXT.decode()!r}, received {answer.decode()!r}")
    return 0 if answer == TEXT.upper() else 1


@contextmanager
def new_path(label: str) -> Iterator[Path]:
    path = registry.new_path(label, ".sock")
    try:
        yield path
    finally:
        with suppress(FileNotFoundError):
            path.unlink()
        registry.forget("path", str(path))


if __name__ == "__main__":
    sys.exit(main())
