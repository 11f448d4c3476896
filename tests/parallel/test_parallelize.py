"""What `parallelize` does to a model in one process changes no gradient. Over many: test_differential.py."""

from typing import Any

import pytest
import torch

from l3_platform.model import Llama, ModelConfig
from l3_platform.model.init import initialize
from l3_platform.parallel import Mesh
from l3_platform.parallel.parallelize import local_rows, parallelize, reduce_gradients
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
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()} | {"norm": norm})
        optimizer.step(1e-2)
        for parameter in model.parameters():
            parameter.grad = None
        losses.append(nats.item() / 64)
    return losses, gradients


def test_activation_checkpointing_changes_neither_gradients_nor_names() -> None:
    losses, gradients = three_steps(activation_checkpointing="full")
    expected_losses, expected_gradients = three_steps()
    assert losses == expected_losses and gradients[2].keys() == expected_gradients[2].keys()
    assert all(torch.equal(gradients[2][name], tensor) for name, tensor in expected_gradients[2].items())


@pytest.mark.exhaustive
def test_compiled_blocks_have_the_gradients_of_eager_ones() -> None:
    _, gradients = three_steps(compile_blocks=True)
    _, expected = three_steps()
    assert all(torch.allclose(gradients[2][name], tensor, atol=1e-5) for name, tensor in expected[2].items())
