"""One small model of a sweep, trained in this process: the recipe that IsoFLOP points and runs over mixtures share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from l3_platform.engine import Counts, Output
from l3_platform.model.config import ModelConfig, parameters
from l3_platform.scaling.plan import candidate
from l3_platform.settings import Settings, Stage
from l3_platform.store import QUARANTINE_SCHEMA, Dataset
from l3_platform.tokens.build import Vocabulary
from l3_platform.train.streams import local_streams

if TYPE_CHECKING:
    from l3_platform.train.job import TrainingError, TrainJob

# The paper's: linear warm-up, cosine to a tenth of the peak. It warms up for 2,000 steps; a share suits any budget.
WARMUP_SHARE, MIN_LEARNING_RATE_RATIO = 0.1, 0.1
WEIGHT_DECAY = 0.1  # times the learning rate of the step, which AdamW's decoupled decay is multiplied by


@dataclass(frozen=True)
class Corpus:
    """Token files of each domain on this machine, and the ids that begin and end documents."""

    data: Mapping[str, tuple[str, ...]]
    held_out: Mapping[str, tuple[str, ...]]
    bos_id: int
    eos_id: int

    @classmethod
    def of(cls, token_shards: Dataset, words: Vocabulary) -> Corpus:
        data, held_out = local_streams(token_shards, "train"), local_streams(token_shards, "held_out")
        return cls(data, held_out, words.bos_id, words.eos_id)


def proxy_job(
    folder: str,
    model: ModelConfig,
    shares: Mapping[str, float],
    tokens: int,
    corpus: Corpus,
    settings: Settings,
    *,
    seed: int,
    held_out_tokens: int,
    **changes: Any,
) -> TrainJob:
    """`tokens` of training on `shares`, with what section `scaling` says of a recipe; the model goes to `folder`/model. Weight
    decay is a tenth of the learning rate at each step. `changes`: other fields of the job."""
    from l3_platform.train.job import TrainJob

    scaling = settings.scaling
    fields: dict[str, Any] = {
        "folder": f"{folder}/run",
        "output": f"{folder}/model",
        "model": model,
        "data": corpus.data,
        "held_out": corpus.held_out,
        "shares": shares,
        "bos_id": corpus.bos_id,
        "eos_id": corpus.eos_id,
        "total_tokens": tokens,
        "ramp": (Stage(batch_tokens=scaling.batch_tokens, seq_len=scaling.seq_len),),
        "seed": seed,
        "learning_rate": scaling.learning_rate,
        "min_learning_rate_ratio": MIN_LEARNING_RATE_RATIO,
        "weight_decay": WEIGHT_DECAY,
        "warmup_tokens": int(WARMUP_SHARE * tokens),
        "held_out_tokens": held_out_tokens,
        "log_every_steps": 100,
    }
    return TrainJob(**(fields | changes))


def shape_and_tokens(layers: int, budget: float, settings: Settings, vocab_size: int) -> tuple[ModelConfig, int]:
    """The model of a depth, and the tokens that `budget` FLOPs train it on: 6·N·D, whole sequences."""
    model = candidate(layers, settings, vocab_size)
    return model, int(budget / (6.0 * parameters(model))) // settings.scaling.seq_len * settings.scaling.seq_len


def failed(schema: pa.Schema, name: str, error: TrainingError) -> Output:
    """The shard of a model whose training cannot go on: no row, one failure with its reason.

    It is the same whenever it is tried again, so it is finished and the sweep goes on without it.
    """
    row = {"file": name, "offset": 0, "reason": "training_error", "detail": str(error), "bytes_lost": 0}
    quarantine = pa.Table.from_pylist([row], schema=QUARANTINE_SCHEMA)
    return Output(schema.empty_table(), Counts(records_in=1, failed=1), quarantine)
