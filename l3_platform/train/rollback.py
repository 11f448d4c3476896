"""Going back to an earlier checkpoint when steps are bad too many times in a row: `spikes.py` says when and where to."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from l3_platform.train.branch import Position, read_origin, regular
from l3_platform.train.checkpoint import Checkpoints, State
from l3_platform.train.data_order import Step
from l3_platform.train.job import TrainingError
from l3_platform.train.spikes import Memory, Verdict, after_rollback, checkpoint_for

log = logging.getLogger(__name__)


def roll_back(
    checkpoints: Checkpoints,
    state: State,
    memory: Memory,
    step: Step,
    verdict: Verdict,
    said: str,
    origin: tuple[Path, Position] | None = None,
) -> tuple[Position, Position]:
    """Fills `state` from the checkpoint to go back to. Returns where that was, and where the run goes on: behind `step`.

    `origin`: the checkpoint that a branch started from, and how far that was; the run goes back to it where none of its own
    is from before the bad steps. Collective. Raises TrainingError, beginning with what is `said` of the step, where the
    verdict is to give up or there is no such checkpoint at all.
    """
    checkpoints.wait()
    there = checkpoints.ranks.from_first([(at.step, at.updates) for at in _positions(checkpoints.folder)])
    if origin is not None:
        there.append((origin[1].step, origin[1].updates))
    wanted = checkpoint_for(memory, step, there) if verdict == "roll back" else None
    saved = None if wanted is None else checkpoints.load_newest(state, at_most=wanted)
    if saved is None and wanted is not None and origin is not None:
        folder, saved = origin
        checkpoints.load_whole(state, folder)
    if saved is None:
        tried = f" after {memory.in_a_row} skipped steps in a row and {memory.rollbacks} rollbacks" if memory.in_a_row else ""
        newest = "the newest checkpoint is from before it" if there else "there is no checkpoint yet"
        raise TrainingError(f"{said}{tried}; {newest}. Lower train.learning_rate, or lengthen train.warmup_tokens, in a new run")
    checkpoints.forget_after(saved.step)
    log.warning("%s; back to the weights of step %d, and on behind token %s", said, saved.step, f"{step.end:,}")
    memory = after_rollback(memory, saved.memory, (saved.step, saved.tokens), step)
    return saved, Position(step.index + 1, step.end, saved.loss, memory)


def _positions(folder: Path) -> Iterator[Position]:
    """Of a run's regular checkpoints; one that does not say where it stood is passed over."""
    for checkpoint in regular(folder):
        with contextlib.suppress(ValueError):
            yield read_origin(checkpoint).position
