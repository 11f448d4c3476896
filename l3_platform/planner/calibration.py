"""The two fitted constants: the shares of peak that matrix products and attention reach, from the MFU of Llama 3's table 4.

Everything else is a data sheet's or an assumption named in `Cluster`. So the constants also hold what the model leaves
out: power limits, stragglers, launches, documents of unequal length.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from l3_platform.model.config import presets
from l3_platform.planner.cluster import Shares
from l3_platform.planner.layout import Layout, Step
from l3_platform.planner.pace import pace

# The first two rows say next to nothing of attention, 4 % of their work. FlashAttention-2's utilization of an H100 (Shah et
# al. 2024) stands in, with a weight that trusts it to some 20 % where table 4's rounded figures are good to 1 %.
PUBLISHED_ATTENTION = 0.35
WEIGHT = 0.05


@dataclass(frozen=True)
class Observed:
    """A row of table 4. Eight virtual stages follow from 126 layers and one fewer on both ends: 16 · 8 - 2 = 126."""

    layout: Layout
    step: Step
    mfu: float


# The third row is printed with DP 4 in some versions; only 8 gives its 16,384 GPUs and its 16 M tokens.
TABLE_4 = (
    Observed(Layout(tp=8, cp=1, pp=16, dp=64, stages=8), Step(8192, 64 * 32 * 8192), 0.43),
    Observed(Layout(tp=8, cp=1, pp=16, dp=128, stages=8), Step(8192, 128 * 16 * 8192), 0.41),
    Observed(Layout(tp=8, cp=16, pp=16, dp=8, stages=8), Step(131_072, 8 * 16 * 131_072), 0.38),
)


@functools.cache
def fitted() -> Shares:
    """To all three rows."""
    return fit(TABLE_4)


def fit(rows: Sequence[Observed]) -> Shares:
    """Least squares of the logarithm of MFU by Gauss and Newton, attention drawn weakly to the published figure."""

    def residuals(logs: np.ndarray) -> np.ndarray:
        shares = Shares(*np.exp(logs))
        misses = [math.log(predicted(row, shares) / row.mfu) for row in rows]
        return np.array([*misses, WEIGHT * math.log(shares.attention / PUBLISHED_ATTENTION)])

    logs = np.log([0.6, PUBLISHED_ATTENTION])
    for _ in range(20):
        here = residuals(logs)
        slopes = np.stack([(residuals(logs + step) - here) / 1e-5 for step in np.eye(2) * 1e-5], axis=1)
        logs = logs - np.linalg.lstsq(slopes, here, rcond=None)[0]
    return Shares(*map(float, np.exp(logs)))


def predicted(row: Observed, shares: Shares) -> float:
    """MFU of 405B in a row's configuration."""
    return pace(presets["405b"], row.layout, row.step, shares).mfu


def leave_one_out() -> list[tuple[Observed, float]]:
    """Each row with the MFU predicted by a fit to the other two."""
    return [(row, predicted(row, fit([other for other in TABLE_4 if other is not row]))) for row in TABLE_4]
