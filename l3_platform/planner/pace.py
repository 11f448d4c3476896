"""Seconds of a step and the share of them that each cause takes; MFU.

MFU counts the FLOPs that training's own counts (`model/flops.py`). Collectives of tensor and context parallelism are waited
for; pipeline sends and FSDP's collectives run beside computation and only what does not fit beside it is waited for (Llama
3, section 3.3.2).
"""

from __future__ import annotations

from dataclasses import dataclass

from l3_platform.model.config import ModelConfig
from l3_platform.model.flops import flops_a_token
from l3_platform.planner.cluster import H100, Cluster, Shares
from l3_platform.planner.layout import Layout, Step, stage_layers

# FlashAttention's backward pass computes the scores again: 7 units of work where 6 are counted.
ATTENTION_WORK = 7 / 6


@dataclass(frozen=True)
class Pace:
    """Seconds of one step by cause, along the slowest pipeline rank."""

    matrices: float
    attention: float
    elementwise: float  # and whatever else waits for memory
    tensor: float
    context: float
    pipeline: float
    bubble: float
    data: float
    optimizer: float
    model_flops: float  # of the whole step
    peak_flops: float  # of all GPUs, a second

    @property
    def seconds(self) -> float:
        kernels = self.matrices + self.attention + self.elementwise + self.optimizer
        return kernels + self.tensor + self.context + self.pipeline + self.bubble + self.data

    @property
    def mfu(self) -> float:
        return self.model_flops / self.peak_flops / self.seconds


def pace(config: ModelConfig, layout: Layout, step: Step, shares: Shares, cluster: Cluster = H100) -> Pace:
    """In bf16. Raises PlanError where the batch cannot be cut as the layout says."""
    c, micro_batches = config, layout.micro_batches(step)
    tokens = layout.tokens(step)
    repeated = 4 / 3 if layout.saving == "full" else 1.0
    rate = cluster.peak_flops
    size = 2 * tokens * c.d_model  # hidden states of a micro-batch, bf16

    matrices = 6 * _block_matrices(c) * tokens / layout.tp / (shares.matrices * rate) * repeated
    attention = 6 * ATTENTION_WORK * c.d_model * step.seq_len * tokens / layout.tp / (shares.attention * rate) * repeated
    # Norms, rotations, SwiGLU and residuals read and write so many numbers, forward and backward.
    moved = 36 * c.d_model + 9 * c.ffn + (4 * c.d_model + 3 * c.ffn if layout.saving == "selective" else 0)
    # A micro-batch reads the weights twice in bf16 and adds bf16 gradients to fp32 ones, whatever its size.
    weights = 16 * _block_matrices(c) / layout.tp
    elementwise = (2 * moved * tokens / layout.tp * repeated + weights) / cluster.memory_rate
    # Two gathers and two scatters forward, as many backward; gathering inputs again runs beside their matrix products.
    tensor = (8 + 4 * (repeated > 1)) * cluster.gather_seconds(size, layout.tp, 1, layout.gpus)
    keys = 2 * 2 * layout.rows * step.seq_len * c.kv_heads * c.head_dim / layout.tp  # and values, of all ranks, bf16
    again = layout.saving in ("selective", "full")
    context = (2 + again) * cluster.gather_seconds(keys, layout.cp, layout.tp, layout.gpus)
    block = matrices + attention + elementwise + tensor + context

    sizes = stage_layers(c, layout)
    ranks = [sum(sizes[rank :: layout.pp]) for rank in range(layout.pp)]
    head = 6 * c.vocab_size * c.d_model * tokens / layout.tp / (shares.matrices * rate)
    if tokens * c.vocab_size > 1 << 26:
        head *= 4 / 3  # the loss in chunks computes its logits again
    seconds = [count * block + head * (rank == layout.pp - 1) for rank, count in enumerate(ranks)]
    slowest = max(range(layout.pp), key=seconds.__getitem__)
    layers, has_head = ranks[slowest], slowest == layout.pp - 1
    busy = seconds[slowest]  # of one micro-batch

    # A rank sends forward and back once a virtual stage; beside computation, so only the excess is waited for.
    send = 2 * layout.stages * cluster.send_seconds(size / layout.tp, layout.tp * layout.cp) if layout.pp > 1 else 0.0
    exposed_send = max(0.0, send - busy)
    bubble = (layout.pp - 1) / layout.stages * (busy + exposed_send)  # (PP-1)/(V·M) of M micro-batches

    held = (max(ranks) * _block_matrices(c) + c.vocab_size * c.d_model * (1 if layout.pp > 1 else 2)) / layout.tp
    window = busy * min(micro_batches, layout.pp)
    stride = layout.tp * (layout.pp if layout.cp == 1 else 1)
    gather = cluster.gather_seconds(2 * held, layout.shards, stride, layout.gpus)
    reduce = cluster.gather_seconds(4 * held, layout.shards, stride, layout.gpus)
    data = _exposed(gather, max(ranks), window / 3) + _exposed(reduce, max(ranks), window * 2 / 3)

    return Pace(
        matrices=micro_batches * (layers * matrices + head * has_head),
        attention=micro_batches * layers * attention,
        elementwise=micro_batches * layers * elementwise,
        tensor=micro_batches * layers * tensor,
        context=micro_batches * layers * context,
        pipeline=micro_batches * exposed_send,
        bubble=bubble,
        data=data,
        optimizer=30 * held / layout.shards / cluster.memory_rate,  # AdamW reads and writes 30 bytes a parameter
        model_flops=step.batch_tokens * flops_a_token(c, step.seq_len),
        peak_flops=layout.gpus * rate,
    )


def _exposed(seconds: float, units: int, window: float) -> float:
    """The first of `units` has nothing to run beside; the others what fits into the window."""
    return seconds / units + max(0.0, seconds * (1 - 1 / units) - window)


def _block_matrices(config: ModelConfig) -> int:
    c = config
    return 2 * c.d_model**2 + 2 * c.d_model * c.kv_heads * c.head_dim + 3 * c.d_model * c.ffn
