"""Attention kernels. Each makes a mask of its own kind, once a forward pass, under which every layer then attends.

A query looks at the tokens of its document up to itself (Llama 3, section 3.2). `Sdpa` does so with a dense mask; `Flex`
(Dong et al. 2024) and `Native`, which on a CPU has kernels of ours, pass over blocks in which no query may look at any key, and
`Varlen` (FlashAttention 2, Dao 2023) takes each document for a sequence: none of these holds seq · seq numbers, but Native where
it is SDPA. Without a mask all are causal kernels.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from l3_platform.model import cpu
from l3_platform.settings import AttentionKernel

BLOCK = 128  # queries and keys of a block of Flex; kernels are tuned for it
FLEX_HEAD_DIM = 16  # of its Triton kernels, at least
PADDING = torch.iinfo(torch.int64).max


class Places(NamedTuple):
    """Positions in the sequence of the queries and the keys at hand, where they are not all of it in order."""

    queries: Tensor
    keys: Tensor


class Kernel(Protocol):
    def mask(self, document: Tensor | None, places: Places | None = None) -> Any:
        """What `attend` wants to know of a micro-batch; None: causal over all of it.

        document: [batch, seq] number of each token's document, ascending, over whole sequences; None: a sequence is one.
        """
        ...

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Any) -> Tensor:
        """q, result: [batch, heads, queries, head_dim]; k, v: [batch, kv_heads, keys, head_dim]."""
        ...


def kernel_for(name: AttentionKernel, device: torch.device, head_dim: int) -> Kernel:
    """To train with on `device`. `auto`: Flex on a GPU, where it can; otherwise Native. Raises ValueError in words."""
    gpu = device.type == "cuda"
    if name == "native" or (name == "auto" and not (gpu and head_dim >= FLEX_HEAD_DIM)):
        return Native()
    if name == "sdpa":
        return Sdpa()
    if not gpu:
        raise ValueError(f"train.attention={name} has no backward pass on a CPU; set train.attention=auto, which is native there")
    if name == "varlen":
        if head_dim % 8 or head_dim > 256:
            raise ValueError(
                f"train.attention=varlen wants heads of at most 256, a multiple of 8, not {head_dim}; set train.attention=auto"
            )
        return Varlen()
    if head_dim < FLEX_HEAD_DIM:
        raise ValueError(
            f"train.attention=flex wants heads of {FLEX_HEAD_DIM} or more, not {head_dim}; "
            "set train.attention=auto, or a larger model.head_dim"
        )
    return Flex(compiled=True)


def document_numbers(tokens: Tensor, bos_id: int) -> Tensor:
    """[batch, seq] number of each token's document, counted from the start of its sequence."""
    return (tokens == bos_id).cumsum(dim=1)


class Sdpa:
    """torch's scaled_dot_product_attention. Its mask is dense: True where a query may look."""

    def mask(self, document: Tensor | None, places: Places | None = None) -> Tensor | None:
        """[batch, 1, queries, keys], or without documents [queries, keys]."""
        if places is None:
            return None if document is None else (document[:, :, None] == document[:, None, :]).tril().unsqueeze(1)
        causal = places.queries[:, None] >= places.keys
        if document is None:
            return causal
        return ((document[:, places.queries, None] == document[:, None, places.keys]) & causal).unsqueeze(1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return _sdpa(q, k, v, mask)


class Seen(NamedTuple):
    """The mask of `Native` for whole sequences on a CPU. begins: [batch, seq] position of the first token that each query sees."""

    begins: Tensor

    def dense(self) -> Tensor:
        """[batch, 1, queries, keys], True where a query may look."""
        order = torch.arange(self.begins.shape[1])
        return ((order >= self.begins[..., None]) & (order <= order[:, None])).unsqueeze(1)


class Native(Sdpa):
    """On a CPU `cpu.attend`, for fp32 and whole sequences; SDPA for all else."""

    def mask(self, document: Tensor | None, places: Places | None = None) -> Any:
        if document is None or places is not None or document.device.type != "cpu":
            return super().mask(document, places)
        return Seen(document_begins(document))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Any) -> Tensor:
        if (mask is None or isinstance(mask, Seen)) and cpu.attention_pays(q, k, v):
            return cpu.attend(q, k, v, mask and mask.begins)
        return super().attend(q, k, v, mask.dense() if isinstance(mask, Seen) else mask)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True)


class Flex:
    """FlexAttention under a BlockMask. Not `compiled` it is a reference: forward alone on a CPU, and with all scores."""

    def __init__(self, compiled: bool) -> None:
        from torch.nn.attention.flex_attention import flex_attention  # an import of a second

        self._flex: Callable[..., Any] = torch.compile(flex_attention) if compiled else flex_attention

    def mask(self, document: Tensor | None, places: Places | None = None) -> Any:
        """A BlockMask, from the ends of blocks alone: create_block_mask would compute all of the mask first."""
        if document is None and places is None:
            return None
        begins = None if document is None else document_begins(document)
        if places is not None:
            queries, keys = places
            begins = None if begins is None else begins[:, queries]
            return _block_mask(queries, keys, begins, _seen_at(queries, keys, begins))
        assert begins is not None
        order = torch.arange(begins.shape[1], device=begins.device)
        return _block_mask(order, order, begins, _seen_in_order(begins))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Any) -> Tensor:
        if mask is None:
            return _sdpa(q, k, v)
        return self._flex(q, k, v, block_mask=mask, enable_gqa=True)


