"""The wheel: what is in it, and that it runs in an empty environment on a machine without a compiler.

tox hands over the wheel it has built (TOX_PACKAGE); without tox one is built here, beside the checkout's own build
folder. The environment it is installed into lies outside the checkout and its PATH holds that environment alone: no
compiler, no cmake, not even a shell.
"""

from __future__ import annotations

import email.message
import email.parser
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from surroundings import ROOT, Surroundings

RING = """
import os, sys, ipclab
ring = ipclab.Ring(65536)
pid = os.fork()
if pid == 0:
    ring.put(b"from a process of its own", timeout_s=10)
    os._exit(0)
print(ring.get(timeout_s=10).decode())
ring.close()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel under test."""
    ready = os.environ.get("TOX_PACKAGE", "")
    if ready.endswith(".whl"):
        return Path(ready)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(out), "-C", f"build-dir={out}/build"]
    if find_spec("scikit_build_core") and shutil.which("cmake"):
        command.append("--no-build-isolation")
    subprocess.run([*command, str(ROOT)], check=True, timeout=280)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="session")
def metadata(wheel: Path, names: list[str]) -> email.message.Message:
    (path,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    with zipfile.ZipFile(wheel) as archive:
        return email.parser.BytesParser().parsebytes(archive.read(path))


@pytest.fixture(scope="session")
def installed(wheel: Path) -> Iterator[Path]:
    """The folder of an environment that holds the wheel and its dependencies, in a place anybody may read."""
    place = Path(tempfile.mkdtemp(prefix="ipclab-wheel-", dir="/tmp"))
    try:
        place.chmod(0o755)
        subprocess.run([sys.executable, "-m", "venv", str(place / "venv")], check=True, timeout=120)
        pip = [str(place / "venv" / "bin" / "python"), "-m", "pip", "install", "-q", "--only-binary", ":all:"]
        done = subprocess.run([*pip, str(wheel)], env=bare(place), capture_output=True, text=True, timeout=150)
        if done.returncode and "CI" not in os.environ and "No matching distribution" in done.stderr:
            pytest.skip("no package index within reach")
        assert done.returncode == 0, done.stderr
        yield place / "venv"
    finally:
        shutil.rmtree(place)


def bare(place: Path) -> dict[str, str]:
    """An environment whose PATH has no compiler; the package index stays the one this machine is set up for."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.endswith("_proxy")}
    path = str(place / "venv" / "bin")
    for tool in ("cc", "gcc", "clang", "cmake", "make", "ninja"):
        assert shutil.which(tool, path=path) is None
    return {"PATH": path, "HOME": str(place), "TMPDIR": str(place), "LANG": "C.UTF-8", **kept}


def run(installed: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run something of the environment, from outside the checkout."""
    place = installed.parent
    command = [str(installed / "bin" / argv[0]), *argv[1:]]
    return subprocess.run(
        command, cwd=place, env=bare(place), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )


# --- what is in it ---------------------------------------------------------------------------------------------------


def test_it_holds_the_compiled_core_and_its_types(names: list[str]) -> None:
    assert [name for name in names if name.startswith("ipclab/_core.") and name.endswith(".so")]
    assert {"ipclab/_core.pyi", "ipclab/py.typed"} <= set(names)


def test_it_holds_every_module_and_every_demo(names: list[str]) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ipclab").rglob("*.py")}
    demos = {f"ipclab/_demos/{path.name}" for path in (ROOT / "demos").glob("*.[pg][yo]")}
    assert modules - set(names) == set()
    assert demos
    assert demos - set(names) == set()


def test_it_holds_nothing_else(names: list[str]) -> None:
    assert [name for name in names if not name.startswith("ipclab/") and ".dist-info/" not in name] == []
    sources = (".c", ".h", ".o", ".a", ".cmake", ".pyc", "CMakeLists.txt")
    assert [name for name in names if name.endswith(sources) or "/tests/" in name or "/core/" in name] == []


def test_its_licence_is_in_its_metadata(names: list[str], metadata: email.message.Message) -> None:
    assert metadata["License-Expression"] == "MIT"
    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]


def test_its_metadata_says_what_it_needs(metadata: email.message.Message) -> None:
    assert metadata["Requires-Python"] == ">=3.11"
    assert {"sysv", "peers"} <= set(metadata.get_all("Provides-Extra", []))
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_its_tag_is_of_this_interpreter_and_of_linux(wheel: Path) -> None:
    # A wheel tagged "any" would install where its compiled core cannot run.
    _name, _version, python, _abi, platform = wheel.stem.split("-")
    assert python == f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert "linux" in platform


def test_the_source_distribution_can_build_it(tmp_path: Path) -> None:
    if find_spec("scikit_build_core") is None:
        pytest.skip("scikit-build-core is not in this environment")
    script = "import sys; from scikit_build_core.build import build_sdist; print(build_sdist(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    with tarfile.open(tmp_path / done.stdout.split()[-1]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    needed = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ipclab").rglob("*.[ch]")}
    needed |= {"CMakeLists.txt", "pyproject.toml", "LICENSE", "README.md", "ipclab/_core.pyi", "demos/pipe.py"}
    assert needed - held == set()
    assert [name for name in held if name.startswith(("build/", ".tox/", ".venv/"))] == []


# --- that it runs ----------------------------------------------------------------------------------------------------


def test_it_lists_the_mechanisms(installed: Path) -> None:
    done = run(installed, "ipclab", "list")
    assert done.returncode == 0, done.stderr
    for family in ("data transfer", "shared memory", "signals", "synchronisation"):
        assert family in done.stdout.lower()


def test_it_runs_a_demo(installed: Path) -> None:
    done = run(installed, "ipclab", "demo", "pipe")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok: " in done.stdout
    assert "FAILED" not in done.stdout


def test_its_ring_carries_a_message_between_processes(installed: Path) -> None:
    done = run(installed, "python", "-c", RING)
    assert (done.returncode, done.stdout, done.stderr) == (0, "from a process of its own\n", "")


def test_the_package_that_ran_is_the_installed_one(installed: Path) -> None:
    done = run(installed, "python", "-c", "import ipclab._core; print(ipclab._core.__file__)")
    assert Path(done.stdout.strip()).is_relative_to(installed)


def test_it_says_what_the_missing_extra_is(installed: Path) -> None:
    done = run(installed, "python", "-c", "import sysv_ipc")
    assert done.returncode != 0, "the extra is not to be here: it has to be compiled"
    shown = run(installed, "ipclab", "list")
    assert "ipclab[sysv]" in shown.stdout
    demo = run(installed, "ipclab", "demo", "sysv-mq")
    assert "ipclab[sysv]" in demo.stdout + demo.stderr
    assert "Traceback" not in demo.stdout + demo.stderr


def test_an_ordinary_user_can_run_it(installed: Path) -> None:
    place = Surroundings(name="nobody", nobody=True)
    if why := place.obstacle():
        pytest.skip(why)
    for argv in (("list",), ("demo", "pipe")):
        visit = place.run(str(installed / "bin" / "ipclab"), *argv)
        assert visit.returncode == 0, visit.text
        assert visit.left == ()
