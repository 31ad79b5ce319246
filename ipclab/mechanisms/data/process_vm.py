"""process-vm: the receiver reads the message straight out of the sender's memory (process_vm_readv(2)).

    sender                                         receiver
    ------                                         --------
    offer: "pid, address, length"  --pipe-->       takes the offer out of the pipe
    sleeps                                         process_vm_readv: copies from the sender's pages into its buffer
    send returns               <--pipe--  "taken"  recv_into returns

What it is. A system call that copies between the memories of two processes, once, without either of them sharing
anything. It carries no wake-up and knows no messages: somebody must say where the data are, and when they may change
again. Two small pipes each way do that here. process_vm_writev(2) is the other direction.

Lifetime. There is no object: only the pipes, which end with their descriptors.

Boundaries. Kept, because an offer names a length.

Order. First in, first out; the sender waits until each message has been taken.

Capacity and limits. Nothing is stored, so there is no capacity: a send is a meeting. One call copies at most 2 GiB -
4 KiB (MAX_RW_COUNT). The right to do it is that of ptrace(2): same user, and the sender "dumpable" (not set-uid, not
after prctl(PR_SET_DUMPABLE, 0)); or CAP_SYS_PTRACE. Yama (/proc/sys/kernel/yama/ptrace_scope) may narrow that: 1 only
to descendants or whom the sender names by PR_SET_PTRACER, which `take` does; 2 only with CAP_SYS_PTRACE; 3 nobody.

Blocking. send sleeps until the receiver has taken the copy, recv_into until an offer comes. A send whose time is over
takes its offer back out of the pipe, by opening its reading end anew through /proc/self/fd: whoever reads the offer
has it, so exactly one of the two does. If the receiver has it, the copy is under way, and its answer is waited for.

When an end dies. The pipes tell: end-of-file or EPIPE. A sender that dies in the middle of the copy is noticed before
the answer: its end of the pipe hangs up, so a reused pid is never read in silence.

Use it when messages are large and one copy is to be all (MPI libraries do), or in a debugger.

Not when messages are small (three system calls and two wake-ups each), the other side is not trusted with all of your
memory, or in containers that forbid the call.

Man pages. process_vm_readv(2), ptrace(2), prctl(2), pipe(7), capabilities(7).
"""

from __future__ import annotations

import errno
import os
import select
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from ipclab import _core
from ipclab.errors import BufferTooSmall, IpclabError, MessageTooLarge, PeerGone, TimedOut, Unavailable, from_os_error
from ipclab.mechanisms.base import PEER_LOOK_S, Deadline, End, Link, NativeSpec, Peer, watched
from ipclab.mechanisms.data._pipes import close_all, pipe_pairs, sysctl
from ipclab.mechanisms.data._streams import byte_view, wait_ready
from ipclab.records import Limit, Mechanism, Probe

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ipclab.mechanisms.base import Side
    from ipclab.mechanisms.data._cloakroom import Cloakroom

MECHANISM = Mechanism(
    name="process-vm",
    family="data transfer",
    summary="the receiver copies straight out of the sender's memory",
    lifetime="process",
    boundaries=True,
    duplex=False,
    man_pages=("process_vm_readv(2)", "ptrace(2)", "capabilities(7)", "pipe(7)"),
)

#: Most bytes of one process_vm_readv(2) (MAX_RW_COUNT in the kernel; read(2) names it).
MAX_RW_BYTES = 0x7FFFF000
_YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")
_CAP_SYS_PTRACE = 19
_OFFER = struct.Struct("<qQQ")  # pid, address, length: less than PIPE_BUF, so written and read in one piece
_ANSWER = struct.Struct("<i")  # 0: taken; else the errno of the receiver's process_vm_readv
#: How long a sender whose time is over waits for the answer of a receiver that has its offer. Chosen: copying 2 GiB
#: takes less than one second.
_UNDER_WAY_S = 30.0


class _Offer(NamedTuple):
    pid: int
    address: int
    size_bytes: int


def probe() -> Probe:
    """Read eight bytes of this process's own memory, and look what Yama would say to somebody else's."""
    here, there = bytearray(8), b"ipclab 8"
    try:
        _core.process_vm_readv(os.getpid(), _core.address_of(there), here)
    except OSError as err:
        remedy = "a kernel with CONFIG_CROSS_MEMORY_ATTACH, a seccomp profile that allows process_vm_readv(2)"
        return Probe(works=False, reason=f"process_vm_readv: {err.strerror}", remedy=remedy)
    scope = sysctl(_YAMA) or 0
    if scope >= 3 or (scope == 2 and not _may_ptrace()):
        remedy = "CAP_SYS_PTRACE" if scope == 2 else ""
        return Probe(works=False, reason=f"Yama forbids it: {_YAMA} is {scope}", remedy=remedy)
    return Probe(works=True)


