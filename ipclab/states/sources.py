"""The layers a tracker can stand on: which are here, which is taken, and why not the better one.

    trace    the scheduler's own events            root, first pid namespace
    switch   PERF_RECORD_SWITCH                    everyone, where perf_event_paranoid is 2 or less and seccomp agrees
    events   fork, exec, exit                      everyone since Linux 6.6, CAP_NET_ADMIN before; first namespaces
    poll     /proc                                 everyone
"""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import msgspec

from ipclab import _core
from ipclab.errors import IpclabError, Unavailable
from ipclab.processes import procfs
from ipclab.records import SourceName, SourceStanding, SourceStatus
from ipclab.states.tracing import Trace

#: Best first.
LEADERS: tuple[SourceName, ...] = ("trace", "switch", "poll")


class Layers:
    """What one tracker stands on: `lead` and `hear` choose at its start, `standings` tells of it at any time."""

    def __init__(self, core: _core.Tracker) -> None:
        self._core = core
        self._standings: dict[SourceName, SourceStanding] = {}
        self.trace: Trace | None = None
        self.leader: SourceName = "poll"
        self.notes: list[str] = []
        self._trace_fds: tuple[int, ...] = ()

    def lead(self, wanted: str) -> None:
        """Take the leading source: the one wanted, or for "auto" the best there is.

        Raises Unavailable when the one wanted is not here.
        """
        for source in LEADERS[:-1]:
            if wanted in ("auto", source) and self.leader == "poll":
                self._try(source, must=wanted == source)
            elif wanted in ("poll", "switch"):
                self._standings[source] = SourceStanding(source=source, used=False, reason="not asked for")
        self._standings["poll"] = SourceStanding(source="poll", used=True)

    def _try(self, source: SourceName, *, must: bool) -> None:
        try:
            self._open_trace(must=must) if source == "trace" else self._open_switch()
        except Unavailable as err:
            if must:
                raise
            self._standings[source] = SourceStanding(source=source, used=False, reason=_told(err))
        else:
            self.leader = source
            self._standings[source] = SourceStanding(source=source, used=True)

    def _open_trace(self, *, must: bool) -> None:
        trace = Trace()
        try:
            if reason := trace.lacking():
                if not must:
                    hint = "--source trace takes it all the same"
                    raise Unavailable(f"the source trace is not here: {reason}", hint=hint)
                self.notes.append(f"trace: {reason}")
        except BaseException:
            trace.discard()
            raise
        self.trace = trace
        self._trace_fds = trace.fds
        self._core.use_trace(self.trace.layout, self.trace.fds, self.trace.cpus)

    def _open_switch(self) -> None:
        try:
            ring_bytes, rings = self._core.use_switch()
        except OSError as err:
            reason, remedy = _why_no_switch(err)
            raise Unavailable(f"the source switch is not here: {reason}", hint=remedy) from err
        self.notes.append(f"switch: {rings} rings of {ring_bytes >> 10} KiB of locked memory, {_budget()}")

    def hear(self) -> None:
        """Take process events too, where they are to be had."""
        try:
            self._core.use_events(_core.procevents_open())
        except OSError as err:
            reason, remedy = _why_no_events(err)
            self._standings["events"] = SourceStanding(source="events", used=False, reason=f"{reason}; {remedy}")
        else:
            self._standings["events"] = SourceStanding(source="events", used=True)

    def before(self, pid: int) -> None:
        """Called before a process is followed: `trace` has to be told."""
        if self.trace is not None:
            self.trace.add(_threads(pid))

    def standings(self, numbers: dict[str, int]) -> tuple[SourceStanding, ...]:
        """Of all sources, best first; the one that leads with what broke it, if it did."""
        found = dict(self._standings)
        if numbers["broke_ns"] and self.leader in found:
            reason = f"it broke ({errno.errorcode.get(numbers['broke_error'], '?')}); poll leads since"
            found[self.leader] = msgspec.structs.replace(
                found[self.leader], used=False, reason=reason, broke_ns=numbers["broke_ns"]
            )
        return tuple(found[name] for name in ("trace", "switch", "events", "poll") if name in found)

    def remarks(self, numbers: dict[str, int]) -> list[str]:
        """What a reader has to know of the sources."""
        notes = list(self.notes)
        if numbers["unattached"]:
            why = os.strerror(numbers["attach_error"])
            notes.append(f"{numbers['unattached']} threads could not be attached to ({why}): poll leads there")
        if numbers["broke_ns"]:
            notes.append(f"{self.leader} broke at {numbers['broke_ns']} ns: poll leads since")
        return notes

    def close(self) -> None:
        """Remove the instances of `trace`; after the core has closed their files."""
        if self.trace is not None:
            self.trace.close()
            self.trace = None


