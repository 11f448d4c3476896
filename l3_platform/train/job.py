"""One training run as data: `TrainJob` is the JSON file that every rank reads, `TrainResult` what it leaves behind."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from l3_platform.model.config import ModelConfig
from l3_platform.parallel.mesh import Mesh, mesh_for
from l3_platform.parallel.schedule import PipelineSchedule
from l3_platform.settings import (
    ActivationCheckpointing,
    AttentionKernel,
    Beta,
    Precision,
    SettingsError,
    Stage,
    check_ramp,
    first_mistake,
    home,
)
from l3_platform.settings import Train as TrainSettings
from l3_platform.train.branch import read_origin
from l3_platform.train.interleave import Mixture
from l3_platform.train.probes import probes_digest, read_probes
from l3_platform.train.schedule import Schedule

RESULT_FILE = "result.json"

# What may change between a run and its resumption: places, pace and precision of reporting, never the mathematics.
_NOT_IDENTITY = frozenset({
    "folder", "output", "keep_checkpoints", "log_every_steps", "threads", "shutdown_seconds", "peak_flops",
    "mlflow_tracking_uri", "mlflow_run_id", "data_parallel_shard", "activation_checkpointing", "compile", "attention",
    "micro_batch_tokens", "hang_seconds", "tokenizer",
    "tensor_parallel", "context_parallel", "pipeline_parallel", "pipeline_schedule",
    "pipeline_stages_per_rank", "pipeline_micro_batches",
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
    mix_changes: tuple[Mixture, ...] = Field((), description="weights that replace them on the way, by tokens")
    bos_id: int
    eos_id: int
    total_tokens: int = Field(
        ge=1, description="those before a branch included; rounded down to whole sequences of the longest length"
    )
    ramp: tuple[Stage, ...]
    schedule: Schedule = "cosine"
    decay_tokens: int = Field(0, ge=0, description="wsd: of the fall at the end; 0: stable to the end")
    horizon_tokens: int = Field(0, ge=0, description="cosine: at which it reaches its floor; 0: at total_tokens")
    init_from: str = Field("", description="folder of an exported model to start from; empty: fresh weights")
    branch_from: str = Field("", description="folder of a step checkpoint of another run, to go on from with all its state")
    seed: int = 7

    learning_rate: float = Field(gt=0)
    min_learning_rate_ratio: float = Field(0.01, ge=0, le=1)
    warmup_tokens: int = Field(0, ge=0)
    weight_decay: float = Field(0.1, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    epsilon: float = 1e-8
    gradient_clip: float = Field(1.0, gt=0)

    spike_zscore: float = Field(
        8.0, ge=0, description="of loss or gradient norm, from which a step is skipped; 0: only if not finite"
    )
    spike_window: int = Field(64, ge=2, description="steps that a step is compared with")
    max_skipped_steps: int = Field(0, ge=0, description="in a row, before a rollback; 0: none, what is not finite ends the run")
    max_rollbacks: int = Field(0, ge=0, description="of this run, a branch's parents not counted")
    hang_seconds: float = Field(0.0, ge=0, description="without a finished step, after which a rank ends itself; 0: never")

    precision: Precision = "fp32"
    compile: bool = False
    attention: AttentionKernel = "auto"
    activation_checkpointing: ActivationCheckpointing = "none"
    document_mask: bool = True
    micro_batch_tokens: int = Field(0, ge=0, description="tokens a rank and forward pass; 0: its whole batch at once")
    data_parallel_shard: int = Field(0, ge=0, description="FSDP2 shard degree; 0: all data-parallel ranks")
    tensor_parallel: int = Field(1, ge=1)
    context_parallel: int = Field(1, ge=1)
    pipeline_parallel: int = Field(1, ge=1)
    pipeline_schedule: Literal["1f1b", "interleaved", "zero_bubble"] = "1f1b"
    pipeline_stages_per_rank: int = Field(0, ge=0)
    pipeline_micro_batches: int = Field(0, ge=0)

    checkpoint_every_tokens: int = Field(0, ge=0, description="0: only when stopped")
    keep_checkpoints: int = Field(3, ge=1)
    average_last: int = Field(0, ge=0, description="the final model is the mean of so many newest checkpoints; 0: none")
    held_out_tokens: int = Field(0, ge=0, description="tokens a domain of the held-out loss; 0: all")
    held_out_seq_len: int = Field(0, ge=0, description="sequences of the held-out loss; 0: the longest of the ramp")
    probes: str = Field("", description="file of `l3_platform.train.probes` to answer at the end; empty: none")
    log_every_steps: int = Field(1, ge=1)
    threads: int = Field(1, ge=1, description="CPU threads a rank")
    mlflow_tracking_uri: str = Field("", description="empty: MLflow is not imported")
    mlflow_run_id: str = ""
    shutdown_seconds: float = Field(8.0, ge=0, description="between the request to stop and KILL; a checkpoint must fit in it")
    peak_flops: float = Field(0.0, ge=0, description="of one device, FLOPs a second, for MFU; 0: MFU is not reported")
    tokenizer: str = Field("", description="path of the tokenizer.json that the final model's folder gets; empty: none")

    @classmethod
    def from_settings(cls, settings: TrainSettings, **rest: Any) -> TrainJob:
        """A job with the recipe of the settings; `rest` are the other fields, and wins. Raises SettingsError."""
        shared = {name: getattr(settings, name) for name in TrainSettings.model_fields if name in cls.model_fields}
        try:
            return cls(**(shared | rest))
        except ValidationError as error:
            raise SettingsError(first_mistake(error, cls, "train.")) from None

    @classmethod
    def read(cls, path: str | Path) -> TrainJob:
        return cls.model_validate_json(Path(path).read_text(encoding="utf-8"))

    def write(self, path: str | Path) -> None:
        write_text(path, self.model_dump_json(indent=2) + "\n")

    def mesh(self, ranks: int) -> Mesh:
        """The mesh of so many ranks. Raises ValueError, naming the setting to change, where the job cannot run on it."""
        mesh = mesh_for(
            ranks, self.data_parallel_shard,
            tp=self.tensor_parallel, cp=self.context_parallel, pp=self.pipeline_parallel,
        )  # fmt: skip
        mesh.check(self.model, sorted(self._lengths()), self.schedule_of_pipeline)
        if self.compile and self._splits_backward:
            raise ValueError("pipeline: a zero-bubble schedule cannot split a compiled backward pass; set train.compile=false")
        self._check_attention()
        if self.precision == "fp8":
            _check_fp8(self.model, mesh, self.ramp)
        return mesh

    def _lengths(self) -> set[int]:
        """Of all sequences that the mesh has to cut: those of training, and those that are asked at its end."""
        asked = {probe.length for probe in read_probes(self.probes)} if self.probes else set()
        return {stage.seq_len for stage in self.ramp} | ({self.held_out_seq_len} - {0}) | asked

    def _check_attention(self) -> None:
        if self.attention == "flex" and self._splits_backward:
            raise ValueError(
                "pipeline: a zero-bubble schedule cannot split flex's backward pass, which is compiled; set train.attention=sdpa"
            )
        if self.attention == "varlen" and self.context_parallel > 1:
            raise ValueError(
                "train.attention=varlen wants whole sequences, and context parallelism cuts them; set train.attention=flex, "
                "or train.context_parallel=1"
            )
        if self.attention == "varlen" and self.precision == "fp32":
            raise ValueError("train.attention=varlen has no kernel for fp32; set train.attention=auto, or train.precision=bf16")

    @property
    def _splits_backward(self) -> bool:
        return self.pipeline_parallel > 1 and self.pipeline_schedule == "zero_bubble"

    @property
    def attention_kernel(self) -> AttentionKernel:
        """What `attention` comes to. A zero-bubble schedule cannot split what flex compiles, and in fp32, the precision of small
        models, compiling costs more than it brings: `auto` is native there."""
        return "native" if self.attention == "auto" and (self._splits_backward or self.precision == "fp32") else self.attention

    @property
    def schedule_of_pipeline(self) -> PipelineSchedule:
        return PipelineSchedule(self.pipeline_schedule, self.pipeline_stages_per_rank, self.pipeline_micro_batches)

    @property
    def mixtures(self) -> tuple[Mixture, ...]:
        """All of the run, in order."""
        return (Mixture(shares=self.shares), *self.mix_changes)

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
        identity["init_from"] = _weights_identity(self.init_from) if self.init_from else False
        if self.branch_from:
            origin = read_origin(self.branch_from)
            identity["branch_from"] = [origin.fingerprint, origin.position.step, origin.position.tokens]
        if self.probes:
            identity["probes"] = probes_digest(self.probes)
        if not self.average_last:
            del identity["checkpoint_every_tokens"]
        if not self.horizon_tokens:
            del identity["horizon_tokens"]
        return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=16).hexdigest()

    @field_validator("ramp")
    @classmethod
    def _trainable(cls, ramp: tuple[Stage, ...]) -> tuple[Stage, ...]:
        check_ramp(ramp)
        return ramp

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_mixtures(self.mixtures, self.data)
        if self.average_last and not self.checkpoint_every_tokens:
            raise ValueError(f"average_last is {self.average_last}, so checkpoint_every_tokens must be set too")
        if self.init_from and self.branch_from:
            raise ValueError("init_from and branch_from are both set: a run starts from one of them")
        if 0 < self.horizon_tokens < self.total_tokens:
            raise ValueError(
                f"horizon_tokens {self.horizon_tokens} is below total_tokens {self.total_tokens}, and after it the rate would rise "
                "again; raise it, or set it to 0"
            )
        longest = max(stage.seq_len for stage in self.ramp)
        if self.total_tokens < longest:
            raise ValueError(f"total_tokens {self.total_tokens} is less than one sequence of {longest} tokens")
        return self


def _weights_identity(folder: str) -> str | list[Any]:
    """The fingerprint of the job that exported a model here; of any other folder its name and its files, as of data."""
    if (result := TrainResult.read(folder)) is not None:
        return result.fingerprint
    files = sorted(Path(folder).glob("*.safetensors"))
    return [os.path.basename(os.path.abspath(folder)), [[file.name, file.stat().st_size] for file in files]]


class TrainResult(BaseModel):
    """`result.json` beside the final model; no wall clock in it, so equal runs give equal bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str = Field(description="of the job")
    steps: int
    tokens: int
    parameters: int
    flops: float = Field(description="6 · parameters · tokens")
    loss: float = Field(description="training loss of the last step that reached the weights, nats a token")
    averaged: int = Field(description="checkpoints whose mean the final model is; 1: the last weights alone")
    skipped_steps: int = Field(0, description="steps whose tokens were consumed and did not reach the weights")
    skipped_tokens: int = 0
    skipped: tuple[tuple[int, int], ...] = Field((), description="and which: [from, to) in tokens of the run, its parents' too")
    rollbacks: int = Field(0, description="returns to an earlier checkpoint because of a loss that did not recover")
    held_out: Mapping[str, tuple[float, int]] = Field(description="domain: (summed nats, predicted tokens)")
    branched_at: int = Field(0, description="tokens behind the run where it branched; steps, tokens and flops are its own")
    probe_nats: tuple[tuple[float, ...], ...] = Field((), description="a row a probe, nats of each of its choices")

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


