"""Long context: each length is judged before the next, and whatever is killed, nothing is trained twice."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from l3_platform.long_context import read_story
from l3_platform.pretrain import Tracked, build_annealed, last_checkpoint, reached
from l3_platform.settings import SettingsError
from l3_platform.store import files
from l3_platform.train import TrainingError, TrainJob, TrainResult
from l3_platform.train.branch import read_origin
from l3_platform.train.loop import train
from l3_platform.train.probes import read_probes
from tests.pretrained import catalog, long_context, settings


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """A home with a pre-trained model."""
    home = tmp_path_factory.mktemp("pretrained") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("L3_HOME", str(home))
        catalog(settings())
    return home


@pytest.fixture
def home(pretrained, tmp_path, monkeypatch) -> Path:
    shutil.copytree(pretrained, tmp_path / "home")
    monkeypatch.setenv("L3_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


class Launcher:
    """Trains in this process and remembers; `spoil` changes what a slice's result is said to be."""

    def __init__(self, spoil=lambda name, result: result) -> None:
        self.jobs: list[TrainJob] = []
        self.steps: list[tuple[str, int]] = []
        self._spoil = spoil

    def __call__(self, job: TrainJob) -> TrainResult:
        self.jobs.append(job)
        name = Path(job.folder).name
        return self._spoil(name, train(job, lambda row: self.steps.append((name, int(row["step"])))))


def slices(dataset) -> list[str]:
    return [row["slice"] for row in read_story(dataset)["slices"]]


def metrics(dataset) -> dict[str, Any]:
    return dataset.manifest.metrics


def test_every_length_is_trained_from_the_one_before_and_the_last_is_kept(home):
    launch = Launcher()
    dataset = long_context(catalog(settings()), launch)
    assert slices(dataset) == ["128-0", "256-0"] and metrics(dataset)["reached"] == 256
    assert [max(stage.seq_len for stage in job.ramp) for job in launch.jobs] == [128, 256]
    assert [read_origin(job.branch_from).position.tokens for job in launch.jobs] == [4096, 5120]
    assert all(job.document_mask for job in launch.jobs)


def test_needles_are_asked_at_every_length_up_to_the_stages(home):
    made = catalog(settings("long_context.needle_accuracy=0.0"))
    launch = Launcher()
    story = read_story(long_context(made, launch))
    asked = [sorted({probe.length for probe in read_probes(job.probes)}) for job in launch.jobs]
    assert asked == [[64, 128], [64, 128, 256]] == [asked[0], sorted({row["length"] for row in story["needles"]})]
    assert {row["depth"] for row in story["needles"]} == {0.0, 0.25, 0.5, 0.75, 1.0}


def test_a_model_at_chance_that_has_to_find_every_needle_stops_and_the_pretrained_model_stays(home):
    made = catalog(settings("long_context.needle_accuracy=1.0", "long_context.extra_slices=2"))
    dataset = long_context(made)
    assert slices(dataset) == ["128-0", "128-1", "128-2"]
    assert (metrics(dataset)["reached"], metrics(dataset)["kept"]) == (64, "")
    assert "needles are found (long_context.needle_accuracy 1)" in metrics(dataset)["stopped because"]
    before = made.dataset("pretrained")
    weights = [files.read(files.join(one.folder, "model", "model.safetensors")) for one in (before, dataset)]
    assert weights[0] == weights[1]
    assert reached(dataset, before) == (64, last_checkpoint(before))


def test_a_stage_whose_short_loss_has_not_recovered_trains_on_until_it_has(home):
    def worse_at_first(name: str, result: TrainResult) -> TrainResult:
        return result.model_copy(update={"held_out": {"general": (9.9, 1)}}) if name == "128-0" else result

    launch = Launcher(worse_at_first)
    dataset = long_context(catalog(settings()), launch)
    assert slices(dataset) == ["128-0", "128-1", "256-0"]
    first, second = read_story(dataset)["slices"][:2]
    assert (first["passed"], second["passed"], second["short loss before"]) == (False, True, 9.9)
    assert second["tokens"] == 256 and read_origin(launch.jobs[1].branch_from).position.tokens == 5120


