"""The runtime folder, and the journals in it: one file per process that owns named kernel objects.

    <folder>/4026531836-1234-567890.journal      pid namespace, pid, start time of the owner
    <folder>/1234-567890-label-1.sock            what `registry.new_path` hands out

A journal is text. Its first line says whose it is; after that one line per fact, each written by a single write(2):

    ipclab 1 boot=8f0c... pidns=4026531836 pid=1234 start=567890
    + posix-shm /ipclab-1234-567890-frames-1     it is about to be created
    - posix-shm /ipclab-1234-567890-frames-1     it has been removed

The `+` is on the page cache before the object exists, so that no end of the owner, SIGKILL included, leaves an object
nobody knows of. A line that is torn, or that is not one of ours, is passed over: see `registry` for what is believed.
When the last fact is taken back the file goes, and with the last file the folder.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ipclab.errors import IpclabError, NoRoom, TimedOut, Unavailable, from_os_error
from ipclab.processes import procfs

#: A socket's address has room for 107 bytes (unix(7)); names in the folder take up to 45 of them.
_LONGEST_FOLDER_BYTES = 62
#: How long one `clean` waits for another to finish. Chosen: a clean of a thousand objects takes a tenth of it.
_LOCK_WAIT_S = 5.0


class Owner(NamedTuple):
    """Who owns: a process in a pid namespace. `start` is in clock ticks since boot."""

    pidns: int
    pid: int
    start: int

    @property
    def file_name(self) -> str:
        """The name of its journal."""
        return f"{self.pidns}-{self.pid}-{self.start}.journal"

    @classmethod
    def of_file(cls, name: str) -> Owner | None:
        """The owner a journal's file name tells; None: not a journal's name."""
        stem, dot, suffix = name.rpartition(".")
        parts = stem.split("-")
        if not dot or suffix != "journal" or len(parts) != 3 or not all(p.isascii() and p.isdecimal() for p in parts):
            return None
        owner = cls(*(int(part) for part in parts))
        return owner if owner.file_name == name else None


class Fact(NamedTuple):
    """One object a journal vouches for."""

    kind: str
    name: str


def me() -> Owner:
    """This process as an owner."""
    pid = os.getpid()
    procfs.check()
    return Owner(pid_namespace(), pid, procfs.start_time(pid))


def pid_namespace() -> int:
    """The inode of this process's pid namespace; 0 where /proc does not tell."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def boot_id() -> str:
    """The kernel's name for this boot; "-" where /proc does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip() or "-"
    except OSError:
        return "-"


# --- the folder ------------------------------------------------------------------------------------------------------


def folder_path() -> Path:
    """Where the folder is or would be: in $XDG_RUNTIME_DIR when that is ours and writable, else in the temp folder."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if base.startswith("/") and len(os.fsencode(base)) + len("/ipclab") <= _LONGEST_FOLDER_BYTES:
        with suppress(OSError):
            if Path(base).stat().st_uid == os.geteuid() and os.access(base, os.W_OK | os.X_OK):
                return Path(base) / "ipclab"
    return _temp_folder() / f"ipclab-{os.geteuid()}"


