"""Shapes of Llama 3 models and their exact parameter counts. Free of torch, since planners import it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RopeScaling:
    """How the released Llama 3.1 stretches RoPE beyond `original_seq_len` tokens; the defaults are its values.

    Wavelengths above original_seq_len / low_freq_factor tokens grow by `factor`, those below original_seq_len /
    high_freq_factor stay, and between them the frequency is interpolated. Raises ValueError on factors that are none.
    """

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_seq_len: int = 8192

    def __post_init__(self) -> None:
        if self.factor < 1 or self.original_seq_len < 1 or not 0 < self.low_freq_factor < self.high_freq_factor:
            raise ValueError(
                "model: RoPE scaling needs factor >= 1, original_seq_len >= 1 and 0 < low_freq_factor < high_freq_factor "
                f"(got {self})"
            )


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a dense Llama 3 transformer (Llama 3, table 3); no biases anywhere.

    `ffn` is the hidden width of SwiGLU; `kv_heads` divides `heads`; `tied` shares the embedding with the output;
    `rope_scaling` is for contexts beyond those of pre-training. Raises ValueError on shapes that cannot be built.
    """

    vocab_size: int
    d_model: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    rope_theta: float = 500_000.0
    norm_eps: float = 1e-5
    tied: bool = False
    rope_scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "d_model", "layers", "heads", "kv_heads", "ffn")
        for name in sizes:
            if getattr(self, name) < 1:
                raise ValueError(f"model: {name} must be at least 1 (got {getattr(self, name)})")
        if self.d_model % self.heads or (self.d_model // self.heads) % 2:
            raise ValueError(
                f"model: d_model {self.d_model} over {self.heads} heads must give an even head dimension for RoPE; "
                "change d_model or heads"
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"model: {self.heads} heads cannot share {self.kv_heads} KV heads evenly")

    @property
    def head_dim(self) -> int:
        return self.d_model // self.heads


def parameters(config: ModelConfig) -> int:
    """Exact number of weights, embeddings included: 8,030,261,248 for the 8B preset."""
    c = config
    attention = 2 * c.d_model * c.d_model + 2 * c.d_model * c.kv_heads * c.head_dim
    block = attention + 3 * c.d_model * c.ffn + 2 * c.d_model
    return (1 if c.tied else 2) * c.vocab_size * c.d_model + c.layers * block + c.d_model


def shape_for(layers: int, aspect: int, head_dim: int, kv_group: int, vocab_size: int) -> ModelConfig:
    """A small model: width `aspect * layers` rounded to whole heads, SwiGLU of 8/3 width, `kv_group` queries a KV head.

    ffn is rounded up to a multiple of 32. The KV group shrinks to the nearest divisor of the heads, so there is at
    least one KV head whatever the size.
    """
    heads = max(1, round(aspect * layers / head_dim))
    group = max(g for g in range(1, min(kv_group, heads) + 1) if heads % g == 0)
    d_model = heads * head_dim
    ffn = -(-8 * d_model // 3)
    return ModelConfig(
        vocab_size=vocab_size,
        d_model=d_model,
        layers=layers,
        heads=heads,
        kv_heads=heads // group,
        ffn=-(-ffn // 32) * 32,
    )


# Llama 3, table 3, with the vocabulary of the released models.
presets: dict[str, ModelConfig] = {
    "tiny": ModelConfig(vocab_size=4096, d_model=64, layers=2, heads=2, kv_heads=1, ffn=192),
    "3m": ModelConfig(vocab_size=4096, d_model=128, layers=4, heads=4, kv_heads=2, ffn=352),
    "100m": ModelConfig(vocab_size=32_768, d_model=640, layers=12, heads=10, kv_heads=5, ffn=1728),
    "8b": ModelConfig(vocab_size=128_256, d_model=4096, layers=32, heads=32, kv_heads=8, ffn=14_336),
    "70b": ModelConfig(vocab_size=128_256, d_model=8192, layers=80, heads=64, kv_heads=8, ffn=28_672),
    "405b": ModelConfig(vocab_size=128_256, d_model=16_384, layers=126, heads=128, kv_heads=8, ffn=53_248),
}
