"""Does a named kernel object exist, and away with it: the only place that removes what another process made.

POSIX objects go through posix_ipc (a queue's name works without a mounted /dev/mqueue), SysV objects through the C
library and /proc/sysvipc, so that they can be cleaned up where the package sysv_ipc is not installed.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from typing import Any

from ipclab.processes import tracefs

#: kind -> file below /proc/sysvipc, column of the id, column of the owner's uid, column of the creator's pid if any
_SYSV = {"sysv-shm": "shm", "sysv-sem": "sem", "sysv-mq": "msg"}


def exists(kind: str, name: str, folder_fd: int | None = None, creator: int | None = None) -> bool:
    """Whether the object is there. `folder_fd`: for paths. `creator`: a SysV segment made by another pid is not it."""
    if kind == "path":
        assert folder_fd is not None
        try:
            os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
        except OSError:
            return False
        return True
    if kind == "trace-instance":
        return tracefs.exists(name)
    if kind in _SYSV:
        return _sysv_id(kind, int(name.partition(":")[0], 16), creator) is not None
    return _posix_exists(kind, name)


def remove(kind: str, name: str, folder_fd: int, creator: int) -> bool:
    """Remove it; False: it was gone already. Raises OSError when the kernel refuses."""
    if kind == "path":
        return _remove_path(name, folder_fd)
    if kind == "trace-instance":
        return tracefs.remove(name)
    if kind in _SYSV:
        number = _sysv_id(kind, int(name.partition(":")[0], 16), creator)
        return number is not None and _sysv_remove(kind, number)
    return _posix_remove(kind, name)


def _remove_path(name: str, folder_fd: int) -> bool:
    if "/" in name or name in ("", ".", ".."):
        raise OSError(errno.EINVAL, "not a plain name")
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=folder_fd)  # by descriptors: no link in it leads out of it
        else:
            os.unlink(name, dir_fd=folder_fd)
    except FileNotFoundError:
        return False
    return True


def _posix_exists(kind: str, name: str) -> bool:
    import posix_ipc

    try:
        if kind == "posix-shm":
            os.close(posix_ipc.SharedMemory(name).fd)
        elif kind == "posix-sem":
            posix_ipc.Semaphore(name).close()
        else:
            posix_ipc.MessageQueue(name).close()
    except posix_ipc.ExistentialError:
        return False
    except (posix_ipc.PermissionsError, OSError, ValueError):
        return True  # there is something; removing it will say what is wrong
    return True


def _posix_remove(kind: str, name: str) -> bool:
    import posix_ipc

    call = {
        "posix-shm": posix_ipc.unlink_shared_memory,
        "posix-sem": posix_ipc.unlink_semaphore,
        "posix-mq": posix_ipc.unlink_message_queue,
    }[kind]
    try:
        call(name)
    except posix_ipc.ExistentialError:
        return False
    except posix_ipc.PermissionsError as err:
        raise PermissionError(errno.EACCES, "it belongs to another user") from err
    return True


def _sysv_rows(kind: str) -> list[dict[str, int]]:
    try:
        with open(f"/proc/sysvipc/{_SYSV[kind]}", encoding="ascii") as file:
            lines = [line.split() for line in file]
    except OSError:
        return []
    if not lines:
        return []
    # Only the first columns are the same in every kernel; permissions are octal, the key is signed.
    heads = lines[0]
    return [
        {head: int(word, 8 if head == "perms" else 10) for head, word in zip(heads, line, strict=False)}
        for line in lines[1:]
    ]


def _sysv_id(kind: str, key: int, creator: int | None) -> int | None:
    ident = {"sysv-shm": "shmid", "sysv-sem": "semid", "sysv-mq": "msqid"}[kind]
    for row in _sysv_rows(kind):
        if row["key"] & 0xFFFFFFFF != key:
            continue
        if creator is not None and (row["cuid"] != os.geteuid() or row.get("cpid", creator) != creator):
            continue
        return row[ident]
    return None


def _sysv_remove(kind: str, number: int) -> bool:
    import ctypes

    libc: Any = ctypes.CDLL(None, use_errno=True)
    ipc_rmid = 0
    if kind == "sysv-sem":
        result = libc.semctl(number, 0, ipc_rmid)
    else:
        result = (libc.shmctl if kind == "sysv-shm" else libc.msgctl)(number, ipc_rmid, None)
    if result == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.EIDRM):
        return False
    raise OSError(code, os.strerror(code))
