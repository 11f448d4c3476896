"""Language of each document (Llama 3, section 3.1.1: a fastText classifier of 176 languages).

With `settings.model` a fastText model decides, such as lid.176.bin. Without one a built-in identifier does: the script first, which
is all it takes for Greek or Thai, then frequent words and character trigrams for languages that share one.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from l3_platform.curate.profiles import posterior, profiles, stop_words
from l3_platform.settings import Languages

SIDECAR = pa.schema([("doc_id", pa.uuid()), ("language", pa.string()), ("score", pa.float32())])
UNKNOWN = "und"  # ISO 639-2: undetermined

_SAMPLE_CHARS = 2000  # read at the start and in the middle of a text
_MIN_LETTERS = 6
_FOREIGN = 0.04  # of running words in the list of the best language; less in a long text is no language that we know

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
_SHARED = {
    "latin": ("en", "de", "fr", "es", "pt", "it", "nl", "sv", "da", "no", "fi", "pl", "cs", "ro", "hu", "tr", "vi", "id", "ca"),
    "cyrillic": ("ru", "uk", "bg"),
    "arabic": ("ar", "fa"),
}  # fmt: skip
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def languages(documents: pa.Table, settings: Languages) -> pa.Table:
    """doc_id, language (ISO 639-1, or `und`) and score (probability, 0 to 1) of each document, in order.

    Raises FileNotFoundError where `settings.model` is set but does not exist.
    """
    texts = documents.column("text").to_pylist()
    found = _fasttext(texts, settings.model) if settings.model else [identify(text or "") for text in texts]
    columns = [
        documents.column("doc_id").combine_chunks(),
        pa.array([language for language, _ in found], pa.string()),
        pa.array([score for _, score in found], pa.float32()),
    ]
    return pa.Table.from_arrays(columns, schema=SIDECAR)


def identify(text: str) -> tuple[str, float]:
    """Language and score of one text by the built-in identifier."""
    sample = _sample(text)
    points = np.frombuffer(sample.encode("utf-32-le", "replace"), np.uint32)
    counts = np.bincount(_script_table()[np.minimum(points, 0xFFFF)], minlength=len(_NAMES) + 1)[1:]
    letters = int(counts.sum())
    if letters < _MIN_LETTERS:
        return UNKNOWN, 0.0
    share = dict(zip(_NAMES, (counts / letters).tolist(), strict=True))
    share["ja"] = share["kana"] + share["han"] if share["kana"] > 0.05 * (share["kana"] + share["han"]) else 0.0
    share["zh"] = 0.0 if share["ja"] else share["han"]
    # One ideograph says about as much as two letters: a Chinese page with Latin names is Chinese.
    weight = {
        name: (2.5 if name in ("zh", "ja", "ko") else 1.0) * value for name, value in share.items() if name not in ("han", "kana")
    }
    script = max(weight, key=weight.__getitem__)
    if script not in _SHARED:
        return script, round(min(1.0, weight[script] / sum(weight.values())), 4)
    return _by_profile(sample, script)


def _sample(text: str) -> str:
    if len(text) <= 2 * _SAMPLE_CHARS:
        return text
    middle = len(text) // 2
    return f"{text[:_SAMPLE_CHARS]} {text[middle : middle + _SAMPLE_CHARS]}"


@lru_cache(maxsize=1)
def _script_table() -> np.ndarray:
    """Index of the script (from 1) of each code point of the Basic Multilingual Plane; 0 for none."""
    table = np.zeros(65536, np.uint8)
    for index, name in enumerate(_NAMES, start=1):
        for first, last in _SCRIPTS[name]:
            table[first : last + 1] = index
    table[[0xD7, 0xF7]] = 0  # multiplication and division signs
    return table


def _by_profile(sample: str, script: str) -> tuple[str, float]:
    words = _WORD.findall(sample.lower())
    if not words:
        return UNKNOWN, 0.0
    model = profiles(_SHARED[script])
    best, probability = posterior(model.score(words), len(words))
    listed = model.listed_share(words, best)
    if len(words) >= 20 and listed < _FOREIGN:
        return UNKNOWN, round(1.0 - listed / _FOREIGN, 4)
    return model.codes[best], round(probability, 4)


def _fasttext(texts: list[Any], path: str) -> list[tuple[str, float]]:
    model = _model(path)
    lines = [" ".join(_sample(text or "").split()) for text in texts]
    if not lines:
        return []
    # A list, never one string: fastText's code for one string fails with numpy 2.
    labels, scores = model.predict(lines, k=1)
    return [
        (label[0].removeprefix("__label__"), min(1.0, float(score[0]))) if len(label) and line else (UNKNOWN, 0.0)
        for label, score, line in zip(labels, scores, lines, strict=True)
    ]


@lru_cache(maxsize=1)
def _model(path: str) -> Any:
    import fasttext

    try:
        return fasttext.load_model(path)
    except ValueError as error:
        raise FileNotFoundError(f"languages.model={path!r} cannot be read as a fastText model: {error}") from None


def supported() -> tuple[str, ...]:
    """Codes that the built-in identifier can answer."""
    return tuple(sorted({*stop_words(), *(name for name in _NAMES if len(name) == 2)}))
