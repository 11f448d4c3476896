"""What the built-in identifier knows of a language: its frequent words, and a character model made from them.

`languages.txt` lists the words. A text is scored as words drawn from a mixture: with some probability a frequent word (Zipf's law
over its rank), else a word spelled by the language's character trigrams, smoothed by bigrams and single characters.

All logarithms are taken here, once: a kernel adds up rows of a matrix, and finds a row by the hash of a word or of characters.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

# Rae et al. 2021, table A1: at least two of these should occur in an English document.
ENGLISH_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")

# Languages that share a script; one that has its script alone needs no profile.
GROUPS = {
    "latin": ("en", "de", "fr", "es", "pt", "it", "nl", "sv", "da", "no", "fi", "pl", "cs", "ro", "hu", "tr", "vi", "id", "ca"),
    "cyrillic": ("ru", "uk", "bg"),
    "arabic": ("ar", "fa"),
}  # fmt: skip
WIDTH = max(map(len, GROUPS.values()))  # columns of the matrix

LISTED = 0.4  # share of running words that the list holds, about what a hundred words cover
_SMOOTHING = (0.60, 0.30, 0.0999, 0.0001 / 200)  # trigram, bigram, character, any of about 200 characters
START = 0x1FFFFF  # stands before the first space of a word

PRIME = 0x100000001B3
OFFSET = 0xCBF29CE484222325
WORD = 1  # what a key begins with, beside its group: a word, or one to three characters

Grams = dict[tuple[int, ...], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Profiles:
    """Open addressing from `keys` (0: free) to `rows` of `scores` [rows, WIDTH], log-probabilities under a group's languages;
    `listed` [rows, WIDTH] is whether a row's word is a frequent one of the language."""

    keys: npt.NDArray[np.uint64]
    rows: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float32]
    listed: npt.NDArray[np.bool_]


@lru_cache(maxsize=1)
def stop_words() -> dict[str, tuple[str, ...]]:
    """Frequent words of each language, most frequent first; keys are ISO 639-1 codes."""
    words: dict[str, tuple[str, ...]] = {}
    code = ""
    for line in Path(__file__).with_name("languages.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            code = line.strip("[]")
        elif code and not line.startswith("#"):
            words[code] = tuple(dict.fromkeys(words.get(code, ()) + tuple(line.split())))
    return words


@lru_cache(maxsize=1)
def profiles() -> Profiles:
    entries: dict[int, tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]] = {}
    for group, codes in enumerate(GROUPS.values()):
        lists = [stop_words()[code] for code in codes]
        grams = _grams(lists)
        for gram, probability in grams.items():
            entries[key(group, 0, gram)] = np.log(probability), np.zeros(len(codes), bool)
        for word, weight in _weights(lists).items():
            spelled = (1 - LISTED) * np.exp(_spelled(word, grams, len(codes)))
            entries[key(group, WORD, tuple(map(ord, word)))] = np.log(spelled + weight), weight > 0
    return _packed(entries)


def key(group: int, kind: int, points: tuple[int, ...]) -> int:
    """FNV-1a over code points, as the kernel computes it."""
    value = ((OFFSET ^ (group << 1 | kind)) * PRIME) % 2**64
    for point in points:
        value = ((value ^ point) * PRIME) % 2**64
    return value


def _weights(lists: list[tuple[str, ...]]) -> dict[str, npt.NDArray[np.float64]]:
    """Probability of each frequent word under each language, [languages]."""
    weights: dict[str, npt.NDArray[np.float64]] = defaultdict(lambda: np.zeros(len(lists)))
    for column, words in enumerate(lists):
        ranks = [1.0 / (rank + 4) for rank in range(len(words))]
        for word, weight in zip(words, ranks, strict=True):
            weights[word][column] = LISTED * weight / sum(ranks)
    return dict(weights)


def _grams(lists: list[tuple[str, ...]]) -> Grams:
    """Probability of the last of one to three characters given those before it, smoothed by what is known of fewer."""
    counts: Grams = defaultdict(lambda: np.zeros(len(lists)))
    contexts: Grams = defaultdict(lambda: np.zeros(len(lists)))
    for column, words in enumerate(lists):
        for word in words:
            points = [START, *map(ord, f" {word} ")]
            for i in range(2, len(points)):
                for n in (1, 2, 3):
                    gram = tuple(points[i - n + 1 : i + 1])
                    counts[gram][column] += 1
                    contexts[gram[:-1]][column] += 1
    shares = {
        gram: np.divide(count, contexts[gram[:-1]], out=np.zeros(len(lists)), where=contexts[gram[:-1]] > 0)
        for gram, count in counts.items()
    }
    smoothed = {}
    for gram in sorted(shares):
        known = [_SMOOTHING[3 - n] * shares[gram[-n:]] for n in range(1, len(gram) + 1)]
        smoothed[gram] = _SMOOTHING[3] + np.sum(known, axis=0)
    return smoothed


def _spelled(word: str, grams: Grams, languages: int) -> npt.NDArray[np.float64]:
    """Log-probability of a word's characters under each language, [languages]."""
    points = [START, *map(ord, f" {word} ")]
    total = np.zeros(languages)
    for i in range(2, len(points)):
        known = next((grams[gram] for n in (3, 2, 1) if (gram := tuple(points[i - n + 1 : i + 1])) in grams), _SMOOTHING[3])
        total += np.log(known)
    return total


def _packed(entries: dict[int, tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]]) -> Profiles:
    size = 1 << (2 * len(entries)).bit_length()
    keys, rows = np.zeros(size, np.uint64), np.zeros(size, np.int32)
    scores, listed = np.zeros((len(entries), WIDTH), np.float32), np.zeros((len(entries), WIDTH), np.bool_)
    for row, (value, (logs, frequent)) in enumerate(sorted(entries.items())):
        at = (value ^ value >> 32) % size
        while keys[at]:
            at = (at + 1) % size
        keys[at], rows[at] = value, row
        scores[row, : len(logs)], listed[row, : len(logs)] = logs, frequent
    return Profiles(keys, rows, scores, listed)
