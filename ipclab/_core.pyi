"""The C core as Python sees it. Every function raises OSError with errno and an attribute `syscall` (the call's name).

Offsets are in bytes into a writable, mapped buffer (an mmap, a memoryview of shared memory) and must be aligned as the
object needs: 4 bytes for futex words, 8 for atomics of 64 bits, 64 for locks, barriers and semaphores. Buffers are
borrowed for the call. `timeout_ns` None waits for ever. Calls that may block release the GIL and return early only to
let a signal handler run (then they go on, or its exception is raised).
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from typing_extensions import Buffer

SEM_SIZE: int
LOCK_SIZE: int
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
def is_child_subreaper() -> bool: ...
def set_ptracer_any() -> bool:
    """Let any process of this user trace this one where Yama asks for it; False where there is no Yama."""

# --- process states Python has no call for (see core/zoo.h) ---
def sleep_in_d(fd: int, timeout_ns: int) -> None:
    """Sleep uninterruptibly (D) until `fd` is readable or the time is over: the parent of a vfork waits for its child.
    Reads nothing. Only a deadly signal ends it earlier: a caught one waits. For processes of one thread."""

def trace_stop(pid: int) -> None:
    """Trace a process and stop it (t). It dies with this thread. OSError EPERM: not allowed, ESRCH: it has ended."""

def trace_end(pid: int) -> None:
    """Let it go on, untraced. Only for the thread that has stopped it."""

def reap_watched(pid: int, delay_ns: int = 0) -> tuple[int, int, bytes]:
    """Wait for a child until it has ended, while a thread reads /proc/PID/stat without pause.

    (status as os.waitstatus_to_exitcode takes it, how often it was read, its line in state X; empty: not met). X lasts
    some microseconds and is missed as often as it is seen: try again with another child and another delay (0 to 2500),
    the time between a look and the wait."""

# --- stamped messages: what a bench and the tests send (see core/message.h) ---
def message_fill(buffer: Buffer) -> None:
    """Make the payload; once per buffer."""

def message_stamp(buffer: Buffer, sequence: int) -> None: ...
def message_check(buffer: Buffer, sequence: int) -> bool:
    """True when sequence, length and the sum over every byte are right."""

class Ring:
    """See ipclab.Ring, its subclass."""

    def __init__(self, capacity_bytes: int, fd: int = -1) -> None: ...
    def put(self, data: Buffer, timeout_s: float | None = None) -> None: ...
    def put_nowait(self, data: Buffer) -> None: ...
    def get(self, timeout_s: float | None = None) -> bytes: ...
    def get_nowait(self) -> bytes: ...
    def get_into(self, buffer: Buffer, timeout_s: float | None = None) -> int: ...
    def get_into_nowait(self, buffer: Buffer) -> int: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...
    def _claim(self, consumer: bool) -> None: ...
    def _counts(self) -> dict[str, int]: ...

# --- the bench: histograms, native loops over any mechanism, placement (core/histogram.h, carrier.h, loops.h) ---
class Histogram:
    """Log-linear: 32 buckets per power of two from 0 to 2**42 ns, so that no value is off by more than 3.2 %.

    What lies above is counted in the last bucket; `min` and `max` are exact. Not for two threads at once.
    """

    def __init__(self) -> None: ...
    def record(self, ns: int) -> None:
        """ValueError when negative."""

    def record_many(self, values_ns: Iterable[int]) -> None: ...
    def merge(self, other: Histogram) -> None: ...
    def percentile(self, q: float) -> int:
        """The value below or at which q percent of all lie (0: min, 100: max), in ns: the middle of its bucket, never
        beyond min or max. ValueError when nothing was recorded or q is not within 0 and 100."""

    def buckets(self) -> list[tuple[int, int]]:
        """(lower bound in ns, count) of the buckets that have one, lowest first."""

    @classmethod
    def from_buckets(
        cls,
        buckets: Iterable[tuple[int, int]],
        min: int | None = None,  # noqa: A002 (named as the properties are)
        max: int | None = None,  # noqa: A002
    ) -> Histogram:
        """What buckets() gave. Without `min` and `max`, which buckets do not have, the bounds of the outer buckets."""

    @property
    def count(self) -> int: ...
    @property
    def min(self) -> int:
        """0 when nothing was recorded, as `max`."""

    @property
    def max(self) -> int: ...

class Counts(NamedTuple):
    """What one side of a loop did (a struct sequence). Fewer messages than asked for, none bad: the deadline came."""

    messages: int  # moved, and by the receiver verified; ping and pong: round trips
    duration_ns: int  # receivers: first to last message verified, messages - 1 of them; others: all of the loop
    system_calls: int  # the mechanism's own; see core/carrier.h for what is counted where
    sleeps: int  # how often this side went to sleep (what the kernel alone knows: voluntary context switches)
    wakes: int  # system calls made only to wake the other side
    bad_sequence: int  # of the first message that was not what it had to be; the loop ended there. -1: none

class Carrier:
    """One mechanism's way to move a message natively, made of an End's `native()`: Carrier(*end.native()).

    It borrows descriptors and buffer: close it before the End, and use the End for nothing else meanwhile. Every loop
    runs without the GIL; for Python's signal handlers it pauses within 50 ms at most, and ends when one raises.
    Messages are numbered from `first` on; both sides must agree on size, count and first. `deadline_ns` is absolute, on
    time.monotonic_ns()'s clock, and kept to within 50 ms: the loop then returns what it has got.

    OSError: the other side has gone (EPIPE, ECONNRESET, ...; EOWNERDEAD where its process was watched: within 0.2 s),
    or the mechanism refused (`syscall` names the kind); the attribute `counts` has what was done until then.
    Mechanisms without data (signals, semaphores, ...) know ping and pong only, and ignore `size`.
    """

    def __init__(self, kind: str, fds: tuple[int, ...], buffer: Buffer | None, numbers: Mapping[str, int]) -> None:
        """ValueError for an unknown kind or a part that is missing, OSError when the core could not make it."""

    def send(self, size: int, count: int, first: int = 0, deadline_ns: int | None = None) -> Counts:
        """The producer: fills a buffer once, stamps each message, sends it."""

    def receive(self, size: int, count: int, first: int = 0, deadline_ns: int | None = None) -> Counts:
        """The consumer: verifies every byte of each message."""

    def ping(
        self,
        size: int,
        count: int,
        histogram: Histogram | None = None,
        deadline_ns: int | None = None,
        first: int = 0,
    ) -> Counts:
        """Sends, waits for the reply of the same size, verifies it. With a histogram each round trip is recorded, at
        the price of one look at the clock; without, `duration_ns` alone tells."""

    def pong(self, size: int, count: int, deadline_ns: int | None = None, first: int = 0) -> Counts:
        """Waits, verifies, replies."""

    def send_on_schedule(
        self,
        size: int,
        count: int,
        start_ns: int,
        interval_ns: int,
        first: int = 0,
        deadline_ns: int | None = None,
        spin_ns: int = 150_000,
    ) -> Counts:
        """Message i is due at start_ns + i * interval_ns. Sleeps until `spin_ns` before that and then spins (0: only
        sleeps; right when both sides share a CPU). What is late is sent at once: the schedule does not wait."""

    def receive_on_schedule(
        self,
        size: int,
        count: int,
        start_ns: int,
        interval_ns: int,
        histogram: Histogram,
        first: int = 0,
        deadline_ns: int | None = None,
    ) -> Counts:
        """Records for each message the time since it was due."""

    def close(self) -> None:
        """Give back what it made for itself. Ring and slots: the other side meets the end. Twice is allowed."""

    @property
    def kind(self) -> str: ...

def fingerprint(cpu_a: int, cpu_b: int, rounds: int = 1000) -> int:
    """How far apart two CPUs are now: median ns of a cache line's way there and back between two spinning threads, one
    pinned to each; 0 when both are the same. Restores this thread's affinity. Takes below 1 ms on quiet CPUs, at most
    0.5 s on busy ones. OSError: EINVAL no such CPU or not ours, ETIMEDOUT too busy to tell."""

def verification_cost(size: int) -> float:
    """ns that message_check alone takes for one message of that size which lies in the cache; measured for 5 ms."""

# --- states: core/tracker.h, core/launch.h ---
class Tracker:
    """Follows processes and turns what the kernel tells of them into intervals.

    `period_ns` between looks (0: flat out); `fds_most`: descriptors it may keep open. `run` blocks without the GIL
    until `stop`; the other methods may be called from other threads meanwhile. `close` needs `run` to have returned.
    """

    def __init__(self, period_ns: int, follow: bool, fds_most: int) -> None: ...
    def use_switch(self) -> tuple[int, int]:
        """The source `switch` leads: bytes of a ring, and how many. OSError with syscall perf_event_open or mmap."""

    def use_trace(self, layout: tuple[int, ...], fds: tuple[int, ...], cpus: tuple[int, ...], /) -> None:
        """The source `trace` leads. The layout is that of core/trace.h, number by number; the fds are the Tracker's."""

    def use_events(self, fd: int, /) -> None:
        """Process events from procevents_open(); the fd is the Tracker's."""

    def add(self, pid: int, start_ticks: int = 0, named: bool = True, /) -> None:
        """OSError ESRCH: no such process, or (start_ticks not 0) another one with this pid; EACCES: /proc hides it."""

    def tell_exit(self, pid: int, status: int, /) -> None: ...
    def run(self, deadline_ns: int = -1, /) -> None: ...
    def round(self) -> None:
        """One look at everything, by the calling thread."""

    def stop(self) -> None: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...
    def spans(self) -> bytes:
        """The intervals closed since the last call: struct span of core/timeline.h."""

    def open_spans(self) -> bytes:
        """The intervals open now, cut off at this moment."""

    def facts(self) -> bytes:
        """struct facts of core/followed.h of all threads alive, and of those gone since the last call."""

    def names(self, from_: int, /) -> list[str]:
        """The kernel functions slept in, from this index on; a span's wchan is the index plus 1."""

    def numbers(self) -> dict[str, int]: ...

