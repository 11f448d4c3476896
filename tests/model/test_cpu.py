"""What a CPU does by itself against what torch does."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from l3_platform.model import Llama, ModelConfig, cpu


@pytest.fixture(autouse=True)
def worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_WORTH_IT", 1)


def gradients(result: Tensor, *inputs: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(result.sin().sum(), inputs))


@pytest.mark.parametrize("shape", [(3, 5, 24), (40, 24)])
@pytest.mark.parametrize("outputs", [7, 200])  # 200: taller than wide, an output head
def test_a_product_and_its_gradients_are_torchs(shape: tuple[int, ...], outputs: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(shape, requires_grad=True), torch.randn(outputs, 24, requires_grad=True)
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, weight)]
    ours, theirs = cpu.linear(x, weight), F.linear(*exact)
    assert "_Linear" in str(ours.grad_fn)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
    for found, expected in zip(gradients(ours, x, weight), gradients(theirs, *exact), strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=2e-5)


def test_the_loss_and_its_gradient_are_torchs_and_nothing_of_the_size_of_the_logits_is_new() -> None:
    torch.manual_seed(0)
    scores = 3 * torch.randn(60, 90)
    scores[3, 5] = 400.0  # whose neighbours have no chance that fp32 can hold
    targets = torch.randint(0, 90, (60,))
    targets[::7] = -100
    x, exact = scores.clone().requires_grad_(), scores.double().requires_grad_()
    logits = x * 1.0
    loss, expected = cpu.summed_cross_entropy(logits, targets), F.cross_entropy(exact, targets, reduction="sum")
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    assert loss.grad_fn is not None and loss.grad_fn.saved_tensors[0].data_ptr() == logits.data_ptr()  # type: ignore[attr-defined]
    (loss / 60).backward()
    (expected / 60).backward()
    assert x.grad is not None and exact.grad is not None
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=1e-5, atol=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(cpu.summed_cross_entropy(scores.clone(), targets), loss)


def test_a_second_backward_pass_is_refused_not_wrong() -> None:
    logits = torch.randn(4, 9, requires_grad=True) * 1.0
    loss = cpu.summed_cross_entropy(logits, torch.tensor([1, 2, 3, 4]))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_other_precisions_are_left_to_torch() -> None:
    x, weight = torch.randn(4, 8, dtype=torch.bfloat16, requires_grad=True), torch.randn(6, 8, dtype=torch.bfloat16)
    assert "_Linear" not in str(cpu.linear(x, weight).grad_fn)
    assert "_CrossEntropy" not in str(cpu.summed_cross_entropy(x.double(), torch.tensor([1, 2, 3, 4])).grad_fn)


def test_a_compiled_block_multiplies_by_onednn_too() -> None:
    from torch._dynamo.testing import CompileCounterWithBackend

    torch.manual_seed(0)
    model = Llama(ModelConfig(vocab_size=32, d_model=16, layers=1, heads=2, kv_heads=1, ffn=24))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    tokens = torch.randint(0, 32, (2, 8))
    expected = torch.autograd.grad(model(tokens, tokens), list(model.parameters()))
    graphs = CompileCounterWithBackend("aot_eager")
    model.layers[0].compile(backend=graphs)
    found = torch.autograd.grad(model(tokens, tokens), list(model.parameters()))
    assert "l3.times" in "".join(graph.print_readable(print_output=False) for graph in graphs.graphs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
