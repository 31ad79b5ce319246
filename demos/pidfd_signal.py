"""pidfd-signal: a descriptor for a process: a signal through it can never hit a stranger, and poll(2) sees it end.

    python demos/pidfd_signal.py   (or: ipclab demo pidfd-signal)

Look at: the pidfd, not readable while the process lives and readable when it has ended; and what a signal to a process
that has ended and been reaped does: through the pidfd ESRCH for ever, by number whatever process has that number then.
man: pidfd_open(2), pidfd_send_signal(2)
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys

from ipclab import _core
from ipclab.processes import Stage, say

FAMILY = "signals"
NEEDS = ("pidfd-signal",)
BETTER_WITH = ()

VALUE = 42


def main() -> int:
    with Stage("pidfd-signal", "How does one name a process without ever meaning another one?") as stage:
        through_the_descriptor(stage)
        stage.verdict("a pidfd means one process for ever: a signal through it may be late, never for a stranger")
    return stage.exit_code


def through_the_descriptor(stage: Stage) -> None:
    stage.scene("A signal with a payload through a pidfd")
    target = stage.spawn("target", wait_for_signal)
    pidfd = os.pidfd_open(target.pid)
    stage.release()
    stage.check(stage.asleep_in(target, syscall="rt_sigtimedwait"), "the target sleeps in rt_sigtimedwait(2)")
    stage.check(not readable(pidfd), "poll(2): its pidfd is not readable, it lives")
    _core.pidfd_send_signal(pidfd, signal.SIGUSR1, VALUE)
    ended = readable(pidfd, 5000)
    stage.check(ended, "poll(2): now it is readable, the process has ended")
    stage.check(target.wait(20).exit_code == VALUE, f"it had taken the payload: exit code {VALUE}")

    stage.scene("The process is reaped: its number is free for anybody")
    try:
        _core.pidfd_send_signal(pidfd, 0)
        number = 0
    except OSError as err:
        number = err.errno or 0
    stage.check(number == errno.ESRCH, f"a signal through the pidfd: {errno.errorcode.get(number, '0')}, nobody is hit")
    os.close(pidfd)


def readable(pidfd: int, timeout_ms: int = 0) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout_ms))


def wait_for_signal() -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    info = _core.sigwaitinfo_value([signal.SIGUSR1])
    assert info is not None
    say(f"took signal {info[0]} of process {info[2]} with the value {info[4]}")
    return info[4]


if __name__ == "__main__":
    sys.exit(main())
