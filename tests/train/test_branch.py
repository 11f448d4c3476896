"""A run that starts from a step checkpoint of another goes on exactly where that one stood."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from l3_platform.model import load_exported
from l3_platform.settings import Stage
from l3_platform.train import TrainingError, TrainingStopped, TrainJob, ledger
from l3_platform.train.branch import complete, read_origin
from l3_platform.train.data_plan import read_plans
from l3_platform.train.loop import train
from tests.train.test_loop import StopAfter, job_in, losses


def branch_of(parent: TrainJob, step: int, folder: Path, **changes: Any) -> TrainJob:
    """A job that changes nothing but where it starts, unless told to."""
    (checkpoint,) = [path for path in complete(parent.folder) if path.name == f"step-{step:08d}"]
    places = {"folder": str(folder / "run"), "output": str(folder / "model"), "branch_from": str(checkpoint)}
    return parent.model_copy(update=places | changes)


def weights(job: TrainJob) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in load_exported(job.output).named_parameters()}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    job = job_in(tmp_path_factory.mktemp("parent"), keep_checkpoints=9)
    train(job)
    return job


@pytest.mark.parametrize("step", [8, 20])  # in the first stage of the ramp, and in the second
def test_a_branch_that_changes_nothing_is_its_parent_bit_for_bit(parent: TrainJob, tmp_path: Path, step: int) -> None:
    branch = branch_of(parent, step, tmp_path)
    result, whole = train(branch), losses(parent)
    assert losses(branch) == {number: loss for number, loss in whole.items() if number > step}
    assert all(torch.equal(tensor, weights(parent)[name]) for name, tensor in weights(branch).items())
    assert result.branched_at == read_origin(branch.branch_from).position.tokens == 8192 - result.tokens


def test_a_branch_that_is_stopped_resumes_from_its_own_checkpoint(parent: TrainJob, tmp_path: Path) -> None:
    branch = branch_of(parent, 8, tmp_path)
    with pytest.raises(TrainingStopped):
        train(branch, stop_requested=StopAfter(5))
    seen: list[float] = []
    train(branch, lambda row: seen.append(row["step"]))
    assert seen[0] == 14
    assert losses(branch) == {number: loss for number, loss in losses(parent).items() if number > 8}


def test_several_decays_branch_from_one_stable_run(tmp_path: Path) -> None:
    wsd = {"schedule": "wsd", "ramp": (Stage(batch_tokens=256, seq_len=32),), "keep_checkpoints": 9}
    stable = job_in(tmp_path / "stable", **wsd)
    train(stable)
    rates = {}
    for step, total in ((16, 5120), (24, 7168)):
        branch = branch_of(stable, step, tmp_path / str(total), total_tokens=total, decay_tokens=1024, min_learning_rate_ratio=0.0)
        train(branch)
        rows = [json.loads(line) for line in (Path(branch.folder) / "metrics.jsonl").read_text().splitlines()]
        rates[total] = [row["learning_rate"] for row in rows]
    assert rates[5120] == rates[7168] == pytest.approx([1e-2 * left for left in (0.875, 0.625, 0.375, 0.125)])


def test_annealing_carries_optimizer_state_and_goes_on_in_the_data(parent: TrainJob, tmp_path: Path) -> None:
    last = max(losses(parent))
    anneal = branch_of(
        parent, last, tmp_path, schedule="linear_to_zero", learning_rate=1e-3, warmup_tokens=0, total_tokens=8192 + 1536,
        ramp=(Stage(batch_tokens=256, seq_len=64),), shares={"general": 0.2, "code": 0.8}, average_last=3,
        checkpoint_every_tokens=512,
    )  # fmt: skip
    result = train(anneal)
    assert (result.branched_at, result.tokens, result.averaged, result.steps) == (8192, 1536, 3, 6)
    first, second = read_plans(anneal.output)
    assert (first.tokens, second.start, second.tokens) == (8192, 8192, 8192 + 1536)
    assert second.order_before == first.order().read_until(8192)
    assert ledger.consumed(anneal.folder, list(anneal.data), [last + 6])[0]["code"] == pytest.approx(0.8 * 1536, abs=64)


def test_a_branch_of_another_parent_is_refused_the_checkpoints_of_this_one(parent: TrainJob, tmp_path: Path) -> None:
    train(branch_of(parent, 8, tmp_path))
    (tmp_path / "model" / "result.json").unlink()
    with pytest.raises(TrainingError, match="belongs to another job"):
        train(branch_of(parent, 16, tmp_path))


def test_a_damaged_checkpoint_is_no_place_to_branch_from(tmp_path: Path) -> None:
    job = job_in(tmp_path, total_tokens=2048)
    train(job)
    damaged = next(complete(job.folder)[0].glob("*.distcp"))
    damaged.write_bytes(damaged.read_bytes()[:-10] + bytes(10))
    with pytest.raises(TrainingError, match="has changed since it was written, so nothing can branch from it"):
        train(branch_of(job, 8, tmp_path / "branch", total_tokens=4096))


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"step-00000008 is no complete checkpoint.*run its parent again"):
        _ = job_in(tmp_path, branch_from=str(tmp_path / "step-00000008")).fingerprint
