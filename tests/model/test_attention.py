"""Kernels of attention against SDPA under a dense mask. Backward passes of flex and varlen want a GPU; test_cpu.py has that of
Native."""

import subprocess
import sys
from functools import partial
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from l3_platform.model import Llama, ModelConfig
from l3_platform.model.attention import (
    BLOCK,
    Flex,
    Kernel,
    Native,
    Places,
    Sdpa,
    Varlen,
    document_numbers,
    documents_in,
    kernel_for,
)
from l3_platform.model.init import initialize
from l3_platform.parallel.context import places
from l3_platform.parallel.parallelize import prepare_blocks
from tests.flex_on_cpu import refusal_lifted, traced_flex

CPU, GPU = torch.device("cpu"), torch.device("cuda")
TINY = ModelConfig(vocab_size=50, d_model=64, layers=2, heads=4, kv_heads=2, ffn=64)
BOS = 49

# In order: (sequence, ranks of context parallelism). Whole blocks, less than one, and ends that are not full.
LENGTHS = [(64, 1), (384, 1), (300, 1), (512, 2), (400, 2), (768, 3), (400, 4)]

# torch says that flex wants to be compiled: here it is a reference.
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def ragged(seq_len: int, rows: int = 3, seed: int = 0) -> Tensor:
    """[rows, seq_len] of document numbers: short documents in the first row, a single one in the last."""
    often = torch.tensor([0.2, 0.01, 0.0])[:rows, None]
    return (torch.rand(rows, seq_len, generator=torch.Generator().manual_seed(seed)) < often).cumsum(1)


def cases(seq_len: int, ranks: int) -> list[tuple[Tensor | None, Places | None]]:
    """Documents and places of each rank, and for ranks of context parallelism without documents too."""
    documents = ragged(seq_len)
    if ranks == 1:
        return [(documents, None)]
    here = [places(seq_len, rank, ranks, CPU) for rank in range(ranks)]
    return [(document, place) for place in here for document in (documents, None)]


def heads(queries: int, keys: int, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """q of 4 heads, k and v of 2, of width 16."""
    random = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(3, h, n, 16, generator=random) for h, n in ((4, queries), (2, keys), (2, keys)))
    return tuple(x.to(**options) for x in (q, k, v))


def of_kernel(kernel: Kernel, document: Tensor | None, place: Places | None, seq_len: int) -> Tensor:
    queries = seq_len if place is None else len(place.queries)
    return kernel.attend(*heads(queries, seq_len), kernel.mask(document, place))


@pytest.mark.parametrize(("seq_len", "ranks"), LENGTHS)
def test_flex_attends_as_sdpa_does_under_a_dense_mask(seq_len: int, ranks: int) -> None:
    for document, place in cases(seq_len, ranks):
        torch.testing.assert_close(*(of_kernel(kernel, document, place, seq_len) for kernel in (Flex(False), Sdpa())))


@pytest.mark.parametrize(("seq_len", "ranks"), LENGTHS)
def test_native_attends_as_sdpa_does_in_every_precision(seq_len: int, ranks: int) -> None:
    for document, place in cases(seq_len, ranks):
        torch.testing.assert_close(*(of_kernel(kernel, document, place, seq_len) for kernel in (Native(), Sdpa())))
        q, k, v = heads(seq_len, seq_len, dtype=torch.bfloat16)
        if place is None:
            assert torch.equal(*(kernel.attend(q, k, v, kernel.mask(document)) for kernel in (Native(), Sdpa())))


