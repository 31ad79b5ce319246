"""tcp: a byte stream between two processes that need not share a machine, and how each learns that the other has gone.

    python demos/tcp.py            (or: ipclab demo tcp)

Look at: five sends that come out of fewer receives; a client that has closed its own direction and still hears the
answer; its address, that stays taken in TIME_WAIT after both have ended; and a peer killed with kill -9: whether the
survivor sees a clean end or a reset depends on what the dead one had not read.
man: tcp(7), shutdown(2), poll(2) POLLRDHUP
"""

from __future__ import annotations

import errno
import select
import signal
import socket
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from ipclab.processes import Stage, say

FAMILY = "data transfer"
NEEDS = ("tcp",)
BETTER_WITH = ()

PIECES, PIECE_BYTES = 5, 1000
HERE = ("127.0.0.1", 0)  # the loopback, a port that is free
TIME_WAIT = "06"  # TCP_TIME_WAIT in the column `st` of /proc/net/tcp

Address = tuple[str, int]


def main() -> int:
    with Stage("tcp", "What does TCP carry, and how does an end learn that the other one has gone?") as stage:
        client_address = stream_and_half_close(stage)
        time_wait(stage, client_address)
        killed_peer(stage, reads_first=True)
        killed_peer(stage, reads_first=False)
        stage.verdict("TCP carries bytes, not messages; a dead peer is end-of-file, or a reset if it left bytes unread")
    return stage.exit_code


def stream_and_half_close(stage: Stage) -> Address:
    address: Address
    stage.scene(f"{PIECES} sends of {PIECE_BYTES} bytes; the client closes its direction and waits for the answer")
    ours, theirs = Pipe(duplex=False)
    with socket.create_server(HERE) as door:
        server = stage.spawn("server", serve, door, theirs)
        stage.release()
        stage.check(stage.asleep_in(server), "the server sleeps until somebody connects")
        stage.look(server)
        stage.spawn("client", talk, door.getsockname(), theirs)
        sizes: list[int] = stage.hear(ours)
        reply, address = stage.hear(ours)
        stage.wait(20)
    stage.check(sum(sizes) == PIECES * PIECE_BYTES, f"every byte arrived: {sum(sizes)}")
    stage.check(len(sizes) < PIECES, f"but not as {PIECES} pieces: recv(2) gave {sizes}. A stream has no boundaries")
    stage.check(reply == str(len(sizes)), "the answer came over the connection that was closed the other way")
    return address


def serve(door: socket.socket, notes: Connection) -> None:
    conn, peer = door.accept()
    say(f"accept4(2) returned a connection from port {peer[1]}")
    waiting = select.poll()
    waiting.register(conn, select.POLLRDHUP)
    event = dict(waiting.poll(20_000)).get(conn.fileno())
    all_here = "POLLRDHUP: the client sends no more, so all it sent is here"
    say(f"poll(2) says {all_here if event == select.POLLRDHUP else event}. I read")
    sizes = []
    while data := conn.recv(65536):
        sizes.append(len(data))
    say(f"recv(2) returned {sizes}, then 0: end of the stream")
    notes.send(sizes)
    conn.sendall(str(len(sizes)).encode())


def talk(address: Address, notes: Connection) -> None:
    with socket.create_connection(address, timeout=5) as conn:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # five segments, nothing is held back
        say(f"connect(2) returned, send(2) took {[conn.send(bytes(PIECE_BYTES)) for _ in range(PIECES)]}")
        conn.shutdown(socket.SHUT_WR)
        say("shutdown(2) of my direction returned; reading on")
        reply = conn.recv(100).decode()
        say(f"answered: {reply} piece(s). Then recv(2) returned {len(conn.recv(100))}: the server has closed too")
        notes.send((reply, conn.getsockname()))


def time_wait(stage: Stage, address: Address) -> None:
    stage.scene("Both have ended. For a minute the kernel keeps the side that closed first")
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    states = [fields[3] for fields in lines if fields[1].endswith(f":{address[1]:04X}")]
    stage.check(states == [TIME_WAIT], f"port {address[1]} in /proc/net/tcp: state {states}, TIME_WAIT, no process")
    refused = None
    try:
        socket.create_server(address).close()
    except OSError as err:
        refused = err.errno
    stage.check(refused == errno.EADDRINUSE, "bind(2) to it is refused, EADDRINUSE: a late segment might still come")


def killed_peer(stage: Stage, reads_first: bool) -> None:
    stage.scene(f"kill -9 of a server that has {'read everything' if reads_first else 'not read what came'}")
    ours, theirs = Pipe(duplex=False)
    with socket.create_server(HERE) as door:
        victim = stage.spawn("server", doomed, door, reads_first, theirs, killable=True)
        stage.release()
        survivor = stage.spawn("client", survive, door.getsockname(), theirs)
        stage.hear(ours)
    stage.check(stage.asleep_in(survivor, syscall="recvfrom"), "the client has sent a request and sleeps in recv(2)")
    victim.kill()
    seen = stage.hear(ours)
    survivor.wait(20)
    if reads_first:
        stage.check(seen == [0, 14, errno.EPIPE], "end-of-file, as after close(2); a send(2) passes, the next is EPIPE")
    else:
        stage.check(seen == [errno.ECONNRESET], "what it had not read is lost: ECONNRESET, so that the client knows")


def doomed(door: socket.socket, reads_first: bool, notes: Connection) -> None:
    conn, _ = door.accept()
    conn.recv(100, 0 if reads_first else socket.MSG_PEEK)
    say(f"accepted, and have read {'the request' if reads_first else 'nothing'}")
    notes.send("placed")
    signal.pause()


def survive(address: Address, notes: Connection) -> None:
    seen: list[int] = []
    conn = socket.create_connection(address)
    conn.sendall(b"request")
    try:
        seen.append(len(conn.recv(100)))
        say(f"recv(2) returned {seen[0]}{': end-of-file' if seen == [0] else ''}")
        seen.append(conn.send(b"anybody there?"))
        hung_up = select.poll()
        hung_up.register(conn, 0)  # POLLHUP needs no asking
        hung_up.poll(20_000)
        conn.send(b"and now?")
    except OSError as err:
        say(f"{errno.errorcode[err.errno or 0]}: {err.strerror}")
        seen.append(err.errno or 0)
    notes.send(seen)


if __name__ == "__main__":
    sys.exit(main())
