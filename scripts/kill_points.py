"""Lists the labelled kill points of the GMP core, and every pair of stores that has none between them.

    python scripts/kill_points.py             # what is wrong, if anything; exit code 1 then
    python scripts/kill_points.py --list      # every point: file:line name
    python scripts/kill_points.py --stores    # every store, and why it is exempt if it is

An M may be killed between any two instructions, and a test can put the blow where a POINT(rt, "name") is. So between
any two stores to shared state that can follow each other - through calls, loops and branches - there must be one. This
script reads the C sources as statements, not as text: it follows every path of every function, and of what it calls.

A store is: an atomic store, CAS, swap or add; a note_* call; an assignment to a field of a record of runtime2.h
(through a pointer of that type, G(), M(), P(), sudogOf(), or rt->something->). Locals and a process's own struct gmp
are not shared.

A store is exempt by a comment that says why (nothing else may be written so short):

    no point: REASON    beside a field in runtime2.h      stores to this field, everywhere
                        at the end of a store's line      that store
                        on a line of its own              the stores up to the next POINT, empty line or closing brace
                        in the comment above a function   all of its stores
                        in a file's first comment         all of the file's
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent / "ipclab/core/gmp"
PRIVATE = {"gmp", "gmp_hooks", "step"}  # records of runtime2.h that are not in the segment, or const there
ENDS = {"throw", "mexit", "pthread_exit"}  # do not return
ATOMIC = re.compile(
    r"\b(store_(?:relaxed|release|seq_cst)|cas_(?:seq_cst|release)|swap_seq_cst|add_(?:seq_cst|relaxed)|count_up"
    r"|atomic_fetch_\w+|note_(?:clear|wakeup|sleep|set|arm|disarm|park|poke)|memcpy|memset|strncpy)\s*\("
)
ASSIGN = re.compile(r"(?<![=!<>+\-*/|&^%])(=|\+=|-=|\|=|&=|\^=|\+\+|--)(?!=)")
TRIES = re.compile(r"(!?)\b(?:cas_seq_cst|cas_release|pcas|cansemacquire)\(")
SHARED = re.compile(r"^&?\s*(?:[GMP]\(|sudogOf\(|rt->\w+(?:\[|->)|talliesOf\()")
NO_POINT = re.compile(r"no point: *([^*]+?) *(?:\*/|$)")
OPEN = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, order=True)
class Store:
    """One store: where, and to what."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.what}"

    def distance(self, other: Store) -> tuple[bool, int, Store]:
        """How near another one is: the nearest of several is named."""
        return other.file != self.file, abs(other.line - self.line), other


@dataclass
class Summary:
    """What a call does to the question 'is there a point since the last store?'."""

    heads: frozenset[Store] = frozenset()  # stores reached without a point since the entry
    tails: frozenset[Store] = frozenset()  # stores without a point until the return
    clean: bool = False  # may return after a point
    through: bool = True  # may return with neither


@dataclass
class Function:
    name: str
    source: Source
    start: int
    end: int
    events: list[tuple[int, str, object]] = field(default_factory=list)  # offset; point, store, call or end; what


class Source:
    """One file: its text with comments and strings blanked, its comments, its functions."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.text = path.read_text()
        comments = re.finditer(r"/\*.*?\*/", self.text, re.S)
        self.comments = [(m.start(), m.end(), " ".join(m[0].split())) for m in comments]
        blank = re.compile(r'/\*.*?\*/|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|^#(?:\\\n|[^\n])*', re.S | re.M)
        self.code = blank.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), self.text)

    def line(self, at: int) -> int:
        return self.text.count("\n", 0, at) + 1

    def close(self, at: int) -> int:
        """The offset of the bracket that closes the one at `at`."""
        depth = 0
        for i in range(at, len(self.code)):
            if self.code[i] in OPEN:
                depth += 1
            elif self.code[i] in ")]}":
                depth -= 1
                if depth == 0:
                    return i
        raise SystemExit(f"{self.name}:{self.line(at)}: a bracket that nothing closes")

    def comma(self, at: int) -> int:
        """The end of the first argument in the bracket at `at`."""
        i, end = at + 1, self.close(at)
        while i < end and self.code[i] != ",":
            i = self.close(i) + 1 if self.code[i] in OPEN else i + 1
        return min(i, end)

    def functions(self) -> Iterator[Function]:
        for m in re.finditer(r"^(?!typedef)[a-z_][^;{}()=]*?(\w+)\(", self.code, re.M):
            after = self.close(m.end() - 1) + 1
            body = re.match(r"\s*\{", self.code[after:])
            if body:
                opens = after + body.end() - 1
                yield Function(m[1], self, m.start(), self.close(opens) + 1)

    def exempt(self, fn: Function) -> str | None:
        """Why all of a function is exempt, by the comment above it or by its file's first."""
        for start, end, text in self.comments:
            why = NO_POINT.search(text)
            above = end <= fn.start and not self.text[end : fn.start].strip()
            if why and (above or not self.text[:start].strip()):
                return why[1]
        return None

    def reason_at(self, at: int, fn: Function) -> str | None:
        """Why a store at this offset is exempt, by its line, its paragraph, its function or its file."""
        bol, eol = self.text.rfind("\n", 0, at) + 1, self.text.find("\n", at)
        for start, end, text in self.comments:
            why = NO_POINT.search(text) if fn.start < start < eol else None
            if not why:
                continue
            own_line = not self.text[self.text.rfind("\n", 0, start) + 1 : start].strip()
            if not own_line and bol <= start:
                return why[1]
            if own_line and start < at and not re.search(r"POINT\(|\n[ \t]*\n|\n[ \t]*\}", self.text[end:at]):
                return why[1]
        return self.exempt(fn)


