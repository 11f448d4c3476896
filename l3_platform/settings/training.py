"""Scaling laws, the model, its three stages of training and their evaluation (Llama 3, sections 3.2 to 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from l3_platform.settings.section import Section

ActivationCheckpointing = Literal["none", "selective", "full"]
AttentionKernel = Literal["auto", "native", "sdpa", "flex", "varlen"]
Precision = Literal["fp32", "bf16", "fp8"]
Beta = Annotated[float, Field(ge=0, lt=1)]  # of AdamW


def _unset(value: object) -> bool:
    """Of a setting that is left out of a dump, and so of every identity, as long as nobody sets it."""
    return not value


class Scaling(Section):
    """IsoFLOP sweep. The paper: ten budgets 6e18 to 1e22 FLOPs, models of 40 M to 16 B (section 3.2.1)."""

    budgets: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(1.5e11, 3e11, 6e11), description="training FLOPs, C = 6·N·D"
    )
    layers: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(1, 2, 3, 4, 5), description="sizes tried at each budget, as layers; width = aspect·layers"
    )
    aspect: int = Field(default=8, ge=1, description="d_model a layer")
    seq_len: int = Field(default=128, ge=2)
    batch_tokens: int = Field(default=512, ge=2, description="a multiple of seq_len")
    learning_rate: float = Field(default=8e-3, gt=0)
    schedule: Literal["cosine", "wsd"] = Field(
        default="cosine", description="cosine: a run a point (Llama 3); wsd: one stable run a size, from which each budget branches"
    )
    decay_share: float = Field(default=0.2, gt=0, lt=1, description="wsd: of a point's tokens, those of its decay")
    workers: int = Field(default=2, ge=1, description="points trained at a time")
    min_tokens: int = Field(default=98_304, ge=0, description="points with fewer training tokens are left out")
    max_epochs: float = Field(default=1.0, gt=0, description="points that would repeat the data more often are left out")
    retry_failed: bool = Field(
        default=False, description="train points (of mixtures, too) again that failed before; the others stay"
    )

    @model_validator(mode="after")
    def _whole_sequences(self) -> Self:
        if self.batch_tokens % self.seq_len:
            raise ValueError(f"batch_tokens {self.batch_tokens} is no multiple of seq_len {self.seq_len}")
        return self


class Model(Section):
    """Shape when the plan does not choose it; `preset` is a key of `l3_platform.model.presets`."""

    preset: str = Field(default="", description="empty: the shape is what `training_plan` chooses")
    head_dim: int = Field(default=8, ge=2, multiple_of=2)
    kv_group: int = Field(default=2, ge=1, description="query heads a KV head")
    rope_theta: float = Field(default=500_000.0, gt=0)
    norm_eps: float = Field(default=1e-5, gt=0)


class Stage(Section):
    """One row of the batch ramp: from `from_tokens` on, batches of `batch_tokens` in sequences of `seq_len`."""

    from_tokens: int = Field(default=0, ge=0)
    batch_tokens: int = Field(default=2048, ge=1)
    seq_len: int = Field(default=128, ge=2)


def check_ramp(ramp: Sequence[Stage]) -> None:
    """Raises ValueError in words where its stages are out of order, or a batch is no whole number of sequences."""
    if not ramp:
        raise ValueError("the ramp has no stage; give one that begins at 0 tokens")
    starts = [stage.from_tokens for stage in ramp]
    if starts[0] != 0 or starts != sorted(set(starts)):
        raise ValueError(f"from_tokens must begin at 0 and increase (got {starts})")
    unit = max(stage.seq_len for stage in ramp)
    for stage in ramp:
        if unit % stage.seq_len:
            raise ValueError(f"seq_len {stage.seq_len} must divide the longest, {unit}, so that no token is split off")
        if stage.batch_tokens % unit:
            raise ValueError(
                f"batch_tokens {stage.batch_tokens} at {stage.from_tokens} tokens must be a multiple of the longest seq_len, {unit}"
            )


class Train(Section):
    model_config = ConfigDict(allow_inf_nan=False)

    budget_flops: float = Field(default=1.5e12, gt=0, description="compute of the final model (Llama 3 405B: 3.8e25)")
    nodes: int = Field(default=2, ge=1, description="torchrun agents")
    processes_per_node: int = Field(default=1, ge=1)
    data_parallel_shard: int = Field(default=0, ge=0, description="FSDP2 shard degree; 0: all data-parallel ranks")
    tensor_parallel: int = Field(default=1, ge=1, description="ranks that share every matrix, with sequence and loss parallelism")
    context_parallel: int = Field(default=1, ge=1, description="ranks that share every sequence, two chunks of it each")
    pipeline_parallel: int = Field(default=1, ge=1, description="ranks that share the layers")
    pipeline_schedule: Literal["1f1b", "interleaved", "zero_bubble"] = "1f1b"
    pipeline_stages_per_rank: int = Field(default=0, ge=0, description="0: one under 1f1b, two under the others")
    pipeline_micro_batches: int = Field(
        default=0, ge=0, description="of a data rank's batch; 0: of micro_batch_tokens each, or without them of one sequence"
    )
    ramp: tuple[Stage, ...] = (Stage(from_tokens=0, batch_tokens=1024), Stage(from_tokens=262_144, batch_tokens=2048))
    schedule: Literal["cosine", "wsd"] = Field(default="cosine", description="wsd: warm-up, stable, decay (Hu et al. 2024)")
    decay_share: float = Field(default=0.2, gt=0, le=1, description="wsd: of the tokens, those of the linear fall at the end")
    learning_rate: float = Field(default=6e-3, gt=0)
    min_learning_rate_ratio: float = Field(
        default=0.1, ge=0, le=1, description="of the peak, at the end of the schedule (Llama 3: 8e-7 / 8e-5)"
    )
    warmup_tokens: int = Field(default=32_768, ge=0)
    cosine_tokens: int = Field(
        default=0,
        ge=0,
        exclude_if=_unset,
        description="at which the cosine would reach its floor, at least the whole run's; 0: the whole run's",
    )
    weight_decay: float = Field(default=0.1, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    gradient_clip: float = Field(default=1.0, gt=0)
    seed: int = 7
    precision: Precision = Field(default="fp32", description="fp8: products of blocks in fp8 and all else as in bf16, on GPUs")
    compile: bool = False
    attention: AttentionKernel = Field(
        default="auto",
        description="kernel under a document mask; sdpa: a dense mask; native: blocks, on a CPU in fp32, else sdpa; "
        "flex: blocks, on GPUs; varlen: documents, on GPUs in bf16; auto: flex on a GPU in bf16 or fp8, else native",
    )
    activation_checkpointing: ActivationCheckpointing = Field(
        default="none", description="selective: norms, SwiGLU and what is gathered are computed again; full: whole blocks"
    )
    document_mask: bool = True
    checkpoint_every_tokens: int = Field(default=262_144, ge=0, description="0: only when stopped")
    keep_checkpoints: int = Field(default=3, ge=1)
    log_every_steps: int = Field(default=1, ge=1)
    launcher: Literal["local", "hosts", "slurm", "kubernetes"] = Field(
        default="local", description="torchrun agents here, or on machines as the section of that name says"
    )
    max_restarts: int = Field(default=3, ge=0, description="whole-job relaunches from the newest complete checkpoint")
    shutdown_seconds: float = Field(
        default=8.0, ge=0, description="torchrun's grace between TERM and KILL; a checkpoint must fit in it"
    )
    stall_seconds: float = Field(
        default=1800.0,
        ge=0,
        description="without a logged step, ten times as long before the first and after the last, that count as lost; 0: never",
    )
    threads: int = Field(default=1, ge=1, description="CPU threads a rank")
    micro_batch_tokens: int = Field(default=0, ge=0, description="tokens a rank and forward pass; 0: its whole batch at once")
    peak_flops: float = Field(
        default=0.0, ge=0, description="of one device, FLOPs a second, for MFU in the metrics; 0: not reported"
    )
    spike_zscore: float = Field(
        default=8.0, ge=0, description="robust z-score of loss or gradient norm from which a step is skipped; 0: only if not finite"
    )
    spike_window: int = Field(default=64, ge=2, description="steps that a step is compared with")
    max_skipped_steps: int = Field(
        default=5,
        ge=0,
        description="skipped in a row before the run goes back to a checkpoint; 0: off, what is not finite ends the run",
    )
    max_rollbacks: int = Field(default=2, ge=0, description="returns to a checkpoint in a run; beyond, it fails")
    hang_seconds: float = Field(
        default=300.0,
        ge=0,
        description="without a finished step, after which ranks dump their stacks and all are relaunched; 0: never",
    )

    @field_validator("ramp")
    @classmethod
    def _trainable(cls, ramp: tuple[Stage, ...]) -> tuple[Stage, ...]:
        check_ramp(ramp)
        return ramp


class LongStage(Section):
    """One stage of growing length: so many tokens in sequences of `seq_len`, on a mesh of its own where it names one."""

    seq_len: int = Field(ge=2)
    tokens: int = Field(ge=1)
    batch_tokens: int = Field(ge=2, description="a multiple of seq_len")
    tensor_parallel: int = Field(default=0, ge=0, exclude_if=_unset, description="0: as train's, like the next two")
    context_parallel: int = Field(default=0, ge=0, exclude_if=_unset)
    pipeline_parallel: int = Field(default=0, ge=0, exclude_if=_unset)

    @property
    def degrees(self) -> dict[str, int]:
        """Those that it names, as fields of a TrainJob."""
        names = ("tensor_parallel", "context_parallel", "pipeline_parallel")
        return {name: degree for name in names if (degree := getattr(self, name))}


class RopeStretch(Section):
    """`l3_platform.model.RopeScaling`, whose values those of Llama 3.1 are."""

    factor: float = Field(default=8.0, ge=1)
    low_freq_factor: float = Field(default=1.0, gt=0)
    high_freq_factor: float = Field(default=4.0, gt=0)
    original_seq_len: int = Field(default=8192, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(f"low_freq_factor {self.low_freq_factor} must be below high_freq_factor {self.high_freq_factor}")
        return self


class LongContext(Section):
    """Continued pre-training on longer and longer sequences (Llama 3, section 3.4.2): a stage is over once the loss on short
    sequences has recovered and the needle is found at every length so far."""

    stages: tuple[LongStage, ...] = (
        LongStage(seq_len=256, tokens=24_576, batch_tokens=2048),
        LongStage(seq_len=512, tokens=24_576, batch_tokens=2048),
    )
    rope_scaling: RopeStretch | None = Field(
        default=None, exclude_if=_unset, description="of RoPE from the first stage on, annealing included; none: as in pre-training"
    )
    short_loss_tolerance: float = Field(
        default=0.03, ge=0, description="of the held-out loss in sequences as before, over the pre-trained model's, nats a token"
    )
    needle_accuracy: float | None = Field(
        default=None, ge=0, le=1, description="wanted at every length and depth (Llama 3: 1.0); none: measured, not judged"
    )
    needle_depths: int = Field(default=5, ge=1, description="places of the needle, from 0 to 100 % of the text")
    needle_trials: int = Field(default=4, ge=1, description="needles a length and depth")
    needle_choices: int = Field(default=4, ge=2, description="values to choose from: chance is one in so many")
    extra_slices: int = Field(default=2, ge=0, description="more training, at most, where a stage has not passed")
    extra_share: float = Field(default=0.25, gt=0, description="of the stage's tokens, in each")
    required: bool = Field(default=False, description="stop what comes after where the last length is not reached")

    @model_validator(mode="after")
    def _grows(self) -> Self:
        lengths = [stage.seq_len for stage in self.stages]
        if lengths != sorted(set(lengths)):
            raise ValueError(f"the lengths of the stages must grow, they are {lengths}")
        for stage in self.stages:
            if stage.batch_tokens % stage.seq_len:
                raise ValueError(f"batch_tokens {stage.batch_tokens} is no multiple of seq_len {stage.seq_len}")
            if stage.tokens < stage.seq_len:
                raise ValueError(f"{stage.tokens} tokens are less than one sequence of {stage.seq_len}")
        return self


class Anneal(Section):
    """Learning rate linearly to zero on the annealing mix; the mean of its checkpoints is the result (section 3.4.3)."""

    tokens: int = Field(default=98_304, ge=1)
    checkpoints: int = Field(default=3, ge=1, description="averaged")


class Evaluate(Section):
    batch_sequences: int = Field(default=16, ge=1)
    max_tokens_per_domain: int = Field(default=100_000, ge=1)
