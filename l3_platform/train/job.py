"""One training run as data: `TrainJob` is the JSON file that every rank reads, `TrainResult` what it leaves behind."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from l3_platform.model.config import ModelConfig
from l3_platform.settings import Stage
from l3_platform.settings import Train as TrainSettings

RESULT_FILE = "result.json"

# What may change between a run and its resumption: places, pace and precision of reporting, never the mathematics.
_NOT_IDENTITY = frozenset({
    "folder", "output", "keep_checkpoints", "log_every_steps", "threads", "shutdown_seconds", "peak_flops",
    "mlflow_tracking_uri", "mlflow_run_id", "data_parallel_shard", "activation_checkpointing", "compile",
    "micro_batch_tokens", "tokenizer",
})  # fmt: skip


class TrainingError(RuntimeError):
    """Training cannot go on, and would not if it were started again; the message is meant for a person."""


class TrainingStopped(RuntimeError):
    """Training was asked to stop and has; started again, it resumes from its newest checkpoint."""


class TrainJob(BaseModel):
    """Everything a run needs. Paths are local; token files are raw little-endian uint32, documents end to end, each
    beginning with `bos_id` and ending with `eos_id`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str = Field(description="checkpoints, metrics and the lock of the run; made when missing")
    output: str = Field(description="folder of the final model, written atomically")
    model: ModelConfig
    data: dict[str, tuple[str, ...]] = Field(description="token files of each domain, in order")
    held_out: dict[str, tuple[str, ...]] = Field({}, description="token files of each domain for the loss at the end")
    shares: dict[str, float] = Field(description="weight of each domain, of tokens; need not sum to 1")
    bos_id: int
    eos_id: int
    total_tokens: int = Field(ge=1, description="rounded down to whole sequences of the longest length")
    ramp: tuple[Stage, ...] = Field(min_length=1)
    schedule: Literal["cosine", "linear_to_zero"] = "cosine"
    init_from: str = Field("", description="folder of an exported model to start from; empty: fresh weights")
    seed: int = 7

    learning_rate: float = Field(gt=0)
    min_learning_rate_ratio: float = Field(0.01, ge=0, le=1)
    warmup_tokens: int = Field(0, ge=0)
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    gradient_clip: float = Field(1.0, gt=0)

    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    activation_checkpointing: bool = False
    document_mask: bool = True
    micro_batch_tokens: int = Field(0, ge=0, description="tokens a rank and forward pass; 0: its whole batch at once")
    data_parallel_shard: int = Field(0, ge=0, description="FSDP2 shard degree; 0: all ranks")

    checkpoint_every_tokens: int = Field(0, ge=0, description="0: only when stopped")
    keep_checkpoints: int = Field(3, ge=1)
    average_last: int = Field(0, ge=0, description="the final model is the mean of so many newest checkpoints; 0: none")
    held_out_tokens: int = Field(0, ge=0, description="tokens a domain of the held-out loss; 0: all")
    log_every_steps: int = Field(1, ge=1)
    threads: int = Field(1, ge=1, description="CPU threads a rank")
    mlflow_tracking_uri: str = Field("", description="empty: MLflow is not imported")
    mlflow_run_id: str = ""
    shutdown_seconds: float = Field(8.0, description="between the request to stop and KILL; a checkpoint must fit in it")
    peak_flops: float = Field(0.0, description="of one device, FLOPs a second, for MFU; 0: MFU is not reported")
    tokenizer: str = Field("", description="path of the tokenizer.json that the final model's folder gets; empty: none")

    @classmethod
    def from_settings(cls, settings: TrainSettings, **rest: Any) -> TrainJob:
        """A job with the recipe of the settings; `rest` are the other fields, and wins."""
        shared = {name: getattr(settings, name) for name in TrainSettings.model_fields if name in cls.model_fields}
        return cls(**(shared | rest))

    @classmethod
    def read(cls, path: str | Path) -> TrainJob:
        return cls.model_validate_json(Path(path).read_text(encoding="utf-8"))

    def write(self, path: str | Path) -> None:
        write_text(path, self.model_dump_json(indent=2) + "\n")

    @property
    def fingerprint(self) -> str:
        """Identity of the mathematics: two jobs that share it may share checkpoints, wherever their files lie."""
        plain = self.model_dump(mode="json")
        identity: dict[str, Any] = {key: value for key, value in plain.items() if key not in _NOT_IDENTITY}
        for split in ("data", "held_out"):
            identity[split] = {
                domain: [[os.path.basename(file), os.path.getsize(file)] for file in files]
                for domain, files in plain[split].items()
            }
        identity["init_from"] = bool(self.init_from)
        if not self.average_last:
            del identity["checkpoint_every_tokens"]
        return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=16).hexdigest()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not any(share > 0 for share in self.shares.values()):
            raise ValueError("shares: no domain has a positive weight; nothing would be trained on")
        for domain, share in self.shares.items():
            if share < 0:
                raise ValueError(f"shares: {domain} has the negative weight {share}")
            if share > 0 and not self.data.get(domain):
                raise ValueError(f"data: domain {domain!r} has weight {share} but no token files; known: {sorted(self.data)}")
        if self.average_last and not self.checkpoint_every_tokens:
            raise ValueError(f"average_last is {self.average_last}, so checkpoint_every_tokens must be set too")
        _check_ramp(self.ramp, self.total_tokens)
        return self


class TrainResult(BaseModel):
    """`result.json` beside the final model; no wall clock in it, so equal runs give equal bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str = Field(description="of the job")
    steps: int
    tokens: int
    parameters: int
    flops: float = Field(description="6 · parameters · tokens")
    loss: float = Field(description="training loss of the last step, nats a token")
    averaged: int = Field(description="checkpoints whose mean the final model is; 1: the last weights alone")
    held_out: Mapping[str, tuple[float, int]] = Field(description="domain: (summed nats, predicted tokens)")

    @property
    def held_out_loss(self) -> float:
        """Nats a token over all domains; NaN where nothing was held out."""
        nats, tokens = (sum(column) for column in zip(*self.held_out.values(), strict=True)) if self.held_out else (0, 0)
        return nats / tokens if tokens else float("nan")

    @classmethod
    def read(cls, output: str | Path) -> TrainResult | None:
        """The result in a final model's folder; None where no run has finished there."""
        path = Path(output) / RESULT_FILE
        return cls.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else None


def write_text(path: str | Path, text: str) -> None:
    """Atomically: whoever reads sees the whole old text or the whole new one."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, target)


def _check_ramp(ramp: tuple[Stage, ...], total_tokens: int) -> None:
    unit = max(stage.seq_len for stage in ramp)
    starts = [stage.from_tokens for stage in ramp]
    if starts[0] != 0 or starts != sorted(set(starts)):
        raise ValueError(f"ramp: from_tokens must begin at 0 and increase (got {starts})")
    for stage in ramp:
        if unit % stage.seq_len:
            raise ValueError(f"ramp: seq_len {stage.seq_len} must divide the longest, {unit}, so that no token is split off")
        if stage.batch_tokens % unit or stage.batch_tokens < unit:
            raise ValueError(
                f"ramp: batch_tokens {stage.batch_tokens} at {stage.from_tokens} tokens must be a multiple of the "
                f"longest seq_len, {unit}"
            )
    if total_tokens < unit:
        raise ValueError(f"total_tokens {total_tokens} is less than one sequence of {unit} tokens")
