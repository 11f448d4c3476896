"""Spikes and steps that are not finite: what is skipped, when the run goes back, and that a resumed run decides alike."""

import json
import math
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from l3_platform.model import Llama, load_exported
from l3_platform.settings import Stage
from l3_platform.settings import Train as TrainSettings
from l3_platform.train import TrainingError, TrainingStopped, TrainJob, TrainResult, loop
from l3_platform.train import metrics as metrics_module
from l3_platform.train.branch import complete
from l3_platform.train.data_order import Step
from l3_platform.train.interleave import Mixture
from l3_platform.train.loop import train
from l3_platform.train.spikes import Memory, checkpoint_for, judge, robust_z, shape_of
from tests.train.test_loop import StopAfter, job_in, losses

BATCH = 256
LIMITS = {"spike_window": 6, "max_skipped_steps": 2, "max_rollbacks": 2}


def spiky_job(folder: Path, **changes: Any) -> TrainJob:
    ramp = (Stage(batch_tokens=BATCH, seq_len=32),)
    return job_in(folder, **({"ramp": ramp, "total_tokens": 30 * BATCH, "checkpoint_every_tokens": 5 * BATCH} | LIMITS | changes))


def plant(monkeypatch: pytest.MonkeyPatch, steps: set[int], tokens: Callable[[int], np.ndarray]) -> None:
    """The data of these steps (counted from 1) is replaced: `tokens(count)` are what is read instead."""
    honest = loop._Run._batch

    def batch(self: loop._Run, step: Step) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, targets = honest(self, step)
        if step.index + 1 in steps:
            planted = torch.from_numpy(tokens(step.seq_len + 1).astype(np.int64))
            inputs[:], targets[:] = planted[:-1], planted[1:]
        return inputs, targets

    monkeypatch.setattr(loop._Run, "_batch", batch)


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 60, count).astype("<u4")


MARK = 61  # a token that the language of `job_in` does not have