def procevents_open() -> int:
    """A socket on the process events connector; core/procevent.h."""

def tracefs_open() -> int:
    """A descriptor of tracefs' root that is mounted nowhere; core/tracefs.h."""

def launch(
    path: bytes, argv: tuple[bytes, ...], environment: tuple[bytes, ...], soft_files: int, hard_files: int, /
) -> tuple[int, int, int]:
    """(pid, release_fd, failed_fd) of a command held before its execve; core/launch.h."""

# --- the scheduler (GMP) ---
GMP_MAXPROCS: int  # Ps a segment holds
GMP_SELECT_MOST: int

class Sched:
    """One run of script Gs; or a look at one (`attach`, `copy`), from which nothing can be changed.

    Numbers are the core's (core/gmp/gmp.h, runtime2.h). A run belongs to the process that made it; while a thread is in
    `wait`, `set_procs` or `stop` (which give the GIL up) another one is refused everything but looking (RuntimeError).
    `start` forks the template from the calling thread, and with that thread it dies.
    """

    def __init__(
        self,
        *,
        procs: int = 0,
        model: int = 0,
        seed: int = 0,
        eventslots: int = 0,
        maxg: int = 0,
        maxm: int = 0,
        programs: int = 0,
        steps: int = 0,
        chans: int = 0,
        semas: int = 0,
        words: int = 0,
        randomize: bool = False,
        nopreempt: bool = False,
        mainends: bool = False,
    ) -> None: ...
    @staticmethod
    def attach(fd: int, /) -> Sched:
        """Another process's segment, read-only. OSError EBADMSG, EPROTOTYPE (no scheduler), EPROTO (another build),
        ENODATA (shorter than it says)."""

    def copy(self, most: int, /) -> Sched:
        """In this process's memory, without event rings, and of the Gs the first `most`."""

    def observe(self, most: int, timeout_ns: int | None, /) -> tuple[Sched, bool, bool, int, int, int]:
        """A copy made while all stands still; blocks without the GIL. Whether it is consistent, whether it was held
        for this, for how many ns; why not: the index of the M that is inside and does not come out, an errno."""

    def chan(self, capacity: int, /) -> int: ...
    def sema(self, value: int = 0, /) -> int: ...
    def program(self, steps: list[tuple[int, int, int]], /) -> int:
        """Steps are (op, a, b). OSError ENOSPC: more than the segment holds."""

    def start(self, program: int, /) -> None:
        """ValueError: a step is wrong."""

    def wait(self, timeout_ns: int | None = None, /) -> int:
        """enum fatal, 0: timed out. OSError ECHILD: the template has died."""

    def set_procs(self, procs: int, /) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...
    def tally(self, program: int, /) -> tuple[int, int, int, int, int, int, int, int]:
        """spawned, done, lost, sum received; turnaround, response, waiting, last end: in ticks."""

    def events(self, m: int, from_: int, /) -> tuple[bytes, int, int]:
        """struct event of ring m (an M's id + 1) from number `from_` on, where to go on, how many were overwritten."""

    def clock(self) -> tuple[int, int, int, int]:
        """Ticks and CLOCK_MONOTONIC nanoseconds: at the start, and now."""

    def fatal(self) -> tuple[int, int, str]:
        """enum fatal, its argument, its text."""

    def lost(self) -> tuple[int, list[int]]:
        """How many Gs died with their M; the goids of the last 64."""

    def schedtrace(self, detailed: bool = False, /) -> str: ...
    def usage(self) -> tuple[int, int, int, int]:
        """After stop: user and system ns, voluntary and involuntary switches of template and Ms."""

    def fileno(self) -> int:
        """-1: a copy has none."""

    def left_out(self) -> int:
        """Of a copy: Gs that were there when it was made and are not in it."""

    def sched_fields(self) -> dict[str, int]: ...
    def p_fields(self, p: int, /) -> dict[str, int]: ...
    def p_runq(self, p: int, /) -> list[int]: ...
    def m_fields(self, m: int, /) -> dict[str, int]: ...
    def g_fields(self, g: int, /) -> dict[str, Any]: ...
    def chan_fields(self, c: int, /) -> dict[str, Any]: ...
    def sema_fields(self, s: int, /) -> dict[str, Any]: ...
    def members(self, kind: str, first: int, most: int, /) -> list[int]:
        """A list's members: "m.schedlink", "m.alllink", "p.link", "g.schedlink"."""

def gmp_cpus() -> int: ...
def gmp_event_name(kind: int, /) -> str: ...
