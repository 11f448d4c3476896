"""What a set is worth: paired, with an interval, and a verdict only where the interval has one."""

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from l3_platform.data_value.annealing import RUNS
from l3_platform.data_value.value import Value, domains_judged, value_of
from l3_platform.orchestration.data_value_card import ranking_chart


def runs(**losses: dict[int, tuple[float | None, float | None]]) -> pa.Table:
    """Mixture to seed to held-out losses of general and math."""
    rows = [
        {"point": f"{mixture}-{seed}", "mixture": mixture, "seed": seed, "loss_general": general, "loss_math": math}
        for mixture, by_seed in losses.items()
        for seed, (general, math) in by_seed.items()
    ]
    return pa.Table.from_pylist(rows, schema=RUNS)


def test_the_value_is_what_the_weighted_loss_falls_by_with_the_interval_of_pairs():
    seeds, gains = np.array([4.0, 4.5, 5.0, 5.5]), np.array([0.02, 0.05, 0.03, 0.04])
    default = {seed: (2 * loss, loss) for seed, loss in enumerate(seeds)}
    better = {seed: (2 * loss, loss - gain) for seed, (loss, gain) in enumerate(zip(seeds, gains, strict=True))}
    got = value_of("sums", runs(default=default, sums=better), {"general": 0.75, "math": 0.25})
    interval = stats.ttest_1samp(0.25 * gains, 0.0).confidence_interval(0.90)
    assert (got.mean, got.low, got.high, got.pairs) == (pytest.approx(0.25 * gains.mean()), *map(pytest.approx, interval), 4)
    assert got.verdict == "useful"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.03, "useful"), (-0.03, -0.01, "harmful"), (-0.01, 0.03, "cannot tell"), (None, None, "cannot tell")],
)
def test_the_verdict_needs_an_interval_that_leaves_zero_out(low, high, verdict):
    assert Value(candidate="sums", mean=0.01, low=low, high=high, pairs=4).verdict == verdict


def test_a_seed_that_diverged_on_one_side_is_no_pair():
    default = {1: (4.0, 4.0), 2: (4.0, 4.0), 3: (4.0, 4.0)}
    got = value_of("sums", runs(default=default, sums={2: (3.9, 3.9), 4: (9.0, 9.0)}), {"general": 1.0})
    assert (got.pairs, got.low, got.mean) == (1, None, pytest.approx(0.1))
    assert value_of("sums", runs(default=default), {"general": 1.0}) is None


def test_a_domain_of_which_nothing_is_held_out_is_not_judged():
    assert domains_judged(runs(default={1: (4.0, None), 2: (4.1, None)})) == ["general"]


def test_the_chart_stays_small_with_twenty_sets():
    values = [Value(candidate=f"set {one}", mean=one / 10, low=one / 10 - 1, high=one / 10 + 1, pairs=4) for one in range(20)]
    picture = ranking_chart(values)
    assert picture.startswith(b"\x89PNG") and len(picture) < 100_000
