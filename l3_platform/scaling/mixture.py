"""From small runs on many mixtures to the loss of a mixture that was never trained on (Llama 3, section 3.1.2).

Four regressions from shares of tokens to the loss of one domain; cross-validation on the runs chooses, not taste:

    linear       loss = c + w·r
    exponential  loss = c + k·exp(t·r)                                  Ye et al. 2024, data mixing laws
    trees        gradient-boosted trees over histograms                 Liu et al. 2024, RegMix (there LightGBM)
    process      Gaussian process with a length a domain on sqrt(r)     the roots make a little of a rare domain count
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FOLDS = 5
PROCESS_SAMPLE = 256  # runs that the lengths of the process are learnt on; all runs enter its predictions
METHODS = ("linear", "exponential", "trees", "process")


class MixtureError(ValueError):
    """Runs or bounds that no mixture follows from; the message is meant for a person."""


class Regression(Protocol):
    def predict(self, shares: Floats) -> Floats:
        """Loss [mixtures] of shares [mixtures, domains], each row summing to 1."""
        ...


@dataclass(frozen=True)
class MixtureLaw:
    """The regression that predicted unseen runs best, and how well each did."""

    method: str
    regression: Regression
    rank_correlation: Mapping[str, float]  # Spearman of each method, on runs it had not seen
    error: Mapping[str, float]  # root mean square, in the unit of the loss
    unseen: Floats  # [runs], what the chosen one said of each run before it had seen it

    def predict(self, shares: Floats) -> Floats:
        return self.regression.predict(np.atleast_2d(shares))


def fit_mixture_law(shares: Floats, loss: Floats, methods: Sequence[str] = METHODS, seed: int = 0) -> MixtureLaw:
    """`shares` [runs, domains] of the training tokens and `loss` [runs] of one domain or target. Raises MixtureError."""
    shares = checked(shares)
    if len(shares) != len(loss) or not np.isfinite(loss).all():
        raise MixtureError(f"{len(shares)} mixtures but {int(np.isfinite(loss).sum())} finite losses")
    if len(loss) < 2 * FOLDS:
        raise MixtureError(f"{len(loss)} runs are too few to choose a law by cross-validation: at least {2 * FOLDS}")
    folds = np.random.default_rng(seed).permutation(len(loss)) % FOLDS
    unseen: dict[str, Floats] = {method: np.empty(len(loss)) for method in methods}
    for method, predicted in unseen.items():
        for fold in range(FOLDS):
            regression = regress(method, shares[folds != fold], loss[folds != fold], seed)
            predicted[folds == fold] = regression.predict(shares[folds == fold])
    ranks = {method: spearman(predicted, loss) for method, predicted in unseen.items()}
    errors = {method: float(np.sqrt(np.mean((predicted - loss) ** 2))) for method, predicted in unseen.items()}
    best = min(methods, key=errors.__getitem__)
    return MixtureLaw(best, regress(best, shares, loss, seed), ranks, errors, unseen[best])


def checked(shares: Floats) -> Floats:
    """Shares as float64, each row scaled to sum to 1. Raises MixtureError."""
    shares = np.asarray(shares, np.float64)
    if shares.ndim != 2 or not np.isfinite(shares).all() or (shares < 0).any() or (shares.sum(axis=1) <= 0).any():
        raise MixtureError("a mixture is a row of shares, none negative, with a positive sum")
    return shares / shares.sum(axis=1, keepdims=True)


def spearman(one: Floats, other: Floats) -> float:
    from scipy import stats

    return float(stats.spearmanr(one, other)[0])  # type: ignore[arg-type]


def regress(method: str, shares: Floats, loss: Floats, seed: int = 0) -> Regression:
    """One of METHODS, fitted. Raises MixtureError."""
    if method == "linear":
        return _Linear(np.linalg.lstsq(_with_one(shares), loss, rcond=None)[0].astype(np.float64))
    if method == "exponential":
        return _exponential(shares, loss)
    if method == "trees":
        from sklearn.ensemble import HistGradientBoostingRegressor

        trees = HistGradientBoostingRegressor(
            max_iter=500, learning_rate=0.05, max_leaf_nodes=15, min_samples_leaf=8, random_state=seed
        )
        with _one_thread():
            return _Trees(trees.fit(shares, loss))
    if method == "process":
        return _process(shares, loss, seed)
    raise MixtureError(f"there is no mixture law {method!r}; known: {', '.join(METHODS)}")


def _with_one(shares: Floats) -> Floats:
    return np.column_stack([np.ones(len(shares)), shares])


@dataclass(frozen=True)
class _Linear:
    weights: Floats  # [1 + domains]

    def predict(self, shares: Floats) -> Floats:
        return _with_one(shares) @ self.weights


@dataclass(frozen=True)
class _Exponential:
    """c + exp(b + t·r): k of the law is exp(b), for losses that fall as a share grows."""

    c: float
    weights: Floats

    def predict(self, shares: Floats) -> Floats:
        return self.c + np.exp(_with_one(shares) @ self.weights)


@dataclass(frozen=True)
class _Trees:
    trees: Any

    def predict(self, shares: Floats) -> Floats:
        with _one_thread():
            return self.trees.predict(shares)


def _one_thread() -> AbstractContextManager[object]:
    """On so few rows a thread of the trees does little but wait for the others, which busy cores make dear."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, "openmp")


