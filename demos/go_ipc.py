"""go-ipc: what Go's standard library offers of all this, side by side with what the kernel has.

    python demos/go_ipc.py        (or: ipclab demo go-ipc)

Look at: how short the list is - pipe, signal, socket, and what package syscall passes through raw. Between goroutines
Go has channels; between processes it has files, and what can be treated like one. The three are then run, each between
a process of ours and a Go program (go_ipc.go beside this file) where there is a Go to build it, else one in Python; and
os.Pipe, which is the kernel's, is told from io.Pipe, which is not.
See: pkg.go.dev/os#Pipe, pkg.go.dev/io#Pipe, pkg.go.dev/os/signal, pkg.go.dev/net; man: pipe(2), signal(7), socket(2)
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from ipclab.mechanisms import CATALOGUE, load
from ipclab.processes import Process, Stage, registry, say
from ipclab.processes.go import compiled

FAMILY = "comparison"
NEEDS = ("pipe", "signal", "unix-stream")
BETTER_WITH = ("go",)

TEXT = "hello from another process"


def main() -> int:
    with Stage("go-ipc", "What of all this does a Go program get from its standard library?") as stage:
        offered = what_go_offers(stage)
        with compiled(stage, Path(__file__).with_suffix(".go")) as program:
            pipe(stage, program)
            signals(stage, program)
            sockets(stage, program)
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


def play(stage: Stage, program: Path | None, part: str, where: object, in_python: Callable[..., object]) -> Process:
    """One part as a process of its own: by the Go program, or by a function that does the same."""
    if program is None:
        return stage.spawn(f"python-{part}", in_python, where)
    if isinstance(where, int):
        os.set_inheritable(where, True)  # a descriptor: execve(2) closes the others
    return stage.spawn(f"go-{part}", os.execv, program, [program, part, TEXT, str(where)])


def pipe(stage: Stage, program: Path | None) -> None:
    stage.scene("pipe. Go: r, w, err := os.Pipe(); go w.Write(text); r.Read(buffer)")
    read_end, write_end = os.pipe()
    writer = play(stage, program, "pipe", write_end, write_to)
    stage.check(writer.wait(20).exit_code == 0, "os.Pipe is pipe(2): two descriptors, and the writer has inherited one")
    text = os.read(read_end, 100).decode()
    stage.check(text == TEXT, f"it had ended before anybody read: {len(text)} bytes waited in the kernel")
    stage.say("io.Pipe is no kernel object, has no descriptor and no room: it joins goroutines, and never leads out")
    os.close(read_end)
    os.close(write_end)


def write_to(end: int) -> int:
    say(f"fd {end} here is {Path(f'/proc/self/fd/{end}').readlink()}")
    return 0 if os.write(end, TEXT.encode()) == len(TEXT) else 1


def signals(stage: Stage, program: Path | None) -> None:
    stage.scene("signal. Go: c := make(chan os.Signal, 1); signal.Notify(c, syscall.SIGUSR1); s := <-c")
    ready, its_ready = os.pipe()
    listener = play(stage, program, "signal", its_ready, listen)
    os.close(its_ready)
    stage.check(os.read(ready, 1) == b"!" and stage.asleep_in(listener), "the listener has asked for it, and sleeps")
    stage.look(listener)
    listener.signal(signal.SIGUSR1)
    stage.check(listener.wait(20).exit_code == 0, "the signal became data: a value to receive, or a byte to read")
    stage.say("so your code is never interrupted half-way: in both, the runtime catches the signal and passes it on")
    os.close(ready)


def listen(ready: int) -> int:
    """Python's nearest to signal.Notify: the handler of the runtime writes the number into a pipe."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.set_wakeup_fd(write_end)
    os.write(ready, b"!")
    number = os.read(read_end, 1)[0]
    say(f"read {number}: {signal.Signals(number).name}")
    return 0 if number == signal.SIGUSR1 else 1


def sockets(stage: Stage, program: Path | None) -> None:
    stage.scene('socket. Go: l, _ := net.Listen("unix", path); c, _ := l.Accept() | c, _ := net.Dial("unix", path)')
    address = registry.new_path("go", ".sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        server = stage.spawn("python-server", serve, listener)
        stage.check(stage.asleep_in(server, syscall="accept4"), "the server, in Python, sleeps in accept(2)")
        client = play(stage, program, "socket", address, dial)
        stage.check(client.wait(20).exit_code == server.wait(20).exit_code == 0, "the client dialled and was answered")
    address.unlink()
    registry.forget("path", address)
    stage.say('net.Listen("tcp", "127.0.0.1:0"): nothing changes but the address, in Go as here')


def serve(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(connection.recv(100).upper())


def dial(address: Path) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(address))
        connection.sendall(TEXT.encode())
        answer = connection.recv(100).decode()
    say(f"sent {TEXT!r}, received {answer!r}")
    return 0 if answer == TEXT.upper() else 1


if __name__ == "__main__":
    sys.exit(main())
