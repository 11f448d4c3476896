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
from l3_platform.scaling.plan import candidate
from l3_platform.settings import Settings, Stage

if TYPE_CHECKING:
    from l3_platform.train.job import TrainResult

# The paper's: linear warm-up, cosine to a tenth of the peak. It warms up for 2,000 steps; a share suits any budget.
WARMUP_SHARE, MIN_LEARNING_RATE_RATIO = 0.1, 0.1
WEIGHT_DECAY = 0.1  # times the learning rate of the step, which AdamW's decoupled decay is multiplied by
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
    model = candidate(layers, settings, vocab_size)
    params = parameters(model)
    tokens = int(budget / (6.0 * params)) // scaling.seq_len * scaling.seq_len
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
    """A point and what it is trained on: token files of each domain on this machine, and the domains' shares."""

    point: Point
    data: Mapping[str, tuple[str, ...]]
    held_out: Mapping[str, tuple[str, ...]]
    shares: Mapping[str, float]
    bos_id: int
    eos_id: int
    settings: Settings


def run_point(task: PointTask) -> Output:
    """Train one point in this process: one row of `RUNS`, what `map_shards` runs. Raises TrainingError.

    No time and no MLflow run id is in the row: the same point gives the same bytes again.
    """
    from l3_platform.train.job import TrainJob
    from l3_platform.train.loop import train

    with tempfile.TemporaryDirectory(prefix="isoflop-") as folder:
        result = train(
            TrainJob(
                **job_fields(task, folder),
                total_tokens=task.point.tokens,
                warmup_tokens=int(WARMUP_SHARE * task.point.tokens),
                held_out=dict(task.held_out),
            )
        )
    return as_output([as_row(task.point, result)])


def job_fields(task: PointTask, folder: str) -> dict[str, Any]:
    """What all runs of a point's model have in common. Weight decay is a tenth of the learning rate at each step."""
    scaling = task.settings.scaling
    return {
        "folder": f"{folder}/run",
        "output": f"{folder}/model",
        "model": task.point.model,
        "data": task.data,
        "shares": task.shares,
        "bos_id": task.bos_id,
        "eos_id": task.eos_id,
        "ramp": (Stage(batch_tokens=scaling.batch_tokens, seq_len=scaling.seq_len),),
        "seed": task.settings.train.seed,
        "learning_rate": scaling.learning_rate,
        "min_learning_rate_ratio": MIN_LEARNING_RATE_RATIO,
        "weight_decay": WEIGHT_DECAY,
        "held_out_tokens": HELD_OUT_TOKENS,
        "log_every_steps": 100,
    }


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
