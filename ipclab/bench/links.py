"""Which Link or PingPong a case is about, how much it is to hold, and what keeps a case from running."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ipclab.bench import fan
from ipclab.errors import IpclabError, Unavailable
from ipclab.mechanisms import load
from ipclab.mechanisms.base import Link, PingPong

if TYPE_CHECKING:
    from collections.abc import Callable

    from ipclab.records import Case

Medium: TypeAlias = type[Link] | type[PingPong]
#: A mechanism's name to what carries it.
Find: TypeAlias = "Callable[[str], Medium]"

#: Room each way that is asked for when the case names no depth: what a pipe has from the start.
ROOM_BYTES = 65536
LEAST_DEPTH = 8
MOST_DEPTH = 1024
#: What the messages of both directions may take together: several lanes have to fit a /dev/shm of 64 MB.
MOST_BYTES = 32 << 20

#: Attributes by which links say what the kernel gave them, and the name a record has for each.
_GRANTED = {"capacity_bytes": "pipe", "buffer_bytes": "send_buffer"}

#: Whose largest message the kernel sets, and whose `take` does not wait for the other side.
LIMITED = frozenset({"posix-mq", "sysv-mq", "udp", "unix-datagram", "unix-seqpacket"})

#: What no loop in C can drive, because a library moves the messages.
NOT_NATIVE = {
    "zmq-ipc": "only through pyzmq",
    "zmq-tcp": "only through pyzmq",
    "mp-pipe": "only through multiprocessing",
    "mp-simplequeue": "only through multiprocessing",
    "mp-queue": "only through multiprocessing",
    "faster-fifo": "only through its Python package",
    "iceoryx2": "only through its Python package",
}


def find(name: str) -> Medium:
    """The Link or PingPong of a mechanism or a peer. Raises UsageError for an unknown name, Unavailable."""
    from ipclab.bench import peers

    if name in peers.PEERS:
        return peers.find(name)
    module = load(name)
    ping_pong: type[PingPong] | None = getattr(module, "PING_PONG", None)
    medium = module.LINK or ping_pong
    if medium is None:
        raise Unavailable(f"{name} carries no data, and two processes cannot take turns by it")
    probe = module.probe()
    if not probe.works:
        raise Unavailable(f"{name}: {probe.reason}", hint=probe.remedy or None)
    return medium


def default_depth(size_bytes: int) -> int:
    """How many messages of that size a link is to hold each way, when nobody asks for a number.

    >>> [default_depth(size) for size in (1, 64, 65536, 1 << 20, 8 << 20)]
    [1024, 1024, 8, 8, 2]
    """
    size = max(1, size_bytes)
    depth = min(MOST_DEPTH, max(LEAST_DEPTH, ROOM_BYTES // size))
    return max(2, min(depth, MOST_BYTES // 2 // size))


def open_medium(medium: Medium, case: Case) -> Link | PingPong:
    """Make the kernel objects. Raises Unavailable, NoRoom, MessageTooLarge."""
    if issubclass(medium, Link):
        return medium.open(message_bytes=case.size_bytes, depth=case.depth or default_depth(case.size_bytes))
    return medium.open()


def granted(link: Link | PingPong, case: Case) -> tuple[int | None, dict[str, int]]:
    """Room for how many messages, and buffers in bytes, as far as the link says what the kernel gave it."""
    if not isinstance(link, Link):
        return None, {}
    depth = getattr(link, "depth", None) or case.depth or default_depth(case.size_bytes)
    found = {name: getattr(link, attribute, None) for attribute, name in _GRANTED.items()}
    return depth, {name: value for name, value in found.items() if value}


def obstacle(find_medium: Find, case: Case, *, native: bool = False) -> str | None:
    """Why the case cannot be set up here, found by setting it up; None: it can. Leaves nothing behind."""
    try:
        medium = find_medium(case.mechanism)
        if (reason := fan.obstacle(case)) is not None:
            return reason
        if issubclass(medium, PingPong) and case.pattern != "pingpong":
            return f"{case.mechanism} carries no data: ping-pong is all one can play with it"
        if issubclass(medium, Link) and case.size_bytes < 1:
            return f"{case.mechanism}: a message has 1 byte or more"
        if native and case.mechanism in NOT_NATIVE:
            return f"{case.mechanism}: {NOT_NATIVE[case.mechanism]}; use the python driver"
        with open_medium(medium, case) as link:
            return _limit(link, case)
    except IpclabError as err:
        return str(err)


def _limit(link: Link | PingPong, case: Case) -> str | None:
    """What the kernel says against the size, where only an end knows."""
    if case.mechanism not in LIMITED or not isinstance(link, Link):
        return None
    with link.take("a") as end:
        if end.limit_bytes is None or case.size_bytes <= end.limit_bytes:
            return None
        return f"{case.mechanism}: messages have {end.limit_bytes} bytes at most here ({end.limit_source})"
