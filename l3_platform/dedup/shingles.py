"""Word shingles, their MinHash signatures and their true Jaccard similarity.

One hash serves all: a shingle is its xxh64, the true Jaccard similarity is that of the sets of 64-bit hashes, and the
MinHash permutes the lower 32 bits, as datasketch's `affine32` scheme wants (Broder 1997).
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

Hashes = npt.NDArray[np.uint64]
Signatures = npt.NDArray[np.uint32]

# Ideographs and kana are written without spaces: each is a word of its own.
CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0002fa1f"
WORD = re.compile(rf"[{CJK}]|[^\W{CJK}]+")

ROWS_AT_A_TIME = 1 << 13  # shingles permuted together: 4 MB at 128 permutations


def signatures(texts: pa.Array | pa.ChunkedArray, *, num_perm: int = 128, ngram: int = 5, seed: int = 1) -> Signatures:
    """MinHash signatures, uint32 [documents, num_perm]: those of datasketch with `shingle_hash` as its hashfunc."""
    multiplier, increment = _permutations(num_perm, seed)
    result = np.full((len(texts), num_perm), np.iinfo(np.uint32).max, np.uint32)
    for row, text in enumerate(texts.to_pylist()):
        hashes = _finalize(shingles(text or "", ngram).astype(np.uint32))
        for start in range(0, len(hashes), ROWS_AT_A_TIME):
            permuted = hashes[start : start + ROWS_AT_A_TIME, None] * multiplier + increment
            np.minimum(result[row], permuted.min(axis=0), out=result[row])
    return result


def shingle_hash(shingle: bytes) -> int:
    """The 32 bits that MinHash permutes: the lower half of the shingle's xxh64."""
    return xxhash.xxh64_intdigest(shingle) & 0xFFFFFFFF


def shingles(text: str, ngram: int = 5) -> Hashes:
    """xxh64 of the distinct `ngram`-word shingles, sorted. A text of fewer words is one shingle."""
    whole = [shingle.encode() for shingle in shingle_texts(text, ngram)]
    return np.unique(np.fromiter(map(xxhash.xxh64_intdigest, whole), np.uint64, len(whole)))


def shingle_texts(text: str, ngram: int) -> list[str]:
    """The shingles as text, repeated ones included: lower-cased words joined by a space."""
    found = words(text)
    if len(found) < ngram:
        # Without a word (punctuation, emoji) the text stands for itself: not all such texts are alike.
        return [" ".join(found) or text.strip().lower()]
    return [" ".join(found[start : start + ngram]) for start in range(len(found) - ngram + 1)]


def words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def jaccard(left: Hashes, right: Hashes) -> float:
    """True Jaccard similarity of two sets of shingles, each sorted and distinct."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / (len(left) + len(right) - shared)


def band_values(signed: Signatures, bands: int) -> Hashes:
    """uint64 [documents, bands]: what two documents share in a band where all of its rows agree. Raises ValueError."""
    documents, num_perm = signed.shape
    if num_perm % bands:
        raise ValueError(f"dedup.bands is {bands}, which does not divide dedup.num_perm, {num_perm}")
    rows = np.ascontiguousarray(signed.reshape(documents, bands, num_perm // bands))
    values = np.empty((documents, bands), np.uint64)
    for document in range(documents):
        for band in range(bands):  # the band's number is the seed: equal rows of two bands do not meet
            values[document, band] = xxhash.xxh64_intdigest(rows[document, band].data, seed=band)
    return values


def sketches(signed: Signatures) -> Hashes:
    """uint64 [documents]: a hash of the whole signature, equal for equal sets of shingles."""
    return band_values(signed, 1)[:, 0]


def _permutations(num_perm: int, seed: int) -> Signatures:
    from datasketch import MinHash

    return np.asarray(MinHash(num_perm=num_perm, seed=seed, scheme="affine32").permutations, np.uint32)


def _finalize(hashes: Signatures) -> Signatures:
    """MurmurHash3's finalizer, which datasketch's affine scheme mixes its input with."""
    hashes = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return hashes ^ (hashes >> np.uint32(16))
