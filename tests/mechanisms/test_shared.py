"""Shared memory: where the bytes come from, what bounds them, what is left; and the slots that make messages of them.

The common suite (test_data_suite.py) runs over the links too; here is what only shared memory has.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from actors import Actor, actors, pair
from surroundings import Surroundings

from ipclab import _core
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
)
from ipclab.mechanisms import load
from ipclab.mechanisms.base import Link
from ipclab.mechanisms.shared import _live, _segment, _slots, memfd, mmap_file, posix_shm, sysv_shm
from ipclab.mechanisms.shared._segment import MOST_BYTES, Segment
from ipclab.mechanisms.shared.memfd import Memfd
from ipclab.mechanisms.shared.mmap_file import MappedFile
from ipclab.mechanisms.shared.posix_shm import PosixShm
from ipclab.mechanisms.shared.sysv_shm import SysvShm
from ipclab.processes import registry
from ipclab.records import Limit

NAMES = ["posix-shm", "sysv-shm", "memfd", "mmap-file"]

#: name -> create(size_bytes), attach(segment) as another process would, by what it was told.
SOURCES: dict[str, tuple[Callable[[int], Segment], Callable[[Any], Segment]]] = {
    "posix-shm": (PosixShm.create, lambda segment: PosixShm.attach(segment.name)),
    "sysv-shm": (SysvShm.create, lambda segment: SysvShm.attach(segment.key)),
    "memfd": (Memfd.create, lambda segment: Memfd.attach(segment.fd)),
    "mmap-file": (MappedFile.create, lambda segment: MappedFile.attach(segment.path)),
}


@pytest.fixture(params=NAMES)
def source(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    probe = load(name).probe()
    if not probe.works:
        pytest.skip(f"{name}: {probe.reason}")
    return name


@pytest.fixture
def link_kind(source: str) -> type[Link]:
    kind = load(source).LINK
    assert kind is not None
    return kind


# --- the bare memory --------------------------------------------------------------------------------------------------


def test_who_attaches_sees_the_same_bytes(source: str) -> None:
    create, attach = SOURCES[source]
    with create(10_000) as mine:
        assert mine.size_bytes >= 10_000
        assert not any(mine.buffer)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with attach(mine) as theirs:
                    theirs.buffer[9_000:9_005] = b"hello"
                    code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        assert bytes(mine.buffer[9_000:9_005]) == b"hello"


def test_a_fork_shares_it_without_attaching(source: str) -> None:
    create, _ = SOURCES[source]
    with create(100) as mine:
        pid = os.fork()
        if pid == 0:
            mine.buffer[:3] = b"abc"
            os._exit(0)
        os.waitpid(pid, 0)
        assert bytes(mine.buffer[:3]) == b"abc"


def test_a_forked_child_does_not_remove_its_parents_name(source: str) -> None:
    create, attach = SOURCES[source]
    with create(100) as mine:
        pid = os.fork()
        if pid == 0:
            mine.__exit__(None, None, None)
            os._exit(0)
        os.waitpid(pid, 0)
        with attach(mine) as again:
            again.buffer[:1] = b"x"
        assert bytes(mine.buffer[:1]) == b"x"


def test_the_name_goes_and_the_memory_stays(source: str) -> None:
    create, attach = SOURCES[source]
    if source == "memfd":
        pytest.skip("it has no name")
    with create(100) as mine:
        theirs = attach(mine)
        mine.unlink()
        mine.unlink()
        with pytest.raises(IpclabError, match="does not exist"):
            attach(mine)
        mine.buffer[:2] = b"ok"
        assert bytes(theirs.buffer[:2]) == b"ok"
        theirs.close()
    with pytest.raises(IpclabError, match="is closed"):
        theirs.buffer  # noqa: B018
    theirs.close()


def test_a_slice_keeps_the_memory_mapped(source: str) -> None:
    create, _ = SOURCES[source]
    with create(100) as mine:
        mine.buffer[:2] = b"ok"
        view = mine.buffer[:2]
    assert bytes(view) == b"ok"
    view.release()


@pytest.mark.parametrize(("size", "error"), [(0, UsageError), (-1, UsageError), (MOST_BYTES + 1, NoRoom)])
def test_an_impossible_size_is_one_line_and_leaves_nothing(source: str, size: int, error: type[IpclabError]) -> None:
    create, _ = SOURCES[source]
    with pytest.raises(error) as caught:
        create(size)
    assert "\n" not in str(caught.value)


def test_only_its_user_may_open_it() -> None:
    before = os.umask(0)
    try:
        with PosixShm.create(100) as named:
            assert stat.S_IMODE((Path("/dev/shm") / named.name[1:]).stat().st_mode) == 0o600
        with MappedFile.create(100) as mapped:
            assert stat.S_IMODE(mapped.path.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    sysv_ipc = pytest.importorskip("sysv_ipc")
    with SysvShm.create(100) as old:
        shm = sysv_ipc.SharedMemory(old.key)
        mode = shm.mode
        shm.detach()
    assert mode & 0o777 == 0o600


def test_a_name_in_use_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with PosixShm.create(100) as named:
        monkeypatch.setattr(registry, "new_name", lambda kind, label: named.name)
        with pytest.raises(NameInUse, match="exists already"):
            PosixShm._open(named.name, 100)


def test_too_many_open_files_is_no_room(source: str) -> None:
    if source == "sysv-shm":
        pytest.skip("it needs no descriptor")
    create, _ = SOURCES[source]

    def without_descriptors(part: Any) -> str:
        import resource

        registry.runtime_dir()
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        try:
            create(100)
        except NoRoom as err:
            return str(err)
        except IpclabError as err:  # the registry's journal needs a descriptor first
            return str(err)
        return ""

    pid = os.fork()
    if pid == 0:
        os._exit(0 if without_descriptors(None) else 1)
    assert os.waitpid(pid, 0)[1] == 0


# --- room -------------------------------------------------------------------------------------------------------------

TOO_MUCH = """
import os, sys
from ipclab.errors import NoRoom
from ipclab.mechanisms import load
from ipclab.mechanisms.shared.mmap_file import MappedFile
from ipclab.mechanisms.shared.posix_shm import PosixShm
os.makedirs("/dev/shm/run", 0o700)
os.environ["XDG_RUNTIME_DIR"] = "/dev/shm/run"
for create in (PosixShm.create, MappedFile.create):
    with create(4096) as fits:
        fits.buffer[4095] = 1
    try:
        create(2 << 20)
    except NoRoom as err:
        print(err.syscall, "room" in (err.hint or ""), "\\n" not in str(err))
