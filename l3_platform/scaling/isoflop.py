"""The IsoFLOP sweep: models of several sizes at several budgets, trained in this process (Llama 3, section 3.2.1)."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from l3_platform.engine import Counts, Output
from l3_platform.model.config import ModelConfig, parameters
from l3_platform.scaling.proxy import Corpus, failed, proxy_job, shape_and_tokens
from l3_platform.settings import Settings

if TYPE_CHECKING:
    from l3_platform.train.job import TrainJob, TrainResult

HELD_OUT_TOKENS = 1 << 16  # of each domain, for the loss at the end
RUNS = pa.schema(
    [
        ("point", pa.string()),
        ("flops", pa.float64()),  # the budget that the point belongs to: what the fit groups by
        ("params", pa.int64()),
        ("tokens", pa.int64()),  # trained on
        ("spent_flops", pa.float64()),  # 6 · params · tokens, below the budget by less than a sequence
        ("loss", pa.float64()),  # held out, nats a token
        ("train_loss", pa.float64()),  # of the last step, nats a token
        ("layers", pa.int32()),
        ("d_model", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Point:
    """One model of the sweep. `left_out` says why it is not trained; empty where it is."""

    name: str
    budget: float
    model: ModelConfig
    params: int
    tokens: int
    left_out: str = ""


def points(settings: Settings, vocab_size: int, train_tokens_available: int) -> list[Point]:
    """Every budget × size of `settings.scaling`, cheapest budget first, smallest model first within it."""
    return [
        _point(budget, layers, settings, vocab_size, train_tokens_available)
        for budget in sorted(settings.scaling.budgets)
        for layers in sorted(settings.scaling.layers)
    ]


def _point(budget: float, layers: int, settings: Settings, vocab_size: int, available: int) -> Point:
    scaling = settings.scaling
    model, tokens = shape_and_tokens(layers, budget, settings, vocab_size)
    params = parameters(model)
    reason = ""
    if tokens < max(scaling.min_tokens, scaling.seq_len):
        reason = f"{tokens:,} tokens are fewer than scaling.min_tokens {scaling.min_tokens:,}"
    elif tokens > scaling.max_epochs * available:
        reason = (
            f"{tokens:,} tokens would repeat the {available:,} at hand more than scaling.max_epochs {scaling.max_epochs:g} times"
        )
    return Point(f"flops-{budget:.3e}-layers-{layers:03d}", budget, model, params, tokens, reason)


def as_the_sweep_weighs(held_out: Mapping[str, tuple[float, int]]) -> float:
    """Held-out loss of a finished run, {domain: (nats, tokens)}, with each domain's weight in the sweep: what it predicts.

    A point reads at most `HELD_OUT_TOKENS` of a domain, a final model all of them. NaN where nothing was held out.
    """
    weights = {domain: min(tokens, HELD_OUT_TOKENS - 1) for domain, (_, tokens) in held_out.items()}
    total = sum(weights.values())
    return (
        sum(nats / tokens * weights[domain] for domain, (nats, tokens) in held_out.items() if tokens) / total if total else math.nan
    )


@dataclass(frozen=True)
class PointTask:
    """A point and what it is trained on."""

    point: Point
    corpus: Corpus
    shares: Mapping[str, float]  # of each domain
    settings: Settings


def run_point(task: PointTask) -> Output:
    """Train one point in this process: one row of `RUNS`, what `map_shards` runs. A point that diverges is a failure, no error.

    No time and no MLflow run id is in the row: the same point gives the same bytes again.
    """
    from l3_platform.train.job import TrainingError
    from l3_platform.train.loop import train

    try:
        with tempfile.TemporaryDirectory(prefix="isoflop-") as folder:
            result = train(point_job(task, folder, task.point.tokens))
    except TrainingError as error:
        return failed(RUNS, task.point.name, error)
    return as_output([as_row(task.point, result)])


def point_job(task: PointTask, folder: str, tokens: int, **changes: Any) -> TrainJob:
    """A run of a point's model."""
    return proxy_job(
        folder, task.point.model, task.shares, tokens, task.corpus, task.settings,
        seed=task.settings.train.seed, held_out_tokens=HELD_OUT_TOKENS, **changes,
    )  # fmt: skip


def as_row(point: Point, result: TrainResult) -> dict[str, Any]:
    """One row of `RUNS`; tokens and FLOPs are those behind the model, before a branch and after it."""
    tokens = result.branched_at + result.tokens
    return {
        "point": point.name,
        "flops": point.budget,
        "params": result.parameters,
        "tokens": tokens,
        "spent_flops": 6.0 * result.parameters * tokens,
        "loss": result.held_out_loss,
        "train_loss": result.loss,
        "layers": point.model.layers,
        "d_model": point.model.d_model,
    }


def as_output(rows: Sequence[Mapping[str, Any]]) -> Output:
    return Output(pa.Table.from_pylist(list(rows), schema=RUNS), Counts.annotated(len(rows)))
