"""sysv-mq: one queue for everybody, where each receiver picks its messages by their type.

    python demos/sysv_mq.py        (or: ipclab demo sysv-mq)

Look at: the type, a number every message carries. A receiver asks for the first of all (0), for the first of one type
(7), or for the lowest type up to a limit (-7). So one queue can serve a server and all of its clients: a request has
type 1, an answer has the client's pid as its type. And the queue is nobody's: it stays until somebody removes it.
man: sysvipc(7), msgget(2), msgsnd(2), msgrcv(2), msgctl(2)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ipclab import Unavailable
from ipclab.processes import Stage, registry, say

if TYPE_CHECKING:
    import sysv_ipc

FAMILY = "data transfer"
NEEDS = ("sysv-mq",)
BETTER_WITH = ()

REQUEST = 1
CLIENTS = {"ann": "seven", "bob": "eleven", "cid": "twelve"}
MIXED = [(5, "e"), (3, "c"), (7, "g"), (3, "d")]
# what to ask for -> what must come
PICKS = {7: "g", -4: "c", 3: "d", 0: "e"}


def main() -> int:
    with Stage("sysv-mq", "How can many processes share one queue and each still get its own messages?") as stage:
        with new_queue("demo") as queue:
            receiver_picks_by_type(stage, queue)
            one_queue_serves_all(stage, queue)
            queue_outlives_everybody(stage, queue)
        stage.verdict("a receiver picks its messages by type; the queue is nobody's and stays until it is removed")
    return stage.exit_code


def sysv() -> Any:
    try:
        import sysv_ipc
    except ImportError as err:
        raise Unavailable("SysV queues need the package sysv_ipc", hint="pip install 'ipclab[sysv]'") from err
    return sysv_ipc


@contextmanager
def new_queue(label: str) -> Iterator[sysv_ipc.MessageQueue]:
    module = sysv()
    key = registry.new_key("sysv-mq", label)
    queue = module.MessageQueue(key, module.IPC_CREX, mode=0o600)
    try:
        yield queue
    finally:
        with suppress(module.ExistentialError):  # the last scene removes it
            queue.remove()
        registry.forget("sysv-mq", key)


# --- 1: types --------------------------------------------------------------------------------------------------------
def receiver_picks_by_type(stage: Stage, queue: sysv_ipc.MessageQueue) -> None:
    stage.scene("In the queue lie " + ", ".join(f"{text!r} of type {kind}" for kind, text in MIXED))
    sender = stage.spawn("sender", send_mixed, queue)
    stage.release()
    stage.check(sender.wait(20).exit_code == 0, "sender has put them in and ended")
    picker = stage.spawn("picker", pick, queue)
    stage.check(picker.wait(20).exit_code == 0, "each msgrcv(2) got what it asked for, wherever in the queue it lay")


def send_mixed(queue: sysv_ipc.MessageQueue) -> None:
    for kind, text in MIXED:
        queue.send(text, type=kind)


def pick(queue: sysv_ipc.MessageQueue) -> int:
    got = {}
    for asked in PICKS:
        text, kind = queue.receive(type=asked)
        got[asked] = text.decode()
        say(f"asked for {asked:2}: got {got[asked]!r} of type {kind}")
    return 0 if got == PICKS else 1


# --- 2: a server and its clients -------------------------------------------------------------------------------------
def one_queue_serves_all(stage: Stage, queue: sysv_ipc.MessageQueue) -> None:
    stage.scene(f"One server, {len(CLIENTS)} clients: a request has type {REQUEST}, an answer the client's pid")
    clients = [stage.spawn(name, ask, queue, word) for name, word in CLIENTS.items()]
    sleeping = all(stage.asleep_in(client, syscall="msgrcv") for client in clients)
    stage.check(sleeping and queue.current_messages == len(clients), "all clients have asked and sleep in msgrcv(2)")
    server = stage.spawn("server", serve, queue, len(CLIENTS))
    stage.check(all(client.wait(20).exit_code == 0 for client in clients), "each got the answer to its own question")
    server.wait(20)
    last = queue.last_send_pid
    stage.check(last == server.pid and not queue.current_messages, f"msgctl(2): empty, last sent to by {last}, server")


def ask(queue: sysv_ipc.MessageQueue, word: str) -> int:
    queue.send(f"{os.getpid()} {word}", type=REQUEST)
    answer, _ = queue.receive(type=os.getpid())
    say(f"asked for the length of {word!r}, was told {answer.decode()}")
    return 0 if int(answer) == len(word) else 1


def serve(queue: sysv_ipc.MessageQueue, requests: int) -> None:
    for _ in range(requests):
        request, _ = queue.receive(type=REQUEST)
        client, word = request.decode().split()
        queue.send(str(len(word)), type=int(client))


# --- 3: lifetime -----------------------------------------------------------------------------------------------------
def queue_outlives_everybody(stage: Stage, queue: sysv_ipc.MessageQueue) -> None:
    stage.scene("A message nobody is there for, and the end of the queue")
    stage.spawn("sender", queue.send, "still here", True, 99).wait(20)
    stage.check(queue.current_messages == 1, f"sender is gone, its message waits under key {queue.key:#x}")
    late = stage.spawn("late", wait_for_removal, queue.key)
    stage.check(stage.asleep_in(late, syscall="msgrcv"), "late took it and sleeps in msgrcv(2), for the next one")
    queue.remove()
    stage.check(late.wait(20).exit_code == 0, "we removed the queue: its msgrcv(2) woke up and failed")


def wait_for_removal(key: int) -> int:
    module = sysv()
    queue = module.MessageQueue(key)  # found by its key: nothing was inherited
    text, _ = queue.receive(type=99)
    say(f"found the queue by its key and in it {text.decode()!r}")
    try:
        queue.receive(type=99)
    except module.ExistentialError as error:
        say(f"msgrcv(2): {error}")
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
