"""FLOPs of training a token, for MFU: what the mathematics needs, not what the hardware happens to do."""

from __future__ import annotations

from l3_platform.model.config import ModelConfig, parameters


def flops_a_token(model: ModelConfig, seq_len: int) -> float:
    """6·M + 6·L·H·d·s: forward and backward pass of a token in sequences of `seq_len`, in FLOPs.

    Chowdhery et al. 2022 (PaLM), appendix B: 6 for each of the M weights that multiply (an embedding that is only looked up
    does not, nor do norms), and 12·L·H·d·s for attention with L layers of H heads of width d; half of that here, because a
    causal mask needs half of the products. Document masks need fewer still and recomputation does more: neither is counted.
    """
    looked_up = 0 if model.tied else model.vocab_size * model.d_model
    norms = (2 * model.layers + 1) * model.d_model
    multiply = parameters(model) - looked_up - norms
    return 6.0 * multiply + 6.0 * model.layers * model.heads * model.head_dim * seq_len
