"""What `parallelize` does to a model in one process changes no gradient. Over many: test_differential.py."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from l3_platform.model import Llama, ModelConfig
from l3_platform.model.init import initialize
from l3_platform.parallel import Mesh
from l3_platform.parallel.parallelize import local_rows, parallelize, reduce_gradients
from l3_platform.settings import ActivationCheckpointing
from l3_platform.train.optimizer import AdamW, clip_gradients

CONFIG = ModelConfig(vocab_size=64, d_model=32, layers=3, heads=4, kv_heads=2, ffn=64)
BOS = 63


def three_steps(**options: Any) -> tuple[list[float], list[dict[str, torch.Tensor]]]:
    """Losses and gradients of three steps of 4 sequences, each a micro-batch."""
    with torch.device("meta"):
        model = Llama(CONFIG)
    parallelize(model, Mesh(), device=torch.device("cpu"), unit_parameters=15_000, **options)
    model.to_empty(device="cpu")
    initialize(model, 1, local_rows)
    optimizer = AdamW(model, betas=(0.9, 0.95), epsilon=1e-8, weight_decay=0.1)
    losses, gradients = [], []
    for step in range(3):
        tokens = torch.randint(0, 64, (4, 17), generator=torch.Generator().manual_seed(step))
        nats = torch.zeros(())
        for number, part in enumerate(tokens.split(1)):
            reduce_gradients(model, wanted=number == len(tokens) - 1)
            loss = model(part[:, :-1], part[:, 1:], bos_id=BOS)
            loss.backward()
            nats += loss.detach()
        norm = clip_gradients(model, scale=1 / 64, max_norm=1.0)
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()} | {"norm": torch.tensor(norm)})
        optimizer.step(1e-2)
        for parameter in model.parameters():
            parameter.grad = None
        losses.append(nats.item() / 64)
    return losses, gradients


def kept_for_backward(how: ActivationCheckpointing) -> int:
    """Bytes of activations that a forward pass of compiled blocks keeps; eager selective checkpointing keeps some out of sight."""
    model = Llama(CONFIG)
    initialize(model, 1, local_rows)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    parallelize(model, Mesh(), device=torch.device("cpu"), activation_checkpointing=how, compile_blocks=True)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if (storage := tensor.untyped_storage()).data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        tokens = torch.randint(0, 64, (4, 128), generator=torch.Generator().manual_seed(0))
        model(tokens, tokens, bos_id=BOS)
    return sum(kept.values())


def test_activation_checkpointing_changes_neither_gradients_nor_names() -> None:
    losses, gradients = three_steps(activation_checkpointing="full")
    expected_losses, expected_gradients = three_steps()
    assert losses == expected_losses and gradients[2].keys() == expected_gradients[2].keys()
    assert all(torch.equal(gradients[2][name], tensor) for name, tensor in expected_gradients[2].items())


@pytest.mark.parametrize("how", ["none", "selective", "full"])
def test_blocks_are_compiled_under_any_activation_checkpointing(
    how: ActivationCheckpointing, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter, fullgraph=True))
    losses, gradients = three_steps(compile_blocks=True, activation_checkpointing=how)
    expected_losses, expected_gradients = three_steps()
    assert counter.frame_count >= 1
    assert losses == pytest.approx(expected_losses, rel=1e-6)
    assert all(torch.allclose(gradients[2][name], tensor, atol=1e-6) for name, tensor in expected_gradients[2].items())


def test_activation_checkpointing_keeps_less_of_compiled_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    kept = {how: kept_for_backward(how) for how in ("none", "selective", "full")}
    assert kept["full"] < 0.5 * kept["selective"] and kept["selective"] < 0.9 * kept["none"], kept


@pytest.mark.exhaustive
@pytest.mark.parametrize("how", ["none", "selective", "full"])
def test_compiled_blocks_have_the_gradients_of_eager_ones(how: ActivationCheckpointing) -> None:
    _, gradients = three_steps(compile_blocks=True, activation_checkpointing=how)
    _, expected = three_steps()
    assert all(torch.allclose(gradients[2][name], tensor, atol=1e-5) for name, tensor in expected[2].items())
