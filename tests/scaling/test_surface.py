import math

import numpy as np
import pyarrow as pa
import pytest

from l3_platform.scaling.isoflop import HELD_OUT_TOKENS, as_the_sweep_weighs
from l3_platform.scaling.surface import LossSurface, fit_surface
from tests.scaling.test_parametric import HOFFMANN, sweep

PARAMS, TOKENS = 10e9, 400e9  # 2.4e22 FLOPs; the largest run of the sweep has 1e22
NOISE = 0.01


def runs(noise: float = NOISE, seed: int = 0) -> pa.Table:
    return pa.table(dict(zip(("params", "tokens", "loss"), sweep(noise=noise, seed=seed), strict=True)))


def surface(table: pa.Table) -> LossSurface:
    found = fit_surface(table)
    assert isinstance(found, LossSurface), found
    return found


def test_without_noise_the_prediction_is_the_law_and_its_interval_is_closed():
    value, low, high = surface(runs(noise=0.0)).predict(PARAMS, TOKENS)
    assert [value, low, high] == pytest.approx([float(HOFFMANN.loss(PARAMS, TOKENS))] * 3, rel=1e-4)


@pytest.mark.exhaustive
def test_nine_in_ten_new_runs_beyond_the_sweep_fall_into_the_interval():
    truth, hits, trials = float(HOFFMANN.loss(PARAMS, TOKENS)), 0, 60
    for seed in range(trials):
        _, low, high = surface(runs(seed=seed)).predict(PARAMS, TOKENS)
        hits += low <= truth * math.exp(NOISE * np.random.default_rng(1000 + seed).standard_normal()) <= high
    assert 0.80 <= hits / trials <= 0.98  # 0.90, give or take two and a half standard errors


def test_the_interval_of_a_run_is_wider_than_that_of_the_law():
    """A plan trains one model, which scatters as those of the sweep did."""
    found = surface(runs())
    _, low, high = found.predict(1e9, 20e9)  # in the middle of the sweep, where the law is known best
    value = float(HOFFMANN.loss(1e9, 20e9))
    assert high - low > 2 * 1.64 * NOISE * value * 0.8


def test_the_same_surface_says_the_same_after_a_round_trip():
    found = surface(runs())
    assert LossSurface.model_validate_json(found.model_dump_json()).predict(PARAMS, TOKENS) == found.predict(PARAMS, TOKENS)


def test_too_few_runs_and_runs_without_a_trend_are_met_with_words():
    assert "6 runs are too few" in str(fit_surface(runs().slice(0, 6)))
    rising = runs().set_column(2, "loss", pa.array(1.0 + np.log10(runs()["tokens"].to_numpy())))
    assert "predict nothing" in str(fit_surface(rising))


def test_diverged_runs_do_not_enter():
    table = runs()
    diverged = pa.table({"params": [1e9], "tokens": [1e9], "loss": [math.nan]})
    assert surface(pa.concat_tables([table, diverged])).law == surface(table).law


def test_a_domain_weighs_in_the_final_model_what_it_weighed_in_the_sweep():
    held_out = {"web": (4.0 * 10**6, 10**6), "maths": (2.0 * 1000, 1000)}
    most = HELD_OUT_TOKENS - 1
    assert as_the_sweep_weighs(held_out) == pytest.approx((4.0 * most + 2.0 * 1000) / (most + 1000))
    assert math.isnan(as_the_sweep_weighs({}))
