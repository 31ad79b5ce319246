"""`states.Tracker`: the front of core/tracker.h. Two threads: one stays in the core and looks, one fetches what it saw.

    with Tracker([pid], rate_hz=1000.0) as tracker:      with Tracker(command=["make"]) as tracker:
        ...                                                  tracker.run()
        head = tracker.recording()                       for interval in tracker.intervals(): ...

Memory is bounded: what is more than `MEMORY_BYTES` of intervals goes into the file `spill`, or into a temporary one.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from ipclab import _core
from ipclab.errors import IpclabError, UsageError, from_os_error
from ipclab.processes import procfs
from ipclab.records import Interval, Recording
from ipclab.states import heads
from ipclab.states.command import PASSED_ON, Command, passing_on
from ipclab.states.remains import Remains
from ipclab.states.sources import Layers
from ipclab.states.spans import ASSUMED, Span, in_order, interval_of, unpack
from ipclab.states.store import Store

SourceChoice = Literal["auto", "poll", "switch", "trace"]
#: Intervals kept in memory: 32 MiB are 700,000 of them.
MEMORY_BYTES = 32 << 20
#: How often the intervals are taken out of the core.
DRAIN_S = 0.05
#: In every which round the facts of all threads are taken too, so that those of the dead do not pile up.
FACTS_EVERY = 40
#: Above this a rate is flat out: no timer of the kernel is finer, and a look takes longer.
FASTEST_HZ = 100_000.0
#: Descriptors left to everything else in this process.
_FDS_SPARED = 64


class Tracker:
    """Follows processes with all their threads, and records the states they are in. A context manager.

    `pids`: processes that live. `command`: argv of one to start; it inherits stdio and terminal. `source`: which layer
    leads, "auto" the best there is. `rate_hz`: looks a second, None: flat out. `follow`: children too. `spill`: the
    SQLite file for all intervals. `on_progress`: called about 20 times a second, by a thread of the tracker.

    Raises UsageError for what cannot be meant, IpclabError when a pid does not exist, Unavailable when the source asked
    for is not to be had.
    """

    def __init__(
        self,
        pids: Sequence[int] = (),
        *,
        source: SourceChoice = "auto",
        rate_hz: float | None = 1000.0,
        follow: bool = True,
        command: Sequence[str | os.PathLike[str]] | None = None,
        on_progress: Callable[[Tracker], object] | None = None,
        spill: Path | None = None,
    ) -> None:
        if not pids and command is None:
            raise UsageError("there is nothing to track", hint="give a pid or a command")
        if rate_hz is not None and not 0 < rate_hz < float("inf"):
            raise UsageError(f"a rate of {rate_hz:g} looks a second cannot be", hint="more than 0; None is flat out")
        if source not in ("auto", "poll", "switch", "trace"):
            raise UsageError(f"there is no source {source!r}", hint="auto, poll, switch or trace")
        procfs.check()
        self.pids = tuple(pids)
        self.rate_hz = rate_hz
        self.follow = follow
        self.source = source
        self._starts = {pid: _start_of(pid) for pid in self.pids}
        self._argv = tuple(os.fspath(word) for word in command) if command is not None else ()
        self._on_progress = on_progress
        self._spill_path = spill
        self._lock = threading.RLock()
        # Guard of all below: _lock.
        self._chunks: list[bytes] = []
        self._chunk_bytes = 0
        self._count = 0
        self._assumed_ns = 0
        self._store: Store | None = None
        #: Why intervals could no longer be stored; "".
        self.spill_fault = ""
        self._names: list[str] = []
        self._facts: dict[int, heads.Facts] = {}
        self._notes: list[str] = []
        self._core: _core.Tracker | None = None
        self._layers: Layers | None = None
        self._command: Command | None = None
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()
        self._remains = Remains(self._starts)
        self._stopping = threading.Event()
        self._files = (0, 0)
        self._final: Recording | None = None
        self._started_at = ""
        self._start_ns = 0
        self._cpu_start_s = 0.0

    # --- its life ---

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.close()

    def start(self) -> None:
        """Begin the record. A command is started now, and runs once everything is ready for its first instruction."""
        if self._core is not None or self._final is not None:
            raise UsageError("this Tracker has been started already", hint="make a new one")
        self._files = _raise_limit()
        try:
            self._begin()
        except BaseException:
            self._undo()
            raise

    def _begin(self) -> None:
        if self._spill_path is not None:
            self._store = Store(self._spill_path)
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._start_ns = time.monotonic_ns()
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._core = _core.Tracker(self._period_ns(), self.follow, max(0, min(most, 1 << 20) - _FDS_SPARED))
        self._layers = layers = Layers(self._core)
        layers.lead(self.source)
        if self.follow:
            layers.hear()
        for pid in self.pids:
            layers.before(pid)
            self._add(pid)
        for pid in procfs.descendants(self.pids) if self.follow else ():
            layers.before(pid)
            with contextlib.suppress(OSError):  # it has ended, or /proc hides it
                self._core.add(pid, 0, False)
        if self._argv:
            with _held_signals():
                self._command = Command(self._argv, self._files)
                layers.before(self._command.pid)
                self._core.add(self._command.pid)
        self._threads = [
            threading.Thread(target=self._core.run, name="states-look", daemon=True),
            threading.Thread(target=self._pump, name="states-pump", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        if self._command is not None:
            self._command.release()

    def _add(self, pid: int) -> None:
        assert self._core is not None
        try:
            self._core.add(pid, self._starts[pid])
        except ProcessLookupError:
            self._notes.append(f"process {pid} ended before the record began")
        except OSError as err:
            raise from_os_error(err, f"cannot look at process {pid}") from err

    def _period_ns(self) -> int:
        if self.rate_hz is None:
            return 0
        if self.rate_hz > FASTEST_HZ:
            self._notes.append(f"{self.rate_hz:g} looks a second were asked for: it looks flat out")
            return 0
        return max(1, round(1e9 / self.rate_hz))

    def stop(self) -> None:
        """End the record. What was started and still runs is left running. Does nothing the second time."""
        core = self._core
        if core is None or self._final is not None:
            return
        self._stopping.set()
        core.stop()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        core.finish()
        self._drain()
        self._reap()
        self._final = self._recording()
        if self._store is not None and not self.spill_fault:
            self._guarded(lambda store: store.finish(self._final, self._names))  # type: ignore[arg-type]
        self._undo(keep_store=True)

    def close(self) -> None:
        """Give up what stop() leaves readable: intervals that were spilled into a temporary file."""
        self.stop()
        if self._store is not None:
            self._store.close()

    def _undo(self, *, keep_store: bool = False) -> None:
        self._stopping.set()
        if self._core is not None:
            self._core.stop()
            for thread in self._threads:
                if thread.ident is not None:
                    thread.join()
            self._core.close()
            self._core = None
        if self._layers is not None:
            self._layers.close()
            self._layers = None
        if self._command is not None:
            self._command.close()
        if self._store is not None and not keep_store:
            self._store.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, self._files)

    def run(self, duration_s: float | None = None) -> Recording:
        """Block until all that was named has ended, the time is over, or Ctrl-C; then stop, and return the head.

        With a command Ctrl-C and SIGTERM are the command's: it gets them, and the record goes on to its end.
        """
        with passing_on(lambda: self._command) if self._argv else contextlib.nullcontext():
            if self._core is None and self._final is None:
                self.start()
            with contextlib.suppress(KeyboardInterrupt):  # the way to end a record of pids
                self._ended.wait(duration_s)
            self.stop()
        assert self._final is not None
        return self._final

    # --- what it has seen ---

    def recording(self) -> Recording:
        """The head of the record, valid while it runs too."""
        if self._final is None:
            self._drain()
            return self._recording()
        return self._final

    def intervals(self, since_ns: int = 0) -> Iterator[Interval]:
        """The closed intervals that end after `since_ns`, ordered by their start; while it runs, those until now."""
        self._drain(facts=False)
        with self._lock:
            store, chunks, names = self._store, list(self._chunks), list(self._names)
        if store is not None:
            return store.intervals(names, since_ns)
        return (interval_of(span, names) for span in in_order(chunks, since_ns))

    def recent(self, seconds: float) -> dict[int, list[Interval]]:
        """tid -> its intervals of the last `seconds`, the one it is in now included, cut off at this moment."""
        if self._core is None:
            now_ns = self._final.end_ns if self._final else time.monotonic_ns()
            return _by_thread(self.intervals(now_ns - int(seconds * 1e9)))
        self._drain(facts=False)
        since_ns = time.monotonic_ns() - int(seconds * 1e9)
        with self._lock:
            chunks = self._recent_chunks(since_ns)
            spans = in_order([*chunks, self._core.open_spans()], since_ns)
            names = list(self._names)
        return _by_thread(interval_of(span, names) for span in spans)

    @property
    def exit_code(self) -> int | None:
        """Of the command: its exit code, 128 + n when signal n ended it. None: none was started, or it runs."""
        return self._command.exit_code if self._command is not None else None

    # --- the pump ---

    def _pump(self) -> None:
        rounds = 0
        while not self._rest():
            self._drain(facts=rounds % FACTS_EVERY == 0)  # of all threads: dear, where there are thousands
            rounds += 1
            self._reap()
            if self._is_over():
                self._ended.set()
            if self._on_progress is not None:
                self._on_progress(self)

    def _rest(self) -> bool:
        """Until the next round is due, or the command has ended: we leave no zombie. True: no more rounds."""
        if self._command is None or self._command.status is not None:
            return self._stopping.wait(DRAIN_S)
        _readable(self._command.pidfd, DRAIN_S)
        return self._stopping.is_set()

    def _is_over(self) -> bool:
        if self._command is not None:
            return self._command.status is not None
        assert self._core is not None
        if self._core.numbers()["named_alive"] == 0:
            return True
        zombies = self._remains.zombies()
        self._notes += [f"process {pid} is a zombie: its parent does not reap it" for pid in zombies]
        return bool(zombies)

    def _reap(self) -> None:
        command, core = self._command, self._core
        if command is None or core is None or command.status is not None or not _readable(command.pidfd):
            return
        with contextlib.suppress(ChildProcessError):
            core.round()  # its state Z is in the record before it goes
            status = command.reap()
            if status is not None:
                core.tell_exit(command.pid, status)
                core.round()

    def _drain(self, *, facts: bool = True) -> None:
        core = self._core
        if core is None:
            return
        with self._lock:
            data = core.spans()
            self._names += core.names(len(self._names))
            if facts:
                self._facts.update({one.serial: one for one in heads.unpack(core.facts())})
            if data:
                self._take(data)

    def _take(self, data: bytes) -> None:
        spans = [span for span in unpack(data) if span.flags & ASSUMED]
        self._assumed_ns += sum(span.end_ns - span.start_ns for span in spans)
        self._count += len(data) // 48
        self._chunks.append(data)
        self._chunk_bytes += len(data)
        if self._store is None and self._chunk_bytes > MEMORY_BYTES:
            self._store = Store(None)
            for chunk in self._chunks:
                self._guarded(lambda store, chunk=chunk: store.append(chunk))  # type: ignore[misc]
        elif self._store is not None:
            self._guarded(lambda store: store.append(data))
            self._guarded(lambda store: store.note_names(self._names))
        while self._store is not None and self._chunk_bytes > MEMORY_BYTES // 4 and len(self._chunks) > 1:
            self._chunk_bytes -= len(self._chunks.pop(0))

    def _guarded(self, work: Callable[[Store], object]) -> None:
        """Work on the store; when it fails the record goes on without it, and says so."""
        assert self._store is not None
        if self.spill_fault:
            return
        try:
            work(self._store)
        except IpclabError as err:
            self.spill_fault = str(err)
            self._notes.append(f"{err}: intervals after {time.monotonic_ns()} ns are missing, the totals are whole")

    def _recent_chunks(self, since_ns: int) -> list[bytes]:
        """The last chunks, as far back as one has an interval that ends after this moment."""
        for index in range(len(self._chunks) - 1, -1, -1):
            last = Span._make(next(iter(unpack(self._chunks[index][-48:]))))
            if last.end_ns < since_ns:
                return self._chunks[index + 1 :]
        return list(self._chunks)

    # --- the head ---

    def _recording(self) -> Recording:
        core, layers = self._core, self._layers
        assert core is not None
        assert layers is not None
        with self._lock:
            numbers, facts = core.numbers(), sorted(self._facts.values(), key=lambda one: (one.first_ns, one.tid))
            elapsed_s = max(1e-9, (numbers["now_ns"] - numbers["begun_ns"]) / 1e9)
            return Recording(
                command=shlex.join(sys.argv),
                pids=self.pids,
                tracked_command=tuple(str(word) for word in self._argv),
                started_at=self._started_at,
                start_ns=self._start_ns,
                end_ns=numbers["now_ns"],
                sources=layers.standings(numbers),
                rate_hz=self.rate_hz,
                reached_hz=numbers["rounds"] / elapsed_s,
                looks_per_s=numbers["looks"] / elapsed_s,
                follow=self.follow,
                threads=tuple(heads.tracked(one) for one in facts),
                intervals_count=self._count,
                completeness=heads.completeness(facts, numbers, self._assumed_ns),
                own_cpu_share=numbers["cpu_ns"] / 1e9 / elapsed_s,
                exit_code=self.exit_code,
                notes=(*self._notes, *layers.remarks(numbers), *_remarks(numbers)),
            )


def _remarks(numbers: dict[str, int]) -> Iterator[str]:
    if numbers["reopened"]:
        yield (
            f"{numbers['reopened']} reads had to open their file: too few descriptors to keep one for each thread; "
            "raise RLIMIT_NOFILE (ulimit -Hn)"
        )
    if numbers["missing"]:
        yield (
            f"{numbers['missing']} events were not told by the kernel, though they must have been (who loses a CPU had "
            "got one): there R is not split, or the time is not covered; --source switch may know more"
        )
    if numbers["late_events"]:
        yield f"{numbers['late_events']} events came too late to be drawn in full: their time counts as uncovered"
    if numbers["spans_lost"]:
        yield f"{numbers['spans_lost']} intervals were lost: Python did not fetch them in time"


def _start_of(pid: int) -> int:
    if pid < 1:
        raise UsageError(f"{pid} is no pid", hint="a number of 1 or more")
    try:
        return procfs.start_time(pid)
    except ProcessLookupError as err:
        raise IpclabError(f"there is no process {pid}", hint="it may have ended; see `ps -e`") from err


def _raise_limit() -> tuple[int, int]:
    """Make the soft limit of open files the hard one; what it was before."""
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (former[1], former[1]))
    return former


@contextlib.contextmanager
def _held_signals() -> Iterator[None]:
    """No exception may come between a fork and our knowing of the child."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _readable(fd: int, timeout_s: float = 0.0) -> bool:
    import select

    poller = select.poll()  # select.select() refuses descriptors above 1023
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(timeout_s * 1e3))


def _by_thread(intervals: Iterator[Interval]) -> dict[int, list[Interval]]:
    found: dict[int, list[Interval]] = {}
    for interval in intervals:
        found.setdefault(interval.tid, []).append(interval)
    return found
