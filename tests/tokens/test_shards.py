import uuid

import numpy as np
import pyarrow as pa
import pytest

from l3_platform.settings import Tokenizer
from l3_platform.store import Dataset, Writer
from l3_platform.tokens import shards as module
from l3_platform.tokens.shards import (
    EncodeTask,
    encode_documents,
    encode_shard,
    of_split,
    read_tokens,
    stream_urls,
    totals,
)
from l3_platform.tokens.split import held_out, tokenizer_texts
from l3_platform.tokens.tokenizer import load_tokenizer, train_tokenizer

DOMAINS = ("general", "math", "code", "multilingual")
CONTENT = train_tokenizer(["the sum of the parts of the whole"] * 9, Tokenizer(vocab_size=560))
TOKENIZER = load_tokenizer(CONTENT)


def documents(count: int = 40) -> pa.Table:
    ids = pa.array([uuid.UUID(int=i).bytes for i in range(count)], pa.binary(16))
    return pa.table(
        {
            "doc_id": pa.ExtensionArray.from_storage(pa.uuid(), ids),
            "url": [f"https://site.example/{i}" for i in range(count)],
            "domain_group": [DOMAINS[i % 4] for i in range(count)],
            "text": [f"the whole {i} é 你 <|end_of_text|>" * (i % 3 + 1) for i in range(count)],
        }
    )


@pytest.fixture(scope="module")
def output():
    return encode_documents(documents(), TOKENIZER, "part-00000", held_out_share=0.3)


def test_every_document_decodes_from_its_place_in_its_stream(output):
    for row, text in zip(output.table.to_pylist(), documents()["text"].to_pylist(), strict=True):
        stream = np.frombuffer(output.files[row["file"]], "<u4")
        piece = stream[row["start"] : row["start"] + row["tokens"]]
        assert TOKENIZER.decode(piece[1:-1].tolist(), skip_special_tokens=False) == text


def test_begin_and_end_appear_exactly_once_a_document(output):
    stream = np.concatenate([np.frombuffer(data, "<u4") for data in output.files.values()])
    begin, end = TOKENIZER.token_to_id("<|begin_of_text|>"), TOKENIZER.token_to_id("<|end_of_text|>")
    assert (np.count_nonzero(stream == begin), np.count_nonzero(stream == end)) == (40, 40)


def test_streams_hold_the_tokens_of_the_index_and_nothing_else(output):
    lengths = {name: len(data) // 4 for name, data in output.files.items()}
    summed = dict.fromkeys(lengths, 0)
    for row in output.table.to_pylist():
        summed[row["file"]] += row["tokens"]
    assert summed == lengths


def test_bytes_are_those_of_the_text_in_utf_8(output):
    assert output.table["bytes"].to_pylist() == [len(text.encode()) for text in documents()["text"].to_pylist()]


def test_file_names_tell_split_domain_and_shard(output):
    row = output.table.to_pylist()[1]
    assert row["file"] == f"{row['split']}-math-part-00000.bin"


def test_a_document_s_split_does_not_depend_on_its_neighbours():
    table = documents()
    assert held_out(table.slice(7, 5)["doc_id"], 0.3).tolist() == held_out(table["doc_id"], 0.3)[7:12].tolist()


def test_the_held_out_share_is_met():
    assert held_out(documents(20_000)["doc_id"], 0.05).mean() == pytest.approx(0.05, abs=0.005)


def test_a_larger_share_keeps_the_documents_already_held_out():
    ids = documents(2000)["doc_id"]
    assert not (held_out(ids, 0.05) & ~held_out(ids, 0.1)).any()


def test_batches_do_not_change_the_streams(output, monkeypatch):
    monkeypatch.setattr(module, "BATCH_CHARS", 10)
    assert encode_documents(documents(), TOKENIZER, "part-00000", 0.3).files == output.files


def test_an_empty_shard_has_no_files_and_an_empty_index():
    empty = encode_documents(documents().slice(0, 0), TOKENIZER, "part-00000", 0.3)
    assert (empty.table.num_rows, dict(empty.files)) == (0, {})


def test_an_unknown_domain_is_named():
    table = documents(2).set_column(2, "domain_group", pa.array(["general", "poetry"]))
    with pytest.raises(ValueError, match="shard x: domain_group 'poetry' is none of"):
        encode_documents(table, TOKENIZER, "x", 0.3)


def test_totals_and_streams_of_a_dataset_agree(tmp_path):
    dataset = _dataset(tmp_path)
    index = dataset.read()
    for split in ("train", "held_out"):
        lengths = {d: sum(len(read_tokens(u)) for u in urls) for d, urls in stream_urls(dataset, split).items()}
        assert of_split(index, split) == dict.fromkeys(DOMAINS, 0) | lengths
    assert sum(totals(index)["documents"].to_pylist()) == 40


def _dataset(folder) -> Dataset:
    source = _writer(folder / "curated", "curated_documents")
    for name, start in (("part-00000", 0), ("part-00001", 20)):
        source.put(name, module.Output.annotated(documents().slice(start, 20)))
    (folder / "tokenizer.json").write_bytes(CONTENT)
    out = _writer(folder / "tokens", "token_shards")
    for shard in source.commit(["part-00000", "part-00001"]).shards:
        out.put(shard.name, encode_shard(EncodeTask(shard, shard.name, str(folder / "tokenizer.json"), 0.3)))
    return out.commit(["part-00000", "part-00001"])


def _writer(folder, asset) -> Writer:
    return Writer(str(folder), asset=asset, partition="all", code_version="1", settings={}, inputs={})


def test_the_tokenizer_never_learns_from_held_out_documents():
    table = documents(400)
    unique = table.set_column(3, "text", pa.array([f"text {i}" for i in range(400)]))
    kept = table["doc_id"].to_pylist()
    texts = set(tokenizer_texts([unique], total_bytes=100, sample_bytes=10**9, held_out_share=0.3))
    expected = {f"text {i}" for i in range(len(kept)) if not held_out(table["doc_id"], 0.3)[i]}
    assert texts == expected


def test_the_tokenizer_s_sample_is_spread_over_all_shards():
    table = documents(2000)
    tables = [table.slice(0, 1000), table.slice(1000)]
    sizes = [len(list(tokenizer_texts([part], 1000, 250, 0.0))) for part in tables]
    assert all(200 <= size <= 300 for size in sizes)
