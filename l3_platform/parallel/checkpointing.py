"""Activation checkpointing: what a block computes again in the backward pass, so as not to keep it (Chen et al. 2016).

`full` keeps a block's input alone. `selective` keeps what is dear, the results of matrix products and of attention, and computes
norms, rotations and SwiGLU again, which cost little (Korthikanti et al. 2022); what tensor and context parallelism gather
is gathered again.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

# By name: those of flex and varlen exist only once their modules are imported.
_DEAR = {
    "aten::_scaled_mm",
    "mkldnn::_linear_pointwise",
    "l3::times",
    "l3::attend",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "flex_attention",
    "torch_attn::_varlen_attn",
    "_c10d_functional::reduce_scatter_tensor",
}


def checkpoint_block(block: nn.Module, how: Literal["selective", "full"]) -> None:
    """In place."""
    forward = block.forward
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if how == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)

    def checkpointed(*inputs: Any) -> Any:  # a function: dynamo leaves a `partial` of a checkpoint uncompiled, without a word
        return checkpoint(forward, *inputs, **options)

    # The method is replaced, not the module: a wrapper module would rename every parameter of the block.
    block.forward = checkpointed


def _policy(context: Any, operator: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    dear = operator.name() in _DEAR or (operator is torch.ops.aten.mm.default and not _is_cut(arguments[0]))
    return CheckpointPolicy.MUST_SAVE if dear else CheckpointPolicy.PREFER_RECOMPUTE


def _is_cut(rows: Any) -> bool:
    """Whether each tensor-parallel rank holds some columns only: the product is then a part of a sum over ranks, of which the
    sum is kept and the part computed again."""
    return any(place.is_shard(1) for place in getattr(rows, "placements", ()))