def run_folder(asset: str, fingerprint: str) -> Path:
    """Where a run keeps its checkpoints, metrics and ledger: under the identity of the dataset that it leads to."""
    return home() / "checkpoints" / f"{asset}-{fingerprint}"


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


def _check_fp8(model: ModelConfig, mesh: Mesh, ramp: tuple[Stage, ...]) -> None:
    """The kernels multiply matrices whose sides are multiples of 16."""
    sides = {
        "d_model": model.d_model,
        "query heads' width on a rank": model.d_model // mesh.tp,
        "KV heads' width on a rank": model.kv_heads * model.head_dim // mesh.tp,
        "FFN's width on a rank": model.ffn // mesh.tp,
    } | {f"a rank's part of a sequence of {stage.seq_len}": stage.seq_len // mesh.cp for stage in ramp}
    for what, size in sides.items():
        if size % 16:
            raise ValueError(f"train.precision=fp8 wants multiples of 16, and {what} is {size}; set train.precision=bf16")


def _check_mixtures(mixtures: tuple[Mixture, ...], data: Mapping[str, tuple[str, ...]]) -> None:
    starts = [mixture.from_tokens for mixture in mixtures]
    if starts != sorted(set(starts)):
        raise ValueError(f"mix_changes: from_tokens must be above 0 and increase (got {starts[1:]})")
    for mixture in mixtures:
        if not any(share > 0 for share in mixture.shares.values()):
            raise ValueError(
                f"shares: no domain has a positive weight from {mixture.from_tokens} tokens on; nothing would be trained on"
            )
        for domain, share in mixture.shares.items():
            if share < 0:
                raise ValueError(f"shares: {domain} has the negative weight {share}")
            if share > 0 and not data.get(domain):
                raise ValueError(f"data: domain {domain!r} has weight {share} but no token files; known: {sorted(data)}")
