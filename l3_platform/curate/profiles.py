"""What the built-in identifier knows of a language: its frequent words, and a character model made from them.

`languages.txt` lists the words. A text is scored as words drawn from a mixture: with some probability a frequent word (Zipf's law
over its rank), else a word spelled by the language's character trigrams, smoothed by bigrams and single characters.
"""

from __future__ import annotations

import math
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

import numpy as np

LISTED = 0.4  # share of running words that the list holds, about what a hundred words cover
_SMOOTHING = (0.60, 0.30, 0.0999, 0.0001)  # trigram, bigram, character, any character
_ALPHABET = 200.0


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


class Profiles:
    """Log-probabilities of words under each of a group of languages that share a script."""

    def __init__(self, codes: tuple[str, ...]) -> None:
        lists = stop_words()
        self.codes = codes
        self._listed: dict[str, np.ndarray] = {}
        self._known: dict[str, np.ndarray] = {}
        self._characters = _CharacterModels([lists[code] for code in codes])
        weights: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(codes)))
        for column, code in enumerate(codes):
            ranks = [1.0 / (rank + 4) for rank in range(len(lists[code]))]
            for word, weight in zip(lists[code], ranks, strict=True):
                weights[word][column] = LISTED * weight / sum(ranks)
        self._listed = dict(weights)
        self._cache: dict[str, np.ndarray] = {}

    def score(self, words: list[str]) -> np.ndarray:
        """Log-likelihood of the words under each language, [languages]."""
        total = np.zeros(len(self.codes))
        for word in words:
            known = self._cache.get(word)
            if known is None:
                known = self._word(word)
                if len(self._cache) < 200_000:
                    self._cache[word] = known
            total += known
        return total

    def listed_share(self, words: list[str], column: int) -> float:
        """Share of the words that are frequent words of one language."""
        listed = sum(1 for word in words if word in self._listed and self._listed[word][column] > 0)
        return listed / len(words)

    def _word(self, word: str) -> np.ndarray:
        spelled = (1 - LISTED) * np.exp(self._characters.score(word))
        return np.log(spelled + self._listed.get(word, 0.0) + 1e-300)


class _CharacterModels:
    """Interpolated character trigrams of several languages side by side, from lists of word types."""

    def __init__(self, lists: list[tuple[str, ...]]) -> None:
        self._grams: dict[str, np.ndarray] = {}
        for n in (1, 2, 3):
            counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(lists)))
            contexts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(lists)))
            for column, words in enumerate(lists):
                for word in words:
                    padded = f" {word} "
                    for i in range(1, len(padded)):
                        gram = padded[max(0, i - n + 1) : i + 1]
                        if len(gram) == n:
                            counts[gram][column] += 1
                            contexts[gram[:-1]][column] += 1
            for gram, count in counts.items():
                context = contexts[gram[:-1]]
                self._grams[gram] = np.divide(count, context, out=np.zeros(len(lists)), where=context > 0)
        self._none = np.zeros(len(lists))

    def score(self, word: str) -> np.ndarray:
        padded = f" {word[:30]} "
        three, two, one, any_character = _SMOOTHING
        grams, none = self._grams, self._none
        total = np.zeros_like(none)
        for i in range(1, len(padded)):
            probability = (
                three * grams.get(padded[max(0, i - 2) : i + 1], none)
                + two * grams.get(padded[i - 1 : i + 1], none)
                + one * grams.get(padded[i], none)
                + any_character / _ALPHABET
            )
            total += np.log(probability)
        return total


@lru_cache(maxsize=8)
def profiles(codes: tuple[str, ...]) -> Profiles:
    return Profiles(codes)


def posterior(scores: np.ndarray, words: int) -> tuple[int, float]:
    """Best language and its probability. Words of a text depend on each other, so evidence grows with their square root only."""
    best = int(np.argmax(scores))
    evidence = (scores - scores[best]) / math.sqrt(max(1, words))
    return best, float(1.0 / np.exp(evidence).sum())