class Program:
    """All of the core's scheduler."""

    def __init__(self, folder: Path) -> None:
        self.sources = [Source(path) for path in sorted([*folder.glob("*.c"), *folder.glob("*.h")])]
        header = next(source for source in self.sources if source.name == "runtime2.h")
        self.records, self.exempt_fields = self._records(header)
        self.points: list[tuple[str, str, int]] = []
        self.stores: list[tuple[Store, str | None]] = []
        self.functions: dict[str, Function] = {}
        self.gaps: dict[Store, set[Store]] = {}  # a store, and those that may follow it without a point
        for source in self.sources:
            for fn in source.functions():
                self.functions[fn.name] = fn
        for fn in self.functions.values():
            fn.events = sorted(self._events(fn), key=lambda event: event[0])
        self.summaries = {name: Summary() for name in self.functions}

    @staticmethod
    def _records(header: Source) -> tuple[set[str], dict[str, str]]:
        records: set[str] = set()
        exempt: dict[str, str] = {}
        for m in re.finditer(r"^struct (\w+) \{", header.code, re.M):
            if m[1] in PRIVATE:
                continue
            records.add(m[1])
            for line in header.text[m.end() : header.close(m.end() - 1)].splitlines():
                why = NO_POINT.search(line)
                if why:
                    names = re.sub(r"/\*.*", "", line).split(";")[0]
                    exempt.update((name, why[1]) for name in re.findall(r"(\w+)(?:\[[^\]]*\])?\s*(?=,|$)", names))
        return records, exempt

    def _events(self, fn: Function) -> Iterator[tuple[int, str, object]]:
        source, code = fn.source, fn.source.code
        if fn.name in ("pointhit", "struck", "pointhash"):
            return
        whole = source.exempt(fn)
        shared = re.compile(rf"struct (?:{'|'.join(self.records)}) ((?:\*+\w+[^,;)]*,\s*)*\*+\w+)")
        names = {n for m in shared.finditer(code, fn.start, fn.end) for n in re.findall(r"\*(\w+)", m[1])}
        body = code.index("{", fn.start)
        for m in re.finditer(r"\b(\w+)\s*\(", code[body : fn.end]):
            at = body + m.end() - 1
            close = source.close(at)
            if m[1] == "POINT":
                name = re.match(r'\(\s*\w+,\s*"([^"]+)"', source.text[at:])
                if not name:
                    raise SystemExit(f"{source.name}:{source.line(at)}: POINT without a name")
                self.points.append((name[1], source.name, source.line(at)))
                yield close, "point", name[1]
            elif ATOMIC.match(m[0]):
                first = source.text[at + 1 : source.comma(at)].strip()
                if not m[1].startswith(("mem", "str")) or self._is_shared(first, names):
                    yield from self._store(fn, body + m.start(), close, first.lstrip("&"))
            elif m[1] in ENDS:
                yield close, "end", None
            elif m[1] in self.functions and not whole:
                yield close, "call", m[1]
        for m in ASSIGN.finditer(code, body, fn.end):
            target = self._target(source, m.start(), m.end(), m[1])
            if target and self._is_shared(target, names):
                yield from self._store(fn, m.start(), code.find(";", m.start()), target)

    @staticmethod
    def _target(source: Source, start: int, end: int, operator: str) -> str | None:
        """The left side of an assignment, or what ++ and -- count."""
        code, i = source.code, start
        if operator in ("++", "--"):
            after = re.match(r"\w[\w\->.\[\]]*", code[end:])
            if after:
                return after[0]
        while i > 0 and code[i - 1] == " ":
            i -= 1
        stop = i
        while i > 0:
            c = code[i - 1]
            if c in ")]":
                depth, i = 1, i - 1
                while depth:
                    i -= 1
                    depth += (code[i] in ")]") - (code[i] in "([")
            elif c.isalnum() or c in "_.":
                i -= 1
            elif code[i - 2 : i] == "->":
                i -= 2
            else:
                break
        target = code[i:stop]
        deref = re.search(r"[;{})\n]\s*(\*+)$", code[max(0, i - 40) : i])
        declares = target.endswith("[]")
        return ("*" if deref else "") + target if target and not declares else None

    def _is_shared(self, target: str, names: set[str]) -> bool:
        base = re.match(r"[&*\s]*(\w+)", target)
        if SHARED.match(target.lstrip("*")):
            return True
        deref = target.startswith("*") or "->" in target or "[" in target
        return base is not None and base[1] in names and deref

    def _store(self, fn: Function, start: int, at: int, target: str) -> Iterator[tuple[int, str, object]]:
        last = re.findall(r"\w+(?=(?:\[[^\]]*\])*$)", target)
        store = Store(fn.source.name, fn.source.line(start), target)
        why = self.exempt_fields.get(last[-1]) if last else None
        why = why or fn.source.reason_at(start, fn)
        self.stores.append((store, why))
        if not why:
            yield at, "store", store

    # --- paths -----------------------------------------------------------------------------------------------------

    def check(self) -> list[str]:
        """Everything that is wrong, in order."""
        seen: dict[str, tuple[str, int]] = {}
        wrong = []
        for name, file, line in self.points:
            if name in seen:
                wrong.append(f"{file}:{line}: the name {name} is also at {seen[name][0]}:{seen[name][1]}")
            seen[name] = (file, line)
        changed = True
        while changed:
            changed = sum(self._summarise(fn) for fn in self.functions.values()) > 0
        for fn in self.functions.values():
            Walk(self, fn, complain=True).run()
        for before, after in sorted(self.gaps.items()):
            others = f" and {len(after) - 1} others" if len(after) > 1 else ""
            wrong.append(f"{before}: no POINT between it and {min(after, key=before.distance)}{others}")
        return wrong

    def _summarise(self, fn: Function) -> bool:
        summary = Walk(self, fn, complain=False).run()
        changed = summary != self.summaries[fn.name]
        self.summaries[fn.name] = summary
        return changed


