import math
import uuid

import numpy as np
import pyarrow as pa
import pytest
import torch

from l3_platform.evaluate.held_out import evaluate_models
from l3_platform.evaluate.plot import annealing_chart
from l3_platform.model import Llama, ModelConfig, export_model
from l3_platform.settings import Settings
from l3_platform.tokens.shards import INDEX

BOS, EOS, VOCAB = 60, 61, 64
SETTINGS = Settings.model_validate({"train": {"ramp": [{"seq_len": 16, "batch_tokens": 64}]}})


def write_streams(folder, documents: dict[str, list[list[int]]]) -> tuple[dict[str, list[str]], pa.Table]:
    """One held-out stream a domain, and the index of its documents; a document has 3 bytes a token."""
    streams, rows = {}, []
    for domain, items in documents.items():
        name = f"held_out-{domain}-part-00000.bin"
        start = 0
        for ids in items:
            whole = [BOS, *ids, EOS]
            size = 3 * len(ids)
            key = uuid.uuid5(uuid.NAMESPACE_URL, f"{domain}/{start}")
            rows.append((key.bytes, domain, "held_out", name, start, len(whole), size, "u"))
            start += len(whole)
        path = folder / name
        path.write_bytes(np.concatenate([[BOS, *ids, EOS] for ids in items]).astype("<u4").tobytes())
        streams[domain] = [str(path)]
    columns = list(zip(*rows, strict=True))
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array(columns[0], pa.binary(16)))
    return streams, pa.table([ids, *map(list, columns[1:])], schema=INDEX)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> tuple[Llama, str]:
    torch.manual_seed(1)
    made = Llama(ModelConfig(vocab_size=VOCAB, d_model=16, layers=2, heads=2, kv_heads=1, ffn=32))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, 0.3 if parameter.dim() > 1 else 1.0, 0.3)
    folder = tmp_path_factory.mktemp("model") / "export"
    export_model(made, folder, bos_id=BOS, eos_id=EOS, max_seq_len=16)
    return made.eval(), str(folder)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    random = np.random.default_rng(4)
    documents = {domain: [random.integers(0, 60, length).tolist() for length in (5, 9, 40)] for domain in ("math", "code")}
    return documents, *write_streams(tmp_path_factory.mktemp("streams"), documents)


@pytest.fixture(scope="module")
def losses(model, corpus) -> pa.Table:
    _, streams, index = corpus
    return evaluate_models({"a": model[1], "b": model[1]}, streams, index, np.ones(VOCAB), BOS, SETTINGS)


def test_every_model_has_a_row_a_domain_and_one_of_all(losses):
    got = list(zip(losses["model"].to_pylist(), losses["domain_group"].to_pylist(), strict=True))
    assert got == [(name, domain) for name in "ab" for domain in ("math", "code", "all")]


def test_every_token_but_the_first_of_a_domain_is_predicted(losses):
    assert losses["tokens"].to_pylist()[:3] == [54 + 2 * 3 - 1, 54 + 2 * 3 - 1, 118]


def test_the_loss_is_that_of_each_document_read_alone(model, tmp_path):
    """All lies inside one window, so the document mask must hide the neighbours completely."""
    documents = [[1, 2, 3], [4, 5, 6, 7], [8]]
    streams, index = write_streams(tmp_path, {"math": documents})
    table = evaluate_models({"m": model[1]}, streams, index, np.ones(VOCAB), BOS, SETTINGS)
    followers = [[BOS], [BOS], []]
    nats = sum(_nats_alone(model[0], [BOS, *ids, EOS, *after]) for ids, after in zip(documents, followers, strict=True))
    assert table["loss"][0].as_py() == pytest.approx(nats / 13, rel=1e-5)


def _nats_alone(model: Llama, ids: list[int]) -> float:
    with torch.no_grad():
        log_probabilities = torch.log_softmax(model(torch.tensor([ids[:-1]])), dim=-1)[0]
    return -sum(float(log_probabilities[i, target]) for i, target in enumerate(ids[1:]))


def test_bits_a_byte_divide_the_same_nats_by_the_bytes(losses):
    row = losses.to_pylist()[0]
    assert row["bits_per_byte"] == pytest.approx(row["loss"] * row["tokens"] / math.log(2) / (54 * 3))


def test_all_is_the_sum_over_the_domains(losses):
    math_row, code_row, everything = losses.to_pylist()[:3]
    nats = sum(row["loss"] * row["tokens"] for row in (math_row, code_row))
    assert everything["loss"] * everything["tokens"] == pytest.approx(nats)


def test_the_baseline_of_equal_counts_is_uniform(losses):
    assert losses["unigram_loss"][0].as_py() == pytest.approx(math.log(VOCAB))


def test_the_limit_takes_whole_documents_and_at_least_one(model, corpus):
    _, streams, index = corpus
    small = SETTINGS.model_copy(update={"evaluate": SETTINGS.evaluate.model_copy(update={"max_tokens_per_domain": 1})})
    rows = evaluate_models({"a": model[1]}, streams, index, np.ones(VOCAB), BOS, small).to_pylist()
    assert [row["documents"] for row in rows] == [1, 1, 2]
    assert rows[0]["tokens"] == 6


def test_batches_do_not_change_the_loss(model, corpus, losses):
    _, streams, index = corpus
    one = SETTINGS.model_copy(update={"evaluate": SETTINGS.evaluate.model_copy(update={"batch_sequences": 1})})
    alone = evaluate_models({"a": model[1]}, streams, index, np.ones(VOCAB), BOS, one)
    assert alone["loss"].to_pylist() == pytest.approx(losses["loss"].to_pylist()[:3], rel=1e-6)


def test_documents_of_several_files_are_read_in_the_order_of_the_files(model, tmp_path):
    streams, index = write_streams(tmp_path, {"math": [[1, 2], [3]], "code": [[4, 5, 6]]})
    both = {"math": [*streams["math"], *streams["code"]]}
    as_one = index.set_column(1, "domain_group", pa.array(["math"] * 3))
    (row, _) = evaluate_models({"m": model[1]}, both, as_one, np.ones(VOCAB), BOS, SETTINGS).to_pylist()
    assert (row["documents"], row["tokens"], row["bytes"]) == (3, 11, 18)


def test_a_file_that_the_index_names_but_nobody_gives_is_named(model, corpus):
    _, streams, index = corpus
    swapped = {"math": streams["code"]}
    with pytest.raises(ValueError, match=r"the index names held_out-math-part-00000\.bin"):
        evaluate_models({"m": model[1]}, swapped, index, np.ones(VOCAB), BOS, SETTINGS)


def test_nothing_held_out_is_refused_in_words(model):
    with pytest.raises(ValueError, match=r"raise mix\.held_out_share"):
        evaluate_models({"a": model[1]}, {"math": []}, INDEX.empty_table(), np.ones(VOCAB), BOS, SETTINGS)


def test_the_annealing_chart_is_a_png_of_under_100_kb(losses):
    chart = annealing_chart(losses, "a", "b")
    assert chart.startswith(b"\x89PNG")
    assert len(chart) < 100_000


def test_the_annealing_chart_names_a_model_it_does_not_know(losses):
    with pytest.raises(ValueError, match="no model 'annealed'; they have a, b"):
        annealing_chart(losses, "a", "annealed")
