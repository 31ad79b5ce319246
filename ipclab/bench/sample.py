"""One sample: processes made for it, each pinned to its CPU, watched until they have reported, and gone after it.

    throttled time, fingerprint
    kernel objects made              by this process, on the memory node that was asked for
    roles forked                     launcher: parent-death signal, groups, deadline, everything reaped
    barrier opened -> they warm up, run, report
    fingerprint, throttled time
    objects gone

A role that dies (somebody killed it, the kernel's memory is out) makes the sample fail at once with a sentence that
says who and how; so does one that is not done at the deadline. The others are then ended, they are not waited for.

A sample is raw. Whether it counts is decided by `judge`, once more at the end of a run when all its fingerprints are
known; why not is a sentence that is the same for all samples with that reason, so that they can be counted.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ipclab import _core
from ipclab.bench import clusters, environment, role, topology
from ipclab.bench.driver import Driver, Job, Lane, SideResult
from ipclab.bench.role import Report, Role
from ipclab.errors import IpclabError
from ipclab.processes import Launcher, Process
from ipclab.records import Case, Sample, SideCost

if TYPE_CHECKING:
    from ipclab.mechanisms.base import Side

MOVED = "the two CPUs' distance changed during it"
UNKNOWN = "the CPUs were too busy to tell their distance"
THROTTLED = "the control group was throttled during it"

#: Once one role has failed, how long the others have to say what they saw: the one that met the bad message may be
#: slower than the one whose peer went away.
_LAST_WORDS_S = 2.0
_FINGERPRINT_ROUNDS = 1000
#: An open loop's first message is due so long after the fork, plus so much for each process: all must be there.
_LEAD_NS, _LEAD_EACH_NS = 30_000_000, 5_000_000


class Order(NamedTuple):
    """What one sample shall be."""

    case: Case
    round: int
    messages: int
    warm_up: int
    #: For the roles; the launcher kills them a little later.
    deadline_s: float
    #: When the run began, on the monotonic clock.
    origin_ns: int = 0
    memory_node: int | None = None


class Taken(NamedTuple):
    """A sample, and what the kernel gave for it."""

    sample: Sample
    depth: int | None
    buffers: dict[str, int]


def roles(case: Case) -> list[Role]:
    """The processes a case needs, in the order of its CPUs."""
    if (case.producers, case.consumers) != (1, 1):
        both: list[tuple[Side, int, int]] = [("a", 0, i) for i in range(case.producers)]
        both += [("b", 0, i) for i in range(case.consumers)]
    else:
        both = [(side, pair, 0) for pair in range(case.pairs) for side in ("a", "b")]
    many = Counter(side for side, _pair, _worker in both)
    return [
        Role(side, pair, worker, cpu, f"{side}{pair + worker + 1}" if many[side] > 1 else side)
        for (side, pair, worker), cpu in zip(both, case.cpus, strict=True)
    ]


def take(driver: Driver, order: Order) -> Taken:
    """Take one sample; blocks until all its processes are gone. Raises IpclabError when the objects cannot be made,
    KeyboardInterrupt; whatever happens later is in the sample."""
    case = order.case
    crew = roles(case)
    started_ns = time.monotonic_ns()
    throttled_before, before = environment.throttled(), fingerprint(case)
    with contextlib.ExitStack() as stack:
        stack.enter_context(topology.memory_on(order.memory_node))
        with _made_near(crew[0].cpu):
            lanes = [stack.enter_context(driver.open(case)) for _ in range(max(each.pair for each in crew) + 1)]
        reports, failure = _perform(crew, lanes, order)
        taken = Taken(_sum_up(order, crew, reports, failure), lanes[0].depth, dict(lanes[0].buffers))
    after, throttled_after = fingerprint(case), environment.throttled()
    sample = msgspec.structs.replace(
        taken.sample,
        fingerprint_before_ns=before,
        fingerprint_after_ns=after,
        throttled_ns=(throttled_after or 0) - (throttled_before or 0),
        started_ns=started_ns - order.origin_ns,
    )
    return taken._replace(sample=judge(sample, clusters.borders(())))


def fingerprint(case: Case) -> int | None:
    """How far apart the two sides of the first pair are, in ns; None when they are too busy to tell."""
    first = next(each.cpu for each in roles(case) if each.side == "a")
    second = next(each.cpu for each in roles(case) if each.side == "b")
    try:
        return _core.fingerprint(first, second, _FINGERPRINT_ROUNDS)
    except OSError:
        return None


def judge(sample: Sample, borders: clusters.Borders) -> Sample:
    """The sample with its cluster, and with whether it counts."""
    before, after = sample.fingerprint_before_ns, sample.fingerprint_after_ns
    known = before is not None and after is not None
    middle = round((before * after) ** 0.5) if before is not None and after is not None else None
    reason = ""
    if sample.failure:
        reason = "it failed"
    elif sample.throttled_ns > 0:
        reason = THROTTLED
    elif not clusters.agree(before, after, borders):
        reason = MOVED if known else UNKNOWN
    return msgspec.structs.replace(
        sample,
        cluster=clusters.cluster(middle, borders) if reason not in (MOVED, UNKNOWN) else "?",
        kept=not reason,
        dropped_reason=reason,
    )


# --- the processes ---------------------------------------------------------------------------------------------------


def _perform(crew: list[Role], lanes: list[Lane], order: Order) -> tuple[dict[str, Report], str]:
    """Run the roles; their reports by name, and why the sample has failed (then some may be missing)."""
    now_ns = time.monotonic_ns()
    rate = order.case.rate_per_s
    job = Job(
        case=order.case,
        messages=order.messages,
        warm_up=order.warm_up,
        start_ns=None if rate is None else now_ns + _LEAD_NS + _LEAD_EACH_NS * len(crew),
        interval_ns=None if rate is None else max(1, round(1e9 / rate)),
        deadline_ns=now_ns + int(order.deadline_s * 1e9),
    )
    with contextlib.ExitStack() as stack:
        # Its own deadline is the last resort: a role that neither reports nor ends.
        launcher = stack.enter_context(Launcher(deadline_s=order.deadline_s + 5, grace_s=0.2, sink=lambda _line: None))
        watched: dict[str, tuple[Process, int]] = {}
        for each in crew:
            reader, writer = os.pipe()
            stack.callback(os.close, reader)
            os.set_blocking(reader, False)
            try:
                process = launcher.spawn(each.name, role.play, lanes[each.pair], each, job, writer, killable=True)
            finally:
                os.close(writer)
            watched[each.name] = (process, reader)
        launcher.release()
        return _hear(watched, order.deadline_s)


def _hear(watched: dict[str, tuple[Process, int]], deadline_s: float) -> tuple[dict[str, Report], str]:
    """Collect the reports until all roles have ended, or one has failed and the others had their last words."""
    heard: dict[str, bytearray] = {name: bytearray() for name in watched}
    reports: dict[str, Report] = {}
    deaths: dict[str, str] = {}
    until = time.monotonic() + deadline_s + 1.0
    while len(reports) + len(deaths) < len(watched):
        left = {name: pair for name, pair in watched.items() if name not in reports and name not in deaths}
        if not _wait(left, until - time.monotonic()):
            if not deaths and not any(_fault(report) for report in reports.values()):
                deaths = dict.fromkeys(left, f"{', '.join(left)} was not done after {deadline_s:g} s")
            break
        for name, (process, reader) in left.items():
            ended = not process.alive()
            heard[name] += _drain(reader)
            report = role.decode(bytes(heard[name])) if heard[name] else None
            if report is not None:
                reports[name] = report
            elif ended:
                deaths[name] = _how_it_died(process)
            if deaths or (report is not None and _fault(report)):
                until = min(until, time.monotonic() + _LAST_WORDS_S)
    return reports, next(iter(deaths.values()), "")


def _wait(left: dict[str, tuple[Process, int]], timeout_s: float) -> bool:
    """Until one of them has written or ended; False when the time is over."""
    poller = select.poll()
    for process, reader in left.values():
        # A pipe says POLLHUP only when every role that inherited it has ended: the process is watched besides.
        poller.register(reader, select.POLLIN)
        poller.register(process.pidfd, select.POLLIN)
    return bool(poller.poll(max(0.0, timeout_s) * 1e3))


def _drain(reader: int) -> bytes:
    found = b""
    with contextlib.suppress(BlockingIOError):
        while data := os.read(reader, 65536):
            found += data
    return found


def _how_it_died(process: Process) -> str:
    ending = process.wait(20.0)
    if ending.signal is not None:
        try:
            how = f"was ended by {signal.Signals(ending.signal).name}"
        except ValueError:
            how = f"was ended by signal {ending.signal}"
    else:
        how = f"ended with exit code {ending.exit_code}"
    return f"{_who(process.role)} {how} in the middle of the sample" + (f": {process.error}" if process.error else "")


def _who(name: str) -> str:
    return f"the {'sender' if name.startswith('a') else 'receiver'} {name}"


# --- summing up ------------------------------------------------------------------------------------------------------


def _fault(report: Report) -> bool:
    return bool(report.result.error) or report.result.bad_sequence >= 0


def _sum_up(order: Order, crew: list[Role], reports: dict[str, Report], death: str) -> Sample:
    """One sample of what the roles reported: the receivers' clocks, or the asking sides'."""
    case = order.case
    clock = "a" if case.pattern == "pingpong" else "b"
    clocks = [reports[each.name].result for each in crew if each.side == clock and each.name in reports]
    durations = tuple(result.duration_ns for result in clocks)
    histogram: Counter[int] = Counter()
    for result in clocks:
        histogram.update(dict(result.histogram or ()))
    slowest = [result.max_ns for result in clocks if result.max_ns is not None]
    costs: tuple[SideCost, ...] = tuple(reports[each.name].cost for each in crew if each.name in reports)
    return Sample(
        case_key=case.key,
        round=order.round,
        messages=sum(result.messages for result in clocks),
        duration_ns=max(durations, default=0),
        histogram=dict(sorted(histogram.items())) if histogram and case.pattern != "throughput" else None,
        max_ns=max(slowest, default=None) if case.pattern != "throughput" else None,
        sides=costs,
        pair_durations_ns=durations,
        failure=_failure(order, crew, reports, death),
    )


def _failure(order: Order, crew: list[Role], reports: dict[str, Report], death: str) -> str:
    """The one thing to say: a wrong message before a death, a death before what its peer met, receivers first."""
    by_side = sorted((each for each in crew if each.name in reports), key=lambda each: each.side, reverse=True)
    results = [(each, reports[each.name].result) for each in by_side]
    for each, result in results:
        if result.bad_sequence >= 0:
            text = f"message {result.bad_sequence} is not what was sent: lost, out of order, cut or changed"
            return f"{_who(each.name)}: {result.error or text}"
    if death:
        return death
    errors = [(each, result.error) for each, result in results if result.error]
    # Who says "the other side" met the consequence, not the cause.
    errors.sort(key=lambda found: "other side" in found[1])
    if errors:
        return f"{_who(errors[0][0].name)}: {errors[0][1]}"
    return _short(order, results)


def _short(order: Order, results: list[tuple[Role, SideResult]]) -> str:
    """Whether messages are missing that nobody missed: what was counted against what was asked for."""
    case = order.case
    if (case.producers, case.consumers) != (1, 1):
        moved = {side: sum(result.messages for each, result in results if each.side == side) for side in ("a", "b")}
        # A receiver's clock starts at its first message: it may count one less.
        if moved["a"] == order.messages * case.producers and moved["a"] - case.consumers <= moved["b"] <= moved["a"]:
            return ""
        return f"{moved['b']} messages were received of {order.messages * case.producers} to be sent"
    for each, result in results:
        if not order.messages - (each.side == "b") <= result.messages <= order.messages:
            return f"{_who(each.name)} moved {result.messages} of {order.messages} messages"
        if result.duration_ns <= 0 and each.side == ("a" if case.pattern == "pingpong" else "b"):
            return f"{_who(each.name)} has no duration: nothing was timed"
    return ""


@contextlib.contextmanager
def _made_near(cpu: int) -> Iterator[None]:
    """Run on the first role's CPU inside the block: pages are taken from the node of whoever touches them first."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError as err:
        raise IpclabError(f"CPU {cpu} is not to be had", errno=err.errno, syscall="sched_setaffinity") from err
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
