"""states_targets.py: what the states tracker has to reach, measured; each part against its peer in one interleaved run.

    python scripts/states_targets.py                    all parts; as root, `trace` is measured too
    python scripts/states_targets.py cost flat          some of them
    setpriv --reuid=65534 --regid=65534 --clear-groups python scripts/states_targets.py edges      as nobody

Parts: cost (share of a core, poll against psutil), flat (polls a second), edges (switch: on-CPU edges against the truth
the process itself wrote down), trace (ns an event costs the target), storm (20,000 forks), claim (what poll says of its
own completeness, against trace), store (an hour's record: written and opened).
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ipclab import states
from ipclab.errors import Unavailable
from ipclab.records import Recording

#: Runs `busy` s and sleeps `idle`, `periods` times (-1: for ever); given a file it writes down when each began, ended.
WORKER = """
import sys, time, array
busy, idle, periods, path = float(sys.argv[1]) * 1e9, float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
now, sleep, edges, n = time.monotonic_ns, time.sleep, array.array("q", bytes(16 * max(periods, 0))), 0
if path != "-":
    sys.stdin.read(1)
while periods:
    at = now()
    until = at + busy
    while now() < until:
        pass
    if path != "-":
        edges[n] = at; edges[n + 1] = now(); n += 2
    sleep(idle)
    periods -= 1
if path != "-":
    edges.tofile(open(path, "wb"))
"""
PSUTIL = """
import sys, time, psutil
rate, seconds = float(sys.argv[1]), float(sys.argv[2])
ps = [psutil.Process(int(p)) for p in sys.argv[3:]]
begin, cpu, due, polls = time.monotonic(), time.process_time(), time.monotonic(), 0
while time.monotonic() - begin < seconds:
    for p in ps:
        p.status()
    polls += len(ps)
    if rate:
        due = max(due + 1 / rate, time.monotonic() - 1 / rate)
        time.sleep(max(0.0, due - time.monotonic()))
spent = time.monotonic() - begin
print((time.process_time() - cpu) / spent, polls / spent)
"""
OURS = """
import sys, time
from ipclab import states
rate, seconds = float(sys.argv[1]), float(sys.argv[2])
with states.Tracker([int(p) for p in sys.argv[3:]], source="poll", rate_hz=rate or None) as tracker:
    begin, cpu = time.monotonic(), time.process_time()
    time.sleep(seconds)
    spent = time.monotonic() - begin
    share = (time.process_time() - cpu) / spent
    head = tracker.recording()
print(share, head.looks_per_s, head.reached_hz)
"""


def say(text: str) -> None:
    print(text, flush=True)


@contextmanager
def workers(count: int, busy_s: float, idle_s: float) -> Iterator[list[int]]:
    """So many processes that run and sleep; they end with the block."""
    command = [sys.executable, "-c", WORKER, str(busy_s), str(idle_s), "-1", "-"]
    started = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for _ in range(count)]
    try:
        time.sleep(0.5 + count / 100)
        yield [process.pid for process in started]
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


def measured(script: str, *arguments: object) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return [float(word) for word in done.stdout.split()]


# --- poll ------------------------------------------------------------------------------------------------------------


def cost() -> None:
    """Share of a core, all of the tracker's process, for sleepers and for processes that run 10 times a second."""
    for count, rate, target in ((16, 1000, 7), (256, 100, 12)):
        for label, idle_s in (("all asleep", 1000.0), ("each runs 0.1 ms in 100", 0.1)):
            with workers(count, 0.0001, idle_s) as pids:
                ours, theirs = [], []
                for _ in range(3):
                    ours.append(measured(OURS, rate, 3, *pids))
                    theirs.append(measured(PSUTIL, rate, 3, *pids))
            mine, other = (statistics.median(run[0] for run in runs) * 100 for runs in (ours, theirs))
            say(
                f"cost   {count} processes at {rate} Hz, {label}: {mine:.1f} % of a core (target {target}), reached "
                f"{statistics.median(run[2] for run in ours):.0f} Hz; psutil {other:.1f} % at "
                f"{statistics.median(run[1] for run in theirs) / count:.0f} Hz"
            )


