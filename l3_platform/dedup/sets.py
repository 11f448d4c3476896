"""Sets of shingles and the clusters they form, compiled by numba: similarity, connected components, who represents whom.

Sets lie one after another: `hashes` [total], sorted and distinct within a set, and `starts` [sets + 1].
"""

from __future__ import annotations

import numpy as np
from numba import njit

_jit = njit(nogil=True, cache=True)


@_jit
def jaccard(left, right, threshold):
    """True Jaccard similarity of two sorted sets; -1 where it is below `threshold`, which sizes alone often tell."""
    smaller, larger = min(len(left), len(right)), max(len(left), len(right))
    if smaller / larger < threshold:
        return -1.0
    i, j, shared = 0, 0, 0
    while i < len(left) and j < len(right):
        one, other = left[i], right[j]
        shared += one == other
        i += one <= other
        j += other <= one
    similarity = shared / (len(left) + len(right) - shared)
    return similarity if similarity >= threshold else -1.0


@_jit
def verify(left, left_hashes, left_starts, right, right_hashes, right_starts, threshold, similarity):
    """Fills similarity [pairs] with the true Jaccard of set left[p] of one side and right[p] of the other; -1 below `threshold`."""
    for p in range(len(left)):
        one = left_hashes[left_starts[left[p]] : left_starts[left[p] + 1]]
        other = right_hashes[right_starts[right[p]] : right_starts[right[p] + 1]]
        similarity[p] = jaccard(one, other, threshold)


@_jit
def take(hashes, starts, chosen, bounds, taken):
    """Fills taken[bounds[k]:bounds[k + 1]] with set chosen[k]."""
    for k in range(len(chosen)):
        taken[bounds[k] : bounds[k + 1]] = hashes[starts[chosen[k]] : starts[chosen[k] + 1]]


@_jit
def drop_repeated(hashes, starts):
    """Makes each sorted run distinct, closing the gaps: `starts` then says where each begins."""
    at, start = 0, starts[0]
    for d in range(len(starts) - 1):
        end = starts[d + 1]
        starts[d] = at
        for i in range(start, end):
            if i == start or hashes[i] != hashes[i - 1]:
                hashes[at] = hashes[i]
                at += 1
        start = end
    starts[len(starts) - 1] = at


@_jit
def components(left, right, parent):
    """Makes parent [nodes] (preset to each node itself) the smallest node of its connected component. Union-find, path halving."""
    for p in range(len(left)):
        one, other = root(parent, left[p]), root(parent, right[p])
        parent[max(one, other)] = min(one, other)
    for node in range(len(parent)):
        parent[node] = root(parent, node)


@_jit
def root(parent, node):
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@_jit
def place(component, hashes, starts, threshold, representative, similarity):
    """Fills representative [members] and similarity [members]; the members of a component are adjacent, whoever stays before
    another first. The first stays; each next one joins the first representative that it truly resembles, else stays too."""
    kept = np.empty(len(component), np.int64)
    count = 0
    for member in range(len(component)):
        if member == 0 or component[member] != component[member - 1]:
            count = 0
        here = hashes[starts[member] : starts[member + 1]]
        representative[member], similarity[member] = member, 1.0
        for k in range(count):
            alike = jaccard(hashes[starts[kept[k]] : starts[kept[k] + 1]], here, threshold)
            if alike >= 0:
                representative[member], similarity[member] = kept[k], alike
                break
        if representative[member] == member:
            kept[count] = member
            count += 1
