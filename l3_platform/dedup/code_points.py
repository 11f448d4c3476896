"""What each code point means to the words of a text: its lower case, and whether it is part of a word.

One table over all of Unicode, made from Python's own `str.lower` and `re`, so that the kernels agree with
`WORD.findall(text.lower())` in every character, the capital sigma that ends a word included.
"""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
import numpy.typing as npt

# Ideographs and kana are written without spaces: each is a word of its own.
CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0002fa1f"
WORD = re.compile(rf"[{CJK}]|[^\W{CJK}]+")

LOWER = np.uint32(0x1FFFFF)  # bits of the table: the lower-cased code point,
PART = np.uint32(1 << 21)  # it is part of a word,
ALONE = np.uint32(1 << 22)  # it is a word of its own;
CASED = np.uint32(1 << 23)  # and of the code point itself: a letter with case,
IGNORED = np.uint32(1 << 24)  # or one that a final sigma looks past, such as an apostrophe

DOTTED_I, SIGMA, FINAL_SIGMA = 0x130, 0x3A3, 0x3C2  # whose lower case is not one code point, or depends on the text


@lru_cache(maxsize=1)
def table() -> npt.NDArray[np.uint32]:
    """uint32 [0x110000]: the bits above for each code point. Takes 0.3 s, once a process."""
    every = np.arange(0x110000, dtype=np.uint32)
    found = every.copy()
    text = _text(every)
    found[: len(every)] = _points(text.replace(chr(DOTTED_I), "i").lower())  # İ is `i` and a dot above, which is no part of a word
    kinds = np.zeros(len(every), np.uint32)
    for match in re.finditer(r"\w+", text):
        kinds[match.start() : match.end()] = PART
    for match in re.finditer(f"[{CJK}]+", text):
        kinds[match.start() : match.end()] = ALONE
    return found | kinds[found] | _sigma_context(every)


def _sigma_context(every: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """CASED and IGNORED, which Python knows but does not say: seen in what becomes of a sigma after each code point."""
    safe = np.where(every == DOTTED_I, ord("I"), every)  # its lower case is longer and would shift what follows
    space, sigma = np.full_like(every, ord(" ")), np.full_like(every, SIGMA)

    def sigma_is_final(*before: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
        pieces = np.stack([*before, safe, sigma, space], axis=1)
        lowered = _points(_text(pieces.reshape(-1)).lower()).reshape(pieces.shape)
        return lowered[:, -2] == FINAL_SIGMA

    cased = sigma_is_final(space)
    ignored = sigma_is_final(np.full_like(every, ord("A"))) & ~cased
    return np.where(cased, CASED, 0).astype(np.uint32) | np.where(ignored, IGNORED, 0).astype(np.uint32)


def _text(points: npt.NDArray[np.uint32]) -> str:
    return points.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


def _points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
