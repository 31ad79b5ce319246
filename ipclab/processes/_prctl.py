"""prctl(2): the one question the core does not answer yet."""

from __future__ import annotations

import ctypes
import os
from typing import Any

_PR_GET_CHILD_SUBREAPER = 37


def is_child_subreaper() -> bool:
    """Whether orphans below this process become its children already: then a launcher leaves it so."""
    value = ctypes.c_int()
    libc: Any = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return bool(value.value)
