"""A run: every case calibrated once, then samples of all of them, round by round, until there are enough.

    calibrate     each case: how many messages make a sample long enough; a case that cannot start is refused here
    round 0       one sample of each case, in the order of the plan
    round 1 ...   again; the machine's slow minutes so meet all mechanisms alike, and no two samples of one case are
                  neighbours (measuring-ipc: A B A B, never A A B B)
    make good     samples that do not count (the placement moved, the group was throttled) are taken again, in rounds of
                  the cases that lack some, a few times at most
    tracing       untimed: the system calls of the cases whose driver does not count them (traced.py)

A case that fails once has failed: it is not measured further, and its row says what went wrong. Time is looked at
before every sample; when it is over the run ends as it does on Ctrl-C, with what was measured.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from ipclab.bench import calibrate, clusters, environment, explain, overheads, plan, sample, statistics, traced
from ipclab.errors import IpclabError
from ipclab.machine import facts
from ipclab.records import Case, Environment, Options, Placement, Refusal, Run, Sample, TracedCalls

__all__ = ["Progress", "run"]

_ROUNDS, _QUICK_ROUNDS = 7, 5
_SAMPLE_MS, _QUICK_SAMPLE_MS = 100.0, 20.0
#: Of the 90 s that --quick may take: what is left is for the start, the tables and a machine slower than it was.
_QUICK_BUDGET_S = 72.0
#: Of the budget, what calibration may use: after that, cases start from the first guess.
_CALIBRATION_SHARE = 0.5
#: What tracing may take beyond it.
_QUICK_TRACING_S = 8.0
#: From here on it is told that the processes had to wait for their CPUs: as much as makes a row unsteady.
_MUCH_WAITING = 0.10
#: How many more rounds may be spent on samples that did not count.
_EXTRA_ROUNDS = 3
#: A sample that takes so much longer than it should is hung: 20 times, but some seconds at least.
_DEADLINE_FACTOR, _LEAST_DEADLINE_S = 20.0, 10.0


class Progress(NamedTuple):
    """What the progress callback is told before every sample, and once more at the end."""

    done: int
    total: int
    #: None before enough is known.
    left_s: float | None
    #: What is measured next: "calibrating pipe native 64 B".
    label: str


Callback = Callable[[Progress], None]


class _Course:
    """One case on its way through the run."""

    def __init__(self, case: Case) -> None:
        #: Depth and buffers are added to it when they are known.
        self.case = case
        self.messages = calibrate.first_count(case, 20_000_000)
        self.samples: list[Sample] = []
        self.refusal = ""

    @property
    def over(self) -> bool:
        """Whether it is not to be measured further."""
        return bool(self.refusal) or any(each.failure for each in self.samples)

    @property
    def kept(self) -> int:
        return sum(each.kept for each in self.samples)

    @property
    def uncounted(self) -> bool:
        """Whether it has been measured, by a driver that does not count system calls."""
        return not self.over and any(side.system_calls is None for each in self.samples for side in each.sides)


class _TimeOver(Exception):
    """The budget is used up."""


def run(
    cases: Sequence[Case],
    options: Options,
    *,
    refusals: Iterable[Refusal] = (),
    progress: Callback | None = None,
    command: str | None = None,
    trace: bool = True,
) -> Run:
    """Measure these cases and sum them up; blocks as long as that takes, with fresh processes for every sample.

    Ctrl-C ends it early: the run then has what was measured until there, and says `interrupted`. `command` is what to
    write into the record; None: this process's own command line. `trace`: whether system calls that a driver does not
    count are traced.
    """
    measured = _Measuring(cases, options, progress or (lambda _progress: None))
    before = environment.gather()
    throttled_before = environment.throttled()
    started = datetime.now(UTC)
    signo = 0
    try:
        measured.go()
        if trace:
            measured.trace()
    except KeyboardInterrupt as end:
        signo = getattr(end, "signo", signal.SIGINT)
    during = msgspec.structs.replace(before, throttled_ns=_since(throttled_before))
    refused = (*refusals, *(Refusal(case=one.case, reason=one.refusal) for one in measured.courses if one.refusal))
    done = tuple(one.case for one in measured.courses if not one.refusal)
    samples = _judge(each for one in measured.courses for each in one.samples)
    rows = statistics.rows(done, samples, refused, during, measured.traces)
    return Run(
        run_id=f"{started:%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}",
        started_at=started.isoformat(timespec="seconds"),
        duration_ns=time.monotonic_ns() - measured.origin_ns,
        command=shlex.join(["ipclab", *sys.argv[1:]]) if command is None else command,
        version=facts.version(),
        options=options,
        environment=during,
        placements=_placements(options),
        cases=done,
        refusals=refused,
        samples=samples,
        traces=tuple(measured.traces),
        rows=rows,
        explanation=explain.sentences(rows),
        notes=(*measured.notes, *_notes(during, done, samples, signo)),
        overheads=measured.overheads,
        interrupted=bool(signo),
        ended_by_signal=signo,
    )


class _Measuring:
    """The measuring itself, with what has been measured so far: it stays whatever ends it."""

    def __init__(self, cases: Sequence[Case], options: Options, progress: Callback) -> None:
        self.courses = [_Course(case) for case in cases]
        self.options = options
        self.progress = progress
        self.traces: list[TracedCalls] = []
        self.notes: list[str] = []
        self.overheads = overheads.NONE
        self.origin_ns = time.monotonic_ns()
        quick = options.quick
        self.rounds = options.rounds or (_QUICK_ROUNDS if quick else _ROUNDS)
        self.target_ns = int((options.sample_ms or (_QUICK_SAMPLE_MS if quick else _SAMPLE_MS)) * 1e6)
        budget_s = options.budget_s if options.budget_s is not None else _QUICK_BUDGET_S if quick else None
        self.until_ns = None if budget_s is None else self.origin_ns + int(budget_s * 1e9)
        self.done = 0
        #: Samples that are still expected: calibrating a case takes three as a rule.
        self.left = len(cases) * (self.rounds + 3)

    def go(self) -> None:
        """All samples. KeyboardInterrupt ends it early, and so does the budget."""
        try:
            self._go()
        except _TimeOver:
            self._note_time_over()

    def trace(self) -> None:
        """The system calls of what was measured and not counted; short messages first, in case the time is over."""
        wanted = [one for one in self.courses if one.uncounted]
        until_ns = None
        if self.options.quick:
            until_ns = max(time.monotonic_ns(), self.until_ns or 0) + int(_QUICK_TRACING_S * 1e9)
        self.left = len(wanted)
        for one in sorted(wanted, key=lambda one: one.case.size_bytes):
            if until_ns is not None and time.monotonic_ns() >= until_ns:
                late = "not counted: the time did not do to trace it (fewer mechanisms or sizes, or no --quick)"
                self.traces.append(TracedCalls(case_key=one.case.key, messages=0, reason=late))
                continue
            self._tell(f"tracing {label(one.case)}")
            self.traces.append(traced.trace(plan.driver(one.case.driver), one.case))
            self.done += 1
            self.left -= 1
        self._tell("done", left=0)

    def _go(self) -> None:
        self.overheads = overheads.measure({one.case.size_bytes for one in self.courses if one.case.size_bytes})
        self._calibrate()
        for number in range(self.rounds):
            self._round(number, self.courses)
        for number in range(self.rounds, self.rounds + _EXTRA_ROUNDS):
            lacking = [one for one in self.courses if not one.over and one.kept < self.rounds]
            self.left = sum(self.rounds - one.kept for one in lacking)
            self._round(number, lacking)
        self._tell("done", left=0)

    def _note_time_over(self) -> None:
        """The budget ended it: say so when a case has fewer samples than it should."""
        rounds = min((len(one.samples) for one in self.courses if not one.over), default=0)
        if rounds < self.rounds:
            self.notes.append(
                f"the time was over after {rounds} of {self.rounds} rounds: fewer mechanisms or sizes, or no --quick"
            )

    def _calibrate(self) -> None:
        for number, one in enumerate(self.courses):
            if self._calibration_is_late(number):
                self.left = max(0, self.left - 3)
                continue
            taken_before = self.done

            def take(messages: int, one: _Course = one) -> Sample:
                one.messages = messages
                return self._take(one, -1, f"calibrating {label(one.case)}")

            with self._refusing(one):
                one.messages, last = calibrate.calibrate(one.case, self.target_ns, take)
                if last.failure:
                    one.samples.append(last)
            self.left = max(0, self.left - max(0, 3 - (self.done - taken_before)))

    def _calibration_is_late(self, number: int) -> bool:
        """Whether the cases calibrated so far have used more than their share of the budget."""
        if self.until_ns is None:
            return False
        budget_ns = self.until_ns - self.origin_ns
        late = time.monotonic_ns() - self.origin_ns > budget_ns * _CALIBRATION_SHARE
        if late and not any("calibrat" in note for note in self.notes):
            count = len(self.courses) - number
            self.notes.append(f"the time did not do to calibrate the last {count} cases: their samples may be short")
        return late

    def _round(self, number: int, courses: Sequence[_Course]) -> None:
        for one in courses:
            if one.over:
                self.left = max(0, self.left - 1)
                continue
            with self._refusing(one):
                one.samples.append(self._long_enough(one, number))

    def _long_enough(self, one: _Course, number: int) -> Sample:
        """A sample; once more, with more messages, when it is far too short: calibrated in a slow moment."""
        taken = self._take(one, number, label(one.case))
        if taken.failure or not calibrate.far_too_short(one.case, taken.duration_ns, self.target_ns):
            return taken
        one.messages, _final = calibrate.next_count(one.case, one.messages, taken.duration_ns, self.target_ns)
        return self._take(one, number, label(one.case))

    def _take(self, one: _Course, number: int, text: str) -> Sample:
        if self.until_ns is not None and time.monotonic_ns() >= self.until_ns:
            raise _TimeOver
        self._tell(text)
        case = one.case
        scheduled_s = one.messages / case.rate_per_s if case.rate_per_s else 0.0
        order = sample.Order(
            case=case,
            round=number,
            messages=one.messages,
            warm_up=calibrate.warm_up(one.messages),
            deadline_s=max(_LEAST_DEADLINE_S, self.target_ns / 1e9 * _DEADLINE_FACTOR) + scheduled_s,
            origin_ns=self.origin_ns,
            memory_node=self.options.memory_node,
        )
        taken = sample.take(plan.driver(case.driver), order)
        one.case = msgspec.structs.replace(case, depth=taken.depth, buffers=taken.buffers)
        self.done += 1
        self.left = max(0, self.left - 1)
        return taken.sample

    @contextlib.contextmanager
    def _refusing(self, one: _Course) -> Iterator[None]:
        """What the kernel does not grant when the objects are made ends this case alone."""
        try:
            yield
        except IpclabError as err:
            one.refusal = " ".join(str(err).split())

    def _tell(self, text: str, left: int | None = None) -> None:
        left = self.left if left is None else left
        left_s = None
        if self.done >= 5:
            left_s = (time.monotonic_ns() - self.origin_ns) / 1e9 / self.done * left
        if self.until_ns is not None:
            rest_s = max(0.0, (self.until_ns - time.monotonic_ns()) / 1e9)
            left_s = rest_s if left_s is None else min(left_s, rest_s)
        self.progress(Progress(self.done, self.done + left, left_s, text))


def label(case: Case) -> str:
    """A case in a few words: "pipe native pingpong 64 B"."""
    words = [case.mechanism, case.driver, case.pattern]
    return " ".join([*words, f"{case.size_bytes} B"] if case.size_bytes else words)


def _judge(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """All samples, judged once more now that every fingerprint of the run is known; in the order they were taken."""
    found = sorted(samples, key=lambda each: each.started_ns)
    seen = [ns for each in found for ns in (each.fingerprint_before_ns, each.fingerprint_after_ns) if ns]
    borders = clusters.borders(seen)
    return tuple(sample.judge(each, borders) for each in found)


def _since(throttled_before: int | None) -> int | None:
    now = environment.throttled()
    return None if now is None or throttled_before is None else now - throttled_before


def _placements(options: Options) -> tuple[Placement, ...]:
    try:
        return plan.placements(options)
    except IpclabError:
        return ()


def _notes(environment_: Environment, cases: Sequence[Case], samples: Sequence[Sample], signo: int) -> tuple[str, ...]:
    """What a reader of the table has to know about all of it; `signo` has ended it early, if it is not 0."""
    notes = []
    if signo:
        by = "Ctrl-C" if signo == signal.SIGINT else signal.Signals(signo).name
        notes.append(f"ended early ({by}): the rows have fewer samples than were asked for")
    available = environment.cpu_count(environment_)
    if available < 2 and any(case.spins for case in cases):
        notes.append(f"{available:g} CPUs' worth of time: mechanisms that spin are marked, they need one for each side")
    found = {each.cluster for each in samples if each.kept}
    if len(found) > 1:
        notes.append(f"the CPUs were at different distances during the run ({', '.join(sorted(found))}): one row each")
    waited = statistics.waited_share(cases, samples)
    if waited is not None and waited >= _MUCH_WAITING:
        notes.append(
            f"the processes waited {waited:.0%} of the time for CPUs that other work had: stop that, measure again"
        )
    load = environment_.load_1min
    if load is not None and load > environment_.cpus_online * 0.5:
        notes.append(f"other work ran when this began (load {load:g}): expect dropped and scattered samples")
    return tuple(notes)
