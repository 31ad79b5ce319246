"""Running a workload of script Gs on real processes.

    from ipclab import gmp

    result = gmp.run(workload, procs=2)                     a SimResult: jobs, totals, outcome
    result = gmp.run(workload, procs=2, events=True)        the same with result.events
    gmp.run(workload, on_event=print)                       each event as it is read, in batches every 10 ms
    gmp.run(workload, schedtrace_ms=100, on_schedtrace=print)   Go's text, as GODEBUG=schedtrace=100 has it

    with gmp.Simulation(workload, procs=2, events=True) as sim:    it runs from here on
        sim.ms()                     {M id: pid} of the Ms alive, sysmon among them; sim.template_pid
        sim.snapshot()               a SchedSnapshot: every field and list of sched and of each P, M and G
        sim.schedtrace(detailed=True)
        sim.set_procs(4)             stops the world, and goes on with 4 Ps
        os.kill(sim.ms()[3], signal.SIGKILL)                       its G is lost, all else goes on
        sim.read_events()            those since the last call
        sim.wait(timeout_s=5)        True: it has ended
        result = sim.result()        ends it if it has not
                                     leaving the block ends all processes, whatever happened

`workload` is a Workload (ipclab.gmp.workload says what a step is), a path to a TOML file, or the name of one that ships
(`ipclab gmp sim --list`). Models: "m:n", "n:1", "1:1"; `procs` is for m:n alone. The same seed draws the same times and
makes the same jobs; which M runs which G is up to the kernel.

Start it from a thread that lives as long as the run: the template dies with the thread that forked it. A process that
is killed takes template and Ms with it. A deadlock is no exception but an outcome: see `SimResult.outcome`.
"""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict, Unpack

from ipclab import _core
from ipclab.errors import IpclabError, UsageError, from_os_error
from ipclab.gmp.compile import compile_workload
from ipclab.gmp.counted import job_results, totals_of
from ipclab.gmp.eventlog import EventLog
from ipclab.gmp.outcome import message_of, outcome_of, waiting_gs
from ipclab.gmp.script import Op
from ipclab.gmp.spawned import jobs_of
from ipclab.gmp.state import GS_MOST, observed
from ipclab.gmp.workload import Workload
from ipclab.records.gmp import ModelName, SchedEvent, SchedSnapshot, SimResult

MODELS: dict[ModelName, int] = {"m:n": 0, "n:1": 1, "1:1": 2}
#: Processes a 1:1 run may have at a time.
MS_MOST = 20_000
_MS_USUAL = 1024
#: How often the rings are read while somebody wants events: 16384 of them are filled in about 1 ms at the earliest.
_READ_S = 0.005
_EVENT_SLOTS = 16_384
_RINGS_BYTES = 256 << 20
_EVENT_BYTES = 32
#: The segment is a file that is mapped whole, some GB of it, though hardly any of that is ever there.
_WAY_OUT: dict[int | None, str] = {
    errno.EAGAIN: "raise RLIMIT_NPROC (ulimit -u)",
    errno.EFBIG: "raise RLIMIT_FSIZE (ulimit -f): the segment is a file, of memory",
    errno.ENOMEM: "raise RLIMIT_AS (ulimit -v): the segment takes address space, some GB, and little memory",
}


class _More(TypedDict, total=False):
    event_slots: int | None
    randomize: bool
    preempt: bool
    maxg: int | None
    maxm: int | None


def cpus() -> int:
    """How many Ps a run gets by default: the CPUs this process may use, by affinity and its cgroup's quota."""
    return _core.gmp_cpus()


