"""Pairs worth comparing: documents that share a MinHash band. Linear in the documents, however hot a band."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

ALL_PAIRS = 16  # groups up to this size give all their pairs
ANCHORS = 4  # in a larger group each document meets the first few
NEIGHBOURS = 4  # and the next few


def candidate_pairs(groups: npt.NDArray[np.uint64]) -> tuple[Indices, Indices]:
    """Positions (left < right) of rows that share a value; `groups` is sorted, so that equal values are adjacent.

    A value shared by more than ALL_PAIRS rows is hot: n documents then give at most (ANCHORS + NEIGHBOURS)·n pairs
    instead of n²/2. Rows should be ordered within a group so that likely duplicates are neighbours.
    """
    count = len(groups)
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]]) if count else np.zeros(0, np.int64)
    sizes = np.diff(np.r_[starts, count])
    shared = sizes > 1
    starts, sizes = starts[shared], sizes[shared]
    start = np.repeat(starts, sizes)
    end = np.repeat(starts + sizes, sizes)
    hot = np.repeat(sizes > ALL_PAIRS, sizes)
    rows = start + np.arange(len(start)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    left, right = [], []
    for distance in range(1, ALL_PAIRS):
        here = (rows + distance < end) & (~hot | (distance <= NEIGHBOURS))
        left.append(rows[here])
        right.append(rows[here] + distance)
    for anchor in range(ANCHORS):
        here = hot & (rows - start > anchor + NEIGHBOURS)
        left.append(start[here] + anchor)
        right.append(rows[here])
    return np.concatenate(left), np.concatenate(right)
