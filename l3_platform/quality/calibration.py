"""How far a classifier's probabilities can be trusted: ranking by ROC-AUC, values by a reliability diagram."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Truth = npt.NDArray[np.bool_]  # [documents]
Scores = npt.NDArray[np.floating]  # [documents], probabilities
BINS = 10  # of equal width


def roc_auc(truth: Truth, scores: Scores) -> float:
    """Area under the ROC curve: the chance that a true row scores above a false one, ties counting half."""
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]  # mean rank of equal scores, from 1
    true, false = int(truth.sum()), int((~truth).sum())
    return float((rank[truth].sum() - true * (true + 1) / 2) / (true * false))


def reliability(truth: Truth, scores: Scores) -> list[dict[str, Any]]:
    """A row a bin of scores: its documents, their mean score, and the share of them that is positive (None where empty)."""
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    rows = []
    for number in range(BINS):
        inside = bins == number
        documents = int(inside.sum())
        mean, share = (float(scores[inside].mean()), float(truth[inside].mean())) if documents else (None, None)
        rows.append(
            {
                "from": number / BINS,
                "to": (number + 1) / BINS,
                "documents": documents,
                "mean_score": mean if mean is None else round(mean, 4),
                "positive_share": share if share is None else round(share, 4),
            }
        )
    return rows


def expected_calibration_error(rows: list[dict[str, Any]]) -> float:
    """Mean distance of mean score and positive share over the documents of `reliability` (Guo et al. 2017, equation 5)."""
    filled = [row for row in rows if row["documents"]]
    total = sum(row["documents"] for row in filled)
    return sum(row["documents"] * abs(row["mean_score"] - row["positive_share"]) for row in filled) / total
