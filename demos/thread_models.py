"""thread-models: many to one, one to one, many to many - one workload on each.

    python demos/thread_models.py        (or: ipclab demo thread-models)

Look at: the kernel schedules processes and threads, its scheduling entities (KSE); what a language runs on top of
them is its own affair. Many to one: all Gs on one entity; switching is cheap, but one that blocks in the kernel
blocks all, and one CPU is all there is. One to one: each G has an entity; nobody blocks another, but each costs a
process and every switch is the kernel's. Many to many: Gs on as many Ms as are needed, of which as many run as there
are Ps.
Go is many to many. See also execution-units, gmp-handoff, gmp-procs
"""

from __future__ import annotations

import sys

from ipclab.gmp import Block, Job, Simulation, Workload
from ipclab.gmp.watch import Watch
from ipclab.processes import Stage
from ipclab.records import ModelName, SimResult

FAMILY = "scheduler"
NEEDS = ()
BETTER_WITH = ()

GS, BLOCK_MS = 12, 25
WORK = Workload(
    title="compute, block, compute",
    jobs=[
        Job(
            "worker",
            ["compute 1ms", f"block {BLOCK_MS}ms", Block(repeat=4, steps=["compute 250us", "yield"])],
            count=GS,
        )
    ],
)
MODELS: tuple[ModelName, ...] = ("n:1", "1:1", "m:n")


def main() -> int:
    with Stage("thread-models", "How do many goroutines get onto few CPUs?") as stage:
        results = {model: run(stage, model) for model in MODELS}
        stage.scene("Side by side, as observed")
        stage.say("model   elapsed   entities   switches by us   switches by the kernel   P handed on")
        for model, (result, entities, _apart) in results.items():
            totals = result.totals
            kernel = totals.kernel_switches_voluntary + totals.kernel_switches_involuntary
            stage.say(
                f"{model:<5} {result.duration_ns / 1e6:>6.0f} ms {entities:>10} {totals.context_switches:>16}"
                f" {kernel:>24} {totals.handoffs:>13}"
            )
        explain(stage, results)
        stage.verdict("m:n keeps the cheap switch of n:1 and, like 1:1, lets nobody wait for one who blocks")
    return stage.exit_code


def explain(stage: Stage, results: dict[ModelName, tuple[SimResult, int, int]]) -> None:
    stage.scene("What that shows")
    result, entities, _together = results["n:1"]
    stage.check(entities == 1, f"n:1: {GS} Gs on one entity")
    sum_ms = GS * BLOCK_MS
    stage.check(
        result.duration_ns >= sum_ms * 10**6,
        f"so all waited while one was in the kernel: {GS} x {BLOCK_MS} = {sum_ms} ms",
    )
    _result, entities, together = results["1:1"]
    stage.check(
        entities >= GS, f"1:1: {entities} entities for {GS} Gs and main; up to {together} were in the kernel at once"
    )
    result, entities, together = results["m:n"]
    stage.check(together > 1, f"m:n: up to {together} were in the kernel at once, and their Ps ran others meanwhile")
    stage.check(
        result.totals.handoffs > 0, f"{result.totals.handoffs} times a P was handed on; {entities} entities were enough"
    )


def run(stage: Stage, model: ModelName) -> tuple[SimResult, int, int]:
    """Its result, the Ms that ran a G, and the most Gs that were in a system call at once."""
    with Simulation(WORK, model=model, procs=2 if model == "m:n" else None, events=True) as sim:
        watch = Watch(sim)
        stage.check(watch.to_the_end(), f"{model}: it ran to its end")
        result = sim.result()
    done = sum(job.done for job in result.jobs)
    stage.check(result.ok and done == GS, f"{model}: all {done} Gs have ended")
    inside = most = 0
    for event in watch.of("syscall enter", "syscall exit"):
        inside += 1 if event.kind == "syscall enter" else -1
        most = max(most, inside)
    return result, len({event.m for event in watch.of("start")}), most


if __name__ == "__main__":
    sys.exit(main())
