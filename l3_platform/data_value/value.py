"""What a candidate set is worth: how much less a held-out token costs with it, over annealings that share their seed."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from l3_platform.data_value.annealing import DEFAULT
from l3_platform.scaling.mixture_validation import LEVEL, paired_difference, target_losses
from l3_platform.store import Dataset

USEFUL, HARMFUL, OPEN = "useful", "harmful", "cannot tell"


class Value(BaseModel):
    """Mean of loss(default) − loss(with the candidate), nats a token; above 0: better with it."""

    model_config = ConfigDict(frozen=True)

    candidate: str
    mean: float
    low: float | None  # None: fewer than two pairs
    high: float | None
    pairs: int

    @property
    def verdict(self) -> str:
        """Says something only where the interval leaves zero out."""
        if self.low is not None and self.low > 0:
            return USEFUL
        return HARMFUL if self.high is not None and self.high < 0 else OPEN

    @property
    def in_words(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.candidate}: {self.mean:+.4f} nats a token, of one pair: too few for an interval"
        return (
            f"{self.candidate}: {self.mean:+.4f} nats a token ({LEVEL:.0%} interval {self.low:+.4f} to {self.high:+.4f}, "
            f"{self.pairs} pairs): {self.verdict}"
        )


def value_of(candidate: str, runs: pa.Table, weights: Mapping[str, float]) -> Value | None:
    """Of the weighted held-out loss over the seeds at which both annealings ended; None where there is none."""
    pair = paired_difference(DEFAULT, candidate, target_losses(runs, weights))
    return Value(candidate=candidate, **pair.model_dump(exclude={"mixture", "against"})) if pair else None


def domains_judged(runs: pa.Table) -> list[str]:
    """Those of which something is held out."""
    losses = [name for name in runs.column_names if name.startswith("loss_") and runs[name].null_count < runs.num_rows]
    return [name.removeprefix("loss_") for name in losses]


def read_value(data_value: Dataset) -> Value | None:
    """None where no seed has both annealings."""
    metrics = data_value.manifest.metrics
    if "mean" not in metrics:
        return None
    mean, low, high, pairs = (metrics.get(name) for name in ("mean", "low", "high", "pairs"))
    return Value.model_validate(
        {"candidate": data_value.manifest.partition, "mean": mean, "low": low, "high": high, "pairs": pairs}
    )
