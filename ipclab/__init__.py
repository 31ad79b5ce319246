"""ipclab: a laboratory of inter-process communication on Linux.

Importing the package costs nothing: the public names below are loaded when they are first used (PEP 562).
"""

from __future__ import annotations

# Here, and before anything else, for msgspec: its C module asks for datetime, does not look whether it got it, and
# goes on. A Ctrl-C at that moment is then lost, and the first decoder crashes the interpreter. What is loaded already
# cannot be interrupted.
import datetime as _datetime  # noqa: F401

#: As typing has it, which would cost half of the 10 ms that `import ipclab` may take.
TYPE_CHECKING = False

__version__ = "0.1.0"
__all__ = [
    "BufferTooSmall",
    "IpclabError",
    "MessageTooLarge",
    "NameInUse",
    "NoRoom",
    "PeerGone",
    "Ring",
    "TimedOut",
    "Unavailable",
    "UsageError",
    "WouldBlock",
    "__version__",
]

if TYPE_CHECKING:
    from ipclab.errors import (
        BufferTooSmall,
        IpclabError,
        MessageTooLarge,
        NameInUse,
        NoRoom,
        PeerGone,
        TimedOut,
        Unavailable,
        UsageError,
        WouldBlock,
    )
    from ipclab.mechanisms.shared.ring import Ring

_HOME = dict.fromkeys(__all__, "ipclab.errors") | {"Ring": "ipclab.mechanisms.shared.ring"}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'ipclab' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