def statuses() -> tuple[SourceStatus, ...]:
    """Of each source: does it run here, if not why, and how to get it. Leaves nothing; `trace` is tried on each CPU."""
    return (
        _try_trace(),
        _status("switch", *_try_switch()),
        _status("events", *_try_events()),
        _status("poll", *_try_poll()),
    )


def _status(source: SourceName, reason: str, remedy: str) -> SourceStatus:
    return SourceStatus(source=source, standing="not here" if reason else "runs", reason=reason, remedy=remedy)


def _try_trace() -> SourceStatus:
    """By the test that `auto` makes before it lets it lead."""
    try:
        trace = Trace()
        try:
            reason = trace.lacking()
        finally:
            trace.discard()
    except IpclabError as err:
        return _status("trace", _reason(err), err.hint or "")
    if not reason:
        return _status("trace", "", "")
    remedy = "auto takes switch or poll; --source trace takes it all the same"
    return SourceStatus(source="trace", standing="reduced", reason=reason, remedy=remedy)


def _try_switch() -> tuple[str, str]:
    core = _core.Tracker(0, False, 16)
    try:
        core.use_switch()
    except OSError as err:
        return _why_no_switch(err)
    finally:
        core.close()
    return "", ""


def _try_events() -> tuple[str, str]:
    try:
        os.close(_core.procevents_open())
    except OSError as err:
        return _why_no_events(err)
    return "", ""


def _try_poll() -> tuple[str, str]:
    try:
        procfs.check()
    except Unavailable as err:
        return err.message, err.hint or ""
    return "", ""


def _told(err: Unavailable) -> str:
    return f"{_reason(err)}; {err.hint}" if err.hint else _reason(err)


def _reason(err: IpclabError) -> str:
    return err.message.partition(" is not here: ")[2] or err.message


def _why_no_switch(err: OSError) -> tuple[str, str]:
    if err.errno == errno.ENOBUFS:
        return f"no room for its rings: {_budget()}", "raise kernel.perf_event_mlock_kb or ulimit -l"
    if err.errno in (errno.EACCES, errno.EPERM):
        level = _number("/proc/sys/kernel/perf_event_paranoid")
        if level is not None and level > 2:
            return f"kernel.perf_event_paranoid is {level}", "sysctl kernel.perf_event_paranoid=2, or CAP_PERFMON"
        return "perf_event_open is refused (seccomp)", "in Docker: --cap-add PERFMON, or a seccomp profile that has it"
    if err.errno == errno.ENOSYS:
        return "this kernel has no perf_event_open", "a kernel with CONFIG_PERF_EVENTS"
    return f"perf_event_open: {err.strerror}", "nothing known"


def _why_no_events(err: OSError) -> tuple[str, str]:
    if err.errno in (errno.EPERM, errno.EACCES):
        return "this kernel tells process events to CAP_NET_ADMIN alone", "run as root, or Linux 6.6"
    if err.errno == errno.ETIMEDOUT:
        return "no answer: told only in the first pid and user namespace", "run outside the container"
    return f"process events: {err.strerror}", "a kernel with CONFIG_PROC_EVENTS"


def _budget() -> str:
    each = _number("/proc/sys/kernel/perf_event_mlock_kb")
    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    own = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft >> 10} KiB"
    return f"of perf_event_mlock_kb {each} KiB a CPU and RLIMIT_MEMLOCK {own}"


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text("ascii"))
    except (OSError, ValueError):
        return None


def _threads(pid: int) -> list[int]:
    try:
        return [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []
