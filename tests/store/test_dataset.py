"""A dataset is whole or absent, and says what it holds."""

import errno
import os
import uuid

import pyarrow as pa
import pytest

from l3_platform.store import QUARANTINE_SCHEMA, Counts, Dataset, MissingDataset, Output, StoreError, Unbalanced, Writer, files


def writer(folder: str) -> Writer:
    return Writer(folder, asset="documents", partition="demo-1", code_version="1", settings={"a": 1}, inputs={})


def rows(*values: int) -> Output:
    return Output.annotated(pa.table({"x": pa.array(values, pa.int64())}))


@pytest.fixture(params=["local", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path) -> str:
    if request.param == "local":
        return str(tmp_path / "set")
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/set"
    return request.getfixturevalue("s3_folder")


def test_a_committed_dataset_reads_back_from_any_storage(folder):
    out = writer(folder)
    out.put("part-00001", rows(3))
    out.put("part-00000", rows(1, 2))
    dataset = out.commit(["part-00000", "part-00001"])
    assert Dataset.open(folder).read()["x"].to_pylist() == [1, 2, 3]
    assert dataset.verify() == []


def test_without_a_manifest_a_dataset_does_not_exist(folder):
    writer(folder).put("part-00000", rows(1))
    with pytest.raises(MissingDataset, match="materialize it first"):
        Dataset.open(folder)


def test_the_manifest_is_the_same_bytes_wherever_it_is_made(tmp_path):
    for home in ("a", "b"):
        out = writer(str(tmp_path / home))
        out.put("part-00000", rows(1, 2))
        out.commit(["part-00000"])
    assert files.read(str(tmp_path / "a/manifest.json")) == files.read(str(tmp_path / "b/manifest.json"))


def test_an_unfinished_shard_is_never_committed(tmp_path):
    out = writer(str(tmp_path))
    out.put("part-00000", rows(1))
    with pytest.raises(StoreError, match="part-00001 is not finished"):
        out.commit(["part-00000", "part-00001"])


def test_what_a_kill_right_after_the_manifest_leaves_is_removed_by_whoever_finds_the_dataset(tmp_path, monkeypatch):
    out = writer(str(tmp_path))
    out.put("part-00000", rows(1))
    with monkeypatch.context() as killed:
        killed.setattr(Dataset, "remove_leftovers", lambda dataset: None)
        out.commit(["part-00000"])
    assert (tmp_path / "accounts").is_dir()
    Dataset.open(str(tmp_path)).remove_leftovers()
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", "part-00000.parquet"}


def test_a_stage_that_loses_a_record_is_stopped(tmp_path):
    lost = Output(pa.table({"x": [1]}), Counts(records_in=3, kept=1, dropped={"empty": 1}))
    with pytest.raises(Unbalanced, match=r"documents/demo-1/part-00000: 3 records came in"):
        writer(str(tmp_path)).put("part-00000", lost)


def test_a_failed_record_needs_its_quarantine_row(tmp_path):
    with pytest.raises(Unbalanced, match="in quarantine"):
        writer(str(tmp_path)).put("part-00000", Output(pa.table({"x": [1]}), Counts(records_in=2, kept=1, failed=1)))


def test_verify_names_the_file_that_changed(tmp_path):
    out = writer(str(tmp_path))
    out.put("part-00000", Output(rows(1).table, Counts.annotated(1), files={"model.bin": b"weights"}))
    dataset = out.commit(["part-00000"])
    (tmp_path / "files/model.bin").write_bytes(b"other")
    assert dataset.verify() == ["files/model.bin"]


def test_a_full_disk_is_one_sentence_and_leaves_no_partial_file(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="the disk is full, 4 bytes did not fit"):
        files.write(str(tmp_path / "x"), b"1234")
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_reopened_makes_again_what_failed_and_nothing_else(folder):
    out = writer(folder)
    lost = pa.table({"file": ["b"], "offset": [0], "reason": ["training_error"], "bytes_lost": [0]})
    columns = {field.name: lost[field.name] if field.name in lost.column_names else pa.nulls(1) for field in QUARANTINE_SCHEMA}
    quarantine = pa.table(columns).cast(QUARANTINE_SCHEMA)
    out.put("a", rows(1))
    out.put("b", Output(rows().table, Counts(records_in=1, failed=1), quarantine))
    out.commit(["a", "b"])
    out.reopen()
    assert out.finished() == {"a"}
    with pytest.raises(MissingDataset):
        Dataset.open(folder)
    out.put("b", rows(2))
    again = out.commit(["a", "b"])
    assert again.read()["x"].to_pylist() == [1, 2]
    assert again.manifest.counts.failed == 0
