"""A whole job over meshes that change under it: checkpoints, resumption, averaging, held-out loss and the final model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from l3_platform.model import ModelConfig, load_exported
from l3_platform.train import TrainingStopped, TrainJob, TrainResult, ledger
from l3_platform.train.loop import train
from tests.parallel.ranks import in_processes
from tests.train.test_loop import StopAfter, job_in, losses

MODEL = ModelConfig(vocab_size=64, d_model=32, layers=4, heads=4, kv_heads=2, ffn=64)


def train_until(rank: int, job: TrainJob, stop_after: int) -> TrainResult | None:
    """The result, or None where the run was stopped first."""
    try:
        return train(job, stop_requested=StopAfter(stop_after))
    except TrainingStopped:
        return None


def job(folder: Path, **changes: Any) -> TrainJob:
    # Epsilon as in the differential suite: signs of tiny gradients would make much of rounding.
    known: dict[str, Any] = {"model": MODEL, "epsilon": 1e-2, "total_tokens": 6144, "average_last": 2, "micro_batch_tokens": 64}
    return job_in(folder, **(known | changes))


def same(got: TrainJob, expected: TrainJob, result: TrainResult, right: TrainResult) -> None:
    assert losses(got) == pytest.approx(losses(expected), rel=1e-5)
    assert result.fingerprint == right.fingerprint and result.averaged == right.averaged == 2
    assert result.held_out["general"] == pytest.approx(right.held_out["general"], rel=1e-5)
    assert np.array_equal(ledger.read(got.folder), ledger.read(expected.folder))  # every token, in order, once
    weights = [dict(load_exported(j.output).named_parameters()) for j in (got, expected)]
    assert list(weights[0]) == list(weights[1])
    for name, weight in weights[1].items():
        torch.testing.assert_close(weights[0][name], weight, atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.exhaustive
def test_a_checkpoint_written_on_one_mesh_goes_on_on_others_to_the_same_model(tmp_path: Path) -> None:
    whole = job(tmp_path / "whole")
    right = train(whole)
    moved = job(tmp_path / "moved")
    meshes = [
        (4, 5, {"pipeline_parallel": 2, "tensor_parallel": 2, "pipeline_schedule": "zero_bubble"}),
        (1, 6, {}),
        (4, 5, {"context_parallel": 2, "data_parallel_shard": 2}),
        (2, 99, {"pipeline_parallel": 2, "pipeline_schedule": "interleaved", "pipeline_micro_batches": 4}),
    ]
    result = None
    for number, (ranks, stop_after, degrees) in enumerate(meshes):
        assert result is None
        folder = tmp_path / str(number)
        folder.mkdir()
        result = in_processes(ranks, folder, train_until, moved.model_copy(update=degrees), stop_after)
    assert result is not None
    same(moved, whole, result, right)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "degrees",
    [
        {"pipeline_parallel": 2, "tensor_parallel": 2, "pipeline_schedule": "zero_bubble"},
        {"context_parallel": 2, "data_parallel_shard": 2},
        {"pipeline_parallel": 2, "pipeline_schedule": "interleaved", "pipeline_micro_batches": 4},
    ],
)
def test_on_the_same_mesh_a_resumed_run_is_an_undisturbed_one_bit_for_bit(tmp_path: Path, degrees: dict[str, Any]) -> None:
    whole, broken = (job(tmp_path / name, **degrees) for name in ("whole", "broken"))
    expected = in_processes(4, tmp_path, train_until, whole, 99)
    for stop_after in (5, 6):
        assert in_processes(4, tmp_path, train_until, broken, stop_after) is None
    assert in_processes(4, tmp_path, train_until, broken, 99) == expected
    assert losses(broken) == losses(whole) and np.array_equal(ledger.read(broken.folder), ledger.read(whole.folder))
    weights = [(Path(each.output) / "model.safetensors").read_bytes() for each in (broken, whole)]
    assert weights[0] == weights[1]


@pytest.mark.exhaustive
def test_a_job_in_four_dimensions_starts_from_an_exported_model(tmp_path: Path) -> None:
    first = job(tmp_path / "first")
    train(first)
    short = {"init_from": first.output, "seed": 8, "total_tokens": 2048, "checkpoint_every_tokens": 1024}
    whole = job(tmp_path / "whole", **short)
    right = train(whole)
    cut = job(tmp_path / "cut", **short, tensor_parallel=2, context_parallel=2, pipeline_parallel=2)
    result = in_processes(8, tmp_path, train_until, cut, 99)
    same(cut, whole, result, right)


def test_a_job_that_cannot_run_on_its_mesh_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1 rank cannot hold whole models of 2 ranks"):
        train(job(tmp_path, tensor_parallel=2))
    with pytest.raises(ValueError, match="cannot split a compiled backward pass"):
        job(tmp_path, pipeline_parallel=2, pipeline_schedule="zero_bubble", compile=True).mesh(2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"attention": "varlen", "precision": "bf16", "context_parallel": 2}, "wants whole sequences.* set train.attention=flex"),
        ({"attention": "varlen"}, "no kernel for fp32; set train.attention=auto, or train.precision=bf16"),
        ({"attention": "flex", "pipeline_parallel": 2, "pipeline_schedule": "zero_bubble"}, "cannot split flex's backward pass"),
        ({"precision": "fp8", "model": replace(MODEL, ffn=72)}, "fp8 wants multiples of 16, and FFN's width on a rank is 72"),
        ({"precision": "fp8", "tensor_parallel": 2}, "KV heads' width on a rank is 8; set train.precision=bf16"),
        ({"precision": "fp8", "context_parallel": 4}, "a rank's part of a sequence of 32 is 8"),
    ],
)
def test_kernels_that_the_mesh_or_the_shape_rules_out_are_refused_in_words(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    cut = job(tmp_path, **changes)
    with pytest.raises(ValueError, match=says):
        cut.mesh(cut.tensor_parallel * cut.context_parallel * cut.pipeline_parallel)


def test_auto_attention_is_native_in_fp32_and_where_the_schedule_splits_backward_passes(tmp_path: Path) -> None:
    assert job(tmp_path).attention_kernel == "native"
    assert job(tmp_path, precision="bf16").attention_kernel == "auto"
    zero_bubble = job(tmp_path, precision="bf16", pipeline_parallel=2, pipeline_schedule="zero_bubble")
    assert zero_bubble.attention_kernel == "native"


def test_a_kernel_for_gpus_alone_ends_a_run_on_a_cpu_in_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train.attention=flex has no backward pass on a CPU; set train.attention=auto"):
        train(job(tmp_path, attention="flex"))


def test_a_run_may_go_on_with_another_kernel_but_not_in_another_precision(tmp_path: Path) -> None:
    assert job(tmp_path, attention="sdpa").fingerprint == job(tmp_path).fingerprint
    assert job(tmp_path, precision="fp8").fingerprint != job(tmp_path, precision="bf16").fingerprint


def test_the_mesh_is_no_part_of_the_identity_of_a_job(tmp_path: Path) -> None:
    degrees = {"tensor_parallel": 2, "context_parallel": 2, "pipeline_parallel": 2, "pipeline_schedule": "interleaved"}
    assert job(tmp_path, **degrees, pipeline_micro_batches=4).fingerprint == job(tmp_path).fingerprint
