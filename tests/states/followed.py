"""Processes for the tests of the tracker: each tells when it is ready, and ends with its block."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ipclab.states import sources

READY = "import sys, os, time, signal\nprint('ready', flush=True)\n"
SLEEP = "time.sleep(100)"
SPIN = "\nwhile True: pass"


@contextmanager
def actor(script: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has run its imports and goes on with `script`; it is killed at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", READY + script, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin
    assert process.stdout
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait()


def why_not(source: str) -> str:
    """Why this machine does not have the source; "": it has."""
    (status,) = [one for one in sources.statuses() if one.source == source]
    return f"{source} is not here: {status.reason}" if status.standing == "not here" else ""
