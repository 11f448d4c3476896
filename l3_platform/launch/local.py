"""Runs a training job to its end: starts and watches it, relaunches it when a process is lost, ends it on request."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from l3_platform.launch.interruptions import recorded, settle
from l3_platform.launch.protocol import Launcher, State
from l3_platform.launch.torchrun import LocalTorchrun
from l3_platform.settings import SettingsError
from l3_platform.settings import Train as TrainSettings
from l3_platform.store.lock import Lock
from l3_platform.train.job import TrainingError, TrainingStopped, TrainJob, TrainResult

POLL_SECONDS = 0.2


def run_training(
    job: TrainJob,
    settings: TrainSettings,
    *,
    on_line: Callable[[str], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainResult:
    """Blocks until the job has finished; a finished job returns at once, an interrupted one resumes.

    `on_line` gets rank 0's lines. Lost processes mean a relaunch of all from the newest complete checkpoint, at most
    `settings.max_restarts` times without a new checkpoint in between. Any exception here, KeyboardInterrupt and
    `should_stop` included, ends all processes first. Raises TrainingStopped where training was asked to stop,
    TrainingError in the trainer's words where it failed (the last lines of every process go to `on_line`), or with those
    lines where it was lost too often, Locked where another client runs the job.
    """
    if (finished := TrainResult.read(job.output)) and finished.fingerprint == job.fingerprint:
        return finished
    job.mesh(settings.nodes * settings.processes_per_node)
    launcher = launcher_for(settings)
    say = on_line or (lambda line: None)
    restarts, reached = 0, ""
    with Lock(str(Path(job.folder) / "client-lock"), owner="the client of a training job"):
        settle(job)
        while True:
            with recorded(job) as outcome:
                outcome.state = state = _attempt(launcher, job, say, should_stop or (lambda: False))
            if state.name == "finished" and (result := TrainResult.read(job.output)):
                return result
            if state.name == "stopped":
                raise TrainingStopped(state.message)
            if state.name == "failed":
                say(launcher.tail())
                raise TrainingError(state.message)
            newest = _newest_checkpoint(job)
            restarts, reached = (1, newest) if newest != reached else (restarts + 1, reached)
            if restarts > settings.max_restarts:
                raise TrainingError(
                    f"{job.folder}: {state.message}; gave up after {settings.max_restarts} relaunches without a new "
                    f"checkpoint (train.max_restarts). Last lines:\n\n{launcher.tail()}"
                )
            say(f"{state.message}; relaunching from {newest or 'the beginning'} ({restarts} of {settings.max_restarts})")


def launcher_for(settings: TrainSettings) -> Launcher:
    """The launcher that the settings name. Raises SettingsError for those that do not exist yet."""
    if settings.launcher != "local":
        raise SettingsError(
            f"setting train.launcher: {settings.launcher!r} cannot be launched by this version; set "
            f"train.launcher=local to run {settings.nodes} torchrun agents on this machine"
        )
    return LocalTorchrun(settings)


def _attempt(launcher: Launcher, job: TrainJob, say: Callable[[str], object], should_stop: Callable[[], bool]) -> State:
    try:
        launcher.submit(job)
        while (state := launcher.poll()).name == "running":
            for line in launcher.logs():
                say(line)
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
