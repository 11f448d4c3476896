from itertools import combinations

import numpy as np
import pytest

from l3_platform.extract import words as w
from l3_platform.extract.features import FEATURES
from l3_platform.extract.forest import SECOND, Forest, best_set, content, shipped
from l3_platform.extract.layout import read


def sized(*counts: int) -> np.ndarray:
    table = np.zeros((len(counts), w.WORD_COLUMNS), np.float32)
    table[:, w.WORDS] = counts
    return table


def test_the_best_set_has_the_largest_expected_f1_of_all_sets():
    dice = np.random.default_rng(3)
    for _ in range(20):
        probability, counts = dice.random(7).astype(np.float32), dice.integers(1, 50, 7)
        truth = float(probability @ counts)
        sets = [list(chosen) for size in range(1, 8) for chosen in combinations(range(7), size)]
        best = max(2 * float(probability[chosen] @ counts[chosen]) / (counts[chosen].sum() + truth) for chosen in sets)
        assert best_set(probability, sized(*counts))[1] == pytest.approx(best, rel=1e-5)


def test_where_all_is_unlikely_the_likeliest_is_still_chosen():
    assert best_set(np.array([0.02, 0.05, 0.01], np.float32), sized(10, 10, 10))[0].tolist() == [False, True, False]


def test_a_forest_answers_as_its_trees_do_one_row_at_a_time():
    forest = shipped().second
    rows = np.random.default_rng(5).normal(0, 3, (21, FEATURES + SECOND)).astype(np.float32)
    assert forest.probabilities(rows) == pytest.approx([_walked(forest, row) for row in rows], rel=1e-4)


def test_a_page_without_text_has_no_content():
    layout, weights = read(b"<p></p>", 10), shipped()
    words = layout.words(weights.words)
    assert content(layout.features(words, weights.names), layout.blocks, layout.boxes, words, weights).tolist() == []


def test_the_shipped_weights_are_small():
    from importlib.resources import files

    assert len(files("l3_platform.extract").joinpath("content.npz").read_bytes()) < 300_000


def _walked(forest: Forest, row: np.ndarray) -> float:
    total = 0.0
    for root in forest.roots:
        node = root
        while forest.child[node] != node:
            node = forest.child[node] + (row[forest.column[node]] > forest.threshold[node])
        total += forest.leaf[node]
    return 1 / (1 + np.exp(-total))
