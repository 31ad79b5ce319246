"""sigchld: many children end at once; SIGCHLD is one bit, so one signal may stand for all of them.

    python demos/sigchld.py        (or: ipclab demo sigchld)

Look at: how many SIGCHLD are pending when all the children are zombies; what a parent that waits once per signal leaves
behind; the loop over waitpid(-1, WNOHANG) that loses none. man: signal(7), waitpid(2), sigaction(2) SA_NOCLDWAIT
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from ipclab.processes import Stage, procfs, say

FAMILY = "signals"
NEEDS = ("signal",)
BETTER_WITH = ()

CHILDREN = 64


def main() -> int:
    with Stage("sigchld", f"{CHILDREN} children end at once: how many signals does their parent get?") as stage:
        one_signal_stands_for_all(stage)
        a_loop_loses_none(stage)
        the_kernel_may_reap(stage)
        stage.verdict("SIGCHLD says that somebody died, not how many: loop over waitpid(-1, WNOHANG)")
    return stage.exit_code


class Brood:
    """Children that end together: each sleeps in read(2) on one pipe until it is closed, then exits with its number."""

    def __init__(self) -> None:
        gate_r, self._gate_w = os.pipe()
        self.pids = [os.fork() or self._child(gate_r, number) for number in range(CHILDREN)]
        os.close(gate_r)

    def _child(self, gate_r: int, number: int) -> int:
        os.close(self._gate_w)  # else it would keep the gate shut, for itself and the others
        os.read(gate_r, 1)
        os._exit(number)

    def end_all(self) -> None:
        os.close(self._gate_w)

    def wait_dead(self) -> None:  # WNOWAIT only looks: the zombie stays
        for pid in self.pids:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    def zombies(self) -> int:
        return sum(procfs.state(pid) == "Z" for pid in self.pids)


def reap_all() -> list[int]:
    """The exit codes of all children that are dead by now: the loop every SIGCHLD handler needs. Never blocks."""
    codes: list[int] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return codes  # ECHILD: no child is left
        if pid == 0:  # children are left, and they live
            return codes
        codes.append(os.waitstatus_to_exitcode(status))


def ask(stage: Stage, parent: Callable[[Connection], None]) -> Any:
    """Run one parent as a process of its own and hear what it saw."""
    ours, theirs = Pipe(duplex=False)
    stage.spawn("parent", parent, theirs)
    stage.release()
    return stage.hear(ours)


def one_signal_stands_for_all(stage: Stage) -> None:
    stage.scene("All end while their parent has SIGCHLD blocked; then it waits once per signal")
    signals, left, collected, zombies = ask(stage, blocked_parent)
    stage.check(signals == 1 and left == CHILDREN - 1, f"{signals} signal for {CHILDREN} deaths: {left} zombies stay")
    stage.check(collected == left and zombies == 0, "the loop over waitpid(-1, WNOHANG) found every one of them")


def blocked_parent(notes: Connection) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    brood = Brood()
    brood.end_all()
    brood.wait_dead()
    say(f"/proc says: {brood.zombies()} of my {CHILDREN} children are zombies")
    signals = 0
    while signal.sigtimedwait([signal.SIGCHLD], 0):
        signals += 1
        os.wait()  # the mistake: one wait per signal
    left = brood.zombies()
    say(f"{signals} SIGCHLD was pending, so I called wait(2) {signals} time: {left} zombies are left")
    codes = reap_all()
    say(f"waitpid(-1, WNOHANG) in a loop until ECHILD: {len(codes)} more collected, {brood.zombies()} zombies are left")
    notes.send((signals, left, len(codes), brood.zombies()))


def a_loop_loses_none(stage: Stage) -> None:
    stage.scene("The same burst, with that loop in the handler")
    deliveries, codes, zombies = ask(stage, handling_parent)
    once_each = sorted(codes) == list(range(CHILDREN))
    stage.check(once_each, f"{deliveries} signals, yet each exit code from 0 to {CHILDREN - 1} came once: none is lost")
    stage.check(zombies == 0, "none is left a zombie")


def handling_parent(notes: Connection) -> None:
    codes: list[int] = []
    wake_r, wake_w = os.pipe()
    os.set_blocking(wake_w, False)
    signal.set_wakeup_fd(wake_w)  # the kernel's deliveries leave a byte each, also those Python makes one call of
    signal.signal(signal.SIGCHLD, lambda *_: codes.extend(reap_all()))
    brood = Brood()
    brood.end_all()
    deliveries = 0
    while len(codes) < CHILDREN:
        deliveries += len(os.read(wake_r, CHILDREN))  # asleep here between signals
    say(f"SIGCHLD was delivered {deliveries} times, the handler's loop collected {len(codes)} exit codes")
    notes.send((deliveries, codes, brood.zombies()))


def the_kernel_may_reap(stage: Stage) -> None:
    stage.scene("SIGCHLD set to SIG_IGN: the kernel reaps by itself, and forgets how they ended")
    seen = ask(stage, ignoring_parent)
    stage.check(seen == (errno.ECHILD, 0), "wait(2) had nobody to report, and there is no zombie")


def ignoring_parent(notes: Connection) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    brood = Brood()
    brood.end_all()
    try:
        answer = os.wait()[0]  # sleeps until the last one is gone
    except ChildProcessError as err:
        say("wait(2) slept until all were gone, then said ECHILD: there is no exit code to be had")
        answer = err.errno or 0
    notes.send((answer, brood.zombies()))


if __name__ == "__main__":
    sys.exit(main())
