"""The torchrun client as an asset sees it: launched, watched in Dagster's log, and gone when the run is."""

import multiprocessing

import dagster as dg

from l3_platform.engine.local import die_with_parent
from l3_platform.orchestration.log import careful_log
from l3_platform.settings import Train
from l3_platform.train.job import TrainJob, TrainResult


def launched(context: dg.AssetExecutionContext, settings: Train, job: TrainJob) -> TrainResult:
    """Train to the end, from the newest complete checkpoint; rank 0's lines go to the log.

    A step process that Dagster started dies with its run worker, and the trainers with it: else a killed run worker
    would leave a training that nobody watches. Interrupts (Terminate in the UI, Ctrl-C) end all trainers before they go on.
    """
    from l3_platform.launch.local import run_training

    if multiprocessing.parent_process() is not None:
        die_with_parent()
    return run_training(job, settings, on_line=careful_log(context, every_seconds=2.0))
