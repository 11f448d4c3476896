"""How good will a model of N parameters be after D tokens: L(N, D) through a sweep, with an interval for one more run.

The plan trains one model, not an average of them, and beyond the sweep: its interval holds both that the law is known from few
runs only (resamples of them, each fitted anew) and that a single run scatters around it.
"""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from l3_platform.scaling.laws import RESAMPLES, bounds
from l3_platform.scaling.parametric import Parametric, fit_vpnls

UNKNOWNS = 5  # E, A, B, alpha, beta
SPARE = 2  # runs beyond the unknowns, from which the scatter is read


class LossSurface(BaseModel):
    """L(N, D) = E + A/N^alpha + B/D^beta by variable projection, and as many more as there are resamples. JSON by pydantic."""

    model_config = ConfigDict(frozen=True)

    law: tuple[float, float, float, float, float]  # E, A, B, alpha, beta
    resamples: tuple[tuple[float, float, float, float, float], ...]
    residuals: tuple[float, ...]  # log of loss over law, widened for the unknowns that the law used up

    def predict(self, params: float, tokens: float) -> tuple[float, float, float]:
        """Loss of one run, and the low and high end of its 90 % interval, in the unit of the sweep's losses."""
        generator = np.random.default_rng(0)  # the same surface says the same, whoever asks
        scatter = np.exp(generator.choice(np.array(self.residuals), len(self.resamples)))
        drawn = np.array([_loss(law, params, tokens) for law in self.resamples]) * scatter
        return _loss(self.law, params, tokens), *bounds(drawn.tolist())


def fit_surface(runs: pa.Table, seed: int = 0) -> LossSurface | str:
    """The surface of `runs` (params, tokens, loss), or why there is none, in words."""
    columns = {name: np.asarray(runs[name].to_numpy(), np.float64) for name in ("params", "tokens", "loss")}
    valid = np.all([np.isfinite(column) & (column > 0) for column in columns.values()], axis=0)
    params, tokens, loss = (column[valid] for column in columns.values())
    if len(loss) < UNKNOWNS + SPARE:
        return f"{len(loss)} runs are too few to predict a loss with an interval: at least {UNKNOWNS + SPARE}"
    law = fit_vpnls(params, tokens, loss)[0]
    if not law.has_optimum:
        return "the runs show no gain from more parameters, or none from more tokens: their losses predict nothing"
    drawn = np.random.default_rng(seed).multinomial(len(loss), np.full(len(loss), 1 / len(loss)), RESAMPLES)
    resamples = [one for one in fit_vpnls(params, tokens, loss, weights=drawn.astype(np.float64)) if one.has_optimum]
    if 2 * len(resamples) < RESAMPLES:
        return "too few resamples of the runs could be fitted: no interval"
    residuals = np.log(loss / law.loss(params, tokens)) * math.sqrt(len(loss) / (len(loss) - UNKNOWNS))
    return LossSurface(law=_numbers(law), resamples=tuple(map(_numbers, resamples)), residuals=tuple(residuals.tolist()))


def _numbers(law: Parametric) -> tuple[float, float, float, float, float]:
    return law.E, law.A, law.B, law.alpha, law.beta


def _loss(law: tuple[float, float, float, float, float], params: float, tokens: float) -> float:
    return float(Parametric(*law, objective=math.nan).loss(params, tokens))