def _may_ptrace() -> bool:
    try:
        status = Path("/proc/self/status").read_text()
        effective = int(status.split("CapEff:", 1)[1].split(None, 1)[0], 16)
    except (OSError, IndexError, ValueError):
        return False
    return bool(effective >> _CAP_SYS_PTRACE & 1)


def limits() -> tuple[Limit, ...]:
    """What bounds a copy, and Yama's word."""
    source = str(_YAMA) if _YAMA.exists() else f"{_YAMA}: no Yama in this kernel"
    scopes = "0 same user, 1 descendants, 2 CAP_SYS_PTRACE, 3 nobody"
    return (
        Limit(name="bytes in one copy", value=MAX_RW_BYTES, unit="bytes", source="MAX_RW_COUNT, process_vm_readv(2)"),
        Limit(name="Yama's ptrace scope", value=sysctl(_YAMA), unit=scopes, source=source),
    )


class ProcessVmEnd(End):
    """One side: offers and answers of both directions, each a pipe. Owns four descriptors."""

    limit_bytes = MAX_RW_BYTES
    limit_source = "MAX_RW_COUNT, the most one process_vm_readv(2) copies"

    def __init__(self, offers_in: int, answers_in: int, offers_out: int, answers_out: int) -> None:
        self._fds = (offers_in, answers_in, offers_out, answers_out)
        self._offers_in, self._answers_in, self._offers_out, self._answers_out = self._fds
        for fd in self._fds:
            os.set_blocking(fd, False)
        self._peer: Peer | None = None
        #: A record read from one of the two reading ends and not dealt with: an offer in hand, the end (b"").
        self._read: dict[int, list[bytes]] = {offers_in: [], answers_in: []}
        self._torn = ""
        self._closed = False

    def send(self, data: Buffer, timeout_s: float | None = None) -> None:
        """Offer `data` and return when the receiver has copied it. Raises also Unavailable: the receiver may not."""
        self._check_open()
        if self._torn:
            raise IpclabError(f"process-vm: {self._torn}", hint="open a new link")
        with byte_view(data) as view:
            if len(view) > MAX_RW_BYTES:
                raise MessageTooLarge(len(view), MAX_RW_BYTES, self.limit_source, syscall="process_vm_readv")
            address = _core.address_of(view) if len(view) else 0
            answer = self._offer(_OFFER.pack(os.getpid(), address, len(view)), Deadline(timeout_s))
            if answer:
                raise _refused(answer, "the receiver could not read this process's memory")

    def recv_into(self, buffer: Buffer, timeout_s: float | None = None) -> int:
        """Take the next offer and copy what it names. Raises also Unavailable: this process may not."""
        self._check_open()
        with byte_view(buffer, writable=True) as view:
            offer = self._next_offer(Deadline(timeout_s))
            if offer.size_bytes > len(view):
                self._put_back(offer)
                text = f"process-vm: a message of {offer.size_bytes} bytes, a buffer of {len(view)} bytes"
                raise BufferTooSmall(text, hint="it is kept: receive it into a larger buffer")
            number = self._copy(offer, view)
            with suppress(PeerGone):  # it has ended since: all the same, the message is here
                self._put(self._answers_out, _ANSWER.pack(number), [])
            self._read[self._offers_in].clear()
            if number:
                raise _refused(number, f"this process could not read the memory of process {offer.pid}")
            return offer.size_bytes

    def fileno(self) -> int:
        """The pipe offers come from."""
        self._check_open()
        return self._offers_in

    def watch(self, pid: int) -> None:
        """Also notice the end of `pid`: needed only where a third process keeps the other end open."""
        self._check_open()
        self._peer = Peer.instead_of(self._peer, pid)

    def native(self) -> NativeSpec:
        """By process_vm_readv(2), with the same offers and answers."""
        self._check_open()
        return NativeSpec("process-vm", self._fds, None, watched(self._peer))

    def close(self) -> None:
        """Close the pipes: the other side meets the end."""
        if self._closed:
            return
        self._closed = True
        if self._peer is not None:
            self._peer.close()
        close_all(self._fds)

    def _check_open(self) -> None:
        if self._closed:
            raise IpclabError("process-vm: this end is closed")

    # --- records through the pipes: noted in C, so that no exception of a signal handler loses one (see _streams.py) --

    def _put(self, fd: int, record: bytes, written: list[int]) -> None:
        try:
            written.extend(map(os.write, (fd,), (record,)))  # at most one is under way in each pipe: there is room
        except OSError as err:
            raise from_os_error(err, "process-vm", syscall="write") from err

    def _get(self, fd: int, size: int, deadline: Deadline, what: str) -> bytes:
        peer_gone = False
        read = self._read[fd]
        while not read:
            try:
                read.extend(map(os.read, (fd,), (size,)))
            except BlockingIOError:
                if peer_gone:
                    raise PeerGone("process-vm: the process on the other side has ended") from None
                peer_gone = not wait_ready(fd, select.POLLIN, deadline, self._peer, f"process-vm: {what}")
        if len(read[0]) != size:
            raise PeerGone("process-vm: the other side has closed its end", syscall="read")
        return read[0]

    def _answer(self, deadline: Deadline) -> int:
        record = self._get(self._answers_in, _ANSWER.size, deadline, "send: nobody has taken the message")
        self._read[self._answers_in].clear()
        return int(_ANSWER.unpack(record)[0])

    def _next_offer(self, deadline: Deadline) -> _Offer:
        return _Offer(*_OFFER.unpack(self._get(self._offers_in, _OFFER.size, deadline, "recv")))

    # --- the receiver -----------------------------------------------------------------------------------------------

    def _copy(self, offer: _Offer, view: memoryview) -> int:
        """Copy what an offer names; 0, or the errno that forbade it. Raises PeerGone when the sender ended by then."""
        number = done = 0
        try:
            while done < offer.size_bytes:
                done += _core.process_vm_readv(offer.pid, offer.address + done, view[done : offer.size_bytes])
        except OSError as err:
            number = err.errno or errno.EIO
        poller = select.poll()
        poller.register(self._offers_in, 0)  # POLLHUP: the only writing end is closed, so the sender has ended
        if poller.poll(0) or number == errno.ESRCH:
            raise PeerGone("process-vm: the sender ended before its message was taken", syscall="process_vm_readv")
        return number

    def _put_back(self, offer: _Offer) -> None:
        """Back into the pipe, so that the sender can still withdraw it; there is no other offer it could get behind."""
        fd = _open_other_end(self._offers_in, os.O_WRONLY)
        written: list[int] = []
        try:
            self._put(fd, _OFFER.pack(*offer), written)
        finally:
            os.close(fd)
            if written:
                self._read[self._offers_in].clear()

    # --- the sender -------------------------------------------------------------------------------------------------

    def _offer(self, offer: bytes, deadline: Deadline) -> int:
        """Offer, and wait for the answer; the offer is withdrawn when that ends in any other way."""
        written: list[int] = []
        try:
            self._put(self._offers_out, offer, written)
            return self._answer(deadline)
        except PeerGone:
            raise
        except TimedOut:
            answer = self._withdraw()
            if answer is None:
                raise
            return answer
        except BaseException:  # of a signal handler
            if written:
                self._withdraw()
            raise

    def _withdraw(self) -> int | None:
        """Read the offer back out of the pipe: None. When the receiver has it: its answer, which is on the way."""
        torn = "the link is broken: a message was given up, but the receiver may still read its buffer"
        under_way = Deadline(_UNDER_WAY_S)
        try:
            while not self._took_back():
                try:
                    return self._answer(Deadline(PEER_LOOK_S))
                except TimedOut as err:
                    if under_way.over():
                        raise TimedOut(f"process-vm: {torn}") from err
        except PeerGone:
            raise
        except BaseException:
            self._torn = torn
            raise
        return None

    def _took_back(self) -> bool:
        fd = _open_other_end(self._offers_out, os.O_RDONLY)
        try:
            return bool(os.read(fd, _OFFER.size))
        except BlockingIOError:
            return False
        finally:
            os.close(fd)


