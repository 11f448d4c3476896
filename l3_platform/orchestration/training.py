"""The torchrun client as an asset sees it: launched, watched in Dagster's log, and gone when the run is."""

import multiprocessing

import dagster as dg

from l3_platform.engine.local import die_with_parent
from l3_platform.orchestration.log import careful_log
from l3_platform.settings import Settings
from l3_platform.train.job import TrainJob, TrainResult


def launched(context: dg.AssetExecutionContext, settings: Settings, job: TrainJob) -> TrainResult:
    """Train to the end, from the newest complete checkpoint; rank 0's lines go to the log.

    A step process that Dagster started dies with its run worker, and the trainers with it: else a killed run worker
    would leave a training that nobody watches. On Slurm and Kubernetes the trainers stay, and the next run finds them.
    Interrupts (Terminate in the UI, Ctrl-C) end all trainers before they go on.
    """
    from l3_platform.launch.local import run_training

    if multiprocessing.parent_process() is not None:
        die_with_parent()
    cluster = getattr(settings, settings.train.launcher, None)  # the section that is named as the launcher is
    return run_training(job, settings.train, cluster, on_line=careful_log(context, every_seconds=2.0))
