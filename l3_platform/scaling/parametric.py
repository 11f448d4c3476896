"""The parametric law L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, section 3.3), fitted in two ways.

`fit_huber` minimises the sum of Huber losses of the residuals of log L, as Hoffmann et al. do. `fit_vpnls` minimises the
squares of the residuals of L by variable projection (Golub and Pereyra 1973): for each pair of exponents the best
E, A, B >= 0 follow from a linear system, so that only two unknowns are searched, without a start that could be wrong.

Both give every resample of a bootstrap the same treatment as the runs themselves, all at once, as arrays [resamples, ...].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

HUBER_DELTA = 1e-3  # Hoffmann et al. 2022, section 3.3
EXPONENTS = (0.01, 1.5)  # searched by variable projection
GRID = 33  # points a side of each zoom
ZOOMS = 12  # each narrows the grid to two steps around its best point
SUBSETS = ((0, 1, 2), (1, 2), (0, 1), (0, 2), (0,), (1,), (2,))  # of (E, A, B): which may be positive
STARTS = [(e, a, b, x, y) for e in (-0.5, 0.5) for a in (3.0, 8.0) for b in (3.0, 8.0) for x in (0.2, 0.5) for y in (0.2, 0.5)]


@dataclass(frozen=True)
class Parametric:
    """The law in its five numbers; loss in the unit of the runs (nats a token, or bits a byte)."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    objective: float  # what the fit minimised, at its minimum

    def loss(self, params: float | Floats, tokens: float | Floats) -> Floats:
        return self.E + self.A * np.power(params, -self.alpha) + self.B * np.power(tokens, -self.beta)

    @property
    def has_optimum(self) -> bool:
        """Both parameters and tokens lower the loss; with noisy runs a fit may say otherwise."""
        return min(self.A, self.B, self.alpha, self.beta) > 0

    @property
    def tokens_exponent(self) -> float:
        """Of tokens*(C) = coefficient · C^exponent."""
        return self.alpha / (self.alpha + self.beta)

    @property
    def tokens_coefficient(self) -> float:
        if not self.has_optimum:
            return math.nan
        ratio = self.beta * self.B / (self.alpha * self.A)
        return ratio ** (1 / (self.alpha + self.beta)) * 6.0**-self.tokens_exponent

    def at(self, budget: float) -> tuple[float, float]:
        """Compute-optimal (training tokens, parameters) of a budget in FLOPs, C = 6·N·D."""
        tokens = self.tokens_coefficient * budget**self.tokens_exponent
        return tokens, budget / (6.0 * tokens)

    def lost_compute(self, budget: float, tokens: float) -> float:
        """Share of `budget` wasted by training on `tokens`: the optimum reaches the same loss with that much less."""
        reached = float(self.loss(budget / (6.0 * tokens), tokens))
        low, high = math.log(budget) - 50.0, math.log(budget)
        for _ in range(200):
            middle = (low + high) / 2
            best, params = self.at(math.exp(middle))
            low, high = (middle, high) if self.loss(params, best) > reached else (low, middle)
        return 1.0 - math.exp(high) / budget


def fit_huber(params: Floats, tokens: Floats, loss: Floats, weights: Floats | None = None) -> list[Parametric]:
    """One law a row of `weights` [resamples, runs] (times that each run was drawn), or one of the runs as they are."""
    data = _Data(params, tokens, loss)
    ones = np.ones((1, len(loss)))
    starts = np.array([start for start in STARTS])
    found, objective = _descend(starts, np.repeat(ones, len(starts), axis=0), data, _log_residuals, _huber, steps=300)
    best = found[objective.argmin()]
    drawn = ones if weights is None else weights
    found, objective = _descend(np.tile(best, (len(drawn), 1)), drawn, data, _log_residuals, _huber, steps=80)
    return [_law(theta, value) for theta, value in zip(found, objective, strict=True)]


