"""Records of runs as bytes: written whole, read back whatever version of the schema they have.

A record says its `schema_version`. An older one is brought up to date step by step, as plain objects, before it becomes
a `Run`; a newer one is refused, since what a field means there cannot be known here. What cannot be read is named by
file and place.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ipclab.bench import statistics
from ipclab.errors import IpclabError, from_os_error
from ipclab.records import SCHEMA_VERSION, Run

_TAG = "bench-run"


class _Head(msgspec.Struct):
    """What every version of the record begins with."""

    record: str = ""
    schema_version: int = -1


def encode(run: Run) -> bytes:
    """The whole run as JSON."""
    return msgspec.json.encode(run)


def read(path: Path) -> Run:
    """The run in a record file. Raises IpclabError naming the file, and the place where it is wrong."""
    try:
        data = path.read_bytes()
    except OSError as err:
        raise from_os_error(err, f"cannot read {path}", syscall="open") from err
    return decode(data, str(path))


def decode(data: bytes, where: str) -> Run:
    """The run in `data`; `where` names the file or the row of a database in errors (IpclabError)."""
    if not data.strip():
        raise IpclabError(f"{where} is empty")
    try:
        head = msgspec.json.decode(data, type=_Head)
        _check(head, where)
        if head.schema_version == SCHEMA_VERSION:
            return msgspec.json.decode(data, type=Run)
        plain = msgspec.json.decode(data)
        for version in range(head.schema_version, SCHEMA_VERSION):
            plain = _STEPS[version](plain)
        run = msgspec.convert(plain, Run, str_keys=True)
    except msgspec.ValidationError as err:
        raise IpclabError(f"{where} is not a record of a bench run: {_place(str(err))}") from err
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise IpclabError(f"{where} is not whole: {_malformed(str(err), data)}", hint="measure again") from err
    except (KeyError, TypeError, AttributeError) as err:
        why = f"it says schema {head.schema_version} and is not like it ({type(err).__name__}: {err})"
        raise IpclabError(f"{where} is not a record of a bench run: {why}") from err
    # What follows from the samples is worked out again: the table's columns are what changes most.
    rows = statistics.rows(run.cases, run.samples, run.refusals, run.environment, run.traces)
    return msgspec.structs.replace(run, rows=rows)


def _check(head: _Head, where: str) -> None:
    """Refuse another record, and one from the future."""
    if head.record != _TAG:
        what = f"a record of {head.record!r}" if head.record else "JSON, but no record of ipclab"
        raise IpclabError(f"{where} is {what}, not of a bench run", hint="`ipclab bench run -o FILE` writes one")
    if head.schema_version > SCHEMA_VERSION:
        raise IpclabError(
            f"{where} is from a newer ipclab (its schema is {head.schema_version}, this one reads up to "
            f"{SCHEMA_VERSION})",
            hint="upgrade ipclab",
        )
    if head.schema_version < 0:
        raise IpclabError(f"{where} does not say which schema it has: it is not a record of ipclab")


def _place(text: str) -> str:
    """msgspec's words, place first: "at $.samples[3].messages: Expected `int`, got `str`"."""
    what, found, place = text.rpartition(" - at ")
    return f"at {place.strip('`')}: {what}" if found else text


def _malformed(text: str, data: bytes) -> str:
    """msgspec's words about broken JSON; where it merely stops, how far it goes."""
    if "truncated" in text:
        return f"it ends after {len(data)} bytes, in the middle of the record"
    return text


def _from_0(plain: dict[str, Any]) -> dict[str, Any]:
    """Schema 0 (drafts, before the first release): one pair per sample, `started`, sides without CPU and messages."""
    cpus = {_key_0(case): case.get("cpus") or [0] for case in plain["cases"]}
    for sample in plain["samples"]:
        for position, side in enumerate(sample["sides"]):
            own = cpus[sample["case_key"]]
            side.setdefault("cpu", own[position % len(own)])
            side.setdefault("messages", sample["messages"])
    plain["started_at"] = plain.pop("started")
    return plain | {"schema_version": 1, "rows": []}


def _key_0(case: dict[str, Any]) -> str:
    """A case's key, which schema 0 made as schema 1 does of what it had."""
    words = [case["mechanism"], case["driver"], case["pattern"], str(case["size_bytes"]), case.get("placement", "any")]
    return " ".join([*words, ",".join(map(str, case.get("cpus", ())))])


#: Version -> what makes a record of it one of the next version.
_STEPS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {0: _from_0}
