"""Statistics of a text that tell prose from everything else (Rae et al. 2021, section A1.1; Raffel et al. 2020, section 2.2).

Scores only: the thresholds are settings and the decision is one SQL statement over the sidecars.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from l3_platform.curate import kernels
from l3_platform.curate.lists import read_words
from l3_platform.curate.profiles import stop_words
from l3_platform.settings import Heuristics

# Rae et al. 2021, table A1: at least two of these should occur in an English document.
ENGLISH_STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")

_BULLETS = "•‣▶◀◦■□▪▫–-*·●○➢➤✓✔"
_TERMINALS = ".!?\"'”’»…。！？।؟"
# Scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, ideographs, and their extensions.
_ALONE = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3040, 0x30FF),
          (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF))  # fmt: skip


def text_heuristics(texts: pa.Array | pa.ChunkedArray, languages: Any = None, settings: Heuristics | None = None) -> pa.Table:
    """One row a text, in order; shares are of 1.

    `languages`: an ISO 639-1 code a text (Arrow array or sequence, nulls allowed), for the stop words; without it all are English.
    A null text counts as empty. `stop_words` is how many different stop words of the language occur, null for one without a list.
    Raises FileNotFoundError where `settings.dirty_word_list` does not exist.
    """
    settings = settings or Heuristics()
    data, offsets = _buffers(texts)
    rows = len(offsets) - 1
    classes, lower = _tables()
    names, hashes, bounds = _stop_tables()
    dirty_first, dirty, longest = _dirty_tables(settings.dirty_word_list)
    codes = ["en"] * rows if languages is None else (languages.to_pylist() if hasattr(languages, "to_pylist") else list(languages))
    language = np.array([names.get(code or "", -1) for code in codes], np.int64)
    if len(language) != rows:
        raise ValueError(f"text_heuristics: {rows:,} texts but {len(language):,} languages")
    words = np.zeros((rows, len(kernels.WORD_COLUMNS)), np.int64)
    shares = np.zeros((rows, len(kernels.NGRAMS)), np.float64)
    lines = np.zeros((rows, len(kernels.LINE_COLUMNS)), np.int64)
    kernels.word_statistics(data, offsets, classes, lower, hashes, bounds, language, dirty_first, dirty, longest, words, shares)
    kernels.line_statistics(data, offsets, _points(_BULLETS), _points(_TERMINALS), lines)
    return _table(words, shares, lines)


def _buffers(texts: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """UTF-8 bytes and offsets (int64) of a string array, whatever its chunks and slices."""
    chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    array = pa.concat_arrays([chunk.cast(pa.large_string()) for chunk in chunks]) if chunks else pa.array([], pa.large_string())
    if array.null_count:
        array = array.fill_null("")
    _, offsets, data = array.buffers()
    if offsets is None or len(array) == 0:
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    numbers = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8), numbers


@lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Word class and lower case of each code point of the Basic Multilingual Plane."""
    classes = np.zeros(65536, np.uint8)
    lower = np.arange(65536, dtype=np.uint32)
    kinds = {"L": kernels.LETTER, "N": kernels.DIGIT, "M": kernels.MARK}
    for point in range(65536):
        char = chr(point)
        classes[point] = kinds.get(unicodedata.category(char)[0], kernels.SPACE)
        small = char.lower()
        if len(small) == 1:
            lower[point] = ord(small)
    for first, last in _ALONE:
        block = classes[first : last + 1]
        block[block == kernels.LETTER] = kernels.ALONE
    classes[[ord("'"), ord("’")]] = kernels.APOSTROPHE
    return classes, lower


@lru_cache(maxsize=1)
def _stop_tables() -> tuple[dict[str, int], np.ndarray, np.ndarray]:
    """Index of each language, all stop-word hashes, and where each language's begin."""
    lists = {**stop_words(), "en": ENGLISH_STOP_WORDS}
    names = {name: i for i, name in enumerate(sorted(lists))}
    tables = [np.unique(np.concatenate([phrase_hashes(word)[:1] for word in lists[name][:64]])) for name in names]
    return names, np.concatenate(tables), np.cumsum([0, *(len(table) for table in tables)])


@lru_cache(maxsize=8)
def _dirty_tables(path: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Hashes of first words, hashes of phrases (both sorted), and words in the longest phrase."""
    entries = read_words(str(Path(__file__).with_name("dirty_words.txt")))
    if path:
        entries = entries + read_words(path)
    first, phrases, longest = set(), set(), 1
    for entry in entries:
        words = phrase_hashes(entry)
        if not len(words):
            continue
        value = words[0]
        for word in words[1:]:
            value = np.uint64(kernels.join(value, word))
        first.add(int(words[0]))
        phrases.add(int(value))
        longest = max(longest, len(words))
    return np.array(sorted(first), np.uint64), np.array(sorted(phrases), np.uint64), longest


def phrase_hashes(text: str) -> np.ndarray:
    """Hashes of the words of a text, as the kernels see them."""
    data = np.frombuffer(text.encode(), np.uint8)
    hashes, chars, alpha = (np.empty(len(data) + 1, kind) for kind in (np.uint64, np.int64, np.int64))
    count = kernels.words_of(data, 0, len(data), *_tables(), hashes, chars, alpha)
    return hashes[:count]


def _points(chars: str) -> np.ndarray:
    return np.array(sorted(map(ord, chars)), np.int64)


def _table(words: np.ndarray, shares: np.ndarray, lines: np.ndarray) -> pa.Table:
    word = dict(zip(kernels.WORD_COLUMNS, words.T, strict=True))
    line = dict(zip(kernels.LINE_COLUMNS, lines.T, strict=True))
    columns: dict[str, pa.Array] = {
        "words": pa.array(word["words"].astype(np.int32)),
        "lines": pa.array(line["lines"].astype(np.int32)),
        "mean_word_length": _share(word["word_chars"], word["words"]),
        "symbol_word_ratio": _share(line["symbols"], word["words"]),
        "bullet_lines": _share(line["bullet_lines"], line["lines"]),
        "ellipsis_lines": _share(line["ellipsis_lines"], line["lines"]),
        "terminal_lines": _share(line["terminal_lines"], line["lines"]),
        "alpha_words": _share(word["alpha_words"], word["words"]),
        "stop_words": pa.array(word["stop_words"].astype(np.int32), mask=word["stop_words"] < 0),
        "dirty_words": _share(word["dirty_words"], word["words"]),
        "dup_line_fraction": _share(line["dup_lines"], line["lines"]),
        "dup_line_char_fraction": _share(line["dup_line_chars"], line["line_chars"]),
        "dup_para_fraction": _share(line["dup_paragraphs"], line["paragraphs"]),
        "dup_para_char_fraction": _share(line["dup_paragraph_chars"], line["line_chars"]),
    }
    for n, share in zip(kernels.NGRAMS, shares.T, strict=True):
        name = f"top_{n}gram_char_fraction" if n < 5 else f"dup_{n}gram_char_fraction"
        columns[name] = pa.array(np.ascontiguousarray(share))
    columns["dup_ngram_max"] = pa.array(shares[:, 3:].max(axis=1) if len(shares) else np.zeros(0))
    return pa.table(columns)


def _share(part: np.ndarray, whole: np.ndarray) -> pa.Array:
    return pa.array(np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0))
