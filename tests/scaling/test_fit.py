import json

import numpy as np
import pyarrow as pa
import pytest

from l3_platform.scaling.fit import METHODS, FitError, as_text, fit, read_runs
from l3_platform.scaling.laws import fit_isoflop
from l3_platform.scaling.parametric import fit_huber, fit_vpnls
from tests.scaling.test_laws import made_runs
from tests.scaling.test_parametric import HOFFMANN, sweep

BUDGET = 3.8e25


@pytest.fixture(scope="module")
def paper(shared_data) -> pa.Table:
    return read_runs(shared_data / "scaling" / "llama3-isoflops-digitised.csv")


def hoffmann_runs(noise: float = 0.002, seed: int = 0) -> pa.Table:
    return pa.table(dict(zip(("params", "tokens", "loss"), sweep(noise=noise, seed=seed), strict=True)))


def test_the_paper_s_runs_give_the_paper_s_plan_with_intervals_that_cover_it(paper):
    found = fit(paper, BUDGET)
    assert found.tokens_exponent.value == pytest.approx(0.537, abs=0.01)
    assert found.tokens_at_budget.value == pytest.approx(16.55e12, rel=0.05)
    assert found.params_at_budget.value == pytest.approx(402e9, rel=0.05)
    for estimate, truth in ((found.tokens_exponent, 0.537), (found.tokens_at_budget, 16.55e12), (found.params_at_budget, 402e9)):
        assert estimate.low < truth < estimate.high


def test_the_parabola_s_bias_is_stated_as_lost_compute(paper):
    assert 0.0 < fit(paper, BUDGET).lost_compute < 0.2
    assert "wastes" in as_text(fit(paper, BUDGET))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_all_four_answers_with_intervals(method):
    answer = json.loads(fit(hoffmann_runs(), 1e23, method).model_dump_json())
    for name in ("tokens_exponent", "tokens_coefficient", "tokens_at_budget", "params_at_budget"):
        assert answer[name]["low"] < answer[name]["value"] < answer[name]["high"]
    assert answer["method"] == method


@pytest.mark.parametrize("method", METHODS)
def test_tokens_and_parameters_spend_the_budget(method):
    found = fit(hoffmann_runs(), 1e23, method)
    assert 6 * found.tokens_at_budget.value * found.params_at_budget.value == pytest.approx(1e23)


def test_budgets_that_were_nearly_hit_share_a_curve():
    runs = made_runs(noise=0.001)
    jittered = runs.set_column(0, "flops", pa.array(runs["flops"].to_numpy() * np.linspace(0.99, 1.01, runs.num_rows)))
    assert fit(jittered, 1e22).tokens_exponent.value == pytest.approx(fit(runs, 1e22).tokens_exponent.value, abs=0.005)


def test_an_extrapolation_is_called_one(paper):
    assert any("3,800 times that of the largest run" in note for note in fit(paper, BUDGET).notes)


def test_an_optimum_outside_the_runs_is_reported():
    runs = made_runs(budgets=(1e18, 1e19), shift=-0.9)
    assert any("add smaller models" in note for note in fit(runs, 1e19).notes)


def test_missing_flops_follow_from_parameters_and_tokens():
    runs = hoffmann_runs()
    whole = runs.append_column("flops", pa.array(6 * runs["params"].to_numpy() * runs["tokens"].to_numpy()))
    assert fit(runs, 1e23) == fit(whole, 1e23)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (pa.table({"params": [1e8], "tokens": [1e9]}), "no column 'loss'"),
        (pa.table({"params": [1e8], "loss": [3.0]}), "need two of flops, params and tokens"),
        (pa.table({"params": [1e8], "tokens": [1e9], "loss": [float("nan")]}), "none of 1 runs has a finite"),
        (pa.table({"params": ["big"], "tokens": [1e9], "loss": [2.0]}), "column 'params'"),
    ],
)
def test_a_table_that_cannot_be_fitted_is_refused_in_words(runs, message):
    with pytest.raises(FitError, match=message):
        fit(runs, 1e23)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FitError, match=r"there is no file .*runs\.csv"):
        read_runs(tmp_path / "runs.csv")


@pytest.mark.exhaustive
@pytest.mark.parametrize("method", METHODS)
def test_nominal_ninety_per_cent_intervals_cover_the_truth_in_85_to_95_of_200_trials(method, monkeypatch):
    """Over 200 synthetic sweeps of known laws; the parabola's truth is one whose curves are parabolas."""
    for module in ("fit", "laws"):
        monkeypatch.setattr(f"l3_platform.scaling.{module}.RESAMPLES", 100)  # a quarter of the usual, for time
    trials, covered = 200, 0
    for trial in range(trials):
        if method == "parabola":
            runs = made_runs(budgets=(1e18, 3e18, 1e19, 3e19, 1e20), sizes=8, noise=0.003, seed=trial)
            truth = 0.53
        else:
            runs, truth = hoffmann_runs(noise=0.003, seed=trial), HOFFMANN.tokens_exponent
        found = fit(runs, 1e22, method, seed=trial).tokens_exponent
        covered += found.low <= truth <= found.high
    assert 0.85 <= covered / trials <= 0.95


def test_the_public_fits_agree_with_the_classes_behind_them():
    runs = made_runs(noise=0.001)
    assert fit(runs, 1e22).tokens_exponent.value == fit_isoflop(runs).exponent
    params, tokens, loss = (runs[name].to_numpy() for name in ("params", "tokens", "loss"))
    assert fit(runs, 1e22, "vpnls").tokens_exponent.value == fit_vpnls(params, tokens, loss)[0].tokens_exponent
    assert fit(runs, 1e22, "huber").tokens_exponent.value == fit_huber(params, tokens, loss)[0].tokens_exponent
