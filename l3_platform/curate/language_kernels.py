"""The built-in identifier's loop over a batch of texts, compiled by numba, without the GIL: script, words, score of each language.

Everything that a kernel here calls is in this file: numba's cache would not notice a change elsewhere.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from l3_platform.curate.profiles import OFFSET, PRIME, START, WORD

FNV_OFFSET, FNV_PRIME, HALF = np.uint64(OFFSET), np.uint64(PRIME), np.uint64(32)
BLANK, APOSTROPHE, QUOTE = 0x20, 0x27, 0x2019
LETTER, SCRIPT = 0x80, 0x7F  # of a code point's mark: the bit of a letter, and the index of its script

MOST_SPELLED = 30  # characters of a word

_jit = njit(nogil=True, cache=True)


@_jit
def count_scripts(data, offsets, marks, sample, counts):
    """Fills counts [texts, scripts + 1] with the letters of each script in a text's sample (`sampled`); column 0 is the rest's."""
    points = np.empty(2 * sample + 1, np.int64)
    for d in range(len(offsets) - 1):
        for i in range(sampled(data, offsets[d], offsets[d + 1], sample, points)):
            counts[d, marks[points[i]] & SCRIPT] += 1


@_jit
def score_words(data, offsets, chosen, group, marks, lower, sample, keys, rows, scores, listed, totals, words, frequent):
    """For each text chosen[k] of the languages of group[k]: totals [texts, languages], log-likelihoods up to a common constant, the
    number of its words, and frequent [texts, languages], how many of them are on a language's list."""
    points = np.empty(2 * sample + 1, np.int64)
    for k in range(len(chosen)):
        d = chosen[k]
        count = sampled(data, offsets[d], offsets[d + 1], sample, points)
        for i in range(count):
            points[i] = lower[points[i]]
        i = 0
        while i < count:
            if not marks[points[i]] & LETTER:
                i += 1
                continue
            start = i
            while i < count and (marks[points[i]] & LETTER or inner_apostrophe(points, i, count, marks)):
                i += 1
            words[k] += 1
            row = find(keys, rows, hash_of(points, start, i, group[k], WORD))
            if row >= 0:
                for column in range(totals.shape[1]):
                    totals[k, column] += scores[row, column]
                    frequent[k, column] += listed[row, column]
            else:
                spell(points, start, min(i, start + MOST_SPELLED), group[k], keys, rows, scores, totals[k])


@_jit
def sampled(data, start, end, sample, points):
    """Puts code points of data[start:end] into `points`, returns how many: `sample` from the start and as many from the middle
    with a space between, or all where there are no more bytes than those. Beyond the Basic Multilingual Plane is U+FFFD."""
    if end - start <= 2 * sample:
        return decode(data, start, end, points, 0, 2 * sample)
    count = decode(data, start, end, points, 0, sample)
    points[count] = BLANK
    middle = start + (end - start) // 2
    while (data[middle] & 0xC0) == 0x80:
        middle += 1
    return decode(data, middle, end, points, count + 1, count + 1 + sample)


@_jit
def decode(data, start, end, points, count, most):
    i = start
    while i < end and count < most:
        first = np.int64(data[i])
        if first < 0x80:
            point, size = first, 1
        elif first < 0xE0:
            point, size = (first & 0x1F) << 6 | (np.int64(data[i + 1]) & 0x3F), 2
        elif first < 0xF0:
            point = (first & 0x0F) << 12 | (np.int64(data[i + 1]) & 0x3F) << 6 | (np.int64(data[i + 2]) & 0x3F)
            size = 3
        else:
            point, size = 0xFFFD, 4
        points[count] = point
        count += 1
        i += size
    return count


@_jit
def inner_apostrophe(points, i, count, marks):
    return (points[i] == APOSTROPHE or points[i] == QUOTE) and i + 1 < count and marks[points[i + 1]] & LETTER


@_jit
def hash_of(points, start, end, group, kind):
    value = (FNV_OFFSET ^ np.uint64(group << 1 | kind)) * FNV_PRIME
    for i in range(start, end):
        value = (value ^ np.uint64(points[i])) * FNV_PRIME
    return value


@_jit
def find(keys, rows, key):
    """The row of a key, or -1."""
    mask = np.uint64(len(keys) - 1)
    at = (key ^ key >> HALF) & mask
    while keys[at] != 0:
        if keys[at] == key:
            return np.int64(rows[at])
        at = (at + np.uint64(1)) & mask
    return np.int64(-1)


@_jit
def spell(points, start, end, group, keys, rows, scores, totals):
    """Adds the log-probabilities of a word's characters and the space behind it, each given the two before it, as far as known."""
    before = hash_of(points, 0, 0, group, 0)
    second, first = np.int64(START), np.int64(BLANK)
    for i in range(start, end + 1):
        point = points[i] if i < end else np.int64(BLANK)
        one = (before ^ np.uint64(first)) * FNV_PRIME
        two = (((before ^ np.uint64(second)) * FNV_PRIME) ^ np.uint64(first)) * FNV_PRIME
        row = find(keys, rows, (two ^ np.uint64(point)) * FNV_PRIME)
        if row < 0:
            row = find(keys, rows, (one ^ np.uint64(point)) * FNV_PRIME)
        if row < 0:
            row = find(keys, rows, (before ^ np.uint64(point)) * FNV_PRIME)
        if row >= 0:
            for column in range(len(totals)):
                totals[column] += scores[row, column]
        second, first = first, point


@_jit
def posteriors(totals, words, languages, best, probability):
    """The best of the first languages[k] columns and its probability. Words of a text depend on each other, so evidence grows with
    the square root of their number only."""
    for k in range(len(totals)):
        best[k] = np.argmax(totals[k, : languages[k]])
        sum_of = 0.0
        for column in range(languages[k]):
            sum_of += math.exp((totals[k, column] - totals[k, best[k]]) / math.sqrt(max(1, words[k])))
        probability[k] = 1.0 / sum_of
