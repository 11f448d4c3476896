"""The torchrun client as an asset sees it: launched, watched in Dagster's log, and gone when the run is."""

import multiprocessing
from pathlib import Path
from typing import Any

import dagster as dg

from l3_platform.engine.local import die_with_parent
from l3_platform.orchestration.log import TrainingLog, careful_log
from l3_platform.orchestration.stage import Build
from l3_platform.orchestration.training_card import NOTE
from l3_platform.settings import Settings
from l3_platform.train.job import TrainJob, TrainResult


def launched(
    context: dg.AssetExecutionContext, settings: Settings, job: TrainJob, notes: dict[str, Any] | None = None
) -> TrainResult:
    """Train to the end, from the newest complete checkpoint; rank 0's lines go to the log, the job's times into `notes`.

    A step process that Dagster started dies with its run worker, and the trainers with it: else a killed run worker
    would leave a training that nobody watches. On Slurm and Kubernetes the trainers stay, and the next run finds them.
    Interrupts (Terminate in the UI, Ctrl-C) end all trainers before they go on.
    """
    from l3_platform.launch.local import run_training

    if multiprocessing.parent_process() is not None:
        die_with_parent()
    cluster = getattr(settings, settings.train.launcher, None)  # the section that is named as the launcher is
    log = TrainingLog(careful_log(context), where=f"{job.folder}/logs")
    try:
        result = run_training(job, settings.train, cluster, on_line=log)
    finally:
        log.flush()
    if notes is not None:
        from l3_platform.launch.effective_time import effective_time
        from l3_platform.launch.interruptions import settle

        settle(job)
        if (time := effective_time(job.folder)) is not None:
            notes.setdefault(NOTE, {})[Path(job.folder).name] = time.told()
    return result


def track_effective_time(build: Build, run: str) -> None:
    """To MLflow run `run`: the share of the wall clock that steps had, and how often the training was interrupted."""
    told = build.notes.get(NOTE, {}).values()
    if not run or not told:
        return
    wall = sum(one["wall_seconds"] for one in told)
    effective = sum(one["share"] * one["wall_seconds"] for one in told)
    planned = [row["planned"] for one in told for row in one["interruptions"]]
    metrics = {
        "effective_training_time": effective / wall if wall else 0.0,
        "interruptions": float(len(planned)),
        "interruptions_planned": float(sum(planned)),
    }
    build.tracking.log_metrics(build.context, run, metrics)
