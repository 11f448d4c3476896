"""MinHash bands: documents that agree in all rows of a band are worth comparing.

Of pairs with Jaccard similarity s, `bands` bands of `rows` rows propose the share 1 - (1 - s^rows)^bands: an S-curve that
is steepest near (1 / bands)^(1 / rows) (Leskovec et al., Mining of Massive Datasets, section 3.4). 16 bands of 8 rows propose
0.05 at 0.5, 0.61 at 0.7, 0.95 at 0.8 and 0.9999 at 0.9.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from l3_platform.dedup import kernels
from l3_platform.dedup.shingles import Hashes, Signatures

RECALL = 0.92  # share of the pairs exactly at the threshold that chosen bands propose, at least


@dataclass(frozen=True)
class Shape:
    bands: int
    rows: int

    def proposed(self, similarity: float) -> float:
        """Share of the pairs of this Jaccard similarity that meet in a band."""
        return 1 - (1 - similarity**self.rows) ** self.bands


def shape(num_perm: int, threshold: float, bands: int = 0) -> Shape:
    """`bands` bands over all permutations; with 0 the longest, so the fewest false candidates, that propose RECALL of the
    pairs at `threshold`, a few permutations left over where they do not divide. Raises ValueError."""
    if bands:
        if num_perm % bands:
            raise ValueError(f"dedup.bands is {bands}, which does not divide dedup.num_perm, {num_perm}")
        return Shape(bands, num_perm // bands)
    for rows in range(num_perm, 0, -1):
        chosen = Shape(num_perm // rows, rows)
        if chosen.proposed(threshold) >= RECALL:
            return chosen
    raise ValueError(f"dedup.num_perm is {num_perm}: too few to find pairs of Jaccard {threshold}; raise it or dedup.threshold")


def band_values(signed: Signatures, shape: Shape, seeds: Hashes | None = None) -> Hashes:
    """uint64 [documents, bands]: what two documents share in a band where all of its rows agree, and their seeds."""
    documents = len(signed)
    values = np.empty((documents, shape.bands), np.uint64)
    data: npt.NDArray[np.uint8] = np.ascontiguousarray(signed).view(np.uint8)
    kernels.band(data, shape.bands, 4 * shape.rows, np.zeros(documents, np.uint64) if seeds is None else seeds, values)
    return values


def sketches(signed: Signatures) -> Hashes:
    """uint64 [documents]: a hash of the whole signature, equal for equal sets of shingles."""
    return band_values(signed, Shape(1, signed.shape[1]))[:, 0]
