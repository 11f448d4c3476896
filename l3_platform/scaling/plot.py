"""The picture of a sweep: IsoFLOP curves with their minima, and the law through them (Llama 3, figures 2 and 3)."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa

from l3_platform.scaling.laws import Minimum, ScalingLaw
from l3_platform.scaling.plan import TrainingPlan
from l3_platform.scaling.surface import LossSurface


def isoflop_chart(runs: pa.Table, law: ScalingLaw, target_budget: float | None = None) -> bytes:
    """PNG of under 100 kB. Left: loss over tokens, a colour a budget. Right: optimal tokens over compute."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.6), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    colours = colormaps["viridis"](np.linspace(0.0, 0.9, max(len(law.minima), 1)))
    for minimum, colour in zip(law.minima, colours, strict=True):
        _curve(left, runs, minimum, colour)
    left.set(xscale="log", xlabel="training tokens", ylabel="held-out loss", title="IsoFLOP curves")
    left.legend(title="FLOPs", fontsize=7, title_fontsize=7, loc="upper right", ncols=1 + len(law.minima) // 6)
    _law(right, law, colours, target_budget)
    right.set(xscale="log", yscale="log", xlabel="training FLOPs", ylabel="optimal tokens", title=_title(law))
    right.legend(fontsize=7, loc="upper left")
    for axis in (left.xaxis, right.xaxis, right.yaxis):
        _sparse_ticks(axis)
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})  # the version of matplotlib is no part of the result
    return png.getvalue()


def forecast_chart(runs: pa.Table, law: ScalingLaw, surface: LossSurface, plan: TrainingPlan) -> bytes:
    """PNG of under 100 kB: the sweep's losses over compute, the predicted loss at the optimum with its band, and the plan's run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.2), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    flops, loss = np.asarray(runs["flops"], float), np.asarray(runs["loss"], float)
    axes.plot(flops, loss, "o", color="#9db8cc", markersize=4, label="runs of the sweep")
    budgets = np.logspace(np.log10(flops.min()), np.log10(max(flops.max(), plan.budget)), 40)
    predicted = np.array([surface.predict(params, tokens) for tokens, params in map(law.at, budgets)])
    axes.plot(budgets, predicted[:, 0], "--", color="crimson", linewidth=1, label="predicted at the optimum")
    axes.fill_between(
        budgets, predicted[:, 1], predicted[:, 2], color="crimson", alpha=0.12, linewidth=0, label="90 % of single runs"
    )
    if (said := plan.predicted_loss) is not None:
        below_above = [[said.value - said.low], [said.high - said.value]]
        label = f"the plan: {said.value:.2f} ({said.low:.2f} to {said.high:.2f})"
        axes.errorbar([plan.budget], [said.value], below_above, fmt="*", color="crimson", markersize=10, capsize=3, label=label)
    axes.set(xscale="log", xlabel="training FLOPs", ylabel="held-out loss, nats a token")
    axes.legend(fontsize=7)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    _sparse_ticks(axes.xaxis)
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()


def _curve(axes, runs: pa.Table, minimum: Minimum, colour) -> None:
    rows = np.asarray(runs["flops"]) == minimum.budget
    tokens, loss = np.asarray(runs["tokens"], float)[rows], np.asarray(runs["loss"], float)[rows]
    axes.plot(tokens, loss, "o", color=colour, markersize=3, label=f"{minimum.budget:.2g}")
    if minimum.coefficients:
        x = np.linspace(np.log10(tokens.min()), np.log10(tokens.max()), 60)
        style = "-" if minimum.inside else ":"
        axes.plot(10**x, np.polyval(minimum.coefficients, x), style, color=colour, linewidth=1)
    if minimum.inside:
        axes.plot(minimum.tokens, minimum.loss, "D", color="crimson", markersize=4, zorder=3)


def _law(axes, law: ScalingLaw, colours, target: float | None) -> None:
    for minimum, colour in zip(law.minima, colours, strict=True):
        marker = "D" if minimum.inside else "x"
        axes.plot(minimum.budget, minimum.tokens, marker, color=colour, markersize=5, zorder=3)
    ends = [minimum.budget for minimum in law.minima] + ([target] if target else [])
    budgets = np.logspace(np.log10(min(ends)), np.log10(max(ends)), 40)
    label = "fallback, not measured" if law.method == "fallback" else "power law"
    axes.plot(budgets, [law.at(budget)[0] for budget in budgets], "--", color="crimson", linewidth=1, label=label)
    if law.samples:
        low, high = np.transpose([law.interval(budget) or (np.nan, np.nan) for budget in budgets])
        axes.fill_between(budgets, low, high, color="crimson", alpha=0.12, linewidth=0, label="90 % of resamples")
    if target:
        tokens, params = law.at(target)
        text = f"{target:.2g} FLOPs:\n{_short(tokens)} tokens,\n{_short(params)} parameters"
        axes.plot(target, tokens, "*", color="crimson", markersize=11, zorder=4, label=text)


def _sparse_ticks(axis) -> None:
    """Decades as usual; a span of less than two, which matplotlib labels at every digit, gets 1, 2 and 5 only."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    if high < 100 * low:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}".replace("e+", "e")))
    axis.set_minor_formatter(NullFormatter())


def _title(law: ScalingLaw) -> str:
    return f"tokens = {law.coefficient:.3g} · C^{law.exponent:.3f}"


def _short(value: float) -> str:
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"
