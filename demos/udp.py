"""udp: datagrams keep their boundaries, vanish when the receiver is slow, and bounce when nobody listens.

    python demos/udp.py            (or: ipclab demo udp)

Look at: the sender, whose every sendto(2) succeeds; the receiver's sequence numbers, and the kernel's own count of what
it dropped in /proc/net/udp; and who hears of an empty port: a connected socket, one call later.
man: udp(7), socket(7) SO_RCVBUF
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from ipclab.processes import Stage, say

FAMILY = "data transfer"
NEEDS = ("udp",)
BETTER_WITH = ()

HERE = "127.0.0.1"
SIZES = [5, 0, 1, 1000]
FLOOD = 500
ROOM_BYTES = 8192


def main() -> int:
    with Stage("udp", "What does a datagram promise?") as stage:
        boundaries(stage)
        a_full_buffer_drops(stage)
        nobody_listens(stage)
        stage.verdict("a datagram arrives whole or not at all; whoever must know which has to count")
    return stage.exit_code


def bound(room_bytes: int | None = None) -> socket.socket:
    """A UDP socket on a free port of the loopback, to be inherited by a receiver."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if room_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room_bytes)
    sock.bind((HERE, 0))
    return sock


def boundaries(stage: Stage) -> None:
    stage.scene(f"Four datagrams of {SIZES} bytes")
    ours, theirs = Pipe(duplex=False)
    with bound() as inbox:
        receiver = stage.spawn("receiver", receive_sizes, inbox, theirs)
        stage.release()
        stage.check(stage.asleep_in(receiver, syscall="recvfrom"), "the receiver sleeps in recvfrom(2)")
        stage.spawn("sender", send_sizes, inbox.getsockname())
        sizes = stage.hear(ours)
        stage.wait(20)
    stage.check(sizes == SIZES, f"one recvfrom(2) per sendto(2), also for the empty one: {sizes}")


def receive_sizes(inbox: socket.socket, notes: Connection) -> None:
    sizes = [len(inbox.recv(65536)) for _ in SIZES]
    say(f"recvfrom(2) returned {sizes}")
    notes.send(sizes)


def send_sizes(address: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        say(f"sendto(2) returned {[out.sendto(bytes(size), address) for size in SIZES]}")


def a_full_buffer_drops(stage: Stage) -> None:
    stage.scene(f"{FLOOD} numbered datagrams to a receiver with a small buffer, who reads only afterwards")
    ours, theirs = Pipe(duplex=False)
    with bound(ROOM_BYTES) as inbox:
        room = inbox.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        stage.say(f"SO_RCVBUF asked {ROOM_BYTES} bytes, is {room}: the kernel counts its own bookkeeping in")
        sender = stage.spawn("sender", flood, inbox.getsockname())
        stage.release()
        sent_all = sender.wait(20).exit_code == 0
        receiver = stage.spawn("receiver", drain, inbox, theirs)
        got: list[int] = stage.hear(ours)
        receiver.wait(20)
        lost, dropped = FLOOD - len(got), kernel_drops(inbox)
    stage.check(sent_all, f"the sender was told {FLOOD} times that all is well")
    stage.check(0 < len(got) < FLOOD, f"{len(got)} arrived, {lost} are missing: nobody was told")
    stage.check(got == list(range(len(got))), f"0 to {len(got) - 1} came: a full buffer drops what is new")
    stage.check(dropped == lost, f"the kernel counted them: drops {dropped} in /proc/net/udp")


def flood(address: tuple[str, int]) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        taken = sum(out.sendto(number.to_bytes(4, "little"), address) == 4 for number in range(FLOOD))
    say(f"{taken} of {FLOOD} sendto(2) succeeded; none of them waited")
    return 0 if taken == FLOOD else 1


def drain(inbox: socket.socket, notes: Connection) -> None:
    numbers = []
    try:
        while True:
            numbers.append(int.from_bytes(inbox.recv(4, socket.MSG_DONTWAIT), "little"))
    except BlockingIOError:
        say(f"{len(numbers)} datagrams were there, then EAGAIN")
    notes.send(numbers)


def kernel_drops(sock: socket.socket) -> int:
    """The last column of this socket's line in /proc/net/udp; the tenth is its inode."""
    inode = str(os.fstat(sock.fileno()).st_ino)
    lines = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return next(int(fields[-1]) for fields in lines if fields[9] == inode)


def nobody_listens(stage: Stage) -> None:
    stage.scene("A datagram to a port that nobody has")
    with bound() as reserved:
        empty_port = reserved.getsockname()  # closed on leaving: nobody has it any more
    connected = stage.spawn("connected", send_into_the_void, empty_port, True)
    stage.release()
    stranger = stage.spawn("unconnected", send_into_the_void, empty_port, False)
    stage.check(connected.wait(20).exit_code == errno.ECONNREFUSED, "connected: its next call said ECONNREFUSED")
    stage.check(stranger.wait(20).exit_code == errno.EAGAIN, "not connected: nothing was told, it could wait for ever")


def send_into_the_void(address: tuple[str, int], connect: bool) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.settimeout(0.2)
        if connect:
            out.connect(address)
        say(f"sendto(2) to the empty port returned {out.send(b'hello') if connect else out.sendto(b'hello', address)}")
        try:
            out.recv(10)
        except TimeoutError:
            say("recvfrom(2) had nothing to say within 0.2 s")
            return errno.EAGAIN
        except ConnectionRefusedError as err:
            say(f"recvfrom(2): {err.strerror}")
            return err.errno or 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
