"""Learning rate by tokens: linear warm-up, then cosine to a floor (Llama 3, 3.4.1), warm-up, stable, decay (Hu et al.
2024), or linear to zero (Llama 3, 3.4.3)."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "wsd", "linear_to_zero"]


def learning_rate(
    start: int,
    tokens: int,
    *,
    schedule: Schedule,
    peak: float,
    min_ratio: float,
    warmup_tokens: int,
    total_tokens: int,
    decay_tokens: int = 0,
    horizon_tokens: int = 0,
    branched_at: int = 0,
) -> float:
    """The rate of a step over tokens [start, start + tokens): the schedule at its middle.

    The middle makes a linear schedule integrate to the same whatever the batch size, and wastes no step at rate zero.
    `warmup_tokens` longer than the run are cut to it. `cosine` comes to its floor at `horizon_tokens`, 0: at the run's end;
    where that is later, the run ends above the floor, as Llama 3 405B did (its cosine spans 1.2 M steps). `wsd` is stable up
    to its last `decay_tokens`, and falls linearly to the floor in them. Of a branch, all but `linear_to_zero` count tokens
    from its first ancestor's start; that one falls from the token where the run branched.
    """
    middle = start + tokens / 2
    warmup = min(warmup_tokens, total_tokens)
    if middle < warmup:
        return peak * middle / warmup
    if schedule == "wsd":
        decay_from = max(warmup, total_tokens - decay_tokens)
        fallen = max(0.0, middle - decay_from) / max(1, total_tokens - decay_from)
        return peak * (1.0 - (1.0 - min_ratio) * fallen)
    if schedule == "linear_to_zero":
        begin = max(warmup, branched_at)
        return peak * (1.0 - (middle - begin) / max(1, total_tokens - begin))
    done = (middle - warmup) / max(1, (horizon_tokens or total_tokens) - warmup)
    return peak * (min_ratio + (1.0 - min_ratio) * 0.5 * (1.0 + math.cos(math.pi * done)))
