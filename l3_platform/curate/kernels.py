"""Loops over the words of a batch of documents, compiled by numba, without the GIL.

Words are given, or they are our own: a run of letters and digits, with the marks and inner apostrophes in it; a Chinese, Japanese,
Thai, Lao, Khmer or Burmese character is a word of its own, since those scripts put no spaces. Our words are equal by a 64-bit hash
(FNV-1a over lower-cased code points), given ones by their bytes.

N-grams are compared under a positional hash: `prefix[i]` sums what the words before word i weigh, each times a power of an odd BASE
that grows with its place, modulo 2**64. `(prefix[j] - prefix[i]) * scale[i]` is then the hash of words i to j wherever they stand,
in one multiplication. Natural text repeats little, so most positions are out early: an n-gram can repeat only where its beginning
does.

Everything that a kernel here calls is in this file: numba's cache would not notice a change elsewhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from l3_platform.curate.characters import ALONE, APOSTROPHE, DIGIT, LETTER, MARK, SPACE
from l3_platform.unaligned import load8, load64

jit = njit(nogil=True, cache=True)

FNV_OFFSET = np.uint64(0xCBF29CE484222325)
FNV_PRIME = np.uint64(0x100000001B3)
SHIFT = np.uint64(29)
BASE = np.uint64(0x9E3779B97F4A7C15)
INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 2**64))
MIX = np.uint64(0xD6E8FEB86659FD93)
HALF, LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
ONE, SIX_BITS = np.uint64(1), np.uint64(58)

WORD_COLUMNS = ("words", "word_chars", "alpha_words", "stop_words", "dirty_words", "chars")
MARK_COLUMNS = ("words", "wordy_words", "wordy_chars", "alpha_words", "stop_words")  # wordy: not punctuation alone
NGRAMS = (2, 3, 4, 5, 6, 7, 8, 9, 10)
TOP, LONGEST = 4, 10  # the most frequent n-gram for n = 2..4, duplicates for n = 5..10 (Rae et al. 2021, table A1)

EACH = np.uint64(0x0101010101010101)
FROM_A, BEHIND_Z = EACH * np.uint64(0x80 - ord("a")), EACH * np.uint64(0x80 - ord("z") - 1)  # carry into a byte's highest bit
BLANK, SPACE_WEIGHT = 32, np.uint64(33)


class Tables(NamedTuple):
    """Room for keys in one document after another. Slots of another pass are free, so they are never cleared."""

    keys: npt.NDArray[np.uint64]
    seen: npt.NDArray[np.uint8]  # 1 where a key was seen, 3 where two were
    slots: npt.NDArray[np.uint64]  # open addressing: (key, pass << 32 | place)
    first: npt.NDArray[np.int64]  # of each key, the place of the first one equal to it
    times: npt.NDArray[np.int64]  # of a first one, how many are equal to it; else 0
    passes: npt.NDArray[np.uint64]


@jit
def own_words(
    data, offsets, classes, lower, stop_words, stop_bounds, stop_of, first_words, first_bounds, phrases, phrase_bounds, phrases_of,
    longest_phrase, counts, lengths,
):  # fmt: skip
    """Fills counts [documents, 6] (WORD_COLUMNS) and lengths [documents, 9] (characters, one an n of NGRAMS) of our own words.

    Lists are sorted hashes, one after another: list l is the slice bounds[l]:bounds[l + 1]. `stop_of[d]` names the stop words
    of document d, at most 64, of which the different ones that occur are counted; -1 for none, which counts as -1. `phrases_of[d]`
    names the dirty phrases and their first words.
    """
    most = 1
    for d in range(len(offsets) - 1):
        most = max(most, offsets[d + 1] - offsets[d])
    hashes, chars, alpha = np.empty(most + 1, np.uint64), np.empty(most + 1, np.int64), np.empty(most + 1, np.int64)
    prefix, scale = np.empty(most + 1, np.uint64), np.empty(most + 1, np.uint64)
    ends, alive = np.empty(most + 1, np.int64), np.empty(most + 1, np.int64)
    tables = new_tables(most)
    for d in range(len(offsets) - 1):
        count = words_of(data, offsets[d], offsets[d + 1], classes, lower, hashes, chars, alpha)
        place, back, with_letter = ONE, ONE, 0
        prefix[0], ends[0] = 0, 0
        for i in range(count):
            prefix[i + 1], scale[i] = prefix[i] + hashes[i] * place, back
            place, back = place * BASE, back * INVERSE
            ends[i + 1] = ends[i] + chars[i]
            with_letter += alpha[i]
        places = top_ngrams(prefix, scale, ends, count, True, tables, alive, lengths[d])
        duplicate_ngrams(prefix, scale, ends, count, TOP + 1, LONGEST, tables, alive, places, lengths[d])
        counts[d, 0], counts[d, 1], counts[d, 2] = count, ends[count], with_letter
        counts[d, 3] = -1
        at = stop_of[d]
        if at >= 0:
            counts[d, 3] = distinct_hits(hashes, count, stop_words[stop_bounds[at] : stop_bounds[at + 1]])
        at = phrases_of[d]
        first = first_words[first_bounds[at] : first_bounds[at + 1]]
        counts[d, 4] = phrase_hits(hashes, count, first, phrases[phrase_bounds[at] : phrase_bounds[at + 1]], longest_phrase)
        counts[d, 5] = characters(data, offsets[d], offsets[d + 1])


@jit
def token_bins(data, offsets, classes, lower, bits, bins, bounds):
    """Puts the bin of each of our own words into `bins`, document after document, and where each document's begin into
    `bounds`. A bin is the top `bits` bits of a word's hash; words without a letter are all in bin 0. `bins` has room for a word
    a byte and one more."""
    hashes, chars, alpha = np.empty(1, np.uint64), np.empty(1, np.int64), np.empty(1, np.int64)
    filled = 0
    for d in range(len(offsets) - 1):
        if offsets[d + 1] - offsets[d] >= len(hashes):
            room = offsets[d + 1] - offsets[d] + 1
            hashes, chars, alpha = np.empty(room, np.uint64), np.empty(room, np.int64), np.empty(room, np.int64)
        for i in range(words_of(data, offsets[d], offsets[d + 1], classes, lower, hashes, chars, alpha)):
            bins[filled] = (hashes[i] * MIX) >> np.uint64(64 - bits) if alpha[i] else 0
            filled += 1
        bounds[d + 1] = filled


@jit
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


@jit
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


@jit
def join(hashed, word):
    """Hash of a phrase and one word more."""
    return (hashed ^ (hashed >> SHIFT) ^ word) * FNV_PRIME


@jit
def index_in(table, value):
    """Position in a sorted table, or -1."""
    at = np.searchsorted(table, value)
    return at if at < len(table) and table[at] == value else -1


@jit
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


@jit
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


@jit
def given_words(letters, bounds, lists, lengths):
    """Fills lengths [documents, 9] (characters, one an n of NGRAMS). Document d has the words lists[d]:lists[d + 1], word i the
    bytes letters[bounds[i]:bounds[i + 1]]."""
    most = 1
    for d in range(len(lists) - 1):
        most = max(most, lists[d + 1] - lists[d])
    spaced, spaced_scale = np.empty(most + 1, np.uint64), np.empty(most + 1, np.uint64)
    joined, joined_scale = np.empty(most + 1, np.uint64), np.empty(most + 1, np.uint64)
    ends, alive = np.empty(most + 1, np.int64), np.empty(most + 1, np.int64)
    tables = new_tables(most)
    room = 1
    for d in range(len(lists) - 1):
        room = max(room, bounds[lists[d + 1]] - bounds[lists[d]] + lists[d + 1] - lists[d] + 1)
    forward, backward, bytes_before = powers(BASE, room), powers(INVERSE, room), np.empty(room, np.uint64)
    for d in range(len(lists) - 1):
        first, count = lists[d], lists[d + 1] - lists[d]
        here = bounds[first : first + count + 1]
        plain = byte_places(letters, here, forward, backward, bytes_before, spaced, spaced_scale, joined, joined_scale, ends)
        top_ngrams(spaced, spaced_scale, ends, count, plain, tables, alive, lengths[d])
        for i in range(count):
            alive[i] = i
        places = shared_beginnings(letters, here, 5, 16, tables, alive, count)
        places = duplicate_ngrams(joined, joined_scale, ends, count, 5, 6, tables, alive, places, lengths[d])
        places = shared_beginnings(letters, here, 7, 32, tables, alive, places)
        duplicate_ngrams(joined, joined_scale, ends, count, 7, LONGEST, tables, alive, places, lengths[d])


@jit
def powers(base, count):
    """base**k modulo 2**64 for k = 0..count - 1."""
    table = np.ones(count, np.uint64)
    for k in range(1, count):
        table[k] = table[k - 1] * base
    return table


@jit
def byte_places(letters, bounds, forward, backward, bytes_before, spaced, spaced_scale, joined, joined_scale, ends):
    """Positional hashes of the words letters[bounds[i]:bounds[i + 1]], a byte a place: joined by spaces, and by nothing. `ends` are
    characters before each word, `forward` and `backward` powers of BASE and INVERSE. Returns whether no word holds a space: only
    then are equal n-grams cut into equal words."""
    start, size = bounds[0], bounds[-1] - bounds[0]
    bytes_before[0], blanks = 0, 0
    for j in range(size):  # vector instructions; sums are one after another
        bytes_before[j + 1] = (np.uint64(load8(letters, start + j)) + ONE) * forward[j]
    for j in range(size):
        blanks += load8(letters, start + j) == BLANK
    for j in range(size):
        bytes_before[j + 1] += bytes_before[j]
    ascii = characters(letters, start, bounds[-1]) == size
    joined[0], spaced[0], ends[0] = 0, 0, 0
    for i in range(len(bounds) - 1):
        first, last = bounds[i] - start, bounds[i + 1] - start
        joined_scale[i], spaced_scale[i] = backward[first], backward[first + i]
        joined[i + 1] = bytes_before[last]
        spaced[i + 1] = spaced[i] + (bytes_before[last] - bytes_before[first]) * forward[i] + SPACE_WEIGHT * forward[last + i]
        ends[i + 1] = ends[i] + (last - first if ascii else characters(letters, bounds[i], bounds[i + 1]))
    return blanks == 0


@jit
def shared_beginnings(letters, bounds, n, size, tables, alive, places):
    """Of the words alive[:places], leaves those from which an n-gram, or a longer one, may occur twice, joined by nothing,
    whatever the words that it is cut into; returns how many. Such n-grams share `size` bytes, a multiple of eight, or are
    shorter."""
    count, end, keys = len(bounds) - 1, bounds[-1], tables.keys
    for k in range(places):
        at = bounds[alive[k]]
        keys[k] = 0
        if at + size <= end:
            for step in range(0, size, 8):
                keys[k] = keys[k] * BASE ^ load64(letters, at + step)
    mask = see(tables, places)
    left = 0
    for k in range(places):
        i = alive[k]
        alive[left] = i
        short = bounds[min(i + n, count)] - bounds[i] < size
        left += short or tables.seen[slot_of(keys[k]) & mask] == 3
    return left


@jit
def hash_bytes(data, start, end):
    """64-bit hash of data[start:end], eight bytes at a time."""
    value = np.uint64(end - start) + ONE
    at = start
    while at + 8 <= end:
        value = (value ^ load64(data, at)) * BASE
        value ^= value >> HALF
        at += 8
    if at < end:
        rest = np.uint64(0)
        if at + 8 <= len(data):
            rest = load64(data, at) & ((ONE << np.uint64(8 * (end - at))) - ONE)
        else:
            for i in range(at, end):
                rest |= np.uint64(data[i]) << np.uint64(8 * (i - at))
        value = (value ^ rest) * BASE
        value ^= value >> HALF
    return value * MIX


@jit
def characters(data, start, end):
    """Code points of valid UTF-8."""
    found = 0
    for i in range(start, end):
        found += (load8(data, i) & 0xC0) != 0x80
    return found


@jit
def top_ngrams(prefix, scale, ends, count, prune, tables, alive, lengths):
    """lengths[n - 2], n = 2..4: characters of the most frequent n-gram joined by spaces, times its count; of equals the first.

    `ends` are characters before each word, [count + 1]. `prune`: equal n-grams begin with equal (n-1)-grams, so a position
    where none of those repeats is out. Returns how many positions, left in `alive`, begin a 4-gram that occurs twice."""
    first, times = tables.first, tables.times
    places = every(alive, count)
    for n in range(2, TOP + 1):
        lengths[n - 2] = 0
        if count < n:
            return 0
        places = with_keys(prefix, scale, count, n, tables, alive, places if prune else every(alive, count))
        places = maybe_repeated(tables, alive, places)
        number, mask = begin_pass(tables), slots_for(places) - ONE
        for k in range(places):
            first[k], times[k] = put(tables, mask, number, k), 0
            times[first[k]] += 1
        most, where, kept = 1, 0, 0
        for k in range(places):
            if times[first[k]] > 1:
                if times[k] > most:
                    most, where = times[k], alive[k]
                alive[kept] = alive[k]
                kept += 1
        places = kept
        lengths[n - 2] = most * (ends[where + n] - ends[where] + n - 1)
    return places


@jit
def duplicate_ngrams(prefix, scale, ends, count, least, most, tables, alive, places, lengths):
    """lengths[n - 2], n = least..most: characters of n-grams that came before, joined by nothing, from left to right, none
    overlapping. Only the positions alive[:places], ascending, can hold one; returns how many are left."""
    for n in range(least, most + 1):
        places = with_keys(prefix, scale, count, n, tables, alive, places)
        number, mask = begin_pass(tables), slots_for(places) - ONE
        repeated, free = 0, 0
        for k in range(places):
            i = alive[k]
            if i >= free and put(tables, mask, number, k) != k:
                repeated += ends[i + n] - ends[i]
                free = i + n
        lengths[n - 2] = repeated
    return places


@jit
def every(alive, count):
    for i in range(count):
        alive[i] = i
    return count


@jit
def with_keys(prefix, scale, count, n, tables, alive, places):
    """Puts the hashes of the n-grams at alive[:places] into tables.keys; positions too near the end are out. Returns how many
    stay."""
    while places > 0 and alive[places - 1] + n > count:
        places -= 1
    for k in range(places):
        i = alive[k]
        tables.keys[k] = (prefix[i + n] - prefix[i]) * scale[i]
    return places


@jit
def maybe_repeated(tables, alive, places):
    """Leaves the positions, and their keys, that may not be the only ones with their key. Returns how many."""
    mask = see(tables, places)
    left = 0
    for k in range(places):
        alive[left], tables.keys[left] = alive[k], tables.keys[k]
        left += tables.seen[slot_of(tables.keys[left]) & mask] == 3
    return left


@jit
def new_tables(keys):
    """Tables for that many keys."""
    slots = int(slots_for(keys))
    numbers = np.empty((2, keys + 1), np.int64)
    return Tables(
        np.empty(keys + 1, np.uint64),
        np.empty(4 * slots, np.uint8),
        np.zeros((slots, 2), np.uint64),
        numbers[0],
        numbers[1],
        np.zeros(1, np.uint64),
    )


@jit
def slots_for(keys):
    """A power of two; at most half of the slots are taken."""
    slots = np.uint64(16)
    while slots < np.uint64(2 * keys):
        slots += slots
    return slots


@jit
def see(tables, places):
    """Marks the slots of tables.keys[:places] as seen once or more often, whatever keys meet there."""
    size = 4 * slots_for(places)
    mask = size - ONE
    tables.seen[: int(size)] = 0
    for k in range(places):
        at = slot_of(tables.keys[k]) & mask
        tables.seen[at] = (tables.seen[at] << 1 | 1) & 3
    return mask


@jit
def slot_of(key):
    mixed = key * MIX
    return mixed ^ (mixed >> HALF)


@jit
def begin_pass(tables):
    tables.passes[0] += ONE
    return tables.passes[0]


@jit
def put(tables, mask, number, k):
    """The place that the key tables.keys[k] was first put with in this pass: k itself where it is new."""
    key = tables.keys[k]
    at = slot_of(key) & mask
    while tables.slots[at, 1] >> HALF == number:
        if tables.slots[at, 0] == key:
            return np.int64(tables.slots[at, 1] & LOW)
        at = (at + ONE) & mask
    tables.slots[at, 0] = key
    tables.slots[at, 1] = number << HALF | np.uint64(k)
    return k


@jit
def given_word_marks(letters, bounds, lists, marks, alphabetic, no_punctuation, stop_words, longest_stop_word, counts):
    """Fills counts [documents, 5] (MARK_COLUMNS). `marks` has the bits `alphabetic` and `no_punctuation` of each code point;
    `stop_words` are at most 64 sorted hashes (`hash_bytes`) of words of so many bytes at most."""
    hashes = np.empty(1, np.uint64)
    maybe = np.uint64(0)
    for value in stop_words:
        maybe |= ONE << (value >> SIX_BITS)
    for d in range(len(lists) - 1):
        words, chars, with_letter, seen = 0, 0, 0, 0
        first, last = bounds[lists[d]], bounds[lists[d + 1]]
        ascii = characters(letters, first, last) == last - first
        if lists[d + 1] - lists[d] >= len(hashes):
            hashes = np.empty(lists[d + 1] - lists[d] + 1, np.uint64)
        for i in range(lists[d], lists[d + 1]):
            start, end = bounds[i], bounds[i + 1]
            found, size, at = 0, 0, start
            beginning = first_bytes(letters, start, end)
            if (ascii or end - start <= 8) and has_only_ascii_with_a_letter(beginning):
                found, size, at = alphabetic | no_punctuation, end - start, end
            while at < end:
                byte = load8(letters, at)
                if byte < 0x80:
                    found |= np.int64(marks[byte])
                    at += 1
                else:
                    point, width = code_point(letters, at, end)
                    found |= np.int64(marks[point]) if point < len(marks) else no_punctuation
                    at += width
                size += 1
            with_letter += (found & alphabetic) != 0
            if found & no_punctuation:
                words += 1
                chars += size
            if longest_stop_word <= 8:
                hashes[seen] = hash_of_few(beginning, end - start)
            elif end - start <= longest_stop_word:
                hashes[seen] = hash_bytes(letters, start, end)
            seen += (end - start <= longest_stop_word) & ((maybe >> (hashes[seen] >> SIX_BITS)) & ONE != 0)
        counts[d, 0], counts[d, 1], counts[d, 2], counts[d, 3] = lists[d + 1] - lists[d], words, chars, with_letter
        counts[d, 4] = distinct_hits(hashes, seen, stop_words)


@jit
def first_bytes(data, start, end):
    """data[start:end] cut to eight bytes, as one little-endian word, with zeros behind a shorter one."""
    size = min(end - start, 8)
    if start + 8 <= len(data):
        return load64(data, start) & ((ONE << np.uint64(8 * size)) - ONE if size < 8 else ~np.uint64(0))
    word = np.uint64(0)
    for i in range(size):
        word |= np.uint64(data[start + i]) << np.uint64(8 * i)
    return word


@jit
def hash_of_few(word, size):
    """`hash_bytes` of the first `size` bytes of a word, one to eight."""
    value = (np.uint64(size) + ONE ^ word) * BASE
    return (value ^ value >> HALF) * MIX


@jit
def has_only_ascii_with_a_letter(word):
    small = word | EACH * np.uint64(0x20)
    return word & EACH * np.uint64(0x80) == 0 and (small + FROM_A) & ~(small + BEHIND_Z) & EACH * np.uint64(0x80) != 0