def test_the_last_length_that_passed_is_kept_where_a_longer_one_fails(home):
    launch = Launcher(
        lambda name, result: result.model_copy(update={"held_out": {"general": (9.9, 1)}}) if "256" in name else result
    )
    made = catalog(settings("long_context.extra_slices=1"))
    dataset = long_context(made, launch)
    assert slices(dataset) == ["128-0", "256-0", "256-1"]
    assert (metrics(dataset)["reached"], metrics(dataset)["kept"]) == (128, "128-0")
    assert metrics(dataset)["stopped because"].startswith("the loss on short sequences is 9.9000, was ")
    seq_len, checkpoint = reached(dataset, made.dataset("pretrained"))
    assert seq_len == 128 and read_origin(checkpoint).position.tokens == 5120


def test_no_stages_hand_the_pretrained_model_on(home):
    dataset = long_context(catalog(settings("long_context.stages=[]")))
    assert slices(dataset) == [] and metrics(dataset)["reached"] == metrics(dataset)["wanted"] == 64


class Killed(Exception):
    pass


@pytest.mark.parametrize("where", ["between stages", "within a stage"])
def test_a_kill_costs_no_finished_slice_and_changes_no_byte(home, where):
    undisturbed, whole = Launcher(), catalog(settings())
    expected = long_context(whole, undisturbed)
    shutil.rmtree(home / "data" / "long_context")
    for folder in (home / "checkpoints").glob("long_context-*"):
        shutil.rmtree(folder)

    killed = Launcher()

    def killing(job: TrainJob) -> TrainResult:
        if Path(job.folder).name != "256-0":
            return killed(job)
        if where == "between stages":
            raise Killed

        def at_the_second_step(row: dict[str, float]) -> None:
            killed.steps.append(("256-0", int(row["step"])))
            if row["tokens"] >= 6144:
                raise Killed

        return train(job, at_the_second_step)

    with pytest.raises(Killed):
        long_context(catalog(settings()), killing)
    resumed, tracked = Launcher(), []
    dataset = long_context(catalog(settings()), resumed, tracked)
    assert tracked == ["256-0"] and [Path(job.folder).name for job in resumed.jobs] == ["256-0"]
    assert dataset.manifest.content == expected.manifest.content
    repeated = set(killed.steps) & set(resumed.steps)
    assert set(killed.steps) | set(resumed.steps) == set(undisturbed.steps)
    assert len(repeated) <= 1  # the step behind which it was killed, before its checkpoint


def test_annealing_starts_from_the_length_that_was_reached_with_all_state(home):
    made = catalog(settings("anneal.tokens=1536"))
    dataset = long_context(made)
    launch = Launcher()
    inputs = {name: datasets for name, datasets in made.inputs("long_context").items()} | {"long_context": [dataset]}
    writer = made.writer("long_context")
    names, numbers = build_annealed(**inputs, out=writer, settings=made.settings, launch=launch, tracked=Tracked())
    (job,) = launch.jobs
    assert job.branch_from == reached(dataset, made.dataset("pretrained"))[1] and job.ramp[0].seq_len == 256
    assert numbers["tokens"] == 1536 and launch.steps[0][1] == read_origin(job.branch_from).position.step + 1
    assert names == ["part-00000"]


def test_a_parent_without_checkpoints_is_one_sentence(home):
    made = catalog(settings())
    for folder in (home / "checkpoints").glob("pretrained-*/step-*"):
        shutil.rmtree(folder)
    with pytest.raises(TrainingError, match=r"holds no checkpoint of pretrained.*materialize pretrained again"):
        long_context(made)


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        (
            '[{"seq_len": 256, "tokens": 512, "batch_tokens": 256}, {"seq_len": 128, "tokens": 512, "batch_tokens": 256}]',
            "must grow",
        ),
        ('[{"seq_len": 256, "tokens": 512, "batch_tokens": 300}]', "batch_tokens 300 is no multiple of seq_len 256"),
        ('[{"seq_len": 256, "tokens": 100, "batch_tokens": 256}]', "less than one sequence of 256"),
    ],
)
def test_impossible_stages_are_refused_in_words(stages, says):
    with pytest.raises(SettingsError, match=says):
        settings(f"long_context.stages={stages}")