def fit_vpnls(params: Floats, tokens: Floats, loss: Floats, weights: Floats | None = None) -> list[Parametric]:
    """As `fit_huber`, by variable projection. Resamples start at the optimum of all runs."""
    best = _projected(params, tokens, loss)
    if weights is None:
        return [best]
    if not (best.E > 0 and best.A > 0 and best.B > 0):  # on the boundary: each resample is searched from nothing
        return [_projected(params, tokens, loss, drawn) for drawn in weights]
    start = np.array([math.log(best.E), math.log(best.A), math.log(best.B), best.alpha, best.beta])
    data = _Data(params, tokens, loss)
    found, objective = _descend(np.tile(start, (len(weights), 1)), weights, data, _residuals, _squares, steps=60)
    return [_law(theta, value) for theta, value in zip(found, objective, strict=True)]


def _law(theta: Floats, objective: float) -> Parametric:
    e, a, b, alpha, beta = (float(value) for value in theta)
    return Parametric(math.exp(e), math.exp(a), math.exp(b), alpha, beta, float(objective))


def _projected(params: Floats, tokens: Floats, loss: Floats, weights: Floats | None = None) -> Parametric:
    """Search of (alpha, beta) on grids that zoom in; E, A, B >= 0 are solved for at every point of them."""
    weights = np.ones(len(loss)) if weights is None else weights
    # Centred logs keep the columns near 1; the scales return at the end.
    n, d = np.log(params), np.log(tokens)
    n_middle, d_middle = float(n.mean()), float(d.mean())
    low, high = np.full(2, EXPONENTS[0]), np.full(2, EXPONENTS[1])
    best = (math.inf, np.zeros(3), 0.0, 0.0)
    for _ in range(ZOOMS):
        alphas, betas = (np.linspace(low[axis], high[axis], GRID) for axis in (0, 1))
        squares, solved = _solve(np.exp(-np.outer(alphas, n - n_middle)), np.exp(-np.outer(betas, d - d_middle)), loss, weights)
        row, column = np.unravel_index(squares.argmin(), squares.shape)
        if squares[row, column] <= best[0]:
            best = (float(squares[row, column]), solved[row, column], float(alphas[row]), float(betas[column]))
        steps = 2.0 * (high - low) / (GRID - 1)
        centre = np.array([best[2], best[3]])
        low, high = np.maximum(centre - steps, 1e-4), centre + steps
    squares, (e, a, b), alpha, beta = best
    return Parametric(float(e), float(a) * math.exp(alpha * n_middle), float(b) * math.exp(beta * d_middle), alpha, beta, squares)


