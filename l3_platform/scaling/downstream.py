"""How good a large model will be at a task, from small ones, in two steps (Llama 3, section 3.2.1, figure 4; Bhagia et al. 2024).

    (N, D)  ->  NLL of the right answer, normalised (a character, or a byte)  ->  accuracy

Three things differ from the published two-step fit; each was chosen by hiding the largest models of a ladder, never by a target:

- *Ceiling.* A sigmoid with a free upper end takes it from small models, which have never been near it, and levels off too
  early. Here a perfect answer's accuracy is 1; only the floor is free, for it is measured (small models lie on it).
- *First step.* L(N, D) alone swings with few runs; a law in compute alone cannot see that a model was trained for long.
  Their mean erred less than the worse of the two on every ladder that was cut back; the gap is part of the interval.
- *Checkpoints.* All but the first tenth of a run enter the second step: the curve through (NLL, accuracy) is the same in a
  run as between runs, and sixteen final points do not fix a floor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import optimize

from l3_platform.scaling.laws import bounds
from l3_platform.scaling.parametric import fit_vpnls

Floats = npt.NDArray[np.float64]
Law = Callable[[Floats, Floats], Floats]  # params [n], tokens [n] -> NLL [n]

LAST = 5  # checkpoints whose mean is a run's result
SKIPPED = 0.1  # share of a run's checkpoints, from the start, that the second step does not see
RESAMPLES = 100
CHECKPOINTS = ("run", "params", "tokens", "nll", "accuracy")


class ForecastError(ValueError):
    """Checkpoints that nothing can be forecast from; the message is meant for a person."""


@dataclass(frozen=True)
class Forecast:
    """A predicted value with its 90 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Sigmoid:
    """accuracy(nll) = floor + (1 - floor) / (1 + exp(steepness · (nll - middle)))."""

    floor: float
    steepness: float
    middle: float

    def __call__(self, nll: float | Floats) -> Floats:
        return self.floor + (1 - self.floor) / (1 + np.exp(self.steepness * (np.asarray(nll) - self.middle)))


@dataclass(frozen=True)
class Runs:
    """A ladder: for each run its size, its tokens at the end, and (NLL, accuracy) along the way."""

    params: Floats  # [runs]
    tokens: Floats
    nll: Floats  # at the end, mean of the last checkpoints
    way: tuple[Floats, ...]  # a run: [checkpoints, 2]

    def drawn(self, rows: npt.NDArray[np.int64]) -> Runs:
        return Runs(self.params[rows], self.tokens[rows], self.nll[rows], tuple(self.way[row] for row in rows))


@dataclass(frozen=True)
class Forecaster:
    """Both steps, fitted to a ladder and to resamples of its runs."""

    laws: tuple[Law, Law]
    curve: Sigmoid
    resamples: tuple[tuple[Law, float, Sigmoid], ...]  # one of the two laws, a run's scatter about it, and the curve

    def at(self, params: float, tokens: float) -> Forecast:
        """Accuracy of a model of `params` after `tokens`."""
        value = float(self.curve(_mean(self.laws, params, tokens)))
        samples = [float(curve(_nll(law, params, tokens) * scatter)) for law, scatter, curve in self.resamples]
        low, high = bounds(samples)
        return Forecast(value, min(low, value), max(high, value))


def fit_forecaster(checkpoints: pa.Table, seed: int = 0) -> Forecaster:
    """From the CHECKPOINTS of small models. Raises ForecastError."""
    ladder = read_ladder(checkpoints)
    laws, curve = first_step(ladder), second_step(ladder)
    runs = list(zip(ladder.nll, ladder.params, ladder.tokens, strict=True))
    scatter = [nll / _mean(laws, params, tokens) for nll, params, tokens in runs]
    generator = np.random.default_rng(seed)
    resamples = []
    for _ in range(RESAMPLES):
        drawn = ladder.drawn(generator.integers(0, len(runs), len(runs)))
        law, deviation = generator.integers(2), float(generator.choice(scatter))
        try:
            resamples.append(((power_law, _two_sizes)[law](drawn), deviation, second_step(drawn, curve)))
        except (ForecastError, np.linalg.LinAlgError):
            continue
    if 2 * len(resamples) < RESAMPLES:
        raise ForecastError("fewer than half of the resampled ladders could be fitted: bring runs of more sizes and lengths")
    return Forecaster(laws, curve, tuple(resamples))


def back_test(checkpoints: pa.Table, hide_from: float) -> pa.Table:
    """Runs of at least `hide_from` parameters, forecast from the smaller ones: run, params, tokens, predicted, actual."""
    large = np.asarray(checkpoints["params"]) >= hide_from
    known, hidden = checkpoints.filter(pa.array(~large)), checkpoints.filter(pa.array(large))
    if hidden.num_rows == 0:
        raise ForecastError(f"no run has {hide_from:,.0f} parameters or more")
    forecaster, rows = fit_forecaster(known), []
    for name in sorted(set(hidden["run"].to_pylist())):
        run = hidden.filter(pa.array([one == name for one in hidden["run"].to_pylist()])).sort_by("tokens")
        params, tokens = run["params"][-1].as_py(), run["tokens"][-1].as_py()
        predicted = forecaster.at(params, tokens)
        actual = float(np.asarray(run["accuracy"])[-LAST:].mean())
        rows.append({"run": name, "params": params, "tokens": tokens, "predicted": predicted.value, "low": predicted.low,
                     "high": predicted.high, "actual": actual})  # fmt: skip
    return pa.Table.from_pylist(rows)


