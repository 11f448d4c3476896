import math

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from l3_platform.scaling.laws import ScalingLaw, fit_isoflop

LLAMA_3_BUDGET = 3.8e25


def made_runs(budgets=(1e18, 1e19, 1e20), sizes=7, exponent=0.53, coefficient=0.3, noise=0.0, shift=0.0, seed=3) -> pa.Table:
    """Runs whose minima lie exactly on the law, `shift` decades of tokens away from the middle of the runs."""
    random = np.random.default_rng(seed)
    rows = []
    for budget in budgets:
        optimum = math.log10(coefficient * budget**exponent)
        for x in np.linspace(optimum + shift - 0.6, optimum + shift + 0.6, sizes):
            loss = 3.0 * budget**-0.03 + 0.1 * (x - optimum) ** 2 + noise * random.standard_normal()
            rows.append({"flops": budget, "params": budget / 6 / 10**x, "tokens": 10**x, "loss": loss})
    return pa.Table.from_pylist(rows)


@pytest.fixture(scope="module")
def paper(shared_data) -> ScalingLaw:
    return fit_isoflop(pa.csv.read_csv(shared_data / "scaling" / "llama3-isoflops-digitised.csv"))


def test_the_paper_s_runs_give_the_paper_s_exponent(paper):
    assert paper.exponent == pytest.approx(0.537, abs=0.001)


def test_the_paper_s_runs_give_the_paper_s_coefficient(paper):
    assert paper.coefficient == pytest.approx(0.299, abs=0.001)


def test_the_paper_s_runs_extrapolate_to_its_tokens(paper):
    assert paper.at(LLAMA_3_BUDGET)[0] == pytest.approx(16.55e12, rel=0.05)


def test_the_paper_s_runs_extrapolate_to_its_parameters(paper):
    assert paper.at(LLAMA_3_BUDGET)[1] == pytest.approx(402e9, rel=0.05)


def test_every_budget_of_the_paper_has_a_usable_minimum(paper):
    assert len(paper.usable) == len(paper.minima) == 10


def test_the_bootstrap_of_the_paper_s_runs_holds_the_paper_s_figures(paper):
    low, high = paper.exponent_interval()
    assert low < 0.537 < high
    low, high = paper.interval(LLAMA_3_BUDGET)
    assert low < 16.55e12 < high


def test_a_known_law_is_recovered_exactly():
    law = fit_isoflop(made_runs())
    assert (law.exponent, law.coefficient) == pytest.approx((0.53, 0.3), rel=1e-6)


def test_tokens_and_parameters_spend_the_budget():
    tokens, params = fit_isoflop(made_runs()).at(7e22)
    assert 6 * tokens * params == pytest.approx(7e22)


def test_the_loss_of_the_minima_is_extrapolated():
    law = fit_isoflop(made_runs())
    assert law.loss(1e22) == pytest.approx(3.0 * 1e22**-0.03, rel=1e-6)


def test_noise_widens_the_interval():
    widths = []
    for noise in (0.001, 0.004):
        low, high = fit_isoflop(made_runs(sizes=12, noise=noise)).interval(1e22)
        widths.append(math.log10(high / low))
    assert widths[0] < widths[1]


def test_the_same_runs_in_another_order_give_the_same_law():
    runs = made_runs(noise=0.003)
    backwards = runs.take(list(range(runs.num_rows))[::-1])
    assert fit_isoflop(runs).model_dump_json() == fit_isoflop(backwards).model_dump_json()


def test_an_optimum_beyond_the_runs_is_left_out_and_the_remedy_named():
    good, bad = made_runs(budgets=(1e18, 1e19)), made_runs(budgets=(1e20,), shift=-0.9)
    law = fit_isoflop(pa.concat_tables([good, bad]))
    assert [minimum.inside for minimum in law.minima] == [True, True, False]
    assert "budget 1e+20: the optimum lies at more tokens than any run had: add smaller models" in law.notes
    assert law.exponent == pytest.approx(0.53, rel=1e-6)


def test_losses_that_curve_downwards_have_no_minimum():
    runs = made_runs(budgets=(1e18,))
    upside_down = runs.set_column(3, "loss", pa.array([5.0 - loss for loss in runs["loss"].to_pylist()]))
    assert "curve downwards" in fit_isoflop(upside_down).minima[0].problem


def test_without_a_usable_budget_the_fallback_is_twenty_tokens_a_parameter():
    law = fit_isoflop(made_runs(sizes=2))
    tokens, params = law.at(1e22)
    assert (law.method, tokens / params) == ("fallback", pytest.approx(20.0))


def test_one_usable_budget_anchors_the_fallback():
    law = fit_isoflop(made_runs(budgets=(1e18,)))
    assert law.method == "fallback"
    assert law.at(1e18)[0] == pytest.approx(0.3 * 1e18**0.53)


def test_a_fallback_says_that_nothing_was_measured():
    assert "no power law could be fitted" in fit_isoflop(made_runs(sizes=2)).notes[-1]


def test_an_exponent_that_shrinks_the_model_is_not_believed():
    law = fit_isoflop(made_runs(exponent=1.3, coefficient=1e-14))
    assert (law.method, law.exponent) == ("fallback", 0.5)


def test_two_usable_budgets_are_enough_and_said_to_be_thin():
    law = fit_isoflop(made_runs(budgets=(1e18, 1e19)))
    assert law.method == "isoflop"
    assert "only two usable budgets" in law.notes[0]


def test_diverged_runs_are_left_out_and_counted():
    runs = made_runs()
    diverged = pa.table({"flops": [1e18], "params": [1e8], "tokens": [1e9], "loss": [float("nan")]})
    law = fit_isoflop(pa.concat_tables([runs, diverged.select(runs.column_names)]))
    assert law.notes[0] == "1 of 22 runs have no finite loss and are left out"
    assert law.exponent == pytest.approx(0.53, rel=1e-6)


def test_a_law_survives_json():
    law = fit_isoflop(made_runs(noise=0.002))
    assert ScalingLaw.model_validate_json(law.model_dump_json()) == law


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match="no column 'loss'"):
        fit_isoflop(made_runs().drop_columns(["loss"]))


def test_a_sweep_without_runs_is_refused_in_words():
    with pytest.raises(ValueError, match="none of 0 has a finite loss; see which points isoflop_runs left out"):
        fit_isoflop(made_runs().slice(0, 0))
