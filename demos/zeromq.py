"""zeromq: sockets that queue, connect by themselves and share out work - and what they do not tell.

    python demos/zeromq.py         (or: ipclab demo zeromq)

Look at: who got which share of the work (PUSH/PULL); the second request that is refused before the first is answered,
and the silence after the server was killed (REQ/REP); the subscriber that had connected first and missed all the same
(PUB/SUB). man: zmq_socket(3), zmq_socket_monitor(3); zguide.zeromq.org
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import zmq

from ipclab.processes import Stage, registry, say

FAMILY = "data transfer"
NEEDS = ("zmq-ipc",)
BETTER_WITH = ()

WORKERS, TASKS = 3, 90
EARLY, LATE, PATIENCE_MS = 100, 100, 300  # messages before a subscription has arrived and after; length of a poll


def main() -> int:
    with Stage("zeromq", "What do ZeroMQ's patterns do that a plain socket does not?") as stage:
        paths = [registry.new_path(label, ".sock") for label in ("tasks", "answers", "requests", "news")]
        push_pull(stage, *(f"ipc://{path}" for path in paths[:2]))
        req_rep(stage, f"ipc://{paths[2]}")
        pub_sub(stage, f"ipc://{paths[3]}")
        for path in paths:
            path.unlink(missing_ok=True)  # all but the killed server have removed their own
            registry.forget("path", path)
        stage.verdict("PUSH/PULL shares out, REQ/REP goes in lock step, PUB/SUB drops what nobody has subscribed to")
    return stage.exit_code


@contextmanager
def opened(kind: int, endpoint: str, *, bind: bool = False, again_ms: int = 100) -> Iterator[zmq.Socket[bytes]]:
    """A socket in this process's own context (one from before the fork is dead); leaving waits until all is sent."""
    with zmq.Context() as context, context.socket(kind) as sock:
        sock.linger, sock.reconnect_ivl = 20_000, again_ms  # until a connect() that found nobody tries again
        sock.bind(endpoint) if bind else sock.connect(endpoint)
        yield sock


def push_pull(stage: Stage, tasks: str, answers: str) -> None:
    stage.scene(f"PUSH/PULL: {TASKS} tasks dealt out to {WORKERS} workers, their answers gathered")
    ours, theirs = Pipe(duplex=False)
    stage.spawn("boss", share_out, tasks, answers, theirs)
    for n in range(WORKERS):
        stage.spawn(f"worker-{n}", work, n, tasks, answers)
    stage.release()
    came: list[list[int]] = stage.hear(ours)
    shares = [[worker for worker, _task, _square in came].count(n) for n in range(WORKERS)]
    stage.check(sorted(a[1:] for a in came) == [[n, n * n] for n in range(TASKS)], f"{TASKS} right answers, each once")
    stage.check(all(shares), f"PUSH dealt the tasks out in turn: {shares}. Nobody had to decide that")


def share_out(tasks: str, answers: str, notes: Connection) -> None:
    with zmq.Context() as context, context.socket(zmq.PUSH) as push, opened(zmq.PULL, answers, bind=True) as pull:
        shaken = push.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        push.bind(tasks)
        for _ in range(WORKERS):
            shaken.recv_multipart()
        say(f"{WORKERS} workers are connected: dealing. Earlier, the first of them would get it all")
        for task in [*range(TASKS), *[-1] * WORKERS]:  # -1: the end, to each in turn
            push.send_json(task)
        notes.send([pull.recv_json() for _ in range(TASKS)])


def work(number: int, tasks: str, answers: str) -> None:
    with opened(zmq.PULL, tasks) as pull, opened(zmq.PUSH, answers) as push:
        while (task := int(pull.recv())) >= 0:
            push.send_json((number, task, task**2))


def req_rep(stage: Stage, requests: str) -> None:
    stage.scene("REQ/REP: lock step; then the server is killed with a request in its hands")
    ours, theirs = Pipe(duplex=False)
    server = stage.spawn("server", answer_once, requests, theirs, killable=True)
    stage.spawn("client", ask_twice, requests, theirs)
    stage.check(stage.hear(ours) == zmq.EFSM, "a second request before the answer is refused: lock step")
    stage.check(stage.hear(ours) == b"re: first", "then the answer came")
    stage.hear(ours)
    server.kill()
    server.wait(20)
    stage.check(stage.hear(ours) == 0, f"the server is dead; in {PATIENCE_MS} ms the client heard nothing of it")


def answer_once(requests: str, notes: Connection) -> None:
    with opened(zmq.REP, requests, bind=True) as rep:
        rep.send(b"re: " + rep.recv())
        say(f"recv() gave {rep.recv()!r}, and I do not answer it")
        notes.send("have it")
        rep.poll()  # for ever: there is none


def ask_twice(requests: str, notes: Connection) -> None:
    with opened(zmq.REQ, requests) as req:
        req.send(b"first")
        try:
            req.send(b"too early")
        except zmq.ZMQError as err:
            say(f"send() before the answer: {err.strerror}")
            notes.send(err.errno)
        notes.send(req.recv())
        req.send(b"second")
        notes.send(req.poll(PATIENCE_MS))
        req.linger = 0


def pub_sub(stage: Stage, news: str) -> None:
    stage.scene("PUB/SUB: the slow joiner")
    ours, theirs = Pipe(duplex=False)
    stage.spawn("subscriber", subscribe, news, theirs)
    stage.release()
    stage.hear(ours)
    stage.spawn("publisher", publish, news)
    came: list[int] = stage.hear(ours)
    stage.check(came[0] > 0, f"the first to come is number {came[0]}; those before are lost, and nobody was told")
    stage.check(came == list(range(came[0], came[0] + LATE)), "from its subscription on it missed nothing")


def subscribe(news: str, notes: Connection) -> None:
    with opened(zmq.SUB, news, again_ms=500) as sub:  # late enough for a publisher that has to wait for a CPU
        sub.subscribe(b"")
        say("connect() and subscribe() returned, although nobody is there yet; it goes on trying by itself")
        notes.send("connected")
        notes.send([int(sub.recv()) for _ in range(LATE)])


def publish(news: str) -> None:
    with opened(zmq.XPUB, news, bind=True) as pub:  # a PUB that also receives the subscriptions
        for number in range(EARLY):
            pub.send(b"%d" % number)
        say(f"sent 0 to {EARLY - 1}: no send() waited or failed. Now I wait for a subscription")
        say(f"recv() gave {pub.recv()!r}, one to everything: sending {LATE} more")
        for number in range(EARLY, EARLY + LATE):
            pub.send(b"%d" % number)


if __name__ == "__main__":
    sys.exit(main())
