"""Learning rate by tokens: linear warm-up, then cosine to a floor (Llama 3, 3.4.1) or linear to zero (3.4.3)."""

from __future__ import annotations

import math
from typing import Literal


def learning_rate(
    start: int,
    tokens: int,
    *,
    schedule: Literal["cosine", "linear_to_zero"],
    peak: float,
    min_ratio: float,
    warmup_tokens: int,
    total_tokens: int,
) -> float:
    """The rate of a step over tokens [start, start + tokens): the schedule at its middle.

    The middle makes a linear schedule integrate to the same whatever the batch size, and wastes no step at rate zero.
    `warmup_tokens` longer than the run are cut to it.
    """
    middle = start + tokens / 2
    warmup = min(warmup_tokens, total_tokens)
    if middle < warmup:
        return peak * middle / warmup
    done = (middle - warmup) / max(1, total_tokens - warmup)
    if schedule == "linear_to_zero":
        return peak * (1.0 - done)
    return peak * (min_ratio + (1.0 - min_ratio) * 0.5 * (1.0 + math.cos(math.pi * done)))