def _open_other_end(fd: int, access: int) -> int:
    """A descriptor of the other end of a pipe we hold one end of (/proc/self/fd opens the object anew, proc(5))."""
    try:
        return os.open(f"/proc/self/fd/{fd}", access | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as err:
        raise from_os_error(err, "process-vm: the pipe of the offers", syscall="open") from err


def _refused(number: int, text: str) -> IpclabError:
    """The error for an errno of process_vm_readv(2)."""
    what = f"process-vm: {text}: {os.strerror(number)}"
    if number not in (errno.EPERM, errno.ENOSYS):
        return IpclabError(what, errno=number, syscall="process_vm_readv")
    scope = sysctl(_YAMA)
    yama = "" if scope is None else f" {_YAMA} is {scope};"
    hint = f"{yama} it needs the same user on both sides and a dumpable sender, or CAP_SYS_PTRACE".strip()
    return Unavailable(what, errno=number, syscall="process_vm_readv", hint=hint)


class ProcessVmLink(Link):
    """Two pipes each way: offers and answers."""

    name = "process-vm"

    def __init__(self, cloakroom: Cloakroom) -> None:
        self._cloakroom = cloakroom

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        """Make the pipes. The sizes mean nothing here, no message is ever stored. Raises NoRoom."""
        cloakroom, _ = pipe_pairs(cls.name, count=2)
        return cls(cloakroom)

    def take(self, side: Side) -> ProcessVmEnd:
        """This side's four descriptors; never blocks. Where Yama asks for it, lets others of this user read us."""
        fds = self._cloakroom.fetch(side)
        try:
            _core.set_ptracer_any()
        except OSError as err:
            close_all(fds)
            raise from_os_error(err, "process-vm", syscall="prctl") from err
        return ProcessVmEnd(*fds)

    def close(self) -> None:
        """Let go of what nobody has taken; ends that were taken stay as they are."""
        self._cloakroom.close()


LINK = ProcessVmLink
