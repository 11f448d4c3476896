"""Small models over mixtures of the domains: what a mixture law is fitted to and validated by (Llama 3, section 3.1.2)."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from l3_platform.engine import Counts, Output
from l3_platform.mix.data_mix import DOMAINS
from l3_platform.model.config import ModelConfig
from l3_platform.scaling.proxy import Corpus, failed, proxy_job
from l3_platform.settings import Settings

if TYPE_CHECKING:
    from l3_platform.train.job import TrainJob, TrainResult

RUNS = pa.schema(
    [
        ("point", pa.string()),
        ("mixture", pa.string()),
        ("seed", pa.int64()),
        ("params", pa.int64()),
        ("tokens", pa.int64()),  # trained on
        *((f"share_{domain}", pa.float64()) for domain in DOMAINS),  # of them
        *((f"loss_{domain}", pa.float64()) for domain in DOMAINS),  # held out, nats a token; null where nothing is held out
        ("train_loss", pa.float64()),  # of the last step, over its mixture
    ]
)
WEIGHTS = pa.schema([RUNS.field(name) for name in ("point", "seed", "params", "tokens", *(f"share_{one}" for one in DOMAINS))])


def natural_mixture(available: Mapping[str, int]) -> dict[str, float]:
    """Shares of the tokens at hand; domains without any left out. Raises ValueError where there are none at all."""
    total = sum(available.values())
    if not total:
        raise ValueError("no domain has any training tokens: check token_shards")
    return {domain: available[domain] / total for domain in DOMAINS if available.get(domain)}


def sampled_mixtures(natural: Mapping[str, float], count: int, concentration: float, seed: int) -> list[dict[str, float]]:
    """Draws of a Dirichlet whose mean is `natural`: the spread reaches every domain's rare and common mixtures alike."""
    alpha = concentration * np.array(list(natural.values()))
    draws: npt.NDArray[np.float64] = np.random.default_rng(seed).dirichlet(alpha, count)
    return [dict(zip(natural, row.tolist(), strict=True)) for row in draws]


@dataclass(frozen=True)
class MixtureTask:
    """One training: a mixture at a seed. Equal seeds give equal first weights and an equal order within each domain."""

    mixture: str
    shares: Mapping[str, float]
    seed: int
    model: ModelConfig
    tokens: int
    corpus: Corpus
    settings: Settings

    @property
    def name(self) -> str:
        return f"{self.mixture}-seed-{self.seed}"

    def job(self, folder: str) -> TrainJob:
        held_out = self.settings.mixture.held_out_tokens
        return proxy_job(
            folder, self.model, self.shares, self.tokens, self.corpus, self.settings, seed=self.seed, held_out_tokens=held_out
        )


def run_mixture(task: MixtureTask) -> Output:
    """Train one mixture in this process: one row of `RUNS`, what `map_shards` runs; its bytes are the same every time."""
    from l3_platform.train.job import TrainingError
    from l3_platform.train.loop import train

    with tempfile.TemporaryDirectory(prefix="mixture-") as folder:
        try:
            result = train(task.job(folder))
        except TrainingError as error:
            return failed(RUNS, task.name, error)
    row = as_row(task.name, task.mixture, task.seed, task.shares, result)
    return Output(pa.Table.from_pylist([row], schema=RUNS), Counts.annotated(1))


def as_row(point: str, mixture: str, seed: int, shares: Mapping[str, float], result: TrainResult) -> dict[str, Any]:
    """Of RUNS."""
    return {
        "point": point,
        "mixture": mixture,
        "seed": seed,
        "params": result.parameters,
        "tokens": result.tokens,
        "train_loss": result.loss,
        **{f"share_{domain}": shares.get(domain, 0.0) for domain in DOMAINS},
        **{f"loss_{domain}": nats / tokens for domain, (nats, tokens) in result.held_out.items() if tokens},
    }


def run_doremi(task: MixtureTask) -> Output:
    """One run of DoReMi: a reference model on the task's mixture, then a proxy of its size; a row of `WEIGHTS`."""
    from l3_platform.scaling.doremi import doremi_weights
    from l3_platform.train.job import TrainingError
    from l3_platform.train.loop import train

    with tempfile.TemporaryDirectory(prefix="doremi-") as folder:
        job = task.job(folder)
        try:
            reference = train(job)
            weights = doremi_weights(job)
        except TrainingError as error:
            return failed(WEIGHTS, task.name, error)
    row = {"point": task.name, "seed": task.seed, "params": reference.parameters, "tokens": reference.tokens}
    row |= {f"share_{domain}": weights.get(domain, 0.0) for domain in DOMAINS}
    return Output(pa.Table.from_pylist([row], schema=WEIGHTS), Counts.annotated(1))


def shares_in(row: Mapping[str, float]) -> dict[str, float]:
    """The mixture of a row of `RUNS` or `WEIGHTS`."""
    return {domain: row[f"share_{domain}"] for domain in DOMAINS}


def mean_losses(runs: pa.Table, domain: str) -> dict[str, float]:
    """Held-out loss of a domain by mixture, the mean over its seeds; mixtures whose loss is not finite are left out."""
    losses: dict[str, list[float]] = {}
    for row in runs.select(["mixture", f"loss_{domain}"]).to_pylist():
        losses.setdefault(row["mixture"], []).append(math.nan if row[f"loss_{domain}"] is None else row[f"loss_{domain}"])
    means = {mixture: sum(values) / len(values) for mixture, values in losses.items()}
    return {mixture: mean for mixture, mean in means.items() if math.isfinite(mean)}
