"""Do the mixtures differ at the next size up, where the law was not fitted? Pairs of trainings (Llama 3, section 3.1.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

LEVEL = 0.90  # of every interval


class Difference(BaseModel):
    """Mean of target(mixture) − target(against) over trainings that share their seed, nats a token; below 0: better."""

    model_config = ConfigDict(frozen=True)

    mixture: str
    against: str
    mean: float
    low: float | None  # None: fewer than two pairs
    high: float | None
    pairs: int

    @property
    def in_words(self) -> str:
        seen = f"{self.mixture} minus {self.against}: {self.mean:+.4f} nats a token"
        if self.low is None or self.high is None:
            return f"{seen}, of one pair: too few for an interval"
        seen += f" ({LEVEL:.0%} interval {self.low:+.4f} to {self.high:+.4f}, {self.pairs} pairs)"
        if self.high < 0:
            return f"{seen}: {self.mixture} is better"
        if self.low > 0:
            return f"{seen}: {self.mixture} is worse"
        return f"{seen}: no difference is shown"


def paired_difference(mixture: str, against: str, losses: Mapping[str, Mapping[int, float]]) -> Difference | None:
    """Of `losses`, mixture to seed to target: Student's t interval over the seeds that both have; None where there is none."""
    seeds = sorted(losses.get(mixture, {}).keys() & losses.get(against, {}).keys())
    if not seeds:
        return None
    differences = np.array([losses[mixture][seed] - losses[against][seed] for seed in seeds])
    mean, half = float(differences.mean()), _half_width(differences)
    low, high = (None, None) if half is None else (mean - half, mean + half)
    return Difference(mixture=mixture, against=against, mean=mean, low=low, high=high, pairs=len(seeds))


def _half_width(differences: np.ndarray) -> float | None:
    if len(differences) < 2:
        return None
    from scipy import stats

    quantile = stats.t.ppf((1 + LEVEL) / 2, len(differences) - 1)
    return float(quantile * differences.std(ddof=1) / math.sqrt(len(differences)))


def target_losses(runs: pa.Table, weights: Mapping[str, float]) -> dict[str, dict[int, float]]:
    """Mixture to seed to the weighted held-out loss; runs whose loss is not finite are left out."""
    found: dict[str, dict[int, float]] = {}
    for row in runs.to_pylist():
        loss = sum(weight * row[f"loss_{domain}"] for domain, weight in weights.items())
        if math.isfinite(loss):
            found.setdefault(row["mixture"], {})[row["seed"]] = loss
    return found
