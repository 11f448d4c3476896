"""Bytes that one GPU needs, on the pipeline rank that needs most."""

from __future__ import annotations

from dataclasses import dataclass

from l3_platform.model.config import ModelConfig
from l3_platform.planner.layout import Layout, Saving, Step, stage_layers
from l3_platform.settings import Precision

LOGITS_A_CHUNK = 1 << 26  # of the loss, as in l3_platform.model.llama


@dataclass(frozen=True)
class Memory:
    """Bytes. `weights` are gathered ones in the precision of compute, `optimizer` is AdamW's two moments and the fp32
    master weights, `activations` what blocks and the last norm keep; `loss` and `block` are what comes and goes in the
    backward pass of the one and the other, never both at once."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    loss: float
    block: float
    accumulates: bool  # gradients of more than one micro-batch

    @property
    def peak(self) -> float:
        """With one micro-batch, gradients appear while activations go; with more they are there at once."""
        backward = self.activations + max(self.loss, self.block)
        gradients = self.gradients + backward if self.accumulates else max(self.gradients, backward)
        return self.weights + self.optimizer + gradients


def memory(config: ModelConfig, layout: Layout, step: Step, precision: Precision = "bf16") -> Memory:
    """Of the rank with the highest peak. What tensor and context parallelism gather, inputs of the matrix products and
    keys and values, `eager` and `compiled` keep whole; the others gather it again (Korthikanti et al. 2022)."""
    return max((_rank(config, layout, step, precision, rank) for rank in range(layout.pp)), key=lambda found: found.peak)


def layer_bytes(config: ModelConfig, saving: Saving, precision: Precision) -> float:
    """Kept by one block for its backward pass, bytes a token, on one GPU without parallelism."""
    c, kv = config, config.kv_heads * config.head_dim
    size = 4 if precision == "fp32" else 2
    statistics = 4 * (c.heads + 2)  # log-sum-exp of attention and the two norms' deviations, fp32
    # Queries, attention's output and its copy for wo, keys and values: every way but `full` keeps these.
    attention = size * (3 * c.d_model + 2 * kv)
    match saving:
        case "eager":  # a norm keeps its input and its normalized value in fp32, and its output
            return 2 * (8 + size) * c.d_model + attention + size * 4 * c.ffn + statistics
        case "compiled":
            return size * 4 * c.d_model + attention + size * 3 * c.ffn + statistics
        case "selective":
            return size * 2 * c.d_model + attention + size * 2 * c.ffn + statistics
        case "full":
            return size * c.d_model


def _rank(config: ModelConfig, layout: Layout, step: Step, precision: Precision, rank: int) -> Memory:
    c, size = config, 4 if precision == "fp32" else 2
    micro_batches = layout.micro_batches(step)
    tokens = layout.tokens(step) / layout.tp
    layers = stage_layers(c, layout)[rank :: layout.pp]
    first, last = rank == 0, rank == layout.pp - 1

    block = _block_parameters(c)
    table = c.vocab_size * c.d_model
    tables = table if (first or last) and not (first and last) else (1 if c.tied else 2) * table if first else 0
    held = (sum(layers) * block + tables + last * c.d_model) / layout.tp

    each = layer_bytes(c, layout.saving, precision)
    if layout.saving in ("eager", "compiled"):
        each += size * ((layout.tp - 1) * 2 * c.d_model + (layout.cp - 1) * 2 * c.kv_heads * c.head_dim)
    kept = sum(count * layers[stage] for stage, count in enumerate(_in_flight(layout, micro_batches, rank)))
    activations = kept * each * tokens
    loss = 0.0
    if last:
        activations += (8 + size) * c.d_model * tokens  # the last norm, its normalized value and its output
        loss = 12 * min(layout.tokens(step) * c.vocab_size, LOGITS_A_CHUNK) / layout.tp  # log-probabilities, two gradients
    inside = (6 * c.d_model + 4 * c.ffn) * size * tokens  # gradients inside a block
    if layout.saving in ("selective", "full"):  # what a block computes again is there while its gradients are
        inside += (layer_bytes(c, "eager", precision) - layer_bytes(c, layout.saving, precision)) * tokens

    sharded = precision != "fp32" or layout.shards > 1
    accumulates = micro_batches > 1
    # fp32. Micro-batches add up in whole gradients, which are reduced to this rank's shard block by block at the end.
    gradients = 4 * held if accumulates or not sharded else 4 * (held / layout.shards + block / layout.tp)
    return Memory(
        weights=size * held if sharded else 0.0,
        gradients=gradients,
        optimizer=12 * held / layout.shards,
        activations=activations,
        loss=loss,
        block=inside + 4 * c.d_model * c.ffn / layout.tp,
        accumulates=accumulates,
    )


def _block_parameters(config: ModelConfig) -> int:
    c = config
    return 2 * c.d_model**2 + 2 * c.d_model * c.kv_heads * c.head_dim + 3 * c.d_model * c.ffn + 2 * c.d_model


def _in_flight(layout: Layout, micro_batches: int, rank: int) -> list[int]:
    """Micro-batches that each of a rank's virtual stages holds at the end of the warm-up (Narayanan et al. 2021)."""
    pp, stages = layout.pp, layout.stages
    warm_up = pp - rank - 1 if stages == 1 else 2 * (pp - rank - 1) + (stages - 1) * pp
    forward = min(micro_batches * stages, warm_up + 1)
    rounds, rest = divmod(forward, pp * stages)
    return [rounds * pp + min(pp, max(0, rest - stage * pp)) for stage in range(stages)]
