"""The imitated machines are what they claim to be: otherwise every test that runs in them proves nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from surroundings import Surroundings, cpu_cgroup


def visit(place: Surroundings, script: str) -> list[str]:
    """Run a line of shell in there; its output in words."""
    if why := place.obstacle():
        pytest.skip(why)
    done = place.run("sh", "-c", script)
    assert done.returncode == 0, done.text
    assert done.left == ()
    return done.out.split()


def test_a_small_dev_shm() -> None:
    place = Surroundings(name="1 MiB of /dev/shm", shm_bytes=1 << 20)
    assert visit(place, "df --output=size -B1 /dev/shm | tail -1") == [str(1 << 20)]


def test_nobody_is_not_root_and_can_import_the_package() -> None:
    place = Surroundings(name="nobody", nobody=True)
    script = (
        f"id -un; id -G; {sys.executable} -c 'import ipclab, sys; print(sys.prefix)'; test ! -w /etc && echo closed"
    )
    user, _groups, prefix, closed = visit(place, script)
    assert (user, prefix, closed) == ("nobody", sys.prefix, "closed")


def test_a_capability_is_gone() -> None:
    place = Surroundings(name="no ptrace", without=("sys_ptrace",))
    (held,) = visit(place, "sed -n 's/^CapEff:\t//p' /proc/self/status")
    assert not int(held, 16) >> 19 & 1, "CAP_SYS_PTRACE is number 19 in linux/capability.h"


def test_no_mqueue_is_mounted() -> None:
    place = Surroundings(name="no mqueue", hide_mqueue=True)
    assert visit(place, "grep -c ' mqueue ' /proc/mounts || true") == ["0"]


def test_a_quota_is_set() -> None:
    place = Surroundings(name="half a CPU", cpu_quota=0.5)
    (group,) = visit(place, "grep -o 'ipclab-visit-.*' /proc/self/cgroup | head -1")
    assert group.startswith("ipclab-visit-")


def test_one_cpu() -> None:
    assert visit(Surroundings(name="one CPU", one_cpu=True), "nproc") == ["1"]


def test_pids_of_its_own() -> None:
    assert visit(Surroundings(name="own pids", own_pids=True), "cat /proc/1/comm") == ["sh"]


def test_no_further_user_namespaces() -> None:
    place = Surroundings(name="no user namespaces", user_namespaces=False)
    assert visit(place, "unshare --user true 2>/dev/null || echo refused") == ["refused"]


def test_a_folder_nobody_can_write_to() -> None:
    place = Surroundings(name="read-only", read_only=True)
    assert visit(place, "touch here 2>/dev/null || echo refused") == ["refused"]


def test_what_is_left_is_seen() -> None:
    place = Surroundings(name="careless")
    if why := place.obstacle():
        pytest.skip(why)
    script = 'echo x > /dev/shm/lost; ipcmk -M 4096 >/dev/null; echo x > "$TMPDIR"/lost; sleep 30 >/dev/null 2>&1 &'
    done = place.run("sh", "-c", script, patience_s=0.1)
    kinds = sorted(line.split()[0] for line in done.left)
    assert kinds == ["file", "lost", "process", "shm"]
    for line in done.left:
        if line.startswith("process"):
            subprocess.run(["kill", "-9", line.split()[1]], check=True)


def test_nothing_of_the_real_machine_was_touched() -> None:
    base = cpu_cgroup()  # not the whole tree below it: others make and remove groups there
    assert base is None or list(base.glob(f"ipclab-visit-{os.getpid()}-*")) == []
    assert "ipclab-visit" not in Path("/proc/self/mountinfo").read_text()


def test_the_tests_themselves_see_no_other_sessions_sysv_objects() -> None:
    if subprocess.run(["unshare", "--ipc", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no IPC namespace may be made here")
    ours, theirs = (Path(f"/proc/{pid}/ns/ipc").readlink() for pid in (os.getpid(), os.getppid()))
    assert ours != theirs
