"""Identity: the same inputs and settings find the dataset, any difference that matters does not."""

import pyarrow as pa
import pytest

from l3_platform.lineage import STAGES, Catalog, inputs_of
from l3_platform.settings import SettingsError, load
from l3_platform.store import MissingDataset, Output


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("L3_HOME", str(tmp_path))
    return tmp_path


def catalog(*overrides: str, content: str = "a") -> Catalog:
    return Catalog(load("demo", overrides), ["s1", "s2"], lambda snapshot: f"{snapshot} {content}")


def materialize(made: Catalog, stage: str, partition: str, value: int = 1) -> None:
    out = made.writer(stage, partition)
    out.put("part-00000", Output.annotated(pa.table({"x": [value]})))
    out.commit(["part-00000"])


def test_inputs_come_before_their_stages():
    order = list(STAGES)
    for name, stage in STAGES.items():
        assert all(order.index(needed) < order.index(name) for needed in (*stage.inputs, *stage.when)), name


@pytest.mark.parametrize("stage", [stage for stage in STAGES.values() if stage.when], ids=lambda stage: stage.name)
def test_a_condition_of_an_input_is_a_value_that_its_setting_can_have(stage):
    for name, condition in stage.when.items():
        assert name in inputs_of(stage.name, load("demo", [condition]))
        assert name not in inputs_of(stage.name, load())


def test_a_missing_input_names_the_asset_to_materialize(home):
    with pytest.raises(MissingDataset, match="raw_crawl/s1 is not materialized"):
        catalog().dataset("documents", "s1")


def test_a_finished_dataset_is_found_by_a_new_catalog(home):
    materialize(catalog(), "raw_crawl", "s1")
    assert catalog().find("raw_crawl", "s1") is not None


def test_new_content_of_a_snapshot_is_another_dataset(home):
    materialize(catalog(), "raw_crawl", "s1")
    assert catalog(content="b").find("raw_crawl", "s1") is None


def test_a_setting_that_matters_gives_another_folder_and_one_that_does_not_the_same(home):
    materialize(catalog(), "raw_crawl", "s1")
    folder = catalog().folder("documents", "s1")
    assert catalog("extract.min_text_chars=9").folder("documents", "s1") != folder
    assert catalog("train.nodes=1", "engine.workers=7").folder("documents", "s1") == folder


def test_a_changed_input_changes_what_is_downstream(home):
    materialize(catalog(), "raw_crawl", "s1", value=1)
    before = catalog().folder("documents", "s1")
    (home / "data").rename(home / "old")
    materialize(catalog(), "raw_crawl", "s1", value=2)
    assert catalog().folder("documents", "s1") != before


def test_a_model_file_that_is_not_there_is_one_sentence(home):
    materialize(catalog(), "raw_crawl", "s1")
    materialize(catalog(), "documents", "s1")
    with pytest.raises(SettingsError, match=r"languages\.model: there is no file /no/such\.bin"):
        catalog("languages.model=/no/such.bin").folder("languages", "s1")


def test_a_law_that_is_not_followed_is_no_input_and_changes_nothing(home):
    for snapshot in ("s1", "s2"):
        materialize(catalog(), "raw_crawl", snapshot)
    for stage in before("data_mix"):
        for partition in catalog().partitions(stage):
            materialize(catalog(), stage, partition)
    folder = catalog().folder("data_mix")
    with pytest.raises(MissingDataset, match="mixture_runs/all is not materialized"):
        catalog("mix.choose=law").folder("data_mix")
    for stage in ("mixture_runs", "mixture_law"):
        materialize(catalog("mix.choose=law"), stage, "all")
    assert catalog().folder("data_mix") == folder
    assert "mixture_law/all" in catalog("mix.choose=law").input_digests("data_mix")


def before(stage: str) -> list[str]:
    needed = {stage}
    for name in reversed(STAGES):
        needed |= set(STAGES[name].inputs) if name in needed else set()
    return [name for name in STAGES if name in needed - {stage}]


def test_how_a_run_is_carried_out_is_no_part_of_what_comes_out():
    assert catalog("train.shutdown_seconds=99").relevant("pretrained") == catalog().relevant("pretrained")
    assert catalog("train.seed=99").relevant("pretrained") != catalog().relevant("pretrained")


@pytest.mark.parametrize("override", ["train.precision=bf16", "train.compile=true", "train.attention=sdpa"])
def test_what_rounds_differently_is_part_of_what_comes_out(override):
    assert catalog(override).relevant("pretrained") != catalog().relevant("pretrained")
