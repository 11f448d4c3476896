"""A way of laying a step over GPUs: mesh, pipeline schedule, micro-batches and what is kept for the backward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from l3_platform.model.config import ModelConfig
from l3_platform.parallel.schedule import split_layers

# What a block keeps for its backward pass. `eager`: every operation its inputs. `compiled`: what torch.compile's
# partitioner chooses. `selective` and `full`: what train.activation_checkpointing of that name leaves.
Saving = Literal["eager", "compiled", "selective", "full"]


class PlanError(ValueError):
    """No layout does what was asked; the message is meant for a person."""


@dataclass(frozen=True)
class Step:
    """The work of one optimizer step, tokens. Raises PlanError where it is no whole number of sequences."""

    seq_len: int
    batch_tokens: int

    def __post_init__(self) -> None:
        if self.seq_len < 1 or self.batch_tokens < self.seq_len or self.batch_tokens % self.seq_len:
            raise PlanError(f"a batch of {self.batch_tokens:,} tokens is no whole number of sequences of {self.seq_len:,} tokens")

    @property
    def sequences(self) -> int:
        return self.batch_tokens // self.seq_len


@dataclass(frozen=True)
class Layout:
    """Degrees from the innermost: tensor, context, pipeline, data parallel (Llama 3, section 3.3.2).

    `stages` are the virtual stages V of a pipeline rank, `rows` the sequences of a micro-batch. FSDP shards gradients and
    optimizer over dp · cp ranks, and keeps the weights gathered.
    """

    tp: int = 1
    cp: int = 1
    pp: int = 1
    dp: int = 1
    stages: int = 1
    rows: int = 1
    saving: Saving = "selective"

    @property
    def gpus(self) -> int:
        return self.tp * self.cp * self.pp * self.dp

    @property
    def shards(self) -> int:
        return self.dp * self.cp

    def micro_batches(self, step: Step) -> int:
        """M, in one data-parallel rank's step. Raises PlanError where the batch cannot be cut so."""
        if step.sequences % (self.dp * self.rows):
            raise PlanError(f"{step.sequences} sequences cannot be cut into {self.dp} ranks' micro-batches of {self.rows}")
        return step.sequences // (self.dp * self.rows)

    def tokens(self, step: Step) -> int:
        """Of a micro-batch, on one context-parallel rank."""
        return self.rows * step.seq_len // self.cp


def stage_layers(config: ModelConfig, layout: Layout) -> list[int]:
    """Layers of each virtual stage in order, as the trainer splits them."""
    return [len(blocks) for blocks in split_layers(config.layers, layout.pp * layout.stages)]
