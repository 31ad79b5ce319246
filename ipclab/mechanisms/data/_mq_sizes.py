"""How large a POSIX message queue may be here: the limits, and which sizes to ask for."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import TYPE_CHECKING

from ipclab.mechanisms.data._pipes import sysctl
from ipclab.records import Limit

if TYPE_CHECKING:
    from collections.abc import Iterator

_MQUEUE = Path("/proc/sys/fs/mqueue")
#: What CAP_SYS_RESOURCE may ask for, whatever the sysctls say (HARD_MSGMAX, HARD_MSGSIZEMAX; mq_overview(7)).
HARD_MESSAGES = 65536
HARD_MESSAGE_BYTES = 16 << 20
#: What the kernel counts for a message beside its text: a struct msg_msg and a tree node (about 48 each), rounded up.
_OVERHEAD_BYTES = 128


def mq_limits() -> tuple[Limit, ...]:
    """The limits of POSIX message queues, read now."""
    rows = (
        ("messages in a queue", "msg_max", "messages"),
        ("bytes in a message", "msgsize_max", "bytes"),
        ("messages in a queue by default", "msg_default", "messages"),
        ("queues of this machine", "queues_max", "queues"),
    )
    limits = []
    for name, file, unit in rows:
        limits.append(Limit(name=name, value=sysctl(_MQUEUE / file), unit=unit, source=str(_MQUEUE / file)))
    limits.append(
        Limit(name="bytes in one user's queues", value=user_bytes(), unit="bytes", source="getrlimit(RLIMIT_MSGQUEUE)")
    )
    return tuple(limits)


def user_bytes() -> int | None:
    """What all queues of this user may take; None: no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
    return None if soft == resource.RLIM_INFINITY else soft


def fits_none() -> bool:
    """Whether this user may not even have a queue of one byte."""
    room = user_bytes()
    return room is not None and room <= _OVERHEAD_BYTES


def sizes_to_try(message_bytes: int, depth: int, queues: int) -> Iterator[tuple[int, int]]:
    """(messages, bytes of each) for `queues` queues, the most wanted first.

    First what only CAP_SYS_RESOURCE gets, then within the sysctls; each within RLIMIT_MSGQUEUE, then with ever fewer
    messages because the user's other queues count too and nobody tells how much they take.
    """
    message_bytes, depth = max(1, message_bytes), max(1, depth)
    soft = (sysctl(_MQUEUE / "msg_max") or 10, sysctl(_MQUEUE / "msgsize_max") or 8192)
    seen: set[tuple[int, int]] = set()
    for most_messages, most_bytes in ((HARD_MESSAGES, HARD_MESSAGE_BYTES), soft):
        size = min(message_bytes, most_bytes)
        budget = user_bytes()
        count = min(depth, most_messages)
        if budget is not None:
            size = max(1, min(size, budget // queues - _OVERHEAD_BYTES))
            count = max(1, min(count, budget // queues // (size + _OVERHEAD_BYTES)))
        while count:
            if (count, size) not in seen:
                seen.add((count, size))
                yield count, size
            count //= 2
