"""Language of each document (Llama 3, section 3.1.1: a fastText classifier of 176 languages).

A fastText model decides where there is one: a file such as lid.176.bin or GlotLID's, or what `language_identifier` trained.
Without one a built-in identifier does: the script first, which is all it takes for Greek or Thai, then frequent words and
character trigrams for languages that share one."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from l3_platform.curate.language_identifier import letters, predict
from l3_platform.curate.profiles import GROUPS, WIDTH, profiles, stop_words

SIDECAR = pa.schema([("doc_id", pa.uuid()), ("language", pa.string()), ("score", pa.float32())])
UNKNOWN = "und"  # ISO 639-2: undetermined

_SAMPLE_CHARS = 2000  # read at the start and in the middle of a text
_MIN_LETTERS = 6
_LONG_WORDS = 20  # from so many on, a share of them must be frequent words of the best language:
_FOREIGN = 0.04  # less is no language that we know

# Scripts as ranges of code points. Those of one language name it; the others lead to profiles.
_SCRIPTS: dict[str, tuple[tuple[int, int], ...]] = {
    "latin": ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x1E00, 0x1EFF)),
    "cyrillic": ((0x400, 0x52F),),
    "arabic": ((0x600, 0x6FF), (0x750, 0x77F), (0xFB50, 0xFDFF), (0xFE70, 0xFEFC)),
    "han": ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF)),
    "kana": ((0x3041, 0x30FF),),
    "ko": ((0x1100, 0x11FF), (0x3130, 0x318F), (0xAC00, 0xD7AF)),
    "el": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "he": ((0x590, 0x5FF),),
    "hi": ((0x900, 0x97F),),
    "th": ((0xE00, 0xE7F),),
    "bn": ((0x980, 0x9FF),),
    "pa": ((0xA00, 0xA7F),),
    "gu": ((0xA80, 0xAFF),),
    "ta": ((0xB80, 0xBFF),),
    "te": ((0xC00, 0xC7F),),
    "ka": ((0x10A0, 0x10FF),),
    "hy": ((0x530, 0x58F),),
}
_NAMES = tuple(_SCRIPTS)
_ANSWERS = (*(name for name in _NAMES if name not in ("han", "kana")), "ja", "zh")
# One ideograph says about as much as two letters: a Chinese page with Latin names is Chinese.
_WEIGHTS = np.array([2.5 if name in ("zh", "ja", "ko") else 1.0 for name in _ANSWERS])


def languages(documents: pa.Table, given: Any = None, trained: Any = None) -> pa.Table:
    """doc_id, language (ISO 639-1, what else the model calls it, or `und`) and score (probability, 0 to 1), in order.

    A fastText model decides, one that was `given` or the one that `language_identifier` trained; without both the built-in
    identifier."""
    texts = documents.column("text")
    if given is not None:
        found = _named([text or "" for text in texts.to_pylist()], given)
    elif trained is not None:
        found = predict([letters(text or "") for text in texts.to_pylist()], trained)
    else:
        codes, scores = identified(texts)
        found = list(zip(codes.to_pylist(), scores, strict=True))
    columns = [
        documents.column("doc_id").combine_chunks(),
        pa.array([language for language, _ in found], pa.string()),
        pa.array([score for _, score in found], pa.float32()),
    ]
    return pa.Table.from_arrays(columns, schema=SIDECAR)


def identify(text: str) -> tuple[str, float]:
    """Language and score of one text by the built-in identifier."""
    codes, scores = identified(pa.array([text]))
    return codes[0].as_py(), float(scores[0])


def identified(texts: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, npt.NDArray[np.float64]]:
    """Language and score of each text by the built-in identifier."""
    from l3_platform.curate import language_kernels as kernels  # numba takes a second to import
    from l3_platform.curate.buffers import strings

    data, offsets = strings(texts)
    marks, lower = _marks()
    counts = np.zeros((len(offsets) - 1, len(_NAMES) + 1), np.int64)
    kernels.count_scripts(data, offsets, marks, _SAMPLE_CHARS, counts)
    weight, letters = _weighted(counts[:, 1:])
    answer = weight.argmax(axis=1)
    codes = np.array(_ANSWERS, object)[answer]
    whole = weight.sum(axis=1)
    scores = np.divide(weight.max(axis=1), whole, out=np.zeros(len(codes)), where=whole > 0)

    shared = [_ANSWERS.index(name) for name in GROUPS]
    chosen = np.flatnonzero(np.isin(answer, shared) & (letters >= _MIN_LETTERS))
    group = np.searchsorted(shared, answer[chosen])
    totals, frequent = np.zeros((len(chosen), WIDTH)), np.zeros((len(chosen), WIDTH), np.int64)
    words, best, probability = np.zeros(len(chosen), np.int64), np.zeros(len(chosen), np.int64), np.zeros(len(chosen))
    known = profiles()
    tables = (known.keys, known.rows, known.scores, known.listed)
    kernels.score_words(data, offsets, chosen, group, marks, lower, _SAMPLE_CHARS, *tables, totals, words, frequent)
    kernels.posteriors(totals, words, np.array([len(members) for members in GROUPS.values()])[group], best, probability)
    members = list(GROUPS.values())
    codes[chosen] = [members[row][column] for row, column in zip(group, best, strict=True)]
    scores[chosen] = probability

    share = frequent[np.arange(len(chosen)), best] / np.maximum(words, 1)
    foreign = (words >= _LONG_WORDS) & (share < _FOREIGN)
    codes[chosen[foreign]] = UNKNOWN
    scores[chosen[foreign]] = 1.0 - share[foreign] / _FOREIGN
    nothing = letters < _MIN_LETTERS
    codes[nothing], scores[nothing] = UNKNOWN, 0.0
    return pa.array(codes, pa.string()), scores.round(4)


def _named(texts: list[str], model: Any) -> list[tuple[str, float]]:
    """Language and score of each text by a model that knows raw text; `__label__eng_Latn` is `en`, and `__label__en` too."""
    return [(iso_code(label), score) for label, score in predict([_sample(text) for text in texts], model)]


def _sample(text: str) -> str:
    if len(text) > 2 * _SAMPLE_CHARS:
        middle = len(text) // 2
        text = f"{text[:_SAMPLE_CHARS]} {text[middle : middle + _SAMPLE_CHARS]}"
    return " ".join(text.split())


@lru_cache(maxsize=1)
def _marks() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Of each code point of the Basic Multilingual Plane: index of its script (from 1; 0 for none) and whether it is a letter;
    and its lower case."""
    from l3_platform.curate.language_kernels import LETTER

    marks, lower = np.zeros(65536, np.uint8), np.arange(65536)
    for index, name in enumerate(_NAMES, start=1):
        for first, last in _SCRIPTS[name]:
            marks[first : last + 1] = index
    marks[[0xD7, 0xF7]] = 0  # multiplication and division signs
    for point in range(65536):
        char = chr(point)
        if unicodedata.category(char)[0] == "L":
            marks[point] |= LETTER
        if len(char.lower()) == 1:
            lower[point] = ord(char.lower())
    return marks, lower


