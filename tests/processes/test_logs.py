"""What roles say arrives whole, in order, and in spite of kills."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multiprocessing_logging import MultiProcessingHandler

from ipclab.processes import Launcher, logs, say
from ipclab.processes.book import Book, Line


def test_say_shows_time_role_and_pid() -> None:
    lines: list[str] = []
    with Launcher(sink=lines.append) as launcher:
        role = launcher.spawn("writer", say, "wrote 65536 bytes")
        launcher.wait()
        launcher.say("seen")
        say("seen as well")
    assert [line.split(" ms  ")[1] for line in lines] == [
        f"writer[{role.pid}]  wrote 65536 bytes",
        f"launcher[{os.getpid()}]  seen",
        f"launcher[{os.getpid()}]  seen as well",
    ]


def test_say_without_a_launcher_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    say("hello")
    assert capsys.readouterr().out == "hello\n"


def test_the_handler_is_multiprocessing_loggings() -> None:
    def look() -> bool:
        return not all(isinstance(handler, MultiProcessingHandler) for handler in logging.getLogger().handlers)

    with Launcher(sink=lambda line: None) as launcher:
        launcher.spawn("role", look)
        assert launcher.wait()[0].exit_code == 0


def test_records_of_any_logger_arrive() -> None:
    def log() -> None:
        logging.getLogger("a.b").warning("%s of %d", "two", 3)
        logging.info("from the root")
        logging.getLogger("a").debug("too quiet")
        try:
            raise KeyError("lost")
        except KeyError:
            logging.getLogger("a").exception("it failed")
        logging.getLogger("odd").error("%s", object)

    lines: list[str] = []
    with Launcher(sink=lines.append) as launcher:
        launcher.spawn("role", log)
        launcher.wait()
    texts = [line.split("]  ", 1)[1] for line in lines]
    assert texts[0] == "WARNING a.b: two of 3"
    assert texts[1] == "INFO root: from the root"
    assert texts[2].startswith("ERROR a: it failed\n")
    assert texts[2].rstrip().endswith("KeyError: 'lost'")
    assert texts[3] == "ERROR odd: <class 'object'>"
    assert len(texts) == 4


def test_nothing_is_lost_by_os_exit() -> None:
    def log() -> None:
        for number in range(2000):
            logging.info("%d", number)
        os._exit(0)

    lines: list[str] = []
    with Launcher(sink=lines.append) as launcher:
        launcher.spawn("leaver", log)
        launcher.wait()
    assert [int(line.rsplit(" ", 1)[1]) for line in lines] == list(range(2000))


def test_nothing_is_lost_by_sigkill() -> None:
    def log() -> None:
        for number in range(500):
            say(f"{number}")
        os.kill(os.getpid(), signal.SIGKILL)

    lines: list[str] = []
    with Launcher(sink=lines.append) as launcher:
        launcher.spawn("victim", log, killable=True)
        launcher.wait()
    assert [int(line.rsplit(" ", 1)[1]) for line in lines] == list(range(500))


def test_one_order_over_all_processes() -> None:
    """A token goes round three processes: what each says while it holds it has one true order."""
    pipes = [os.pipe() for _ in range(3)]

    def hold(me: int) -> None:
        for turn in range(50):
            os.read(pipes[me][0], 1)
            say(f"{turn * 3 + me}")
            os.write(pipes[(me + 1) % 3][1], b"t")

    lines: list[Line] = []
    with Launcher(sink=lines.append) as launcher:  # type: ignore[arg-type]
        for me in range(3):
            launcher.spawn(f"holder-{me}", hold, me, killable=me == 1)
        os.write(pipes[0][1], b"t")
        launcher.wait()
    for fd in itertools.chain.from_iterable(pipes):
        os.close(fd)
    assert [int(line.entry.text) for line in lines] == list(range(150))
    times = [line.entry.at_ns for line in lines]
    assert times == sorted(times)


def test_children_of_a_role_speak_too() -> None:
    def family() -> None:
        pid = os.fork()
        if pid == 0:
            say("the child")
            os._exit(0)
        os.waitpid(pid, 0)
        say("the parent")

    lines: list[str] = []
    with Launcher(sink=lines.append) as launcher:
        role = launcher.spawn("family", family)
        launcher.wait()
    assert lines[0].endswith("]  the child")
    assert f"[{role.pid}]" not in lines[0]
    assert lines[1].endswith(f"family[{role.pid}]  the parent")


def test_a_child_that_is_no_role_speaks_too() -> None:
    lines: list[str] = []
    with Launcher(sink=lines.append) as launcher:
        launcher.release()
        pid = os.fork()
        if pid == 0:
            launcher.say("as the launcher's child")
            say("and again")
            os._exit(0)
        os.waitpid(pid, 0)
    assert [line.split(" ms  ")[1] for line in lines] == [
        f"launcher[{pid}]  as the launcher's child",
        f"launcher[{pid}]  and again",
    ]


def test_a_signal_handler_may_speak_while_its_process_speaks() -> None:
    def interrupted() -> None:
        said = itertools.count()

        def handler(_signo: int, _frame: object) -> None:
            say(f"handler {next(said)}")
            signal.setitimer(signal.ITIMER_REAL, 0.0005)  # not before, or it may interrupt itself for ever

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0005)
        for number in range(3000):
            say(f"main {number}")
        signal.signal(signal.SIGALRM, signal.SIG_IGN)

    lines: list[str] = []
    with Launcher(sink=lines.append) as launcher:
        launcher.spawn("role", interrupted)
        (ending,) = launcher.wait()
    assert ending.exit_code == 0
    assert [line.split("  ")[-1] for line in lines if "handler" not in line] == [f"main {n}" for n in range(3000)]


def test_records_of_any_length_and_any_text() -> None:
    texts = ["", "x" * 5000, "é€\N{GRINNING FACE}" * 3000, "\udcff", "y" * (logs.RECORD_LIMIT_BYTES + 1)]

    def speak() -> None:
        for text in texts:
            say(text)

    lines: list[Line] = []
    with Launcher(sink=lines.append, output_cap_bytes=1 << 22) as launcher:  # type: ignore[arg-type]
        launcher.spawn("role", speak)
        launcher.wait()
    got = [line.entry.text for line in lines]
    assert got[:3] == texts[:3]
    assert got[3:] == ["\\udcff", "y" * logs.RECORD_LIMIT_BYTES]


@pytest.mark.parametrize("size", [20, 20_000])
def test_a_kill_in_a_storm_does_not_harm_the_others(size: int) -> None:
    def storm() -> None:
        for number in itertools.count():
            say(f"{number} " + "s" * size)

    def steady() -> None:
        for number in range(300):
            say(f"steady {number}")

    lines: list[str] = []
    with Launcher(sink=lines.append) as launcher:
        victims = [launcher.spawn(f"storm-{number}", storm, killable=True) for number in range(2)]
        launcher.spawn("steady", steady)
        launcher.release()
        for victim in victims:
            # Wherever it is by now: in write, at full pipe, or between two frames.
            victim.kill()
        endings = launcher.wait()
    assert [ending.signal for ending in endings] == [signal.SIGKILL, signal.SIGKILL, None]
    assert [line.split("  steady ")[1] for line in lines if "  steady " in line] == [str(n) for n in range(300)]


def wires(count: int, size: int, pid: int) -> list[bytes]:
    """Frames of `count` records, as a process would write them."""
    frames: list[bytes] = []

    class Recorder(logs.RecordPipe):
        def put(self, text: str) -> None:
            data = logs._encoder.encode(logs.Wire(1, "r", pid, 20, logs.SAY, text))
            number = next(self._numbers)
            for start in range(0, len(data), logs._FRAME_BYTES):
                part = data[start : start + logs._FRAME_BYTES]
                last = start + logs._FRAME_BYTES >= len(data)
                frames.append(logs._HEAD.pack(len(part), last, pid, number) + part)

    pipe = Recorder(-1)
    for number in range(count):
        pipe.put(f"{pid}:{number} " + "z" * size)
    return frames


@given(st.integers(0, 2**32), st.integers(1, 10_000))
@settings(max_examples=50, deadline=None)
def test_interleaved_frames_and_a_writer_that_dies_between_two(seed: int, chunk: int) -> None:
    dice = random.Random(seed)
    streams = [wires(3, dice.choice([10, 5000, 9000]), pid) for pid in (1, 2, 3)]
    streams[2] = streams[2][: dice.randrange(len(streams[2]))]
    stream = bytearray()
    while any(streams):
        chosen = dice.choice([frames for frames in streams if frames])
        stream += chosen.pop(0)
    reader, got = logs.RecordReader(), []
    for start in range(0, len(stream), chunk):
        got += [wire.text.split(" ")[0] for wire in reader.feed(bytes(stream[start : start + chunk]))]
    assert not reader.broken
    for pid in (1, 2):
        assert [text for text in got if text.startswith(f"{pid}:")] == [f"{pid}:{n}" for n in range(3)]


@given(st.binary(max_size=20_000))
@settings(deadline=None)
def test_garbage_breaks_one_pipe_and_raises_nothing(data: bytes) -> None:
    reader = logs.RecordReader()
    list(reader.feed(data))
    list(reader.feed(data))


def test_garbage_in_a_pipe_does_not_stop_the_others() -> None:
    def vandal() -> None:
        handler = logging.getLogger().handlers[0]
        assert isinstance(handler, logs.RoleHandler)
        os.write(handler.queue.fd, b"\xff" * 4000)
        say("nobody hears this")

    lines: list[str] = []
    with Launcher(sink=lines.append) as launcher:
        launcher.spawn("vandal", vandal, killable=True)
        launcher.spawn("citizen", say, "good morning")
        launcher.wait()
    assert len(lines) == 1
    assert lines[0].endswith("good morning")


def spawned(queue: multiprocessing.Queue[logging.LogRecord], number: int) -> None:
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(logs.queue_handler(queue, f"spawned-{number}"))
    logging.getLogger(logs.SAY).info("narration")
    logging.getLogger("x").warning("value %d", number)


SPAWNING = """
import multiprocessing, sys
sys.path.insert(0, sys.argv[1])
from ipclab.processes import Launcher, say
from test_logs import spawned

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    queue = context.Queue()
    with Launcher() as launcher:
        launcher.spawn("forked", say, "forked as well")
        with launcher.listen(queue):
            processes = [context.Process(target=spawned, args=(queue, number)) for number in (1, 2)]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
            launcher.wait()
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_start_methods(method: str, tmp_path: Path) -> None:
    script = tmp_path / "spawning.py"
    script.write_text(SPAWNING)
    command = [sys.executable, str(script), str(Path(__file__).parent), method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    lines = sorted(line.split(" ms  ")[1] for line in done.stdout.splitlines())
    assert len(lines) == 5
    for number in (1, 2):
        mine = [line.split("]  ")[1] for line in lines if line.startswith(f"spawned-{number}[")]
        assert mine == [f"WARNING x: value {number}", "narration"]


def test_entries_that_arrive_late_are_sorted_within_the_window() -> None:
    lines: list[str] = []
    book = Book(lines.append)
    book.turned_by_pump = True
    now = book.origin_ns
    for offset in (3, 1, 2):
        book.write("r", 1, "say", str(offset), now + offset)
    book.turn(everything=True)
    assert [line[-1] for line in lines] == ["1", "2", "3"]


def test_a_sink_that_raises_is_told_at_the_end() -> None:
    from ipclab.errors import IpclabError

    def sink(line: str) -> None:
        raise OSError("the disk is full")

    launcher = Launcher(sink=sink)

    def run() -> None:
        with launcher:
            launcher.spawn("role", say, "x")
            launcher.wait()

    with pytest.raises(IpclabError, match="the disk is full"):
        run()


def test_lines_know_what_they_are_made_of() -> None:
    lines: list[Line] = []
    with Launcher(sink=lines.append) as launcher:  # type: ignore[arg-type]
        launcher.spawn("role", print, "printed")
        launcher.wait()
    assert (lines[0].entry.kind, lines[0].entry.role, lines[0].entry.text) == ("out", "role", "printed")
    assert pickle.loads(pickle.dumps(str(lines[0]))) == str(lines[0])


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    program = (
        "from ipclab.processes import Launcher, say\n"
        "def talk():\n"
        "    for number in range(20000): say('x' * 50)\n"
        "with Launcher(output_cap_bytes=1 << 30) as launcher:\n"
        "    launcher.spawn('talker', talk)\n"
        "    print(launcher.wait()[0].exit_code)\n"
    )
    command = f'{sys.executable} -c "$PROGRAM" | head -n 1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", command], env={**os.environ, "PROGRAM": program}, capture_output=True, text=True, timeout=60
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.count("\n") == 1
