"""What datatrove 0.10's Gopher filters compute, in plain Python: no word of the kernels' code is in it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")


def reference_repetition(text: str, words: Sequence[str]) -> dict[str, float]:
    """`GopherRepetitionFilter`; 0 everywhere for an empty text, at which it divides by zero."""
    shares: dict[str, float] = {}
    for name, parts in {"para": re.split(r"\n{2,}", text.strip()), "line": re.split(r"\n+", text)}.items():
        copies = [part for i, part in enumerate(parts) if part in set(parts[:i])]
        shares[f"dup_{name}_frac"] = len(copies) / len(parts)
        shares[f"dup_{name}_char_frac"] = sum(map(len, copies)) / len(text) if text else 0.0
    for n in (2, 3, 4):
        grams = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
        gram, count = max(grams.items(), key=lambda item: item[1], default=("", 0))
        shares[f"top_{n}_gram"] = len(gram) * count / len(text) if text else 0.0
    for n in range(5, 11):
        shares[f"dup_{n}_gram"] = duplicate_chars(words, n) / len(text) if text else 0.0
    return shares


def duplicate_chars(words: Sequence[str], n: int) -> int:
    seen: set[str] = set()
    chars = at = 0
    while at + n <= len(words):
        gram = "".join(words[at : at + n])
        if gram in seen:
            chars += len(gram)
            at += n
        else:
            seen.add(gram)
            at += 1
    return chars
