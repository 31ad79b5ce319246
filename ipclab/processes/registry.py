"""The registry of named kernel objects: every name ipclab gives comes from here, and is written down before it is used.

    name = registry.new_name("posix-shm", "frames")    "/ipclab-1234-567890-frames-1"; journalled
    ... create it with O_EXCL and mode 0600, use it, unlink it ...
    registry.forget("posix-shm", name)                 the journal's line is taken back

A name carries its owner's pid and start time, so that the owner's death can be told from the name's age. A child that
was forked is an owner of its own: what it creates is in its own journal, and its parent's objects do not die with it.

What `clean` removes
  - only what a journal in our 0700 folder vouches for, and
  - only under a name that the journal's owner would have given: POSIX names and paths carry its pid and start time, a
    SysV key is computed from them. A line that names anything else is passed over.
  - only when that owner is dead: no process of this pid namespace has its pid and start time. A journal from another
    pid namespace is left and named; one from an earlier boot has its paths removed, its kernel objects are gone.
  - a path is one plain name in the folder; links are removed, never followed; a folder goes with all that is in it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import threading
from pathlib import Path

import msgspec

from ipclab.errors import IpclabError, NoRoom, UsageError
from ipclab.processes import journal, procfs
from ipclab.processes.journal import Fact, Owner
from ipclab.processes.removal import exists, remove
from ipclab.records import Leftover

__all__ = ["Leftover", "clean", "forget", "leftovers", "new_instance", "new_key", "new_name", "new_path", "runtime_dir"]

POSIX_KINDS = ("posix-shm", "posix-sem", "posix-mq")
TRACE_KIND = "trace-instance"
SYSV_KINDS = ("sysv-shm", "sysv-sem", "sysv-mq")

_LABEL = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_SUFFIX = re.compile(r"(\.[A-Za-z0-9_-]{1,8})?")
_POSIX_NAME = re.compile(r"/ipclab-(\d+)-(\d+)-[A-Za-z0-9_.-]{1,32}-\d+")
_INSTANCE_NAME = re.compile(r"ipclab-(\d+)-(\d+)-[A-Za-z0-9_.-]{1,32}-\d+")
_PATH_NAME = re.compile(r"(\d+)-(\d+)-[A-Za-z0-9_.-]{1,32}-\d+(\.[A-Za-z0-9_-]{1,8})?")
_KEY_NAME = re.compile(r"(0x[0-9a-f]{8}):(\d+)")
#: The first byte of every SysV key of ours, so that a reader of `ipcs` knows them.
_KEY_MARK = 0x1B

_lock = threading.RLock()
_mine: journal.Journal | None = None


def _after_fork() -> None:
    # The child owns nothing yet; and the lock may have been held by a thread that does not exist here.
    global _lock, _mine
    _lock = threading.RLock()
    _mine = None


os.register_at_fork(after_in_child=_after_fork)


def _journal() -> journal.Journal:
    global _mine
    if _mine is None or _mine.owner.pid != os.getpid():
        _mine = journal.Journal()
    return _mine


def runtime_dir() -> Path:
    """The runtime folder, made if need be: mode 0700, ours. It goes when the last thing in it goes.

    Raises IpclabError when what stands there is not ours alone, Unavailable when no place for it is writable.
    """
    return journal.make_folder()


def new_name(kind: str, label: str) -> str:
    """A name for a POSIX object of kind "posix-shm", "posix-sem" or "posix-mq"; journalled when this returns.

    `label`: 1 to 32 letters, digits and `_.-`; it is for the reader. Create the object with O_EXCL and mode 0600.
    """
    if kind not in POSIX_KINDS:
        raise UsageError(f"no POSIX kind is called {kind!r}", hint=f"one of {', '.join(POSIX_KINDS)}")
    _check_label(label)
    with _lock:
        mine = _journal()
        name = f"/ipclab-{mine.owner.pid}-{mine.owner.start}-{label}-{mine.next_number()}"
        mine.promise(Fact(kind, name))
    return name


def new_instance(label: str) -> str:
    """A name for an instance in tracefs; journalled when this returns. `label` as with new_name."""
    _check_label(label)
    with _lock:
        mine = _journal()
        name = f"ipclab-{mine.owner.pid}-{mine.owner.start}-{label}-{mine.next_number()}"
        mine.promise(Fact(TRACE_KIND, name))
    return name


def new_key(kind: str, label: str) -> int:
    """A free key for a SysV object of kind "sysv-shm", "sysv-sem" or "sysv-mq"; journalled when this returns.

    Create the object with IPC_CREAT | IPC_EXCL and mode 0600. A key has no room for the label: it is for the caller.
    """
    if kind not in SYSV_KINDS:
        raise UsageError(f"no SysV kind is called {kind!r}", hint=f"one of {', '.join(SYSV_KINDS)}")
    _check_label(label)
    with _lock:
        mine = _journal()
        for _ in range(1000):
            number = mine.next_number()
            key = _key(mine.owner, number)
            fact = Fact(kind, _key_name(key, number))
            if not exists(kind, _key_name(key, number)):
                mine.promise(fact)
                return key
    raise NoRoom(f"no free key found for {kind} {label}", hint="look at `ipcs`, and run `ipclab clean`")


def new_path(label: str, suffix: str = "") -> Path:
    """A path in the runtime folder that does not exist yet, for a FIFO, socket, file or folder; journalled by then.

    `suffix`: empty, or a dot and up to 8 letters or digits. The path is short enough for a socket's address.
    """
    _check_label(label)
    if not _SUFFIX.fullmatch(suffix):
        raise UsageError(f"{suffix!r} is no suffix", hint="a dot and 1 to 8 letters or digits")
    with _lock:
        mine = _journal()
        name = f"{mine.owner.pid}-{mine.owner.start}-{label}-{mine.next_number()}{suffix}"
        mine.promise(Fact("path", name))
        assert mine.folder is not None
        return mine.folder / name


def forget(kind: str, name: str | int | Path) -> None:
    """Take back what the journal says of an object that has been removed; `kind` as given to new_*, or "path".

    Nothing happens when this process's journal does not know it: a forked child may remove what its parent created.
    """
    with _lock:
        if _mine is None or _mine.owner.pid != os.getpid():
            return
        for fact in _mine.facts:
            if fact.kind == kind and _same(fact, name):
                _mine.take_back(fact)
                return


def _same(fact: Fact, name: str | int | Path) -> bool:
    if fact.kind in SYSV_KINDS:
        return int(fact.name.partition(":")[0], 16) == int(name)  # type: ignore[arg-type]
    return fact.name == (Path(name).name if fact.kind == "path" else name)  # type: ignore[arg-type]


def leftovers() -> list[Leftover]:
    """What dead owners have left, and journals this process cannot judge. Removes nothing."""
    return clean(dry_run=True)


def clean(dry_run: bool = False) -> list[Leftover]:
    """Remove what dead owners have left and return it; with `dry_run` only return it.

    Safe at any time, several at once too (one after the other); blocks up to 5 s for another one. What could not be
    removed says why in `error`. Raises IpclabError when the folder is not ours alone, Unavailable without a /proc of
    this pid namespace.
    """
    found: list[Leftover] = []
    procfs.check()  # or the dead and the living could not be told apart
    try:
        with journal.locked_folder() as folder_fd:
            for name in sorted(os.listdir(folder_fd)):  # noqa: PTH208 - a descriptor has no Path
                owner = Owner.of_file(name)
                if owner is not None:
                    found += _clean_owner(folder_fd, owner, dry_run)
            if not dry_run:
                journal.remove_folder_if_empty(journal.folder_path())
    except FileNotFoundError:
        return []
    return found


def clean_dead(pids: dict[int, int]) -> None:
    """Remove what these processes (pid -> start time), all dead, have left. For launchers; raises nothing."""
    try:
        procfs.check()
        with journal.locked_folder() as folder_fd:
            namespace = journal.pid_namespace()
            for pid, start in pids.items():
                _clean_owner(folder_fd, Owner(namespace, pid, start), dry_run=False)
            journal.remove_folder_if_empty(journal.folder_path())
    except (IpclabError, OSError):
        return  # `ipclab clean` will say what is wrong


def mine() -> frozenset[Fact]:
    """What this process has named and not taken back."""
    with _lock:
        known = _mine is not None and _mine.owner.pid == os.getpid()
        return frozenset(_mine.facts if known and _mine is not None else ())


def clean_mine(keep: frozenset[Fact]) -> None:
    """Remove what this process has named, except `keep`: for a demo that was cut short. Raises nothing of ours."""
    with contextlib.suppress(IpclabError, OSError):
        for fact in mine() - keep:
            assert _mine is not None
            assert _mine.folder is not None
            folder_fd = os.open(_mine.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                left = _clean_fact(folder_fd, _mine.owner, fact, dry_run=False)
            finally:
                os.close(folder_fd)
            with _lock:
                if left is None or not left.error:
                    _mine.take_back(fact)


def _clean_owner(folder_fd: int, owner: Owner, dry_run: bool) -> list[Leftover]:
    read = journal.read(folder_fd, owner)
    if read is None:
        return []
    boot, facts = read
    earlier_boot = boot not in ("-", journal.boot_id())
    if not earlier_boot and owner.pidns != journal.pid_namespace():
        return [_foreign(owner)]
    if not earlier_boot and procfs.pid_alive(owner.pid, owner.start):
        return []
    found = []
    for fact in facts:
        if believable(owner, fact) and not (earlier_boot and fact.kind != "path"):
            left = _clean_fact(folder_fd, owner, fact, dry_run)
            found += [left] if left else []
    if not dry_run and not any(left.error for left in found):
        journal_gone(folder_fd, owner)
    return found


def _foreign(owner: Owner) -> Leftover:
    return Leftover(
        kind="journal",
        name=owner.file_name,
        owner_pid=owner.pid,
        error=f"its owner belongs to another pid namespace ({owner.pidns}); run `ipclab clean` in there",
    )


def _clean_fact(folder_fd: int, owner: Owner, fact: Fact, dry_run: bool) -> Leftover | None:
    if not exists(fact.kind, fact.name, folder_fd, owner.pid):
        return None
    left = Leftover(kind=fact.kind, name=_shown(fact), owner_pid=owner.pid)
    if dry_run:
        return left
    try:
        return left if remove(fact.kind, fact.name, folder_fd, owner.pid) else None  # None: somebody else was quicker
    except OSError as err:
        name = errno.errorcode.get(err.errno or 0, "?")
        return msgspec.structs.replace(left, error=f"{name}: {err.strerror or err}")


def journal_gone(folder_fd: int, owner: Owner) -> None:
    """Remove the journal itself."""
    try:
        os.unlink(owner.file_name, dir_fd=folder_fd)
    except FileNotFoundError:
        return


def believable(owner: Owner, fact: Fact) -> bool:
    """Whether this owner would have given this name: what a planted or garbled line says is not."""
    if fact.kind in POSIX_KINDS:
        match = _POSIX_NAME.fullmatch(fact.name)
    elif fact.kind == TRACE_KIND:
        match = _INSTANCE_NAME.fullmatch(fact.name)
    elif fact.kind == "path":
        match = _PATH_NAME.fullmatch(fact.name)
    elif fact.kind in SYSV_KINDS:
        match = _KEY_NAME.fullmatch(fact.name)
        return match is not None and int(match[1], 16) == _key(owner, int(match[2]))
    else:
        return False
    return match is not None and (int(match[1]), int(match[2])) == (owner.pid, owner.start)


def _key(owner: Owner, number: int) -> int:
    digest = hashlib.blake2b(f"{owner.pidns}-{owner.pid}-{owner.start}-{number}".encode(), digest_size=3).digest()
    return _KEY_MARK << 24 | int.from_bytes(digest, "big")


def _key_name(key: int, number: int) -> str:
    return f"0x{key:08x}:{number}"


def _shown(fact: Fact) -> str:
    if fact.kind in SYSV_KINDS:
        return fact.name.partition(":")[0]
    return str(journal.folder_path() / fact.name) if fact.kind == "path" else fact.name


def _check_label(label: str) -> None:
    if not _LABEL.fullmatch(label):
        raise UsageError(f"{label!r} is no label", hint="1 to 32 letters, digits, `_`, `.` and `-`")
