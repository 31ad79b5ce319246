"""Whether something works on this machine, in one word."""

from __future__ import annotations

from typing import Literal

Standing = Literal["runs", "reduced", "not here"]
