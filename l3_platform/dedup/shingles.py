"""Word shingles, their MinHash signatures and their true Jaccard similarity.

One hash serves all: the true Jaccard similarity is that of the sets of 64-bit hashes, and the MinHash permutes the lower
32 bits, as datasketch's `affine32` scheme wants (Broder 1997).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from l3_platform.dedup import code_points, kernels, sets
from l3_platform.dedup.code_points import WORD

Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]
Signatures = npt.NDArray[np.uint32]

LARGEST = np.iinfo(np.uint32).max


def signatures(texts: pa.Array | pa.ChunkedArray, *, num_perm: int = 128, ngram: int = 5, seed: int = 1) -> Signatures:
    """MinHash signatures, uint32 [documents, num_perm]: those of `datasketch.MinHash(scheme="affine32")` of the same
    num_perm and seed with `shingle_hash` as its hashfunc, updated with a text's shingles.

    A text's shingles are every `ngram` words in a row, joined by one space, as UTF-8. Its words are
    `WORD.findall(text.lower())`: runs of letters, digits and `_` (Python's `\\w+`), but each ideograph and kana alone. A
    text of fewer words is one shingle of them all; one without words is itself, lower-cased and stripped; a null is empty.
    `shingle_texts` says the same in three lines.
    """
    multiplier, increment = _permutations(num_perm, seed)
    result = np.full((len(texts), num_perm), LARGEST, np.uint32)
    first = 0
    for chunk in _chunks(texts):
        data, offsets = utf8(chunk)
        signed, words = result[first : first + len(chunk)], np.empty(len(chunk), np.int64)
        kernels.sign(data, offsets, code_points.table(), ngram, multiplier, increment, signed, words)
        for row in np.flatnonzero(words == 0):
            kernels.permute(_wordless(chunk[row], kernels.SHINGLES_AT_ONCE), 1, multiplier, increment, signed[row])
        first += len(chunk)
    return result


def shingle_hash(shingle: bytes) -> int:
    """The 32 bits of a shingle, words joined by one space, that MinHash permutes: the lower half of its 64-bit hash."""
    return int(kernels.hash_shingle(np.frombuffer(shingle, np.uint8))) & 0xFFFFFFFF


def shingle_texts(text: str, ngram: int = 5) -> list[str]:
    """The shingles as text, repeated ones included: lower-cased words joined by a space."""
    found = words(text)
    if len(found) < ngram:
        # Without a word (punctuation, emoji) the text stands for itself: not all such texts are alike.
        return [" ".join(found) or text.strip().lower()]
    return [" ".join(found[start : start + ngram]) for start in range(len(found) - ngram + 1)]


def words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def first_words(text: str, most: int) -> str:
    """The first `most` of `words`, with one space between: by the kernels, ten times as fast."""
    data = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    stream, _, _ = kernels.workspace(np.array([0, len(data)]))
    length = kernels.rewrite(data, 0, len(data), code_points.table(), stream)
    return stream[: kernels.squeeze(stream, length, most)].tobytes().decode()


def shingles(text: str, ngram: int = 5) -> Hashes:
    """64-bit hashes of the distinct shingles of one text, sorted."""
    return shingle_sets(pa.array([text]), ngram)[0]


def shingle_sets(texts: pa.Array | pa.ChunkedArray, ngram: int = 5) -> tuple[Hashes, Indices]:
    """The shingles of each text as a set: hashes [total], sorted and distinct a text, and starts [documents + 1], where those
    of each text begin. No set is empty: see `signatures`."""
    parts, sizes = [np.zeros(0, np.uint64)], [np.zeros(1, np.int64)]
    for chunk in _chunks(texts):
        data, offsets = utf8(chunk)
        room = (np.diff(offsets) // 2 + 1).sum()  # a word and the space after it are two bytes
        found, starts, words = np.empty(room, np.uint64), np.empty(len(chunk) + 1, np.int64), np.empty(len(chunk), np.int64)
        kernels.shingle(data, offsets, code_points.table(), ngram, found, starts, words)
        for row in np.flatnonzero(words == 0):
            found[starts[row]] = _wordless(chunk[row], 1)[0]
        for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            found[start:end].sort()
        sets.drop_repeated(found, starts)
        parts.append(found[: starts[-1]])
        sizes.append(np.diff(starts))
    return np.concatenate(parts), np.cumsum(np.concatenate(sizes))


def jaccard(left: Hashes, right: Hashes) -> float:
    """True Jaccard similarity of two sets of shingles, each sorted and distinct."""
    return sets.jaccard(left, right, 0.0)


def utf8(texts: pa.Array | pa.ChunkedArray) -> tuple[npt.NDArray[np.uint8], Indices]:
    """The bytes of a string array and where each text begins in them, [documents + 1]; a null text is empty."""
    array = texts.cast(pa.large_string())
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if array.null_count:
        array = array.fill_null("")
    _, offsets, data = array.buffers()
    if len(array) == 0 or offsets is None:
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    bounds = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8), bounds


def _chunks(texts: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    return texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]


def _wordless(text: pa.Scalar, room: int) -> Hashes:
    """The one shingle of a text without words, in an array with `room` for more."""
    whole = text.as_buffer().to_pybytes().decode(errors="replace") if text.is_valid else ""
    return np.full(room, kernels.hash_shingle(np.frombuffer(whole.strip().lower().encode(), np.uint8)), np.uint64)


def _permutations(num_perm: int, seed: int) -> Signatures:
    """uint32 [2, num_perm]: datasketch's multipliers, which are odd, and increments."""
    random = np.random.RandomState(seed)
    multiplier = random.randint(0, 1 << 31, num_perm, np.uint32) * np.uint32(2) + np.uint32(1)
    return np.array([multiplier, random.randint(0, 1 << 32, num_perm, np.uint32)])
