"""Statistics of a text that tell prose from everything else (Rae et al. 2021, section A1.1; Raffel et al. 2020, section 2.2).

Scores only: the thresholds are settings and the decision is one SQL statement over the sidecars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from l3_platform.curate import kernels, line_kernels
from l3_platform.curate.buffers import strings
from l3_platform.curate.characters import line_bytes, line_signs, word_classes
from l3_platform.curate.given_words import repetition_shares, share
from l3_platform.curate.lists import read_words
from l3_platform.curate.profiles import ENGLISH_STOP_WORDS, stop_words
from l3_platform.settings import Heuristics

REPETITION = (
    *("dup_para_fraction", "dup_para_char_fraction", "dup_line_fraction", "dup_line_char_fraction"),
    *(f"top_{n}gram_char_fraction" if n <= kernels.TOP else f"dup_{n}gram_char_fraction" for n in kernels.NGRAMS),
)
BUILT_IN = Path(__file__).with_name("dirty_words.txt")

_BULLETS = "•‣▶◀◦■□▪▫–-*·●○➢➤✓✔"
_TERMINALS = ".!?\"'”’»…。！？।؟"

Hashes = npt.NDArray[np.uint64]


def text_heuristics(texts: pa.Array | pa.ChunkedArray, languages: Any = None, settings: Heuristics | None = None) -> pa.Table:
    """One row a text, in order. Repetition (REPETITION) is as datatrove's Gopher filter counts it, over words of our own
    (`kernels`), capitals and small letters alike: shares of the text's characters, white space included.

    `languages`: an ISO 639-1 code a text (Arrow array or sequence, nulls allowed), for stop words and dirty words; without it all
    are English. A null text counts as empty. `stop_words` is how many different stop words of the language occur, null for one
    without a list. Raises FileNotFoundError where a file of `settings.dirty_word_lists` does not exist.
    """
    settings = settings or Heuristics()
    data, offsets = strings(texts)
    rows = len(offsets) - 1
    codes = ["en"] * rows if languages is None else (languages.to_pylist() if hasattr(languages, "to_pylist") else list(languages))
    if len(codes) != rows:
        raise ValueError(f"text_heuristics: {rows:,} texts but {len(codes):,} languages")
    names, stops, bounds = _stop_tables()
    listed, first, first_bounds, phrases, phrase_bounds, longest = _dirty_tables(tuple(sorted(settings.dirty_word_lists.items())))
    stop_of = np.array([names.get(code or "", -1) for code in codes], np.int64)
    phrases_of = np.array([listed.get(code or "", 0) for code in codes], np.int64)
    counts = np.zeros((rows, len(kernels.WORD_COLUMNS)), np.int64)
    lengths = np.zeros((rows, len(kernels.NGRAMS)), np.int64)
    segments = np.zeros((rows, len(line_kernels.SEGMENT_COLUMNS)), np.int64)
    lines = np.zeros((rows, len(line_kernels.LINE_COLUMNS)), np.int64)
    stop_lists, dirty_lists = (stops, bounds, stop_of), (first, first_bounds, phrases, phrase_bounds, phrases_of, longest)
    kernels.own_words(data, offsets, *word_classes(), *stop_lists, *dirty_lists, counts, lengths)
    signs = line_signs(_BULLETS, _TERMINALS)
    line_kernels.segment_statistics(data, offsets, signs, segments)
    line_kernels.line_statistics(data, offsets, signs, line_bytes(), lines)
    return _table(counts, lines, dict(zip(REPETITION, repetition_shares(segments, lengths), strict=True)))


def phrase_hashes(text: str) -> Hashes:
    """Hashes of the words of a text, as the kernels see them."""
    data = np.frombuffer(text.encode(), np.uint8)
    hashes, chars, alpha = np.empty(len(data) + 1, np.uint64), np.empty(len(data) + 1, np.int64), np.empty(len(data) + 1, np.int64)
    count = kernels.words_of(data, 0, len(data), *word_classes(), hashes, chars, alpha)
    return hashes[:count]


@lru_cache(maxsize=1)
def _stop_tables() -> tuple[dict[str, int], Hashes, npt.NDArray[np.int64]]:
    """Index of each language, all stop-word hashes, and where each language's begin."""
    lists = {**stop_words(), "en": ENGLISH_STOP_WORDS}
    names = {name: i for i, name in enumerate(sorted(lists))}
    return names, *_joined([[phrase_hashes(word)[0] for word in lists[name][:64]] for name in names])


@lru_cache(maxsize=8)
def _dirty_tables(files: tuple[tuple[str, str], ...]) -> tuple[dict[str, int], Hashes, Any, Hashes, Any, int]:
    """Index of each language's list; hashes of first words and of phrases, with where each list's begin; words in the longest
    phrase.

    List 0 is the built-in one, which counts in every language: adult spam is English everywhere.
    """
    built_in = _phrases(read_words(str(BUILT_IN)))
    lists = [built_in, *(built_in | _phrases(read_words(path)) for _, path in files)]
    names = {language: index for index, (language, _) in enumerate(files, start=1)}
    names.setdefault("und", names.get("en", 0))
    first, first_bounds = _joined([[value[0] for value in found.values()] for found in lists])
    phrases, bounds = _joined([list(found) for found in lists])
    return names, first, first_bounds, phrases, bounds, max(len(value) for found in lists for value in found.values())


def _phrases(entries: Sequence[str]) -> dict[int, Hashes]:
    """Hash of each phrase to the hashes of its words; entries without a word are left out."""
    found = {}
    for words in filter(len, map(phrase_hashes, entries)):
        value = words[0]
        for word in words[1:]:
            value = np.uint64(kernels.join(value, word))
        found[int(value)] = words
    return found


def _joined(lists: Sequence[Sequence[Any]]) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """Each list sorted, without repetitions, one after another, and where they begin."""
    tables = [np.unique(np.array(values, np.uint64)) for values in lists]
    return np.concatenate(tables), np.cumsum([0, *map(len, tables)])


def _table(counts: np.ndarray, lines: np.ndarray, repetition: Mapping[str, pa.Array]) -> pa.Table:
    word = dict(zip(kernels.WORD_COLUMNS, counts.T, strict=True))
    line = dict(zip(line_kernels.LINE_COLUMNS, lines.T, strict=True))
    duplicates = [column for name, column in repetition.items() if name.startswith("dup_") and "gram" in name]
    columns: dict[str, pa.Array] = {
        "words": pa.array(word["words"].astype(np.int32)),
        "lines": pa.array(line["filled_lines"].astype(np.int32)),
        "mean_word_length": share(word["word_chars"], word["words"]),
        "symbol_word_ratio": share(line["hashes"] + line["ellipses"], word["words"]),
        "bullet_lines": share(line["bullet_lines"], line["filled_lines"]),
        "ellipsis_lines": share(line["ellipsis_lines"], line["filled_lines"]),
        "terminal_lines": share(line["terminal_lines"], line["filled_lines"]),
        "alpha_words": share(word["alpha_words"], word["words"]),
        "stop_words": pa.array(word["stop_words"].astype(np.int32), mask=word["stop_words"] < 0),
        "dirty_words": share(word["dirty_words"], word["words"]),
        **repetition,
        "dup_ngram_max": pa.array(np.max([column.to_numpy() for column in duplicates], axis=0)),
    }
    return pa.table(columns)
