"""Loops over the words and lines of a batch of documents, compiled by numba, without the GIL.

Input is the UTF-8 buffer of an Arrow string array and its offsets. A word is a run of letters and digits, with the marks and inner
apostrophes in it; a Chinese, Japanese, Thai, Lao, Khmer or Burmese character is a word of its own, since those scripts put no
spaces. A word becomes a 64-bit hash (FNV-1a over lower-cased code points); n-grams are windows over hashes.
"""

from __future__ import annotations

import numpy as np
from numba import njit

FNV_OFFSET = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)
SHIFT = np.uint64(29)
ONE = np.uint64(1)

# What a code point does to a word.
SPACE, LETTER, DIGIT, ALONE, MARK, APOSTROPHE = 0, 1, 2, 3, 4, 5

WORD_COLUMNS = ("words", "word_chars", "alpha_words", "stop_words", "dirty_words")
LINE_COLUMNS = (
    "lines", "line_chars", "dup_lines", "dup_line_chars", "paragraphs", "dup_paragraphs", "dup_paragraph_chars", "bullet_lines",
    "ellipsis_lines", "terminal_lines", "symbols",
)  # fmt: skip
NGRAMS = range(2, 11)  # top n-grams for n = 2..4, duplicates for n = 5..10

_jit = njit(nogil=True, cache=True)


