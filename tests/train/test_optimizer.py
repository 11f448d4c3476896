"""AdamW and clipping against torch.optim and torch.nn.utils."""

import pytest
import torch

from l3_platform.model import Llama, ModelConfig
from l3_platform.model.init import initialize
from l3_platform.train.optimizer import AdamW, clip_gradients

CONFIG = ModelConfig(vocab_size=32, d_model=16, layers=1, heads=2, kv_heads=1, ffn=32)


def made() -> Llama:
    model = Llama(CONFIG)
    initialize(model, 2)
    return model


def backward(model: Llama, step: int) -> None:
    model.zero_grad()
    tokens = torch.randint(0, 32, (2, 9), generator=torch.Generator().manual_seed(step))
    model(tokens[:, :-1], tokens[:, 1:]).backward()


def test_the_update_is_torch_adamw_bit_for_bit() -> None:
    ours, theirs = made(), made()
    adamw = AdamW(ours, betas=(0.9, 0.95), epsilon=1e-8, weight_decay=0.1)
    plain = [p for n, p in theirs.named_parameters() if p.dim() == 1 or n.startswith("tok_embeddings")]
    matrices = [p for n, p in theirs.named_parameters() if p.dim() > 1 and not n.startswith("tok_embeddings")]
    reference = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
        lr=1e-2, betas=(0.9, 0.95), eps=1e-8, fused=True,
    )  # fmt: skip
    for step in range(4):
        backward(ours, step)
        backward(theirs, step)
        adamw.step(1e-2)
        reference.step()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_clipping_scales_then_cuts_the_norm_as_torch_does() -> None:
    ours, theirs = made(), made()
    backward(ours, 0)
    backward(theirs, 0)
    norm = clip_gradients(ours, scale=0.5, max_norm=0.1)
    for p in theirs.parameters():
        p.grad.mul_(0.5)  # type: ignore[union-attr]
    expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.1)
    assert norm == pytest.approx(expected.item())
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_a_small_gradient_is_not_enlarged() -> None:
    model = made()
    backward(model, 0)
    before = model.output.weight.grad.clone()  # type: ignore[union-attr]
    clip_gradients(model, scale=1.0, max_norm=1e9)
    assert torch.equal(model.output.weight.grad, before)  # type: ignore[union-attr]


def test_weight_decay_at_each_step_is_a_tenth_of_that_steps_learning_rate() -> None:
    """Llama 3, section 3.2.1: without a gradient a matrix shrinks by that share, and nothing else shrinks."""
    model = made()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    adamw = AdamW(model, betas=(0.9, 0.95), epsilon=1e-8, weight_decay=0.1)
    for rate in (1e-2, 2e-3):
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        adamw.step(rate)
    for name, p in model.named_parameters():
        decayed = p.dim() > 1 and not name.startswith("tok_embeddings")
        left = (1 - 0.1 * 1e-2) * (1 - 0.1 * 2e-3) if decayed else 1.0
        torch.testing.assert_close(p.detach(), before[name] * left)
