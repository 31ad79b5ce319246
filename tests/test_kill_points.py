"""Every store of the GMP core has a labelled kill point between it and the next: as scripts/kill_points.py sees it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts/kill_points.py"
SOURCES = ROOT / "ipclab/core/gmp"

pytestmark = pytest.mark.skipif(
    not (SCRIPT.is_file() and SOURCES.is_dir()), reason="the core's sources are not here: this is no checkout"
)


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=120)


def judge(tmp_path: Path, body: str) -> list[str]:
    """What the script says of one function, with a record `g` that has the fields a and b, and an exempt one, c."""
    (tmp_path / "runtime2.h").write_text("struct g {\n\tint a, b;\n\tint c; /* no point: for observers */\n};\n")
    (tmp_path / "one.c").write_text(
        "/* one.c */\nvoid callee(struct gmp *rt, struct g *gp)\n{\n\tgp->b = 1;\n}\n\n"
        f"void f(struct gmp *rt, struct g *gp)\n{{\n{body}\n}}\n"
    )
    result = run("--sources", str(tmp_path))
    problems = [re.sub(r"one\.c:\d+ ", "", line) for line in result.stderr.splitlines()]
    assert result.returncode == (1 if problems else 0), result.stderr
    return problems


def test_the_core_has_a_point_between_any_two_stores() -> None:
    result = run()
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(" 0 wrong\n")


def test_a_point_taken_out_is_missed(tmp_path: Path) -> None:
    sources = tmp_path / "gmp"
    shutil.copytree(SOURCES, sources)
    text = (sources / "m.c").read_text()
    (sources / "m.c").write_text(text.replace('\tPOINT(rt, "mput.linked");\n', ""))
    result = run("--sources", str(sources))
    assert result.returncode == 1
    assert "schedlink: no POINT between it and m.c" in result.stderr


def test_a_name_used_twice_is_an_error(tmp_path: Path) -> None:
    assert judge(tmp_path, '\tPOINT(rt, "x");\n\tPOINT(rt, "x");') == ["one.c:10: the name x is also at one.c:9"]


@pytest.mark.parametrize(
    "body",
    [
        'gp->a = 1;\n\tPOINT(rt, "x");\n\tgp->b = 2;',
        "gp->a = 1;\n\tgp->c = 2;",
        "gp->a = 1;\n\tgp->b = 2; /* no point: nobody looks */",
        "/* no point: nobody looks */\n\tgp->a = 1;\n\tgp->b = 2;\n\n\tgp->a = 3;",
        "if (rt)\n\t\tgp->a = 1;\n\telse\n\t\tgp->b = 2;",
        "if (rt) {\n\t\tgp->a = 1;\n\t\treturn;\n\t}\n\tgp->b = 2;",
        "switch (rt->x) {\n\tcase 1:\n\t\tgp->a = 1;\n\t\tbreak;\n\tdefault:\n\t\tgp->b = 1;\n\t}",
        "if (!cas_seq_cst(&gp->a, &x, 1))\n\t\tgp->b = 2;",
        "struct g copy = {0};\n\tcopy.a = 1;\n\tcopy.b = 2;",
        'gp->a = 1;\n\tPOINT(rt, "x");\n\tcallee(rt, gp);',
        "gp->a = 1;\n\tthrow(rt, text);\n\tgp->b = 2;",
    ],
)
def test_paths_without_a_gap(tmp_path: Path, body: str) -> None:
    assert judge(tmp_path, f"\t{body}") == []


@pytest.mark.parametrize(
    "body",
    [
        "gp->a = 1;\n\tgp->b = 2;",
        "store_relaxed(&gp->a, 1);\n\tgp->b++;",
        'gp->a = 1;\n\tif (rt)\n\t\tPOINT(rt, "x");\n\tgp->b = 2;',
        "gp->a = 1;\n\tcallee(rt, gp);",
        "if (cas_seq_cst(&gp->a, &x, 1))\n\t\tgp->b = 2;",
        "while (rt)\n\t\tgp->a = 1;",
        "do {\n\t\tgp->a = 1;\n\t} while (rt);",
        "for (int i = 0; i < 9; i++)\n\t\tgp->a = 1;",
        "switch (rt->x) {\n\tcase 1:\n\t\tgp->a = 1;\n\tdefault:\n\t\tgp->b = 1;\n\t}",
        "/* no point: nobody looks */\n\tgp->a = 1;\n\n\tgp->a = 2;\n\tgp->b = 3;",
    ],
)
def test_paths_with_a_gap(tmp_path: Path, body: str) -> None:
    assert len(judge(tmp_path, f"\t{body}")) == 1


def test_sources_that_are_not_there_are_named(tmp_path: Path) -> None:
    result = run("--sources", str(tmp_path))
    assert result.returncode == 2
    assert "no runtime2.h in" in result.stderr
