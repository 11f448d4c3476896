"""From a table of runs, ours or another team's, to the compute-optimal model of a budget with intervals: what `l3 fit` prints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
from pydantic import BaseModel, ConfigDict

from l3_platform.scaling.laws import RESAMPLES, bounds, fit_isoflop
from l3_platform.scaling.parametric import Parametric, fit_huber, fit_vpnls

Method = Literal["parabola", "huber", "vpnls"]
METHODS: tuple[Method, ...] = ("parabola", "huber", "vpnls")
SAME_BUDGET = 0.05  # decades: runs whose FLOPs leave no larger gap share an IsoFLOP curve
FAR = 100.0  # a budget this many times that of the largest run is worth a word


class FitError(ValueError):
    """A table that no law can be fitted to; the message is meant for a person."""


class Estimate(BaseModel):
    """A value with its 90 % interval; no interval where the runs do not give one."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float | None = None
    high: float | None = None


class Fit(BaseModel):
    """tokens*(C) = tokens_coefficient · C^tokens_exponent, and what it says of `budget` FLOPs. JSON by pydantic's methods."""

    model_config = ConfigDict(frozen=True)

    method: Method
    runs: int
    budget: float
    tokens_exponent: Estimate
    tokens_coefficient: Estimate
    tokens_at_budget: Estimate
    params_at_budget: Estimate
    loss_at_budget: Estimate | None = None
    law: dict[str, float] = {}  # E, A, B, alpha, beta of the parametric methods, and the objective reached
    lost_compute: float | None = None  # parabola: share of the budget wasted if variable projection is right
    notes: tuple[str, ...] = ()


def fit(runs: pa.Table, budget: float, method: Method = "parabola", seed: int = 0) -> Fit:
    """The law of `runs` (params, tokens, loss; flops = 6·params·tokens where absent). Raises FitError."""
    table = complete(runs)
    if not (math.isfinite(budget) and budget > 0):
        raise FitError(f"a budget is a positive number of FLOPs, not {budget:g}")
    if method not in METHODS:
        raise FitError(f"there is no method {method!r}; known: {', '.join(METHODS)}")
    found = _parabola(table, budget, seed) if method == "parabola" else _parametric(table, budget, method, seed)
    return found.model_copy(update={"notes": (*found.notes, *_diagnostics(table, found))})


def read_runs(path: str | Path) -> pa.Table:
    """A CSV file with a header. Raises FitError."""
    try:
        return pyarrow.csv.read_csv(path)
    except FileNotFoundError:
        raise FitError(f"there is no file {path}") from None
    except pa.ArrowInvalid as error:
        raise FitError(f"{path} is no CSV file with a header: {str(error).splitlines()[0]}") from None


def without_highest(runs: pa.Table, count: int) -> pa.Table:
    """The runs but for the `count` of highest loss. Raises FitError."""
    if not count:
        return runs
    table = complete(runs)
    if count >= table.num_rows:
        raise FitError(f"of {table.num_rows} runs {count} cannot be left out")
    return table.sort_by("loss").slice(0, table.num_rows - count)


def complete(runs: pa.Table) -> pa.Table:
    """flops, params, tokens and loss as float64, without rows that lack one; each follows from two others by C = 6·N·D."""
    columns = {name: _numbers(runs, name) for name in ("flops", "params", "tokens", "loss") if name in runs.column_names}
    if "loss" not in columns:
        raise FitError(f"the runs have no column 'loss'; they have {', '.join(runs.column_names)}")
    missing = [name for name in ("flops", "params", "tokens") if name not in columns]
    if len(missing) > 1:
        raise FitError(f"the runs need two of flops, params and tokens; they have {', '.join(runs.column_names)}")
    with np.errstate(divide="ignore", invalid="ignore"):
        if missing == ["flops"]:
            columns["flops"] = 6.0 * columns["params"] * columns["tokens"]
        elif missing:
            (given,) = {"params", "tokens"} - set(missing)
            columns[missing[0]] = columns["flops"] / (6.0 * columns[given])
    table = np.stack([columns[name] for name in ("flops", "params", "tokens", "loss")])
    valid = (np.isfinite(table) & (table > 0)).all(axis=0)
    if not valid.any():
        raise FitError(f"none of {table.shape[1]} runs has a finite, positive loss and size")
    return pa.table(dict(zip(("flops", "params", "tokens", "loss"), table[:, valid], strict=True)))


def _numbers(runs: pa.Table, name: str) -> np.ndarray:
    try:
        return np.asarray(runs[name].cast(pa.float64()).to_numpy(), np.float64)
    except pa.ArrowInvalid:
        raise FitError(f"column {name!r} of the runs holds something that is no number") from None


def _parabola(runs: pa.Table, budget: float, seed: int) -> Fit:
    grouped = _on_curves(runs)
    law = fit_isoflop(grouped, seed)
    exponents = [exponent for exponent, _ in law.samples]
    coefficients = [10**intercept for _, intercept in law.samples]
    tokens, params = law.at(budget)
    low, high = law.interval(budget) or (None, None)
    loss = law.loss(budget)
    surface = fit_vpnls(*_arrays(runs))[0]
    return Fit(
        method="parabola",
        runs=runs.num_rows,
        budget=budget,
        tokens_exponent=_estimate(law.exponent, exponents),
        tokens_coefficient=_estimate(law.coefficient, coefficients),
        tokens_at_budget=Estimate(value=tokens, low=low, high=high),
        params_at_budget=Estimate(value=params, low=high and budget / (6 * high), high=low and budget / (6 * low)),
        loss_at_budget=None if loss is None else Estimate(value=loss),
        lost_compute=surface.lost_compute(budget, tokens) if surface.has_optimum else None,
        notes=law.notes,
    )


