"""Does the bench reach what it must reach? One line for each target: the ratio measured, its interval, met or not.

    python scripts/bench_targets.py [--only WORD] [--rounds 15] [--repeats 5]

Every ratio is of two things measured A B A B in one go: per round, both samples must have been kept in the same
placement cluster (docs/bench.md); the figure is the median of the rounds' ratios with its 95 % bootstrap interval. The
cluster with most rounds is shown. Needs linux-perf for the first two. Where other work cannot be stopped, `chrt -r 1`
before the command keeps it off the two CPUs (as root). Exit code 1 when a target was missed.

Most of these can be seen with `ipclab bench compare --interleaved` too; here are also the contestants that command has
not got: perf, a ring that only spins, one that is read in place, multiprocessing.shared_memory with two semaphores.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import msgspec

from ipclab.bench import bootstrap, calibrate, clusters, plan, python_driver, sample, topology
from ipclab.bench.driver import Driver
from ipclab.bench.native_driver import NativeDriver
from ipclab.bench.python_driver import PythonDriver
from ipclab.mechanisms.base import End, Link, NativeSpec, Side
from ipclab.mechanisms.shared.ring import RingEnd, RingLink
from ipclab.records import Case, PlacementName, Run, Sample

SAMPLE_NS = 50_000_000
PERF_LOOPS = {"cpu": 100_000, "any": 20_000}
DEADLINE_S = 60.0


class Outcome(NamedTuple):
    """What a target's measurement gave; `note` is why there is none, or what else is to be known."""

    measured: bootstrap.Interval | None
    note: str = ""


class Target(NamedTuple):
    """One promise."""

    name: str
    text: str
    wanted: float
    #: Whether the figure has to be at least `wanted`; else at most.
    at_least: bool
    measure: Callable[[], Outcome]


class Contestant(NamedTuple):
    """Whoever can be measured: `take` one sample of a round."""

    name: str
    take: Callable[[int], Sample]


# --- contestants -----------------------------------------------------------------------------------------------------


def case_of(mechanism: str, driver: str, pattern: str, size: int, placement: PlacementName = "any") -> Case:
    """A case on the CPUs that the placement means here."""
    cpus = topology.resolve(placement, 1, 1, 1, memory_node=None).cpus
    values = {"mechanism": mechanism, "driver": driver, "pattern": pattern, "size_bytes": size}
    return msgspec.convert({**values, "placement": placement, "cpus": cpus}, Case)


def bench(case: Case, driver: Driver | None = None, sample_ns: int = SAMPLE_NS) -> Contestant:
    """A case of the bench, calibrated here."""
    moves = driver or plan.driver(case.driver)

    def take(messages: int, number: int = -1) -> Sample:
        order = sample.Order(case, number, messages, calibrate.warm_up(messages), DEADLINE_S)
        taken = sample.take(moves, order).sample
        if taken.failure:
            raise SystemExit(f"{case.key}: {taken.failure}")
        return taken

    count, _last = calibrate.calibrate(case, sample_ns, take)
    return Contestant(f"{case.mechanism} {case.driver}", lambda number: take(count, number))


def perf(placement: PlacementName) -> Contestant:
    """`perf bench sched pipe`, a round trip a loop, its two processes pinned like the case's."""
    case = case_of("pipe", "native", "pingpong", 4, placement)

    def take(number: int) -> Sample:
        before = sample.fingerprint(case)
        duration_ns = perf_sched_pipe(case.cpus, PERF_LOOPS[placement])
        return Sample(
            case_key="perf",
            round=number,
            messages=PERF_LOOPS[placement],
            duration_ns=duration_ns,
            fingerprint_before_ns=before,
            fingerprint_after_ns=sample.fingerprint(case),
        )

    return Contestant("perf", take)


def perf_sched_pipe(cpus: tuple[int, ...], loops: int) -> int:
    """Run it; nanoseconds it says. Parent and child begin on the first CPU, the child is moved at once."""

    def pin() -> None:
        os.sched_setaffinity(0, {cpus[0]})

    command = ["perf", "bench", "-f", "simple", "sched", "pipe", "-l", str(loops)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=pin) as run:
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
        while not (found := children.read_text().split()) and run.poll() is None:
            time.sleep(0.0005)
        for child in found:
            os.sched_setaffinity(int(child), {cpus[1]})
        out, _none = run.communicate(timeout=DEADLINE_S)
    return round(float(re.findall(r"[\d.]+", out)[-1]) * 1e9)