@_jit
def word_statistics(
    data, offsets, classes, lower, stop_words, stop_bounds, language, dirty_first, dirty, dirty_longest, counts, shares
):
    """Fills counts [documents, 5] (WORD_COLUMNS) and shares [documents, 9] (one an n of NGRAMS).

    `stop_words` are hashes, sorted a language, at most 64 each; language l's are stop_bounds[l]:stop_bounds[l + 1]. Counted
    is how many different ones occur; -1 where `language` is -1. `dirty` are sorted hashes of phrases, `dirty_first` of
    their first words.
    """
    longest = 0
    for d in range(len(offsets) - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    hashes = np.empty(longest + 1, np.uint64)
    chars = np.empty(longest + 1, np.int64)
    alpha = np.empty(longest + 1, np.int64)
    for d in range(len(offsets) - 1):
        count = words_of(data, offsets[d], offsets[d + 1], classes, lower, hashes, chars, alpha)
        total, with_letter = 0, 0
        for i in range(count):
            total += chars[i]
            with_letter += alpha[i]
        counts[d, 0], counts[d, 1], counts[d, 2] = count, total, with_letter
        counts[d, 3] = -1
        if language[d] >= 0:
            first, last = stop_bounds[language[d]], stop_bounds[language[d] + 1]
            counts[d, 3] = distinct_hits(hashes, count, stop_words[first:last])
        counts[d, 4] = phrase_hits(hashes, count, dirty_first, dirty, dirty_longest)
        for n in range(2, 11):
            shares[d, n - 2] = (
                top_ngram(hashes, chars, count, n, total) if n < 5 else duplicate_ngrams(hashes, chars, count, n, total)
            )


@_jit
def code_point(data, i, end):
    """Code point at byte `i` and its length in bytes, of valid UTF-8."""
    first = np.int64(data[i])
    if first < 0x80:
        return first, 1
    if first < 0xE0 or i + 2 >= end:
        return (first & 0x1F) << 6 | (np.int64(data[i + 1]) & 0x3F), 2
    if first < 0xF0 or i + 3 >= end:
        return (first & 0x0F) << 12 | (np.int64(data[i + 1]) & 0x3F) << 6 | (np.int64(data[i + 2]) & 0x3F), 3
    low = (np.int64(data[i + 1]) & 0x3F) << 12 | (np.int64(data[i + 2]) & 0x3F) << 6 | (np.int64(data[i + 3]) & 0x3F)
    return (first & 0x07) << 18 | low, 4


@_jit
def words_of(data, start, end, classes, lower, hashes, chars, alpha):
    """Words of data[start:end]: their hashes, lengths in characters, and whether they hold a letter. Returns how many.

    `classes` and `lower` are tables over the Basic Multilingual Plane. Beyond it ideographs (planes 2 and 3) stand alone and
    everything else is no word.
    """
    count, i = 0, start
    inside = False
    value = FNV_OFFSET
    while i < end:
        point, size = code_point(data, i, end)
        kind = classes[point] if point < 65536 else (ALONE if 0x20000 <= point < 0x40000 else SPACE)
        i += size
        if kind == APOSTROPHE:
            follows = SPACE
            if inside and i < end:
                following = code_point(data, i, end)[0]
                follows = classes[following] if following < 65536 else SPACE
            kind = MARK if follows == LETTER else SPACE
        if kind in (LETTER, DIGIT) or (kind == MARK and inside):
            if not inside:
                inside, value = True, FNV_OFFSET
                chars[count], alpha[count] = 0, 0
            value = (value ^ np.uint64(lower[point])) * FNV_PRIME
            chars[count] += 1
            if kind == LETTER:
                alpha[count] = 1
            continue
        if inside:
            hashes[count] = value
            count += 1
            inside = False
        if kind == ALONE:
            hashes[count] = (FNV_OFFSET ^ np.uint64(point)) * FNV_PRIME
            chars[count], alpha[count] = 1, 1
            count += 1
    if inside:
        hashes[count] = value
        count += 1
    return count


@_jit
def join(hashed, word):
    """Hash of a phrase and one word more."""
    return (hashed ^ (hashed >> SHIFT) ^ word) * FNV_PRIME


@_jit
def index_in(table, value):
    """Position in a sorted table, or -1."""
    at = np.searchsorted(table, value)
    return at if at < len(table) and table[at] == value else -1


@_jit
def distinct_hits(hashes, count, table):
    """How many entries of a sorted table of at most 64 occur."""
    seen = np.uint64(0)
    hits = 0
    for i in range(count):
        at = index_in(table, hashes[i])
        if at >= 0 and not (seen >> np.uint64(at)) & ONE:
            seen |= ONE << np.uint64(at)
            hits += 1
    return hits


@_jit
def phrase_hits(hashes, count, first_words, phrases, longest):
    """Places where a phrase begins, each counted once."""
    hits = 0
    for i in range(count):
        if index_in(first_words, hashes[i]) < 0:
            continue
        value = hashes[i]
        for j in range(i, min(i + longest, count)):
            if j > i:
                value = join(value, hashes[j])
            if index_in(phrases, value) >= 0:
                hits += 1
                break
    return hits


@_jit
def group_ngrams(hashes, count, n):
    """For each n-gram, the index of the first one equal to it. Open addressing over the n-grams' hashes."""
    grams = count - n + 1
    first = np.empty(grams, np.int64)
    keys = np.empty(grams, np.uint64)
    size = 2
    while size < 2 * grams:
        size *= 2
    slots = np.full(size, -1, np.int64)
    for i in range(grams):
        value = hashes[i]
        for j in range(i + 1, i + n):
            value = join(value, hashes[j])
        keys[i] = value
        at = np.int64((value ^ (value >> np.uint64(32))) & np.uint64(size - 1))
        while slots[at] >= 0 and keys[slots[at]] != value:
            at = (at + 1) & (size - 1)
        if slots[at] < 0:
            slots[at] = i
        first[i] = slots[at]
    return first


@_jit
def top_ngram(hashes, chars, count, n, total):
    """Share of characters in the most frequent n-gram (the longest of equals), at most 1; 0 where none repeats."""
    if count <= n:
        return 0.0
    first = group_ngrams(hashes, count, n)
    tally = np.zeros(len(first), np.int64)
    for i in range(len(first)):
        tally[first[i]] += 1
    most, widest = 1, 0
    for i in range(len(first)):
        if tally[i] < 2 or tally[i] < most:
            continue
        width = 0
        for j in range(i, i + n):
            width += chars[j]
        if tally[i] > most or width > widest:
            most, widest = tally[i], width
    return min(1.0, most * widest / total)


@_jit
def duplicate_ngrams(hashes, chars, count, n, total):
    """Share of characters in n-grams whose like came earlier in the document, each character counted once."""
    if count <= n:
        return 0.0
    first = group_ngrams(hashes, count, n)
    duplicate, covered = 0, 0
    for i in range(len(first)):
        if first[i] != i:
            for j in range(max(i, covered), i + n):
                duplicate += chars[j]
            covered = i + n
    return duplicate / total


@_jit
def line_statistics(data, offsets, bullets, terminals, counts):
    """Fills counts [documents, 11] (LINE_COLUMNS). Lines are non-empty after trimming ASCII white space; paragraphs are
    runs of lines between empty ones. `symbols` are hash signs and ellipses. `bullets` and `terminals` are sorted code points."""
    for d in range(len(offsets) - 1):
        start, end = offsets[d], offsets[d + 1]
        most = 1
        for i in range(start, end):
            most += data[i] == 10
        line_hashes, line_chars = np.empty(most, np.uint64), np.empty(most, np.int64)
        para_hashes, para_chars = np.empty(most, np.uint64), np.zeros(most, np.int64)
        lines, paras, open_para = 0, 0, False
        counts[d, :] = 0
        i = start
        while i <= end:
            stop = i
            while stop < end and data[stop] != 10:
                stop += 1
            left, right = i, stop
            while left < right and is_blank(data[left]):
                left += 1
            while right > left and is_blank(data[right - 1]):
                right -= 1
            i = stop + 1
            if left == right:
                open_para = False
                continue
            hashed, chars = hash_bytes(data, left, right)
            line_hashes[lines], line_chars[lines] = hashed, chars
            lines += 1
            if not open_para:
                open_para = True
                para_hashes[paras] = FNV_OFFSET
                paras += 1
            para_hashes[paras - 1] = join(para_hashes[paras - 1], hashed)
            para_chars[paras - 1] += chars
            counts[d, 1] += chars
            counts[d, 7] += index_in(bullets, code_point(data, left, right)[0]) >= 0
            counts[d, 8] += ends_in_ellipsis(data, left, right)
            counts[d, 9] += index_in(terminals, last_code_point(data, left, right)) >= 0
        counts[d, 0], counts[d, 4] = lines, paras
        counts[d, 2], counts[d, 3] = repeated(line_hashes[:lines], line_chars)
        counts[d, 5], counts[d, 6] = repeated(para_hashes[:paras], para_chars)
        counts[d, 10] = symbols_in(data, start, end)


@_jit
def is_blank(byte):
    return byte == 32 or 9 <= byte <= 13


@_jit
def hash_bytes(data, start, end):
    """FNV-1a of bytes, and how many characters they are."""
    value, chars = FNV_OFFSET, 0
    for i in range(start, end):
        value = (value ^ np.uint64(data[i])) * FNV_PRIME
        chars += (data[i] & 0xC0) != 0x80
    return value, chars


@_jit
def last_code_point(data, start, end):
    i = end - 1
    while i > start and (data[i] & 0xC0) == 0x80:
        i -= 1
    return code_point(data, i, end)[0]


@_jit
def ends_in_ellipsis(data, start, end):
    if last_code_point(data, start, end) == 0x2026:
        return True
    return end - start >= 3 and data[end - 1] == 46 and data[end - 2] == 46 and data[end - 3] == 46


@_jit
def repeated(hashes, chars):
    """How many entries have an equal before them, and the characters of those."""
    order = np.argsort(hashes, kind="mergesort")  # stable: the first of equals is the first in the document
    copies, copied = 0, 0
    for k in range(1, len(order)):
        if hashes[order[k]] == hashes[order[k - 1]]:
            copies += 1
            copied += chars[order[k]]
    return copies, copied


@_jit
def symbols_in(data, start, end):
    """Hash signs, `…`, and runs of three full stops, from left to right."""
    found, i = 0, start
    while i < end:
        if data[i] == 35:
            found += 1
        elif i + 2 < end:
            dots = data[i] == 46 and data[i + 1] == 46 and data[i + 2] == 46
            sign = data[i] == 0xE2 and data[i + 1] == 0x80 and data[i + 2] == 0xA6
            if dots or sign:
                found += 1
                i += 2
        i += 1
    return found
