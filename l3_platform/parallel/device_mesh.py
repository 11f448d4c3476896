"""torch's process groups for a `Mesh`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from l3_platform.parallel.mesh import Mesh


@dataclass(frozen=True)
class Groups:
    """Where this rank communicates. What a degree of 1 leaves empty is None."""

    data: DeviceMesh  # FSDP2's: ([replicas,] shards)
    tensor: DeviceMesh | None
    context: Any  # process groups, which have no public type
    pipeline: Any


def groups_for(mesh: Mesh, device: torch.device) -> Groups:
    """Collective over all ranks. Every group is made by all of them in one order."""
    if mesh.model_ranks == 1:
        return Groups(_data_only(mesh, device), None, None, None)
    # [pp, dp_replicate, shard, tp] of ranks. Parameters are sharded over data and context ranks alike: they all hold the
    # same parameters and see different tokens.
    ranks = torch.arange(mesh.ranks).view(mesh.dp_replicate, mesh.dp_shard, mesh.pp, mesh.cp, mesh.tp)
    shape = (mesh.pp, mesh.dp_replicate, mesh.dp_shard * mesh.cp, mesh.tp)
    whole = DeviceMesh(device.type, ranks.permute(2, 0, 1, 3, 4).reshape(shape), mesh_dim_names=("pp", "replicate", "shard", "tp"))
    return Groups(
        data=whole["replicate", "shard"] if mesh.dp_replicate > 1 else whole["shard"],
        tensor=whole["tp"] if mesh.tp > 1 else None,
        context=_subgroup(ranks.movedim(3, -1).reshape(-1, mesh.cp)) if mesh.cp > 1 else None,
        pipeline=whole["pp"].get_group() if mesh.pp > 1 else None,
    )


def _data_only(mesh: Mesh, device: torch.device) -> DeviceMesh:
    if mesh.dp_replicate > 1:
        return init_device_mesh(device.type, (mesh.dp_replicate, mesh.dp_shard), mesh_dim_names=("dp_replicate", "dp_shard"))
    return init_device_mesh(device.type, (mesh.dp_shard,), mesh_dim_names=("dp_shard",))


def _subgroup(rows: torch.Tensor) -> Any:
    group, _ = dist.new_subgroups_by_enumeration(rows.tolist())
    return group
