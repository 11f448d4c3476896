"""Charts of a classifier: may its probabilities be believed, and where do the corpus's deciles lie?"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

BLUE, ORANGE, GREY = "#2f6f9f", "#c9792b", "#9a9a9a"


def calibration_chart(bins: Sequence[Mapping[str, Any]], positive: str, note: str) -> bytes:
    """PNG: share of positives against the score, a point a bin of `reliability`, over the number of documents in each."""
    filled = [row for row in bins if row["documents"]]
    figure = _figure(4.6, 4.6)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    axes.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1, label="perfectly calibrated")
    means, shares = [row["mean_score"] for row in filled], [row["positive_share"] for row in filled]
    # Wilson's interval, 95 %: a bin of few documents says little.
    low, high = zip(*(_wilson(row["positive_share"], row["documents"]) for row in filled), strict=True)
    axes.vlines(means, low, high, color=BLUE, linewidth=1.2, alpha=0.6)
    axes.plot(means, shares, "o-", color=BLUE, markersize=5, linewidth=1.2, label="held out, with 95 % interval")
    axes.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel=f"share that is {positive}")
    axes.set_title(note, fontsize=8, loc="left")
    axes.legend(fontsize=8, loc="upper left", frameon=False)
    places = [(row["from"] + row["to"]) / 2 for row in bins]
    drawn = below.bar(places, [row["documents"] for row in bins], width=0.09, color=BLUE)
    below.bar_label(drawn, fmt="{:,.0f}", fontsize=7, padding=1)
    below.margins(y=0.3)
    below.set(xlabel="score, a probability", ylabel="documents")
    return _png(figure)


def _wilson(share: float, documents: int, z: float = 1.96) -> tuple[float, float]:
    centre = (share + z * z / (2 * documents)) / (1 + z * z / documents)
    half = z * (share * (1 - share) / documents + z * z / (4 * documents**2)) ** 0.5 / (1 + z * z / documents)
    return max(0.0, centre - half), min(1.0, centre + half)


def scores_chart(scores: npt.NDArray[np.float32], edges: Sequence[float], positive: str, threshold: float | None) -> bytes:
    """PNG: how many documents have which score, the edges of the deciles as lines, and the threshold where there is one."""
    from matplotlib.ticker import LogLocator

    figure = _figure(5.2, 2.6)
    axes = figure.subplots()
    axes.hist(scores, bins=np.linspace(0.0, 1.0, 51).tolist(), color=BLUE)
    for number, edge in enumerate(edges):
        axes.axvline(edge, color=GREY, linewidth=0.7, label="decile edges" if number == 0 else None)
    if threshold is not None:
        axes.axvline(threshold, color=ORANGE, linewidth=1.5, label=f"dropped below {threshold:g}")
    axes.set(xlim=(0, 1), xlabel=f"score, the probability of {positive}", ylabel="documents")
    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_minor_formatter("{x:,.0f}")
    axes.legend(fontsize=8, frameon=False, loc="upper center")
    return _png(figure)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=90, layout="constrained")


def _png(figure: Any) -> bytes:
    for axes in figure.axes:
        axes.tick_params(labelsize=8, which="both")
        axes.xaxis.label.set_size(8)
        axes.yaxis.label.set_size(8)
        axes.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
