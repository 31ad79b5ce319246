"""gmp_conservation.py: is there ever an idle P beside a runnable G? Checked on the event log of a random run.

    python scripts/gmp_conservation.py [--steps 1000000] [--procs 2] [--seed 1] [--runs 1]      perf events are needed

A run of random steps, nobody preempted (preemption hides lost wake-ups: golang/go#60693), is followed by the states
tracker, which knows from the kernel when each M had a CPU. From the scheduler's events it is known when a G was
runnable, when a P was on the idle list, and which M had to bring them together: one that is between two Gs; one that
was woken and has not come yet; else the one that made the G runnable, until its next event. A stretch with an idle P
and a runnable G counts while such an M has a CPU. An M without one cannot help it; but where there is no such M at
all, the wake-up is lost, and then all of the stretch counts. The longest must stay below 1 ms. (A virtual CPU that
the hypervisor has taken away counts as one that an M has.)

Exit code: 0 held, 1 broken, 77 not here.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge
from pathlib import Path
from typing import NamedTuple

import msgspec

from ipclab import states
from ipclab.errors import IpclabError, Unavailable
from ipclab.gmp import Block, Job, Simulation, Workload
from ipclab.records import SchedEvent

LIMIT_NS = 1_000_000
#: A run that is longer hangs.
PATIENCE_S = 600.0
SYSMON = 0

#: What the child leaves: the events, and which process each M was.
Log = tuple[list[SchedEvent], dict[int, int]]


class Stretch(NamedTuple):
    """An idle P beside a runnable G: the time that counts, all of it, and when it began."""

    counted_ns: int
    length_ns: int
    start_ns: int


# --- the run ---------------------------------------------------------------------------------------------------------


def random_work(steps: int, seed: int) -> Workload:
    """Gs that compute, yield, sleep, block, send to each other, lock and make more: about so many steps in all.

    So few that Ps are often idle; and now and then one computes for 2 ms after it has made another one runnable, so
    that a lost wake-up shows.
    """
    chance = random.Random(seed)
    kinds = ["compute 2us", "compute 20us", "yield", "yield", "sleep 50us", "block 30us", "blocking 30us", "spawn leaf"]
    jobs = [Job("leaf", ["compute 3us"], count=0)]
    pairs, rounds = 4, 2
    each = max(1, steps // (pairs * 2 * rounds * 13 * 9))
    for pair in range(pairs):
        lock = ["lock door", "compute 1us", "unlock door"]
        for name, meets in ((f"ping{pair}", f"send c{pair} 1"), (f"pong{pair}", f"recv c{pair}")):
            own = [chance.choice(kinds) for _ in range(8)]
            short = Block(repeat=8, steps=[*own, meets, *lock])
            jobs.append(Job(name, [Block(repeat=each, steps=[short, *own, meets, "compute 2ms", *lock])], count=rounds))
    return Workload(jobs=jobs, channels={f"c{pair}": pair % 3 for pair in range(pairs)}, mutexes=["door"])


def run_here(steps: int, procs: int, seed: int, path: Path) -> None:
    """One run; its log goes into the file."""
    work = random_work(steps, seed)
    with Simulation(
        work, procs=procs, seed=seed, events=True, preempt=False, randomize=True, event_slots=1 << 14
    ) as sim:
        pids: dict[int, int] = {}
        until = PATIENCE_S / 0.05
        while not sim.wait(0.05) and until > 0:
            pids |= sim.ms()
            until -= 1
        pids |= sim.ms()
        result = sim.result()
    if not result.ok or result.totals.events_lost:
        raise IpclabError(f"the run cannot be judged: {result.outcome}, {result.totals.events_lost} events lost")
    path.write_bytes(msgspec.msgpack.encode((result.events, pids)))


def followed(steps: int, procs: int, seed: int) -> tuple[Log, dict[int, list[tuple[int, int]]]]:
    """One run in a child; its log, and of each process when it had a CPU."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        numbers = [f"--steps={steps}", f"--procs={procs}", f"--seed={seed}"]
        with states.Tracker(
            command=[sys.executable, __file__, "--into", str(path), *numbers], source="switch", follow=True
        ) as tracker:
            tracker.run(PATIENCE_S)
            if tracker.exit_code != 0:
                raise IpclabError(f"the run ended with exit code {tracker.exit_code}")
            on_cpu: dict[int, list[tuple[int, int]]] = {}
            for one in tracker.intervals():
                if one.state == "R" and one.on_cpu:
                    on_cpu.setdefault(one.pid, []).append((one.start_ns, one.end_ns))
        return msgspec.msgpack.decode(path.read_bytes(), type=Log), on_cpu


# --- judging ---------------------------------------------------------------------------------------------------------