def _exponential(shares: Floats, loss: Floats) -> _Exponential:
    from scipy import optimize

    design, low = _with_one(shares), float(loss.min())
    span = max(float(np.ptp(loss)), 1e-9)
    start = np.linalg.lstsq(design, np.log(loss - low + 0.5 * span), rcond=None)[0]

    def residuals(theta: Floats) -> Floats:
        return theta[0] + np.exp(np.clip(design @ theta[1:], -30, 30)) - loss

    found = optimize.least_squares(residuals, np.r_[low - 0.5 * span, start], max_nfev=200).x
    return _Exponential(float(found[0]), found[1:])


@dataclass(frozen=True)
class _Process:
    process: object

    def predict(self, shares: Floats) -> Floats:
        return self.process.predict(np.sqrt(shares))  # type: ignore[attr-defined]


def _process(shares: Floats, loss: Floats, seed: int) -> _Process:
    import warnings

    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    roots = np.sqrt(shares)
    sample = np.random.default_rng(seed).permutation(len(loss))[:PROCESS_SAMPLE]
    lengths: Any = np.ones(roots.shape[1])  # one a domain
    as_learnt: Any = None
    kernel = ConstantKernel(1.0) * RBF(lengths) + WhiteKernel(1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a length at its bound is a domain without influence
        learnt = GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed).fit(roots[sample], loss[sample])
        return _Process(GaussianProcessRegressor(learnt.kernel_, optimizer=as_learnt, normalize_y=True).fit(roots, loss))


def best_mixture(
    law: MixtureLaw | Sequence[tuple[float, MixtureLaw]],
    natural: Floats,
    most: Floats | None = None,
    candidates: int = 20_000,
    seed: int = 0,
) -> tuple[Floats, float]:
    """The shares [domains] with the lowest predicted loss, and that loss.

    `law` may be several with weights: their weighted sum is minimised. `natural` are the shares of the tokens at hand, around
    which candidates are drawn; `most` [domains] bounds each share (tokens at hand x epochs / tokens to train on). Ten
    rounds draw ever closer around the best hundred, whose mean is the answer: the minimum of a fitted surface is mostly its error.
    """
    laws = [(1.0, law)] if isinstance(law, MixtureLaw) else list(law)
    natural = checked(np.atleast_2d(natural))[0]
    ceiling = np.ones(len(natural)) if most is None else np.minimum(np.asarray(most, np.float64), 1.0)
    if ceiling.sum() < 1.0:
        raise MixtureError(f"the bounds allow shares that sum to {ceiling.sum():.2f} only: fewer tokens, or more epochs")

    def predicted(shares: Floats) -> Floats:
        return np.sum([weight * one.predict(shares) for weight, one in laws], axis=0)

    generator = np.random.default_rng(seed)
    centres, concentration = natural[None, :], 1.0 * len(natural)
    best = _within(natural[None, :], ceiling)
    for _ in range(10):
        chosen = centres[generator.integers(0, len(centres), candidates // 10)]
        drawn = generator.standard_gamma(np.maximum(concentration * chosen, 1e-3)) + 1e-12
        pool = np.vstack([best, _within(drawn / drawn.sum(axis=1, keepdims=True), ceiling)])
        best = pool[np.argsort(predicted(pool), kind="stable")[:100]]
        centres, concentration = best, concentration * 1.8
    answer = _within(best.mean(axis=0, keepdims=True), ceiling)
    return answer[0], float(predicted(answer)[0])


def _within(shares: Floats, ceiling: Floats) -> Floats:
    """What exceeds a bound goes to the other domains, in proportion to their shares."""
    shares = shares.copy()
    for _ in range(len(ceiling)):
        over = shares > ceiling
        if not over.any():
            break
        shares = np.where(over, ceiling, shares)
        room = np.where(shares < ceiling, shares + 1e-12, 0.0)
        missing = 1.0 - shares.sum(axis=1, keepdims=True)
        shares = shares + room * missing / np.maximum(room.sum(axis=1, keepdims=True), 1e-12)
    return np.minimum(shares, ceiling)
