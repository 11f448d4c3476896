"""Charts of a classifier, as SVG: may its probabilities be believed, and where do the corpus's deciles lie?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from l3_platform import svg
from l3_platform.svg import BLUE, GREY, ORANGE


def calibration_chart(bins: Sequence[Mapping[str, Any]], positive: str, note: str) -> bytes:
    """Share of positives against the score, a point a bin of `reliability`, over the number of documents in each."""
    lines = note.split("\n")
    top, filled = 18.0 + 14 * len(lines), [row for row in bins if row["documents"]]
    axes = svg.Axes(64, top, 340, 230, x=(0.0, 1.0), y=(0.0, 1.0))
    axes.line([(0, 0), (1, 1)], GREY, 1, dashed=True)
    points = [(row["mean_score"], row["positive_share"]) for row in filled]
    # Wilson's interval, 95 %: a bin of few documents says little.
    for row in filled:
        low, high = _wilson(row["positive_share"], row["documents"])
        axes.line([(row["mean_score"], low), (row["mean_score"], high)], BLUE)
    axes.line(points, BLUE)
    axes.dots(points)
    axes.key([(GREY, "perfectly calibrated"), (BLUE, "held out, with 95 % interval")], left=76)
    axes.frame(y_label=f"share that is {positive}")
    most = max(row["documents"] for row in bins)
    below = svg.Axes(64, top + 250, 340, 80, x=(0.0, 1.0), y=(0.0, 1.2 * most))
    for row in bins:
        middle = (row["from"] + row["to"]) / 2
        below.bar((middle - 0.045, middle + 0.045), (0, row["documents"]))
        below.note(middle, row["documents"], f"{row['documents']:,}", "middle")
    below.frame("score, a probability", "documents")
    titles = [svg.text(64, 16 + 14 * row, line) for row, line in enumerate(lines)]
    return svg.picture(420, top + 370, *titles, axes, below)


def _wilson(share: float, documents: int, z: float = 1.96) -> tuple[float, float]:
    centre = (share + z * z / (2 * documents)) / (1 + z * z / documents)
    half = z * (share * (1 - share) / documents + z * z / (4 * documents**2)) ** 0.5 / (1 + z * z / documents)
    return max(0.0, centre - half), min(1.0, centre + half)


def scores_chart(scores: npt.NDArray[np.float32], edges: Sequence[float], positive: str, threshold: float | None) -> bytes:
    """How many documents have which score, the edges of the deciles as lines, and the threshold where there is one."""
    counts, places = np.histogram(scores, bins=np.linspace(0.0, 1.0, 51))
    most = 2.0 * max(counts.max(), 1)
    axes = svg.Axes(64, 10, 390, 170, x=(0.0, 1.0), y=(0.8, float(most)), log_y=True)
    for count, start, end in zip(counts.tolist(), places[:-1].tolist(), places[1:].tolist(), strict=True):
        if count:
            axes.bar((start, end), (0.8, count))
    for edge in edges:
        axes.line([(edge, 0.8), (edge, most)], GREY, 0.7)
    names = [(GREY, "decile edges")]
    if threshold is not None:
        axes.line([(threshold, 0.8), (threshold, most)], ORANGE, 1.5)
        names.append((ORANGE, f"dropped below {threshold:g}"))
    axes.key(names, left=200)
    axes.frame(f"score, the probability of {positive}", "documents")
    return svg.picture(470, 220, axes)