class Reading:
    """What the events say of this moment: idle Ps, runnable Gs, and which Ms have to act."""

    #: A G leaves its M, and is runnable again at once or not.
    LEAVES = frozenset(("end", "sched", "preempt", "block"))

    def __init__(self) -> None:
        self.idle: set[int] = set()
        self.runnable: set[int] = set()
        #: Ms between two Gs, and those that have just made a G runnable and may have to wake somebody.
        self.seeking: set[int] = set()
        self.making: set[int] = set()
        #: Ps that were given to an M that was woken, or asked for, and has not come for them yet.
        self.given: set[int] = set()

    def take(self, event: SchedEvent) -> None:
        if event.m == SYSMON and event.kind == "M start":
            return  # it looks for no work
        self.making.discard(event.m)
        match event.kind:
            case "create" | "unblock":
                self.runnable.add(event.goid)
                self.making.add(event.m)
            case "start":
                self.runnable.discard(event.goid)
                self.seeking.discard(event.m)
            case "P idle":
                (self.idle.add if event.arg & 1 else self.idle.discard)(event.arg >> 1)
                self.given.discard(event.arg >> 1)
            case "wakep" | "handoff":
                self.given.add(event.arg)
            case "acquirep":
                self.given.discard(event.arg)
            case "park" | "M exit":
                self.seeking.discard(event.m)
            case "unpark" | "M start":
                self.seeking.add(event.m)
            case "syscall enter":
                self.seeking.discard(event.m)
            case "syscall exit" if event.arg == 2:
                self.runnable.add(event.goid)
                self.seeking.add(event.m)
            case kind if kind in self.LEAVES:
                self.seeking.add(event.m)
                if kind in ("sched", "preempt"):
                    self.runnable.add(event.goid)

    @property
    def broken(self) -> bool:
        return bool(self.idle and self.runnable)

    def counts(self, running: set[int]) -> bool:
        """Whether somebody who must act can, or nobody is there who must. Who made a G runnable need not wake anybody
        where another one seeks already, or is on its way."""
        if self.seeking:
            return not self.seeking.isdisjoint(running)
        if self.given:
            return False
        return not self.making or not self.making.isdisjoint(running)


def stretches(
    events: Sequence[SchedEvent], pids: Mapping[int, int], on_cpu: Mapping[int, Sequence[tuple[int, int]]]
) -> Iterator[Stretch]:
    """Each stretch with an idle P beside a runnable G, with the part of it that counts."""
    reading, running = Reading(), set[int]()
    m_of = {pid: m for m, pid in pids.items()}
    begun_ns = counted_ns = last_ns = 0
    for at_ns, change in _changes(events, ((m_of[pid], spans) for pid, spans in on_cpu.items() if pid in m_of)):
        if reading.broken:
            counted_ns += (at_ns - last_ns) * reading.counts(running)
        last_ns, was = at_ns, reading.broken
        if isinstance(change, SchedEvent):
            reading.take(change)
        elif change > 0:
            running.add(change - 1)
        else:
            running.discard(-change - 1)
        if reading.broken and not was:
            begun_ns, counted_ns = at_ns, 0
        elif was and not reading.broken:
            yield Stretch(counted_ns, at_ns - begun_ns, begun_ns)
    if reading.broken:
        yield Stretch(counted_ns, last_ns - begun_ns, begun_ns)


def _changes(
    events: Sequence[SchedEvent], cpus: Iterable[tuple[int, Sequence[tuple[int, int]]]]
) -> Iterator[tuple[int, SchedEvent | int]]:
    """Events, and M + 1 where an M gets a CPU, -(M + 1) where it loses it, in the order of their time."""
    signs = (1, -1)
    edges = [(at, sign * (m + 1)) for m, spans in cpus for span in spans for at, sign in zip(span, signs, strict=True)]
    told = ((event.time_ns, event) for event in events)
    return merge(told, sorted(edges), key=lambda change: change[0])


def worst(found: Iterable[Stretch]) -> tuple[int, Stretch]:
    """How many there were, and the one of which most counts."""
    most, count = Stretch(0, 0, 0), 0
    for one in found:
        count += 1
        most = max(most, one)
    return count, most


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000, help="about how many, of all Gs together")
    parser.add_argument("--procs", type=int, default=2, help="Ps")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the next one's is one more")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.into:
        run_here(given.steps, given.procs, given.seed, given.into)
        return 0
    held = True
    for seed in range(given.seed, given.seed + given.runs):
        try:
            (events, pids), on_cpu = followed(given.steps, given.procs, seed)
        except Unavailable as err:
            print(f"not here: {err}")
            return 77
        count, most = worst(stretches(events, pids, on_cpu))
        held &= (well := most.counted_ns <= LIMIT_NS)
        print(
            f"seed {seed}: {len(events)} events, {len(pids)} Ms, {count} stretches with an idle P beside a runnable G; "
            f"the longest counts {most.counted_ns / 1e3:.0f} us of {most.length_ns / 1e3:.0f} "
            f"(limit {LIMIT_NS // 1000}): {'held' if well else 'BROKEN'}"
        )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
