import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from scipy import optimize
from typer.testing import CliRunner

from l3_platform.cli import app
from l3_platform.scaling.fit import FitError, without_highest
from l3_platform.scaling.parametric import Parametric, fit_huber, fit_vpnls

HOFFMANN = Parametric(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658, objective=0.0)  # as Besiroglu et al. 2024 fit it


def sweep(law: Parametric = HOFFMANN, noise: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """params, tokens and loss of 8 runs at each of 7 budgets, about their optima."""
    budget = np.repeat(np.geomspace(6e18, 1e22, 7), 8)
    factor = np.tile(10 ** np.linspace(-0.7, 0.7, 8), 7)
    tokens = np.array([law.at(one)[0] for one in budget]) * factor
    params = budget / 6 / tokens
    scatter = np.exp(noise * np.random.default_rng(seed).standard_normal(len(budget)))
    return params, tokens, law.loss(params, tokens) * scatter


@pytest.fixture(scope="module")
def chinchilla(shared_data) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The runs of Hoffmann et al. 2022, less the five outliers of highest loss (Besiroglu et al. 2024)."""
    runs = pyarrow.csv.read_csv(shared_data / "scaling" / "chinchilla-epoch-svg.csv").sort_by("loss")
    runs = runs.slice(0, runs.num_rows - 5)
    return runs["params"].to_numpy(), runs["tokens"].to_numpy(), runs["loss"].to_numpy()


def test_the_huber_fit_of_chinchilla_s_runs_goes_at_least_as_low_as_the_published_one(chinchilla):
    (law,) = fit_huber(*chinchilla)
    assert law.objective <= 1.0186e-3


def test_the_command_drops_the_outliers_where_it_is_asked_to(chinchilla, shared_data):
    path = str(shared_data / "scaling" / "chinchilla-epoch-svg.csv")
    done = CliRunner().invoke(app, ["fit", path, "--method", "huber", "--drop-highest", "5", "--json"])
    assert done.exit_code == 0 and json.loads(done.output)["law"]["objective"] <= 1.0186e-3


def test_more_runs_than_there_are_cannot_be_dropped():
    runs = pa.table({"params": [1e6, 2e6], "tokens": [1e8, 1e8], "loss": [3.0, 2.9]})
    with pytest.raises(FitError, match="of 2 runs 2 cannot be left out"):
        without_highest(runs, 2)


def test_the_exponents_of_chinchilla_s_runs_lie_in_the_published_intervals(chinchilla):
    (law,) = fit_huber(*chinchilla)
    assert 0.317 < law.alpha < 0.373
    assert 0.331 < law.beta < 0.415


def test_the_huber_objective_is_what_it_says(chinchilla):
    (law,) = fit_huber(*chinchilla)
    params, tokens, loss = chinchilla
    residuals = np.abs(np.log(loss) - np.log(law.loss(params, tokens)))
    huber = np.where(residuals < 1e-3, 0.5 * residuals**2, 1e-3 * (residuals - 0.5e-3))
    assert law.objective == pytest.approx(huber.sum(), rel=1e-9)


@pytest.mark.parametrize("search", [fit_huber, fit_vpnls])
def test_a_known_law_is_recovered(search):
    (law,) = search(*sweep())
    assert (law.E, law.alpha, law.beta) == pytest.approx((HOFFMANN.E, HOFFMANN.alpha, HOFFMANN.beta), rel=1e-4)
    assert law.at(1e24) == pytest.approx(HOFFMANN.at(1e24), rel=1e-3)


def test_variable_projection_finds_no_worse_a_minimum_than_a_general_optimiser():
    params, tokens, loss = sweep(noise=0.004)
    (law,) = fit_vpnls(params, tokens, loss)

    def residuals(theta):
        e, a, b, alpha, beta = theta
        return np.exp(e) + np.exp(a - alpha * np.log(params)) + np.exp(b - beta * np.log(tokens)) - loss

    start = [math.log(HOFFMANN.E), math.log(HOFFMANN.A), math.log(HOFFMANN.B), HOFFMANN.alpha, HOFFMANN.beta]
    peer = optimize.least_squares(residuals, start, xtol=1e-14, ftol=1e-14)
    assert law.objective <= 2 * peer.cost * (1 + 1e-6)


@pytest.mark.parametrize("search", [fit_huber, fit_vpnls])
def test_a_resample_gives_what_its_runs_alone_would_give(search):
    params, tokens, loss = sweep(noise=0.002)
    drawn = np.random.default_rng(4).multinomial(len(loss), np.full(len(loss), 1 / len(loss))).astype(np.float64)
    rows = np.repeat(np.arange(len(loss)), drawn.astype(int))
    (weighted,), (alone,) = search(params, tokens, loss, drawn[None]), search(params[rows], tokens[rows], loss[rows])
    assert weighted.objective == pytest.approx(alone.objective, rel=1e-4)
    assert weighted.tokens_exponent == pytest.approx(alone.tokens_exponent, abs=2e-3)


def test_runs_without_gain_from_tokens_have_no_negative_coefficient():
    params, tokens, _ = sweep()
    (law,) = fit_vpnls(params, tokens, 2.0 + 300 * params**-0.3)
    assert abs(law.B) < 1e-6
    assert law.alpha == pytest.approx(0.3, rel=1e-3)


def test_the_optimum_spends_the_budget_and_no_other_split_is_better():
    tokens, params = HOFFMANN.at(1e23)
    assert 6 * tokens * params == pytest.approx(1e23)
    others = tokens * np.geomspace(0.5, 2.0, 41)
    assert float(HOFFMANN.loss(params, tokens)) <= HOFFMANN.loss(1e23 / 6 / others, others).min() + 1e-12


def test_the_optimum_wastes_nothing_and_a_wrong_split_something():
    tokens, _ = HOFFMANN.at(1e23)
    assert HOFFMANN.lost_compute(1e23, tokens) == pytest.approx(0.0, abs=1e-9)
    wasted = HOFFMANN.lost_compute(1e23, 3 * tokens)
    enough = (1 - wasted) * 1e23
    best_tokens, best_params = HOFFMANN.at(enough)
    assert float(HOFFMANN.loss(best_params, best_tokens)) == pytest.approx(float(HOFFMANN.loss(1e23 / 18 / tokens, 3 * tokens)))
    assert 0.05 < wasted < 0.5
