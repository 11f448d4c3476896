"""First weights as a pure function of (seed, parameter name, row): the same for every mesh, each rank making its rows.

Normal with deviation 0.02, the two matrices that write into the residual stream scaled by 1/sqrt(2 layers)
(Radford et al. 2019), norms one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from l3_platform.model.config import ModelConfig

# The part of a parameter that is here, and where it begins in the whole parameter: an index a dimension.
Rows = Callable[[Tensor], tuple[Tensor, tuple[int, ...]]]

ROWS_A_DRAW = 1024  # rows that one generator makes: a rank draws at most this many rows that it does not hold


def whole(parameter: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """`Rows` of a parameter that is not sharded."""
    return parameter, (0,) * parameter.dim()


@torch.no_grad()
def initialize(model: nn.Module, seed: int, rows: Rows = whole) -> None:
    """Fills the parameters of a `Llama`, or of a part of one, in place; `rows` says what of a sharded one is here."""
    config = cast(ModelConfig, model.config)
    for name, parameter in model.named_parameters():
        local, origin = rows(parameter)
        if parameter.dim() == 1:
            local.fill_(1.0)
            continue
        first, columns = origin[0], slice(origin[1], origin[1] + local.shape[1])
        deviation = 0.02
        if name.endswith(("attention.wo.weight", "feed_forward.w2.weight")):
            deviation /= (2 * config.layers) ** 0.5
        for start in range(first - first % ROWS_A_DRAW, first + len(local), ROWS_A_DRAW):
            stop = min(start + ROWS_A_DRAW, parameter.shape[0])
            drawn = torch.empty(stop - start, parameter.shape[1]).normal_(0.0, deviation, generator=_generator(seed, name, start))
            begin, end = max(start, first), min(stop, first + len(local))
            local[begin - first : end - first] = drawn[begin - start : end - start, columns]


def _generator(seed: int, name: str, row: int) -> torch.Generator:
    digest = hashlib.blake2b(f"{seed}/{name}/{row}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
