"""Suspended coroutines as bytes, on CPython 3.11 to 3.13. The essay is in _frames.c; ask ipclab.gmp.frames for it."""

from collections.abc import Callable, Coroutine, Generator
from typing import Any

from typing_extensions import Buffer

from ipclab.errors import NotPortable as NotPortable

class Suspension:
    """Suspension(request): awaited, it hands the request to whoever drives the coroutine, and is worth what is sent."""

    def __init__(self, request: object, /) -> None: ...
    def __await__(self) -> Generator[Any, Any, Any]: ...

class Codec:
    """Codec(name_of, find, reduce=None): objects, suspended coroutines among them, into bytes and back."""

    def __init__(
        self,
        name_of: Callable[[Any, Any], int | bytes | None],
        find: Callable[[Any], Any],
        reduce: Callable[[Any], Any] | None = None,
    ) -> None: ...
    def dump(self, thing: object, /) -> bytes:
        """Changes nothing. NotPortable names what cannot travel."""

    def load(self, captured: Buffer, /) -> Any:
        """A copy of what was dumped. ValueError: damaged, or of another Python."""

    def abandon(self, thing: object, /) -> None:
        """The coroutines and generators that dump captures end here, and run nothing more."""

def describe(coroutine: Coroutine[Any, Any, Any] | Generator[Any, Any, Any], /) -> tuple[Any, ...]:
    """(state, code, globals, offset, values): what the module takes a suspended frame for."""