@pytest.mark.parametrize(("seq_len", "ranks"), LENGTHS)
def test_flex_passes_over_no_block_that_is_seen_and_reads_none_whole_that_is_not(seq_len: int, ranks: int) -> None:
    """The reference does not look at blocks; compiled kernels compute these alone."""
    for document, place in cases(seq_len, ranks):
        mask, dense = Flex(False).mask(document, place), Sdpa().mask(document, place)
        assert dense is not None
        blocks = in_blocks(dense.expand(1, 1, -1, -1) if dense.dim() == 2 else dense)
        partial = listed(mask.kv_num_blocks, mask.kv_indices)
        whole = listed(mask.full_kv_num_blocks, mask.full_kv_indices)
        assert not (blocks.any(-1) & ~(partial | whole)).any() and not (whole & ~blocks.all(-1)).any()
        assert not (partial & whole).any()
        if ranks == 1:  # of permuted chunks a block may hold two
            assert torch.equal(partial | whole, blocks.any(-1)) and torch.equal(whole, blocks.all(-1))


def in_blocks(dense: Tensor) -> Tensor:
    """[batch, 1, queries, keys] to [batch, query blocks, key blocks, all of a block], past the end nothing seen."""
    queries, keys = dense.shape[2:]
    padded = F.pad(dense[:, 0], (0, -keys % BLOCK, 0, -queries % BLOCK))
    return padded.unflatten(2, (-1, BLOCK)).unflatten(1, (-1, BLOCK)).transpose(2, 3).flatten(3)


def listed(counts: Tensor, indices: Tensor) -> Tensor:
    """[batch, query blocks, key blocks]: whether a BlockMask lists it."""
    first = torch.arange(indices.shape[-1]) < counts[..., None]
    return torch.zeros(indices.shape, dtype=torch.bool).scatter(-1, indices.long(), first)[:, 0]


@pytest.mark.exhaustive  # 20 s of C++
@pytest.mark.parametrize(("seq_len", "ranks"), [(300, 1), (400, 2)])
def test_compiled_flex_which_reads_blocks_attends_as_sdpa_does(seq_len: int, ranks: int) -> None:
    with torch.no_grad():
        for document, place in cases(seq_len, ranks):
            torch.testing.assert_close(*(of_kernel(kernel, document, place, seq_len) for kernel in (Flex(True), Sdpa())))


@pytest.mark.slow
@pytest.mark.parametrize(("compiled", "checkpointing"), [(False, "none"), (True, "none"), (True, "selective")])
def test_a_model_under_flex_has_sdpas_gradients_where_torchs_refusal_is_lifted(compiled: bool, checkpointing: Any) -> None:
    """A second step, of other documents, compiles nothing."""
    expected = two_steps(Llama(TINY))
    model = Llama(TINY, traced_flex())
    with mock.patch.object(torch, "compile", partial(torch.compile, backend="aot_eager")):
        prepare_blocks(model.layers, checkpointing, compiled)
    with refusal_lifted():
        got = two_steps(model)
    for name, gradient in expected.items():
        assert (got[name] - gradient).abs().max() < 1e-5 * gradient.abs().max(), name


def two_steps(model: Llama) -> dict[str, Tensor]:
    """Summed gradients of two micro-batches with other documents each."""
    torch._dynamo.reset()
    initialize(model, 0)
    for seed in range(2):
        tokens = torch.randint(0, BOS + 1, (2, 201), generator=torch.Generator().manual_seed(seed))
        with torch._dynamo.config.patch(error_on_recompile=seed > 0):
            model(tokens[:, :-1], tokens[:, 1:], BOS).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_varlens_documents_attended_one_by_one_are_the_mask() -> None:
    document = ragged(70)
    q, k, v = heads(70, 70)
    starts, longest = documents_in(document)
    rows = [x.transpose(1, 2).flatten(0, 1) for x in (q, k, v)]
    spans = list(zip(starts.tolist(), starts[1:].tolist(), strict=False))
    one_by_one = [Sdpa().attend(*(x[first:end].transpose(0, 1)[None] for x in rows), None)[0] for first, end in spans]
    mixed = torch.cat(one_by_one, 1).transpose(0, 1).view(3, 70, 4, 16).transpose(1, 2)
    torch.testing.assert_close(mixed, Sdpa().attend(q, k, v, Sdpa().mask(document)))
    assert starts.dtype == torch.int32 and max(end - first for first, end in spans) <= longest


