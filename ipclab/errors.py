"""What can go wrong, as a user of ipclab meets it.

One base class. A subclass exists only where a caller would do something different on meeting it. Every error is one
clear line that names the thing and, in `hint`, the way out; it keeps the errno and the name of the system call that
reported it; and it pickles whole, because errors cross process boundaries here.
"""

from __future__ import annotations

import errno as _errno
from typing import Any


def visible(text: str, keep: str = "") -> str:
    """The text with everything a terminal might obey shown as an escape, but for the characters in `keep`.

    >>> visible("red: \\x1b[31m")
    'red: \\\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode("ascii") for char in text
    )


class IpclabError(Exception):
    """Base of every error ipclab raises on purpose.

    `hint` is the way out, one clause without a full stop. `errno` and `syscall` are set where the kernel said no.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, errno: int | None = None, syscall: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.errno = errno
        self.syscall = syscall

    def __str__(self) -> str:
        text = self.message
        if self.syscall and self.errno:
            text += f" ({self.syscall}: {_errno.errorcode.get(self.errno, self.errno)})"
        return f"{text}; {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        # Rebuilt without __init__, so that a subclass may have any signature.
        return _rebuild, (type(self), self.args, self.__dict__.copy())


def _rebuild(kind: type[IpclabError], args: tuple[Any, ...], state: dict[str, Any]) -> IpclabError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class UsageError(IpclabError):
    """The request itself is wrong (unknown name, impossible value). The command line ends with 2."""


class Unavailable(IpclabError):
    """This machine, this user or this installation does not offer it; `hint` says what would."""


class NotPortable(IpclabError):
    """Something cannot leave its process: the message names the function, its local and the reason."""


class MessageTooLarge(IpclabError):
    """A message is over the limit. `limit_bytes` is the limit, `source` where it comes from."""

    def __init__(
        self,
        size_bytes: int,
        limit_bytes: int,
        source: str,
        *,
        hint: str | None = None,
        errno: int | None = _errno.EMSGSIZE,
        syscall: str | None = None,
    ) -> None:
        super().__init__(
            f"message of {size_bytes} bytes is over the limit of {limit_bytes} bytes ({source})",
            hint=hint,
            errno=errno,
            syscall=syscall,
        )
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes
        self.source = source


class BufferTooSmall(IpclabError):
    """The receive buffer cannot hold the message that is next; the message is still there where the kernel keeps it."""


class PeerGone(IpclabError):
    """The other side has closed its end or has died; what it had sent before was delivered first."""


class TimedOut(IpclabError, TimeoutError):
    """The time given with `timeout_s` is over; nothing was transferred."""


class WouldBlock(IpclabError, BlockingIOError):
    """A `_nowait` call would have had to wait."""


class NameInUse(IpclabError):
    """A kernel object of this name exists already."""


class NoRoom(IpclabError):
    """The kernel has no room: /dev/shm is full, the queue limit is reached, too many files are open."""


_NO_ROOM = {_errno.ENOSPC, _errno.ENOMEM, _errno.EMFILE, _errno.ENFILE, _errno.EDQUOT}
#: The way out where the caller knows no better one.
_WAY_OUT = {_errno.EMFILE: "raise RLIMIT_NOFILE (ulimit -n)", _errno.ENFILE: "raise fs.file-max (sysctl)"}


def from_os_error(err: OSError, what: str, *, syscall: str | None = None, hint: str | None = None) -> IpclabError:
    """The IpclabError for an OSError: `what` names the thing that failed, errno and syscall are kept.

    Use as `raise from_os_error(err, "POSIX queue /x", syscall="mq_open") from err`.
    """
    call = syscall or getattr(err, "syscall", None)
    number = err.errno or 0
    text = f"{what}: {err.strerror or err}"
    kinds: dict[int, type[IpclabError]] = {
        _errno.EEXIST: NameInUse,
        _errno.EADDRINUSE: NameInUse,
        _errno.EPIPE: PeerGone,
        _errno.ECONNRESET: PeerGone,
        _errno.ETIMEDOUT: TimedOut,
        _errno.EACCES: Unavailable,
        _errno.EPERM: Unavailable,
        _errno.ENOSYS: Unavailable,
    }
    kind = NoRoom if number in _NO_ROOM else kinds.get(number, IpclabError)
    return kind(text, errno=number, syscall=call, hint=hint or _WAY_OUT.get(number))
