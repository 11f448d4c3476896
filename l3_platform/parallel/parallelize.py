"""Applies parallelism to a model that knows nothing of it: activation checkpointing, compile, and around both FSDP2."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from l3_platform.model.llama import Llama
from l3_platform.parallel.checkpointing import checkpoint_block
from l3_platform.parallel.mesh import Mesh
from l3_platform.settings import ActivationCheckpointing

# A collective costs about a millisecond on gloo whatever its size: smaller blocks share one FSDP unit.
UNIT_PARAMETERS = 4_000_000


def parallelize(
    model: Llama,
    mesh: Mesh,
    *,
    device: torch.device,
    precision: Literal["fp32", "bf16"] = "fp32",
    activation_checkpointing: ActivationCheckpointing = "none",
    compile_blocks: bool = False,
    unit_parameters: int = UNIT_PARAMETERS,
) -> Llama:
    """Changes the model in place; it may be on the meta device, and is filled afterwards.

    Gradients of a sharded model are summed over ranks, not averaged: the loop divides by the tokens of the whole
    batch. bf16 computes in bf16 and reduces gradients in fp32 (Llama 3, section 3.3.2). A mesh of one rank in fp32
    is left unsharded and needs no process group; any other raises RuntimeError without one.
    """
    prepare_blocks(model.layers, activation_checkpointing, compile_blocks)
    if mesh.ranks > 1 or precision == "bf16":
        from l3_platform.parallel.device_mesh import groups_for

        shard(model, model.layers, groups_for(mesh, device).data, precision, unit_parameters)
    return model


def local_rows(parameter: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """The part of a parameter that this rank holds and where it begins: `Rows` of `l3_platform.model.init`."""
    if not hasattr(parameter, "full_tensor"):  # not isinstance: importing DTensor costs a single process a second
        return parameter, (0,) * parameter.dim()
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    sharded = cast(Any, parameter)
    _, offset = compute_local_shape_and_global_offset(sharded.shape, sharded.device_mesh, sharded.placements)
    return sharded.to_local(), tuple(offset)


def full(parameter: Tensor) -> Tensor:
    """The whole parameter on every rank; collective where it is sharded."""
    return cast(Any, parameter).full_tensor() if hasattr(parameter, "full_tensor") else parameter


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, sharing its storage."""
    return cast(Any, tensor).to_local() if hasattr(tensor, "to_local") else tensor


def reshard(model: nn.Module) -> None:
    """Makes parameters DTensors again after a forward pass that no backward pass followed."""
    for module in _sharded_modules(model):
        module.reshard()


def reduce_gradients(model: nn.Module, wanted: bool) -> None:
    """Whether the next backward pass reduces gradients over ranks: only the last micro-batch of a step does."""
    for module in _sharded_modules(model):
        module.set_requires_gradient_sync(wanted, recurse=False)


def prepare_blocks(blocks: Iterable[nn.Module], activation_checkpointing: ActivationCheckpointing, compile_blocks: bool) -> None:
    """What comes before sharding by data parallelism, in place.

    `selective` is compiled with the block, for its choice is among single operations. `full` runs the compiled block twice:
    compiled with it, torch 2.13 would save the device mesh of tensor parallelism as if it were a tensor, and fail.
    """
    for block in blocks:
        if activation_checkpointing == "selective":
            checkpoint_block(block, "selective")
        if compile_blocks:
            block.forward = torch.compile(block.forward)  # the method: hooks of FSDP2 stay outside
        if activation_checkpointing == "full":
            checkpoint_block(block, "full")


def shard(
    module: nn.Module, blocks: Iterable[nn.Module], data: Any, precision: Literal["fp32", "bf16"], unit_parameters: int
) -> None:
    """FSDP2, or HSDP where the device mesh `data` has two dimensions, over a model or one stage of it, in place."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # Inputs are not cast: the rotary table must stay fp32, and hidden states take the precision of the embedding.
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    if precision == "bf16":
        policy = replace(policy, param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    # Not resharded after forward: Llama 3 shards optimizer states and gradients only (section 3.3.2).
    for unit in _units(blocks, unit_parameters):
        fully_shard(unit, mesh=data, mp_policy=policy, reshard_after_forward=False)
    fully_shard(module, mesh=data, mp_policy=policy, reshard_after_forward=False)
    for part in _sharded_modules(module):
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)  # gloo has no pre-multiplied sum


def _sharded_modules(model: nn.Module) -> Iterator[Any]:
    # By attribute, not by class: importing FSDP2 costs a single process half a second and brings it nothing.
    return (module for module in model.modules() if hasattr(module, "set_gradient_divide_factor"))


def _units(blocks: Iterable[nn.Module], unit_parameters: int) -> Iterator[list[nn.Module]]:
    """Consecutive blocks in units of at least `unit_parameters`; what is left over belongs to the root unit."""
    unit: list[nn.Module] = []
    size = 0
    for block in blocks:
        unit.append(block)
        size += sum(p.numel() for p in block.parameters())
        if size >= unit_parameters:
            yield unit
            unit, size = [], 0