CLEAN = "clean"
ENTRY = "entry"
State = frozenset[object]  # of CLEAN, ENTRY, Store
NOWHERE: State = frozenset()


class Walk:
    """Follows the paths of one function. A state is the set of what may have come last: a point, a store, nothing."""

    def __init__(self, program: Program, fn: Function, complain: bool) -> None:
        self.program, self.fn, self.complain = program, fn, complain
        self.code = fn.source.code
        self.heads: set[Store] = set()
        self.exits: State = NOWHERE
        self.breaks: list[State] = []
        self.continues: list[State] = []

    def run(self) -> Summary:
        opens = self.code.index("{", self.fn.source.close(self.code.index("(", self.fn.start)))
        state, _ = self.statement(opens, frozenset({ENTRY}))
        out = state | self.exits
        tails = frozenset(s for s in out if isinstance(s, Store))
        return Summary(frozenset(self.heads), tails, CLEAN in out, ENTRY in out)

    def events(self, start: int, end: int, state: State) -> State:
        for at, kind, what in self.fn.events:
            if not start <= at < end or not state:
                continue
            if kind == "point":
                state = frozenset({CLEAN})
            elif kind == "end":
                state = NOWHERE
            elif isinstance(what, Store):
                self.meet(state, {what})
                state = frozenset({what})
            else:
                summary = self.program.summaries[str(what)]
                self.meet(state, set(summary.heads))
                state = state if summary.through else NOWHERE
                state |= summary.tails | ({CLEAN} if summary.clean else NOWHERE)
        return state

    def meet(self, state: State, heads: set[Store]) -> None:
        if ENTRY in state:
            self.heads |= heads
        if not self.complain:
            return
        for before in state:
            if isinstance(before, Store) and heads:
                self.program.gaps.setdefault(before, set()).update(heads)

    def skip(self, at: int) -> int:
        found = re.compile(r"\s*").match(self.code, at)
        return found.end() if found else at

    def statement(self, at: int, state: State) -> tuple[State, int]:
        """The state after the statement at this offset, and where the next one begins."""
        at = self.skip(at)
        word = re.compile(r"[A-Za-z_]\w*|.").match(self.code, at)
        what = word[0] if word else ""
        if what == "{":
            return self.block(at, state)
        if what in ("if", "while", "for", "switch"):
            opens = self.code.index("(", at)
            return getattr(self, "_" + what)(opens, self.fn.source.close(opens) + 1, state)  # type: ignore[no-any-return]
        if what == "do":
            return self._do(at + 2, state)
        if what in ("case", "default"):
            return state, self.code.index(":", at) + 1
        end = self.semicolon(at)
        state = self.events(at, end, state)
        if what == "return":
            self.exits |= state
        elif what == "break":
            self.breaks[-1] |= state
        elif what == "continue":
            self.continues[-1] |= state
        return (NOWHERE if what in ("return", "break", "continue") else state), end

    def semicolon(self, at: int) -> int:
        while self.code[at] != ";":
            at = self.fn.source.close(at) + 1 if self.code[at] in OPEN else at + 1
        return at + 1

    def block(self, at: int, state: State) -> tuple[State, int]:
        end, at = self.fn.source.close(at), at + 1
        while self.skip(at) < end:
            state, at = self.statement(at, state)
        return state, end + 1

    def condition(self, start: int, end: int, state: State) -> tuple[State, State]:
        """The states if it is true and if it is false: a compare-and-swap that fails has stored nothing."""
        after = self.events(start, end, state)
        swap = TRIES.search(self.code, start, end)
        if not swap:
            return after, after
        several = "&&" in self.code[start:end] or "||" in self.code[start:end]
        stored = after | state if several else after
        return (state, stored) if swap[1] else (stored, state)

    def _if(self, opens: int, at: int, state: State) -> tuple[State, int]:
        true, false = self.condition(opens, at, state)
        then, at = self.statement(at, true)
        if re.match(r"else\b", self.code[self.skip(at) :]):
            false, at = self.statement(self.skip(at) + 4, false)
        return then | false, at

    def loop(self, head: tuple[int, int], body: int, step: tuple[int, int], state: State) -> tuple[State, int]:
        """Twice around: what the end of a round leaves meets the beginning of the next."""
        out, end, first = NOWHERE, body, state
        for _ in range(2):
            state, false = self.condition(*head, state)
            out |= false
            self.breaks.append(NOWHERE)
            self.continues.append(NOWHERE)
            after, end = self.statement(body, state)
            out |= self.breaks.pop()
            state = first | self.events(*step, after | self.continues.pop())
        return out | self.condition(*head, state)[1], end

    def _while(self, opens: int, at: int, state: State) -> tuple[State, int]:
        out, end = self.loop((opens, at), at, (0, 0), state)
        forever = re.match(r"\(\s*(1|true)\s*\)", self.code[opens:at])
        return (NOWHERE if forever else out), end

    def _for(self, opens: int, at: int, state: State) -> tuple[State, int]:
        first = self.semicolon(opens + 1)
        second = self.semicolon(first)
        state = self.events(opens, first, state)
        return self.loop((first, second), at, (second, at), state)

    def _do(self, at: int, state: State) -> tuple[State, int]:
        out, end = NOWHERE, at
        for _ in range(2):
            self.breaks.append(NOWHERE)
            self.continues.append(NOWHERE)
            after, close = self.statement(at, state)
            end = self.semicolon(close)
            again, false = self.condition(close, end, after | self.continues.pop())
            out = false | self.breaks.pop()
            state |= again
        return out, end

    def _switch(self, opens: int, at: int, state: State) -> tuple[State, int]:
        state = self.events(opens, at, state)
        at = self.skip(at)
        close, at, here = self.fn.source.close(at), at + 1, NOWHERE
        self.breaks.append(NOWHERE)
        while self.skip(at) < close:
            if re.match(r"case\b|default\b", self.code[self.skip(at) :]):
                here |= state
            here, at = self.statement(at, here)
        return self.breaks.pop() | here | state, close + 1


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="every point: file:line name")
    parser.add_argument("--stores", action="store_true", help="every store, and why it is exempt if it is")
    parser.add_argument("--sources", type=Path, default=HERE, help="the folder of the scheduler's sources")
    options = parser.parse_args()
    if not (options.sources / "runtime2.h").is_file():
        print(f"kill_points: no runtime2.h in {options.sources}: name the folder with --sources", file=sys.stderr)
        return 2
    program = Program(options.sources)
    wrong = program.check()
    for name, file, line in sorted(program.points, key=lambda p: p[1:]) if options.list else ():
        print(f"{file}:{line} {name}")
    for store, why in sorted(program.stores) if options.stores else ():
        print(f"{store}{f'   exempt: {why}' if why else ''}")
    for problem in wrong:
        print(problem, file=sys.stderr)
    exempt = sum(1 for _, why in program.stores if why)
    checked = len(program.stores) - exempt
    print(f"{len(program.points)} points, {checked} stores between them, {exempt} exempt, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
