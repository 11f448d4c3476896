from itertools import combinations

import numpy as np
import pytest

from l3_platform.extract import words as w
from l3_platform.extract.forest import best_set, content, shipped
from l3_platform.extract.layout import read
from l3_platform.extract.train import flattened


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
    dice = np.random.default_rng(5)
    trees = [grown(dice, leaves) for leaves in (1, 2, 3, 17, 31, 32, 32)]
    rows = dice.normal(0, 3, (150, COLUMNS)).astype(np.float32)
    rows[::3] = dice.integers(-2, 3, rows[::3].shape)  # on a threshold, too
    rows[64:128, 2] = 0.5  # the same for all that are answered at once
    rows[64:128, 3] += 100
    answers = flattened([{"tree_structure": tree} for tree in trees], COLUMNS).probabilities(rows)
    assert answers == pytest.approx([walked(trees, row) for row in rows], rel=1e-4)


def test_a_page_without_text_has_no_content():
    layout, weights = read(b"<p></p>", 10), shipped()
    words = layout.words(weights.words)
    assert content(layout.features(words, weights.names), layout.blocks, layout.boxes, words, weights).tolist() == []


def test_the_shipped_weights_are_small():
    from importlib.resources import files

    assert len(files("l3_platform.extract").joinpath("content.npz").read_bytes()) < 300_000


COLUMNS = 6


def grown(dice: np.random.Generator, leaves: int) -> dict:
    """A random tree, as LightGBM dumps it."""
    if leaves == 1:
        return {"leaf_value": float(dice.normal())}
    left = int(dice.integers(1, leaves))
    return {
        "split_feature": int(dice.integers(COLUMNS)),
        "threshold": float(dice.integers(-2, 3) if dice.random() < 0.5 else dice.normal()),
        "left_child": grown(dice, left),
        "right_child": grown(dice, leaves - left),
    }


def walked(trees: list[dict], row: np.ndarray) -> float:
    total = 0.0
    for tree in trees:
        while "leaf_value" not in tree:
            tree = tree["left_child" if row[tree["split_feature"]] <= tree["threshold"] else "right_child"]
        total += tree["leaf_value"]
    return 1 / (1 + np.exp(-total))
