"""Documents of words that nobody else uses stand out, whatever their length; ordinary ones do not."""

from __future__ import annotations

import math
import random
import string
import uuid
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from l3_platform.curate import outlier_tokens
from l3_platform.curate.outlier_tokens import BINS, RARE, SMOOTHING, STRETCH, build_outlier_tokens, token_bins
from l3_platform.settings import Engine, Heuristics, OutlierTokens, Settings
from l3_platform.store import Dataset, Output, Writer


def dataset(folder: Path, asset: str, partition: str, shards: list[pa.Table]) -> Dataset:
    out = Writer(str(folder / asset / partition), asset=asset, partition=partition, code_version="1", settings={}, inputs={})
    names = [f"part-{number:05d}" for number in range(len(shards))]
    for name, table in zip(names, shards, strict=True):
        out.put(name, Output.annotated(table))
    return out.commit(names)


def build(folder: Path, snapshots: list[list[tuple[str, str]]], workers: int = 1, **settings) -> list[dict]:
    """Rows of the sidecar for snapshots of (language, text), each in two shards."""
    number, documents, languages = 0, [], []
    for s, pages in enumerate(snapshots):
        halves = [pages[: len(pages) // 2], pages[len(pages) // 2 :]]
        tables = []
        for half in halves:
            ids = pa.array([uuid.UUID(int=number + i).bytes for i in range(len(half))], pa.binary(16))
            number += len(half)
            tables.append((pa.ExtensionArray.from_storage(pa.uuid(), ids), half))
        text = [pa.table({"doc_id": ids, "text": pa.array([text for _, text in half], pa.string())}) for ids, half in tables]
        code = [pa.table({"doc_id": ids, "language": pa.array([c for c, _ in half], pa.string())}) for ids, half in tables]
        documents.append(dataset(folder, "documents", f"s{s}", text))
        languages.append(dataset(folder, "languages", f"s{s}", code))
    out = Writer(str(folder / "out"), asset="outlier_tokens", partition="all", code_version="1", settings={}, inputs={})
    tree = Settings(engine=Engine(workers=workers), outlier_tokens=OutlierTokens(**settings))
    made = out.commit(*build_outlier_tokens(documents, languages, out=out, settings=tree))
    assert [shard.name for shard in made.shards] == sorted(
        f"s{s}.part-{half:05d}" for s in range(len(snapshots)) for half in (0, 1)
    )
    return made.read().to_pylist()


def reference(texts: list[str]) -> list[tuple[float, float]]:
    """KL divergence and share of outliers of each text from the others together, words being runs of small letters."""
    bins, bounds = token_bins(pa.array(texts))
    tokens = [bins[bounds[d] : bounds[d + 1]].tolist() for d in range(len(texts))]
    corpus = Counter(token for document in tokens for token in document)
    scores = []
    for document in tokens:
        others = {token: count - document.count(token) + SMOOTHING for token, count in corpus.items()}
        total = sum(corpus.values()) - len(document) + SMOOTHING * BINS
        stretches, kl = max(1, (len(document) + STRETCH // 2) // STRETCH), 0.0
        for s in range(stretches):
            part = document[len(document) * s // stretches : len(document) * (s + 1) // stretches]
            for token, count in Counter(part).items():
                kl += count / len(part) * math.log(count / len(part) / (others[token] / total)) / stretches
        scores.append((kl, sum(others[token] / total < RARE for token in document) / len(document)))
    return scores


def nonsense(seed: int, words: int) -> str:
    chance = random.Random(seed)
    return " ".join("".join(chance.choices(string.ascii_lowercase, k=chance.randint(3, 9))) for _ in range(words))


def prose(shared_data) -> list[str]:
    articles = (shared_data / "quality" / "wikitext-2-valid.txt").read_text().split("\n = ")
    return [article for article in articles if len(article.split()) > 120]


def test_the_scores_equal_the_plain_reference(tmp_path):
    texts = [nonsense(seed, 130 + 90 * seed) + " the lake and the hill" * 10 for seed in range(8)]
    rows = build(tmp_path, [[("en", text) for text in texts[:3]], [("en", text) for text in texts[3:]]], min_corpus_tokens=1)
    for row, (kl, share) in zip(rows, reference(texts), strict=True):
        assert row["kl"] == pytest.approx(kl, rel=1e-5) and row["outlier_share"] == pytest.approx(share, rel=1e-5)


def test_dumps_of_any_length_stand_out_from_prose_and_prose_does_not(shared_data, tmp_path):
    texts = prose(shared_data)
    dumps = [nonsense(seed, words) for seed, words in enumerate((120, 250, 600, 1500, 4000))]
    rows = build(tmp_path, [[("en", text) for text in texts], [("en", text) for text in dumps]])
    limit = Heuristics().max_kl
    assert all(row["kl"] > limit and row["outlier_share"] > 0.8 for row in rows[len(texts) :])
    compared = [row["kl"] for row in rows[: len(texts)] if row["kl"] is not None]
    assert len(compared) > 300 and np.mean(np.array(compared) > limit) <= 0.01


def test_short_documents_and_small_languages_have_no_score(tmp_path):
    pages = [("en", nonsense(1, 99)), ("en", nonsense(2, 100)), ("de", nonsense(3, 150)), (None, nonsense(4, 100))]
    rows = build(tmp_path, [pages], min_corpus_tokens=180)
    assert [row["kl"] is None for row in rows] == [True, False, True, False]
    assert [row["outlier_share"] is None for row in rows] == [True, False, True, False]


def test_words_without_a_letter_are_one_token(tmp_path):
    numbers = " ".join(str(number) for number in range(1000, 1400))
    rows = build(tmp_path, [[("en", numbers), ("en", "2024 1 " * 100), ("en", nonsense(1, 200))]], min_corpus_tokens=1)
    assert rows[0]["kl"] == pytest.approx(rows[1]["kl"], abs=0.8) and rows[0]["outlier_share"] == 0.0


def test_any_number_of_workers_gives_the_same_rows(tmp_path):
    pages = [[("en", nonsense(seed, 150)) for seed in range(6)], [("de", nonsense(seed, 150)) for seed in range(6)]]
    one = build(tmp_path / "one", pages, workers=1, min_corpus_tokens=1)
    assert build(tmp_path / "two", pages, workers=2, min_corpus_tokens=1) == one


def test_nothing_to_count_is_no_error(tmp_path):
    assert build(tmp_path, [[]]) == []
    assert outlier_tokens.token_bins(pa.array([], pa.string()))[0].size <= 1
