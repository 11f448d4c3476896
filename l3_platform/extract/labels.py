"""Which blocks of a page its gold text holds, for training: an alignment of the page's tokens with the gold's.

The gold is text without places. A block counts by the share of its tokens that the alignment matches, in order, where runs of
matches weigh more than scattered ones: the same words in a menu and in the text go to the text.
"""

from __future__ import annotations

import re

import numpy as np
from numba import njit

_TOKEN = re.compile(r"\w+")
_MAX_CELLS = 600_000_000


def tokens(text: str) -> list[str]:
    """The unit of the score: lower-cased runs of letters, digits and underscores."""
    return _TOKEN.findall(text.lower())


def gold_shares(blocks: list[str], gold: str) -> tuple[np.ndarray, np.ndarray]:
    """For each block, the share of its tokens that the gold text holds, and how many tokens it has."""
    numbers: dict[str, int] = {}
    found = [[numbers.setdefault(token, len(numbers)) for token in tokens(block)] for block in blocks]
    wanted = np.array([numbers.setdefault(token, len(numbers)) for token in tokens(gold)], np.int32)
    counts = np.array([len(row) for row in found], np.int64)
    page = np.array([token for row in found for token in row], np.int32)
    if len(page) * len(wanted) > _MAX_CELLS:
        raise ValueError(f"{len(page):,} x {len(wanted):,} tokens are too many to align")
    hits = np.concatenate([[0], np.cumsum(_aligned(page, wanted))]) if len(page) and len(wanted) else np.zeros(len(page) + 1)
    ends = np.cumsum(counts)
    return (hits[ends] - hits[ends - counts]) / np.maximum(counts, 1), counts


@njit(cache=True)
def _aligned(page, gold):
    """Tokens of `page` that the best alignment matches with `gold`, bool [tokens]."""
    n, m = len(page), len(gold)
    best = np.zeros(m + 1, np.int32)  # of page[:i] and gold[:j]
    match = np.zeros(m + 1, np.int32)  # of those that end in a match of the last two
    moves = np.zeros((n + 1, m + 1), np.uint8)  # 0 skip in the page, 1 skip in the gold, 2 match, 3 match after a match
    for i in range(1, n + 1):
        corner_best, corner_match = best[0], match[0]
        for j in range(1, m + 1):
            above_best, above_match = best[j], match[j]
            move = 0
            score = above_best
            if best[j - 1] > score:
                score, move = best[j - 1], 1
            if page[i - 1] == gold[j - 1]:
                after = corner_match + 3 if corner_match else 0
                fresh = corner_best + 2
                match[j] = max(after, fresh)
                run = 4 if after >= fresh else 0
                if match[j] >= score:
                    score, move = match[j], 2
                move |= run
            else:
                match[j] = 0
            best[j] = score
            moves[i, j] = move
            corner_best, corner_match = above_best, above_match
    hit = np.zeros(n, np.bool_)
    i, j = n, m
    running = False
    while i > 0 and j > 0:
        move = moves[i, j]
        if running or move & 3 == 2:
            hit[i - 1] = True
            running = move & 4 != 0
            i -= 1
            j -= 1
        elif move & 3 == 1:
            j -= 1
        else:
            i -= 1
    return hit