def plant_nan(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Batches of these steps give a loss that is not finite, whenever they are computed."""
    plant(monkeypatch, steps, lambda count: np.full(count, MARK, "<u4"))
    honest = Llama.forward

    def forward(self: Llama, inputs: torch.Tensor, targets: torch.Tensor, bos_id: int | None = None) -> torch.Tensor:
        return honest(self, inputs, targets, bos_id) * (float("nan") if bool((inputs == MARK).any()) else 1.0)

    monkeypatch.setattr(Llama, "forward", forward)


def weights(job: TrainJob) -> list[torch.Tensor]:
    return [p.detach() for p in load_exported(job.output).parameters()]


def same(one: TrainJob, other: TrainJob) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def test_the_robust_z_score_does_not_see_outliers_in_its_window() -> None:
    window = [1.0, 1.1, 0.9, 1.05, 0.95, 1000.0]
    assert robust_z(2.0, window, least_sigma=1e-9) > 8 > robust_z(1.2, window, least_sigma=1e-9)
    assert robust_z(0.1, window, least_sigma=1e-9) < 0  # a loss that falls is no spike


def test_a_window_in_which_nothing_varies_does_not_make_every_change_a_spike() -> None:
    assert robust_z(1.01, [1.0] * 6, least_sigma=0.02) < 1


def test_a_batch_of_noise_is_skipped_and_leaves_no_trace_in_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = spiky_job(tmp_path / "noise")
    plant(monkeypatch, {20}, noise)
    result = train(job)
    assert (result.skipped_steps, result.skipped_tokens, result.rollbacks) == (1, BATCH, 0)
    assert [row["step"] for row in metrics_module.read(job.folder) if row.get("skipped_steps")] == [20]
    assert losses(job)[20] > 1.3 * losses(job)[19]  # the record shows what was seen
    kept = json.loads((complete(job.folder)[0] / "complete.json").read_text())["position"]["memory"]
    assert kept["skipped"] == [[19 * BATCH, 20 * BATCH]]
    plant_nan(monkeypatch, {20})  # whatever was in the batch, the weights are the same
    other = spiky_job(tmp_path / "nan")
    assert train(other).skipped_steps == 1 and same(job, other)


def test_steps_that_are_not_finite_are_skipped_from_the_very_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant_nan(monkeypatch, {1, 2})
    result = train(spiky_job(tmp_path))
    assert result.skipped_steps == 2 and result.steps == 30 and math.isfinite(result.loss)


def test_too_many_in_a_row_roll_back_and_skip_the_data_since_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = spiky_job(tmp_path / "rolled")
    plant_nan(monkeypatch, {18, 19, 20})
    result = train(job)
    # The newest checkpoint from before is that of step 15: steps 16 to 20 never reach the weights.
    assert (result.skipped_steps, result.skipped_tokens, result.rollbacks) == (5, 5 * BATCH, 1)
    back = [(row["step"], row["rolled_back_to_step"]) for row in metrics_module.read(job.folder) if "rolled_back_to_step" in row]
    assert back == [(20, 15)]
    plant_nan(monkeypatch, {16, 17, 18, 19, 20})
    other = spiky_job(tmp_path / "skipped", max_skipped_steps=5)  # the same data, never rolled back
    assert train(other).skipped_tokens == result.skipped_tokens and same(job, other)


def test_a_second_rollback_without_a_checkpoint_in_between_goes_one_further_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = spiky_job(tmp_path)
    plant_nan(monkeypatch, set(range(17, 23)))
    result = train(job)
    back = [row["rolled_back_to_step"] for row in metrics_module.read(job.folder) if "rolled_back_to_step" in row]
    assert back == [15, 10] and result.rollbacks == 2 and result.skipped_steps == 12


@pytest.mark.parametrize("bad", [set(range(17, 40)), {1, 2, 3}])
def test_beyond_the_limits_the_run_fails_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: set[int]) -> None:
    plant_nan(monkeypatch, bad)
    with pytest.raises(TrainingError, match=r"loss nan, .* after 2 skipped steps in a row and [02] rollbacks; .* in a new run$"):
        train(spiky_job(tmp_path))


def test_with_the_settings_off_the_first_one_that_is_not_finite_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_nan(monkeypatch, {9})
    with pytest.raises(
        TrainingError, match=r"^step 9 \(tokens 2,048 to 2,304\): loss nan, .*; the newest checkpoint is from before"
    ):
        train(spiky_job(tmp_path, max_skipped_steps=0))


@pytest.mark.parametrize("stops", [(18, 2, 1), (19,), (20,), (21, 3)])
def test_a_run_stopped_in_a_bad_stretch_decides_as_an_undisturbed_one_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: tuple[int, ...]
) -> None:
    plant_nan(monkeypatch, {18, 19, 20, 26})
    whole, broken = spiky_job(tmp_path / "whole"), spiky_job(tmp_path / "broken")
    expected = train(whole)
    assert expected.rollbacks == 1 and expected.skipped_steps == 6
    for step in stops:
        with pytest.raises(TrainingStopped):
            train(broken, stop_requested=StopAfter(step))
    assert train(broken) == expected and same(whole, broken)


def test_a_crash_in_a_bad_stretch_changes_nothing_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant_nan(monkeypatch, {18, 19, 20})
    whole, broken = spiky_job(tmp_path / "whole"), spiky_job(tmp_path / "broken")
    expected = train(whole)

    def crash(at: int, row: dict[str, float]) -> None:
        if row["step"] == at:
            raise KeyboardInterrupt

    for at in (19, 20, 22):
        with pytest.raises(KeyboardInterrupt):
            train(broken, partial(crash, at))
        for thread in threading.enumerate():  # a real crash would have ended it
            if thread.name == "checkpoint":
                thread.join()
    assert train(broken) == expected and same(whole, broken)


def test_the_memory_survives_its_json_to_the_last_bit() -> None:
    memory = Memory((0.1, 1 / 3), (2.5,), (256, 32), 1, ((0, 256), (512, 768)), 2, 1, 15)
    assert Memory.from_json(json.loads(json.dumps(asdict(memory)))) == memory


def test_another_batch_size_begins_another_window(tmp_path: Path) -> None:
    job = spiky_job(tmp_path)
    memory = Memory(losses=(1.0,) * 6, norms=(1.0,) * 6, shape=shape_of(job, Step(6, 1536, 256, 32)))
    assert judge(memory, job, Step(6, 1536, 256, 32), 3.0, 1.0)[0] == "skip"
    assert judge(memory, job, Step(6, 1536, 512, 64), 3.0, 1.0)[0] == "take"


def test_a_gradient_norm_alone_is_a_spike_too(tmp_path: Path) -> None:
    job, step = spiky_job(tmp_path), Step(6, 1536, 256, 32)
    memory = Memory(losses=(1.0,) * 6, norms=(1.0, 1.1, 0.9, 1.0, 1.2, 0.8), shape=shape_of(job, step))
    verdict = [judge(memory, job, step, 1.0, norm)[0] for norm in (3.0, 100.0, math.inf)]
    assert verdict == ["take", "skip", "skip"]


def test_no_checkpoint_from_inside_the_stretch_is_gone_back_to() -> None:
    memory, step = Memory(in_a_row=3), Step(20, 0, 1, 1)
    assert checkpoint_for(memory, step, [(10, 8), (15, 13), (17, 15), (18, 15), (20, 15)]) == 17
    assert checkpoint_for(memory, step, [(18, 16), (20, 16)]) is None


def test_the_weights_that_a_rollback_took_are_not_taken_again_whatever_step_they_were_saved_in() -> None:
    memory, step = Memory(in_a_row=3, rolled_back_to=15), Step(20, 0, 1, 1)
    assert checkpoint_for(memory, step, [(10, 8), (15, 13), (17, 15)]) == 15
    assert checkpoint_for(memory, step, [(10, 8), (15, 15), (17, 15)]) == 10
    assert checkpoint_for(memory, step, [(17, 15)]) == 17
    assert checkpoint_for(replace(memory, rolled_back_to=8), step, [(10, 8), (15, 13), (17, 15)]) == 17


def test_a_checkpoint_of_the_step_that_rolled_back_holds_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = spiky_job(tmp_path, checkpoint_every_tokens=4 * BATCH)
    plant_nan(monkeypatch, set(range(10, 17)))
    train(job)
    back = [row["rolled_back_to_step"] for row in metrics_module.read(job.folder) if "rolled_back_to_step" in row]
    assert back == [8, 4]


@pytest.mark.parametrize(("every", "keep"), [(1, 3), (4, 1)])
def test_what_is_saved_in_a_bad_stretch_displaces_nothing_from_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, keep: int
) -> None:
    job = spiky_job(tmp_path, checkpoint_every_tokens=every * BATCH, keep_checkpoints=keep, max_skipped_steps=5)
    plant_nan(monkeypatch, set(range(21, 27)))
    assert train(job).rollbacks == 1
    back = [row["rolled_back_to_step"] for row in metrics_module.read(job.folder) if "rolled_back_to_step" in row]
    assert back == [20] and len(complete(job.folder)) == keep


def test_a_branch_goes_back_to_where_it_began_as_its_parent_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = spiky_job(tmp_path, keep_checkpoints=9)
    plant_nan(monkeypatch, {22, 23, 24})
    expected = train(whole)
    (at,) = [folder for folder in complete(whole.folder) if folder.name.endswith("020")]
    places = {"folder": str(tmp_path / "branch"), "output": str(tmp_path / "branched"), "branch_from": str(at)}
    branch = whole.model_copy(update=places)
    result = train(branch)
    assert result.rollbacks == expected.rollbacks == 1 and result.skipped_tokens == expected.skipped_tokens == 4 * BATCH
    assert same(whole, branch)


def test_a_branch_that_fails_before_its_first_checkpoint_says_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_nan(monkeypatch, {1, 2, 3})
    with pytest.raises(TrainingError, match="after 2 skipped steps in a row and 0 rollbacks; there is no checkpoint yet"):
        train(spiky_job(tmp_path))


def test_a_branch_has_rollbacks_of_its_own(tmp_path: Path) -> None:
    job, step = spiky_job(tmp_path), Step(20, 20 * BATCH, BATCH, 32)
    memory = Memory(in_a_row=2, rollbacks=2)
    assert judge(memory, job, step, math.nan, 1.0)[0] == "give up"
    assert judge(memory, job, step, math.nan, 1.0, earlier_rollbacks=2)[0] == "roll back"


def test_losses_of_other_shares_are_not_compared(tmp_path: Path) -> None:
    step = Step(20, 20 * BATCH, BATCH, 32)
    job = spiky_job(tmp_path / "one")
    scaled = job.model_copy(update={"shares": {domain: 2 * share for domain, share in job.shares.items()}})
    other = job.model_copy(update={"shares": {"code": 1.0}})
    late = job.model_copy(update={"mix_changes": (Mixture(from_tokens=21 * BATCH, shares=other.shares),)})
    changed = job.model_copy(update={"mix_changes": (Mixture(from_tokens=20 * BATCH, shares=other.shares),)})
    assert shape_of(job, step) == shape_of(scaled, step) == shape_of(late, step)
    assert shape_of(other, step) == shape_of(changed, step) != shape_of(job, step)


def test_the_default_limits_take_every_step_of_a_healthy_run(tmp_path: Path) -> None:
    defaults = TrainSettings()
    assert defaults.max_skipped_steps and defaults.max_rollbacks and defaults.spike_zscore
    limits = {name: getattr(defaults, name) for name in (*LIMITS, "spike_zscore")}
    result: TrainResult = train(job_in(tmp_path, **limits, total_tokens=49_152, learning_rate=2e-2))
    assert result.steps > 3 * defaults.spike_window / 2 and result.skipped_steps == 0 and result.held_out_loss < 2.0
