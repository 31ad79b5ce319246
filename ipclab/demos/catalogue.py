"""The demos: where they are, and what each file says of itself.

In a source checkout they stand in demos/ beside the package, in an installation in ipclab/_demos. A demo is described
by literals in its own file (FAMILY, NEEDS, BETTER_WITH and the first line of its docstring), which are read from the
source text: listing the demos runs none of them.
"""

from __future__ import annotations

import ast
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast, get_args

from ipclab.errors import IpclabError, Unavailable, UsageError
from ipclab.records import Demo, DemoFamily

#: The order in which families are shown and run: what a process is comes first, comparisons last.
FAMILIES: tuple[DemoFamily, ...] = get_args(DemoFamily)

_PACKAGE = Path(__file__).parent.parent


def folder(package: Path = _PACKAGE) -> Path:
    """Where the demos are. Raises Unavailable when this installation has none."""
    beside = package.parent / "demos"
    for place, there in ((beside, _is_checkout(package.parent)), (package / "_demos", True)):
        if there and place.is_dir():
            return place
    raise Unavailable(f"no demos: neither {beside} nor {package / '_demos'} exists", hint="install ipclab again")


def _is_checkout(root: Path) -> bool:
    """Whether this folder is ipclab's own source: site-packages may well have a foreign `demos` in it."""
    try:
        lines = (root / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return False
    return 'name = "ipclab"' in lines


def names() -> list[str]:
    """Every demo's name, sorted, from the file names alone."""
    try:
        paths = list(folder().glob("*.py"))
    except OSError as err:
        raise IpclabError(f"the folder of the demos cannot be read: {err.strerror}") from err
    return sorted(path.stem.replace("_", "-") for path in paths if not path.name.startswith("_"))


def find(name: str) -> Demo:
    """One demo. Raises UsageError with the nearest name."""
    known = names()
    if name not in known:
        near = get_close_matches(name, known, n=1, cutoff=0.0)
        hint = f"did you mean {near[0]!r}? `ipclab demo --list` has them all" if near else None
        raise UsageError(f"no demo is called {name!r}", hint=hint)
    return read(folder() / f"{name.replace('-', '_')}.py")


def find_all() -> tuple[Demo, ...]:
    """Every demo, by family, in each by name."""
    found = [read(folder() / f"{name.replace('-', '_')}.py") for name in names()]
    return tuple(sorted(found, key=lambda demo: (FAMILIES.index(demo.family), demo.name)))


def source(demo: Demo) -> str:
    """The text of its file."""
    try:
        return Path(demo.path).read_text(encoding="utf-8")
    except (OSError, ValueError) as err:
        raise IpclabError(f"demo {demo.name}: {demo.path} cannot be read: {err}") from err


def read(path: Path) -> Demo:
    """What the file says of itself, read by ast. Raises IpclabError when it does not say it as it should."""
    name = path.stem.replace("_", "-")
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        said = _literals(tree)
    except (OSError, ValueError, SyntaxError) as err:
        raise IpclabError(f"demo {name}: {path} cannot be read: {err}") from err
    title, _, summary = (ast.get_docstring(tree) or "").partition("\n")[0].partition(": ")
    if title != name or said.get("FAMILY") not in FAMILIES:
        raise IpclabError(f"demo {name}: {path} must begin with the docstring '{name}: ...' and have a FAMILY")
    return Demo(
        name=name,
        summary=summary.strip(),
        family=cast("DemoFamily", said["FAMILY"]),
        needs=tuple(said.get("NEEDS", ())),
        better_with=tuple(said.get("BETTER_WITH", ())),
        path=str(path),
    )


def _literals(tree: ast.Module) -> dict[str, Any]:
    """The module constants that describe the demo."""
    found: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name, value = node.targets[0].id, node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            name, value = node.target.id, node.value
        else:
            continue
        if name in ("FAMILY", "NEEDS", "BETTER_WITH"):
            found[name] = ast.literal_eval(value)
    return found
