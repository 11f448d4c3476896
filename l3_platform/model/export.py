"""Weights in Hugging Face's Llama layout: `config.json` beside safetensors, written atomically; and back, from any folder
of this architecture (`l3_platform.model.hugging_face` says which that is).

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
from l3_platform.model.hugging_face import hugging_face_config, read_config
from l3_platform.model.init import Rows, whole
from l3_platform.model.llama import Llama

FILE_BYTES = 5 << 30  # Hugging Face's own limit for one safetensors file
INDEX = "model.safetensors.index.json"

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
    described = hugging_face_config(config, bos_id, eos_id, max_seq_len)
    _write_text(partial / "config.json", json.dumps(described, indent=2, sort_keys=True) + "\n")
    for name, text in sorted((extra_files or {}).items()):
        _write_text(partial / name, text)
    if target.exists():
        shutil.rmtree(target)
    os.replace(partial, target)


def load_exported(folder: str | Path, device: str = "cpu") -> Llama:
    """The model of a folder that we or transformers wrote, fp32, in evaluation mode. Raises FileNotFoundError, ValueError."""
    with torch.device(device):
        model = Llama(read_config(folder))
    fill_from_export(model, folder)
    return model.eval()


@torch.no_grad()
def fill_from_export(model: nn.Module, folder: str | Path, rows: Rows = whole) -> None:
    """Copies weights into a model, or a stage of one, in place, reading only the rows that `rows` says are held here.

    Raises FileNotFoundError where the folder lacks weights in safetensors, ValueError naming the first parameter that
    is missing, has another shape, or is none of this architecture.
    """
    weights = _open_weights(Path(folder))
    wanted = {hugging_face_name(name): parameter for name, parameter in model.named_parameters()}
    with torch.device("meta"):
        known = {hugging_face_name(name) for name, _ in Llama(read_config(folder)).named_parameters()} | {"lm_head.weight"}
    for key in weights:
        if key not in known and not key.endswith("rotary_emb.inv_freq"):
            raise ValueError(f"{folder}: its weight {key} has no place in a Llama 3 model, so it would not compute the same")
    for key, parameter in wanted.items():
        if key not in weights:
            raise ValueError(f"{folder}: no weight {key} in its safetensors files; export the model again")
        piece = weights[key].get_slice(key)
        if tuple(piece.get_shape()) != tuple(parameter.shape):
            raise ValueError(
                f"{folder}: {key} has shape {tuple(piece.get_shape())}, the model wants {tuple(parameter.shape)}; "
                "init_from must name a model of the same shape"
            )
        local, origin = rows(parameter)
        if local.numel():
            here = tuple(slice(first, first + size) for first, size in zip(origin, local.shape, strict=True))
            local.copy_(piece[here])


def _open_weights(folder: Path) -> dict[str, Any]:
    """Weight name to the open file that holds it: those that the index names, else all of the folder."""
    from safetensors import safe_open

    index = folder / INDEX
    if index.exists():
        places: dict[str, str] = json.loads(index.read_text())["weight_map"]
        names = sorted(set(places.values()))
    else:
        places, names = {}, sorted(path.name for path in folder.glob("*.safetensors"))
    if not names:
        raise FileNotFoundError(f"{folder} holds no weights in safetensors; convert them with transformers' save_pretrained")
    opened = {}
    for name in names:
        if not (folder / name).exists():
            raise FileNotFoundError(f"{folder}: {INDEX} names {name}, which is not there; fetch the folder again")
        opened[name] = safe_open(folder / name, framework="pt")
    if places:
        return {key: opened[name] for key, name in places.items()}
    return {key: file for file in opened.values() for key in file.keys()}  # noqa: SIM118 - a file is no mapping


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
        _write_text(partial / INDEX, json.dumps(content, indent=2, sort_keys=True) + "\n")


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


def _write_text(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
