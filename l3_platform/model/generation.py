"""Text from a model: greedy or sampled, many prompts of any lengths at once, with a cache of keys and values."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from l3_platform.model.llama import Attention, Block, Llama, rotary_table, rotate

PADDING = 0  # an id that stands before shorter prompts and is never looked at


@torch.inference_mode()
def generate(
    model: Llama,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    stop_ids: Collection[int] = (),
    temperature: float = 0.0,
    seed: int = 0,
) -> list[list[int]]:
    """The new token ids of each prompt, its stop token included where one came.

    `temperature` 0 takes the likeliest token, and is the same alone or in a batch up to rounding. Raises ValueError on an
    empty prompt. For a model that is whole on one device; keys and values take
    2 · layers · kv_heads · head_dim numbers a token.
    """
    if not prompts or max_new_tokens < 1:
        return [[] for _ in prompts]
    if not all(prompts):
        raise ValueError("generate: a prompt is empty; begin it with the token that begins a document")
    config, device = model.config, model.tok_embeddings.weight.device
    longest = max(map(len, prompts))
    length = longest + max_new_tokens
    tokens = torch.tensor([[PADDING] * (longest - len(p)) + list(p) for p in prompts], device=device)
    # RoPE sees distances alone, so that padding before a prompt shifts its positions and changes nothing.
    first = torch.tensor([longest - len(p) for p in prompts], device=device)
    rotation = rotary_table(length, config.head_dim, config.rope_theta, device, config.rope_scaling)
    shape = (len(prompts), config.kv_heads, length, config.head_dim)
    caches = [tokens.new_zeros((2, *shape), dtype=model.tok_embeddings.weight.dtype) for _ in range(config.layers)]
    generator = torch.Generator(device).manual_seed(seed)
    written: list[list[int]] = [[] for _ in prompts]
    running = set(range(len(prompts)))
    begin, chosen = 0, tokens
    for end in range(longest, length):
        mask = _mask(first, begin, end) if first.any() else None
        logits = _last_logits(model, chosen, rotation[:, begin:end], mask, caches, begin)
        chosen = _choose(logits, temperature, generator)
        for row in sorted(running):
            written[row].append(int(chosen[row]))
            if written[row][-1] in stop_ids:
                running.discard(row)
        if not running:
            break
        begin, chosen = end, chosen[:, None]
    return written


def _mask(first: Tensor, begin: int, end: int) -> Tensor:
    """True where a query of [begin, end) may look: [batch, 1, query, key]. first: [batch], where each prompt begins."""
    query, key = torch.arange(begin, end, device=first.device)[:, None], torch.arange(end, device=first.device)
    seen = (key <= query) & (key >= first[:, None, None])
    return (seen | (key == query))[:, None]  # padding sees itself: a row without a key is NaN


def _last_logits(model: Llama, tokens: Tensor, rotation: Tensor, mask: Tensor | None, caches: list[Tensor], begin: int) -> Tensor:
    """tokens: [batch, new], which stand at `begin`. Returns [batch, vocab] of the last one and fills the caches."""
    x = model.tok_embeddings(tokens)
    for block, cache in zip(model.layers, caches, strict=True):
        assert isinstance(block, Block)
        x = x + _attend(block.attention, block.attention_norm(x), rotation, mask, cache, begin)
        x = x + block.feed_forward(block.ffn_norm(x))
    return model._logits(model.norm(x[:, -1]))


def _attend(attention: Attention, x: Tensor, rotation: Tensor, mask: Tensor | None, cache: Tensor, begin: int) -> Tensor:
    """`Attention.forward` for new tokens over all before them. cache: [2, batch, kv_heads, length, head_dim]."""
    batch, new, _ = x.shape
    q, k, v = (w(x).view(batch, new, -1, attention.head_dim).transpose(1, 2) for w in (attention.wq, attention.wk, attention.wv))
    end = begin + new
    cache[0, :, :, begin:end], cache[1, :, :, begin:end] = rotate(k, rotation), v
    mixed = F.scaled_dot_product_attention(
        rotate(q, rotation),
        cache[0, :, :, :end],
        cache[1, :, :, :end],
        attn_mask=mask,
        is_causal=mask is None and new > 1,
        enable_gqa=True,
    )
    return attention.wo(mixed.transpose(1, 2).reshape(batch, new, -1))


def _choose(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """[batch, vocab] to [batch]."""
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]
