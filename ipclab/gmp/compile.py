"""From a workload to the core's programs: names become numbers, ranges are drawn, what cannot run is said.

Program 0 is "main": it sleeps until the next arrival and spawns. Each job has one program, or, where times are ranges,
up to 64 that differ in what was drawn. core/gmp/script.h has the operations.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import NamedTuple, NoReturn

from ipclab.errors import UsageError
from ipclab.gmp.script import Op, Step, parse_time
from ipclab.gmp.workload import Block, Job, Workload

#: A range is drawn for so many different Gs of a job.
VARIANTS = 64
#: A repeat with a range in it is written out so that each pass draws anew, up to so many steps.
UNROLLED_MOST = 1000
STEPS_MOST = 1_000_000
#: In all, one after the other.
GOROUTINES_MOST = 100_000_000
#: At once, beside main: a segment holds 2^24. Of what arrives, or one step spawns, it is known beforehand.
TOGETHER_MOST = (1 << 24) - 1
ARRIVALS_MOST = 100_000
NESTED_MOST = 4
#: Cases.
SELECT_MOST = 16
_REPEAT_MOST = 1 << 31
#: All channels together; the core counts in 32 bits.
_BUFFERED_MOST = 1 << 31
_NAME = re.compile(r"[\w.-]+")


class Program(NamedTuple):
    """One program for the core, and what each of its steps is called."""

    job: str
    steps: list[Step]
    texts: list[str]


class Compiled(NamedTuple):
    """What Sched is told."""

    programs: list[Program]
    #: Capacities; values. In the order of their numbers.
    channels: list[int]
    semaphores: list[int]
    #: How many Gs there will have been, main among them.
    goroutines: int


def compile_workload(workload: Workload, seed: int, name: str | None = None) -> Compiled:
    """Raises UsageError that names job and step."""
    called = name or workload.title or "workload"
    try:
        return _Compiler(workload, seed, called).compiled()
    except RecursionError as err:
        raise UsageError(f"{called}: its steps are nested too deep", hint="write it flatter") from err


class _Compiler:
    def __init__(self, workload: Workload, seed: int, name: str) -> None:
        self.workload = workload
        self.seed = seed
        self.name = name
        self.jobs = {job.name: job for job in workload.jobs}
        self.channels = {channel: number for number, channel in enumerate(workload.channels)}
        self.semaphores: dict[str, tuple[str, int]] = {}
        self.values: list[int] = []

    def compiled(self) -> Compiled:
        self._check_names()
        goroutines = self._count_all()
        variants = {job.name: self._variants_of(job) for job in self.workload.jobs}
        self.first: dict[str, int] = {}
        at = 1
        for job in self.workload.jobs:
            self.first[job.name] = at
            at += variants[job.name]
        self.variants = variants
        programs = [
            Program(job.name, *self._program(job, random.Random(f"{self.seed}/{job.name}/{variant}")))
            for job in self.workload.jobs
            for variant in range(variants[job.name])
        ]
        programs.insert(0, self._main())
        total = sum(len(program.steps) for program in programs)
        if total > STEPS_MOST:
            self._fail(f"{total} steps in all are over the limit of {STEPS_MOST}", "fewer steps, or a repeat")
        return Compiled(programs, list(self.workload.channels.values()), self.values, goroutines)

    # --- names and numbers ---

    def _check_names(self) -> None:
        workload = self.workload
        if not workload.jobs:
            self._fail("it has no job", "add a [[job]] with a name and steps")
        for kind, values in (("channel", workload.channels), ("semaphore", workload.semaphores)):
            for name, value in values.items():
                self._check_word(kind, name)
                if not 0 <= value <= 1 << 24:
                    self._fail(f"{kind} {name!r}: {value} is not between 0 and {1 << 24}", "channels hold 0 or more")
        if (held := sum(workload.channels.values())) > _BUFFERED_MOST:
            self._fail(f"the channels hold {held} values in all, over the limit of {_BUFFERED_MOST}", "smaller ones")
        for kind, named in (
            ("mutex", [(name, 0) for name in workload.mutexes]),
            ("semaphore", list(workload.semaphores.items())),
            ("wait group", [(name, 0) for name in workload.waitgroups]),
        ):
            for name, value in named:
                self._check_word(kind, name)
                if name in self.semaphores:
                    self._fail(
                        f"two things are called {name!r}", "mutexes, semaphores and waitgroups share their names"
                    )
                self.semaphores[name] = (kind, len(self.values))
                self.values.append(value)
        for number, job in enumerate(workload.jobs, 1):
            self._check_job(number, job)
        if (arriving := sum(job.count for job in workload.jobs)) > TOGETHER_MOST:
            told = f"{arriving} Gs arrive in all, {TOGETHER_MOST} are what the segment holds beside main"
            self._fail(told, "fewer Gs")
        if len(self.jobs) < len(workload.jobs):
            names = [job.name for job in workload.jobs]
            twice = next(name for name in names if names.count(name) > 1)
            self._fail(f"two jobs are called {twice!r}", "give each a name of its own")

    def _check_word(self, kind: str, name: str) -> None:
        if name.split() != [name]:
            self._fail(f"{kind} {name!r}: no step can name it", "a name is one word")

    def _check_job(self, number: int, job: Job) -> None:
        if not _NAME.fullmatch(job.name) or job.name == "main":
            self._fail(f"job {number}: {job.name!r} is no name", "letters, digits, - . and _; main is taken")
        if job.count < 0 or job.count > TOGETHER_MOST:
            hint = "0: only spawned" if job.count < 0 else "so many Gs the segment holds, beside main"
            self._fail(f"job {job.name!r}: count {job.count} is not between 0 and {TOGETHER_MOST}", hint)
        if job.repeat < 1 or job.repeat > _REPEAT_MOST:
            told = f"job {job.name!r}: repeat {job.repeat} is not between 1 and {_REPEAT_MOST}"
            self._fail(told, "how often each G does its steps")
        for field in ("at", "every"):
            try:
                parse_time(getattr(job, field))
            except ValueError as err:
                self._fail(f"job {job.name!r}, {field}: {err}", "a time is 10ms, 2s, or a range 5ms..20ms")

    def _variants_of(self, job: Job) -> int:
        ranged = any(".." in word for text in _texts(job.steps) for word in text.split())
        return min(VARIANTS, max(job.count, self.born[job.name], 1)) if ranged else 1

    # --- who spawns whom ---

    def _count_all(self) -> int:
        """How many Gs there will be; a job that spawns itself, by whatever way, is said here."""
        spawns = {job.name: list(self._spawns(job)) for job in self.workload.jobs}
        self.born = {job.name: job.count for job in self.workload.jobs}
        for name in reversed(self._order(spawns)):  # whoever spawns comes before whom it spawns
            for other, times in spawns[name]:
                self.born[other] += self.born[name] * times
        total = sum(self.born.values()) + 1
        if total > GOROUTINES_MOST:
            worst = max(self.born, key=lambda name: self.born[name])
            self._fail(
                f"a spawn bomb: {_many(total)} Gs in all, {_many(self.born[worst])} of job {worst!r}; "
                f"{GOROUTINES_MOST} is the limit",
                "spawn fewer",
            )
        return total

    def _order(self, spawns: dict[str, list[tuple[str, int]]]) -> list[str]:
        """Whoever is spawned comes before who spawns it. A chain of jobs may be longer than Python's stack is deep."""
        order: dict[str, None] = {}
        for job in self.workload.jobs:
            path = {job.name: iter(spawns[job.name])}
            while path and job.name not in order:
                name, others = next(reversed(path.items()))
                other = next((other for other, _times in others if other not in order), None)
                if other is None:
                    del path[name]
                    order[name] = None
                elif other in path:
                    names = list(path)
                    circle = " -> ".join([*names[names.index(other) :], other])
                    self._fail(f"a spawn bomb: {circle} never ends", "a job may not spawn itself, by whatever way")
                else:
                    path[other] = iter(spawns[other])
        return list(order)

    def _spawns(self, job: Job) -> Iterator[tuple[str, int]]:
        for place, text, times in _walk(job.steps, job.repeat):
            words = text.split()
            if words[:1] != ["spawn"]:
                continue
            where = (job, place, text)
            if len(words) < 2 or words[1] not in self.jobs:
                self._missing(where, "job", words[1] if len(words) > 1 else "", self.jobs)
            yield words[1], times * (self._number(where, words[2], 0) if len(words) > 2 else 1)

    # --- programs ---

    def _main(self) -> Program:
        arrivals: list[tuple[int, int, str, int]] = []  # time, order, job, how many at once
        for order, job in enumerate(self.workload.jobs):
            rng = random.Random(f"{self.seed}/{job.name}/arrivals")
            at = parse_time(job.at, rng)
            if job.every in ("0s", "0ms", "0us", "0ns") or job.count <= 1:
                arrivals += [(at, order, job.name, job.count)] if job.count else []
                continue
            if job.count > ARRIVALS_MOST:
                self._fail(f"job {job.name!r}: {job.count} arrivals are over {ARRIVALS_MOST}", "fewer, or all at once")
            for _each in range(job.count):
                arrivals.append((at, order, job.name, 1))
                at += parse_time(job.every, rng)
        steps: list[Step] = []
        texts: list[str] = []
        now = 0
        turn = dict.fromkeys(self.jobs, 0)
        for at, _order, name, count in sorted(arrivals):
            if at > now:
                steps.append((Op.SLEEP, 0, at - now))
                texts.append(f"sleep until {name} arrives")
                now = at
            spawned = list(self._spawned(name, count, turn[name]))
            turn[name] += count
            steps += spawned
            texts += [f"spawn {name} {one[2]}" for one in spawned]
        return Program("main", steps, texts)

    def _spawned(self, name: str, count: int, turn: int = 0) -> Iterator[Step]:
        """Steps that spawn `count` Gs of a job, of its variants in turn."""
        variants = self.variants[name]
        if count < variants:
            for i in range(count):
                yield Op.SPAWN, self.first[name] + (turn + i) % variants, 1
            return
        for i in range(variants):
            yield Op.SPAWN, self.first[name] + i, count // variants + (i < count % variants)

    def _program(self, job: Job, rng: random.Random) -> tuple[list[Step], list[str]]:
        steps: list[Step] = []
        texts: list[str] = []
        self._block(job, (), Block(repeat=job.repeat, steps=job.steps), 0, rng, steps, texts)
        return steps, texts

    def _block(
        self, job: Job, place: tuple[int, ...], block: Block, depth: int, rng: random.Random,
        steps: list[Step], texts: list[str],
    ) -> None:  # fmt: skip
        begin = len(steps)
        passes = 1
        if block.repeat > 1 and any(".." in word for text in _texts(block.steps) for word in text.split()):
            size = sum(times for _place, _text, times in _walk(block.steps, 1))
            passes = block.repeat if size * block.repeat <= UNROLLED_MOST else 1
        loops = block.repeat > 1 and passes == 1 and bool(block.steps)
        for _each in range(passes):
            for number, item in enumerate(block.steps, 1):
                where = (*place, number)
                if isinstance(item, str):
                    self._step((job, where, item), item, rng, steps, texts)
                elif item.select:
                    self._select(job, where, item, rng, steps, texts)
                else:
                    self._check_block(job, where, item)
                    self._block(job, where, item, depth + loops, rng, steps, texts)
        if loops:
            if depth >= NESTED_MOST:
                self._fail(f"{_at(job, place)}: more than {NESTED_MOST} repeats inside each other", "write it flatter")
            if begin >= 1 << 24:
                self._fail(f"{_at(job, place)}: too many steps before it", f"{STEPS_MOST} at most in all")
            steps.append((Op.LOOP, begin | depth << 24, block.repeat))
            texts.append(f"repeat {block.repeat}")

    def _check_block(self, job: Job, place: tuple[int, ...], block: Block) -> None:
        if not block.steps:
            self._fail(f"{_at(job, place)}: neither steps nor a select", '{ repeat = 3, steps = ["yield"] }')
        if block.repeat < 1 or block.repeat > _REPEAT_MOST:
            told = f"{_at(job, place)}: repeat {block.repeat} is not between 1 and {_REPEAT_MOST}"
            self._fail(told, "how often its steps are done")
        if block.default:
            self._fail(f"{_at(job, place)}: only a select has a default", "take it out")

    def _select(
        self, job: Job, place: tuple[int, ...], block: Block, rng: random.Random, steps: list[Step], texts: list[str]
    ) -> None:
        if block.steps or block.repeat != 1:
            self._fail(f"{_at(job, place)}: a select has cases alone", "put it into the steps of a repeat")
        if len(block.select) > SELECT_MOST:
            self._fail(f"{_at(job, place)}: {len(block.select)} cases are over {SELECT_MOST}", "select fewer")
        steps.append((Op.SELECT, len(block.select), int(block.default)))
        texts.append("select " + " | ".join([*block.select, *(["default"] if block.default else [])]))
        for number, text in enumerate(block.select, 1):
            where = (job, (*place, number), text)
            if text.split()[:1] not in (["send"], ["recv"]):
                self._wrong(where, "a case of a select is send or recv")
            self._step(where, text, rng, steps, texts)

    def _step(self, where: _Where, text: str, rng: random.Random, steps: list[Step], texts: list[str]) -> None:
        verb, *words = text.split() or [""]
        if verb not in _VERBS:
            near = get_close_matches(verb, _VERBS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"steps are {', '.join(_VERBS)}"
            self._wrong(where, f"unknown step {verb!r}", hint)
        fewest, most, shape, make = _VERBS[verb]
        if not fewest <= len(words) <= most:
            self._wrong(where, f"{verb} is written {shape!r}")
        made = make(self, where, words, rng)
        steps += made
        texts += [text] * len(made)

    def _time(self, where: _Where, text: str, rng: random.Random) -> int:
        try:
            return parse_time(text, rng)
        except ValueError as err:
            self._wrong(where, str(err), "a time is 10ms, 500us, 2s, or a range 5ms..20ms")

    def _number(self, where: _Where, text: str, least: int, most: int = 1 << 31) -> int:
        if not re.fullmatch(r"-?\d+", text):
            self._wrong(where, f"{text!r} is no whole number")
        if len(text) > 40 or not least <= int(text) <= most:
            self._wrong(where, f"{text} is not between {least} and {most}")
        return int(text)

    def _channel(self, where: _Where, name: str) -> int:
        if name not in self.channels:
            self._missing(where, "channel", name, self.channels)
        return self.channels[name]

    def _sema(self, where: _Where, kind: str, name: str) -> int:
        found, number = self.semaphores.get(name, ("", 0))
        if found != kind:
            known = [one for one, (its, _number) in self.semaphores.items() if its == kind]
            self._missing(where, kind, name, known)
        return number

    # --- complaints ---

    def _missing(self, where: _Where, kind: str, name: str, known: object) -> NoReturn:
        names = [str(one) for one in known] if isinstance(known, (list, dict)) else []
        place = {
            "channel": "[channels]",
            "job": "a [[job]]",
            "mutex": "mutexes = [...]",
            "semaphore": "[semaphores]",
            "wait group": "waitgroups = [...]",
        }[kind]
        there = f"there are {', '.join(names)}" if names else "there is none"
        self._wrong(where, f"no {kind} is called {name!r}", f"{there}; {place} makes one")

    def _wrong(self, where: _Where, what: str, hint: str = "docs/gmp-sim.md has every step") -> NoReturn:
        job, place, text = where
        self._fail(f'{_at(job, place)} "{text}": {what}', hint)

    def _fail(self, what: str, hint: str) -> NoReturn:
        raise UsageError(f"{self.name}: {what}", hint=hint)


_Place = tuple[int, ...]
_Where = tuple[Job, _Place, str]
_Make = Callable[[_Compiler, _Where, list[str], random.Random], list[Step]]


def _at(job: Job, place: tuple[int, ...]) -> str:
    return f"job {job.name!r}" + (f", step {'.'.join(map(str, place))}" if place else "")


def _many(number: int) -> str:
    """It may have more digits than Python writes."""
    return f"{number}" if number < 10**18 else "over 10^18"


def _walk(
    steps: list[str | Block], times: int, place: tuple[int, ...] = ()
) -> Iterator[tuple[tuple[int, ...], str, int]]:
    """Every step: its place, its text, how often it is done."""
    for number, item in enumerate(steps, 1):
        if isinstance(item, str):
            yield (*place, number), item, times
        else:
            yield from _walk(item.steps or list(item.select), times * max(item.repeat, 1), (*place, number))


def _texts(steps: list[str | Block]) -> Iterator[str]:
    return (text for _place, text, _times in _walk(steps, 1))


def _timed(op: Op) -> _Make:
    return lambda self, where, words, rng: [(op, 0, self._time(where, words[0], rng))]


def _plain(op: Op) -> _Make:
    return lambda _self, _where, _words, _rng: [(op, 0, 0)]


def _on(op: Op, kind: str) -> _Make:
    return lambda self, where, words, _rng: [(op, self._sema(where, kind, words[0]), 0)]


def _send(self: _Compiler, where: _Where, words: list[str], _rng: random.Random) -> list[Step]:
    value = self._number(where, words[1], -(1 << 62), 1 << 62) if len(words) > 1 else 1
    return [(Op.SEND, self._channel(where, words[0]), value)]


def _add(self: _Compiler, where: _Where, words: list[str], _rng: random.Random) -> list[Step]:
    count = self._number(where, words[1], -(1 << 30), 1 << 30) if len(words) > 1 else 1
    return [(Op.WG_ADD, self._sema(where, "wait group", words[0]), count)]


def _spawn(self: _Compiler, where: _Where, words: list[str], _rng: random.Random) -> list[Step]:
    count = self._number(where, words[1], 0) if len(words) > 1 else 1
    if count > TOGETHER_MOST:
        self._wrong(where, f"{count} Gs at once, {TOGETHER_MOST} are what the segment holds beside main", "spawn fewer")
    return list(self._spawned(words[0], count))


def _stopworld(self: _Compiler, where: _Where, words: list[str], rng: random.Random) -> list[Step]:
    procs = self._number(where, words[1], 1, 256) if len(words) > 1 else 0
    return [(Op.STOPWORLD, procs, self._time(where, words[0], rng))]


#: verb -> fewest and most arguments, how it is written, what it becomes
_VERBS: dict[str, tuple[int, int, str, _Make]] = {
    "compute": (1, 1, "compute TIME", _timed(Op.COMPUTE)),
    "sleep": (1, 1, "sleep TIME", _timed(Op.SLEEP)),
    "block": (1, 1, "block TIME", _timed(Op.BLOCK)),
    "blocking": (1, 1, "blocking TIME", _timed(Op.BLOCKING)),
    "send": (1, 2, "send CHANNEL [VALUE]", _send),
    "recv": (1, 1, "recv CHANNEL", lambda self, where, words, _rng: [(Op.RECV, self._channel(where, words[0]), 0)]),
    "close": (1, 1, "close CHANNEL", lambda self, where, words, _rng: [(Op.CLOSE, self._channel(where, words[0]), 0)]),
    "lock": (1, 1, "lock MUTEX", _on(Op.LOCK, "mutex")),
    "unlock": (1, 1, "unlock MUTEX", _on(Op.UNLOCK, "mutex")),
    "acquire": (1, 1, "acquire SEMAPHORE", _on(Op.ACQUIRE, "semaphore")),
    "release": (1, 1, "release SEMAPHORE", _on(Op.RELEASE, "semaphore")),
    "add": (1, 2, "add WAITGROUP [N]", _add),
    "done": (
        1, 1, "done WAITGROUP",
        lambda self, where, words, _rng: [(Op.WG_ADD, self._sema(where, "wait group", words[0]), -1)],
    ),
    "wait": (1, 1, "wait WAITGROUP", _on(Op.WG_WAIT, "wait group")),
    "spawn": (1, 2, "spawn JOB [N]", _spawn),
    "yield": (0, 0, "yield", _plain(Op.YIELD)),
    "exit": (0, 0, "exit", _plain(Op.EXIT)),
    "lockm": (0, 0, "lockm", _plain(Op.LOCKM)),
    "unlockm": (0, 0, "unlockm", _plain(Op.UNLOCKM)),
    "stopworld": (1, 2, "stopworld TIME [PROCS]", _stopworld),
}  # fmt: skip
