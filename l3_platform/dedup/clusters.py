"""From verified pairs to clusters in which every document is a true duplicate of the one that stays.

A chain A ~ B ~ C may link C to A although they share little. So a component of verified pairs only says who may belong
together; within it the newest document stays, each next one joins the first representative that it truly resembles,
and one that resembles none stays too and may represent others. What is removed always has a true Jaccard similarity of
at least the threshold with what stays for it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from l3_platform.dedup import sets
from l3_platform.dedup.bands import band_values, shape, sketches
from l3_platform.dedup.candidates import candidate_pairs
from l3_platform.dedup.shingles import Hashes, Indices, shingle_sets, signatures


def deduplicate(
    texts: pa.Array | pa.ChunkedArray,
    *,
    threshold: float = 0.8,
    num_perm: int = 128,
    bands: int = 0,
    ngram: int = 5,
    seed: int = 1,
) -> pa.Table:
    """Near-duplicates of texts in memory; of a cluster the first stays.

    One row a text: cluster i64 (index of its representative), representative bool, jaccard f64 (true, with the
    representative). `bands` 0 chooses them for the threshold: see `bands.shape`.
    """
    signed = signatures(texts, num_perm=num_perm, ngram=ngram, seed=seed)
    left, right = _pairs_in_memory(band_values(signed, shape(num_perm, threshold, bands)), sketches(signed))
    candidates = np.unique(np.concatenate([left, right]))
    hashes, starts = shingle_sets(texts.take(pa.array(candidates)), ngram)
    left, right = np.searchsorted(candidates, left), np.searchsorted(candidates, right)
    verified = similarities(left, (hashes, starts), right, (hashes, starts), threshold) >= 0
    labels = components(len(candidates), left[verified], right[verified])
    order = np.argsort(labels, kind="stable")
    members, bounds = take_sets(hashes, starts, order)
    placed, similarity = place(labels[order], members, bounds, threshold)
    cluster, jaccard = np.arange(len(texts)), np.ones(len(texts))
    cluster[candidates[order]] = candidates[order][placed]
    jaccard[candidates[order]] = similarity
    return pa.table({"cluster": cluster, "representative": cluster == np.arange(len(texts)), "jaccard": jaccard})


def _pairs_in_memory(values: Hashes, sketch: Hashes) -> tuple[Indices, Indices]:
    """Pairs (left < right) of documents that share a band, each once."""
    found = [np.zeros(0, np.int64)]
    by_sketch = np.argsort(sketch, kind="stable")
    for band in values.T:
        order = by_sketch[np.argsort(band[by_sketch], kind="stable")]
        left, right = candidate_pairs(band[order])
        left, right = order[left], order[right]
        found.append(np.minimum(left, right) * len(sketch) + np.maximum(left, right))
    pairs = np.unique(np.concatenate(found))
    return np.divmod(pairs, max(1, len(sketch)))


def similarities(
    left: Indices, left_sets: tuple[Hashes, Indices], right: Indices, right_sets: tuple[Hashes, Indices], threshold: float
) -> npt.NDArray[np.float64]:
    """True Jaccard similarity of set left[p] and set right[p], -1 where it is below `threshold`. Sets as in `shingle_sets`."""
    similarity = np.empty(len(left))
    sets.verify(left, *left_sets, right, *right_sets, threshold, similarity)
    return similarity


def components(count: int, left: Indices, right: Indices) -> Indices:
    """Label of each of `count` nodes: the smallest node of its connected component."""
    parent = np.arange(count)
    sets.components(left, right, parent)
    return parent


def place(component: Indices, hashes: Hashes, starts: Indices, threshold: float) -> tuple[Indices, npt.NDArray[np.float64]]:
    """Position of the representative of each member, and their true Jaccard. Members of a component are adjacent; earlier ones
    stay before later ones."""
    representative, similarity = np.empty(len(component), np.int64), np.empty(len(component))
    sets.place(component, hashes, starts, threshold, representative, similarity)
    return representative, similarity


def take_sets(hashes: Hashes, starts: Indices, chosen: Indices) -> tuple[Hashes, Indices]:
    """These sets, in this order."""
    bounds = np.r_[0, np.cumsum(np.diff(starts)[chosen])]
    taken = np.empty(bounds[-1], np.uint64)
    sets.take(hashes, starts, chosen, bounds, taken)
    return taken, bounds
