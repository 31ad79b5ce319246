"""The house rules that a machine can check: who may import whom, what every file of a kind has to offer.

Everything here reads source text (ast), so that a module which cannot work on this machine is checked all the same;
only the two tests about the public surface import the package.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ipclab"
DEMOS = ROOT / "demos"

#: The floors of the house, design order, top first. What stands on one floor together may not import each other.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"cli"}),
    frozenset({"views"}),
    frozenset({"survey"}),  # what works here: asks every instrument
    frozenset({"labs"}),
    frozenset({"recording"}),
    frozenset({"bench"}),
    frozenset({"demos"}),  # demos as processes
    frozenset({"gmp", "states", "mechanisms"}),
    frozenset({"processes"}),
    frozenset({"machine"}),  # readers of /proc and /sys
    frozenset({"_core", "_frames"}),
    frozenset({"records"}),
    frozenset({"errors"}),
)
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
#: The package's own front door and `python -m ipclab` stand outside the floors.
DOORS = {"__init__", "__main__"}
#: views draws records: it may know nothing else of the package.
VIEWS_MAY_IMPORT = {"views", "records", "errors"}

#: Longest file, in lines; whoever is longer stands in LONG_FILES with the reason.
LONGEST_FILE = 450
LONG_FILES: dict[str, str] = {
    "ipclab/_core.c": "the binding: one short function per call of the core, and their table; none knows another",
    "ipclab/_core_bench.c": "the binding of the bench's half of the core, in the same form",
    "ipclab/_core_gmp.c": "the binding of the scheduler, in the same form",
    "ipclab/core/gmp/runtime2.h": "the records of the scheduler, each beside the others it refers to, as Go has them",
    "ipclab/core/gmp/script.c": "what a script can do: one short function per step, and the switch over them",
}
#: Longest demo, in lines: it is read whole, by a newcomer. (Under 150.)
LONGEST_DEMO = 149

MECHANISM_HEADINGS = (
    "What it is.",
    "Lifetime.",
    "Boundaries.",
    "Order.",
    "Capacity and limits.",
    "Blocking.",
    "When an end dies.",
    "Use it when",
    "Not when",
    "Man pages.",
)
DEMO_FAMILIES = {"data transfer", "shared memory", "signals", "synchronisation", "processes", "scheduler", "comparison"}
MECHANISM_FAMILIES = {
    "data": "data transfer",
    "shared": "shared memory",
    "signals": "signals",
    "sync": "synchronisation",
}

PACKAGE_FILES = sorted(PACKAGE.rglob("*.py"))
DEMO_FILES = sorted(path for path in DEMOS.glob("*.py") if not path.name.startswith("_"))
C_FILES = sorted(path for pattern in ("*.c", "*.h") for path in PACKAGE.rglob(pattern))


def short(path: Path) -> str:
    """A path as a test's id and a message show it."""
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def constants(tree: ast.Module) -> dict[str, ast.expr]:
    """The module-level assignments of a file: name -> value."""
    found: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            found.update({target.id: node.value for target in node.targets if isinstance(target, ast.Name)})
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found[node.target.id] = node.value
    return found


