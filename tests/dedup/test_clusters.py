"""Clusters in memory: known similarities, chains, hot bands."""

import itertools

import numpy as np
import pyarrow as pa
import pytest

from l3_platform.dedup import deduplicate
from l3_platform.dedup.candidates import ANCHORS, NEIGHBOURS, candidate_pairs
from l3_platform.dedup.shingles import jaccard, shingles


def text(start: int, end: int) -> str:
    """Windows on one endless text: known overlaps give known similarities."""
    return " ".join(f"w{n}" for n in range(start, end))


def test_a_pair_at_the_threshold_is_a_duplicate():
    left, right = text(0, 904), text(100, 1004)  # 900 shingles each, 800 shared: 0.8
    assert jaccard(shingles(left), shingles(right)) == 0.8
    assert deduplicate(pa.array([left, right]), bands=64)["jaccard"].to_pylist() == [1.0, 0.8]


def test_a_pair_just_under_the_threshold_stays():
    left, right = text(0, 904), text(101, 1005)
    assert deduplicate(pa.array([left, right]), bands=64)["representative"].to_pylist() == [True, True]


def test_the_first_of_a_cluster_stays():
    table = deduplicate(pa.array([text(0, 500), text(2000, 2500), text(2, 502), text(0, 501)]))
    assert table["cluster"].to_pylist() == [0, 1, 0, 0]


def test_the_end_of_a_chain_stays_when_it_does_not_resemble_the_representative():
    chain = [text(n * 60, n * 60 + 604) for n in range(6)]  # neighbours 0.82, next but one 0.67
    table = deduplicate(pa.array(chain), bands=64)
    assert table["cluster"].to_pylist() == [0, 0, 2, 2, 4, 4]


def test_nothing_is_removed_below_the_threshold():
    random = np.random.default_rng(3)
    texts = [text(start, start + 300) for start in random.integers(0, 3000, 150).tolist()]
    table = deduplicate(pa.array(texts), bands=32)
    removed = [(row, cluster) for row, cluster in enumerate(table["cluster"].to_pylist()) if row != cluster]
    assert len(removed) > 50
    assert all(jaccard(shingles(texts[row]), shingles(texts[cluster])) >= 0.8 for row, cluster in removed)


def test_a_removed_document_names_a_representative_that_stays():
    random = np.random.default_rng(4)
    table = deduplicate(pa.array([text(start, start + 300) for start in random.integers(0, 2000, 100).tolist()]))
    stays = table["representative"].to_pylist()
    assert all(stays[cluster] for cluster in table["cluster"].to_pylist())


@pytest.mark.parametrize("similarity, shared, own, recall", [(0.9, 900, 50, 0.98), (0.8, 800, 100, 0.90)])
def test_near_duplicates_are_found(similarity, shared, own, recall):
    pairs = 300
    texts = [
        " ".join(f"p{pair}w{n}" for n in range(start, start + shared + own + 4)) for pair in range(pairs) for start in (0, own)
    ]  # windows of `shared` + `own` shingles each
    assert jaccard(shingles(texts[0]), shingles(texts[1])) == similarity
    table = deduplicate(pa.array(texts))
    removed = np.flatnonzero(~table["representative"].to_numpy())
    assert recall <= len(removed) / pairs <= 1.0
    assert set(table["jaccard"].to_numpy()[removed]) == {similarity}
    assert (table["cluster"].to_numpy()[removed] == removed - 1).all()


def test_a_band_shared_by_a_million_documents_gives_few_pairs():
    left, right = candidate_pairs(np.zeros(1_000_000, np.uint64))
    assert len(left) < 1_000_000 * (ANCHORS + NEIGHBOURS)
    assert (left < right).all()


def test_values_of_one_row_give_no_pairs():
    assert [len(side) for side in candidate_pairs(np.arange(100, dtype=np.uint64))] == [0, 0]


def test_a_small_group_gives_all_its_pairs_and_no_pair_twice():
    groups = np.array([3, 3, 3, 8, 9, 9], np.uint64)
    assert sorted(zip(*(side.tolist() for side in candidate_pairs(groups)), strict=True)) == [
        (0, 1),
        (0, 2),
        (1, 2),
        (4, 5),
    ]
    pairs = list(zip(*(side.tolist() for side in candidate_pairs(np.ones(100, np.uint64))), strict=True))
    assert len(set(pairs)) == len(pairs) and all(left < right for left, right in pairs)


@pytest.mark.parametrize("copies", [16, 17, 400])
def test_copies_in_a_hot_band_are_one_cluster(copies):
    texts = [text(0, 100)] * copies
    assert set(deduplicate(pa.array(texts))["cluster"].to_pylist()) == {0}


def test_two_families_that_share_every_hot_band_are_told_apart():
    families = [text(0, 3), text(0, 4)]  # short texts: one shingle each
    table = deduplicate(pa.array(list(itertools.islice(itertools.cycle(families), 60))))
    assert set(table["cluster"].to_pylist()) == {0, 1}


def test_no_documents_give_no_rows():
    assert deduplicate(pa.array([], pa.string())).num_rows == 0
