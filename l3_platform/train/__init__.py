"""Pre-training and annealing: the job, data order, schedule, loop, checkpoints, metrics. torch loads on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from l3_platform.train.job import TrainingError, TrainingStopped, TrainJob, TrainResult

if TYPE_CHECKING:
    from l3_platform.train.held_out import held_out_losses
    from l3_platform.train.loop import train

__all__ = ["TrainJob", "TrainResult", "TrainingError", "TrainingStopped", "held_out_losses", "train"]

_LAZY = {"train": "loop", "held_out_losses": "held_out"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
