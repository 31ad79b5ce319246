"""process-vm: read another process's memory while it does nothing, not even run.

    python demos/process_vm.py     (or: ipclab demo process-vm)

Look at: the owner, which is stopped (T) while its memory is read; one copy, with no buffer in the kernel and no word
from the owner; and the address that is not there, which is EFAULT for the reader and nothing at all for the owner.
man: process_vm_readv(2), ptrace(2) "Ptrace access mode checking"
"""

from __future__ import annotations

import errno
import signal
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from ipclab import _core
from ipclab.processes import Stage, say

FAMILY = "data transfer"
NEEDS = ("process-vm",)
BETTER_WITH = ()

SECRET = b"nobody has sent me"


def main() -> int:
    with Stage("process-vm", "Can a process be read without its doing anything?") as stage:
        read_a_stopped_process(stage)
        stage.verdict("who may trace a process may read it, in one copy; it need not run, and is not told")
    return stage.exit_code


def read_a_stopped_process(stage: Stage) -> None:
    stage.scene("The owner tells an address, and is stopped")
    ours, theirs = Pipe(duplex=False)
    owner = stage.spawn("owner", own, theirs)
    stage.release()
    address = stage.hear(ours)
    owner.signal(signal.SIGSTOP)
    stage.check(owner.wait_state("T"), "the owner is stopped (T): it executes nothing")
    stage.spawn("reader", read, owner.pid, address, theirs)
    stage.check(stage.hear(ours) == SECRET, f"the reader has its bytes: {SECRET.decode()!r}")
    stage.spawn("stray", read, owner.pid, 8, theirs)
    stage.check(stage.hear(ours) == errno.EFAULT, "an address that is not mapped there: EFAULT, for the reader")
    stage.check(owner.state() == "T", "the owner is where it was, and was never told")
    owner.signal(signal.SIGCONT)


def own(notes: Connection) -> None:
    _core.set_ptracer_any()  # where Yama lets only ancestors read
    memory = bytearray(SECRET)
    address = _core.address_of(memory)
    say(f"my {len(memory)} bytes are at {address:#x}")
    notes.send(address)
    signal.pause()


def read(pid: int, address: int, notes: Connection) -> None:
    buffer = bytearray(len(SECRET))
    try:
        count = _core.process_vm_readv(pid, address, buffer)
    except OSError as err:
        say(f"process_vm_readv(2) at {address:#x}: {err.strerror}")
        notes.send(err.errno)
    else:
        say(f"process_vm_readv(2) at {address:#x} returned {count}")
        notes.send(bytes(buffer))


if __name__ == "__main__":
    sys.exit(main())
