"""sysv-shm: the oldest shared memory of Unix, found by a number.

What it is. shmget(2) makes a segment under a key, a number both sides agree on, and gives its id; shmat(2) maps it,
shmdt(2) unmaps it. There is no descriptor and no path: keys and ids are a name space of the IPC namespace, shown by
`ipcs -m` and /proc/sysvipc/shm. Today the kernel keeps the pages in a tmpfs of its own that is mounted nowhere.

    with SysvShm.create(4096, "board") as board:     board.key, board.id, board.buffer
        with SysvShm.attach(board.key) as other:     in another process

Lifetime. Kernel: until IPC_RMID or the next boot. IPC_RMID does not remove, it marks: the key is free at once, nobody
new can find the segment (by id still, on Linux), and the memory goes with the last detach, shown by ipcs as "dest"
until then. Attachments are inherited by fork and dropped by exec and exit. So, as with a file: create, let the other
side attach, remove at once, and a crash leaves nothing.

Boundaries. The memory has none, and no messages: bytes at addresses. The link here keeps them: a bounded buffer (see
_slots.py), with unnamed POSIX semaphores in the segment itself. SysV semaphores are its companions by age and would do
too, but a set of them is a second object that a crash leaves behind, and every operation on it a system call.

Order. None of its own; the semaphores carry it.

Capacity and limits. SHMMAX bytes a segment, SHMALL pages and SHMMNI segments in all: /proc/sys/kernel. The size of
/dev/shm plays no part. shmget reserves no pages, only commits to them: where memory has run out in the end, the
kernel kills somebody, and there is nothing like posix_fallocate to ask beforehand. So the size is compared with the
free memory here, and sysv_ipc writes every page once as it creates a segment.

Blocking. Loads and stores never block. Waiting is the protocol's: here a semaphore's futex sleep.

When an end dies. The kernel detaches it, and says so in shm_nattch to whoever asks; the memory keeps what was half
written. Here a slot counts only once its semaphore was posted; a watched peer's death ends a wait.

Use it when you have to talk to a program that does, or want to know at any time how many are attached.

Not when you can choose: POSIX shared memory has names and permissions of files, memfd has no name to leak. Keys made
by ftok(3) can collide, and a size is fixed for ever.

Man pages. sysvipc(7), shmget(2), shmop(2), shmctl(2), ipcs(1), proc_sys_kernel(5).
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any, Self

from ipclab.errors import IpclabError, NameInUse, NoRoom, Unavailable
from ipclab.mechanisms import _sysv
from ipclab.mechanisms.shared import _live
from ipclab.mechanisms.shared._segment import Segment, check_memory, check_size
from ipclab.mechanisms.shared._slots import SlotLink
from ipclab.processes import registry
from ipclab.records import Limit, Mechanism, Probe

MECHANISM = Mechanism(
    name="sysv-shm",
    family="shared memory",
    summary="a piece of memory found by its key, shmget and shmat",
    lifetime="kernel",
    boundaries=True,
    duplex=True,
    man_pages=("sysvipc(7)", "shmget(2)", "shmop(2)", "shmctl(2)"),
)

ROOM_HINT = "see `ipcs -lm` for the limits and `ipcs -m` for who uses them; `ipclab clean` removes what dead ones left"


class SysvShm(Segment):
    """One segment, attached. Leaving the `with` detaches it and, in the process that created it, removes it."""

    def __init__(self, what: str, shm: Any, *, created: bool) -> None:
        super().__init__(what, memoryview(shm), created=created)
        self._shm = shm
        self.key: int = shm.key
        self.id: int = shm.id

    @classmethod
    def create(cls, size_bytes: int, label: str = "shm") -> Self:
        """A new, zeroed segment under a new key, mode 0600. Raises NoRoom, Unavailable."""
        sysv_ipc = _sysv.load("SysV segments")
        check_size(size_bytes, "SysV shared memory")  # sysv_ipc would cut a larger number down in silence
        check_memory(size_bytes, "SysV shared memory")
        key = registry.new_key("sysv-shm", label)
        try:
            return cls._open(sysv_ipc, key, size_bytes)
        except BaseException:
            with suppress(sysv_ipc.Error):
                sysv_ipc.remove_shared_memory(_id_of(sysv_ipc, key))
            registry.forget("sysv-shm", key)
            raise

    @classmethod
    def attach(cls, key: int) -> Self:
        """The existing segment of that key. Raises IpclabError when there is none, Unavailable without permission."""
        return cls._open(_sysv.load("SysV segments"), key, None)

    @classmethod
    def _open(cls, sysv_ipc: Any, key: int, create_bytes: int | None) -> Self:
        what = f"SysV shared memory {key:#010x}"
        created = create_bytes is not None
        flags = sysv_ipc.IPC_CREX if created else 0
        try:
            shm = sysv_ipc.SharedMemory(key, flags, mode=0o600, size=create_bytes or 0, init_character=b"\0")
        except (sysv_ipc.Error, OSError, ValueError, MemoryError) as err:
            raise _open_error(sysv_ipc, err, what, create_bytes) from err
        return cls(what, shm, created=created)

    def attached(self) -> int:
        """How many attachments there are now, in all processes (shm_nattch)."""
        try:
            return int(self._shm.number_attached)
        except _sysv.load(self.what).ExistentialError:
            return 0

    def unlink(self) -> None:
        """IPC_RMID: the key is free at once, the memory goes with the last detach."""
        with suppress(_sysv.load(self.what).ExistentialError):
            self._shm.remove()
        registry.forget("sysv-shm", self.key)

    def _unmap(self) -> None:
        # Detaching under a live memoryview would leave it pointing nowhere: then the end of the process detaches.
        # Two references are ours: the attribute and getrefcount's own argument.
        if sys.getrefcount(self._shm) <= 2:
            with suppress(_sysv.load(self.what).NotAttachedError):
                self._shm.detach()


def _id_of(sysv_ipc: Any, key: int) -> int:
    """The id under a key, without leaving it attached."""
    shm = sysv_ipc.SharedMemory(key)
    shm.detach()
    return int(shm.id)


def _open_error(sysv_ipc: Any, err: Exception, what: str, size_bytes: int | None) -> IpclabError:
    if isinstance(err, sysv_ipc.ExistentialError):
        return NameInUse(f"{what} exists already") if size_bytes else IpclabError(f"{what} does not exist")
    if isinstance(err, (sysv_ipc.PermissionsError, PermissionError)):
        return Unavailable(f"{what}: no permission", hint="it belongs to another user, see `ipcs -m`")
    if size_bytes and isinstance(err, (OSError, ValueError, MemoryError)):
        return NoRoom(f"{what}: no room for {size_bytes} bytes: {err}", hint=ROOM_HINT)
    return IpclabError(f"{what}: {err}")


class SysvShmLink(SlotLink):
    """Slots in one SysV segment."""

    name = "sysv-shm"

    @classmethod
    def _create(cls, size_bytes: int) -> SysvShm:
        return SysvShm.create(size_bytes, "slots")


LINK = SysvShmLink


def probe() -> Probe:
    """Ask for a key that nobody has, and whether the table has room."""
    return _sysv.probe("SysV segments", "shm", _sysv.most("shmmni"), lambda sysv_ipc, key: sysv_ipc.SharedMemory(key))


def limits() -> tuple[Limit, ...]:
    """The kernel's three, and memory."""
    return (
        _live.sysctl("kernel/shmmax", "largest segment (SHMMAX)", "bytes"),
        _live.sysctl("kernel/shmall", "all segments together (SHMALL)", "pages"),
        _live.sysctl("kernel/shmmni", "segments (SHMMNI)", "segments"),
        _live.free_memory(),
        _live.address_space(),
        _live.map_count(),
    )