def _solve(x: Floats, y: Floats, loss: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Least squares [alphas, betas] and (E, A, B) >= 0 there [alphas, betas, 3], for x [alphas, runs] and y [betas, runs]."""
    shape = (len(x), len(y))
    weighted = loss * weights
    gram = np.empty((*shape, 3, 3))
    moments = np.empty((*shape, 3))
    gram[..., 0, 0] = weights.sum()
    gram[..., 0, 1] = gram[..., 1, 0] = (x @ weights)[:, None]
    gram[..., 0, 2] = gram[..., 2, 0] = (y @ weights)[None, :]
    gram[..., 1, 1] = (x * x @ weights)[:, None]
    gram[..., 2, 2] = (y * y @ weights)[None, :]
    gram[..., 1, 2] = gram[..., 2, 1] = (x * weights) @ y.T
    moments[..., 0] = weighted.sum()
    moments[..., 1] = (x @ weighted)[:, None]
    moments[..., 2] = (y @ weighted)[None, :]
    total = float((loss * weighted).sum())
    squares, solved = np.full(shape, math.inf), np.zeros((*shape, 3))
    for subset in SUBSETS:  # non-negative least squares of three unknowns: the best feasible of the seven
        index = np.array(subset)
        part = gram[..., index[:, None], index] + 1e-13 * np.eye(len(index))
        solution = np.linalg.solve(part, moments[..., index][..., None])[..., 0]
        value = total - (solution * moments[..., index]).sum(axis=-1)
        better = (solution >= 0).all(axis=-1) & (value < squares)
        squares = np.where(better, value, squares)
        spread = np.zeros((*shape, 3))
        spread[..., index] = solution
        solved = np.where(better[..., None], spread, solved)
    return np.maximum(squares, 0.0), solved


class _Data:
    """Runs as logs."""

    def __init__(self, params: Floats, tokens: Floats, loss: Floats) -> None:
        self.n, self.d, self.loss, self.log_loss = np.log(params), np.log(tokens), loss, np.log(loss)


Residuals = Callable[[Floats, _Data], tuple[Floats, Floats]]
Norm = Callable[[Floats], tuple[Floats, Floats]]


def _residuals(theta: Floats, data: _Data) -> tuple[Floats, Floats]:
    """L - L(N, D) [fits, runs] and its derivatives [fits, runs, 5] by (log E, log A, log B, alpha, beta)."""
    e, a, b, alpha, beta = (theta[:, [column]] for column in range(5))
    first = np.broadcast_to(np.exp(e), (len(theta), len(data.loss)))
    second, third = np.exp(a - alpha * data.n), np.exp(b - beta * data.d)
    slopes = np.stack([-first, -second, -third, second * data.n, third * data.d], axis=-1)
    return data.loss - first - second - third, slopes


def _log_residuals(theta: Floats, data: _Data) -> tuple[Floats, Floats]:
    """The same of log L."""
    left, slopes = _residuals(theta, data)
    predicted = np.maximum(data.loss - left, 1e-300)
    return data.log_loss - np.log(predicted), slopes / predicted[..., None]


def _squares(residuals: Floats) -> tuple[Floats, Floats]:
    return residuals**2, np.ones_like(residuals)


def _huber(residuals: Floats) -> tuple[Floats, Floats]:
    """Huber's loss, and the weight with which a residual counts in the least squares that it is locally equal to."""
    size = np.abs(residuals)
    value = np.where(size < HUBER_DELTA, 0.5 * size**2, HUBER_DELTA * (size - 0.5 * HUBER_DELTA))
    return value, np.minimum(1.0, HUBER_DELTA / np.maximum(size, 1e-300))


def _descend(theta: Floats, weights: Floats, data: _Data, residuals_of: Residuals, norm: Norm, steps: int) -> tuple[Floats, Floats]:
    """Levenberg and Marquardt's method for many fits at once: theta [fits, 5], weights [fits, runs]; also the objectives [fits]."""
    theta, damping = theta.astype(np.float64).copy(), np.full(len(theta), 1e-2)
    residuals, slopes = residuals_of(theta, data)
    value, local = norm(residuals)
    objective = (weights * value).sum(axis=1)
    for _ in range(steps):
        scaled = slopes * (weights * local)[..., None]
        normal = np.swapaxes(scaled, 1, 2) @ slopes
        gradient = (scaled * residuals[..., None]).sum(axis=1)
        diagonal = np.einsum("fii->fi", normal)
        diagonal = np.maximum(diagonal, 1e-12 * diagonal.max(axis=1, keepdims=True))  # an unknown that does nothing stays put
        damped = normal + (damping[:, None] * diagonal + 1e-30)[..., None] * np.eye(5)
        step = -np.linalg.solve(damped, gradient[..., None])[..., 0]
        tried = theta + np.clip(step, -1.0, 1.0)
        with np.errstate(over="ignore", invalid="ignore"):
            new_residuals, new_slopes = residuals_of(tried, data)
            new_value, new_local = norm(new_residuals)
            new_objective = (weights * new_value).sum(axis=1)
        better = new_objective < objective
        if not better.any() and (damping > 1e8).all():
            break
        theta = np.where(better[:, None], tried, theta)
        residuals = np.where(better[:, None], new_residuals, residuals)
        slopes = np.where(better[:, None, None], new_slopes, slopes)
        local = np.where(better[:, None], new_local, local)
        settled = better & (objective - new_objective < 1e-15 * objective)
        objective = np.where(better, new_objective, objective)
        damping = np.where(settled, 1e9, np.where(better, damping * 0.3, damping * 4.0))
        if (damping > 1e8).all():
            break
    return theta, objective
