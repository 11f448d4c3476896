"""An identifier trained on labelled text: measured on what it has not seen, the same on every run, and good on 75 languages."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from l3_platform.curate import fasttext_training, languages
from l3_platform.curate.language_identifier import (
    MODEL_FILE,
    build_language_identifier,
    f1_scores,
    labelled,
    letters,
    predict,
    train,
)
from l3_platform.curate.languages import iso_code
from l3_platform.settings import Engine, Languages, Settings, SettingsError
from l3_platform.store import Dataset, Writer, files


def build(folder, **settings) -> Dataset:
    out = Writer(str(folder), asset="language_identifier", partition="all", code_version="1", settings={}, inputs={})
    tree = Settings(engine=Engine(workers=1), languages=Languages(**settings))
    return out.commit(*build_language_identifier(out=out, settings=tree))


def sentences(shared_data, *codes: str) -> pa.Table:
    table = pq.read_table(shared_data / "language" / "sentences.parquet", columns=["language", "text"])
    rows = [row for code in codes for row in table.to_pylist() if row["language"] == code]
    return pa.Table.from_pylist(rows)


@pytest.fixture(scope="module")
def trained(shared_data, tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("identifier")
    csv.write_csv(sentences(shared_data, "de", "en", "fi").select(["text", "language"]), folder / "labelled.csv")
    return build(folder / "dataset", labelled=str(folder / "labelled.csv"), epochs=2, dim=8)


def test_a_trained_identifier_is_measured_on_texts_it_has_not_seen(trained):
    table = trained.read()
    assert table["language"].to_pylist() == ["de", "en", "fi"]
    assert table["texts"].to_pylist() == [600] * 3 and table["held_out"].to_pylist() == [60] * 3
    assert min(table["f1"].to_pylist()) > 0.9
    assert trained.manifest.metrics["macro_f1"] == round(float(np.mean(table["f1"].to_pylist())), 4)


def test_a_trained_identifier_names_the_languages_of_documents(trained):
    model = fasttext_training.load(files.read(trained.file(MODEL_FILE)))
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)] * 3, pa.binary(16)))
    texts = ["Das Wasser ist im Sommer kalt.", "The water is cold in summer.", "Vesi on kesällä kylmää."]
    assert languages(pa.table({"doc_id": ids, "text": texts}), trained=model)["language"].to_pylist() == ["de", "en", "fi"]


@pytest.mark.parametrize(("settings", "word"), [({}, "built-in"), ({"model": "lid.176.bin", "labelled": "x.csv"}, "given")])
def test_nothing_is_trained_without_labelled_text_or_beside_a_given_model(tmp_path, settings, word):
    dataset = build(tmp_path, **settings)
    assert dataset.manifest.rows == 0 and word in dataset.manifest.metrics["identifier"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,code\na,de\n", "no column language"),
        ("text,language\n" + "a,de\n" * 20, "at least two languages"),
        ("text,language\n" + "a,de\n" * 20 + "b,en\n" * 3, "too few for en"),
    ],
)
def test_labelled_text_that_cannot_be_used_is_refused_in_words(tmp_path, content, message):
    path = tmp_path / "labelled.csv"
    path.write_text(content)
    with pytest.raises(SettingsError, match=message):
        labelled(str(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"languages\.labelled: .*nowhere\.tsv cannot be read"):
        labelled(str(tmp_path / "nowhere.tsv"))


def test_tabs_separate_in_tsv(tmp_path):
    (tmp_path / "labelled.tsv").write_text("language\ttext\n" + "de\tein, zwei\n" * 10 + "en\tone, two\n" * 10)
    texts, codes = labelled(str(tmp_path / "labelled.tsv"))
    assert texts[0] == "ein, zwei" and codes.tolist().count("en") == 10


def test_letters_are_all_that_is_seen():
    assert letters("  Zürich 2024:\n«Ça va?»_x ") == "zürich ça va x"


@pytest.mark.exhaustive
def test_75_languages_are_told_apart_with_macro_f1_of_096(shared_data):
    """500 sentences of each train it, the rest and the Declaration of Human Rights judge it."""
    rows = pq.read_table(shared_data / "language" / "sentences.parquet", columns=["language", "text"]).to_pylist()
    seen: dict[str, int] = {}
    parts: tuple[list, list] = ([], [])
    for row in rows:
        seen[row["language"]] = seen.get(row["language"], 0) + 1
        parts[seen[row["language"]] > 500].append(row)
    lines, rest = ([letters(row["text"]) for row in part] for part in parts)
    codes, gold = ([row["language"] for row in part] for part in parts)
    assert len(seen) == 75 and len(gold) > 7000
    model = fasttext_training.load(train(lines, codes, Languages()))
    scores = f1_scores(gold, [answer for answer, _ in predict(rest, model)])
    assert np.mean(list(scores.values())) >= 0.96

    from l3_platform.extract import extract

    udhr = pq.read_table(shared_data / "language" / "udhr.parquet").to_pylist()
    pages = [(iso_code(row["language"]).replace("no", "nb"), letters(extract(row["html"]).text)) for row in udhr]
    pages = [(code, text) for code, text in pages if code in seen and text]
    right = [answer == code for (code, _), (answer, _) in zip(pages, predict([text for _, text in pages], model), strict=True)]
    assert len(right) > 50 and np.mean(right) >= 0.95