def flat() -> None:
    """Polls a second, flat out."""
    for label, idle_s in (("all asleep", 1000.0), ("each runs 3 ms in 10", 0.007)):
        with workers(16, 0.003, idle_s) as pids:
            ratios, ours, theirs = [], [], []
            for _ in range(3):
                ours.append(measured(OURS, 0, 2, *pids)[1])
                theirs.append(measured(PSUTIL, 0, 2, *pids)[1])
                ratios.append(ours[-1] / theirs[-1])
        say(
            f"flat   16 processes, {label}: {statistics.median(ours):.0f} polls/s, "
            f"psutil {statistics.median(theirs):.0f}: {statistics.median(ratios):.1f} times (target 3.5)"
        )


# --- switch ----------------------------------------------------------------------------------------------------------


def edges() -> None:
    """Run 200 us, sleep 50 us, 4000 times: the process wrote down when; all must be in the record, within 15 us."""
    with tempfile.TemporaryDirectory() as folder:
        truth, path = [], Path(folder, "edges")
        command = [sys.executable, "-c", WORKER, "0.0002", "0.00005", "4000", str(path)]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE)
        time.sleep(0.3)
        try:
            tracker = states.Tracker([worker.pid], source="switch")
            with tracker:
                assert worker.stdin
                worker.stdin.write(b"!")
                worker.stdin.close()
                worker.wait(60)
                head = tracker.run(0.05)
                runs = [one for one in tracker.intervals() if one.state == "R" and one.on_cpu]
        except Unavailable as err:
            say(f"edges  {err}")
            return
        finally:
            worker.kill()
            worker.wait()
        data = path.read_bytes()
        truth = list(memoryview(data).cast("q"))
    off_by = distances(truth, sorted([one.start_ns for one in runs]), sorted([one.end_ns for one in runs]))
    inside = sum(off <= 15_000 for off in off_by)
    say(
        f"edges  {len(truth)} on-CPU edges written down, {len(off_by)} in the record, {inside} within 15 us "
        f"(median {statistics.median(off_by) / 1000:.1f} us, worst {max(off_by) / 1000:.0f}); the record: "
        f"{head.completeness.switches_seen} of {head.completeness.switches_counted} switches, lost "
        f"{head.completeness.events_lost}, tracker {100 * (head.own_cpu_share or 0):.1f} % of a core"
    )


def distances(truth: list[int], starts: list[int], ends: list[int]) -> list[int]:
    """Of each true edge how far the record's is: a run begins before the process can say so, and ends after."""
    found = []
    for began, ended in zip(truth[::2], truth[1::2], strict=True):
        at = bisect_left(starts, began)
        if at:
            found.append(began - starts[at - 1])
        at = bisect_left(ends, ended)
        if at < len(ends):
            found.append(ends[at] - ended)
    return found


# --- trace -----------------------------------------------------------------------------------------------------------

PINGPONG = """
import os, sys, time
a, b = os.pipe(), os.pipe()
rounds = int(sys.argv[1])
if os.fork() == 0:
    for _ in range(rounds):
        os.write(b[1], os.read(a[0], 1))
    os._exit(0)
begin = time.monotonic_ns()
for _ in range(rounds):
    os.write(a[1], b"x"); os.read(b[0], 1)
print(time.monotonic_ns() - begin)
os.wait()
"""


def trace() -> None:
    """What an event costs the target: a ping-pong over two pipes, with and without, in turn."""
    rounds, costs, events = 20_000, [], 0.0
    command = [sys.executable, "-c", PINGPONG, str(rounds)]
    for _ in range(7):
        plain = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        traced, head = under("trace", command)
        if head is None:
            return
        # A sched_switch tells of one thread that goes and of one that comes: two of what is counted as told, one event.
        events = sum(thread.switches_seen for thread in head.threads) * 2
        costs.append((traced - plain) / events)
    say(
        f"trace  {statistics.median(costs):.0f} ns an event on the target (target 1200; runs {min(costs):.0f} to "
        f"{max(costs):.0f}), {events / rounds:.1f} events a round"
    )


def under(source: states.SourceChoice, command: list[str]) -> tuple[int, Recording | None]:
    """What the command printed, and the head of its record."""
    with tempfile.TemporaryFile() as file:
        kept = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            with states.Tracker(command=command, source=source) as tracker:
                head = tracker.run()
        except Unavailable as err:
            print(err, file=sys.stderr)
            return 0, None
        finally:
            os.dup2(kept, 1)
            os.close(kept)
        file.seek(0)
        return int(file.read()), head


STORM = "import os\nfor _ in range({count}):\n    pid = os.fork()\n    os.waitpid(pid, 0) if pid else os._exit(0)\n"


