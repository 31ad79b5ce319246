"""unix-socket: stream, datagram and seqpacket between processes of one machine; who is there; two kinds of names.

    python demos/unix_socket.py    (or: ipclab demo unix-socket)

Look at: the same three words through each of the three types; the pid of the peer, vouched for by the kernel; the
datagram sender that sleeps where UDP would drop; what is left of a path and an abstract name. man: unix(7)
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import sys
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from ipclab.processes import Stage, registry, say

FAMILY = "data transfer"
NEEDS = ("unix-stream", "unix-datagram", "unix-seqpacket")
BETTER_WITH = ()

WORDS = [b"one", b"two", b"three"]
TYPES = {"stream": socket.SOCK_STREAM, "datagram": socket.SOCK_DGRAM, "seqpacket": socket.SOCK_SEQPACKET}
EXPECTED = {"stream": [b"onetwothree", b""], "datagram": WORDS, "seqpacket": [*WORDS, b""]}
FLOOD, LOCAL = 2000, socket.AF_UNIX


def main() -> int:
    with Stage("unix-socket", "Three types of local socket: what arrives, from whom, and under what name?") as stage:
        for kind in TYPES:
            three_words(stage, kind)
        nothing_is_dropped(stage)
        names(stage)
        stage.verdict("stream: bytes; datagram: messages; seqpacket: messages and an end; the kernel names the peer")
    return stage.exit_code


def three_words(stage: Stage, kind: str) -> None:
    stage.scene(f"{kind}: three sends, and nobody reads before the sender has ended")
    path = registry.new_path(kind, ".sock")
    ours, theirs = Pipe()
    stage.spawn("server", serve, kind, os.fspath(path), theirs)
    stage.release()
    stage.hear(ours)
    client = stage.spawn("client", send_words, kind, os.fspath(path))
    client.wait(20)
    ours.send("read now")
    got, peer = stage.hear(ours)
    remove(path)
    stage.check(got == EXPECTED[kind], f"{kind} gave {got}")
    if kind != "datagram":  # which has no one peer
        stage.check(peer == (client.pid, os.getuid(), os.getgid()), f"SO_PEERCRED: pid, uid, gid {peer}: its client")


def remove(path: Path) -> None:
    path.unlink()  # nobody else would: the name outlives the socket and its process
    registry.forget("path", path)


def serve(kind: str, path: str, notes: Connection) -> None:
    sock = socket.socket(LOCAL, TYPES[kind])
    sock.bind(path)
    if kind != "datagram":
        sock.listen()
    notes.send("bound")
    notes.recv()
    if kind != "datagram":
        sock, _ = sock.accept()
    peer = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    got = receive_all(sock)
    say(f"recv(2) gave {got}" + ("" if b"" in got else ", then EAGAIN: a datagram socket knows no end"))
    notes.send((got, peer))


def receive_all(sock: socket.socket) -> list[bytes]:
    """What each recv(2) gives, until end-of-file (an empty one) or until there is nothing more (EAGAIN)."""
    got: list[bytes] = []
    with suppress(BlockingIOError):
        while b"" not in got:
            got.append(sock.recv(100, socket.MSG_DONTWAIT))
    return got


def send_words(kind: str, path: str) -> None:
    with socket.socket(LOCAL, TYPES[kind]) as sock:
        sock.connect(path)
        say(f"connect(2) returned, send(2) took {[sock.send(word) for word in WORDS]} bytes; closing")


def nothing_is_dropped(stage: Stage) -> None:
    stage.scene(f"{FLOOD} datagrams to a receiver that does not read")
    ours, theirs = Pipe(duplex=False)
    inbox, outbox = socket.socketpair(LOCAL, socket.SOCK_DGRAM)
    sender = stage.spawn("sender", flood, outbox)
    stage.release()
    stage.check(stage.asleep_in(sender, syscall="sendto"), "the queue is full: its sender sleeps. UDP would drop")
    stage.spawn("receiver", lambda: theirs.send([int(inbox.recv(10)) for _ in range(FLOOD)]))
    numbers: list[int] = stage.hear(ours)
    stage.check(numbers == list(range(FLOOD)), f"as soon as somebody read it went on: all {len(numbers)}, in order")


def flood(outbox: socket.socket) -> None:
    say(f"send(2) took {sum(outbox.send(b'%d' % number) > 0 for number in range(FLOOD))} datagrams")


def names(stage: Stage) -> None:
    stage.scene("A server with a path and an abstract name is killed")
    path = registry.new_path("named", ".sock")
    by_path, abstract = os.fspath(path), "\0" + path.name
    ours, theirs = Pipe(duplex=False)
    server = stage.spawn("server", hold_names, [by_path, abstract], theirs, killable=True)
    stage.release()
    stage.hear(ours)
    known = Path("/proc/net/unix").read_text().split()
    stage.check({by_path, f"@{path.name}"} <= set(known), f"/proc/net/unix has {by_path} and @{path.name}")
    server.kill()
    server.wait(20)
    left = {name: (attempt("connect", name), attempt("bind", name)) for name in (by_path, abstract)}
    stage.check(left[by_path] == ("ECONNREFUSED", "EADDRINUSE"), f"the path stays. connect, bind: {left[by_path]}")
    stage.check(left[abstract] == ("ECONNREFUSED", "ok"), f"the abstract name died. connect, bind: {left[abstract]}")
    remove(path)


def hold_names(addresses: list[str], notes: Connection) -> None:
    socks = [socket.socket(LOCAL) for _ in addresses]
    for sock, address in zip(socks, addresses, strict=True):
        sock.bind(address)
    say("bound to a path, which its file mode guards, and to an abstract name, open to all in this network namespace")
    notes.send("bound")
    signal.pause()


def attempt(call: str, address: str) -> str:
    with socket.socket(LOCAL) as sock:
        try:
            getattr(sock, call)(address)
        except OSError as err:
            return errno.errorcode[err.errno or 0]
    return "ok"


if __name__ == "__main__":
    sys.exit(main())
