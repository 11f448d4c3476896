"""How good a large model will be at a task, from small ones, in two steps (Llama 3, section 3.2.1, figure 4; Bhagia et al. 2024).

    (N, D)  ->  NLL of the right answer, normalised (a character, or a byte)  ->  accuracy

Five things differ from the published two-step fit; each was chosen by hiding the largest or longest runs of a ladder, never
by a target:

- *Ceiling.* A sigmoid with a free upper end takes it from small models, which have never been near it, and levels off too
  early. Here a perfect answer's accuracy is 1; only the floor is free, for it is measured (small models lie on it).
- *First step.* L(N, D) swings with few runs; a law in compute alone cannot see that a model was trained for long; one
  exponent for N and D lies between. The mean of the three errs less than the worst on every ladder that was cut back.
- *Shared NLL.* The mean NLL of several tasks is forecast with three fifths of the error of one task's, and accuracy follows it
  almost as well (one ability moves all tasks, Ruan et al. 2024). The forecast is the mean of both.
- *Checkpoints.* All but the first tenth of a run enter the second step: the curve through (NLL, accuracy) is the same in a
  run as between runs, and sixteen final points do not fix a floor.
- *Interval.* A resample draws runs, one law, one of the two NLLs, and how a run lay beside both steps: where the ways to
  the same number part, it widens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
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
SHARED = "shared_nll"  # a column more: the mean NLL of several tasks, of `share_nll`
EXPONENTS = np.linspace(0.05, 1.0, 96)  # searched where one serves both sizes


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
    accuracy: Floats  # the same
    way: tuple[Floats, ...]  # a run: [checkpoints, 2]

    def drawn(self, rows: npt.NDArray[np.int64]) -> Runs:
        return Runs(self.params[rows], self.tokens[rows], self.nll[rows], self.accuracy[rows], tuple(self.way[row] for row in rows))


@dataclass(frozen=True)
class TwoSteps:
    """(N, D) -> NLL by the mean of its laws, NLL -> accuracy by its curve."""

    laws: tuple[Law, ...]
    curve: Sigmoid

    def nll(self, params: float, tokens: float) -> float:
        return float(np.mean([law(np.array([params]), np.array([tokens]))[0] for law in self.laws]))


@dataclass(frozen=True)
class Resample:
    """One law and the curve, fitted to runs drawn again, and how a run lay beside both."""

    steps: TwoSteps
    nll_ratio: float
    residual: float  # of accuracy

    def at(self, params: float, tokens: float) -> float:
        return float(np.clip(self.steps.curve(self.steps.nll(params, tokens) * self.nll_ratio) + self.residual, 0.0, 1.0))


@dataclass(frozen=True)
class Forecaster:
    """Both steps, by the task's own NLL and by the shared one where there is one, and fitted to resamples of the runs."""

    ways: tuple[TwoSteps, ...]
    resamples: tuple[Resample, ...]

    def at(self, params: float, tokens: float) -> Forecast:
        """Accuracy of a model of `params` after `tokens`."""
        value = float(np.mean([way.curve(way.nll(params, tokens)) for way in self.ways]))
        low, high = bounds([resample.at(params, tokens) for resample in self.resamples])
        return Forecast(value, min(low, value), max(high, value))


def fit_forecaster(checkpoints: pa.Table, seed: int = 0) -> Forecaster:
    """From the CHECKPOINTS of small models; with SHARED (`share_nll`), the mean of both forecasts. Raises ForecastError."""
    ladders = [read_ladder(checkpoints)]
    if SHARED in checkpoints.column_names:
        ladders.append(read_ladder(checkpoints, SHARED))
    ways = [TwoSteps(tuple(fit(ladder) for fit in LAWS), second_step(ladder)) for ladder in ladders]
    generator = np.random.default_rng(seed)
    resamples = []
    for _ in range(RESAMPLES):
        drawn, law = generator.integers(len(ladders)), generator.integers(len(LAWS))
        ladder, way = ladders[drawn], ways[drawn]
        runs = generator.integers(0, len(ladder.nll), len(ladder.nll))
        try:
            again = ladder.drawn(runs)
            steps = TwoSteps((LAWS[law](again),), second_step(again, way.curve))
        except (ForecastError, np.linalg.LinAlgError):
            continue
        run = generator.integers(len(ladder.nll))
        ratio = ladder.nll[run] / way.nll(ladder.params[run], ladder.tokens[run])
        resamples.append(Resample(steps, float(ratio), float(ladder.accuracy[run] - way.curve(ladder.nll[run]))))
    if 2 * len(resamples) < RESAMPLES:
        raise ForecastError("fewer than half of the resampled ladders could be fitted: bring runs of more sizes and lengths")
    return Forecaster(tuple(ways), tuple(resamples))