def _on_curves(runs: pa.Table) -> pa.Table:
    """The runs with one `flops` a curve, the geometric mean of its runs: sweeps seldom hit a budget to the last digit."""
    logs = np.log10(runs["flops"].to_numpy())
    order = np.argsort(logs, kind="stable")
    curve = np.zeros(len(logs), np.int64)
    curve[order] = np.cumsum(np.diff(logs[order], prepend=logs[order[0]]) > SAME_BUDGET)
    middle = np.bincount(curve, weights=logs) / np.bincount(curve)
    exact = np.array([logs[curve == number].min() == logs[curve == number].max() for number in range(len(middle))])
    flops = np.where(exact[curve], runs["flops"].to_numpy(), 10 ** middle[curve])
    return runs.set_column(runs.column_names.index("flops"), "flops", pa.array(flops))


def _parametric(runs: pa.Table, budget: float, method: Method, seed: int) -> Fit:
    if runs.num_rows < 6:
        raise FitError(f"{runs.num_rows} runs cannot fix the five numbers of L(N, D) and leave any to judge them by")
    search = fit_huber if method == "huber" else fit_vpnls
    data = _arrays(runs)
    law = search(*data)[0]
    if not law.has_optimum:
        raise FitError(
            f"{method}: the runs show no gain from {'parameters' if min(law.A, law.alpha) <= 0 else 'tokens'}; "
            "a law needs runs that differ in both"
        )
    drawn = np.random.default_rng(seed).multinomial(runs.num_rows, np.full(runs.num_rows, 1 / runs.num_rows), RESAMPLES)
    laws = [one for one in search(*data, weights=drawn.astype(np.float64)) if one.has_optimum]
    tokens, params = law.at(budget)
    return Fit(
        method=method,
        runs=runs.num_rows,
        budget=budget,
        tokens_exponent=_estimate(law.tokens_exponent, [one.tokens_exponent for one in laws]),
        tokens_coefficient=_estimate(law.tokens_coefficient, [one.tokens_coefficient for one in laws]),
        tokens_at_budget=_estimate(tokens, [one.at(budget)[0] for one in laws]),
        params_at_budget=_estimate(params, [one.at(budget)[1] for one in laws]),
        loss_at_budget=_estimate(_loss_at(law, budget), [_loss_at(one, budget) for one in laws]),
        law={name: getattr(law, name) for name in ("E", "A", "B", "alpha", "beta", "objective")},
    )


def _loss_at(law: Parametric, budget: float) -> float:
    tokens, params = law.at(budget)
    return float(law.loss(params, tokens))


def _arrays(runs: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    params, tokens, loss = (runs[name].to_numpy() for name in ("params", "tokens", "loss"))
    return params, tokens, loss


def _estimate(value: float, samples: Sequence[float]) -> Estimate:
    finite = [sample for sample in samples if math.isfinite(sample)]
    if 2 * len(finite) < RESAMPLES:
        return Estimate(value=value)
    low, high = bounds(finite)
    return Estimate(value=value, low=low, high=high)


def _diagnostics(runs: pa.Table, found: Fit) -> list[str]:
    """Where the answer lies outside of what the runs can say."""
    notes = []
    largest = float(runs["flops"].to_numpy().max())
    if found.budget > FAR * largest:
        notes.append(f"the budget is {found.budget / largest:,.0f} times that of the largest run: an extrapolation")
    for name, estimate in (("tokens", found.tokens_at_budget), ("params", found.params_at_budget)):
        low, high = (float(getattr(runs[name].to_numpy(), side)()) for side in ("min", "max"))
        if not low <= estimate.value <= high and found.budget <= largest:
            notes.append(f"the optimum of {estimate.value:.3g} {name} lies outside the runs' {low:.3g} to {high:.3g}")
    if found.tokens_at_budget.low is None:
        notes.append("no interval: too few resamples of these runs could be fitted")
    return notes


def as_text(found: Fit) -> str:
    """A few lines for a person."""
    lines = [f"{found.method} over {found.runs:,} runs, 90 % intervals", ""]
    shown = [
        ("tokens exponent", found.tokens_exponent, ".4f"),
        ("tokens coefficient", found.tokens_coefficient, ".4g"),
        (f"tokens at {found.budget:.3g} FLOPs", found.tokens_at_budget, ".4g"),
        (f"parameters at {found.budget:.3g} FLOPs", found.params_at_budget, ".4g"),
        (f"loss at {found.budget:.3g} FLOPs", found.loss_at_budget, ".4f"),
    ]
    for label, estimate, form in shown:
        if estimate is not None:
            interval = (
                "" if estimate.low is None or estimate.high is None else f"   {estimate.low:{form}} to {estimate.high:{form}}"
            )
            lines.append(f"  {label:<32} {estimate.value:{form}}{interval}")
    if found.law:
        lines += [
            "",
            "  L(N, D) = {E:.4f} + {A:.5g} / N^{alpha:.4f} + {B:.5g} / D^{beta:.4f}   (objective {objective:.5g})".format(
                **found.law
            ),
        ]
    if found.lost_compute is not None:
        lines += [
            "",
            f"  by variable projection of the same runs, this choice wastes {100 * found.lost_compute:.1f} % of the compute",
        ]
    return "\n".join([*lines, *(f"  note: {note}" for note in found.notes)])
