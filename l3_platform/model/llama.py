"""The Llama 3 architecture (Llama 3, section 3.2; Touvron et al. 2023): GQA, RoPE, SwiGLU, RMSNorm, document mask.

The model knows nothing of parallelism. It keeps no buffers, so it can be built on the meta device, sharded, and
filled afterwards. Half-split rotary pairs, as in Hugging Face's port: exported weights need no permutation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from l3_platform.model import cpu
from l3_platform.model.attention import Kernel, Native, document_numbers
from l3_platform.model.config import ModelConfig, RopeScaling

# The fp32 logits of a chunk of the sequence are the largest tensor of a small model's step: 2^26 of them are 256 MiB.
LOGITS_A_CHUNK = 1 << 26


class Llama(nn.Module):
    """Its weights are undefined until `l3_platform.model.init.initialize`, an export or a checkpoint fills them."""

    def __init__(self, config: ModelConfig, kernel: Kernel | None = None) -> None:
        super().__init__()
        self.config = config
        self.kernel = kernel or Native()
        self.tok_embeddings = Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(config, self.kernel) for _ in range(config.layers))
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.output = None if config.tied else Linear(config.d_model, config.vocab_size)

    def forward(self, tokens: Tensor, targets: Tensor | None = None, bos_id: int | None = None) -> Tensor:
        """Logits, or the summed loss where `targets` are given.

        tokens, targets: [batch, seq] token ids; a target of -100 is not predicted. With `bos_id`, a token attends only
        inside its document, documents starting at each `bos_id` in the stream. Returns logits [batch, seq, vocab] in
        fp32, or the fp32 sum of negative log-likelihoods in nats. One call does both, so that sharded weights are
        gathered by the hooks of `forward` alone.
        """
        rotation = rotary_table(
            tokens.shape[1], self.config.head_dim, self.config.rope_theta, tokens.device, self.config.rope_scaling
        )
        mask = self.kernel.mask(None if bos_id is None else document_numbers(tokens, bos_id))
        hidden = self.tok_embeddings(tokens)
        for layer in self.layers:
            hidden = layer(hidden, rotation, mask)
        hidden = self.norm(hidden)
        if targets is None:
            return self._logits(hidden)
        return self._loss(hidden.flatten(0, 1), targets.flatten())

    def _loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """hidden [tokens, d_model]."""
        return in_chunks(self._chunk_loss, hidden, targets, LOGITS_A_CHUNK // self.config.vocab_size)

    def _chunk_loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return cpu.summed_cross_entropy(self._logits(hidden), targets)

    def _logits(self, hidden: Tensor) -> Tensor:
        # Tied weights are shared here, not as one parameter with two names: it stays tied when moved or sharded.
        mixed = cpu.linear(hidden, self.tok_embeddings.weight) if self.output is None else self.output(hidden)
        return mixed.float()


def in_chunks(loss: Callable[[Tensor, Tensor], Tensor], hidden: Tensor, targets: Tensor, rows: int) -> Tensor:
    """The sum of `loss` over chunks of `rows` tokens. Chunks recompute their logits in the backward pass; a single one
    keeps them."""
    rows = max(1, rows)
    if len(targets) <= rows:
        return loss(hidden, targets)
    from torch.utils.checkpoint import checkpoint

    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    for start in range(0, len(targets), rows):
        piece = slice(start, start + rows)
        total = total + checkpoint(loss, hidden[piece], targets[piece], use_reentrant=False)
    return total


class Block(nn.Module):
    def __init__(self, config: ModelConfig, kernel: Kernel) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.norm_eps)
        self.attention = Attention(config, kernel)
        self.ffn_norm = RMSNorm(config.d_model, config.norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, rotation: Tensor, mask: Any) -> Tensor:
        """x, result: [batch, seq, d_model]; mask: of the kernel's kind."""
        x = x + self.attention(self.attention_norm(x), rotation, mask)
        return x + self.feed_forward(self.ffn_norm(x))


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023): `kv_heads` keys and values serve all query heads."""

    def __init__(self, config: ModelConfig, kernel: Kernel) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.attend = kernel.attend
        self.wq = Linear(config.d_model, config.d_model)
        self.wk = Linear(config.d_model, config.kv_heads * config.head_dim)
        self.wv = Linear(config.d_model, config.kv_heads * config.head_dim)
        self.wo = Linear(config.d_model, config.d_model)

    def forward(self, x: Tensor, rotation: Tensor, mask: Any) -> Tensor:
        batch, seq, _ = x.shape
        # -1 heads, not the configured number: a tensor-parallel rank holds only some of them.
        q, k, v = (w(x).view(batch, seq, -1, self.head_dim).transpose(1, 2) for w in (self.wq, self.wk, self.wv))
        q, k = rotate(q, rotation), rotate(k, rotation)
        mixed = self.attend(q, k, v, mask)
        return self.wo(mixed.transpose(1, 2).reshape(batch, seq, -1))


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.w1 = Linear(config.d_model, config.ffn)
        self.w2 = Linear(config.ffn, config.d_model)
        self.w3 = Linear(config.d_model, config.ffn)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.w1(x), self.w3(x)
        return self.w2(cpu.swiglu(gate, up) if cpu.pays(gate, up) else F.silu(gate) * up)


class Linear(nn.Linear):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        """Nothing: filled afterwards. Random numbers on the meta device would import torch's compiler, a second."""

    def forward(self, input: Tensor) -> Tensor:
        return cpu.linear(input, self.weight)


class Embedding(nn.Embedding):
    def reset_parameters(self) -> None:
        """Nothing, as in `Linear`."""


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        if cpu.pays(x, self.weight):
            return cpu.rms_norm(x, self.weight, self.eps)
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)


def rotary_table(seq: int, head_dim: int, theta: float, device: torch.device, scaling: RopeScaling | None = None) -> Tensor:
    """cos and sin of every position and pair, [2, seq, head_dim / 2], fp32 (Su et al. 2021; theta of Llama 3)."""
    powers = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    frequencies = theta**-powers
    if scaling:
        frequencies = _scaled(frequencies, scaling)
    angles = torch.outer(torch.arange(seq, dtype=torch.float32, device=device), frequencies)
    return torch.stack((angles.cos(), angles.sin()))


def _scaled(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """frequencies: [head_dim / 2], radians a token."""
    turns = frequencies * scaling.original_seq_len / (2 * math.pi)  # in the original context
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    return torch.lerp(frequencies / scaling.factor, frequencies, kept.clamp(0.0, 1.0))


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """x: [batch, heads, seq, head_dim], its halves the two members of each rotary pair."""
    if cpu.pays(x, rotation):
        return cpu.rotate(x, rotation)
    cos, sin = rotation
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)
