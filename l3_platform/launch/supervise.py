"""Watches attempts of a job until it has finished: relaunches what was lost, and gives up when nothing gets further."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from l3_platform.launch.interruptions import Outcome, recorded, settle
from l3_platform.launch.protocol import Launcher, State
from l3_platform.train.job import TrainingError, TrainingStopped, TrainJob, TrainResult

POLL_SECONDS = 0.2

Say = Callable[[str], object]


def supervise(
    launcher: Launcher,
    job: TrainJob,
    max_restarts: int,
    say: Say,
    should_stop: Callable[[], bool],
    *,
    record: bool = True,
    outlived: bool = False,
    scheduler: Callable[[], str] = lambda: "",
) -> TrainResult:
    """Raises TrainingStopped where training was asked to stop, TrainingError where it failed, or was lost more than
    `max_restarts` times without a new checkpoint. Whatever is raised, no process is left.

    `record`: attempts and interruptions are written down here, and not by a supervisor that the launcher starts; `outlived`:
    processes may have outlived the supervisor before this one; `scheduler`: as `recorded` has it.
    """
    restarts, reached = 0, ""
    if record:
        settle(job, alive=outlived)
    while True:
        with recorded(job, scheduler) if record else nullcontext(Outcome()) as outcome:
            outcome.state = state = _attempt(launcher, job, say, should_stop, outcome.look)
        if state.name == "finished" and (result := TrainResult.read(job.output)):
            return result
        if state.name == "stopped":
            raise TrainingStopped(state.message)
        if state.name == "failed":
            say(launcher.tail())
            raise TrainingError(state.message)
        newest = _newest_checkpoint(job)
        restarts, reached = (1, newest) if newest != reached else (restarts + 1, reached)
        if restarts > max_restarts:
            raise TrainingError(
                f"{job.folder}: {state.message}; gave up after {max_restarts} relaunches without a new "
                f"checkpoint (train.max_restarts). Last lines:\n\n{launcher.tail()}"
            )
        say(f"{state.message}; relaunching from {newest or 'the beginning'} ({restarts} of {max_restarts})")


def _attempt(launcher: Launcher, job: TrainJob, say: Say, should_stop: Callable[[], bool], look: Callable[[], object]) -> State:
    try:
        launcher.submit(job)
        while (state := launcher.poll()).name == "running":
            for line in launcher.logs():
                say(line)
            look()
            if should_stop():
                raise TrainingStopped(f"{job.folder}: stopped on request; run again to resume")
            time.sleep(POLL_SECONDS)
        for line in launcher.logs():
            say(line)
        return state
    finally:
        launcher.cancel()


def _newest_checkpoint(job: TrainJob) -> str:
    names = (path.parent.name for path in Path(job.folder).glob("step-*/complete.json"))
    return max((name for name in names if not name.endswith(".partial")), default="")
