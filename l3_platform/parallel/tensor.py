"""Tensor parallelism with sequence and loss parallelism (Shoeybi et al. 2019; Korthikanti et al. 2022).

Heads, FFN columns and vocabulary entries are cut over ranks; between them, hidden states are cut along the sequence, so
that norms and residuals are not computed twice. The logits stay cut: the loss is computed on each rank's part of the
vocabulary.
"""

from __future__ import annotations

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    PrepareModuleOutput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from l3_platform.parallel.stage import Stage


def shard_tensors(stage: Stage, mesh: DeviceMesh) -> None:
    """Cuts the parameters of a stage, in place; its hidden states are [batch, seq / tp, d_model] from then on.

    Run its forward and backward pass under `torch.distributed.tensor.parallel.loss_parallel`.
    """
    sequence, whole = Shard(1), Replicate()
    ends = {
        "tok_embeddings": RowwiseParallel(input_layouts=whole, output_layouts=sequence),
        "norm": SequenceParallel(),
        "output": ColwiseParallel(input_layouts=whole, output_layouts=Shard(-1), use_local_output=False),
    }
    parallelize_module(stage, mesh, {name: plan for name, plan in ends.items() if getattr(stage, name) is not None})
    if stage.tok_embeddings is not None:
        # A result of a collective that is still under way loses its gradient where it enters a compiled block.
        stage.tok_embeddings.register_forward_hook(lambda module, inputs, embedded: embedded.clone())
    if stage.norm is not None:  # after it has normed its part of the sequence: the output head wants all of it
        parallelize_module(stage.norm, mesh, PrepareModuleOutput(
            output_layouts=sequence, desired_output_layouts=whole, use_local_output=False,
        ))  # fmt: skip
    for block in stage.layers.values():
        parallelize_module(block, mesh, {
            "attention_norm": SequenceParallel(),
            "attention": PrepareModuleInput(input_layouts=(sequence, None, None), desired_input_layouts=(whole, None, None)),
            "attention.wq": ColwiseParallel(),
            "attention.wk": ColwiseParallel(),
            "attention.wv": ColwiseParallel(),
            "attention.wo": RowwiseParallel(output_layouts=sequence),
            "ffn_norm": SequenceParallel(),
            "feed_forward": PrepareModuleInput(input_layouts=(sequence,), desired_input_layouts=(whole,)),
            "feed_forward.w1": ColwiseParallel(),
            "feed_forward.w3": ColwiseParallel(),
            "feed_forward.w2": RowwiseParallel(output_layouts=sequence),
        })  # fmt: skip