def _temp_folder() -> Path:
    hint = "set XDG_RUNTIME_DIR to a folder of yours that is writable"
    try:
        path = tempfile.gettempdir()
    except OSError as err:
        raise Unavailable("no temp folder is writable", hint=hint) from err
    wanted = [os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP")]
    if Path(path) == Path.cwd() and path not in (*wanted, "/tmp", "/var/tmp", "/usr/tmp"):
        # tempfile's last resort is the current folder; ours is never there.
        raise Unavailable("no temp folder is writable", hint=hint)
    return Path(path)


def make_folder() -> Path:
    """The folder, made with mode 0700 if need be. Raises when what is there is not ours alone."""
    path = folder_path()
    while True:
        try:
            _make_folder(path)
            check_folder(path)
        except FileNotFoundError:
            continue  # somebody else, finding it empty, has just removed it
        return path


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(0o700)
    except FileExistsError:
        return
    except OSError as err:
        hint = "set XDG_RUNTIME_DIR to a folder of yours that is writable"
        raise from_os_error(err, f"runtime folder {path}", syscall="mkdir", hint=hint) from err
    path.chmod(0o700)  # an umask such as 0277 would have locked us out


def check_folder(path: Path) -> None:
    """Raise IpclabError unless this is a folder, no link, of this user, that nobody else may enter.

    FileNotFoundError: there is none, or none any more: whoever finds it empty removes it, at any moment.
    """
    try:
        seen = os.lstat(path)
    except FileNotFoundError:
        raise
    except OSError as err:
        raise from_os_error(err, f"runtime folder {path}", syscall="lstat") from err
    wrong = ""
    if stat.S_ISLNK(seen.st_mode):
        wrong = "is a symbolic link"
    elif not stat.S_ISDIR(seen.st_mode):
        wrong = "is not a folder"
    elif seen.st_uid != os.geteuid():
        wrong = f"belongs to uid {seen.st_uid}, not to {os.geteuid()}"
    elif stat.S_IMODE(seen.st_mode) & 0o777 != 0o700:
        wrong = f"has mode {stat.S_IMODE(seen.st_mode):04o} instead of 0700"
    if wrong:
        hint = "remove it, or set XDG_RUNTIME_DIR to a folder of yours"
        raise IpclabError(f"runtime folder {path} {wrong}", hint=hint)


@contextmanager
def locked_folder() -> Iterator[int]:
    """The folder's descriptor, held alone among all `clean` runs of this user; the lock goes with the process.

    Blocks up to 5 s for another one. FileNotFoundError: there is no folder, so there is nothing in it.
    """
    path = folder_path()
    check_folder(path)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _lock(fd, path)
        yield fd
    finally:
        os.close(fd)


def _lock(fd: int, path: Path) -> None:
    until = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise TimedOut(f"runtime folder {path} is locked by another clean", syscall="flock") from None
            time.sleep(0.01)


# --- writing ---------------------------------------------------------------------------------------------------------


class Journal:
    """This process's journal. Not thread-safe: the registry holds its lock. No descriptor stays open."""

    def __init__(self) -> None:
        self.owner = me()
        self.facts: list[Fact] = []
        self.count = 0
        self.folder: Path | None = None

    def next_number(self) -> int:
        """1, 2, 3...: makes the names of one owner differ."""
        self.count += 1
        return self.count

    def promise(self, fact: Fact) -> None:
        """Write down that the object is about to exist. When this returns, `clean` will find it."""
        self._append(f"+ {fact.kind} {fact.name}\n")
        self.facts.append(fact)

    def take_back(self, fact: Fact) -> bool:
        """Write down that the object is gone; False: it was not written down here."""
        if fact not in self.facts:
            return False
        self.facts.remove(fact)
        if self.facts:
            self._append(f"- {fact.kind} {fact.name}\n")
        else:
            self._remove()
        return True

    def _remove(self) -> None:
        if self.folder is None:
            return
        (self.folder / self.owner.file_name).unlink(missing_ok=True)
        remove_folder_if_empty(self.folder)

    def _append(self, line: str) -> None:
        # Twice more when somebody else, finding the folder empty, removed it between our making and opening it.
        for attempt in (1, 2, 3):
            folder = make_folder()
            path = folder / self.owner.file_name
            try:
                fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except FileNotFoundError:
                if attempt < 3:
                    continue
                raise
            except OSError as err:
                hint = "set XDG_RUNTIME_DIR to a folder of yours that is writable"
                raise from_os_error(err, f"journal {path}", syscall="open", hint=hint) from err
            try:
                self._write(fd, path, line)
            finally:
                os.close(fd)
            self.folder = folder
            return

    def _write(self, fd: int, path: Path, line: str) -> None:
        size = os.fstat(fd).st_size
        head = "" if size else self._header()
        data = (head + line).encode("ascii")
        try:
            done = os.write(fd, data)
        except OSError as err:
            raise from_os_error(err, f"journal {path}", syscall="write") from err
        if done != len(data):
            os.ftruncate(fd, size)
            raise NoRoom(f"journal {path}: the file system is full", errno=errno.ENOSPC, syscall="write")

    def _header(self) -> str:
        owner = self.owner
        return f"ipclab 1 boot={boot_id()} pidns={owner.pidns} pid={owner.pid} start={owner.start}\n"


def remove_folder_if_empty(path: Path) -> None:
    """Remove the folder unless something is in it."""
    with suppress(OSError):
        path.rmdir()


# --- reading ---------------------------------------------------------------------------------------------------------

#: What is read of one journal at most; a thousand objects take 60 kB.
_LONGEST_BYTES = 1 << 22


def read(folder_fd: int, owner: Owner) -> tuple[str, list[Fact]] | None:
    """(boot id, what the journal still vouches for); None: it is gone or cannot be read. Never follows a link."""
    try:
        fd = os.open(owner.file_name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder_fd)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        with open(fd, "rb", closefd=False) as file:
            text = file.read(_LONGEST_BYTES).decode("ascii", "replace")
    except OSError:
        return None
    finally:
        os.close(fd)
    return parse(text)


def parse(text: str) -> tuple[str, list[Fact]]:
    """The boot id ("-" when the first line is not ours) and the facts, in order; what is not a fact is passed over.

    >>> parse("ipclab 1 boot=b pidns=1 pid=2 start=3\\n+ path x\\n+ path y\\n- path x\\n+ path torn")
    ('b', [Fact(kind='path', name='y')])
    """
    lines = text.split("\n")[:-1]  # what follows the last newline is torn
    boot = "-"
    facts: dict[Fact, None] = {}
    for line in lines:
        words = line.split(" ")
        if words[:2] == ["ipclab", "1"]:
            fields = dict(word.partition("=")[::2] for word in words[2:])
            boot = fields.get("boot") or "-"
        elif len(words) == 3 and words[0] == "+":
            facts[Fact(words[1], words[2])] = None
        elif len(words) == 3 and words[0] == "-":
            facts.pop(Fact(words[1], words[2]), None)
    return boot, list(facts)
