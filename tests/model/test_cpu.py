"""What a CPU does by itself against what torch does."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numba
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from l3_platform.model import Llama, ModelConfig, cpu, cpu_kernels
from l3_platform.model.attention import Native, Seen, document_begins
from l3_platform.model.init import initialize
from l3_platform.model.llama import in_chunks, rotary_table, rotate
from l3_platform.parallel.parallelize import prepare_blocks


@pytest.fixture(autouse=True)
def worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_WORTH_IT", 1)
    monkeypatch.setattr(cpu, "_LARGE", 1)


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
    of_logits = loss.grad_fn.saved_tensors[0]  # type: ignore[union-attr]
    assert of_logits.data_ptr() == logits.data_ptr()
    (loss / 60).backward()
    (expected / 60).backward()
    assert x.grad is not None and exact.grad is not None
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=1e-5, atol=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(cpu.summed_cross_entropy(scores.clone(), targets), loss)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_logit_that_is_no_number_makes_the_loss_none(broken: float) -> None:
    logits = torch.randn(20, 70)
    logits[3, 60] = broken
    assert not cpu.summed_cross_entropy(logits, torch.zeros(20, dtype=torch.int64)).isfinite()


@pytest.mark.parametrize("targets", [[1, 2, 9], [1, 2]])
def test_a_target_outside_the_logits_is_refused(targets: list[int]) -> None:
    with pytest.raises(IndexError, match="targets up to"):
        cpu.summed_cross_entropy(torch.randn(3, 9), torch.tensor(targets))


@pytest.mark.parametrize("rows", [7, 1000])
def test_a_loss_in_chunks_is_that_of_one(rows: int) -> None:
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(30, 8), torch.randn(50, 8, requires_grad=True), torch.randint(0, 50, (30,))
    found = in_chunks(lambda h, t: cpu.summed_cross_entropy(cpu.linear(h, weight), t), hidden, targets, rows)
    expected = F.cross_entropy(F.linear(hidden, weight), targets, reduction="sum")
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, weight), torch.autograd.grad(expected, weight), rtol=1e-5, atol=1e-5)


def close_to_exact(ours: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Values and gradients, against the plain formula in double precision."""
    singles = [tensor.detach().requires_grad_() for tensor in inputs]
    doubles = [tensor.detach().double().requires_grad_() for tensor in inputs]
    found, expected = ours(*singles), plain(*doubles)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    grad = torch.randn(found.shape)
    of_found, of_expected = torch.autograd.grad(found, singles, grad), torch.autograd.grad(expected, doubles, grad.double())
    for one, other in zip(of_found, of_expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 50, 24), (200, 7), (1, 24)])  # more and fewer tokens than sums have parts
