"""The statistics of Rae et al. 2021 for words that a caller gives, exactly as datatrove 0.10 counts them.

`text_heuristics` runs the same kernels over words of our own. Equality is by 64-bit hashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from l3_platform.curate import kernels, line_kernels
from l3_platform.curate.buffers import strings, word_lists
from l3_platform.curate.characters import ALPHABETIC, NO_PUNCTUATION, line_bytes, line_signs, word_marks
from l3_platform.curate.profiles import ENGLISH_STOP_WORDS

REPETITION = (
    *("dup_para_frac", "dup_para_char_frac", "dup_line_frac", "dup_line_char_frac"),
    *(f"top_{n}_gram" if n <= kernels.TOP else f"dup_{n}_gram" for n in kernels.NGRAMS),
)

Texts: TypeAlias = pa.Array | pa.ChunkedArray


def repetition(texts: Texts, words: Texts) -> pa.Table:
    """REPETITION of each text: the numbers of datatrove's `GopherRepetitionFilter`, from lists of words, one a text.

    Shares of lines and paragraphs are of their number or of the text's characters; n-grams' are of the text's characters, white
    space included, and overlapping top n-grams can exceed 1. An empty text has 0 everywhere. Raises ValueError where
    texts and words differ in number.
    """
    data, offsets = strings(texts)
    letters, bounds, lists = _words(words, len(offsets) - 1)
    segments = np.zeros((len(offsets) - 1, len(line_kernels.SEGMENT_COLUMNS)), np.int64)
    lengths = np.zeros((len(offsets) - 1, len(kernels.NGRAMS)), np.int64)
    line_kernels.segment_statistics(data, offsets, line_signs(""), segments)
    kernels.given_words(letters, bounds, lists, lengths)
    return pa.table(dict(zip(REPETITION, repetition_shares(segments, lengths), strict=True)))


def repetition_shares(segments: np.ndarray, lengths: np.ndarray) -> list[pa.Array]:
    """One array of shares for each name of REPETITION, from what the kernels counted."""
    chars, paragraphs, dup_paragraphs, dup_paragraph_chars, lines, dup_lines, dup_line_chars = segments.T
    parts = [(dup_paragraphs, paragraphs), (dup_paragraph_chars, chars), (dup_lines, lines), (dup_line_chars, chars)]
    return [share(part, whole) for part, whole in [*parts, *((length, chars) for length in lengths.T)]]


def quality(texts: Texts, words: Texts, stop_words: Sequence[str] = ENGLISH_STOP_WORDS) -> pa.Table:
    """What datatrove's `GopherQualityFilter` compares with its thresholds, from lists of words, one a text.

    `words` counts those that are not punctuation alone, and `mean_word_length` is theirs (null where there are none); the
    ratios are a word of any kind, and shares of lines are of all lines. Raises ValueError where texts and words differ in
    number."""
    data, offsets = strings(texts)
    letters, bounds, lists = _words(words, len(offsets) - 1)
    marks = np.zeros((len(offsets) - 1, len(kernels.MARK_COLUMNS)), np.int64)
    lines = np.zeros((len(offsets) - 1, len(line_kernels.LINE_COLUMNS)), np.int64)
    stops, longest = (
        np.unique(np.array([_hash(word) for word in stop_words], np.uint64)),
        max(len(word.encode()) for word in stop_words),
    )
    kernels.given_word_marks(letters, bounds, lists, word_marks(), ALPHABETIC, NO_PUNCTUATION, stops, longest, marks)
    line_kernels.line_statistics(data, offsets, line_signs("•-"), line_bytes(), lines)
    word = dict(zip(kernels.MARK_COLUMNS, marks.T, strict=True))
    line = dict(zip(line_kernels.LINE_COLUMNS, lines.T, strict=True))
    mean = np.divide(word["wordy_chars"], word["wordy_words"], where=word["wordy_words"] > 0, out=np.zeros(len(marks)))
    columns = {
        "words": pa.array(word["wordy_words"]),
        "mean_word_length": pa.array(mean, mask=word["wordy_words"] == 0),
        "hash_ratio": share(line["hashes"], word["words"]),
        "ellipsis_ratio": share(line["ellipses"], word["words"]),
        "bullet_lines": share(line["bullet_lines"], line["lines"]),
        "ellipsis_lines": share(line["ellipsis_lines"], line["lines"]),
        "alpha_words": share(word["alpha_words"], word["words"]),
        "stop_words": pa.array(np.ascontiguousarray(word["stop_words"])),
    }
    return pa.table(columns)


def share(part: np.ndarray, whole: np.ndarray) -> pa.Array:
    """part / whole, and 0 where there is no whole."""
    return pa.array(np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0))


def _words(words: Texts, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    letters, bounds, lists = word_lists(words)
    if len(lists) - 1 != rows:
        raise ValueError(f"there are {rows:,} texts but {len(lists) - 1:,} lists of words")
    return letters, bounds, lists


def _hash(word: str) -> int:
    data = np.frombuffer(word.encode(), np.uint8)
    return int(kernels.hash_bytes(data, 0, len(data)))