class InPlaceEnd(RingEnd):
    """A ring whose messages are verified where they lie; the native driver alone can."""

    numbers: ClassVar[dict[str, int]] = {"in_place": 1}

    def native(self) -> NativeSpec:
        return super().native()._replace(numbers=self.numbers)


class SpinningEnd(InPlaceEnd):
    """One that never sleeps besides."""

    numbers: ClassVar[dict[str, int]] = {"in_place": 1, "spin_only": 1}


class InPlaceLink(RingLink):
    """Two such rings between two processes."""

    end: ClassVar[type[RingEnd]] = InPlaceEnd

    def take(self, side: Side) -> RingEnd:
        a_to_b, b_to_a = self._rings
        return self.end(a_to_b, b_to_a) if side == "a" else self.end(b_to_a, a_to_b)


class SpinningLink(InPlaceLink):
    """Two rings between two processes that only spin."""

    end = SpinningEnd


class ShmSemaphoreEnd(End):
    """The textbook's bounded buffer in Python; one way."""

    def __init__(self, link: ShmSemaphoreLink) -> None:
        size, memory = link.message_bytes, link.memory.buf
        slots = itertools.cycle([memory[i * size : (i + 1) * size] for i in range(link.depth)])
        free, used = link.free, link.used

        def send(data: Any, timeout_s: float | None = None) -> None:
            free.acquire()
            next(slots)[:] = data
            used.release()

        def recv_into(buffer: Any, timeout_s: float | None = None) -> int:
            used.acquire()
            buffer[:] = next(slots)
            free.release()
            return size

        self.send, self.recv_into = send, recv_into  # type: ignore[method-assign]

    def send(self, data: Any, timeout_s: float | None = None) -> None:
        raise NotImplementedError

    def recv_into(self, buffer: Any, timeout_s: float | None = None) -> int:
        raise NotImplementedError

    def close(self) -> None:
        """The link's."""


class ShmSemaphoreLink(Link):
    """multiprocessing.shared_memory cut into slots, two posix_ipc.Semaphore."""

    name = "shm-semaphores"

    def __init__(self, message_bytes: int, depth: int) -> None:
        import posix_ipc

        self.message_bytes, self.depth = message_bytes, depth
        self.memory = shared_memory.SharedMemory(create=True, size=depth * message_bytes)
        self.free = posix_ipc.Semaphore(None, posix_ipc.O_CREX, 0o600, depth)
        self.used = posix_ipc.Semaphore(None, posix_ipc.O_CREX, 0o600, 0)
        self.free.unlink()
        self.used.unlink()

    @classmethod
    def open(cls, *, message_bytes: int = 65536, depth: int = 8) -> Self:
        return cls(message_bytes, depth)

    def take(self, side: Side) -> End:
        return ShmSemaphoreEnd(self)

    def close(self) -> None:
        self.memory.unlink()


# --- measuring -------------------------------------------------------------------------------------------------------


def rounds_of(contestants: list[Contestant], rounds: int) -> Iterator[list[Sample]]:
    """A B A B ...; only rounds whose samples all were kept in one cluster."""
    taken = [[each.take(number) for each in contestants] for number in range(rounds)]
    seen = [ns for row in taken for each in row for ns in (each.fingerprint_before_ns, each.fingerprint_after_ns) if ns]
    borders = clusters.borders(seen)
    for row in taken:
        judged = [sample.judge(each, borders) for each in row]
        if all(each.kept for each in judged) and len({each.cluster for each in judged}) == 1:
            yield judged


