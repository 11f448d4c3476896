"""Long context: each length is judged before the next, and whatever is killed, nothing is trained twice."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from l3_platform.lineage import Catalog
from l3_platform.long_context import read_story
from l3_platform.model import RopeScaling, read_config
from l3_platform.pretrain import Tracked, build_annealed, last_checkpoint, model_folder, reached
from l3_platform.settings import SettingsError
from l3_platform.store import files
from l3_platform.train import TrainingError, TrainJob, TrainResult
from l3_platform.train.branch import complete, read_origin
from l3_platform.train.interleave import Mixture
from l3_platform.train.loop import train
from l3_platform.train.probes import read_probes
from tests.pretrained import STAGES, catalog, long_context, settings


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
    """Trains in this process, whatever the mesh, and remembers; `spoil` changes what a slice's result is said to be."""

    def __init__(self, spoil=lambda name, result: result) -> None:
        self.jobs: list[TrainJob] = []
        self.steps: list[tuple[str, int]] = []
        self._spoil = spoil

    def __call__(self, job: TrainJob) -> TrainResult:
        self.jobs.append(job)
        name = Path(job.folder).name
        job = job.model_copy(update=dict.fromkeys(("tensor_parallel", "context_parallel", "pipeline_parallel"), 1))
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


def test_the_mix_is_the_one_that_pre_training_came_to_and_not_one_behind_its_end(home, monkeypatch):
    shares = {0: 1.0, 2048: 2.0, 4096: 3.0}  # by tokens; pre-training ends at 4,096
    mixtures = tuple(Mixture(from_tokens=start, shares={"general": share}) for start, share in shares.items())
    monkeypatch.setattr("l3_platform.long_context.mixtures_of", lambda data_mix, phase: mixtures)
    launch = Launcher()
    long_context(catalog(settings()), launch)
    assert [job.shares for job in launch.jobs] == [{"general": 2.0}] * 2


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


def annealed(made, dataset) -> TrainJob:
    """The job of annealing, trained."""
    launch = Launcher()
    inputs = made.inputs("long_context") | {"long_context": [dataset]}
    build_annealed(**inputs, out=made.writer("long_context"), settings=made.settings, launch=launch, tracked=Tracked())
    return launch.jobs[0]


@pytest.mark.parametrize(("wanted", "trained"), [(1536, 1536), (1400, 1536), (100, 768)])
def test_the_checkpoints_that_are_averaged_are_as_many_as_said_and_equally_far_apart(home, wanted, trained):
    made = catalog(settings(f"anneal.tokens={wanted}", "anneal.checkpoints=3", "long_context.stages=[]"))
    job = annealed(made, long_context(made, Launcher()))
    begun = read_origin(job.branch_from).position.tokens
    ends = sorted(read_origin(folder).position.tokens - begun for folder in complete(job.folder))
    assert ends == [trained // 3, 2 * trained // 3, trained] and job.average_last == 3


def test_documents_stay_apart_at_long_lengths_whatever_pre_training_did(home):
    made, launch = catalog(settings("train.document_mask=false", "anneal.tokens=1536")), Launcher()
    last = annealed(made, long_context(made, launch))
    assert [job.document_mask for job in (*launch.jobs, last)] == [True] * 3


STRETCH = '{"factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_seq_len": 64}'


def test_rope_is_stretched_from_the_first_stage_to_what_is_evaluated_and_the_weights_go_on(home):
    made, launch = catalog(settings(f"long_context.rope_scaling={STRETCH}", "anneal.tokens=1536")), Launcher()
    dataset = long_context(made, launch)
    last = annealed(made, dataset)
    wanted = RopeScaling(original_seq_len=64)
    assert [job.model.rope_scaling for job in (*launch.jobs, last)] == [wanted] * 3
    assert [read_config(folder).rope_scaling for folder in (model_folder(dataset), last.output)] == [wanted] * 2
    assert read_config(model_folder(made.dataset("pretrained"))).rope_scaling is None
    assert launch.steps[0] == ("128-0", 17)  # with the pre-trained model's 16 steps behind it


def test_where_no_stage_passes_annealing_keeps_the_rope_and_the_mesh_of_pre_training(home):
    stages = json.dumps([{**STAGES[0], "context_parallel": 2}])
    hard = ("long_context.needle_accuracy=1.0", "long_context.extra_slices=0", f"long_context.stages={stages}")
    made = catalog(settings(f"long_context.rope_scaling={STRETCH}", *hard))
    job = annealed(made, long_context(made, Launcher()))
    assert (job.model.rope_scaling, job.context_parallel, job.ramp[0].seq_len) == (None, 1, 64)


def test_a_stage_and_annealing_at_its_length_have_the_mesh_that_it_names(home):
    stages = json.dumps([STAGES[0], {**STAGES[1], "context_parallel": 4, "tensor_parallel": 2, "pipeline_parallel": 2}])
    made, launch = catalog(settings(f"long_context.stages={stages}", "anneal.tokens=1536")), Launcher()
    last = annealed(made, long_context(made, launch))
    jobs = [*launch.jobs, last]
    assert [(job.tensor_parallel, job.context_parallel, job.pipeline_parallel) for job in jobs] == [(1, 1, 1), (2, 4, 2), (2, 4, 2)]


def test_a_cosine_longer_than_pre_training_is_left_where_that_ends(home):
    made = catalog(settings("train.cosine_tokens=8192", "anneal.tokens=1536"))
    launch = Launcher()
    last = annealed(made, long_context(made, launch))
    rates = json.loads(files.read(made.dataset("pretrained").file("loss.json")))["learning_rate"]
    half_way = 1e-3 + 9e-3 * math.cos(math.pi / 2 * (4096 - 512) / (8192 - 512)) ** 2
    assert rates[-1] == pytest.approx(half_way, rel=0.1) and rates[-1] > half_way
    assert [job.learning_rate for job in (*launch.jobs, last)] == pytest.approx([half_way] * 3)


def test_settings_that_nobody_sets_are_no_part_of_an_identity(home):
    made = catalog(settings())
    plain = made.relevant("long_context")
    assert "cosine_tokens" not in plain["train"] and "rope_scaling" not in plain["long_context"]
    assert all(set(stage) == {"seq_len", "tokens", "batch_tokens"} for stage in plain["long_context"]["stages"])
    for other in (f"long_context.rope_scaling={STRETCH}", "train.cosine_tokens=9000"):
        assert Catalog(settings(other), ["s1"], str).relevant("long_context") != plain


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


def test_factors_of_rope_in_the_wrong_order_are_refused_in_words():
    with pytest.raises(SettingsError, match=r"low_freq_factor 4\.0 must be below high_freq_factor 1\.0"):
        settings('long_context.rope_scaling={"low_freq_factor": 4, "high_freq_factor": 1}')
