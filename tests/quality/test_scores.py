"""Scores: probabilities beside their documents, and deciles that no worker decides."""

import numpy as np
import pytest

from l3_platform.quality.questions import QUALITY
from l3_platform.quality.scores import decile_edges
from l3_platform.settings import Engine, Settings

SETTINGS = Settings(engine=Engine(workers=1))


@pytest.fixture(scope="module")
def pages(labelled_pages):
    strange = [{"url": "https://empty.example", "text": ""}, {"url": "https://null.example", "text": None}]
    return [*labelled_pages(120), *strange, {"url": "https://signs.example", "text": "§ \x00 \n ¶"}]


@pytest.fixture(scope="module")
def dataset(corpus, pages):
    made = corpus(pages[:50], [], pages[50:])
    return made.scores(QUALITY, SETTINGS, made.classifier(QUALITY, SETTINGS))


def test_scores_lie_beside_their_documents(dataset, pages, id_of):
    assert [shard.name for shard in dataset.shards] == [f"demo-1.part-0000{n}" for n in range(3)]
    assert dataset.read()["doc_id"].to_pylist() == [id_of(page) for page in pages]


def test_documentation_scores_above_a_shop(dataset, pages):
    scores = dataset.read()["score"].to_numpy()[:120]
    docs = np.array(["docs" in page["url"] for page in pages[:120]])
    assert scores[docs].mean() > 0.8 and scores[~docs].mean() < 0.2


def test_a_score_is_a_probability_and_nothing_to_read_scores_nothing(dataset):
    scores = dataset.read()["score"].to_numpy()
    assert scores.min() >= 0.0 and scores.max() <= 1.0
    assert scores[120:122].tolist() == [0.0, 0.0]


def test_a_row_names_the_model_that_scored_it(dataset):
    versions = set(dataset.read()["model"].to_pylist())
    assert len(versions) == 1 and len(versions.pop()) == 16


def test_buckets_rise_with_the_score(dataset):
    table = dataset.read().sort_by("score")
    buckets = table["bucket"].to_numpy()
    assert (np.diff(buckets) >= 0).all() and {0, 9} <= set(buckets.tolist())


def test_deciles_are_those_of_numpy():
    scores = np.random.default_rng(1).beta(0.3, 0.3, 20_000).astype(np.float32)
    expected = np.quantile(scores, np.arange(1, 10) / 10)
    np.testing.assert_allclose(decile_edges([scores]), expected, atol=2e-3)


def test_deciles_do_not_depend_on_how_scores_are_parted():
    scores = np.random.default_rng(2).random(999).astype(np.float32)
    assert decile_edges([scores]) == decile_edges([scores[500:], scores[:20], scores[20:500]])