def summed_up(ratios: list[tuple[str, float]], rounds: int) -> Outcome:
    """The median in the cluster that most rounds were in."""
    if not ratios:
        return Outcome(None, f"none of {rounds} rounds was kept in one placement cluster")
    by_cluster: dict[str, list[float]] = {}
    for cluster, ratio in ratios:
        by_cluster.setdefault(cluster, []).append(ratio)
    best = max(by_cluster, key=lambda name: len(by_cluster[name]))
    medians = {name: bootstrap.of_median(values).middle for name, values in by_cluster.items() if name != best}
    others = ", ".join(f"{name} {middle:.2f}" for name, middle in medians.items())
    found = bootstrap.of_median(by_cluster[best])
    return Outcome(found, f"{found.size} of {rounds} rounds, cluster {best}" + (f"; {others}" if others else ""))


def ratio(top: Contestant, bottom: Contestant, rounds: int) -> Outcome:
    """How many times as fast the first is."""
    found = [(a.cluster, a.per_s / b.per_s) for a, b in rounds_of([top, bottom], rounds)]
    return summed_up(found, rounds)


def against_the_line(one: Contestant, rounds: int) -> Outcome:
    """A round trip of this contestant over the cache line's own, measured before and after each sample."""
    found = []
    for (each,) in rounds_of([one], rounds):
        bare_ns = ((each.fingerprint_before_ns or 0) + (each.fingerprint_after_ns or 0)) / 2
        found.append((each.cluster, 1e9 / each.per_s / bare_ns))
    return summed_up(found, rounds)


def pipe_against_perf(placement: PlacementName, rounds: int) -> Outcome:
    """Round trips of ours over perf's."""
    if shutil.which("perf") is None:
        return Outcome(None, "perf is not installed: apt install linux-perf")
    return ratio(bench(case_of("pipe", "native", "pingpong", 4, placement)), perf(placement), rounds)


def interleaved(a: tuple[str, str], b: tuple[str, str], size: int, rounds: int) -> Outcome:
    """Two cases of the bench, one way."""
    return ratio(*(bench(case_of(*each, "throughput", size)) for each in (a, b)), rounds)


def ring_against_shm(rounds: int) -> Outcome:
    """Python's ring over shared_memory with semaphores, 64 KiB, the same room for both."""
    theirs = bench(case_of("posix-shm", "python", "throughput", 65536), PythonDriver(lambda _name: ShmSemaphoreLink))
    return ratio(bench(case_of("ring", "python", "throughput", 65536)), theirs, rounds)


def in_place_against_vmsplice(rounds: int) -> Outcome:
    """What shared memory spares when the receiver reads a message where it lies, as vmsplice's sender builds it."""
    ours = bench(case_of("ring", "native", "throughput", 65536), NativeDriver(lambda _name: InPlaceLink))
    return ratio(ours, bench(case_of("vmsplice", "native", "throughput", 65536)), rounds)


def spinning(size: int, rounds: int) -> Outcome:
    """A ring that only spins, ping-pong, over the bare line."""
    case = case_of("ring", "native", "pingpong", size)
    return against_the_line(bench(case, NativeDriver(lambda _name: SpinningLink), 10_000_000), rounds)


