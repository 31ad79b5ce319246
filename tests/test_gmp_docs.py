"""The scheduler's pages: the names in them exist, their commands can be given, both languages tell the same.

Everything here reads source text; no command is run, each is only taken apart as the command line would.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from ipclab.cli.group import group
from ipclab.gmp import compile as compile_
from ipclab.gmp.workload import Block, Job, Workload
from ipclab.machine import programs
from ipclab.records.event_text import WAIT_REASONS

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "ipclab" / "core"
FIELDS = ROOT / "docs" / "gmp-fields.md"
LANGUAGES = (ROOT / "docs" / "gmp.md", ROOT / "docs" / "gmp.zh-CN.md")
SIM = (ROOT / "docs" / "gmp-sim.md", ROOT / "docs" / "gmp-sim.zh-CN.md")
PAGES = (*LANGUAGES, FIELDS, *SIM)
RECORDS = ("g", "m", "p", "schedt")
GO_VERSION = "go1.25"

#: What a shell block of these pages may call beside ipclab, and does not stand in the checkout.
TOOLS = {"cmake", "ctest"}


# --- reading C -------------------------------------------------------------------------------------------------------
@cache
def sources() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted((CORE / "gmp").glob("*.[ch]")))


@cache
def words() -> frozenset[str]:
    return frozenset(re.findall(r"\w+", sources()))


def fields_of(record: str) -> set[str]:
    """The fields of `struct record` in the core, without those of checked builds."""
    text = re.sub(r"/\*.*?\*/|#ifdef IPCLAB_CHECKED.*?#endif", "", sources(), flags=re.DOTALL)
    body = re.search(rf"\bstruct {record} \{{(.*?)^\}}", text, re.DOTALL | re.MULTILINE)
    assert body, f"struct {record} is not in {CORE / 'gmp'}"
    names = set()
    for declaration in re.sub(r"_Alignas\([^)]*\)", "", body[1]).split(";"):
        for declarator in declaration.split(","):
            if words := re.findall(r"\w+", declarator.split("[")[0]):
                names.add(words[-1])
    return names


# --- reading pages ---------------------------------------------------------------------------------------------------
def sections(page: Path) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text: str) -> Iterator[list[str]]:
    """The cells of the tables' rows, without their heads."""
    table = [line for line in text.splitlines() if line.startswith("|")]
    for line in table[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def spans(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def prose(page: Path) -> str:
    """Without blocks of code and pictures."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return "\n".join(line for line in text.splitlines() if not line.startswith("    "))


def commands(page: Path) -> list[str]:
    """What its blocks tell to type: all lines of a `sh` block, and those after `$` in a block with output."""
    found = []
    for language, block in re.findall(
        r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    ):
        for line in block.splitlines():
            if language == "sh":
                found.append(line)
            elif language in ("text", "console") and line.startswith("$ "):
                found.append(line[2:])
    return [line for line in found if line.split("#")[0].strip()]


# --- the table of fields ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("record", RECORDS)
def test_what_the_table_says_to_be_here_is_here(record: str) -> None:
    for _go, here, *_ in rows(sections(FIELDS)[record]):
        for name in spans(here):
            owner, _, field = name.rpartition(".")
            assert field in fields_of(owner or record), f"docs/gmp-fields.md, {record}: {name} is not in the sources"


def named_here(section: str, record: str | None = None) -> set[str]:
    """The fields of `record` that the column "here" of a section has; in "Smaller records" it is named first."""
    found = [spans(here) for _go, here, *_ in rows(sections(FIELDS)[section])]
    if record is not None:
        found = [names[1:] for names in found if names[:1] == [record]]
    return {name for names in found for name in names}


@pytest.mark.parametrize("record", RECORDS)
def test_every_field_that_is_here_is_in_the_table(record: str) -> None:
    elsewhere = {name for section in sections(FIELDS) for name in named_here(section) if name.startswith(f"{record}.")}
    here = {name for name in named_here(record) if "." not in name} | {name.partition(".")[2] for name in elsewhere}
    assert fields_of(record) - here == set()


@pytest.mark.parametrize("record", ["sudog", "hchan", "timers", "sysmontick", "gQueue", "sema"])
def test_every_field_of_a_smaller_record_is_in_the_table(record: str) -> None:
    assert fields_of(record) - named_here("Smaller records", record) - {"unused"} == set()


#: Not in a snapshot: where things lie, what only tests and repair use, and what is shown in another form.
NOT_IN_A_SNAPSHOT = {
    "schedt": {
        "header", "recordbytes", "layout", "off_programs", "off_steps", "off_chans", "off_semas", "off_p", "off_m",
        "off_g", "off_sudog", "off_words", "off_spans", "off_heap", "off_marea", "maxprograms", "maxsteps",
        "maxchans", "maxsemas", "maxwords", "nwords", "mareabytes", "threads", "startticks", "idlepMask", "timerpMask",
        "sudogcommitted", "fataltext", "lostgoids", "epoch", "killpoint", "killcountdown", "killmask", "killsignal",
        "snapseq", "snapfor", "snaprefused", "snapinside", "tookns", "heaplock", "mcentral", "maxspans",
        "heapepoch", "chanlock", "chanfree", "semafree", "chancommitted", "semacommitted",
    },
    "p": {"runq", "adrift", "mcache"},
    "m": {"log", "logcount", "logacc"},
    "g": {"sg", "mutexflags", "tchild", "tnext", "tprev", "count", "since", "mark"},
}  # fmt: skip


@pytest.mark.parametrize("record", RECORDS)
def test_every_field_is_in_a_snapshot(record: str) -> None:
    """`ipclab gmp snapshot` shows every field; a new one goes into the table of _core_gmp_fields.c."""
    binding = (ROOT / "ipclab" / "_core_gmp_fields.c").read_text(encoding="utf-8")
    shown = set(re.findall(rf"\b(?:U|I|KEY)\(struct {record}, (\w+)", binding))
    assert shown
    assert fields_of(record) - shown - NOT_IN_A_SNAPSHOT[record] == set(), (
        "into _core_gmp_fields.c, or NOT_IN_A_SNAPSHOT"
    )


def test_smaller_records_have_the_fields_of_their_table() -> None:
    for _go, here, *_ in rows(sections(FIELDS)["Smaller records"]):
        record, *names = spans(here) or ["-"]
        for name in names:
            assert name in fields_of(record), f"docs/gmp-fields.md: {record}.{name} is not in the sources"


@pytest.mark.parametrize("section", ["Variables", "States", "Functions"])
def test_other_names_are_in_the_sources(section: str) -> None:
    for _go, here, *_ in rows(sections(FIELDS)[section]):
        for name in spans(here):
            owner, _, word = name.rpartition(".")
            assert word in (fields_of(owner) if owner else words()), f"docs/gmp-fields.md, {section}: {name}"


def test_every_wait_reason_is_some_gs_and_has_one_text() -> None:
    body = re.search(r"^enum wait_reason \{(.*?)^\};", sources(), re.DOTALL | re.MULTILINE)
    assert body
    *names, _count = re.findall(r"\bwaitReason\w+", re.sub(r"/\*.*?\*/", "", body[1]))
    texts = dict(re.findall(r'\[(waitReason\w+)\] = "([^"]*)"', sources()))
    assert [texts[name] for name in names] == list(WAIT_REASONS)
    for name in names:
        uses = len(re.findall(rf"\b{name}\b", sources()))
        assert uses > 2, f"{name} is declared and has a text, and no G waits for it"


@pytest.mark.parametrize("record", RECORDS)
def test_every_field_of_go_is_in_the_table(record: str) -> None:
    """Against Go's own source."""
    named = {name for theirs, *_ in rows(sections(FIELDS)[record]) for name in spans(theirs)}
    assert go_fields(go_root() / "src" / "runtime" / "runtime2.go", record) == named


@pytest.mark.parametrize("section", ["Variables", "States", "Functions"])
def test_every_name_of_gos_is_gos(section: str) -> None:
    source = "\n".join(path.read_text("utf-8") for path in sorted((go_root() / "src" / "runtime").glob("*.go")))
    source += (go_root() / "src" / "internal" / "sync" / "mutex.go").read_text("utf-8")
    for theirs, *_ in rows(sections(FIELDS)[section]):
        for name in spans(theirs):
            declared = rf"^func (?:\([^)]*\) )?{name}\(|^(?:var |\t)(?:\w+, )*{name}\b"
            assert re.search(declared, source, re.MULTILINE), f"docs/gmp-fields.md, {section}: Go has no {name}"


def go_root() -> Path:
    """Of a Go of the version that the page is about, where there is one (`tox -e go`)."""
    go = programs.find("go")
    if go is None:
        pytest.skip("no Go here")
    version, root = subprocess.check_output([go, "env", "GOVERSION", "GOROOT"], text=True, timeout=60).split()
    if not version.startswith(GO_VERSION):
        pytest.skip(f"the page is about {GO_VERSION}, this is {version}")
    return Path(root)


def go_fields(source: Path, record: str) -> set[str]:
    body = re.search(rf"^type {record} struct \{{\n(.*?)^\}}", source.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert body, f"{source}: no {record}"
    flat = re.sub(r"//.*", "", body[1])
    flat = re.sub(r"\{\n.*?\n\t\}", "", flat, flags=re.DOTALL)  # a struct within it: its own name is what counts
    names: set[str] = set()
    for line in filter(None, map(str.strip, flat.splitlines())):
        first = re.match(r"((?:\w+, )*\w+)", line)
        assert first, line
        names.update(first[1].split(", "))
    return names


# --- the essay -------------------------------------------------------------------------------------------------------
FILES = sorted(path.name for path in (CORE / "gmp").glob("*.c"))


def test_the_essay_names_every_file() -> None:
    essay = (CORE / "gmp" / "proc.c").read_text(encoding="utf-8").split("*/")[0]
    told = set(re.findall(r"\w+\.c\b", essay[essay.index(" * Files: ") :]))
    assert told == set(FILES) - {"proc.c"}


@pytest.mark.parametrize(("page", "section"), [(LANGUAGES[0], "Read it"), (LANGUAGES[1], "读源码")])
def test_the_page_says_where_everything_is(page: Path, section: str) -> None:
    told = {name for _go, here, *_ in rows(sections(page)[section]) for name in spans(here)}
    assert {name for name in told if name.endswith(".c")} == set(FILES)


@pytest.mark.parametrize("page", LANGUAGES, ids=lambda page: page.name)
def test_a_check_that_a_page_quotes_is_on_that_line(page: Path) -> None:
    quoted = re.findall(r"`(\w+\.c):(\d+): ([^`]+)`", page.read_text(encoding="utf-8"))
    assert quoted
    for name, line, text in quoted:
        assert f'"{text}"' in (CORE / "gmp" / name).read_text(encoding="utf-8").splitlines()[int(line) - 1]


# --- commands --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_can_be_given(page: Path) -> None:
    for line in commands(page):
        for command in re.split(r"&&|;|\|", line.split("  #")[0]):
            words = shlex.split(command)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                assert words[0].split("=")[0] in everything(), f"{page.name}: nobody reads {words[0]}"
                words = words[1:]
            check_command(page, words)


def check_command(page: Path, words: list[str]) -> None:
    name, *arguments = words
    if name == "ipclab":
        parse(arguments)
    elif name == "python":
        assert (ROOT / arguments[0]).exists(), f"{page.name}: {arguments[0]}"
    elif name.startswith("build/core/"):
        assert (CORE / "tests" / f"{Path(name).name}.c").exists(), f"{page.name}: {name}"
        for case in arguments:
            assert f'"{case}"' in (CORE / "tests" / f"{Path(name).name}.c").read_text("utf-8"), f"{page.name}: {case}"
    else:
        assert name in TOOLS, f"{page.name}: {name}"


def parse(arguments: list[str]) -> None:
    """As the command line takes them apart; UsageError: it would refuse them."""
    command: click.Command = group
    with click.Context(command, info_name="ipclab") as context:
        while isinstance(command, click.Group):
            name, *arguments = arguments
            found = command.get_command(context, name)
            assert found, f"no command is called {name}"
            command = found
        command.make_context(command.name, list(arguments), parent=context)


@cache
def everything() -> str:
    """The C tests, which read the variables that the pages set for them."""
    return "\n".join(path.read_text("utf-8") for path in sorted((CORE / "tests").glob("*.[ch]")))


# --- both languages --------------------------------------------------------------------------------------------------
def demos(page: Path) -> set[str]:
    return set(re.findall(r"ipclab demo ([a-z][a-z-]+)", page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", LANGUAGES, ids=lambda page: page.name)
def test_demos_of_a_page_exist(page: Path) -> None:
    assert demos(page)
    for name in demos(page):
        assert (ROOT / "demos" / f"{name.replace('-', '_')}.py").exists(), f"{page.name}: {name}"


def test_both_languages_show_the_same_demos() -> None:
    assert demos(LANGUAGES[0]) == demos(LANGUAGES[1])


def blocks(text: str) -> list[str]:
    return re.findall(r"^```\w+\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", LANGUAGES, ids=lambda page: page.name)
def test_every_section_ends_in_one_command_and_its_output(page: Path) -> None:
    for title, text in sections(page).items():
        assert text.endswith("\n```\n\n" if title != list(sections(page))[-1] else "\n```\n"), f"{page.name}: {title}"
        shown = [block for block in blocks(text) if block.startswith("$ ")]
        assert len(shown) == 1, f"{page.name}: {title}"
        assert shown[0] == blocks(text)[-1], f"{page.name}: {title}"
        assert len(shown[0].splitlines()) > 1, f"{page.name}: {title}: no output"


@pytest.mark.parametrize("pages", [LANGUAGES, SIM], ids=lambda pages: pages[0].name)
def test_both_languages_have_the_same_sections(pages: tuple[Path, Path]) -> None:
    english, chinese = (list(sections(page).values()) for page in pages)
    assert len(english) == len(chinese)
    for one, other in zip(english, chinese, strict=True):
        assert blocks(one) == blocks(other)
        assert len(list(rows(one))) == len(list(rows(other)))
        assert len(re.findall(r"^    ", one, re.MULTILINE)) == len(re.findall(r"^    ", other, re.MULTILINE))


@pytest.mark.parametrize("page", SIM, ids=lambda page: page.name)
def test_the_page_has_every_step_and_every_field_of_a_workload(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    steps = {span.split()[0] for go, *_ in rows(text) for span in spans(go)}
    assert set(compile_._VERBS) <= steps
    for record in (Workload, Job, Block):
        for field in record.__struct_encode_fields__:
            assert re.search(rf"\b{field}\b", text), f"{page.name}: {record.__name__}.{field}"


def links(page: Path) -> set[str]:
    """To files; not to places in the page itself."""
    return {target for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")) if not target.startswith("#")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in links(page):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
