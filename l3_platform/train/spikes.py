"""Loss spikes and steps that are not finite: skipped, then rolled back from, then given up. Pure functions, free of torch.

A step whose loss or gradient norm is not finite, or far above those of the steps before it, does not reach the weights:
its tokens count as consumed and are remembered as skipped (as in OLMo). After `max_skipped_steps` of them in a row the
weights themselves are suspect: the run goes back to the newest checkpoint from before the stretch and skips all data from
there to its end (Chowdhery et al. 2022, PaLM, section 5.1). Every decision is a function of the losses and norms of the
whole batch, equal on all ranks, and of `Memory`, which is in every checkpoint: a resumed run decides as an undisturbed one.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from l3_platform.train.data_order import Step

if TYPE_CHECKING:
    from l3_platform.train.job import TrainJob

Verdict = Literal["take", "skip", "roll back", "give up"]

# Scale of a normal distribution from its median absolute deviation (Iglewicz and Hoaglin 1993).
_MAD_TO_SIGMA = 1.4826
_LEAST_LOSS_SIGMA = 0.02  # of the median loss: at a z-score of 8, a spike is at least 16 % above the usual loss
_LEAST_LOG_NORM_SIGMA = math.log(1.3)  # at a z-score of 8, at least eight times the usual norm


@dataclass(frozen=True)
class Memory:
    """What the next decision depends on, and what was decided before.

    `losses`, `norms`: of the newest taken steps of one shape (tokens, seq_len, digest of the shares), at most `spike_window`.
    `skipped`: ranges of tokens that were consumed and did not reach the weights, ascending, neighbours joined.
    `rolled_back_to`: updates behind the weights that the newest rollback took; -1: none.
    """

    losses: tuple[float, ...] = ()
    norms: tuple[float, ...] = ()
    shape: tuple[int, ...] = ()
    in_a_row: int = 0
    skipped: tuple[tuple[int, int], ...] = ()
    skipped_steps: int = 0
    rollbacks: int = 0
    rolled_back_to: int = -1

    @property
    def skipped_tokens(self) -> int:
        return sum(end - start for start, end in self.skipped)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Memory:
        """What `dataclasses.asdict` and JSON have made of one; exact, since JSON keeps every bit of a float."""
        losses, norms, shape = (tuple(plain[name]) for name in ("losses", "norms", "shape"))
        skipped = tuple((start, end) for start, end in plain["skipped"])
        return cls(**(dict(plain) | {"losses": losses, "norms": norms, "shape": shape, "skipped": skipped}))


def judge(
    memory: Memory, job: TrainJob, step: Step, loss: float, norm: float, earlier_rollbacks: int = 0
) -> tuple[Verdict, Memory]:
    """Whether a step's gradients may reach the weights, and the memory after it. `norm` is that before clipping.

    With `max_skipped_steps` 0 nothing is skipped: what is not finite gives up at once, and no spike is looked for.
    `earlier_rollbacks` of the memory are the parents' of a branch.
    """
    shape = shape_of(job, step)
    if shape != memory.shape:  # another batch has another noise, another mixture another loss: neither is a spike
        memory = replace(memory, losses=(), norms=(), shape=shape)
    finite = math.isfinite(loss) and math.isfinite(norm)
    if finite and not (job.max_skipped_steps and _spikes(memory, job, loss, norm)):
        return "take", replace(
            memory,
            losses=(*memory.losses, loss)[-job.spike_window :],
            norms=(*memory.norms, norm)[-job.spike_window :],
            in_a_row=0,
        )
    if memory.in_a_row < job.max_skipped_steps:
        return "skip", _with_skipped(memory, step.start, step.end, steps=1, in_a_row=memory.in_a_row + 1)
    may = job.max_skipped_steps and memory.rollbacks - earlier_rollbacks < job.max_rollbacks
    return ("roll back" if may else "give up"), memory


def shape_of(job: TrainJob, step: Step) -> tuple[int, ...]:
    """Steps of one shape may be compared by their losses. Other shares have another level, be they a branch's or a change's."""
    (*_, held) = (mixture for mixture in job.mixtures if mixture.from_tokens <= step.start)
    return step.tokens, step.seq_len, zlib.crc32(json.dumps(held.proportions).encode())


def robust_z(value: float, window: Sequence[float], least_sigma: float) -> float:
    """Standard deviations above the median of `window`, the deviation taken from the median absolute one.

    `least_sigma`: a window in which nothing varies must not make every change a spike.
    """
    middle = median(window)
    sigma = _MAD_TO_SIGMA * median([abs(one - middle) for one in window])
    return (value - middle) / max(sigma, least_sigma)


def checkpoint_for(memory: Memory, step: Step, there: Iterable[tuple[int, int]]) -> int | None:
    """The step of the checkpoint to go back to from `step`, out of those there are, (step, updates) of each: the newest from
    before the stretch, and one further back when the last rollback took its weights. None where there is none."""
    before = sorted(one for one in there if one[0] <= step.index - memory.in_a_row)
    other = [one for one in before if one[1] < memory.rolled_back_to or before[-1][1] != memory.rolled_back_to]
    return (other or before)[-1][0] if before else None


def after_rollback(memory: Memory, saved: Memory, checkpoint: tuple[int, int], step: Step) -> Memory:
    """The memory behind `step`: `saved` is that of the checkpoint at (steps, tokens), `memory` the one before going back.

    The window starts afresh: where the level has truly changed, as with another mix of data, it is accepted.
    """
    steps, tokens = checkpoint
    updates = steps - saved.skipped_steps
    kept = replace(saved, losses=(), norms=(), rollbacks=memory.rollbacks + 1, rolled_back_to=updates)
    return _with_skipped(kept, tokens, step.end, steps=step.index + 1 - steps, in_a_row=0)


def _spikes(memory: Memory, job: TrainJob, loss: float, norm: float) -> bool:
    if not job.spike_zscore or len(memory.losses) < job.spike_window:
        return False
    # Norms by their logarithm: the clipping makes a norm of three times the usual one harmless, and it is no rarity.
    logs = [math.log(one + 1e-12) for one in memory.norms]
    of_loss = robust_z(loss, memory.losses, least_sigma=_LEAST_LOSS_SIGMA * abs(median(memory.losses)) + 1e-12)
    return max(of_loss, robust_z(math.log(norm + 1e-12), logs, least_sigma=_LEAST_LOG_NORM_SIGMA)) > job.spike_zscore


def _with_skipped(memory: Memory, start: int, end: int, *, steps: int, in_a_row: int) -> Memory:
    ranges = list(memory.skipped)
    if ranges and ranges[-1][1] == start:
        start, _ = ranges.pop()
    return replace(memory, skipped=(*ranges, (start, end)), skipped_steps=memory.skipped_steps + steps, in_a_row=in_a_row)