def quick_repeated(repeats: int) -> Outcome:
    """How far apart the ratio ring/pipe at 64 B (native, one way) of several `bench run --quick` lies: largest over
    smallest. Runs in different clusters are not compared."""
    found: list[tuple[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats):
            file = Path(folder, f"{number}.json")
            command = [sys.executable, "-m", "ipclab", "bench", "run", "--quick", "--no-store", "-o", str(file)]
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
            run = msgspec.json.decode(file.read_bytes(), type=Run)
            found += list(ring_over_pipe(run))
            print(f"    run {number + 1}: {run.duration_ns / 1e9:.0f} s, {found[-1:]}", file=sys.stderr)
    by_cluster: dict[str, list[float]] = {}
    for cluster, value in found:
        by_cluster.setdefault(cluster, []).append(value)
    if not by_cluster:
        return Outcome(None, "no run had both in one cluster")
    values = max(by_cluster.values(), key=len)
    told = "; ".join(f"{name}: {', '.join(f'{v:.2f}' for v in of)}" for name, of in by_cluster.items())
    return Outcome(bootstrap.Interval(max(values) / min(values), min(values), max(values), len(values)), told)


def ring_over_pipe(run: Run) -> Iterator[tuple[str, float]]:
    """Of one run, for the cluster in which both have most samples."""
    rates: dict[tuple[str, str], float] = {}
    kept: dict[str, int] = {}
    for row in run.rows:
        case = row.case
        if (case.driver, case.pattern, case.size_bytes) == ("native", "throughput", 64) and row.median_per_s:
            rates[case.mechanism, row.cluster] = row.median_per_s
            if case.mechanism in ("ring", "pipe"):
                kept[row.cluster] = min(kept.get(row.cluster, 99), row.samples_kept)
    both = [name for name in kept if ("ring", name) in rates and ("pipe", name) in rates]
    if both:
        best = max(both, key=lambda name: kept[name])
        yield best, rates["ring", best] / rates["pipe", best]


def loop_overhead() -> Outcome:
    """ns a message, the median of some measurements."""
    return Outcome(bootstrap.of_median([python_driver.overhead_ns() for _ in range(9)]), "ns a message at 64 B")


# --- the list --------------------------------------------------------------------------------------------------------


def targets(rounds: int, repeats: int) -> list[Target]:
    """All promises."""
    python, native = "python", "native"
    return [
        Target("perf-cpu", "native pipe ping-pong / perf bench sched pipe, one CPU", 0.95, True,
               lambda: pipe_against_perf("cpu", rounds)),
        Target("perf-two", "native pipe ping-pong / perf bench sched pipe, two CPUs", 0.95, True,
               lambda: pipe_against_perf("any", rounds)),
        Target("ring-pipe", "native ring / native pipe, 64 B one way", 5.0, True,
               lambda: interleaved(("ring", native), ("pipe", native), 64, rounds)),
        Target("ring-vmsplice", "native ring / native vmsplice, 64 KiB one way", 1.6, True,
               lambda: interleaved(("ring", native), ("vmsplice", native), 65536, rounds)),
        Target("ring-in-place", "the same, the ring's messages read where they lie", 1.6, True,
               lambda: in_place_against_vmsplice(rounds)),
        Target("spin", "spinning native ring, 64 B there and back / the bare cache line's", 1.5, False,
               lambda: spinning(64, 3 * rounds)),
        Target("python-pipe", "python ring / os.pipe, 64 B one way", 3.4, True,
               lambda: interleaved(("ring", python), ("pipe", python), 64, rounds)),
        Target("python-queue", "python ring / multiprocessing.Queue, 64 B one way", 30.0, True,
               lambda: interleaved(("ring", python), ("mp-queue", python), 64, rounds)),
        Target("python-native", "python ring, get_into / native ring, 64 KiB one way", 0.75, True,
               lambda: interleaved(("ring", python), ("ring", native), 65536, rounds)),
        Target("python-shm", "python ring / shared_memory + semaphores, 64 KiB one way", 1.3, True,
               lambda: ring_against_shm(rounds)),
        Target("loop", "the python driver's loop and verification", 100.0, False, loop_overhead),
        Target("quick", f"ring/pipe at 64 B over {repeats} runs of --quick, largest / smallest", 1.10, False,
               lambda: quick_repeated(repeats)),
    ]  # fmt: skip


def line(target: Target, found: Outcome) -> tuple[str, bool]:
    """The line of a target, and whether it was met (what could not be measured was not missed)."""
    wanted = f"{'>=' if target.at_least else '<='} {target.wanted:g}"
    if found.measured is None:
        return f"{target.text:74} {wanted:>8}  not measured: {found.note}", True
    middle, low, high, _size = found.measured
    met = middle >= target.wanted if target.at_least else middle <= target.wanted
    figures = f"{middle:7.2f} [{low:.2f}, {high:.2f}]"
    return f"{target.text:74} {wanted:>8}  {figures:24} {'met' if met else 'MISSED'}  ({found.note})", met


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], help="names (or parts of names) of targets")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    all_met = True
    for target in targets(options.rounds, options.repeats):
        if options.only and not any(word in target.name for word in options.only):
            continue
        text, met = line(target, target.measure())
        all_met &= met
        print(f"{target.name:14} {text}", flush=True)
    return 0 if all_met else 1


if __name__ == "__main__":
    sys.exit(main())