def document_begins(document: Tensor) -> Tensor:
    """[batch, seq] position of the first token of each token's document: what its query sees is from there to itself."""
    order = torch.arange(document.shape[1], device=document.device)
    first = F.pad(document[:, 1:] != document[:, :-1], (1, 0), value=True)
    return torch.where(first, order, 0).cummax(dim=1).values


def _seen_in_order(begins: Tensor) -> Callable[..., Tensor]:
    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (key >= begins[batch, query])

    return seen


def _seen_at(queries: Tensor, keys: Tensor, begins: Tensor | None) -> Callable[..., Tensor]:
    def causal(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return keys[key] <= queries[query]

    if begins is None:
        return causal

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (keys[key] <= queries[query]) & (keys[key] >= begins[batch, query])

    return seen


def _block_mask(queries: Tensor, keys: Tensor, begins: Tensor | None, seen: Callable[..., Tensor]) -> Any:
    """queries, keys: their positions; begins: [batch, queries]. Blocks in which some query may look at some key are
    computed under `seen`, those in which all may look at all without it; one that goes past an end is of the former."""
    from torch.nn.attention.flex_attention import BlockMask

    first_query, last_query = _ends(queries[None], lowest=-1)
    first_key, last_key = (ends[:, None, :] for ends in _ends(keys[None], highest=PADDING))
    some = first_key <= last_query[:, :, None]
    whole = last_key <= first_query[:, :, None]
    if begins is not None:
        earliest, latest = (ends[:, :, None] for ends in _ends(begins))
        some = some & (last_key >= earliest)
        whole = whole & (first_key >= latest)
    lengths = (len(queries), len(keys))
    return BlockMask.from_kv_blocks(*_listed(some & ~whole), *_listed(whole), BLOCK_SIZE=BLOCK, mask_mod=seen, seq_lengths=lengths)


def _ends(values: Tensor, lowest: int | None = None, highest: int | None = None) -> tuple[Tensor, Tensor]:
    """The smallest and the largest value of each block along the last dimension. One that goes past the end has `lowest` and
    `highest`, where they are given, among its values."""
    missing = -values.shape[-1] % BLOCK

    def blocks(extra: int | None) -> Tensor:
        if not missing:
            return values
        if extra is None:
            return torch.cat((values, values[..., -1:].expand(*values.shape[:-1], missing)), -1)
        return F.pad(values, (0, missing), value=extra)

    shape = (*values.shape[:-1], -1, BLOCK)
    return blocks(lowest).reshape(shape).amin(-1), blocks(highest).reshape(shape).amax(-1)


def _listed(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """A BlockMask's form of [batch, query blocks, key blocks]: how many key blocks each query block has, and which."""
    chosen = chosen.unsqueeze(1).int()
    return chosen.sum(-1, dtype=torch.int32), chosen.argsort(dim=-1, descending=True, stable=True).int()


class Documents(NamedTuple):
    """The mask of `Varlen`. starts: int32 [documents + 1] where each begins in the micro-batch's rows end to end, and the
    end of the last; `longest` bounds their lengths."""

    starts: Tensor
    longest: int


class Varlen:
    """torch's varlen_attn, in bf16 alone."""

    def __init__(self) -> None:
        from torch.nn.attention.varlen import varlen_attn

        # Not every version of torch asks to be told; the kernel beneath groups heads anyway.
        grouped = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
        self._varlen: Callable[..., Any] = partial(varlen_attn, window_size=(-1, 0), **grouped)

    def mask(self, document: Tensor | None, places: Places | None = None) -> Documents | None:
        """Waits for the GPU to count the documents; their longest is not asked for, the sequence's length will do."""
        if places is not None:
            raise ValueError("train.attention=varlen wants whole sequences, no chunks of them; set train.context_parallel=1")
        return None if document is None else documents_in(document)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Documents | None) -> Tensor:
        if mask is None:
            return _sdpa(q, k, v)
        batch, heads, seq, width = q.shape
        rows = (x.transpose(1, 2).reshape(batch * seq, -1, width) for x in (q, k, v))
        mixed = self._varlen(*rows, mask.starts, mask.starts, mask.longest, mask.longest)
        return mixed.view(batch, seq, heads, width).transpose(1, 2)


def documents_in(document: Tensor) -> Documents:
    """document: [batch, seq]. A document ends with its row at the latest."""
    rows, seq = document.shape
    first = document_begins(document) == torch.arange(seq, device=document.device)
    return Documents(F.pad(first.flatten().nonzero().flatten(), (0, 1), value=rows * seq).int(), seq)
