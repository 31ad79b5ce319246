"""Workloads from TOML files, and those that ship with the package."""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from pathlib import Path

import msgspec

from ipclab.errors import IpclabError, UsageError, from_os_error
from ipclab.gmp.workload import Workload
from ipclab.records.gmp import WorkloadEntry, WorkloadList

#: A million steps, which are the most there may be, in texts of 30 characters.
_FILE_MOST_BYTES = 32 << 20
_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_JOB = re.compile(r"^\$\.job\[(\d+)\](.*)$")


def names() -> list[str]:
    """The workloads that ship with ipclab."""
    return sorted(Path(entry.name).stem for entry in _shelf().iterdir() if entry.name.endswith(".toml"))


def listed() -> WorkloadList:
    """Each with its sentence."""
    return WorkloadList(workloads=tuple(WorkloadEntry(name=name, about=load(name).about) for name in names()))


def load(name: str | Path) -> Workload:
    """A workload from a file, or by name one of those that ship.

    Raises UsageError where the file does not say what a workload has to; IpclabError when it cannot be read.
    """
    if not str(name):
        raise UsageError("the workload's name is empty", hint=f"a .toml file, or one of: {', '.join(names())}")
    path = Path(name)
    try:
        if path.suffix != ".toml" and not path.exists():
            if str(name) in names():
                return parse(_shelf().joinpath(f"{name}.toml").read_text(encoding="utf-8"), f"{name}.toml")
            raise UsageError(
                f"there is no workload {str(name)!r}", hint=f"a .toml file, or one of: {', '.join(names())}"
            )
        text = _read(path, str(name))
    except OSError as err:
        raise from_os_error(err, f"cannot read {name}", hint="`ipclab gmp sim --list` has some to begin with") from err
    except UnicodeDecodeError as err:
        raise UsageError(f"{name}: it is not UTF-8 ({err.reason} at byte {err.start})", hint="a TOML file is") from err
    return parse(text, str(name))


def _read(path: Path, name: str) -> str:
    """All of it, if that has an end. Raises as read_text, and UsageError."""
    with open(path, "rb") as file:
        data = file.read(_FILE_MOST_BYTES + 1)
    if len(data) > _FILE_MOST_BYTES:
        raise UsageError(f"{name}: it has more than {_FILE_MOST_BYTES >> 20} MiB", hint="a workload is a short text")
    return data.decode("utf-8")


def parse(text: str, name: str) -> Workload:
    """The same from text; `name` stands in errors. Steps are looked at when it is compiled."""
    try:
        given = tomllib.loads(text)
    except ValueError as err:  # a TOMLDecodeError, or of an integer with thousands of digits
        raise UsageError(f"{name}: it is not TOML: {err}", hint="docs/gmp-sim.md shows a workload") from err
    except RecursionError as err:
        raise UsageError(f"{name}: its brackets are nested too deep", hint="write it flatter") from err
    try:
        workload = msgspec.convert(given, Workload)
    except msgspec.ValidationError as err:
        raise UsageError(f"{name}: {_said(str(err), given)}", hint="docs/gmp-sim.md has every field") from err
    if workload.title:
        return workload
    stem = Path(name).stem.encode(errors="backslashreplace").decode()  # a file's name may be no UTF-8: a record is
    return msgspec.structs.replace(workload, title=stem)


def _said(text: str, given: dict[str, object]) -> str:
    """msgspec's message with the job named as its author knows it.

    >>> _said("Expected `int`, got `str` - at `$.job[1].count`", {"job": [{}, {"name": "b"}]})
    "job 2 'b', count: expected `int`, got `str`"
    """
    found = _PLACE.match(text)
    what, path = (found["what"], found["path"] or "") if found else (text, "")
    what = what[:1].lower() + what[1:]
    in_job = _JOB.match(path)
    if not in_job:
        return f"{path.removeprefix('$').lstrip('.')}: {what}" if path.strip("$") else what
    number = int(in_job[1])
    jobs = given.get("job")
    job = jobs[number] if isinstance(jobs, list) else None
    named = f" {job['name']!r}" if isinstance(job, dict) and isinstance(job.get("name"), str) else ""
    field = re.sub(r"\[(\d+)\]", lambda at: f" {int(at[1]) + 1}", in_job[2].lstrip(".")).replace(".", " ")
    field = re.sub(r"\bsteps (\d+)", r"step \1", field).replace(" | [...]", "")
    return f"job {number + 1}{named}{', ' + field if field else ''}: {what}"


def _shelf() -> resources.abc.Traversable:
    try:
        return resources.files("ipclab.gmp").joinpath("workloads")
    except ModuleNotFoundError as err:
        raise IpclabError(str(err), hint="this installation is not whole, install ipclab again") from err