def storm(count: int = 20_000) -> None:
    """A storm of forks: every child in the record, or the exact number lost."""
    for source in ("trace", "switch", "poll"):
        try:
            with states.Tracker(command=[sys.executable, "-c", STORM.format(count=count)], source=source) as tracker:
                head = tracker.run()
        except Unavailable as err:
            say(f"storm  {err}")
            continue
        said = head.completeness
        say(
            f"storm  {source}: {len(head.threads) - 1} of {count} children in the record, {said.unseen_processes} "
            f"of them never seen alive, {said.events_lost} events lost, {said.disagreement or 'counters agree'}; "
            f"{count / (head.end_ns - head.start_ns) * 1e9:.0f} forks/s, "
            f"tracker {100 * (head.own_cpu_share or 0):.0f} %"
        )


# --- poll against trace ----------------------------------------------------------------------------------------------


def claim() -> None:
    """The completeness poll claims, against what trace saw of the same process at the same time."""
    for busy_s, idle_s, rate in (
        (0.003, 0.007, 100),
        (0.003, 0.007, 1000),
        (0.0002, 0.00005, 1000),
        (0.0002, 0.002, 1000),
    ):
        with workers(1, busy_s, idle_s) as pids:
            try:
                exact = states.Tracker(pids, source="trace")
                with exact, states.Tracker(pids, source="poll", rate_hz=rate) as tracker:
                    head = tracker.run(4)
                    truth = exact.run(0)
            except Unavailable as err:
                say(f"claim  {err}")
                return
            ends = sorted(one.end_ns for one in exact.intervals() if one.state == "R" and one.on_cpu)
            drawn = [one for one in tracker.intervals() if one.state == "R" and one.on_cpu]
        ends = [at for at in ends if head.start_ns < at < head.end_ns]
        right = len(drawn)
        said = head.completeness
        shares = [
            100 * one.threads[0].time_ns.get("running", 0) / sum(one.threads[0].time_ns.values())
            for one in (head, truth)
        ]
        say(
            f"claim  run {busy_s * 1000:g} ms, sleep {idle_s * 1000:g} ms, {rate} Hz: poll says "
            f"{said.switches_seen} of {said.switches_counted} = {100 * (said.share or 0):.1f} %, has {right} of the "
            f"{len(ends)} trace saw = {100 * right / max(1, len(ends)):.1f} %; on a CPU {shares[0]:.1f} % "
            f"(trace {shares[1]:.1f} %, which has {truth.completeness.switches_seen} of "
            f"{truth.completeness.switches_counted} switches, lost {truth.completeness.events_lost})"
        )


# --- the store -------------------------------------------------------------------------------------------------------


def store(hours: float = 1.0) -> None:
    """Records of 16 processes that run 3 ms in 10, as long as an hour of them, written and opened: real records."""
    from ipclab.states.spans import LAYOUT, Span, unpack

    with workers(16, 0.0005, 0.009) as pids, states.Tracker(pids, source="poll") as tracker:
        tracker.run(5)
        data = b"".join(tracker._chunks)
        head = tracker.recording()
    spans = list(unpack(data))
    span_ns = head.end_ns - head.start_ns
    with tempfile.TemporaryDirectory() as folder:
        path, begin = Path(folder, "hour.sqlite"), time.monotonic()
        made = states.Store(path)
        rounds = int(hours * 3600e9 / span_ns)
        for index in range(rounds):
            shift = index * span_ns
            moved = b"".join(LAYOUT.pack(*Span(s[0] + shift, s[1] + shift, *s[2:])) for s in spans)
            made.append(moved)
        made.finish(head, [])
        made.close()
        written_s, begin = time.monotonic() - begin, time.monotonic()
        opened, intervals = states.open_recording(path)
        first = next(intervals)
        opened_s = time.monotonic() - begin
        intervals.close()  # type: ignore[attr-defined]
        size = path.stat().st_size
    say(
        f"store  {rounds * len(spans)} intervals ({hours:g} h of 16 processes), {size >> 20} MiB, written in "
        f"{written_s:.0f} s, opened in {opened_s:.3f} s (target 5): {len(opened.threads)} threads, "
        f"first interval at {first.start_ns}"
    )


PARTS: dict[str, Callable[[], None]] = {
    "cost": cost,
    "flat": flat,
    "edges": edges,
    "trace": trace,
    "storm": storm,
    "claim": claim,
    "store": store,
}


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no worker outlives us
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all of them when none is named")
    for part in parser.parse_args().parts or PARTS:
        PARTS[part]()


if __name__ == "__main__":
    main()
