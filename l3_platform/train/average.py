"""The mean of a run's newest regular checkpoints (Polyak averaging; Llama 3, section 3.4.3)."""

from __future__ import annotations

import torch
from torch import nn

from l3_platform.parallel.parallelize import local
from l3_platform.train.branch import regular
from l3_platform.train.checkpoint import Checkpoints


@torch.no_grad()
def average_newest(checkpoints: Checkpoints, model: nn.Module, count: int) -> int:
    """Sets the model to the fp32 mean of the weights of the newest `count` checkpoints; returns how many there were.

    One that a stop wrote is none of them, so that an interrupted run ends as an undisturbed one; a damaged one is left out.
    Each rank reads and sums only what it holds of the model. Leaves the model as it is where there is none.
    """
    folders = checkpoints.whole(checkpoints.ranks.from_first(regular(checkpoints.folder)[:count]))
    parameters = dict(model.named_parameters())
    loaded = {name: torch.empty_like(p.detach()) for name, p in parameters.items()}
    total = {name: torch.zeros_like(local(p.detach()), dtype=torch.float32) for name, p in parameters.items()}
    for folder in reversed(folders):
        checkpoints.load({"model": loaded}, folder)
        for name, tensor in loaded.items():
            total[name] += local(tensor).float() / len(folders)
    if folders:
        for name, parameter in parameters.items():
            local(parameter.detach()).copy_(total[name])
    return len(folders)
