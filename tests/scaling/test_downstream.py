import numpy as np
import pyarrow as pa
import pytest

from l3_platform.scaling.downstream import (
    ForecastError,
    Sigmoid,
    back_test,
    fit_forecaster,
    one_exponent,
    read_ladder,
    second_step,
    share_nll,
)
from l3_platform.scaling.parametric import Parametric

LAW = Parametric(E=0.45, A=60.0, B=150.0, alpha=0.28, beta=0.28, objective=0.0)  # bits a byte of the right answer
CURVE = Sigmoid(floor=0.25, steepness=7.0, middle=0.75)


def checkpoints(sizes=(2e8, 4e8, 8e8, 1.3e9, 3e9), lengths=(20, 40, 100, 200), noise=0.0, along=30) -> pa.Table:
    """Runs of a known law and curve: `lengths` are tokens a parameter at the end."""
    random, rows = np.random.default_rng(5), []
    for size in sizes:
        for length in lengths:
            for share in np.linspace(1 / along, 1.0, along):
                tokens = size * length * share
                nll = float(LAW.loss(size, tokens)) * np.exp(noise * random.standard_normal())
                accuracy = float(CURVE(nll)) + noise * random.standard_normal()
                run = f"{size:.0f}-{length}"
                rows.append({"run": run, "params": size, "tokens": tokens, "nll": nll, "accuracy": accuracy})
    return pa.Table.from_pylist(rows)


def truth(params: float, tokens: float) -> float:
    return float(CURVE(LAW.loss(params, tokens)))


def test_a_model_four_times_the_largest_is_forecast_within_two_points():
    predicted = fit_forecaster(checkpoints()).at(1.3e10, 2.6e11)
    assert predicted.value == pytest.approx(truth(1.3e10, 2.6e11), abs=0.02)


def test_the_interval_of_a_noisy_ladder_holds_the_truth():
    predicted = fit_forecaster(checkpoints(noise=0.004)).at(7e9, 7e11)
    assert predicted.low < truth(7e9, 7e11) < predicted.high


def test_noise_widens_the_interval():
    widths = [(one := fit_forecaster(checkpoints(noise=noise)).at(7e9, 7e11)).high - one.low for noise in (0.001, 0.01)]
    assert widths[0] < widths[1]


def test_small_models_at_chance_fix_the_floor_and_not_the_ceiling():
    curve = second_step(read_ladder(checkpoints(sizes=(2e8, 4e8, 8e8))))
    assert curve.floor == pytest.approx(0.25, abs=0.02)
    assert float(curve(-5.0)) == pytest.approx(1.0)


def test_a_hidden_size_is_not_seen_by_its_forecast():
    whole = checkpoints()
    spoiled = pa.concat_tables([checkpoints(sizes=(2e8, 4e8, 8e8, 1.3e9)), _with_accuracy(checkpoints(sizes=(3e9,)), 0.99)])
    one, other = (back_test(table, [f"{3e9:.0f}-{length}" for length in (20, 40, 100, 200)]) for table in (whole, spoiled))
    assert one["predicted"] == other["predicted"]
    assert one["actual"] != other["actual"]


def _with_accuracy(table: pa.Table, value: float) -> pa.Table:
    return table.set_column(4, "accuracy", pa.array([value] * table.num_rows))


def test_the_same_ladder_in_another_order_gives_the_same_forecast():
    table = checkpoints(noise=0.003)
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))
    assert fit_forecaster(table).at(7e9, 1e12) == fit_forecaster(shuffled).at(7e9, 1e12)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (checkpoints().drop_columns(["nll"]), "no column 'nll'"),
        (checkpoints(sizes=(2e8,)), "4 runs do not fix a law"),
        (_with_accuracy(checkpoints(), float("nan")), "no finite number"),
        (_with_accuracy(checkpoints(), 0.25), "no curve to fit"),
    ],
)
def test_a_ladder_that_forecasts_nothing_is_refused_in_words(table, message):
    with pytest.raises(ForecastError, match=message):
        fit_forecaster(table)


def test_hiding_a_run_that_is_not_there_is_refused_in_words():
    with pytest.raises(ForecastError, match="no run is named '7B'"):
        back_test(checkpoints(), ["7B"])


def test_a_law_of_one_exponent_is_found_again():
    law = one_exponent(read_ladder(checkpoints(along=300)))
    at = np.array([1.3e10]), np.array([2.6e11])
    assert law(*at) == pytest.approx(LAW.loss(*at), rel=1e-3)


def test_the_shared_nll_is_the_geometric_mean_of_the_tasks():
    easy, hard = checkpoints(sizes=(2e8,)), _times(checkpoints(sizes=(2e8,)), 4.0)
    shared = share_nll({"easy": easy, "hard": hard})
    assert shared["easy"]["shared_nll"] == shared["hard"]["shared_nll"]
    assert np.asarray(shared["easy"]["shared_nll"]) == pytest.approx(
        2 * np.asarray(easy.sort_by([("run", "ascending"), ("tokens", "ascending")])["nll"])
    )


def test_a_task_measured_elsewhere_shares_nothing():
    with pytest.raises(ForecastError, match="'other' was not measured at the checkpoints of 'one'"):
        share_nll({"one": checkpoints(along=30), "other": checkpoints(along=20)})


def test_a_noisy_task_is_forecast_better_beside_quiet_ones():
    truths, errors = truth(1.3e10, 2.6e11), []
    noisy = _with_noise(checkpoints(), 0.05)
    tables = share_nll({"noisy": noisy} | {f"quiet {index}": checkpoints(noise=0.002) for index in range(7)})
    for table in (noisy, tables["noisy"]):
        errors.append(abs(fit_forecaster(table).at(1.3e10, 2.6e11).value - truths))
    assert errors[1] < errors[0]


def _times(table: pa.Table, factor: float) -> pa.Table:
    return table.set_column(3, "nll", pa.array(factor * np.asarray(table["nll"])))


def _with_noise(table: pa.Table, noise: float) -> pa.Table:
    """NLL off by a factor that is a run's own."""
    random, runs = np.random.default_rng(1), table["run"].to_pylist()
    factors = {run: np.exp(noise * random.standard_normal()) for run in dict.fromkeys(runs)}
    return table.set_column(
        3, "nll", pa.array([nll * factors[run] for nll, run in zip(table["nll"].to_pylist(), runs, strict=True)])
    )