for name in ("posix-shm", "mmap-file"):
    try:
        load(name).LINK.open(message_bytes=1 << 20)
    except NoRoom as err:
        print(name, err.errno)
print([name for name in os.listdir("/dev/shm") if name != "run"])
# Full to the last page: nothing can be made, and what is asked says so.
fill = os.open("/dev/shm/fill", os.O_RDWR | os.O_CREAT)
try:
    while True:
        os.write(fill, bytes(4096))
except OSError:
    pass
print(load("posix-shm").probe().reason, "|", load("posix-sem").probe().reason)
os.environ["XDG_RUNTIME_DIR"] = ""
from ipclab.mechanisms.sync.posix_sem import NamedSemaphore
for create in (lambda: PosixShm.create(100), lambda: NamedSemaphore.create(1)):
    try:
        create()
    except NoRoom as err:
        print("NoRoom")
os.unlink("/dev/shm/fill")
print(sorted(os.listdir("/dev/shm")))
os.rmdir("/dev/shm/run")
"""


def test_a_small_dev_shm_is_an_error_and_never_sigbus() -> None:
    machine = Surroundings(name="1 MiB of /dev/shm", shm_bytes=1 << 20)
    if obstacle := machine.obstacle():
        pytest.skip(obstacle)
    visit = machine.run(sys.executable, "-c", TOO_MUCH)
    assert visit.returncode == 0, visit.text
    assert visit.out.splitlines() == [
        "fallocate True True",
        "fallocate True True",
        "posix-shm 28",
        "mmap-file 28",
        "[]",
        "/dev/shm is full | /dev/shm is full",
        "NoRoom",
        "NoRoom",
        "['run']",
    ]
    assert visit.left == ()


@pytest.mark.parametrize("create", [PosixShm.create, SysvShm.create, Memfd.create])
def test_more_than_the_machine_has_is_refused_before_anybody_is_killed_for_it(
    create: Callable[[int], Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sysv_ipc")
    free = Limit(name="memory available", value=2 << 20, unit="bytes", source="imagined")
    monkeypatch.setattr(_segment, "free_memory", lambda: free)
    with create(1 << 20), pytest.raises(NoRoom, match="2097152 are free"):
        create(3 << 20)


def test_free_memory_is_what_the_machine_or_the_container_has(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = _live.free_memory()
    assert machine.value
    assert machine.value > 0
    monkeypatch.setattr(_live, "_cgroup_room", lambda limit_file, usage_file: 12345)
    assert _live.free_memory().value == 12345


# --- memfd ------------------------------------------------------------------------------------------------------------


def test_a_memfd_cannot_shrink() -> None:
    with Memfd.create(8192) as mine:
        assert mine.seals() & fcntl.F_SEAL_SHRINK
        with pytest.raises(PermissionError):
            os.ftruncate(mine.fd, 4096)
        os.ftruncate(mine.fd, 16384)


def test_a_memfd_that_may_shrink_is_not_attached() -> None:
    fd = memfd.create_fd("loose")
    try:
        os.ftruncate(fd, 4096)
        with pytest.raises(IpclabError, match="not sealed"):
            Memfd.attach(fd)
    finally:
        os.close(fd)
    with Path("/dev/null").open() as null, pytest.raises(IpclabError, match="not a memfd"):
        Memfd.attach(null.fileno())


def test_a_sealed_memfd_can_be_looked_at_only() -> None:
    with Memfd.create(4096) as mine:
        mine.buffer[:2] = b"ok"
        with pytest.raises(IpclabError) as caught:
            mine.seal(fcntl.F_SEAL_WRITE)  # our own writable mapping is in the way
        assert caught.value.errno == 16
        mine.seal(memfd.F_SEAL_FUTURE_WRITE)
        with mine.map_readonly() as looked_at:
            assert looked_at[:2] == b"ok"
        with pytest.raises(PermissionError):
            mmap.mmap(mine.fd, 0)


def test_a_memfd_is_close_on_exec_and_gone_with_its_process() -> None:
    with Memfd.create(4096) as mine:
        assert not os.get_inheritable(mine.fd)
        assert str(Path(f"/proc/self/fd/{mine.fd}").readlink()).startswith("/memfd:ipclab")


# --- SysV -------------------------------------------------------------------------------------------------------------


def sysv_table_row(shmid: int) -> Any:
    """Key and permissions of a segment as the kernel lists them; None: there is no such segment."""
    rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    return next(((row[0], row[2]) for row in rows if row[1] == str(shmid)), None)


def test_sysv_removal_only_marks() -> None:
    pytest.importorskip("sysv_ipc")
    with SysvShm.create(100) as mine:
        theirs = SysvShm.attach(mine.key)
        assert mine.attached() == 2
        mine.unlink()
        key, permissions = sysv_table_row(mine.id)
        assert (key, int(permissions, 8)) == ("0", 0o1600)  # no key any more, and SHM_DEST
        theirs.close()
        mine.buffer[:1] = b"x"
    assert sysv_table_row(mine.id) is None


def test_without_the_package_sysv_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sysv_ipc", None)
    for name in ("sysv-shm", "sysv-sem"):
        probe = load(name).probe()
        assert (probe.works, probe.remedy) == (False, "pip install 'ipclab[sysv]'")
    with pytest.raises(Unavailable, match="pip install"):
        sysv_shm.SysvShmLink.open()


# --- a file -----------------------------------------------------------------------------------------------------------


def test_what_was_stored_is_in_the_file() -> None:
    with MappedFile.create(4096) as mine:
        mine.buffer[:5] = b"hello"
        assert mine.path.read_bytes()[:5] == b"hello"
        mine.flush()
    with pytest.raises(IpclabError, match="is closed"):
        mine.flush()


def test_what_a_killed_process_stored_is_still_there() -> None:
    with MappedFile.create(4096) as mine:
        pid = os.fork()
        if pid == 0:
            mine.buffer[:5] = b"hello"
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        assert mine.path.read_bytes()[:5] == b"hello"


def test_an_empty_file_or_a_link_is_not_mapped(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(IpclabError, match="is empty"):
        MappedFile.attach(empty)
    (tmp_path / "link").symlink_to(empty)
    with pytest.raises(IpclabError):
        MappedFile.attach(tmp_path / "link")


# --- the slots --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("message_bytes", "depth"), [(-1, 8), (64, 0), (64, 1 << 31)])
def test_impossible_slots_are_refused(link_kind: type[Link], message_bytes: int, depth: int) -> None:
    with pytest.raises(UsageError):
        link_kind.open(message_bytes=message_bytes, depth=depth)


def test_a_message_no_address_space_holds(link_kind: type[Link]) -> None:
    with pytest.raises(MessageTooLarge, match="address space"):
        link_kind.open(message_bytes=1 << 60)


@pytest.mark.parametrize("message_bytes", [0, 1, 63, 64, 65])
@pytest.mark.parametrize("depth", [1, 2, 7])
def test_slots_of_every_shape_carry_their_largest(message_bytes: int, depth: int) -> None:
    with memfd.MemfdLink.open(message_bytes=message_bytes, depth=depth) as link, link.take("a") as a:
        with link.take("b") as b:
            buffer = bytearray(message_bytes)
            for turn in range(3 * depth):
                data = bytes([turn + 1]) * message_bytes
                for sender, receiver in ((a, b), (b, a)):
                    sender.send(data, 0)
                    assert receiver.recv_into(buffer, 0) == message_bytes
                    assert bytes(buffer) == data


def test_depth_is_how_many_fit() -> None:
    with memfd.MemfdLink.open(message_bytes=10, depth=3) as link, link.take("a") as a, link.take("b") as b:
        for _ in range(3):
            a.send(b"x", 0)
        with pytest.raises(TimedOut):
            a.send(b"x", 0)
        b.recv_into(bytearray(10), 0)
        a.send(b"x", 0)


def test_a_closed_end_says_so() -> None:
    with memfd.MemfdLink.open(message_bytes=10) as link:
        end = link.take("a")
        end.close()
        end.close()
        with pytest.raises(IpclabError, match="closed"):
            end.send(b"x")
        with pytest.raises(IpclabError, match="closed"):
            end.recv_into(bytearray(1))


def test_the_end_stays_the_end() -> None:
    with memfd.MemfdLink.open(message_bytes=10) as link, link.take("a") as a:
        b = link.take("b")
        b.send(b"last", 0)
        b.close()
        with pytest.raises(BufferTooSmall):
            a.recv_into(bytearray(1), 0)
        assert a.recv_into(bytearray(10), 0) == 4
        for _ in range(3):
            with pytest.raises(PeerGone):
                a.recv_into(bytearray(10))
            with pytest.raises(PeerGone):
                a.send(b"x")


def test_a_child_that_inherited_an_end_does_not_close_it_for_its_parent() -> None:
    with memfd.MemfdLink.open(message_bytes=10) as link, link.take("a") as a, link.take("b") as b:
        pid = os.fork()
        if pid == 0:
            a.close()
            link.close()
            os._exit(0)
        os.waitpid(pid, 0)
        a.send(b"x", 0)
        assert b.recv_into(bytearray(10), 0) == 1


def die_between_two_stores(part: Any) -> None:
    """Two messages, then the first half of a third: the slot is taken and written, and never published."""
    end = part.end
    end.send(b"one", 30.0)
    end.send(b"two", 30.0)
    assert _core.sem_wait(end._memory, end._out + _slots.FREE, 0)
    slot = end._out + _slots.SLOTS + 2 * end._layout.stride
    end._memory[slot + _slots.LINE : slot + _slots.LINE + 5] = b"three"
    end._words[slot // 8] = 5
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_writer_killed_between_two_stores_has_published_nothing(link_kind: type[Link]) -> None:
    with link_kind.open(message_bytes=100) as link, pair(link) as (a, b):
        a.start("run", die_between_two_stores)
        assert b.call("recv", 100) == b"one"
        assert b.call("recv", 100) == b"two"
        with pytest.raises(PeerGone):
            b.call("recv", 100)


def send_numbers_for_ever(part: Any) -> None:
    number = 0
    while True:
        part.end.send(number.to_bytes(8, "little") * 16, 30.0)
        number += 1


def receive_numbers(part: Any, at_least: int) -> int:
    """Until `at_least` have come, then say how many; each must be whole and the next."""
    return _receive(part, lambda count: count >= at_least)


def receive_numbers_to_the_end(part: Any) -> int:
    return _receive(part, lambda count: False)


def _receive(part: Any, enough: Callable[[int], bool]) -> int:
    buffer = bytearray(128)
    while not enough(part.__dict__.setdefault("count", 0)):
        try:
            assert part.end.recv_into(buffer, 30.0) == 128
        except PeerGone:
            break
        assert bytes(buffer) == part.count.to_bytes(8, "little") * 16
        part.count += 1
    return int(part.count)


@pytest.mark.parametrize("seed", range(5))
def test_a_kill_at_a_random_moment_tears_no_message(link_kind: type[Link], seed: int) -> None:
    moments = random.Random(seed)
    with link_kind.open(message_bytes=128, depth=moments.choice((1, 2, 8))) as link, pair(link) as (a, b):
        a.start("run", send_numbers_for_ever)
        seen = b.call("run", receive_numbers, moments.randrange(1, 2000))
        a.kill()
        assert b.call("run", receive_numbers_to_the_end) >= seen


def test_a_sender_notices_a_death_before_the_slots_are_full() -> None:
    with memfd.MemfdLink.open(message_bytes=10, depth=1000) as link, pair(link) as (a, b):
        a.kill()
        with pytest.raises(PeerGone):
            b.call("send_for_ever", b"x")


def test_spoilt_memory_is_named_not_believed() -> None:
    with memfd.MemfdLink.open(message_bytes=10) as link, link.take("a") as a, link.take("b") as b:
        a.send(b"x", 0)
        words = link.segment.buffer.cast("Q")
        words[(b._in + _slots.SLOTS) // 8] = 1 << 40
        words.release()
        with pytest.raises(IpclabError, match="spoilt"):
            b.recv_into(bytearray(10), 0)


def test_an_interrupted_end_can_be_closed(link_kind: type[Link]) -> None:
    with link_kind.open(message_bytes=10) as link, pair(link, watch=False) as (a, b):
        call = a.start("recv", 10)
        a.until_asleep()
        a.interrupt()
        with pytest.raises(KeyboardInterrupt):
            call.result()
        a.call("close")
        with pytest.raises(PeerGone):
            b.call("recv", 10)


# --- what is said about them ------------------------------------------------------------------------------------------


def test_limits_are_read_from_this_machine(source: str) -> None:
    limits = load(source).limits()
    assert limits
    for limit in limits:
        assert limit.name
        assert limit.source
        assert limit.value is None or limit.value >= 0
        if limit.source.startswith("/proc/sys/") and limit.value is not None:
            assert str(limit.value) in Path(limit.source).read_text().split()


def test_segments_are_found_by_clean_after_a_kill(source: str) -> None:
    """Created and killed at once: what is left is known to the registry, and removed."""
    if source == "memfd":
        pytest.skip("it has no name")
    create, _ = SOURCES[source]

    def create_and_die() -> None:
        create(100)
        os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        create_and_die()
    os.waitpid(pid, 0)
    kind = {"mmap-file": "path"}.get(source, source)
    left = [leftover for leftover in registry.clean() if leftover.owner_pid == pid]
    assert [leftover.kind for leftover in left] == [kind]
    assert not [leftover for leftover in registry.leftovers() if leftover.owner_pid == pid]


def test_modules_have_what_every_mechanism_has() -> None:
    for name, module in zip(NAMES, (posix_shm, sysv_shm, memfd, mmap_file), strict=True):
        assert name == module.MECHANISM.name == module.LINK.name
        assert module.MECHANISM.family == "shared memory"


def test_actors_are_what_they_seem() -> None:
    """The three actors of one link are three processes, and none is this one."""
    with memfd.MemfdLink.open() as link, actors(link, "a", "b") as crew:
        assert len({os.getpid(), *(actor.pid for actor in crew)}) == 3
        assert all(isinstance(actor, Actor) for actor in crew)
