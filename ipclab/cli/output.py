"""What all commands share: --json, -o FILE, and how a record gets out."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from ipclab.errors import IpclabError, from_os_error

if TYPE_CHECKING:
    import msgspec

    from ipclab.views.medium import Medium

_Command = TypeVar("_Command", bound=Callable[..., object])


def output_options(command: _Command) -> _Command:
    """Give a command the options `as_json` and `file`."""
    as_json = click.option("--json", "as_json", is_flag=True, help="Print the record as JSON instead of text.")
    return as_json(file_option("Also write the record, as JSON, to FILE.")(command))


def file_option(text: str) -> Callable[[_Command], _Command]:
    """The option `file` alone, with its help."""
    return click.option("-o", "--output", "file", metavar="FILE", callback=check_file, help=text)


def show(record: msgspec.Struct, draw: Callable[[Medium], str], *, as_json: bool, file: Path | None) -> None:
    """Print the record, drawn as text or as JSON, and write it to FILE when there is one."""
    with kept_for_last() as trying:
        if file is not None:
            with trying():
                save(encode(record), file)
        say(encode(record).decode() if as_json else draw(medium()))


@contextlib.contextmanager
def kept_for_last() -> Iterator[Callable[[], contextlib.AbstractContextManager[None]]]:
    """A block in which what fails under `with trying():` keeps nothing else from being done: it is raised at the end.

    A run took its time: where its file cannot be written its report is printed all the same.
    """
    failed: list[IpclabError] = []

    @contextlib.contextmanager
    def trying() -> Iterator[None]:
        try:
            yield
        except IpclabError as err:
            failed.append(err)

    yield trying
    if failed:
        raise failed[0]


def say(text: str) -> None:
    """Print text as it is. Raises IpclabError when standard output is full, BrokenPipeError when nobody reads it."""
    with printing("standard output"):
        sys.stdout.write(text)
        sys.stdout.flush()


@contextlib.contextmanager
def printing(stream: str) -> Iterator[None]:
    """Let an OSError tell which stream could not be written; a BrokenPipeError, nobody reads it, stays what it is."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as err:
        raise from_os_error(err, stream, syscall="write") from err


def say_pieces(pieces: Iterable[bytes]) -> None:
    """The same of bytes that come piece by piece."""
    sys.stdout.flush()
    try:
        sys.stdout.buffer.writelines(pieces)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as err:
        raise from_os_error(err, "standard output", syscall="write") from err


def medium() -> Medium:
    """What standard output can show."""
    from ipclab.views.medium import medium_of

    return medium_of(sys.stdout, os.environ)


def encode(record: msgspec.Struct) -> bytes:
    """The record as indented JSON with a newline at its end."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def save(data: bytes | Iterable[bytes], path: Path) -> None:
    """Write a file whole or not at all: a reader sees the old one or the new one. A device or FIFO is written to.

    So is the file that is our output: a new one in its place would leave what we print to one without a name.

    What comes in pieces is written as it comes.
    """
    pieces = [data] if isinstance(data, bytes) else data
    if (fd := _output_that_is(path)) is not None:
        sys.stdout.flush()
        with _naming(path), open(fd, "wb", closefd=False) as file:
            file.writelines(pieces)
        return
    if path.exists() and not path.is_file():  # by its own name: a pipe at /dev/stdout has no other
        with _naming(path), open(path, "wb") as file:
            file.writelines(pieces)
        return
    target = Path(os.path.realpath(path))  # a link stays one
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    with _naming(path):
        try:
            with open(fresh, "xb") as file:
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
                if target.exists():
                    os.fchmod(file.fileno(), target.stat().st_mode & 0o7777)
            fresh.replace(target)
        finally:
            fresh.unlink(missing_ok=True)


def check_file(_context: click.Context, _option: click.Parameter, name: str | None) -> Path | None:
    """Say no before the work is done where it is plain already that FILE cannot be written."""
    if name is None:
        return None
    path = Path(name)
    with _naming(path):
        if path.is_dir():
            raise IpclabError(f"cannot write {name}: it is a folder")
        if (path.exists() and not path.is_file()) or _output_that_is(path) is not None:
            return path
        folder = Path(os.path.realpath(path)).parent
        folder.stat()
        if not os.access(folder, os.W_OK | os.X_OK):
            read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
            number = errno.EROFS if read_only else errno.EACCES
            raise OSError(number, os.strerror(number))
    return path


def _output_that_is(path: Path) -> int | None:
    """The descriptor of our output that writes to this very file: `--trace /dev/stdout > t.json`."""
    for fd in (1, 2):
        with contextlib.suppress(OSError):
            if path.is_file() and os.path.samestat(os.fstat(fd), path.stat()):
                return fd
    return None


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an OSError tell which file it was about."""
    try:
        yield
    except OSError as err:
        raise from_os_error(err, f"cannot write {path}", hint="name a file that you may write") from err