def read_ladder(checkpoints: pa.Table) -> Runs:
    """Checkpoints by run, in the order of their tokens. Raises ForecastError."""
    missing = [name for name in CHECKPOINTS if name not in checkpoints.column_names]
    if missing:
        raise ForecastError(f"the checkpoints have no column {missing[0]!r}; they need {', '.join(CHECKPOINTS)}")
    ordered = checkpoints.select(CHECKPOINTS).sort_by([("run", "ascending"), ("tokens", "ascending")])
    names = np.asarray(ordered["run"].to_pylist())
    numbers = np.stack([np.asarray(ordered[name], np.float64) for name in CHECKPOINTS[1:]], axis=1)
    if not np.isfinite(numbers).all():
        raise ForecastError("the checkpoints hold a value that is no finite number")
    runs = [numbers[names == name] for name in dict.fromkeys(names.tolist())]
    if len(runs) < 6:
        raise ForecastError(f"{len(runs)} runs do not fix a law of two sizes: at least 6 are needed")
    return Runs(
        params=np.array([run[-1, 0] for run in runs]),
        tokens=np.array([run[-1, 1] for run in runs]),
        nll=np.array([run[-LAST:, 2].mean() for run in runs]),
        way=tuple(run[math.ceil(SKIPPED * len(run)) if len(run) > LAST else 0 :, 2:] for run in runs),
    )


def first_step(ladder: Runs) -> tuple[Law, Law]:
    """NLL of the right answer as a saturating power law in compute, and as L(N, D)."""
    return power_law(ladder), _two_sizes(ladder)


def _two_sizes(ladder: Runs) -> Law:
    return fit_vpnls(ladder.params, ladder.tokens, ladder.nll)[0].loss


def power_law(ladder: Runs) -> Law:
    """NLL = E + A · C^-gamma with C = 6·N·D, least squares of the logs."""
    compute = 6.0 * ladder.params * ladder.tokens
    middle = float(np.exp(np.log(compute).mean()))

    def predicted(theta: Floats, at: Floats) -> Floats:
        return np.exp(theta[0]) + np.exp(theta[1]) * (at / middle) ** -np.exp(theta[2])

    half = math.log(0.5 * float(ladder.nll.min()))
    found = optimize.least_squares(
        lambda theta: np.log(predicted(theta, compute)) - np.log(ladder.nll),
        [half, half, math.log(0.15)],
        bounds=([-9.0, -9.0, -5.0], [half + math.log(2.0), 5.0, 1.0]),
    ).x
    return lambda params, tokens: predicted(found, 6.0 * np.asarray(params) * np.asarray(tokens))


def second_step(ladder: Runs, near: Sigmoid | None = None) -> Sigmoid:
    """The sigmoid through (NLL, accuracy) of the checkpoints, means of LAST neighbours at a time; `near`: where to start."""
    means = [run[: len(run) // LAST * LAST].reshape(-1, LAST, 2).mean(axis=1) if len(run) >= LAST else run for run in ladder.way]
    nll, accuracy = np.concatenate(means).T
    if np.ptp(nll) <= 0 or np.ptp(accuracy) <= 0:
        raise ForecastError("all checkpoints have the same NLL or accuracy: there is no curve to fit")
    centre, width = float(np.median(nll)), float(np.ptp(nll))

    def residuals(theta: Floats) -> Floats:
        return Sigmoid(theta[0], np.exp(theta[1]), theta[2])(nll) - accuracy

    starts = [
        (0.9 * float(accuracy.min()), math.log(factor / width), centre - shift * width)
        for factor in (3.0, 8.0)
        for shift in (0.0, 0.7)
    ]
    if near is not None:
        starts = [(min(near.floor, float(accuracy.max())), math.log(near.steepness), near.middle)]
    lowest = ([0.0, -9.0, centre - 9 * width], [max(1e-3, float(accuracy.max())), 9.0, centre + 9 * width])
    best = min((optimize.least_squares(residuals, start, bounds=lowest) for start in starts), key=lambda found: found.cost).x
    return Sigmoid(float(best[0]), float(np.exp(best[1])), float(best[2]))


def _mean(laws: tuple[Law, Law], params: float, tokens: float) -> float:
    return sum(_nll(law, params, tokens) for law in laws) / len(laws)


def _nll(law: Law, params: float, tokens: float) -> float:
    return float(law(np.array([params]), np.array([tokens]))[0])
