import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from l3_platform.scaling.mixture_runs import RUNS
from l3_platform.scaling.mixture_validation import Difference, paired_difference, target_losses


def losses(first: list[float], second: list[float]) -> dict[str, dict[int, float]]:
    return {"found": dict(enumerate(first)), "natural": dict(enumerate(second))}


def test_the_interval_is_student_s_of_the_paired_differences():
    first, second = [4.0, 4.1, 3.9, 4.2], [4.1, 4.3, 3.95, 4.2]
    got = paired_difference("found", "natural", losses(first, second))
    interval = stats.ttest_rel(first, second).confidence_interval(0.90)
    assert (got.low, got.high) == pytest.approx((interval.low, interval.high))
    assert got.mean == pytest.approx(np.mean(first) - np.mean(second))


def test_pairing_sees_a_difference_that_the_seeds_scatter_would_hide():
    seeds = np.array([4.0, 4.5, 5.0, 5.5])
    got = paired_difference("found", "natural", losses(list(seeds - 0.02), list(seeds)))
    assert got.high < 0
    assert stats.ttest_ind(seeds - 0.02, seeds).pvalue > 0.9


def test_a_seed_that_only_one_of_them_finished_is_no_pair():
    table = {"found": {1: 4.0, 2: 4.1, 3: 4.2}, "natural": {2: 4.3, 3: 4.3, 4: 9.9}}
    got = paired_difference("found", "natural", table)
    assert (got.pairs, got.mean) == (2, pytest.approx(-0.15))


def test_one_pair_has_no_interval_and_none_no_difference():
    assert paired_difference("found", "natural", losses([4.0], [4.1])).low is None
    assert paired_difference("found", "natural", {"found": {1: 4.0}}) is None


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [(-0.03, -0.01, "found is better"), (0.01, 0.03, "found is worse"), (-0.01, 0.03, "no difference is shown")],
)
def test_what_was_seen_is_said_in_words_and_never_softened(low, high, says):
    one = Difference(mixture="found", against="natural", mean=(low + high) / 2, low=low, high=high, pairs=4)
    assert one.in_words.endswith(says)


def test_the_target_weighs_the_domains_and_leaves_diverged_runs_out():
    rows = [
        {"mixture": "found", "seed": 1, "loss_math": 4.0, "loss_code": 2.0},
        {"mixture": "found", "seed": 2, "loss_math": float("nan"), "loss_code": 2.0},
    ]
    table = pa.Table.from_pylist(rows, schema=RUNS)
    assert target_losses(table, {"math": 0.75, "code": 0.25}) == {"found": {1: 3.5}}
