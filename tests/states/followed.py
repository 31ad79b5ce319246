"""Processes for the tests of the tracker: each tells when it is ready, and ends with its block."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ipclab import states
from ipclab.records import Recording
from ipclab.states import sources

READY = "import sys, os, time, signal\nprint('ready', flush=True)\n"
SLEEP = "time.sleep(100)"
SPIN = "\nwhile True: pass"
DEADLINE_S = 60.0


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


def recorded(tracker: states.Tracker, enough: Callable[[Recording], bool]) -> Recording:
    """The record, ended as soon as there is enough in it: how long that takes is the machine's business."""
    end = time.monotonic() + DEADLINE_S
    while not enough(tracker.recording()) and time.monotonic() < end:
        time.sleep(0.02)
    tracker.stop()
    return tracker.recording()


def why_not(source: str) -> str:
    """Why this machine does not have the source; "": it has."""
    (status,) = [one for one in sources.statuses() if one.source == source]
    return f"{source} is not here: {status.reason}" if status.standing == "not here" else ""