def share_nll(tasks: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """The CHECKPOINTS of several tasks, each with the geometric mean of their NLL as SHARED. Raises ForecastError."""
    for table in tasks.values():
        _require(table, CHECKPOINTS)
    ordered = {name: table.sort_by([("run", "ascending"), ("tokens", "ascending")]) for name, table in tasks.items()}
    first = next(iter(ordered))
    for name, table in ordered.items():
        if any(table[column] != ordered[first][column] for column in ("run", "tokens")):
            raise ForecastError(f"{name!r} was not measured at the checkpoints of {first!r}: bring those that all tasks have")
    mean = np.exp(np.mean([np.log(np.asarray(table["nll"], np.float64)) for table in ordered.values()], axis=0))
    return {name: table.append_column(SHARED, pa.array(mean)) for name, table in ordered.items()}


def back_test(checkpoints: pa.Table, hidden: Collection[str]) -> pa.Table:
    """The `hidden` runs, forecast from the others: run, params, tokens, predicted, low, high, actual. Raises ForecastError."""
    names = checkpoints["run"].to_pylist()
    if missing := set(hidden) - set(names):
        raise ForecastError(f"no run is named {min(missing)!r}, which was to be hidden")
    forecaster, rows = fit_forecaster(checkpoints.filter(pa.array([name not in hidden for name in names]))), []
    for name in sorted(hidden):
        run = checkpoints.filter(pa.array([one == name for one in names])).sort_by("tokens")
        params, tokens = run["params"][-1].as_py(), run["tokens"][-1].as_py()
        predicted = forecaster.at(params, tokens)
        actual = float(np.asarray(run["accuracy"])[-LAST:].mean())
        rows.append({"run": name, "params": params, "tokens": tokens, "predicted": predicted.value, "low": predicted.low,
                     "high": predicted.high, "actual": actual})  # fmt: skip
    return pa.Table.from_pylist(rows)


def read_ladder(checkpoints: pa.Table, nll: str = "nll") -> Runs:
    """Checkpoints by run, in the order of their tokens; `nll`: the column to take it from. Raises ForecastError."""
    needed = [nll if name == "nll" else name for name in CHECKPOINTS]
    _require(checkpoints, needed)
    ordered = checkpoints.select(needed).sort_by([("run", "ascending"), ("tokens", "ascending")])
    names = np.asarray(ordered["run"].to_pylist())
    numbers = np.stack([np.asarray(ordered[name], np.float64) for name in needed[1:]], axis=1)
    if not np.isfinite(numbers).all():
        raise ForecastError("the checkpoints hold a value that is no finite number")
    runs = [numbers[names == name] for name in dict.fromkeys(names.tolist())]
    if len(runs) < 6:
        raise ForecastError(f"{len(runs)} runs do not fix a law of two sizes: at least 6 are needed")
    return Runs(
        params=np.array([run[-1, 0] for run in runs]),
        tokens=np.array([run[-1, 1] for run in runs]),
        nll=np.array([run[-LAST:, 2].mean() for run in runs]),
        accuracy=np.array([run[-LAST:, 3].mean() for run in runs]),
        way=tuple(run[math.ceil(SKIPPED * len(run)) if len(run) > LAST else 0 :, 2:] for run in runs),
    )


def _require(checkpoints: pa.Table, columns: Sequence[str]) -> None:
    if missing := [name for name in columns if name not in checkpoints.column_names]:
        raise ForecastError(f"the checkpoints have no column {missing[0]!r}; they need {', '.join(columns)}")


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


def two_exponents(ladder: Runs) -> Law:
    """NLL = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, section 3.3)."""
    return fit_vpnls(ladder.params, ladder.tokens, ladder.nll)[0].loss


def one_exponent(ladder: Runs) -> Law:
    """NLL = E + A / N^alpha + B / D^alpha with E, A, B >= 0: of a few runs, two exponents are often one too many."""
    size, length = float(np.exp(np.log(ladder.params).mean())), float(np.exp(np.log(ladder.tokens).mean()))

    def terms(params: Floats, tokens: Floats, alpha: float) -> Floats:
        return np.stack([np.ones(len(params)), (params / size) ** -alpha, (tokens / length) ** -alpha], axis=1)

    fits = [(*optimize.nnls(terms(ladder.params, ladder.tokens, alpha), ladder.nll), alpha) for alpha in EXPONENTS]
    factors, _, alpha = min(fits, key=lambda fit: fit[1])
    return lambda params, tokens: terms(params, tokens, alpha) @ factors


LAWS = (power_law, two_exponents, one_exponent)


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
