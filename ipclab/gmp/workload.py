"""A workload: jobs made of script steps, as a user writes them; in TOML or in code.

    Workload(
        channels={"work": 4},                       # name = how many values it holds; 0: unbuffered
        mutexes=["disk"], semaphores={"slots": 2}, waitgroups=["all"],
        jobs=[
            Job("reader", count=3, steps=["recv work", "compute 2ms..5ms"], repeat=4),
            Job("writer", at="10ms", steps=[Block(repeat=12, steps=["send work 7", "yield"])]),
        ],
    )

A step is a text: a verb and its arguments.

    compute TIME          uses the CPU              send CHANNEL [VALUE]   recv CHANNEL   close CHANNEL
    sleep TIME            a timer: no M is held     lock MUTEX             unlock MUTEX
    block TIME            in a system call: the M   acquire SEMAPHORE      release SEMAPHORE
                          sleeps, sysmon takes P    add WAITGROUP [N]      done WAITGROUP   wait WAITGROUP
    blocking TIME         the same, and the P is    spawn JOB [N]          yield            exit
                          handed off at once        lockm, unlockm         LockOSThread, UnlockOSThread
    stopworld TIME [PROCS]    nobody else runs meanwhile; then with PROCS Ps

TIME is 10ms, 500us, 2s, 100ns, or a range 5ms..20ms: each G of the job draws its own from the seed (64 different Gs at
most, then the draws repeat), and each pass of a `repeat` draws anew while that makes no more than 1000 steps.
"""

from __future__ import annotations

import msgspec


class Block(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Several steps in the place of one: `repeat` times `steps`; or the cases of a `select`, of which one is taken."""

    repeat: int = 1
    steps: list[str | Block] = []
    #: "send CHANNEL [VALUE]" and "recv CHANNEL", 16 at most.
    select: list[str] = []
    #: Of a select: go on when no case is ready.
    default: bool = False


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Gs that all do the same."""

    name: str
    steps: list[str | Block]
    #: How many arrive by themselves; 0: they are only spawned by others.
    count: int = 1
    #: When the first arrives, and how long after it the next; a range is drawn for each.
    at: str = "0s"
    every: str = "0s"
    #: How often each G does all of its steps.
    repeat: int = 1


class Workload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"jobs": "job"}):
    """Jobs, and what they meet at. `jobs` is called `job` in TOML: [[job]]."""

    jobs: list[Job]
    title: str = ""
    #: What it is there to show, one sentence.
    about: str = ""
    channels: dict[str, int] = {}
    mutexes: list[str] = []
    semaphores: dict[str, int] = {}
    waitgroups: list[str] = []