def test_a_document_ends_with_its_row() -> None:
    document = document_numbers(torch.tensor([[1, 2, BOS, 3], [4, 5, 6, 7], [BOS, BOS, 8, 9]]), BOS)
    assert documents_in(document).starts.tolist() == [0, 2, 4, 8, 9, 12]


@pytest.mark.parametrize("kernel", [Native(), Flex(False), Varlen()], ids=["native", "flex", "varlen"])
def test_a_mask_never_holds_as_many_numbers_as_there_are_pairs_of_tokens(kernel: Kernel) -> None:
    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, operator: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
            made = operator(*arguments, **(options or {}))
            for tensor in made if isinstance(made, tuple | list) else [made]:
                self.numbers = max(self.numbers, tensor.numel() if isinstance(tensor, Tensor) else 0)
            return made

    document = ragged(16_384)
    with Largest() as largest:
        kernel.mask(document)
    assert 0 < largest.numbers < 16_384**2 / 1000


def test_the_mask_is_made_once_a_forward_pass_and_its_kernel_gives_the_same_logits() -> None:
    class Counted(Flex):
        made = 0

        def mask(self, document: Tensor | None, places: Places | None = None) -> Any:
            self.made += 1
            return super().mask(document, places)

    flex = Counted(False)
    model, expected = Llama(TINY, flex), Llama(TINY)
    initialize(model, 0)
    initialize(expected, 0)
    tokens = torch.randint(0, BOS + 1, (2, 150), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(tokens, bos_id=BOS), expected(tokens, bos_id=BOS), atol=1e-5, rtol=1e-5)
    assert flex.made == 1


def test_auto_is_native_on_a_cpu_and_flex_on_a_gpu_whose_kernels_can() -> None:
    assert isinstance(kernel_for("auto", CPU, 128), Native) and type(kernel_for("sdpa", GPU, 128)) is Sdpa
    assert isinstance(kernel_for("auto", GPU, 128), Flex) and isinstance(kernel_for("varlen", GPU, 128), Varlen)
    assert isinstance(kernel_for("auto", GPU, 8), Native)  # the heads of the profile demo


@pytest.mark.parametrize(
    ("name", "device", "head_dim", "says"),
    [
        ("flex", CPU, 128, "train.attention=flex has no backward pass on a CPU; set train.attention=auto"),
        ("varlen", CPU, 128, "train.attention=varlen has no backward pass on a CPU; set train.attention=auto"),
        ("flex", GPU, 8, "wants heads of 16 or more, not 8; set train.attention=auto"),
        ("varlen", GPU, 20, "wants heads of at most 256, a multiple of 8, not 20; set train.attention=auto"),
    ],
)
def test_a_kernel_that_cannot_train_here_is_refused_in_words(name: Any, device: torch.device, head_dim: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        kernel_for(name, device, head_dim)


def test_flex_is_imported_only_where_it_is_chosen() -> None:
    code = (
        "import sys; import l3_platform.train.loop; from l3_platform.model.attention import kernel_for; import torch;"
        "kernel_for('auto', torch.device('cpu'), 128); assert 'torch.nn.attention.flex_attention' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["sdpa", "flex", "varlen"])
@pytest.mark.parametrize("seq_len", [64, 384, 300, 1000])
def test_every_kernel_agrees_forward_and_backward_on_a_gpu(name: Any, seq_len: int) -> None:
    """In bf16, with SDPA in fp32."""
    document = ragged(seq_len).to(GPU)
    sees = [(Sdpa(), torch.float32), (kernel_for(name, GPU, 16), torch.bfloat16)]
    found = []
    for kernel, dtype in sees:
        inputs = [x.requires_grad_() for x in heads(seq_len, seq_len, device=GPU, dtype=dtype)]
        mixed = kernel.attend(*inputs, kernel.mask(document))
        mixed.float().square().sum().backward()
        found.append([mixed.float(), *(x.grad.float() for x in inputs if x.grad is not None)])
    for expected, got in zip(*found, strict=True):
        assert (got - expected).abs().max() < 0.02 * expected.abs().max()