def _weighted(counts: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Weight of each of _ANSWERS, [texts, answers], and the letters of each text. Kana makes ideographs Japanese."""
    by_name = dict(zip(_NAMES, counts.T, strict=True))
    han, kana = by_name["han"], by_name["kana"]
    japanese = kana > 0.05 * (kana + han)
    by_name |= {"ja": np.where(japanese, kana + han, 0), "zh": np.where(japanese, 0, han)}
    return np.stack([by_name[name] for name in _ANSWERS], axis=1) * _WEIGHTS, counts.sum(axis=1)


def supported() -> tuple[str, ...]:
    """Codes that the built-in identifier can answer."""
    return tuple(sorted({*stop_words(), *(name for name in _NAMES if len(name) == 2)}))


@lru_cache(maxsize=1024)
def iso_code(label: str) -> str:
    """ISO 639-1 code of a label where there is one: `en` of `eng_Latn`; else the label as it is, such as `en` and `gsw_Latn`."""
    return _two_letters().get(label.partition("_")[0], label)


@lru_cache(maxsize=1)
def _two_letters() -> dict[str, str]:
    lines = Path(__file__).with_name("iso_639.txt").read_text(encoding="utf-8").splitlines()
    codes = " ".join(line for line in lines if not line.startswith("#")).split()
    return dict(zip(codes[::2], codes[1::2], strict=True))
