"""Context parallelism: each rank computes two chunks of every sequence (Llama 3, section 3.3.2).

A sequence is cut into 2·CP chunks and rank i holds chunks i and 2·CP-1-i, so that causal attention is the same work for
all. Keys and values are all-gathered, which grouped-query attention makes small and which makes a document mask easy.
"""

from __future__ import annotations

import torch
import torch.distributed._functional_collectives as collectives
from torch import Tensor

from l3_platform.model.llama import attend

# torch 2.13's name, else torch 2.11's. Not torch.distributed.nn's all_gather: its gradients are wrong on gloo.
_all_gather = getattr(collectives, "all_gather_single_autograd", None) or collectives.all_gather_tensor_autograd


def positions(seq_len: int, rank: int, ranks: int) -> Tensor:
    """Positions in the sequence that a rank holds, [seq_len / ranks], in its order."""
    chunks = torch.arange(seq_len).chunk(2 * ranks)
    return torch.cat((chunks[rank], chunks[2 * ranks - 1 - rank]))


def context_mask(seq_len: int, document: Tensor | None, rank: int, ranks: int, device: torch.device) -> Tensor:
    """True where a query of this rank may look among the keys of all ranks, in the order in which they are gathered.

    document: [batch, seq_len] number of each token's document, or None for causal attention over all of the sequence.
    Returns [batch, 1, seq_len / ranks, seq_len], or without a batch [seq_len / ranks, seq_len]. Every query sees itself.
    """
    queries = positions(seq_len, rank, ranks).to(device)
    keys = torch.cat([positions(seq_len, other, ranks) for other in range(ranks)]).to(device)
    causal = queries[:, None] >= keys[None, :]
    if document is None:
        return causal
    return ((document[:, queries, None] == document[:, None, keys]) & causal).unsqueeze(1)


def gathered_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, group: object) -> Tensor:
    """`attend` of this rank's queries to the keys and values of all ranks, in `context_mask`'s order.

    q: [batch, heads, seq / ranks, head_dim]; k, v: the same with the KV heads; mask as `context_mask` makes it.
    """
    both = _all_gather(torch.stack((k, v)), 3, group)  # pyright: ignore[reportArgumentType]
    k, v = both.unbind()
    return attend(q, k, v, mask)
