"""prctl(2), the two settings a launcher needs."""

from __future__ import annotations

import ctypes
from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 1, 36, 37


def _prctl(*arguments: Any) -> None:
    libc: Any = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(*arguments, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def set_pdeathsig(signo: int) -> None:
    """Ask for this signal when the thread that forked this process ends."""
    _prctl(_PR_SET_PDEATHSIG, signo)


def set_child_subreaper(on: bool) -> None:
    """Whether orphans below this process become its children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, int(on))


def is_child_subreaper() -> bool:
    """Whether they do."""
    value = ctypes.c_int()
    _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(value))
    return bool(value.value)
