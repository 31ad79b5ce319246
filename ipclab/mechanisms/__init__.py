"""Every IPC mechanism of Linux, one readable file each, in the families the kernel and the textbooks have.

    data/     communication by data transfer: the kernel carries bytes or messages
    shared/   communication by shared memory: the kernel only maps pages, the processes do the rest
    signals/  a number (and perhaps a word) delivered between two instructions
    sync/     no data at all: who may go on

The table below is the catalogue; a mechanism's module is imported when somebody asks for it, so that naming them all
costs nothing. `base.py` has the interface all data-carrying ones share.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, cast

from ipclab.errors import UsageError

if TYPE_CHECKING:
    from ipclab.mechanisms.base import MechanismModule

#: name -> module below ipclab.mechanisms, in the order in which `ipclab list` shows them
CATALOGUE = {
    "pipe": "data.pipe",
    "vmsplice": "data.vmsplice",
    "fifo": "data.fifo",
    "posix-mq": "data.posix_mq",
    "sysv-mq": "data.sysv_mq",
    "unix-stream": "data.unix_stream",
    "unix-datagram": "data.unix_datagram",
    "unix-seqpacket": "data.unix_seqpacket",
    "tcp": "data.tcp",
    "udp": "data.udp",
    "zmq-ipc": "data.zmq_ipc",
    "zmq-tcp": "data.zmq_tcp",
    "fd-passing": "data.fd_passing",
    "process-vm": "data.process_vm",
    "posix-shm": "shared.posix_shm",
    "sysv-shm": "shared.sysv_shm",
    "memfd": "shared.memfd",
    "mmap-file": "shared.mmap_file",
    "ring": "shared.ring",
    "signal": "signals.standard",
    "rt-signal": "signals.realtime",
    "signalfd": "signals.signalfd",
    "pidfd-signal": "signals.pidfd",
    "posix-sem": "sync.posix_sem",
    "unnamed-sem": "sync.unnamed_sem",
    "sysv-sem": "sync.sysv_sem",
    "futex": "sync.futex",
    "robust-mutex": "sync.robust_mutex",
    "condvar": "sync.condvar",
    "eventfd": "sync.eventfd",
    "flock": "sync.flock",
    "fcntl-lock": "sync.fcntl_lock",
    "barrier": "sync.barrier",
}


def load(name: str) -> MechanismModule:
    """The module of one mechanism. Raises UsageError with the nearest name."""
    path = CATALOGUE.get(name)
    if path is None:
        near = get_close_matches(name, CATALOGUE, n=1, cutoff=0.0)
        hint = f"did you mean {near[0]!r}? `ipclab list` has them all"
        raise UsageError(f"no mechanism is called {name!r}", hint=hint)
    return cast("MechanismModule", import_module(f"ipclab.mechanisms.{path}"))
