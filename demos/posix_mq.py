"""posix-mq: messages with priorities, which overtake each other, and a queue that sends a signal when one arrives.

    python demos/posix_mq.py        (or: ipclab demo posix-mq)

Look at: the order in which messages come out, which is not the order in which they went in. Then at the signal: it
comes when a message arrives in an empty queue, and only once - who wants to be told again has to ask again.
man: mq_overview(7), mq_send(3), mq_receive(3), mq_notify(3)
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import posix_ipc

from ipclab.errors import Unavailable
from ipclab.processes import Stage, registry, say

FAMILY = "data transfer"
NEEDS = ("posix-mq",)
BETTER_WITH = ()

ROOM = 4  # messages; a user may ask for fs.mqueue.msg_max of them, which is 10 unless somebody changed it
NEWS = signal.SIGRTMIN + 1  # a real-time signal: five of them would be five, so that "once" below means once
SI_MESGQ = -3  # si_code of a signal that mq_notify asked for, <asm-generic/siginfo.h>

SENT = [("tea", 1), ("coffee", 1), ("fire", 9), ("phone", 5)]
EXPECTED = ["fire", "phone", "tea", "coffee"]


def main() -> int:
    with Stage("posix-mq", "In which order do messages leave a queue, and who is told that one is there?") as stage:
        with new_queue("demo") as queue:
            priorities_overtake(stage, queue)
            full_queue_puts_its_sender_to_sleep(stage, queue)
            notification_comes_once(stage, queue)
        stage.verdict("the highest priority leaves first; notify is one signal, for the step from empty to not empty")
    return stage.exit_code


@contextmanager
def new_queue(label: str) -> Iterator[posix_ipc.MessageQueue]:
    name = registry.new_name("posix-mq", label)
    with ExitStack() as undo:
        undo.callback(registry.forget, "posix-mq", name)
        try:
            queue = posix_ipc.MessageQueue(name, posix_ipc.O_CREX, mode=0o600, max_messages=ROOM, max_message_size=64)
        except (posix_ipc.Error, OSError) as error:
            raise Unavailable(f"no POSIX queue: {error}", hint="see `ipclab doctor` and `ipclab clean`") from error
        undo.callback(queue.close)
        undo.callback(queue.unlink)
        yield queue


# --- 1: priorities ---------------------------------------------------------------------------------------------------
def priorities_overtake(stage: Stage, queue: posix_ipc.MessageQueue) -> None:
    stage.scene("Four messages go in, the receiver comes later")
    sender = stage.spawn("sender", send_all, queue.name)
    stage.release()
    stage.check(sender.wait(20).exit_code == 0, "sender has sent all and ended")
    waiting = queue.current_messages
    stage.check(waiting == len(SENT), f"{waiting} messages wait in the kernel, whoever sent them")
    receiver = stage.spawn("receiver", receive_all, queue.name)
    stage.check(receiver.wait(20).exit_code == 0, "they left by priority, two of one priority in the order they came")


def send_all(name: str) -> None:
    queue = posix_ipc.MessageQueue(name)
    for text, priority in SENT:
        queue.send(text, timeout=5, priority=priority)
        say(f"mq_send {text!r} with priority {priority}")


def receive_all(name: str) -> int:
    queue = posix_ipc.MessageQueue(name)
    received = [queue.receive(timeout=5) for _ in SENT]
    say("mq_receive gave " + ", ".join(f"{text.decode()} ({priority})" for text, priority in received))
    return 0 if [text.decode() for text, _ in received] == EXPECTED else 1


# --- 2: a full queue -------------------------------------------------------------------------------------------------
def full_queue_puts_its_sender_to_sleep(stage: Stage, queue: posix_ipc.MessageQueue) -> None:
    stage.scene(f"The queue has room for {ROOM} messages, and a sender has {ROOM + 1}")
    sender = stage.spawn("sender", send_numbers, queue.name, ROOM + 1)
    stage.check(stage.asleep_in(sender, syscall="mq_timedsend"), "sender sleeps in mq_send(3)")
    stage.look(sender)
    inside, room = queue.current_messages, queue.max_messages
    stage.check(inside == room, f"the queue is full: {inside} of {room} messages")
    stage.say(f"we take one out: {take(queue)!r}")
    stage.check(sender.wait(20).exit_code == 0, "that made room: sender woke up, sent its last one and ended")
    stage.check([take(queue) for _ in range(ROOM)] == ["1", "2", "3", "4"], "the others came out in order")


def send_numbers(name: str, count: int) -> None:
    queue = posix_ipc.MessageQueue(name)
    for number in range(count):
        queue.send(str(number), timeout=5)


def take(queue: posix_ipc.MessageQueue) -> str:
    text, _ = queue.receive(timeout=5)
    return str(text.decode())


# --- 3: notification -------------------------------------------------------------------------------------------------
def notification_comes_once(stage: Stage, queue: posix_ipc.MessageQueue) -> None:
    stage.scene("mq_notify(3): told by a signal")
    signal.pthread_sigmask(signal.SIG_BLOCK, [NEWS])  # it waits until we take it with sigtimedwait(2)
    queue.request_notification(NEWS)
    rival = stage.spawn("rival", ask_too, queue.name)
    stage.check(rival.wait(20).exit_code == 0, "only one process may ask: a second one is told EBUSY")
    sender = stage.spawn("sender", send_numbers, queue.name, 3)
    sender.wait(20)
    news = pending_news()
    stage.check(len(news) == 1, f"{queue.current_messages} messages arrived, {len(news)} signal: a request counts once")
    told = news and (news[0].si_code, news[0].si_pid) == (SI_MESGQ, sender.pid)
    stage.check(bool(told), f"its si_code is SI_MESGQ, its si_pid {sender.pid}: the sender of the first message")

    queue.request_notification(NEWS)
    stage.spawn("sender", send_numbers, queue.name, 1).wait(20)
    stage.check(not pending_news(), "asked again, one more message, no signal: the queue was not empty")

    stage.say("we take all out: " + ", ".join(take(queue) for _ in range(4)))
    stage.spawn("sender", send_numbers, queue.name, 1).wait(20)
    stage.check(len(pending_news()) == 1, "the next message found the queue empty: now the signal came")


def ask_too(name: str) -> int:
    try:
        posix_ipc.MessageQueue(name).request_notification(NEWS)
    except posix_ipc.BusyError as error:
        say(f"mq_notify refused: {error}")
        return 0
    return 1


def pending_news() -> list[signal.struct_siginfo]:
    """Every NEWS signal that is there by now. The kernel sends it within mq_send, so none can be under way."""
    found = []
    while (info := signal.sigtimedwait([NEWS], 0)) is not None:
        found.append(info)
    return found


if __name__ == "__main__":
    sys.exit(main())
