"""Loops over the tokens of a batch of documents, compiled by numba, without the GIL: counts, and divergence from a corpus.

Everything that a kernel here calls is in this file: numba's cache would not notice a change elsewhere.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

_jit = njit(nogil=True, cache=True)


@_jit
def count_tokens(bins, bounds, group, counts):
    """Adds the tokens of document d, bins[bounds[d]:bounds[d + 1]], to counts[group[d]], [groups, bins]."""
    for d in range(len(bounds) - 1):
        for i in range(bounds[d], bounds[d + 1]):
            counts[group[d], bins[i]] += 1


@_jit
def divergences(bins, bounds, group, counts, totals, smoothing, rare, stretch, kl, outliers):
    """Fills kl [documents], the Kullback-Leibler divergence, in nats, of a document's tokens from those of its group's other
    documents, and outliers [documents], the share of its tokens that are rarer than `rare` there.

    The divergence is the mean over stretches of about `stretch` tokens. `counts` [groups, bins] and `totals` [groups] hold
    the document itself too. `smoothing` is added to each count. A document without tokens, or of group -1, is left as it is.
    """
    whole, part = np.zeros(counts.shape[1], np.int64), np.zeros(counts.shape[1], np.int64)
    for d in range(len(bounds) - 1):
        first, tokens, at = bounds[d], bounds[d + 1] - bounds[d], group[d]
        if tokens == 0 or at < 0:
            continue
        kl[d], outliers[d] = 0.0, 0.0
        others = totals[at] - tokens + smoothing * counts.shape[1]
        for i in range(first, first + tokens):
            whole[bins[i]] += 1
        stretches = max(1, (tokens + stretch // 2) // stretch)
        for s in range(stretches):
            start, end = first + tokens * s // stretches, first + tokens * (s + 1) // stretches
            for i in range(start, end):
                part[bins[i]] += 1
            for i in range(start, end):
                here = part[bins[i]]
                if here == 0:
                    continue  # a repetition: counted already
                part[bins[i]] = 0
                chance = (counts[at, bins[i]] - whole[bins[i]] + smoothing) / others
                share = here / (end - start)
                kl[d] += share * math.log(share / chance) / stretches
                if chance < rare:
                    outliers[d] += here / tokens
        for i in range(first, first + tokens):
            whole[bins[i]] = 0
