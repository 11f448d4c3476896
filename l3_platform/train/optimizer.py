"""AdamW (Loshchilov and Hutter 2019) on named, possibly sharded parameters.

Not torch.optim's: that one imports torch's compiler on construction (a second a process), and keys its state by
position, while checkpoints want it by name. The arithmetic is torch's own fused kernel, a test holds both equal.
"""

# torch's fused and foreach kernels have no public names.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from l3_platform.parallel.parallelize import local


class AdamW:
    """Weight decay falls on matrices alone, not on norms or the embedding; it is scaled by the learning rate."""

    def __init__(self, model: nn.Module, *, betas: tuple[float, float], epsilon: float, weight_decay: float) -> None:
        self._parameters = dict(model.named_parameters())
        self._betas, self._epsilon = betas, epsilon
        self.averages = {name: torch.zeros_like(p.detach()) for name, p in self._parameters.items()}
        self.squares = {name: torch.zeros_like(p.detach()) for name, p in self._parameters.items()}
        self.steps_taken = 0
        decays = {name: p.dim() > 1 and not name.startswith("tok_embeddings") for name, p in self._parameters.items()}
        self._groups = [
            ([name for name, decayed in decays.items() if decayed], weight_decay),
            ([name for name, decayed in decays.items() if not decayed], 0.0),
        ]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One update from the parameters' gradients, which all must be there."""
        self.steps_taken += 1
        for names, weight_decay in self._groups:
            parameters = [self._parameters[name] for name in names]
            if not parameters:
                continue
            weights = [local(p.detach()) for p in parameters]
            count = torch.tensor(float(self.steps_taken), device=weights[0].device)
            torch._fused_adamw_(
                weights,
                [local(p.grad) for p in parameters if p.grad is not None],
                [local(self.averages[name]) for name in names],
                [local(self.squares[name]) for name in names],
                [],
                [count] * len(names),
                lr=learning_rate,
                beta1=self._betas[0],
                beta2=self._betas[1],
                weight_decay=weight_decay,
                eps=self._epsilon,
                amsgrad=False,
                maximize=False,
            )

    def state_dict(self) -> dict[str, Mapping[str, Tensor] | Tensor]:
        """The live tensors by parameter name: what is loaded into them in place is loaded into the optimizer."""
        return {"averages": self.averages, "squares": self.squares}


def clip_gradients(model: nn.Module, scale: float, max_norm: float, pipeline: Any = None) -> float:
    """Multiplies all gradients by `scale`, then cuts their norm over all ranks to `max_norm`; returns the norm before the cut."""
    norm = gradient_norm(model, scale, pipeline).item()
    scale_gradients(model, scale, norm, max_norm)
    return norm


@torch.no_grad()
def gradient_norm(model: nn.Module, scale: float, pipeline: Any = None) -> Tensor:
    """Of all gradients times `scale`, over all ranks; 0-dim. Ranks of the group `pipeline` hold different parameters.

    Ranks add up in groups of their own, and may come to different last bits: whoever trains on several takes that of one.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    squares = [norm.float() ** 2 for norm in torch._foreach_norm([local(g) for g in gradients])]
    groups = [_groups_that_share(g) for g in gradients]
    total = torch.stack([_sum(squares, groups, same) for same in dict.fromkeys(groups)]).sum()
    if pipeline is not None:
        torch.distributed.all_reduce(total, group=pipeline)
    return total.sqrt() * scale


@torch.no_grad()
def scale_gradients(model: nn.Module, scale: float, norm: float, max_norm: float) -> None:
    """Multiplies all gradients by `scale`, and by less where their `norm` is then above `max_norm`.

    `norm` must be the same to the last bit on all ranks: else replicas of a weight drift apart.
    """
    pieces = [local(p.grad) for p in model.parameters() if p.grad is not None]
    torch._foreach_mul_(pieces, scale * min(1.0, max_norm / (norm + 1e-6)))


def _groups_that_share(gradient: Tensor) -> tuple[Any, ...]:
    """Process groups whose ranks hold different parts of a gradient; those with replicas of it are left out."""
    if not hasattr(gradient, "full_tensor"):
        return ()
    sharded: Any = gradient
    return tuple(
        sharded.device_mesh.get_group(dim) for dim, placement in enumerate(sharded.placements) if not placement.is_replicate()
    )


def _sum(squares: list[Tensor], groups: list[tuple[Any, ...]], same: tuple[Any, ...]) -> Tensor:
    """The sum of those squares whose parts lie in the groups `same`, over these groups."""
    total = torch.stack([square for square, group in zip(squares, groups, strict=True) if group == same]).sum()
    for group in same:
        torch.distributed.all_reduce(total, group=group)
    return total