def test_a_norm_in_one_pass_is_torchs(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, weight = 3.0 * torch.randn(shape), torch.randn(shape[-1])
    x[..., 0, :] = 0.0
    close_to_exact(lambda x, w: cpu.rms_norm(x, w, 1e-5), lambda x, w: F.rms_norm(x, w.shape, w, 1e-5), x, weight)


@pytest.mark.parametrize("by_token", [True, False])
def test_a_rotation_in_one_pass_is_the_models_own(by_token: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    table = rotary_table(9, 6, 500.0, torch.device("cpu"))
    x = torch.randn(2, 9, 3, 6).transpose(1, 2) if by_token else torch.randn(2, 3, 9, 6)
    with monkeypatch.context() as plain:
        plain.setattr(cpu, "PLAIN", ())
        exact = x.double().requires_grad_()
        expected = rotate(exact, table)  # in fp32, as anywhere
        of_exact = gradients(expected, exact)[0]
    ours = x.requires_grad_()
    found = rotate(ours, table)
    assert "_Rotate" in str(found.grad_fn)
    torch.testing.assert_close(found, expected.float(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradients(found, ours)[0], of_exact.float(), rtol=1e-5, atol=1e-6)


def test_swiglu_in_one_pass_is_torchs_however_far_its_gate() -> None:
    torch.manual_seed(0)
    gate, up = 8.0 * torch.randn(3, 40, 31), torch.randn(3, 40, 31)
    gate[0, 0, :6] = torch.tensor([-200.0, -90.0, -0.0, 0.0, 90.0, 200.0])
    close_to_exact(cpu.swiglu, lambda gate, up: F.silu(gate) * up, gate, up)
    broken = cpu.swiglu(torch.tensor([[float("nan"), float("inf")]]), torch.ones(1, 2))
    assert broken[0, 0].isnan() and broken[0, 1].isinf()


def sdpa(q: Tensor, k: Tensor, v: Tensor, begins: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=Seen(begins).dense(), enable_gqa=True)


@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 1), (6, 2), (3, 3)])
@pytest.mark.parametrize("size", [8, 24, 32, 48])  # a vector and part of one, two, three
@pytest.mark.parametrize("seq", [1, 33, 64, 200])  # blocks of queries that are not full, and one that is
def test_attention_in_blocks_and_its_gradients_are_as_exact_as_torchs(seq: int, size: int, heads: int, kv_heads: int) -> None:
    torch.manual_seed(seq)
    q, k, v = (torch.randn(3, n, seq, size) for n in (heads, kv_heads, kv_heads))
    often = torch.tensor([0.3, 0.02, 0.0])[:, None]  # documents of a few tokens, and one that is the sequence
    begins = document_begins((torch.rand(3, seq) < often).cumsum(1))
    q[:, :, seq // 2] *= 5.0  # probabilities near 0 and 1
    grad = torch.randn(q.shape)

    def found(attend: Callable[..., Tensor], begins: Tensor | None, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        inputs = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        mixed = attend(*inputs, begins)
        return [mixed.detach(), *torch.autograd.grad(mixed, inputs, grad.to(dtype))]

    whole = torch.zeros_like(begins)
    for ours, where in ((found(cpu.attend, begins), begins), (found(cpu.attend, None), whole)):
        for one, torchs, exact in zip(ours, found(sdpa, where), found(sdpa, where, torch.float64), strict=True):
            error, of_torchs = (one - exact).abs().max().item(), (torchs - exact).abs().max().item()
            assert error <= 2.0 * of_torchs + 5e-6


def test_a_query_or_key_that_is_no_number_makes_attention_none_but_not_in_other_documents() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 100, 16) for _ in range(3))
    document = (torch.arange(100) >= 40).long()[None]
    expected = cpu.attend(q, k, v, document_begins(document))
    q[0, 0, 70, 3] = float("nan")
    found = cpu.attend(q, k, v, document_begins(document))
    assert found[0, 0, 70].isnan().all()
    found[0, 0, 70] = expected[0, 0, 70]
    assert torch.equal(found, expected)
    k[0, 1, 60, 0] = float("nan")
    found = cpu.attend(q, k, v, document_begins(document))
    assert not found[0, 1, 60:].isfinite().any() and torch.equal(found[0, 1, :60], expected[0, 1, :60])


def test_what_is_computed_again_in_the_backward_pass_is_not_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"none": 0, "selective": 0, "full": 0}
    tokens = torch.randint(0, 64, (3, 20))
    for how in calls:
        model = Llama(ModelConfig(vocab_size=64, d_model=32, layers=2, heads=4, kv_heads=2, ffn=48))
        initialize(model, 0)
        prepare_blocks(model.layers, how, compile_blocks=False)  # pyright: ignore[reportArgumentType]

        def counted(*arguments: object, how: str = how, attend: Callable[..., None] = cpu_kernels.attend) -> None:
            calls[how] += 1
            attend(*arguments)

        with monkeypatch.context() as counting:
            counting.setattr(cpu_kernels, "attend", counted)
            model(tokens, tokens, bos_id=5).backward()
    assert calls == {"none": 2, "selective": 2, "full": 4}


