"""Context parallelism: each rank computes two chunks of every sequence (Llama 3, section 3.3.2).

A sequence is cut into 2·CP chunks and rank i holds chunks i and 2·CP-1-i, so that causal attention is the same work for
all. Keys and values are all-gathered, which grouped-query attention makes small and which makes a document mask easy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed._functional_collectives as collectives
from torch import Tensor

from l3_platform.model.attention import Places

# torch 2.13's name, else torch 2.11's. Not torch.distributed.nn's all_gather: its gradients are wrong on gloo.
_all_gather = getattr(collectives, "all_gather_single_autograd", None) or collectives.all_gather_tensor_autograd


def positions(seq_len: int, rank: int, ranks: int) -> Tensor:
    """Positions in the sequence that a rank holds, [seq_len / ranks], in its order."""
    chunks = torch.arange(seq_len).chunk(2 * ranks)
    return torch.cat((chunks[rank], chunks[2 * ranks - 1 - rank]))


def places(seq_len: int, rank: int, ranks: int, device: torch.device) -> Places:
    """Those of this rank's queries, and of the keys of all ranks in the order in which they are gathered."""
    keys = torch.cat([positions(seq_len, other, ranks) for other in range(ranks)])
    return Places(positions(seq_len, rank, ranks).to(device), keys.to(device))


def gathered_attention(q: Tensor, k: Tensor, v: Tensor, mask: Any, *, group: object, attend: Callable[..., Tensor]) -> Tensor:
    """A kernel's `attend` of this rank's queries to the keys and values of all ranks, at `places`.

    q: [batch, heads, seq / ranks, head_dim]; k, v: the same with the KV heads; mask: of the kernel's kind.
    """
    both = _all_gather(torch.stack((k, v)), 3, group)  # pyright: ignore[reportArgumentType]
    k, v = both.unbind()
    return attend(q, k, v, mask)
