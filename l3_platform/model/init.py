"""First weights as a pure function of (seed, parameter name, row): the same for every mesh, each rank making its rows.

Normal with deviation 0.02, the two matrices that write into the residual stream scaled by 1/sqrt(2 layers)
(Radford et al. 2019), norms one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from l3_platform.model.llama import Llama

# A parameter's local tensor and the row of the whole parameter where it begins.
Rows = Callable[[Tensor], tuple[Tensor, int]]

ROWS_A_DRAW = 1024  # rows that one generator makes: a rank draws at most this many rows that it does not hold


def whole(parameter: Tensor) -> tuple[Tensor, int]:
    """`Rows` of a parameter that is not sharded."""
    return parameter, 0


@torch.no_grad()
def initialize(model: Llama, seed: int, rows: Rows = whole) -> None:
    """Fills the parameters in place; `rows` says which rows of a sharded parameter are here."""
    for name, parameter in model.named_parameters():
        local, first = rows(parameter)
        if parameter.dim() == 1:
            local.fill_(1.0)
            continue
        deviation = 0.02
        if name.endswith(("attention.wo.weight", "feed_forward.w2.weight")):
            deviation /= (2 * model.config.layers) ** 0.5
        for start in range(first - first % ROWS_A_DRAW, first + len(local), ROWS_A_DRAW):
            stop = min(start + ROWS_A_DRAW, parameter.shape[0])
            drawn = torch.empty(stop - start, parameter.shape[1]).normal_(0.0, deviation, generator=_generator(seed, name, start))
            begin, end = max(start, first), min(stop, first + len(local))
            local[begin - first : end - first] = drawn[begin - start : end - start]


def _generator(seed: int, name: str, row: int) -> torch.Generator:
    digest = hashlib.blake2b(f"{seed}/{name}/{row}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
