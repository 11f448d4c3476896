"""Export in Hugging Face's layout, and back."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from l3_platform.model import Llama, ModelConfig, export_model, load_exported
from l3_platform.model.init import initialize

CONFIG = ModelConfig(vocab_size=64, d_model=32, layers=2, heads=4, kv_heads=2, ffn=64)


def made(config: ModelConfig = CONFIG) -> Llama:
    model = Llama(config)
    initialize(model, 5)
    return model


def write(model: Llama, folder: Path, **options: object) -> Path:
    export_model(model, folder, bos_id=1, eos_id=2, max_seq_len=16, **options)  # type: ignore[arg-type]
    return folder


@pytest.mark.parametrize("file_bytes", [1 << 30, 5000])
def test_an_exported_model_loads_with_the_same_logits(tmp_path: Path, file_bytes: int) -> None:
    model = made()
    loaded = load_exported(write(model, tmp_path / "m", file_bytes=file_bytes))
    tokens = torch.arange(10)[None]
    assert torch.equal(model(tokens), loaded(tokens)) and loaded.config == CONFIG


def test_large_models_are_split_into_files_that_the_index_names(tmp_path: Path) -> None:
    folder = write(made(), tmp_path / "m", file_bytes=20_000)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert set(index.values()) == {path.name for path in folder.glob("*.safetensors")} and len(set(index.values())) > 1
    assert index["model.layers.0.self_attn.q_proj.weight"] == "model-00001-of-00006.safetensors"


def test_two_exports_of_one_model_are_the_same_bytes(tmp_path: Path) -> None:
    digests = [
        [hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(write(made(), tmp_path / name).iterdir())]
        for name in ("a", "b")
    ]
    assert digests[0] == digests[1]


def test_transformers_computes_the_same_logits(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = made()
    theirs = transformers.LlamaForCausalLM.from_pretrained(write(model, tmp_path / "m"))
    tokens = torch.arange(12)[None]
    torch.testing.assert_close(theirs(tokens).logits, model(tokens), atol=1e-5, rtol=1e-5)


def test_tied_weights_are_written_once_and_load(tmp_path: Path) -> None:
    model = made(ModelConfig(**(CONFIG.__dict__ | {"tied": True})))
    loaded = load_exported(write(model, tmp_path / "m"))
    assert torch.equal(model(torch.arange(5)[None]), loaded(torch.arange(5)[None]))


def test_weights_of_another_shape_are_refused_by_name(tmp_path: Path) -> None:
    folder = write(made(), tmp_path / "m")
    config = json.loads((folder / "config.json").read_text()) | {"intermediate_size": 96}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"mlp.gate_proj.weight has shape \(64, 32\), the model wants \(96, 32\)"):
        load_exported(folder)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no exported model"):
        load_exported(tmp_path)
