"""Going back to an earlier checkpoint when steps are bad too many times in a row: `spikes.py` says when and where to."""

from __future__ import annotations

import logging

from l3_platform.train.branch import Position, regular, step_of
from l3_platform.train.checkpoint import Checkpoints, State
from l3_platform.train.data_order import Step
from l3_platform.train.job import TrainingError
from l3_platform.train.spikes import Memory, Verdict, after_rollback, checkpoint_for

log = logging.getLogger(__name__)


def roll_back(
    checkpoints: Checkpoints, state: State, memory: Memory, step: Step, verdict: Verdict, said: str
) -> tuple[Position, Position]:
    """Fills `state` from the checkpoint to go back to. Returns where that was, and where the run goes on: behind `step`.

    Collective. Raises TrainingError, beginning with what is `said` of the step, where the verdict is to give up or there is
    no checkpoint from before the bad steps.
    """
    checkpoints.wait()
    there = checkpoints.ranks.from_first([step_of(folder) for folder in regular(checkpoints.folder)])
    wanted = checkpoint_for(memory, step, there) if verdict == "roll back" else None
    saved = None if wanted is None else checkpoints.load_newest(state, at_most=wanted)
    if saved is None:
        tried = f" after {memory.in_a_row} skipped steps in a row and {memory.rollbacks} rollbacks" if memory.in_a_row else ""
        raise TrainingError(
            f"{said}{tried}; the newest checkpoint is from before it. Lower train.learning_rate, or lengthen "
            "train.warmup_tokens, in a new run"
        )
    checkpoints.forget_after(saved.step)
    log.warning("%s; back to the weights of step %d, and on behind token %s", said, saved.step, f"{step.end:,}")
    memory = after_rollback(memory, saved.memory, (saved.step, saved.tokens), step)
    return saved, Position(step.index + 1, step.end, saved.loss, memory)