def test_numba_leaves_torch_the_threads_that_it_has() -> None:
    """It starts once a process."""
    code = (
        "import torch; from l3_platform.model import cpu; torch.set_num_threads(1); x = torch.ones(4, 8);"
        "cpu.swiglu(x, x); assert torch.get_num_threads() == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"NUMBA_NUM_THREADS": "2"})


def test_attention_that_a_kernel_of_ours_does_not_pay_for_is_sdpas(monkeypatch: pytest.MonkeyPatch) -> None:
    def by(q: Tensor, k: Tensor) -> str:
        return str(Native().attend(q.requires_grad_(), k, k, None).grad_fn)

    q, k = torch.randn(2, 4, 20, 16), torch.randn(2, 2, 20, 16)
    assert "_Attend" in by(q, k)
    assert "_Attend" not in by(q.detach().bfloat16(), k.bfloat16())
    assert "_Attend" not in by(q[:, :, :7].detach(), k)  # a chunk of queries
    monkeypatch.setattr(torch, "get_num_threads", lambda: 9)  # of which most have no key head of a sequence
    assert "_Attend" not in by(q.detach(), k)
    monkeypatch.setattr(cpu, "_LARGE", q.numel() + 1)
    assert "_Attend" not in by(q.detach()[:1], k[:1])


def test_a_model_of_large_tensors_has_the_loss_and_gradients_of_torchs_own_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Llama(ModelConfig(vocab_size=64, d_model=32, layers=2, heads=4, kv_heads=2, ffn=48))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    tokens = torch.randint(0, 64, (3, 20))

    def step() -> tuple[Tensor, list[Tensor]]:
        loss = model(tokens, tokens, bos_id=5)
        return loss.detach(), list(torch.autograd.grad(loss, list(model.parameters())))

    loss, found = step()
    monkeypatch.setattr(cpu, "PLAIN", ())
    expected_loss, expected = step()
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=0)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * other.abs().max().item())


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="numba has one thread")
def test_gradients_do_not_depend_on_the_threads() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(999, 33, requires_grad=True), torch.randn(33, requires_grad=True)
    q, k, v = (torch.randn(3, heads, 90, 8, requires_grad=True) for heads in (6, 3, 3))
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            of_attention = gradients(cpu.attend(q, k, v, None), q, k, v)
            found.append(gradients(cpu.rms_norm(x, weight, 1e-5), x, weight) + of_attention)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_gradient_of_a_gradient_is_refused_not_wrong() -> None:
    x, weight = torch.randn(4, 8, requires_grad=True), torch.randn(8, requires_grad=True)
    (first,) = torch.autograd.grad(cpu.rms_norm(x, weight, 1e-5).sin().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_a_second_backward_pass_is_refused_not_wrong() -> None:
    logits = torch.randn(4, 9, requires_grad=True) * 1.0
    loss = cpu.summed_cross_entropy(logits, torch.tensor([1, 2, 3, 4]))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_other_precisions_are_left_to_torch() -> None:
    x, weight = torch.randn(4, 8, dtype=torch.bfloat16, requires_grad=True), torch.randn(6, 8, dtype=torch.bfloat16)
    assert "_Linear" not in str(cpu.linear(x, weight).grad_fn)
    assert not cpu.pays(x, weight)
    assert "_CrossEntropy" not in str(cpu.summed_cross_entropy(x.double(), torch.tensor([1, 2, 3, 4])).grad_fn)


def test_a_compiled_block_multiplies_by_onednn_and_attends_in_blocks_too() -> None:
    from torch._dynamo.testing import CompileCounterWithBackend

    torch.manual_seed(0)
    model = Llama(ModelConfig(vocab_size=32, d_model=16, layers=1, heads=2, kv_heads=1, ffn=24))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    tokens = torch.randint(0, 32, (2, 8))
    expected = torch.autograd.grad(model(tokens, tokens, bos_id=5), list(model.parameters()))
    graphs = CompileCounterWithBackend("aot_eager")
    model.layers[0].compile(backend=graphs)
    found = torch.autograd.grad(model(tokens, tokens, bos_id=5), list(model.parameters()))
    text = "".join(graph.print_readable(print_output=False) for graph in graphs.graphs)
    assert "l3.times" in text and "l3.attend" in text and "scaled_dot_product" not in text
    assert len(graphs.graphs) == 1  # nothing breaks a block
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


GRADIENTS = """
import hashlib, torch
from l3_platform.model import Llama, ModelConfig, cpu
from l3_platform.model.init import initialize
cpu._LARGE = cpu._WORTH_IT = 1
torch.set_num_threads(1)
model = Llama(ModelConfig(vocab_size=512, d_model=80, layers=2, heads=5, kv_heads=5, ffn=96))
initialize(model, 0)
tokens = torch.randint(0, 512, (3, 150), generator=torch.Generator().manual_seed(0))
model(tokens, tokens, bos_id=5).backward()
print(hashlib.md5(b"".join(p.grad.numpy().tobytes() for p in model.parameters())).hexdigest())
"""


@pytest.mark.exhaustive  # kernels are compiled
def test_a_process_that_compiles_the_kernels_computes_what_one_does_that_finds_them_compiled(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    run = partial(subprocess.run, [sys.executable, "-c", GRADIENTS], env=environment, check=True, capture_output=True, text=True)
    compiling = run().stdout
    assert list(tmp_path.rglob("*attend_backward*.nbc")), "nothing was compiled"
    assert run().stdout == compiling
