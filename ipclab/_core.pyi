"""The C core as Python sees it. Every function raises OSError with errno and an attribute `syscall` (the call's name).

Offsets are in bytes into a writable, mapped buffer (an mmap, a memoryview of shared memory) and must be aligned as the
object needs: 4 bytes for futex words, 8 for atomics of 64 bits, 64 for locks, condition variables, barriers and
semaphores. Buffers are borrowed for the call. `timeout_ns` None waits for ever. Calls that may block release the GIL and
return early only to let a signal handler run (then they go on, or its exception is raised).
"""

from typing import final

from typing_extensions import Buffer

SEM_SIZE: int
LOCK_SIZE: int
COND_SIZE: int
BARRIER_SIZE: int
ALIGN: int  # 64: alignment for the four above

# --- unnamed POSIX semaphore, process-shared (sem_init(3)) ---
def sem_init(buffer: Buffer, offset: int, value: int) -> None: ...
def sem_post(buffer: Buffer, offset: int) -> None: ...
def sem_wait(buffer: Buffer, offset: int, timeout_ns: int | None = None) -> bool:
    """False: timed out."""

def sem_getvalue(buffer: Buffer, offset: int) -> int: ...
def sem_destroy(buffer: Buffer, offset: int) -> None: ...

# --- robust lock: pthread mutex, process-shared, robust, error-checking, with its owner recorded ---
def lock_init(buffer: Buffer, offset: int) -> None: ...
def lock_acquire(buffer: Buffer, offset: int, timeout_ns: int | None = None) -> int:
    """0: ours. 1: ours, but the previous owner died holding it (EOWNERDEAD): repair the data, then lock_consistent.
    OSError ETIMEDOUT, EDEADLK (already ours), ENOTRECOVERABLE (somebody released it without repairing)."""

def lock_consistent(buffer: Buffer, offset: int) -> None: ...
def lock_release(buffer: Buffer, offset: int) -> None:
    """OSError EPERM when this thread is not the owner."""

def lock_owner(buffer: Buffer, offset: int) -> int:
    """The thread id recorded by the owner, 0 when free. After a death: the dead owner, until the next one acquires."""

# --- condition variable, process-shared, monotonic clock; used with a lock above ---
def cond_init(buffer: Buffer, offset: int) -> None: ...
def cond_wait(buffer: Buffer, cond_offset: int, lock_offset: int, timeout_ns: int | None = None) -> int:
    """0 woken, 1 woken and the lock's previous owner died; OSError ETIMEDOUT (the lock is held again all the same)."""

def cond_signal(buffer: Buffer, offset: int) -> None: ...
def cond_broadcast(buffer: Buffer, offset: int) -> None: ...

# --- cyclic barrier for processes on a futex (ours: pthread_barrier_t knows no deadline) ---
def barrier_init(buffer: Buffer, offset: int, parties: int) -> None: ...
def barrier_wait(buffer: Buffer, offset: int, timeout_ns: int | None = None) -> int:
    """The order of arrival in this round, 0 first, parties-1 last (the one that opened it). OSError ETIMEDOUT: this
    one has withdrawn from the round. EPIPE: barrier_break was called."""

def barrier_break(buffer: Buffer, offset: int) -> None: ...

# --- futex(2) on a 32-bit word, and the atomics that go with it (all sequentially consistent) ---
def futex_wait(buffer: Buffer, offset: int, expected: int, timeout_ns: int | None = None) -> bool:
    """True: woken, or the word was not `expected`. False: timed out."""

def futex_wake(buffer: Buffer, offset: int, count: int) -> int:
    """How many waiters were woken."""

def atomic_load(buffer: Buffer, offset: int) -> int: ...
def atomic_store(buffer: Buffer, offset: int, value: int) -> None: ...
def atomic_add(buffer: Buffer, offset: int, value: int) -> int:
    """The value before (32 bits, wraps)."""

def atomic_cas(buffer: Buffer, offset: int, expected: int, desired: int) -> int:
    """The value before; it was exchanged when that equals `expected`."""

# --- thin system calls Python lacks ---
def vmsplice(fd: int, buffer: Buffer, flags: int = 0) -> int: ...
def process_vm_readv(pid: int, address: int, buffer: Buffer) -> int: ...
def address_of(buffer: Buffer) -> int: ...
def sigqueue(pid: int, signo: int, value: int) -> None: ...
def pidfd_send_signal(pidfd: int, signo: int, value: int | None = None) -> None: ...
def signalfd(fd: int, signals: list[int], flags: int = 0) -> int: ...
def sigwaitinfo_value(signals: list[int], timeout_ns: int | None = None) -> tuple[int, int, int, int, int] | None:
    """(signo, code, pid, uid, value) of one pending signal; None: timed out."""

def set_pdeathsig(signo: int) -> None: ...
def set_child_subreaper(on: bool) -> None: ...
def set_ptracer_any() -> bool:
    """Let any process of this user trace this one where Yama asks for it; False where there is no Yama."""

# --- stamped messages: what a bench and the tests send (see core/message.h) ---
def message_fill(buffer: Buffer) -> None:
    """Make the payload; once per buffer."""

def message_stamp(buffer: Buffer, sequence: int) -> None: ...
def message_check(buffer: Buffer, sequence: int) -> bool:
    """True when sequence, length and the sum over every byte are right."""

class RingError(Exception): ...

@final
class Ring: ...  # see ipclab.Ring
