"""From verified pairs to clusters in which every document is a true duplicate of the one that stays.

A chain A ~ B ~ C may link C to A although they share little. So a component of verified pairs only says who may belong
together; within it the newest document stays, each next one joins the first representative that it truly resembles,
and one that resembles none stays too and may represent others. What is removed always has a true Jaccard similarity of
at least the threshold with what stays for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from l3_platform.dedup.candidates import Indices, candidate_pairs
from l3_platform.dedup.shingles import Hashes, band_values, jaccard, shingles, signatures, sketches


def deduplicate(
    texts: pa.Array | pa.ChunkedArray,
    *,
    threshold: float = 0.8,
    num_perm: int = 128,
    bands: int = 16,
    ngram: int = 5,
    seed: int = 1,
) -> pa.Table:
    """Near-duplicates of texts in memory; of a cluster the first stays.

    One row a text: cluster i64 (index of its representative), representative bool, jaccard f64 (true, with the
    representative).
    """
    signed = signatures(texts, num_perm=num_perm, ngram=ngram, seed=seed)
    sets = [shingles(text or "", ngram) for text in texts.to_pylist()]
    pairs = sorted(set(_pairs_in_memory(band_values(signed, bands), sketches(signed))))
    verified = [(left, right) for left, right in pairs if alike(sets[left], sets[right], threshold) is not None]
    left, right = np.array(verified, np.int64).reshape(-1, 2).T
    cluster, similarity = np.arange(len(texts)), np.ones(len(texts))
    labels = components(len(texts), left, right)
    order = np.argsort(labels, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        for member, placed in zip(members, place((sets[member] for member in members), threshold), strict=True):
            cluster[member], similarity[member] = members[placed.representative], placed.jaccard
    return pa.table({"cluster": cluster, "representative": cluster == np.arange(len(texts)), "jaccard": similarity})


def _pairs_in_memory(values: Hashes, sketch: Hashes) -> Iterable[tuple[int, int]]:
    for band in values.T:
        order = np.lexsort((sketch, band))
        left, right = candidate_pairs(band[order])
        pairs = np.sort(np.stack([order[left], order[right]]), axis=0)
        yield from zip(*pairs.tolist(), strict=True)


def alike(left: Hashes, right: Hashes, threshold: float) -> float | None:
    """The true Jaccard similarity where it reaches `threshold`, else None. Sizes alone rule most pairs out."""
    if min(len(left), len(right)) / max(len(left), len(right)) < threshold:
        return None
    similarity = jaccard(left, right)
    return similarity if similarity >= threshold else None


def components(count: int, left: Indices, right: Indices) -> Indices:
    """Label of each of `count` nodes: the smallest node of its connected component. Union-find with path halving."""
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for one, other in zip(left.tolist(), right.tolist(), strict=True):
        first, second = sorted((root(one), root(other)))
        parent[second] = first
    return np.fromiter(map(root, range(count)), np.int64, count)


@dataclass(frozen=True)
class Placed:
    representative: int  # position in the component
    jaccard: float


def place(members: Iterable[Hashes], threshold: float) -> list[Placed]:
    """Where each member of a component belongs. Earlier members stay before later ones; only the shingles of those that
    stay are held in memory."""
    kept: list[tuple[int, Hashes]] = []
    placed: list[Placed] = []
    for position, member in enumerate(members):
        for representative, hashes in kept:
            similarity = alike(hashes, member, threshold)
            if similarity is not None:
                placed.append(Placed(representative, similarity))
                break
        else:
            kept.append((position, member))
            placed.append(Placed(position, 1.0))
    return placed
