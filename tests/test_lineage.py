"""Identity: the same inputs and settings find the dataset, any difference that matters does not."""

import pyarrow as pa
import pytest

from l3_platform.lineage import STAGES, Catalog
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
        assert all(order.index(needed) < order.index(name) for needed in stage.inputs), name


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


def test_how_a_run_is_carried_out_is_no_part_of_what_comes_out():
    assert catalog("train.shutdown_seconds=99").relevant("pretrained") == catalog().relevant("pretrained")
    assert catalog("train.seed=99").relevant("pretrained") != catalog().relevant("pretrained")
