"""Named kernel objects: found after any end of their owner, and nothing else is ever touched."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import posix_ipc
import pytest

from ipclab.errors import IpclabError, NoRoom, Unavailable, UsageError
from ipclab.processes import Launcher, journal, procfs, registry, removal
from ipclab.processes.journal import Fact, Owner
from ipclab.records import Leftover

LIBC = ctypes.CDLL(None, use_errno=True)
CREATE = 0o1000 | 0o2000 | 0o600  # IPC_CREAT | IPC_EXCL


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A base for the runtime folder that this test may spoil; the runtime folder itself is not made yet."""
    base = Path(os.environ["XDG_RUNTIME_DIR"]) / "spoilt"
    base.mkdir(mode=0o700)
    with monkeypatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(base))
        yield base / "ipclab"
    shutil.rmtree(base, ignore_errors=True)


def in_a_child(function: Callable[[], object], end: Callable[[], object] = lambda: os.kill(os.getpid(), 9)) -> int:
    """Run it in a forked process, which then ends in this way; the pid it had."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
            end()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return pid


def make_one_of_each() -> None:
    name = registry.new_name("posix-shm", "frames")
    os.close(posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600, size=4096).fd)
    posix_ipc.Semaphore(registry.new_name("posix-sem", "free"), posix_ipc.O_CREX, mode=0o600).close()
    posix_ipc.MessageQueue(registry.new_name("posix-mq", "jobs"), posix_ipc.O_CREX, mode=0o600).close()
    assert LIBC.shmget(registry.new_key("sysv-shm", "frames"), 4096, CREATE) >= 0
    assert LIBC.semget(registry.new_key("sysv-sem", "free"), 1, CREATE) >= 0
    assert LIBC.msgget(registry.new_key("sysv-mq", "jobs"), CREATE) >= 0
    os.mkfifo(registry.new_path("fifo"), 0o600)
    registry.new_path("file", ".sock").write_text("x")


KINDS = ["posix-shm", "posix-sem", "posix-mq", "sysv-shm", "sysv-sem", "sysv-mq", "path", "path"]


def test_what_a_killed_owner_leaves_is_found_and_removed() -> None:
    pid = in_a_child(make_one_of_each)
    found = registry.leftovers()
    assert [left.kind for left in found] == KINDS
    assert {left.owner_pid for left in found} == {pid}
    assert registry.leftovers() == found, "looking removes nothing"
    assert registry.clean() == found
    assert not any(left.error for left in found)
    assert registry.leftovers() == []
    assert not journal.folder_path().exists()
    with pytest.raises(posix_ipc.ExistentialError):
        posix_ipc.SharedMemory(found[0].name)


def test_what_a_living_owner_has_is_left_alone() -> None:
    name = registry.new_name("posix-shm", "mine")
    memory = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, size=10)
    try:
        assert registry.clean() == []
        os.close(posix_ipc.SharedMemory(name).fd)
    finally:
        os.close(memory.fd)
        posix_ipc.unlink_shared_memory(name)
        registry.forget("posix-shm", name)
    assert not journal.folder_path().exists()


def test_a_zombie_owner_is_dead_and_a_living_one_is_not() -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        registry.new_path("thing").write_text("")
        os.write(writer, b"!")
        signal.pause()
    os.read(reader, 1)
    assert registry.clean() == []
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert procfs.state(pid) == "Z"
    assert [left.kind for left in registry.clean()] == ["path"]
    os.waitpid(pid, 0)
    os.close(reader)
    os.close(writer)


def test_a_promise_that_was_not_kept_is_no_leftover() -> None:
    in_a_child(lambda: registry.new_name("posix-shm", "never"))
    assert registry.leftovers() == []
    assert registry.clean() == []
    assert not journal.folder_path().exists()


def test_a_childs_death_does_not_touch_what_its_parent_has() -> None:
    path = registry.new_path("mine")
    path.write_text("")

    def make() -> None:
        assert not registry._mine  # the journal is not inherited
        registry.new_path("hers").write_text("")

    in_a_child(make)
    assert [Path(left.name).name.split("-")[2] for left in registry.clean()] == ["hers"]
    assert path.exists()
    path.unlink()
    registry.forget("path", path)


def test_a_child_may_remove_what_its_parent_made() -> None:
    path = registry.new_path("shared")
    path.write_text("")
    in_a_child(lambda: (path.unlink(), registry.forget("path", path)), lambda: os._exit(0))
    assert registry._mine is not None
    assert len(registry._mine.facts) == 1
    registry.forget("path", path)


def test_names_differ_and_say_whose_they_are() -> None:
    names = [registry.new_name("posix-sem", "x") for _ in range(3)]
    keys = [registry.new_key("sysv-mq", "x") for _ in range(3)]
    start = procfs.start_time(os.getpid())
    assert len({*names, *keys}) == 6
    assert all(name.startswith(f"/ipclab-{os.getpid()}-{start}-x-") for name in names)
    assert all(0 < key < 2**31 for key in keys)
    for name in names:
        registry.forget("posix-sem", name)
    for key in keys:
        registry.forget("sysv-mq", key)


def test_threads_may_ask_at_once() -> None:
    names: list[str] = []
    threads = [threading.Thread(target=lambda: names.append(registry.new_name("posix-sem", "x"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 20
    for name in names:
        registry.forget("posix-sem", name)


def test_a_paths_name_fits_a_sockets_address(folder: Path) -> None:
    path = registry.new_path("a" * 20, ".sock")
    assert len(os.fsencode(path)) <= 107
    registry.forget("path", path)


@pytest.mark.parametrize("label", ["", "a b", "a/b", "../x", "x" * 33, "ü", "a\n"])
def test_odd_labels_are_refused(label: str) -> None:
    for ask in (
        lambda: registry.new_name("posix-shm", label),
        lambda: registry.new_key("sysv-shm", label),
        lambda: registry.new_path(label),
    ):
        with pytest.raises(UsageError):
            ask()


def test_odd_kinds_and_suffixes_are_refused() -> None:
    with pytest.raises(UsageError, match="posix-shm"):
        registry.new_name("posix", "x")
    with pytest.raises(UsageError, match="sysv-shm"):
        registry.new_key("posix-shm", "x")
    with pytest.raises(UsageError, match="suffix"):
        registry.new_path("x", "/../y")


# --- the folder ------------------------------------------------------------------------------------------------------


def test_the_folder_is_ours_alone(folder: Path) -> None:
    before = os.umask(0o277)
    try:
        path = registry.new_path("x")
    finally:
        os.umask(before)
    assert path.parent == folder
    assert folder.stat().st_mode & 0o7777 == 0o700
    assert next(folder.glob("*.journal")).stat().st_mode & 0o077 == 0
    registry.forget("path", path)
    assert not folder.exists()


def test_an_open_folder_is_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    for ask in (lambda: registry.new_path("x"), registry.leftovers, registry.clean):
        with pytest.raises(IpclabError, match="has mode 0755 instead of 0700"):
            ask()


def test_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    folder.symlink_to(tmp_path)
    with pytest.raises(IpclabError, match="symbolic link"):
        registry.new_path("x")
    with pytest.raises(IpclabError, match="symbolic link"):
        registry.clean()


def test_a_file_is_refused(folder: Path) -> None:
    folder.write_text("")
    with pytest.raises(IpclabError, match="is not a folder"):
        registry.new_path("x")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_somebody_elses_folder_is_refused(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    with pytest.raises(IpclabError, match="belongs to uid 65534"):
        registry.new_path("x")


def test_an_unusable_base_means_the_temp_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for base in ("/nonexistent", "relative", "", "/" + "long/" * 20):
        monkeypatch.setenv("XDG_RUNTIME_DIR", base)
        assert journal.folder_path().name == f"ipclab-{os.geteuid()}"
    monkeypatch.undo()


def test_never_in_the_current_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("TMPDIR", raising=False)
    with pytest.raises(Unavailable, match="XDG_RUNTIME_DIR"):
        registry.runtime_dir()
    monkeypatch.undo()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_said(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    folder.chmod(0o500)
    with pytest.raises(IpclabError, match="XDG_RUNTIME_DIR"):
        registry.new_path("x")


def test_a_full_file_system_is_said_and_leaves_no_torn_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = registry.new_path("first")
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:5]))
    with pytest.raises(NoRoom, match="full"):
        registry.new_path("second")
    monkeypatch.setattr(os, "write", real)
    (file,) = folder.glob("*.journal")
    assert journal.parse(file.read_text())[1] == [Fact("path", first.name)]
    registry.forget("path", first)


# --- hostile and broken journals -------------------------------------------------------------------------------------


@pytest.fixture
def dead() -> Owner:
    """An owner that is dead."""
    starts: list[int] = []
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(reader, 1)
        os._exit(0)
    starts.append(procfs.start_time(pid))
    os.write(writer, b"!")
    os.waitpid(pid, 0)
    os.close(reader)
    os.close(writer)
    return Owner(journal.pid_namespace(), pid, starts[0])


def plant(folder: Path, owner: Owner, *lines: str, boot: str | None = None) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / owner.file_name
    head = f"ipclab 1 boot={boot or journal.boot_id()} pidns={owner.pidns} pid={owner.pid} start={owner.start}"
    path.write_text("\n".join([head, *lines, ""]))
    return path


def test_a_planted_path_outside_the_folder_is_not_removed(folder: Path, dead: Owner, tmp_path: Path) -> None:
    prize = tmp_path / "prize"
    prize.write_text("precious")
    beside = folder.parent / f"{dead.pid}-{dead.start}-x-1"
    beside.write_text("precious")
    plant(
        folder,
        dead,
        f"+ path {prize}",
        f"+ path ../../{prize.name}",
        f"+ path ../{beside.name}",
        f"+ path {dead.pid}-{dead.start}-../../x-1",
        "+ path ..",
        "+ path .",
        "+ path ",
        f"+ posix-shm /../{prize}",
        "+ posix-shm /somebody-elses",
        f"+ posix-sem /ipclab-1-{dead.start}-init-1",
        "+ sysv-shm 0x00003039:1",
        "+ sysv-shm 0x1b000000:1",
        "+ sysv-shm zzz",
        "+ rm -rf",
    )
    assert registry.leftovers() == []
    assert registry.clean() == []
    assert prize.read_text() == beside.read_text() == "precious"


def test_a_link_in_the_folder_is_removed_and_not_followed(folder: Path, dead: Owner, tmp_path: Path) -> None:
    prize = tmp_path / "prize"
    prize.write_text("precious")
    name = f"{dead.pid}-{dead.start}-x-1"
    plant(folder, dead, f"+ path {name}")
    (folder / name).symlink_to(prize)
    assert [left.name for left in registry.clean()] == [str(folder / name)]
    assert prize.read_text() == "precious"


def test_an_object_of_another_owner_is_not_removed_by_this_ones_journal(folder: Path, dead: Owner) -> None:
    name = registry.new_name("posix-shm", "mine")
    os.close(posix_ipc.SharedMemory(name, posix_ipc.O_CREX, size=10).fd)
    plant(folder, dead, f"+ posix-shm {name}")
    assert registry.clean() == []
    posix_ipc.unlink_shared_memory(name)
    registry.forget("posix-shm", name)


def test_a_key_made_by_another_process_is_not_removed(folder: Path, dead: Owner) -> None:
    key = registry._key(dead, 1)
    number = LIBC.shmget(key, 10, CREATE)
    assert number >= 0
    plant(folder, dead, f"+ sysv-shm 0x{key:08x}:1")
    assert registry.clean() == []
    assert LIBC.shmctl(number, 0, None) == 0


def test_garbage_and_torn_lines_are_passed_over(folder: Path, dead: Owner) -> None:
    good = folder / f"{dead.pid}-{dead.start}-good-1"
    path = plant(folder, dead, "\x00\x01\x02", "+", "+ + +", "- path x", "ipclab 2 boot", f"+ path {good.name}")
    good.write_text("")
    with path.open("ab") as file:
        file.write(b"\xff\xfe\n+ path \xc3\n+ path torn")
    assert [left.name for left in registry.clean()] == [str(good)]
    assert not folder.exists()


def test_a_journal_without_its_first_line_is_known_by_its_name(folder: Path, dead: Owner) -> None:
    good = folder / f"{dead.pid}-{dead.start}-good-1"
    plant(folder, dead).write_text(f"+ path {good.name}\n")
    good.write_text("")
    assert [left.name for left in registry.clean()] == [str(good)]


def test_other_files_in_the_folder_are_left(folder: Path, dead: Owner) -> None:
    folder.mkdir(mode=0o700)
    strangers = ["notes.txt", "1-2.journal", "a-b-c.journal", "01-2-3.journal", f"{dead.pid}-{dead.start}-x-1"]
    for name in strangers:
        (folder / name).write_text("+ path notes.txt\n")
    (folder / Owner(dead.pidns, dead.pid, 1).file_name).symlink_to(folder / "notes.txt")
    os.mkfifo(folder / Owner(dead.pidns, dead.pid, 2).file_name)
    (folder / Owner(dead.pidns, dead.pid, 3).file_name).mkdir()
    assert registry.clean() == []
    assert {path.name for path in folder.iterdir()} >= set(strangers)


def test_after_another_boot_paths_go_and_kernel_objects_are_gone_already(folder: Path) -> None:
    """The pid and start time may be those of a living process of this boot."""
    me = journal.me()
    name = f"/ipclab-{me.pid}-{me.start}-x-999"
    os.close(posix_ipc.SharedMemory(name, posix_ipc.O_CREX, size=10).fd)
    file = folder / f"{me.pid}-{me.start}-x-998"
    plant(folder, me, f"+ posix-shm {name}", f"+ path {file.name}", boot="another")
    file.write_text("")
    assert [left.kind for left in registry.clean()] == ["path"]
    posix_ipc.unlink_shared_memory(name)


def test_a_journal_of_another_pid_namespace_is_left_and_named(folder: Path, dead: Owner) -> None:
    foreign = Owner(dead.pidns + 1, dead.pid, dead.start)
    file = folder / f"{dead.pid}-{dead.start}-x-1"
    path = plant(folder, foreign, f"+ path {file.name}")
    file.write_text("")
    (left,) = registry.clean()
    assert (left.kind, left.name) == ("journal", foreign.file_name)
    assert "another pid namespace" in left.error
    assert path.exists()
    assert file.exists()


def unshare(*command: str) -> subprocess.CompletedProcess[str]:
    how = ["unshare", "--pid", "--fork", "--mount-proc"]
    if os.geteuid() != 0:
        how = ["unshare", "--user", "--map-root-user", *how[1:]]
    return subprocess.run([*how, *command], capture_output=True, text=True, timeout=60)


def test_a_real_pid_namespace(folder: Path) -> None:
    if shutil.which("unshare") is None or unshare("true").returncode != 0:
        pytest.skip("no pid namespace can be made here")
    program = "from ipclab.processes import registry; registry.new_path('x').write_text(''); import os; os._exit(0)"
    done = unshare(sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    (left,) = registry.clean()
    assert "another pid namespace" in left.error
    mine = registry.new_path("mine")
    mine.write_text("")
    done = unshare(sys.executable, "-c", "from ipclab.processes import registry; print(len(registry.clean()))")
    assert done.stdout == "2\n"  # both named, none removed
    assert mine.exists()
    mine.unlink()
    registry.forget("path", mine)


def vanishing(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The next look at the folder comes just after somebody else has removed it."""
    real = os.lstat

    def lstat(path: Path) -> os.stat_result:
        monkeypatch.setattr(os, "lstat", real)
        folder.rmdir()
        return real(path)

    monkeypatch.setattr(os, "lstat", lstat)


