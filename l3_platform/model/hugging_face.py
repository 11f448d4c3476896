"""`config.json` of Hugging Face's Llama, both ways. A config of another architecture is refused, never approximated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from l3_platform.model.config import ModelConfig, RopeScaling

# What a config may say only in one way for the model to compute the same; most files leave these out.
_FIXED = {
    "hidden_act": ("silu", "the activation must be silu, as SwiGLU has it"),
    "attention_bias": (False, "attention without biases is all that Llama 3 has"),
    "mlp_bias": (False, "a feed-forward without biases is all that Llama 3 has"),
    "quantization_config": (None, "quantized weights cannot be trained on; take the folder in bf16 or fp32"),
}
_SCALING = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "original_seq_len",
}


def hugging_face_config(config: ModelConfig, bos_id: int, eos_id: int, max_seq_len: int) -> dict[str, Any]:
    """The content of config.json, in the words that transformers 4 and 5 both read."""
    scaling = config.rope_scaling
    stretched = {"rope_type": "llama3"} | {theirs: getattr(scaling, ours) for theirs, ours in _SCALING.items()} if scaling else None
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.d_model,
        "intermediate_size": config.ffn,
        "max_position_embeddings": max_seq_len,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "rms_norm_eps": config.norm_eps,
        "rope_scaling": stretched,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tied,
        "torch_dtype": "float32",
        "vocab_size": config.vocab_size,
    }


def read_config(folder: str | Path) -> ModelConfig:
    """Shape of the model in a folder, from its config.json. Raises FileNotFoundError, and ValueError in one sentence."""
    path = Path(folder) / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no exported model (no config.json); name a folder that training wrote")
    raw = json.loads(path.read_text())
    if raw.get("model_type") != "llama":
        raise ValueError(f"{path}: model_type is {raw.get('model_type')!r}; only llama can be loaded")
    for key, (only, why) in _FIXED.items():
        if raw.get(key, only) != only:
            raise ValueError(f"{path}: {key} is {raw[key]!r}; {why}")
    required = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    if missing := [key for key in required if not isinstance(raw.get(key), int)]:
        raise ValueError(f"{path}: {missing[0]} is missing or no whole number; it is not a config that transformers wrote")
    head_dim = raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"]
    if head_dim * raw["num_attention_heads"] != raw["hidden_size"]:
        raise ValueError(
            f"{path}: {raw['num_attention_heads']} heads of {head_dim} are not hidden_size {raw['hidden_size']}, "
            "as in Llama 3 they are"
        )
    theta, scaling = _rope(raw, path)
    return ModelConfig(
        vocab_size=raw["vocab_size"],
        d_model=raw["hidden_size"],
        layers=raw["num_hidden_layers"],
        heads=raw["num_attention_heads"],
        kv_heads=raw.get("num_key_value_heads") or raw["num_attention_heads"],
        ffn=raw["intermediate_size"],
        rope_theta=theta,
        norm_eps=raw.get("rms_norm_eps", 1e-6),  # what transformers takes where a file is silent
        tied=raw.get("tie_word_embeddings", False),
        rope_scaling=scaling,
    )


def _rope(raw: dict[str, Any], path: Path) -> tuple[float, RopeScaling | None]:
    """Theta and scaling: `rope_parameters` holds both since transformers 5, `rope_theta` and `rope_scaling` before."""
    rope = (raw.get("rope_scaling") or {}) | (raw.get("rope_parameters") or {})
    theta = rope.get("rope_theta") or raw.get("rope_theta") or 10_000.0
    if rope.get("partial_rotary_factor", raw.get("partial_rotary_factor", 1.0)) != 1.0:
        raise ValueError(f"{path}: it rotates only a part of each head; Llama 3 rotates all of it")
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise ValueError(f"{path}: RoPE of type {kind!r} is not known; default and llama3 are")
    if missing := [key for key in _SCALING if key not in rope]:
        raise ValueError(f"{path}: RoPE of type llama3 lacks {missing[0]}")
    return theta, RopeScaling(**{ours: rope[theirs] for theirs, ours in _SCALING.items()})
