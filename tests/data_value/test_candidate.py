"""What a candidate set consists of: what is selected, never what is held out, and nothing lost without a reason."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.candidates import _no_held_out
from l3_platform.data_value.build import held_out_in
from l3_platform.engine import Output
from l3_platform.lineage import Catalog
from l3_platform.orchestration.stage import Made
from l3_platform.settings import SettingsError
from l3_platform.store import Dataset
from l3_platform.tokens.build import TOKENIZER, vocabulary
from l3_platform.tokens.shards import read_tokens
from l3_platform.tokens.tokenizer import open_tokenizer
from tests.data_value.small_world import catalog, materialize, texts_of

ROOT = "memory://candidates"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("L3_HOME", str(tmp_path))


def of_texts(tmp_path, *texts: str) -> tuple[Catalog, Dataset]:
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    made = catalog(ROOT, {"set": {"files": str(path)}})
    return made, materialize(made, "candidate_tokens", "set")


def text_of(made: Catalog, candidate: Dataset) -> str:
    ids = np.concatenate([read_tokens(candidate.file(name.removeprefix("files/"))) for name in sorted(candidate.files)])
    return open_tokenizer(made.dataset("tokenizer").file(TOKENIZER)).decode(ids.tolist())


def test_a_condition_selects_among_the_curated_documents_that_are_not_held_out():
    made = catalog(ROOT, {"sums": {"where": "domain_group = 'math' AND quality >= 0.893"}})
    found = materialize(made, "candidate_tokens", "sums")
    curated = made.dataset("curated_documents").read(["url", "domain_group", "quality", "text"]).to_pylist()
    wanted = [row for row in curated if row["domain_group"] == "math" and row["quality"] >= 0.893]
    training = set(texts_of(made, "train"))
    assert set(found.read()["url"].to_pylist()) == {row["url"] for row in wanted if row["text"] in training}
    assert found.manifest.counts.dropped["held_out"] == len(wanted) - found.manifest.rows > 0
    assert found.manifest.counts.dropped["not_selected"] == len(curated) - len(wanted)


def test_what_is_selected_is_in_the_default_mix_and_counted(tmp_path):
    made = catalog(ROOT, {"sums": {"where": "domain_group = 'math'"}})
    found = materialize(made, "candidate_tokens", "sums")
    assert found.manifest.metrics["also in the default mix"] == found.manifest.rows > 0
    known = texts_of(made, "train")[0]
    _, mixed = of_texts(tmp_path, known.upper().replace(" ", "\n"), "never seen before by anyone")
    assert mixed.read()["in_default_mix"].to_pylist() == [True, False]


def test_a_set_from_elsewhere_is_its_texts_as_documents_of_a_stream(tmp_path):
    made, found = of_texts(tmp_path, "one thing", "another")
    assert text_of(made, found) == "one thinganother"
    words = vocabulary(made.dataset("tokenizer"))
    ids = read_tokens(found.file(found.files[0].removeprefix("files/")))
    assert (ids == words.bos_id).sum() == (ids == words.eos_id).sum() == 2
    assert len(ids) == found.manifest.metrics["tokens"]


@pytest.mark.parametrize(
    "edit", [str, str.upper, lambda text: "\n".join(text.split()), lambda text: f"{text} and a few words more"]
)
def test_a_copy_of_a_held_out_document_does_not_enter_even_if_edited(tmp_path, edit):
    made = catalog(ROOT, {})
    _, found = of_texts(tmp_path, edit(texts_of(made, "held_out")[0]), "something else altogether")
    assert found.manifest.counts.dropped == {"held_out": 1}
    assert found.read()["excerpt"].to_pylist() == ["something else altogether"]


def test_an_empty_text_is_dropped_and_a_line_without_one_is_in_quarantine(tmp_path):
    lines = [b'{"text": "good"}', b'{"text": " "}', b"no json", b'{"title": "x"}', b'{"text": 3}', b"[1]", b"", b'{"text": "\xff"}']
    path = tmp_path / "set.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(lines)))
    found = materialize(catalog(ROOT, {"set": {"files": str(path)}}), "candidate_tokens", "set")
    counts = found.manifest.counts
    assert (counts.records_in, counts.kept, counts.dropped, counts.failed) == (7, 1, {"empty": 1}, 5)
    first = found.quarantine().to_pylist()[0]
    assert (first["file"], first["offset"], first["bytes_lost"]) == (
        str(path),
        len(lines[0]) + len(lines[1]) + 2,
        len(lines[2]) + 1,
    )


def test_parquet_files_of_a_glob_are_one_set(tmp_path):
    for number, text in enumerate(("first", "second")):
        pq.write_table(pa.table({"text": [text], "url": [f"https://{text}.example/"]}), tmp_path / f"{number}.parquet")
    made = catalog(ROOT, {"set": {"files": f"{tmp_path}/*.parquet"}})
    rows = materialize(made, "candidate_tokens", "set").read().to_pylist()
    assert {row["url"]: row["excerpt"] for row in rows} == {"https://first.example/": "first", "https://second.example/": "second"}


@pytest.mark.parametrize(
    ("candidate", "says"),
    [
        ({"where": "domian = 'math'"}, "`where` of set is no condition.*the columns are doc_id"),
        ({"where": "quality > 7"}, "no document of set is left"),
        ({"files": "/no/such/*.jsonl"}, "nothing matches '/no/such"),
    ],
)
def test_a_set_that_is_none_is_one_sentence(candidate, says):
    with pytest.raises(SettingsError, match=says):
        materialize(catalog(ROOT, {"set": candidate}), "candidate_tokens", "set")


def test_a_file_of_another_kind_is_one_sentence(tmp_path):
    (tmp_path / "set.csv").write_text("text\n")
    with pytest.raises(SettingsError, match=r"set\.csv is no \.parquet"):
        materialize(catalog(ROOT, {"set": {"files": str(tmp_path / "set.csv")}}), "candidate_tokens", "set")


def test_the_check_sees_a_held_out_document_that_slipped_in(tmp_path):
    made, found = of_texts(tmp_path, "something else altogether")
    shards = made.dataset("token_shards")
    assert _no_held_out(Made(made, "set", {}, found, {})).passed
    (row, *_) = [row for row in shards.read().to_pylist() if row["split"] == "held_out"]
    leaked = read_tokens(shards.file(row["file"]))[row["start"] : row["start"] + row["tokens"]].tobytes()
    clean = read_tokens(found.file(found.files[0].removeprefix("files/"))).tobytes()
    writer = made.writer("candidate_tokens", "set")
    writer.put("part-00000", Output(found.read(), found.manifest.counts, files={"candidate-part-00000.bin": clean + leaked}))
    assert held_out_in(writer.commit(["part-00000"]), shards) == 1