def test_a_folder_that_vanishes_is_no_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(0o700)
    vanishing(monkeypatch, folder)
    assert registry.clean() == []


def test_a_folder_that_vanishes_is_made_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vanishing(monkeypatch, folder)
    path = registry.new_path("x")
    assert folder.is_dir()
    registry.forget("path", path)


def test_several_cleans_at_once_remove_each_thing_once(folder: Path) -> None:
    for _ in range(5):
        in_a_child(lambda: [registry.new_path("x").write_text("") for _ in range(10)])
    counts = os.pipe()

    def clean() -> None:
        os.write(counts[1], b"x" * len(registry.clean()))

    lines: list[str] = []
    with Launcher(sink=lines.append) as launcher:
        for number in range(4):
            launcher.spawn(f"cleaner-{number}", clean)
        codes = [ending.exit_code for ending in launcher.wait()]
    os.close(counts[1])
    assert codes == [0] * 4, lines
    with open(counts[0], "rb") as file:
        assert len(file.read()) == 50


def test_an_object_the_kernel_refuses_to_remove_keeps_its_journal(
    folder: Path, dead: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{dead.pid}-{dead.start}-x-1"
    path = plant(folder, dead, f"+ path {name}")
    (folder / name).write_text("")

    def refuse(*_args: object, **_more: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        (left,) = registry.clean()
    assert left.error.startswith("EPERM")
    assert path.exists()
    assert [left.error for left in registry.clean()] == [""]
    assert not path.exists()


def test_a_folder_goes_with_all_that_is_in_it_and_nothing_its_links_lead_to(
    folder: Path, dead: Owner, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("")
    name = f"{dead.pid}-{dead.start}-x-1"
    plant(folder, dead, f"+ path {name}")
    (folder / name / "deep").mkdir(parents=True)
    (folder / name / "deep" / "file").write_text("")
    (folder / name / "deep" / "link").symlink_to(tmp_path)
    assert [left.error for left in registry.clean()] == [""]
    assert not folder.exists()
    assert (tmp_path / "precious").exists()


def test_no_descriptors_left_is_not_taken_for_death(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full descriptor table must not make a living owner look dead."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    start = procfs.start_time(os.getpid())
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(NoRoom):
            procfs.pid_alive(os.getpid(), start)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_launcher_cleans_up_after_its_roles(folder: Path) -> None:
    made: list[Leftover] = []

    def make() -> None:
        make_one_of_each()
        signal.pause()

    with Launcher(sink=lambda line: None) as launcher:
        role = launcher.spawn("maker", make, killable=True)
        launcher.release()
        assert role.wait_state("S", syscall="pause")
        role.kill()
        role.wait()
        made += registry.leftovers()  # while the launcher lives, others may still use them
    assert [left.kind for left in made] == KINDS
    assert registry.leftovers() == []
    assert not folder.exists()


def test_existence_is_asked_without_creating() -> None:
    assert not removal.exists("posix-mq", "/ipclab-no-such-queue")
    assert not removal.exists("posix-sem", "/ipclab-no-such-semaphore")
    assert not removal.exists("sysv-mq", "0x1b123456:1")