def run(
    workload: Workload | str | Path,
    *,
    procs: int | None = None,
    model: ModelName = "m:n",
    seed: int = 0,
    events: bool = False,
    on_event: Callable[[SchedEvent], object] | None = None,
    schedtrace_ms: float | None = None,
    on_schedtrace: Callable[[str], object] | None = None,
    detailed: bool = False,
    timeout_s: float | None = None,
    **more: Unpack[_More],
) -> SimResult:
    """Run it to its end. `more` are the other arguments of Simulation.

    Raises UsageError, NoRoom; IpclabError when the template died.
    """
    wanted = events or on_event is not None
    with Simulation(workload, procs=procs, model=model, seed=seed, events=wanted, **more) as sim:
        sim.wait(
            timeout_s,
            on_event=on_event,
            schedtrace_ms=schedtrace_ms,
            on_schedtrace=on_schedtrace,
            detailed=detailed,
        )
        result = sim.result()
    if on_event is None:
        return result
    for event in result.events:  # an M's last ones come when it is ended
        on_event(event)
    return result.without_events()


class Simulation:
    """One run, held open; see the top of this file. Not to be used again after `close`."""

    def __init__(
        self,
        workload: Workload | str | Path,
        *,
        procs: int | None = None,
        model: ModelName = "m:n",
        seed: int = 0,
        events: bool = False,
        event_slots: int | None = None,
        randomize: bool = False,
        preempt: bool = True,
        maxg: int | None = None,
        maxm: int | None = None,
    ) -> None:
        """Nothing runs yet. `event_slots`: events each M's ring holds, a power of two; `maxg`, `maxm`: Gs and Ms the
        segment holds; `preempt` False: sysmon leaves those alone that run longer than 10 ms. Raises UsageError."""
        if isinstance(workload, (str, Path)):
            from ipclab.gmp.load import load

            self._name = str(workload)
            workload = load(workload)
        else:
            self._name = workload.title or "workload"
        self.workload = workload
        self.model: ModelName = model
        self.seed = seed
        self._check(procs, model, seed)
        self._plan = compile_workload(workload, seed, self._name)
        if model != "m:n" and any(
            op == Op.STOPWORLD and ps for one in self._plan.programs for op, ps, _ns in one.steps
        ):
            raise UsageError(
                f"{self._name}: stopworld changes the Ps, and model {model} has no choice", hint="take m:n"
            )
        self._slots = event_slots
        self._sched = self._made(procs, events, randomize, preempt, maxg, maxm)
        self._lock = threading.RLock()
        self._log = EventLog(self._sched) if events else None
        self._given = False  # events, to somebody who asked while it ran
        self._ended_ns: int | None = None
        self._result: SimResult | None = None

    @staticmethod
    def _check(procs: int | None, model: str, seed: int) -> None:
        if model not in MODELS:
            raise UsageError(f"no model is called {model!r}", hint=f"{', '.join(MODELS)}")
        if not 0 <= seed < 1 << 64:
            raise UsageError(f"seed {seed} is out of range", hint="0 or more, below 2^64")
        if procs is None:
            return
        if model != "m:n":
            how = "n:1 has one P" if model == "n:1" else "1:1 has as many as there may be"
            raise UsageError(f"procs {procs} with model {model}: {how}", hint="leave it out, or take m:n")
        if not 1 <= procs <= _core.GMP_MAXPROCS:
            raise UsageError(f"{procs} Ps: a segment holds 1 to {_core.GMP_MAXPROCS}", hint=f"{cpus()} CPUs are here")

    def _made(
        self, procs: int | None, events: bool, randomize: bool, preempt: bool, maxg: int | None, maxm: int | None
    ) -> _core.Sched:
        plan = self._plan
        ms = maxm or _MS_USUAL
        if self.model == "1:1":
            ms = maxm or min(max(_MS_USUAL, plan.goroutines + 16), MS_MOST)
        slots = self._slots or (_slots_for(ms) if self.model == "1:1" else _EVENT_SLOTS)
        try:
            return _core.Sched(
                procs=procs or 0,
                model=MODELS[self.model],
                seed=self.seed,
                eventslots=slots if events else 0,
                maxg=maxg or 0,
                maxm=ms,
                programs=len(plan.programs),
                steps=max(1, sum(len(program.steps) for program in plan.programs)),
                chans=max(1, len(plan.channels)),
                semas=max(1, len(plan.semaphores)),
                words=max(1, sum(plan.channels)),
                randomize=randomize,
                nopreempt=not preempt,
            )
        except OSError as err:
            raise from_os_error(err, f"cannot make the segment for {self._name}", hint=_WAY_OUT.get(err.errno)) from err

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self) -> None:
        sched, plan = self._sched, self._plan
        for capacity in plan.channels:
            sched.chan(capacity)
        for value in plan.semaphores:
            sched.sema(value)
        for program in plan.programs:
            sched.program(program.steps)
        try:
            sched.start(0)
        except OSError as err:
            raise from_os_error(err, f"cannot start {self._name}", hint=_WAY_OUT.get(err.errno)) from err

    def close(self) -> None:
        """End all of its processes and give the segment back. Harmless the second time."""
        with self._lock:
            self._sched.close()

    # --- while it runs ---

    @property
    def template_pid(self) -> int:
        """The process that makes the Ms, and repairs what a dead one leaves."""
        return self._sched.sched_fields()["templatepid"]

    def ms(self) -> dict[int, int]:
        """M id -> pid of those alive. The M whose `mstartfn` is sysmon's is among them: it never has a P."""
        return {m["id"]: m["procid"] for m in self._records_of_ms() if m["procid"] > 0 and _lives(m)}

    def sysmon_pid(self) -> int | None:
        """None: it has not been made yet."""
        pids = [m["procid"] for m in self._records_of_ms() if m["mstartfn"] == 2 and m["procid"] > 0 and _lives(m)]
        return pids[0] if pids else None

    def _records_of_ms(self) -> Iterable[dict[str, int]]:
        sched = self._sched
        return [sched.m_fields(index) for index in sched.members("m.alllink", sched.sched_fields()["allm"], MS_MOST)]

    def set_procs(self, procs: int) -> None:
        """So many Ps from now on. Stops the world for it; blocks until it has stopped.

        Raises UsageError; IpclabError when the template died.
        """
        if not 1 <= procs <= _core.GMP_MAXPROCS:
            raise UsageError(f"{procs} Ps: a segment holds 1 to {_core.GMP_MAXPROCS}", hint=f"{cpus()} CPUs are here")
        if self.model != "m:n":
            raise UsageError(f"the number of Ps is no choice in model {self.model}", hint="take m:n")
        with self._lock, _template_lives():
            self._sched.set_procs(procs)

    def snapshot(self, most: int = GS_MOST) -> SchedSnapshot:
        """Everything; of the Gs the first `most`. All stands still while it is copied, or `notes` says why not."""
        with self._lock:
            return observed(self._sched, most)

    def schedtrace(self, detailed: bool = False) -> str:
        """One look in Go 1.25's format, with its newline."""
        return self._sched.schedtrace(detailed)

    def fileno(self) -> int:
        """The segment's memfd."""
        return self._sched.fileno()

    def read_events(self) -> list[SchedEvent]:
        """The events since the last call, in the order of their time. Empty where none were asked for."""
        with self._lock:
            self._given = True
            return self._log.read() if self._log else []

    def wait(
        self,
        timeout_s: float | None = None,
        *,
        on_event: Callable[[SchedEvent], object] | None = None,
        schedtrace_ms: float | None = None,
        on_schedtrace: Callable[[str], object] | None = None,
        detailed: bool = False,
    ) -> bool:
        """Until it has ended (True) or the time is over. Ctrl-C comes through. Other threads may look meanwhile.

        Raises IpclabError when the template died: nothing runs any more then.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        every_s = schedtrace_ms / 1000 if schedtrace_ms and on_schedtrace else None
        trace_at = time.monotonic() + every_s if every_s else None
        while True:
            now = time.monotonic()
            until = [at for at in (deadline, trace_at) if at is not None]
            slice_s = min([_READ_S if self._log else 0.05, *(max(0.0, at - now) for at in until)])
            ended = self._ended(slice_s)
            self._tell(on_event)
            now = time.monotonic()
            if ended or (deadline is not None and now >= deadline):
                return ended
            if trace_at is not None and every_s and on_schedtrace and now >= trace_at:
                on_schedtrace(self.schedtrace(detailed))
                trace_at = max(trace_at + every_s, now)

    def _ended(self, slice_s: float) -> bool:
        if self._result is not None:
            return True
        with self._lock:
            with _template_lives():
                ended = self._sched.wait(int(slice_s * 1e9)) != 0
            if ended and self._ended_ns is None:
                self._ended_ns = time.monotonic_ns()
            return ended

    def _tell(self, on_event: Callable[[SchedEvent], object] | None) -> None:
        with self._lock:
            if self._log is None:
                return
            fresh = self._log.read()
            if on_event is None:
                self._log.kept += fresh
            else:
                self._given = True
        if on_event is not None:
            for event in fresh:
                on_event(event)

    # --- afterwards ---

    def cut_short(self) -> str:
        """Why it ended before its Gs had: no room, or no process, for what they need. Empty: for no such reason."""
        reason, argument, text = self._sched.fatal()
        return message_of(reason, argument, text) if outcome_of(reason) in ("limit", "internal") else ""

    def result(self) -> SimResult:
        """What came of it; ends it if it has not. In `events` is what neither `read_events` nor `on_event` had."""
        with self._lock:
            if self._result is None:
                self._result = self._summed_up()
            return self._result

    def _summed_up(self) -> SimResult:
        sched, plan = self._sched, self._plan
        reason, argument, text = sched.fatal()
        ended_ns = self._ended_ns or time.monotonic_ns()
        waiting = waiting_gs(sched, plan) if reason == 2 else ()
        sched.stop()
        if self._log is not None:
            self._log.kept += self._log.read()
            self._log.kept.sort(key=lambda event: event.time_ns)
        fields = sched.sched_fields()
        start_ns = fields["starttime"]
        jobs = job_results(sched, plan)
        lasts = [job.finished_ns for job in jobs if job.finished_ns is not None]
        duration_ns = max(lasts) if reason == 1 and lasts else ended_ns - start_ns
        kept = self._log.kept if self._log else []
        whole = self._log is not None and not self._log.lost and not self._given
        return SimResult(
            workload=self.workload.title or self._name,
            model=self.model,
            procs=fields["gomaxprocs"],
            cpus=fields["ncpu"],
            seed=self.seed,
            outcome=outcome_of(reason),
            message=message_of(reason, argument, text),
            started_ns=start_ns,
            duration_ns=duration_ns,
            jobs=tuple(job for job in jobs if job.name != "main" or job.lost),
            totals=totals_of(sched, fields, list(self._records_of_ms()), self._log.lost if self._log else 0),
            lost_goids=tuple(sched.lost()[1]),
            waiting=waiting,
            waiting_total=argument if waiting else 0,
            events=tuple(kept),
            job_of=jobs_of(plan.programs, kept, whole) if kept else {},
            steps_of={one.job: tuple(dict.fromkeys(one.texts)) for one in plan.programs} if kept else {},
        )


@contextlib.contextmanager
def _template_lives() -> Iterator[None]:
    try:
        yield
    except ChildProcessError as err:
        raise IpclabError(
            "the template process of the scheduler died, and all Ms with it", hint="was it killed?"
        ) from err


def _lives(m: dict[str, int]) -> bool:
    return not m["dead"] and not m["exiting"]


def _slots_for(ms: int) -> int:
    """Events a ring may hold so that the rings of so many Ms stay within bounds; a power of two."""
    slots = _EVENT_SLOTS
    while slots > 256 and slots * _EVENT_BYTES * ms > _RINGS_BYTES:
        slots //= 2
    return slots
