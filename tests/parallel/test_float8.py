"""Training in fp8, emulated: what is replaced, and how far it is from bf16. Wants the extra `gpu`, which needs no GPU."""

import sys
from pathlib import Path
from unittest import mock

import pytest
import torch

from l3_platform.model import Llama, ModelConfig
from l3_platform.model.init import initialize
from l3_platform.parallel import Mesh, float8
from l3_platform.parallel.parallel_model import build
from l3_platform.parallel.schedule import PipelineSchedule
from tests.parallel.differential import Case, three_steps
from tests.parallel.ranks import in_processes

CONFIG = ModelConfig(vocab_size=64, d_model=64, layers=2, heads=4, kv_heads=2, ffn=128)
BLOCK = {*(f"attention.{name}" for name in ("wq", "wk", "wv", "wo")), *(f"feed_forward.{name}" for name in ("w1", "w2", "w3"))}


def model(emulated: bool) -> Llama:
    made = Llama(CONFIG)
    if emulated:
        float8.convert(made.layers, emulate=True)
    initialize(made, 1)
    return made


def test_exactly_the_linear_layers_of_blocks_are_replaced_and_no_parameter_is_renamed() -> None:
    linear = pytest.importorskip("torchao.float8.float8_linear").Float8Linear
    converted = model(True)
    replaced = {name for name, module in converted.named_modules() if isinstance(module, linear)}
    assert replaced == {f"layers.{layer}.{name}" for layer in range(CONFIG.layers) for name in BLOCK}
    assert type(converted.output) is type(model(False).output)
    shapes = [{name: p.shape for name, p in m.named_parameters()} for m in (converted, model(False))]
    assert shapes[0] == shapes[1]


def test_a_step_in_emulated_fp8_is_near_that_in_bf16() -> None:
    pytest.importorskip("torchao")
    tokens = torch.randint(0, 64, (4, 33), generator=torch.Generator().manual_seed(0))
    losses, gradients = [], []
    for emulated in (False, True):
        trained = model(emulated).to(torch.bfloat16)
        loss = trained(tokens[:, :-1], tokens[:, 1:], 63)
        loss.backward()
        losses.append(loss.item())
        gradients.append({name: p.grad.float() for name, p in trained.named_parameters() if p.grad is not None})
    assert losses[1] == pytest.approx(losses[0], rel=5e-3) and losses[0] != losses[1]
    for name, gradient in gradients[0].items():
        assert (gradients[1][name] - gradient).norm() < 0.15 * gradient.norm(), name


def losses_on_meshes(rank: int, cases: list[Case]) -> dict[str, list[float]]:
    """Of each case, its fp8 emulated."""
    convert = float8.convert
    with (
        mock.patch.object(float8, "check_device", lambda device: None),
        mock.patch.object(float8, "convert", lambda blocks: convert(blocks, emulate=True)),
    ):
        return {case.name: three_steps(case, case.mesh, rank).losses for case in cases}


@pytest.mark.slow
def test_fp8_follows_bf16_under_every_parallelism(tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    meshes = [(Mesh(dp_shard=2), None), (Mesh(cp=2), None), (Mesh(tp=2), None), (Mesh(pp=2), PipelineSchedule("zero_bubble"))]
    cases = [Case(mesh, schedule, options={"precision": "fp8"}) for mesh, schedule in meshes]
    expected = three_steps(Case(Mesh()), Mesh(), 0).losses
    for name, got in in_processes(2, tmp_path, losses_on_meshes, cases).items():
        assert got == pytest.approx(expected, rel=3e-3) and got != pytest.approx(expected, rel=1e-7), name


def test_a_cpu_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match=r"train.precision=fp8 needs a GPU that has fp8 .*; set train.precision=bf16"):
        build(CONFIG, Mesh(), 0, device=torch.device("cpu"), precision="fp8")


def test_a_gpu_without_fp8_is_refused_in_words() -> None:
    with (
        mock.patch.object(torch.cuda, "get_device_capability", lambda device: (8, 0)),
        mock.patch.object(torch.cuda, "get_device_name", lambda device: "NVIDIA A100"),
        pytest.raises(
            ValueError, match=r"NVIDIA A100 has no fp8 \(compute capability 8\.0, it begins with 8\.9\); set train.precision"
        ),
    ):
        float8.check_device(torch.device("cuda"))


def test_a_missing_torchao_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.float8", None)
    with pytest.raises(ValueError, match=r"train.precision=fp8 needs torchao: pip install 'l3-platform\[gpu\]'"):
        float8.convert(Llama(CONFIG).layers)
