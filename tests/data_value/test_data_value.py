"""Annealings from one half-trained model: pairs, shared where they can be, resumed, failed with a reason, told on a card."""

from pathlib import Path

import pyarrow as pa
import pytest

from l3_platform.data_value import build
from l3_platform.data_value.annealing import Branch, run_branch
from l3_platform.data_value.value import read_value
from l3_platform.lineage import Catalog
from l3_platform.orchestration.card import card
from l3_platform.orchestration.data_value_card import show_candidate, show_value
from l3_platform.orchestration.resources import Tracking
from l3_platform.orchestration.stage import Made, _unknown_partition
from l3_platform.settings import SettingsError, load
from l3_platform.store import Dataset
from tests.data_value.small_world import catalog, materialize

ROOT = "memory://data_value"
JUDGED = 'mixture.target={"math": 1.0}'
SETS = {"sums": {"where": "domain_group = 'math'"}, "prose": {"where": "domain_group = 'general'"}}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("data_value")
        patch.setenv("L3_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def world(home) -> Catalog:
    made = catalog(ROOT, SETS, JUDGED)
    materialize(made, "half_trained")
    for partition in SETS:
        materialize(made, "candidate_tokens", partition)
        materialize(made, "data_value", partition)
    return made


@pytest.fixture(scope="module")
def sums(world) -> Dataset:
    return world.dataset("data_value", "sums")


def trained(monkeypatch) -> list[str]:
    """Names of the branches that are trained from now on, whatever comes of them."""
    names: list[str] = []

    def noted(branch: Branch):
        from l3_platform.train.job import TrainResult

        if TrainResult.read(branch.job.output) is None:
            names.append(branch.name)
        return run_branch(branch)

    monkeypatch.setattr(build, "run_branch", noted)
    return names


def test_every_seed_has_both_annealings_from_where_half_of_the_training_ended(world, sums):
    rows = sums.read().to_pylist()
    assert sorted(row["point"] for row in rows) == ["default-seed-8", "default-seed-9", "sums-seed-8", "sums-seed-9"]
    (trunk,) = world.dataset("half_trained").read().to_pylist()
    whole = 1e9 / (6 * trunk["params"])
    assert whole / 2 - 256 < trunk["tokens"] <= whole / 2
    assert {(row["tokens_before"], row["tokens"]) for row in rows} == {(trunk["tokens"], 2048)}
    assert {row["point"]: row["share_candidate"] for row in rows if row["seed"] == 8} == {"default-seed-8": 0.0, "sums-seed-8": 0.3}
    assert {round(row["share_math"], 6) for row in rows if row["mixture"] == "sums"} == {round(0.7 / 3, 6)}


def test_a_set_of_what_the_target_asks_for_is_worth_more_than_one_of_the_rest(world):
    sums, prose = (read_value(world.dataset("data_value", name)) for name in SETS)
    assert sums.mean > prose.mean and sums.mean > 0


def test_the_next_set_finds_the_annealings_of_the_default_mix_finished(world, home, monkeypatch):
    more = catalog(ROOT, {**SETS, "high": {"where": "quality > 0.5"}}, JUDGED)
    materialize(more, "candidate_tokens", "high")
    names = trained(monkeypatch)
    again = materialize(more, "data_value", "high").read().to_pylist()
    assert names == ["high-seed-8", "high-seed-9"]
    before = {row["point"]: row for row in world.dataset("data_value", "sums").read().to_pylist()}
    assert all(row == before[row["point"]] for row in again if row["mixture"] == "default")


def test_another_set_changes_nothing_of_those_there_are_and_another_definition_does(world):
    more = catalog(ROOT, {**SETS, "high": {"where": "quality > 0.5"}}, JUDGED)
    assert more.folder("data_value", "sums") == world.folder("data_value", "sums")
    other = catalog(ROOT, {"sums": {"where": "domain_group = 'math' AND quality > 0.1"}}, JUDGED)
    assert other.folder("candidate_tokens", "sums") != world.folder("candidate_tokens", "sums")
    assert other.folder("half_trained") == world.folder("half_trained")


def test_another_content_of_a_file_is_another_set(world, tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text('{"text": "a"}\n')
    first = catalog(ROOT, {"set": {"files": str(path)}}).folder("candidate_tokens", "set")
    path.write_text('{"text": "b"}\n')
    assert catalog(ROOT, {"set": {"files": str(path)}}).folder("candidate_tokens", "set") != first


def test_a_killed_build_goes_on_with_the_annealings_that_are_missing(home, world, monkeypatch):
    made = catalog(ROOT, SETS, JUDGED, "data_value.share=0.4")
    names = trained(monkeypatch)
    noted = build.run_branch
    monkeypatch.setattr(build, "run_branch", lambda branch: (_ for _ in ()).throw(KeyboardInterrupt) if names else noted(branch))
    with pytest.raises(KeyboardInterrupt):
        materialize(made, "data_value", "sums")
    monkeypatch.setattr(build, "run_branch", noted)
    materialize(made, "data_value", "sums")
    assert names == ["sums-seed-8", "sums-seed-9"]


def test_an_annealing_that_diverges_is_a_failure_with_its_reason(world):
    task = next(branch for branch in branches_of(world).values() if not branch.kept)
    output = run_branch(Branch("sums", task.job.model_copy(update={"learning_rate": 1e30})))
    assert (output.table.num_rows, output.counts.failed) == (0, 1)
    assert output.quarantine.to_pylist()[0]["file"] == "sums-seed-8"


def branches_of(made: Catalog) -> dict[str, Branch]:
    """What `data_value` would train, without training it."""
    found: dict[str, Branch] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "map_shards", lambda fn, tasks, out, engine: found.update(tasks) or [])
        patch.setattr(build, "_finished", lambda out, names: pa.table({}))
        build.build_data_value(**made.inputs("data_value", "sums"), out=made.writer("data_value", "sums"), settings=made.settings)
    return found


def test_nothing_of_a_set_s_annealings_stays_on_the_disk_but_the_default_s(world, home):
    left = {path.name.split("-")[0] for path in Path(home / "checkpoints").glob("*/*") if path.is_dir() and any(path.iterdir())}
    assert left == {"run", "model", "default"}


def test_the_card_ranks_all_sets_beside_each_other(world, sums):
    made = Made(world, "sums", {}, sums, {})
    metadata = card(made, show_value(made), Tracking(uri=""))
    seen = str(metadata["all candidate sets"].value)
    assert seen.index("sums: +") < seen.index("prose: ") and "interval" in seen
    assert metadata["rank"] == "1 of 2" and metadata["verdict"] in ("useful", "cannot tell")
    assert str(metadata["chart"].value).startswith("![chart](data:image/png")


def test_the_card_of_a_candidate_shows_documents_and_what_it_is(world):
    made = Made(world, "sums", {}, world.dataset("candidate_tokens", "sums"), {})
    shown = show_candidate(made)
    assert shown.samples["documents"].num_rows == 5
    assert shown.facts["where"] == "domain_group = 'math'"


def test_a_partition_that_no_set_stands_behind_says_how_to_name_one(world):
    assert "has no set 'new', it has sums, prose" in _unknown_partition(world, "data_value", "new")


@pytest.mark.parametrize(
    ("candidates", "says"),
    [
        ('{"a": {}}', "either `where` or `files`"),
        ('{"a": {"where": "true", "files": "x"}}', "either `where` or `files`"),
        ('{"default": {"where": "true"}}', "give the set another name"),
        ('{"a/b": {"where": "true"}}', "string should match"),
    ],
)
def test_a_candidate_that_cannot_be_is_one_sentence(candidates, says):
    with pytest.raises(SettingsError, match=says):
        load("demo", [f"data_value.candidates={candidates}"])


def test_half_a_training_below_one_batch_is_one_sentence(world):
    with pytest.raises(SettingsError, match=r"data_value\.budget"):
        materialize(catalog(ROOT, SETS, "data_value.budget=1e6"), "half_trained")
