"""The shape of the process mesh in one dataclass. Free of torch: launchers check it before they start anything."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mesh:
    """Data parallelism as (replicas, shards a replica): FSDP2 at dp_replicate 1, hybrid sharding above."""

    dp_replicate: int = 1
    dp_shard: int = 1

    def __post_init__(self) -> None:
        for name in ("dp_replicate", "dp_shard"):
            if getattr(self, name) < 1:
                raise ValueError(f"mesh: {name} must be at least 1 (got {getattr(self, name)})")

    @property
    def ranks(self) -> int:
        return self.dp_replicate * self.dp_shard


def mesh_for(ranks: int, dp_shard: int = 0) -> Mesh:
    """The mesh of so many ranks with the wanted shard degree, 0 for all of them. Raises ValueError in words."""
    if ranks < 1:
        raise ValueError(f"mesh: {ranks} ranks cannot train; start at least one process")
    shard = dp_shard or ranks
    if shard < 1 or ranks % shard:
        near = [d for d in range(1, ranks + 1) if ranks % d == 0]
        raise ValueError(
            f"mesh: {ranks} ranks cannot be cut into shards of {shard}; "
            f"set train.data_parallel_shard to one of {', '.join(map(str, near))}, or change the number of processes"
        )
    return Mesh(dp_replicate=ranks // shard, dp_shard=shard)