def dotted(path: Path) -> list[str]:
    """The module's name in parts, without the leading "ipclab"; a package's __init__ stands for the package."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


def is_module(parts: list[str]) -> bool:
    """Whether ipclab.<parts> is a file of the package (the compiled modules have a stub)."""
    base = PACKAGE.joinpath(*parts)
    return base.is_dir() or any(base.with_name(base.name + suffix).exists() for suffix in (".py", ".pyi"))


def imported(path: Path, tree: ast.Module) -> Iterator[tuple[int, list[str]]]:
    """Every import of something of ours, at any depth of the file: line, module in parts without "ipclab"."""
    here = ["ipclab", *dotted(path)]
    package = here if path.name == "__init__.py" else here[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "ipclab":
                    yield node.lineno, parts[1:]
        elif isinstance(node, ast.ImportFrom):
            parts = node.module.split(".") if node.module else []
            if node.level:
                parts = [*package[: len(package) - node.level + 1], *parts]
            if parts[:1] != ["ipclab"]:
                continue
            for alias in node.names:
                deeper = [*parts[1:], alias.name]
                yield node.lineno, deeper if is_module(deeper) else parts[1:]


def import_faults(path: Path) -> list[str]:
    """What a file imports against the direction, one line each."""
    own = dotted(path)[0]
    faults = []
    for line, parts in imported(path, parse(path)):
        where = f"{short(path)}:{line}"
        if not parts:
            faults.append(f"{where} imports a name from the package's front door; ask the module that has it")
            continue
        target = parts[0]
        if target not in FLOOR_OF:
            faults.append(f"{where} imports ipclab.{target}, which has no floor")
        elif target == own:
            continue
        elif own == "views" and target not in VIEWS_MAY_IMPORT:
            faults.append(f"{where} imports ipclab.{target}; views knows records alone")
        elif FLOOR_OF[target] <= FLOOR_OF[own]:
            faults.append(f"{where} imports ipclab.{target}, up or sideways from ipclab.{own}")
    return faults


# --- the import direction --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path in PACKAGE_FILES if dotted(path)[0] not in DOORS], ids=short)
def test_imports_run_downward(path: Path) -> None:
    own = dotted(path)[0]
    assert own in FLOOR_OF, f"{short(path)} stands on no floor: give ipclab.{own} its place in FLOORS"
    assert import_faults(path) == []


@pytest.mark.parametrize(
    ("where", "text", "words"),
    [
        ("processes/x.py", "from ipclab.mechanisms import base", "up or sideways"),
        ("processes/x.py", "def f():\n    import ipclab.cli.main", "up or sideways"),
        ("states/x.py", "from ..gmp import runtime", "up or sideways"),
        ("gmp/x.py", "from ipclab import states", "up or sideways"),
        ("views/x.py", "from ipclab.processes import say", "views knows records alone"),
        ("bench/x.py", "from ipclab import Ring", "front door"),
        ("bench/x.py", "import ipclab.helpers", "no floor"),
    ],
)
def test_the_check_sees_a_wrong_import(where: str, text: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The check itself is tested on text that breaks each rule once, lest it pass because it sees nothing.
    monkeypatch.setattr(sys.modules[__name__], "parse", lambda _path: ast.parse(text))
    monkeypatch.setattr(
        sys.modules[__name__],
        "is_module",
        lambda parts: parts[0] != "Ring" and (len(parts) == 1 or parts[-1] in {"base", "runtime"}),
    )
    (fault,) = import_faults(PACKAGE / where)
    assert words in fault


@pytest.mark.parametrize("path", DEMO_FILES, ids=short)
def test_demos_use_the_public_floors(path: Path) -> None:
    used = {parts[0] for _line, parts in imported(PACKAGE / "demo.py", parse(path)) if parts}
    assert not used & {"cli", "views"}, "a demo stands beside the command line, not on it"


# --- the C core ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path in C_FILES if "core" in path.parts], ids=short)
def test_the_core_knows_no_python(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r'#\s*include\s*[<"]Python\.h[>"]', text)
    if "tests" not in path.parts:
        code = re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\])*"', " ", text, flags=re.DOTALL)
        calls = re.findall(r"\b(printf|fprintf|puts|perror|exit|_exit|abort)\s*\(", code)
        assert not calls, "the core returns -errno, prints nothing, exits never"


def test_one_file_joins_core_and_python() -> None:
    both = [short(path) for path in C_FILES if "Python.h" in path.read_text(encoding="utf-8")]
    # The binding may be cut into _core_*.c; what matters is that it stands beside the core, not in it.
    assert [name for name in both if not re.fullmatch(r"ipclab/_(core|frames)(_\w+)?\.[ch]", name)] == []


# --- the public surface ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ipclab", "ipclab.processes", "ipclab.mechanisms"])
def test_exports_exist_and_are_named_once(name: str) -> None:
    module = import_module(name)
    exported: list[str] = list(getattr(module, "__all__", ()))
    assert len(exported) == len(set(exported))
    for export in exported:
        assert hasattr(module, export), f"{name}.__all__ names {export}, which does not exist"


def test_every_public_class_has_one_definition() -> None:
    # Two classes of one name in two files would pickle as two things and confuse every `except`.
    module = import_module("ipclab")
    public = {export for export in module.__all__ if not export.startswith("__")}
    homes: dict[str, list[str]] = {}
    for path in PACKAGE_FILES:
        for node in parse(path).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in public:
                homes.setdefault(node.name, []).append(short(path))
    assert {export: files for export, files in homes.items() if len(files) > 1} == {}
    missing = {export for export in public - homes.keys() if not is_module([export])}
    assert missing == set(), f"exported, but defined nowhere: {sorted(missing)}"


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = (
        "import sys; before = set(sys.modules); import ipclab, ipclab.mechanisms; "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    loaded = set(done.stdout.split())
    assert "ipclab" in loaded
    assert not loaded & {
        "zmq",
        "numpy",
        "rich",
        "click",
        "psutil",
        "posix_ipc",
        "multiprocessing",
        "logging",
        "asyncio",
    }


def test_ctrl_c_cannot_break_msgspec_while_it_loads() -> None:
    # msgspec 0.22 goes on without datetime when it was interrupted there, and the first decoder then reads NULL.
    script = (
        "import ipclab, sys\n"
        "class CtrlC:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'datetime':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, CtrlC())\n"
        "import ipclab.processes.logs\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif("IPCLAB_TEST_INSTALLED" not in os.environ, reason="only tox tests an installed package")
def test_the_installed_package_is_the_one_tested() -> None:
    package = Path(str(import_module("ipclab").__file__)).parent
    assert package.is_relative_to(sys.prefix), f"the tests import {package}, not the wheel tox installed"


# --- mechanisms ------------------------------------------------------------------------------------------------------


def known_programs() -> set[str]:
    table = constants(parse(PACKAGE / "machine" / "programs.py"))["PROGRAMS"]
    assert isinstance(table, ast.Dict)
    return {ast.literal_eval(key) for key in table.keys if key is not None}


def catalogue() -> dict[str, str]:
    """name -> module of every mechanism, read from the source of ipclab.mechanisms."""
    table: dict[str, str] = ast.literal_eval(constants(parse(PACKAGE / "mechanisms" / "__init__.py"))["CATALOGUE"])
    return table


MECHANISMS = [
    (name, PACKAGE.joinpath("mechanisms", *module.split(".")).with_suffix(".py"))
    for name, module in catalogue().items()
]


@pytest.mark.parametrize(("name", "path"), MECHANISMS, ids=[name for name, _path in MECHANISMS])
def test_a_mechanism_is_a_page_and_four_parts(name: str, path: Path) -> None:
    tree = parse(path)
    page = ast.get_docstring(tree) or ""
    assert page.startswith(f"{name}: "), "the page's first line is 'NAME: one sentence'"
    at = [page.find(heading) for heading in MECHANISM_HEADINGS]
    absent = [heading for heading, position in zip(MECHANISM_HEADINGS, at, strict=True) if position < 0]
    assert absent == [], "headings missing in the docstring"
    assert at == sorted(at), "the docstring's headings are out of order"
    defined = constants(tree)
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {"MECHANISM", "LINK"} <= defined.keys()
    assert {"probe", "limits"} <= functions
    record = defined["MECHANISM"]
    assert isinstance(record, ast.Call)
    said = {keyword.arg: keyword.value for keyword in record.keywords}
    assert ast.literal_eval(said["name"]) == name
    assert ast.literal_eval(said["family"]) == MECHANISM_FAMILIES[path.parent.name]
    for page_name in ast.literal_eval(said["man_pages"]):
        assert re.fullmatch(r"[\w.-]+\(\d\w*\)", page_name), f"{page_name!r} is not a manual page, as in pipe(7)"


def test_every_mechanism_file_is_in_the_catalogue() -> None:
    listed = {path for _name, path in MECHANISMS}
    here = {
        path
        for family in MECHANISM_FAMILIES
        for path in (PACKAGE / "mechanisms" / family).glob("*.py")
        if not path.name.startswith("_")
    }
    assert here == listed


# --- demos -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DEMO_FILES, ids=short)
def test_a_demo_is_short_and_says_how_to_run_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_DEMO
    assert text.isascii(), "a demo prints plain ASCII, and is it"
    tree = parse(path)
    name = path.stem.replace("_", "-")
    page = ast.get_docstring(tree) or ""
    assert page.startswith(f"{name}: "), "the docstring's first line is 'NAME: one sentence'"
    head = "\n".join(text.splitlines()[:15])
    assert f"demos/{path.name}" in head or f"ipclab demo {name}" in head, "its own command is not in its first lines"
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "main" in functions


@pytest.mark.parametrize("path", DEMO_FILES, ids=short)
def test_a_demo_has_literal_metadata(path: Path) -> None:
    defined = constants(parse(path))
    assert ast.literal_eval(defined["FAMILY"]) in DEMO_FAMILIES
    known = catalogue()
    for field in ("NEEDS", "BETTER_WITH"):
        names = ast.literal_eval(defined[field])
        assert isinstance(names, tuple)
        programs = known_programs() if field == "BETTER_WITH" else set()
        assert set(names) <= known.keys() | programs, f"{field} names an unknown mechanism"


def test_there_are_demos() -> None:
    assert DEMO_FILES, "an empty folder would let every check above pass"


# --- every file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PACKAGE_FILES, *DEMO_FILES, *sorted((ROOT / "tests").rglob("*.py"))], ids=short)
def test_every_file_opens_with_what_it_is(path: Path) -> None:
    with tokenize.open(path) as file:
        text = file.read()
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), f"{short(path)} has no docstring"


@pytest.mark.parametrize("path", C_FILES, ids=short)
def test_every_c_file_opens_with_what_it_is(path: Path) -> None:
    assert path.read_text(encoding="utf-8").lstrip().startswith(("/*", "//"))


def test_files_stay_readable() -> None:
    read = [*PACKAGE_FILES, *(path for path in C_FILES if "tests" not in path.parts)]
    lengths = {short(path): len(path.read_text(encoding="utf-8").splitlines()) for path in read}
    long = {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE and name not in LONG_FILES}
    assert long == {}, f"split them, or give the reason in LONG_FILES (over {LONGEST_FILE} lines)"
    stale = [name for name in LONG_FILES if lengths.get(name, 0) <= LONGEST_FILE - 50]
    assert stale == [], "no longer long: take them out of LONG_FILES"


# --- the project's own text ------------------------------------------------------------------------------------------


def readme_commands() -> list[str]:
    """The commands in README.md before its first heading of the second level."""
    opening = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", opening, flags=re.DOTALL)
    return [line for block in blocks for line in block.strip().splitlines()]


def test_the_readme_opens_with_two_commands() -> None:
    demo, test = readme_commands()
    for command in (demo, test):
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install "), "each does its own set-up"
    assert demo.endswith("ipclab demo")
    assert test.endswith("/tox")


def test_the_check_runs_the_readmes_test_command() -> None:
    # .ci/run takes the line out of the README; here the same expression is run, so that neither can drift.
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    taken = re.search(r"""command_line="\$\((grep .* README\.md)\)"$""", script, flags=re.MULTILINE)
    assert taken
    done = subprocess.run(["sh", "-c", taken[1]], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == readme_commands()[1]
    assert 'bash -c "$command_line"' in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_architecture_page_names_every_folder() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = {path.parent for path in [*PACKAGE_FILES, *C_FILES]}
    absent = sorted(short(folder) for folder in folders if f"{short(folder)}/" not in page)
    assert absent == []
