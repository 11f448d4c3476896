"""Whether a text is ordinary, and new among those seen so far.

Inherited docstrings repeat all over a package. Left in, they would be near duplicates that no ledger knows of.
"""

from __future__ import annotations

import re
from zlib import crc32

NGRAM = 5  # words, as in the platform's MinHash shingles
_MAX_SEEN = 0.25  # share of a text's shingles that earlier texts may hold
_MAX_REPEATED = 0.12  # share of a text's shingles that occur in it before: tables of numbers, argument lists
_MIN_WORDS = 25
_WORD = re.compile(r"\w+")
_FUNCTION_WORDS = frozenset(
    ["the", "of", "and", "to", "a", "in", "is", "that", "for", "be", "with", "as", "are", "this", "by", "or", "an", "it", "on"]
)


class Originality:
    """Remembers the shingles of accepted texts as 32-bit checksums."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def accept(self, text: str, *, code: bool = False) -> bool:
        """True, and the text is remembered, where it is ordinary prose (or code) and largely new."""
        words = _WORD.findall(text.lower())
        if len(words) < _MIN_WORDS or not _ordinary(text, words, code):
            return False
        shingles = shingle_list(words)
        distinct = set(shingles)
        if len(distinct) < (1 - _MAX_REPEATED) * len(shingles):
            return False
        if len(distinct & self._seen) > _MAX_SEEN * len(distinct):
            return False
        self._seen |= distinct
        return True


def shingle_list(words: list[str]) -> list[int]:
    """CRC-32 of every run of five words."""
    encoded = " ".join(words).encode()
    ends, at = [], 0
    for word in words:
        at += len(word.encode()) if not word.isascii() else len(word)
        ends.append(at)
        at += 1
    starts = [0, *(end + 1 for end in ends)]
    return [crc32(encoded[starts[i] : ends[i + NGRAM - 1]]) for i in range(len(words) - NGRAM + 1)]


def _ordinary(text: str, words: list[str], code: bool) -> bool:
    letters = sum(word[0].isalpha() for word in words) / len(words)
    if letters < 0.75:
        return False
    if code:
        return not text.isascii() or max(map(len, text.split("\n"))) < 200
    function_words = sum(word in _FUNCTION_WORDS for word in words) / len(words)
    return function_words > 0.12 and len(text) / max(1, len(text.split())) < 11
