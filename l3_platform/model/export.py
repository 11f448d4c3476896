"""Weights in Hugging Face's Llama layout: `config.json` beside safetensors, written atomically; and back.

Reads and writes only one parameter at a time, so a sharded model exports and loads without a whole copy in memory.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from l3_platform.model.config import ModelConfig
from l3_platform.model.init import Rows, whole
from l3_platform.model.llama import Llama

FILE_BYTES = 5 << 30  # Hugging Face's own limit for one safetensors file

_LAYER = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_TOP = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head"}


def export_model(model: Llama, folder: str | Path, *, bos_id: int, eos_id: int, max_seq_len: int, **options: Any) -> None:
    """`export_weights` of a model that is whole."""
    parameters = dict(model.named_parameters())
    export_weights(
        model.config, lambda name: parameters[name].detach(), folder,
        bos_id=bos_id, eos_id=eos_id, max_seq_len=max_seq_len, **options,
    )  # fmt: skip


def export_weights(
    config: ModelConfig,
    whole: Callable[[str], Tensor],
    folder: str | Path,
    *,
    bos_id: int,
    eos_id: int,
    max_seq_len: int,
    extra_files: dict[str, str] | None = None,
    writer: bool = True,
    file_bytes: int = FILE_BYTES,
) -> None:
    """Writes `folder` in one rename, replacing what was there. `extra_files` maps names to text, written with it.

    `whole` gives a parameter of a `Llama` by name. Collective where it is: every rank calls this, and only the rank with
    `writer` uses what `whole` gives and touches the disk.
    """
    target = Path(folder)
    partial = target.with_name(target.name + ".partial")
    if writer:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    _write_weights(config, whole, partial, writer, file_bytes)
    if not writer:
        return
    described = _hugging_face_config(config, bos_id, eos_id, max_seq_len)
    _write_text(partial / "config.json", json.dumps(described, indent=2, sort_keys=True) + "\n")
    for name, text in sorted((extra_files or {}).items()):
        _write_text(partial / name, text)
    if target.exists():
        shutil.rmtree(target)
    os.replace(partial, target)


def load_exported(folder: str | Path, device: str = "cpu") -> Llama:
    """The model of an exported folder, fp32, in evaluation mode. Raises FileNotFoundError, ValueError."""
    with torch.device(device):
        model = Llama(read_config(folder))
    fill_from_export(model, folder)
    return model.eval()


@torch.no_grad()
def fill_from_export(model: nn.Module, folder: str | Path, rows: Rows = whole) -> None:
    """Copies exported weights into the model in place, reading only the rows that `rows` says are held here.

    Raises ValueError naming the first parameter that is missing or has another shape.
    """
    from safetensors import safe_open

    files: dict[str, Any] = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        handle = safe_open(path, framework="pt")
        files |= dict.fromkeys(handle.keys(), handle)
    for name, parameter in model.named_parameters():
        key = hugging_face_name(name)
        if key not in files:
            raise ValueError(f"{folder}: no weight {key} in its safetensors files; export the model again")
        piece = files[key].get_slice(key)
        if tuple(piece.get_shape()) != tuple(parameter.shape):
            raise ValueError(
                f"{folder}: {key} has shape {tuple(piece.get_shape())}, the model wants {tuple(parameter.shape)}; "
                "init_from must name a model of the same shape"
            )
        local, origin = rows(parameter)
        if local.numel():
            here = tuple(slice(first, first + size) for first, size in zip(origin, local.shape, strict=True))
            local.copy_(piece[here])


def read_config(folder: str | Path) -> ModelConfig:
    """Shape of an exported model, from its config.json. Raises FileNotFoundError, ValueError."""
    path = Path(folder) / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no exported model (no config.json); name a folder that training wrote")
    raw = json.loads(path.read_text())
    if raw.get("model_type") != "llama":
        raise ValueError(f"{path}: model_type is {raw.get('model_type')!r}; only llama can be loaded")
    return ModelConfig(
        vocab_size=raw["vocab_size"],
        d_model=raw["hidden_size"],
        layers=raw["num_hidden_layers"],
        heads=raw["num_attention_heads"],
        kv_heads=raw["num_key_value_heads"],
        ffn=raw["intermediate_size"],
        rope_theta=raw["rope_theta"],
        norm_eps=raw["rms_norm_eps"],
        tied=raw["tie_word_embeddings"],
    )


def hugging_face_name(name: str) -> str:
    """`layers.3.attention.wq.weight` -> `model.layers.3.self_attn.q_proj.weight`."""
    stem, _, kind = name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{kind}"
    _, layer, part = stem.split(".", 2)
    return f"model.layers.{layer}.{_LAYER[part]}.{kind}"


def _write_weights(config: ModelConfig, whole: Callable[[str], Tensor], partial: Path, writer: bool, file_bytes: int) -> None:
    from safetensors.torch import save_file

    with torch.device("meta"):
        sizes = {name: p.numel() * 4 for name, p in Llama(config).named_parameters()}
    groups = _groups(list(sizes.items()), file_bytes)
    index: dict[str, str] = {}
    for number, names in enumerate(groups, start=1):
        file = "model.safetensors" if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        tensors: dict[str, Tensor] = {}
        for name in names:
            tensor = whole(name)
            if writer:
                tensors[hugging_face_name(name)] = tensor.to("cpu", torch.float32).contiguous()
        if writer:
            save_file(tensors, partial / file, metadata={"format": "pt"})
            index |= dict.fromkeys(tensors, file)
    if writer and len(groups) > 1:
        content = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": index}
        _write_text(partial / "model.safetensors.index.json", json.dumps(content, indent=2, sort_keys=True) + "\n")


def _groups(sizes: list[tuple[str, int]], limit: int) -> list[list[str]]:
    """Names in order, in files of at most `limit` bytes (a larger tensor has a file of its own)."""
    groups: list[list[str]] = [[]]
    used = 0
    for name, size in sizes:
        if groups[-1] and used + size > limit:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += size
    return groups


def _hugging_face_config(config: ModelConfig, bos_id: int, eos_id: int, max_seq_len: int) -> dict[str, Any]:
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
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tied,
        "torch_dtype": "float32",
        "vocab_size": config.vocab_size,
    }


def _write_text(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
