"""Multiple-choice questions that a run answers at its end: the nats of each choice after its context.

They are answered where the model is, sharded or not, by the same call that gives the held-out loss.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from l3_platform.parallel.mesh import Mesh

if TYPE_CHECKING:
    from torch import Tensor

    from l3_platform.model.llama import Llama
    from l3_platform.parallel.parallel_model import ParallelModel
    from l3_platform.train.ranks import Ranks


@dataclass(frozen=True)
class Probe:
    """`context`: token ids [at most length]; `choices`: token ids of each; context and choice take at most `length` + 1."""

    length: int
    context: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        longest = max(map(len, self.choices))
        if len(self.context) + longest > self.length + 1 or not all(self.choices):
            raise ValueError(
                f"probe: {len(self.context)} tokens and choices of {longest} do not fit in a sequence of {self.length}, "
                "or a choice is empty"
            )


def write_probes(path: str | Path, probes: Sequence[Probe]) -> None:
    """One .npz, replaced in one rename; equal probes give equal bytes."""
    parts = [ids for probe in probes for ids in (probe.context, *probe.choices)]
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial.npz")
    np.savez(
        partial,
        lengths=np.array([probe.length for probe in probes], np.int64),
        choices=np.array([len(probe.choices) for probe in probes], np.int64),
        sizes=np.array([len(part) for part in parts], np.int64),
        tokens=np.array([token for part in parts for token in part], np.uint32),
    )
    partial.replace(target)


def read_probes(path: str | Path) -> list[Probe]:
    with np.load(path) as file:
        parts = iter(np.split(file["tokens"], np.cumsum(file["sizes"])[:-1]))
        return [
            Probe(int(length), tuple(next(parts).tolist()), tuple(tuple(next(parts).tolist()) for _ in range(count)))
            for length, count in zip(file["lengths"], file["choices"], strict=True)
        ]


def probes_digest(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:20]


def choice_nats(
    model: Llama | ParallelModel, probes: Sequence[Probe], bos_id: int | None, ranks: Ranks, mesh: Mesh | None = None
) -> list[tuple[float, ...]]:
    """For each probe the summed negative log-likelihood of each choice, nats. Collective where the model is sharded: the data
    ranks of `mesh`, without one all `ranks`, take turns and run the model equally often."""
    import torch

    from l3_platform.model.llama import Llama
    from l3_platform.parallel.parallelize import reshard

    mesh = mesh or Mesh(dp_shard=ranks.size)
    turns = [(probe, choice) for probe in probes for choice in probe.choices]
    nats = torch.zeros(len(turns), dtype=torch.float64, device=ranks.device)
    with torch.no_grad():
        for first in range(0, len(turns), mesh.data_ranks):
            mine = first + mesh.data_rank(ranks.rank)
            inputs, targets = _row(*turns[min(mine, len(turns) - 1)])
            scored = model(inputs.to(ranks.device), targets.to(ranks.device), bos_id)
            if mine < len(turns):
                nats[mine] = scored
    if isinstance(model, Llama):
        reshard(model)
    else:
        model.reshard()
    flat = iter(ranks.sum(nats).tolist())
    return [tuple(next(flat) for _ in probe.choices) for probe in probes]


def _row(probe: Probe, choice: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Inputs and targets [1, length] that predict the choice alone; what follows it is padding that nothing looks at."""
    import torch

    ids = np.array([*probe.context, *choice], np.int64)
    inputs, targets = np.zeros((1, probe.length), np.int64), np.full((1, probe.length), -100, np.int64)
    inputs[0, : len(ids) - 1] = ids[:-1]
    targets[0, len(probe.context) - 1 : len(ids) - 1] = choice
    return torch.from_numpy(inputs), torch.from_numpy(targets)
