"""How a recording is drawn and exported: in ASCII, in Unicode, in colour; strictly as the formats have it."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import pytest
from made_states import INTERVALS, MS, START_NS, interval, recording, tracked

from ipclab.records import Completeness
from ipclab.views.digest import Digest
from ipclab.views.gantt import drawn, shorten
from ipclab.views.live import live_frame
from ipclab.views.medium import Medium, plain
from ipclab.views.states import completeness_line, states_report
from ipclab.views.states_export import states_chrome, states_csv, states_json
from ipclab.views.states_html import states_html

ASCII = Medium()
COLOUR = Medium(colour=True)
UNICODE = Medium(unicode=True)


def rows(text: str) -> dict[str, str]:
    """name -> its row of the picture."""
    picture = text.split("\n\n")[0].splitlines()
    return {line.split("[")[0]: line for line in picture if "]" in line}


def test_the_picture_has_every_state_where_it_was() -> None:
    head = recording()
    digest = Digest(head.threads, INTERVALS, START_NS, START_NS + 100 * MS, 100)
    assert "".join(digest.row(0)) == "R" * 10 + "r" * 10 + "S" * 40 + "R" * 39 + "Z"
    assert "".join(digest.row(1)) == "S" * 100
    assert "".join(mark or " " for mark in digest.row(2)) == (
        " " * 30 + "?" * 10 + "D" * 10 + "T" * 10 + "t" * 10 + "Z" * 9 + "X" + " " * 20
    )


def test_a_short_end_is_seen_in_a_wide_cell() -> None:
    digest = Digest(recording().threads, INTERVALS, START_NS, START_NS + 100 * MS, 4)
    assert digest.row(0) == ["r", "S", "R", "Z"] or digest.row(0) == ["R", "S", "R", "Z"]
    assert digest.row(2)[3] == "X"


def test_a_pid_that_was_used_again_is_two_rows() -> None:
    threads = (tracked(10, "first", 0, 40, gone=True), tracked(10, "second", 60, 100, gone=True))
    intervals = (interval(10, "S", 0, 40), interval(10, "R", 60, 100))
    digest = Digest(threads, intervals, START_NS, START_NS + 100 * MS, 10)
    assert digest.row(0) == ["S"] * 4 + [""] * 6
    assert digest.row(1) == [""] * 6 + ["?"] * 4


def test_the_report_says_everything() -> None:
    text = states_report(recording(), INTERVALS, ASCII)
    assert text.isascii()
    assert "\x1b" not in text, "a name may not command the terminal"
    assert set(rows(text)) >= {"writer", "pump", "child?"}
    for words in (
        "87.5% of the switches (7 seen, 8 counted by the kernel)",
        "0 events lost",
        "2.00 ms of 250 ms not covered",
        "not trace: needs root",
        "source: poll, 990 looks a second",
        "slept in write (pipe_write) 40 ms",
        "wchan: - for 1 of 3: another user's",
        "exit 3",
        "SIGKILL",
        "lives on",
        "R running, r runnable, ? running or runnable, S sleeping, D uninterruptible, T stopped, t traced, Z zombie",
    ):
        assert words in " ".join(text.split()), words


def test_colour_only_repeats_and_unicode_only_draws() -> None:
    bare = states_report(recording(), INTERVALS, ASCII)
    assert plain(states_report(recording(), INTERVALS, COLOUR)) == bare
    fine = states_report(recording(), INTERVALS, UNICODE)
    assert len(fine.splitlines()) == len(bare.splitlines())
    assert "█ R running" in fine


@pytest.mark.parametrize("columns", [40, 80, 300])
def test_the_picture_fits_the_terminal(columns: int) -> None:
    picture = states_report(recording(), INTERVALS, Medium(columns=columns)).split("\n\n")[0]
    assert max(len(line) for line in picture.splitlines()[:-1]) <= columns


def test_an_empty_recording_and_a_huge_one() -> None:
    assert "nothing was seen" in states_report(recording(threads=()), (), ASCII)
    threads = tuple(tracked(tid, f"p{tid}", 0, tid, gone=True) for tid in range(1, 5001))
    text = states_report(recording(threads=threads), (interval(tid, "S", 0, tid) for tid in range(1, 5001)), ASCII)
    assert "... and 4950 more" in text
    assert len(text.splitlines()) < 250


def test_hidden_threads_have_no_row() -> None:
    text = states_report(recording(), INTERVALS, ASCII, hidden=("pu",))
    assert "pump" not in text
    assert "writer" in text


def test_a_disagreement_is_not_to_be_overlooked() -> None:
    wrong = Completeness(
        switches_seen=1, switches_counted=9, events_lost=3, uncovered_ns=0, lives_ns=1, disagreement="8 are missing",
        unseen_processes=2, uncounted_threads=4, assumed_ns=5 * MS,
    )  # fmt: skip
    assert "wrong: 8 are missing" in states_report(recording(completeness=wrong), INTERVALS, ASCII)
    line = completeness_line(wrong)
    assert "3 events lost" in line
    assert "2 processes lived and died unseen" in line
    assert "4 threads ended before" in line


def test_json_is_whole() -> None:
    found = json.loads(b"".join(states_json(recording(), INTERVALS)))
    assert found["recording"]["completeness"]["switches_counted"] == 8
    assert len(found["intervals"]) == len(INTERVALS)
    assert found["intervals"][3]["wchan"] == "pipe_write"
    assert json.loads(b"".join(states_json(recording(), ())))["intervals"] == []


def test_csv_has_one_line_per_interval() -> None:
    table = list(csv.DictReader(io.StringIO(b"".join(states_csv(recording(), INTERVALS)).decode())))
    assert len(table) == len(INTERVALS)
    assert table[0]["name"] == "writer"
    assert table[0]["on_cpu"] == "True"
    assert int(table[3]["duration_ns"]) == 40 * MS
    assert table[3]["syscall"] == "write"


def strict(data: bytes) -> Any:
    """JSON without what JSON has not: no NaN, no key twice."""

    def no_constant(name: str) -> None:
        raise AssertionError(name)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    return json.loads(data, parse_constant=no_constant, object_pairs_hook=once)


def test_the_chrome_trace_is_what_its_format_asks_for() -> None:
    # https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU: X needs ts and dur, M a name.
    found = strict(b"".join(states_chrome(recording(), INTERVALS)))
    assert found.keys() == {"traceEvents", "displayTimeUnit", "otherData"}
    assert found["displayTimeUnit"] == "ns"
    assert found["otherData"]["ipclab"]["completeness"]["switches_seen"] == 7
    kinds = Counter(event["ph"] for event in found["traceEvents"])
    assert kinds == {"M": 2 + 3 + 2, "X": len(INTERVALS)}
    ends: dict[tuple[int, int], int] = {}
    colours: dict[str, str] = {}
    for event in found["traceEvents"]:
        assert {"ph", "pid", "tid", "name", "args"} <= event.keys()
        if event["ph"] != "X":
            continue
        begin_ns, dur_ns = round(event["ts"] * 1000), round(event["dur"] * 1000)
        assert begin_ns >= ends.get((event["pid"], event["tid"]), 0), "slices of one track may not overlap"
        ends[event["pid"], event["tid"]] = begin_ns + dur_ns
        assert colours.setdefault(event["name"], event["cname"]) == event["cname"]
    assert len(colours) == 9
    named = {event["pid"]: event["args"]["name"] for event in found["traceEvents"] if event["name"] == "process_name"}
    assert named == {10: "writer", 20: "child\x1b[2J"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and counts what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.counts: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] += 1
        self.open += [] if tag in ("meta", "line") else [tag]
        assert not {"src", "href"} & {name for name, _value in attrs}, "nothing is fetched from anywhere"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing() -> None:
    evil = tracked(30, "<script>", 0, 10, gone=True)
    text = b"".join(states_html(recording(threads=(*recording().threads, evil)), INTERVALS)).decode()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.counts["script"] == 0
    assert page.counts["rect"] == 5 + 1 + 6
    assert "87.5% of the switches" in text
    assert "running or runnable" in text


def test_a_live_frame_is_one_line_per_process() -> None:
    recent = {tid: [one for one in INTERVALS if one.tid == tid] for tid in (10, 11, 20)}
    frame = live_frame(recording(), recent, 1.0, ASCII, 24)
    assert len(frame) == 5
    assert "last 1 s" in frame[0]
    by_name = {line.split("[")[0]: line for line in frame}
    assert "S 100%" in by_name["pump"]
    assert "futex futex_wait" in by_name["pump"]
    assert by_name["child?"].endswith("gone")
    assert "of the switches" in frame[-1]
    assert all(len(line) <= 100 for line in frame)
    assert [plain(line) for line in live_frame(recording(), recent, 1.0, COLOUR, 24)] == frame
    few = live_frame(recording(), recent, 1.0, ASCII, 5)
    assert "... and 1 more" in few


def test_small_things() -> None:
    assert shorten("a-very-long-name[123456]", 14) == "a-ver~[123456]"
    assert drawn(["S", "S", ""], UNICODE) == "── "
