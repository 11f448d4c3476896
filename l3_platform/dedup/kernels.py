"""From UTF-8 text to MinHash signatures, compiled by numba, without the GIL: the words, their hashes, shingles, minima.

A text is first written again as a *stream*: lower-cased words, everything else as spaces, a character that is a word of
its own between spaces. Then a word is a run of bytes that are not spaces, found 64 bytes at a time. All modulo 2^64:

    mix(value, first, second) = (x := (value ^ first) · MULTIPLY) ^ x >> 32 ^ second · RADIX
    word     value = mix(value, first, second) from 0, over 16 bytes at a time as two little-endian numbers, zeros at the end
    shingle  total = total · RADIX + word from 0, over its words; then mix(total, 0, 0)

The total rolls: a shingle costs two multiplications whatever its length. `shingles.shingle_hash` says the same of a shingle's
bytes. Every function here has a reference in plain Python in the tests, which it equals bit for bit.
"""

# pyright: reportCallIssue=false
# (the first parameter of an intrinsic is numba's own)

from __future__ import annotations

import numpy as np
from numba import njit

from l3_platform.dedup import code_points
from l3_platform.unaligned import load8, load64, lowest_bit, store8, store64

MULTIPLY = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd
RADIX = np.uint64(0xD6E8FEB86659FD93)

ZERO, ONE, THIRTY_TWO, SIXTY_THREE = np.uint64(0), np.uint64(1), np.uint64(32), np.uint64(63)
ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
BYTES = np.uint64(0x0101010101010101)  # one in each byte
HIGH, LOW = BYTES * np.uint64(0x80), BYTES * np.uint64(0x7F)
SPACES = BYTES * np.uint64(0x20)
GATHER = np.uint64(0x0102040810204080)  # times a word of bytes that are 0 or 1: those bits side by side in the top byte
TOP_BYTE, SEVEN = np.uint64(56), np.uint64(7)

LOWER, PART, ALONE = int(code_points.LOWER), int(code_points.PART), int(code_points.ALONE)
CASED, IGNORED = int(code_points.CASED), int(code_points.IGNORED)
SPACE, DOTTED_I, SIGMA, FINAL_SIGMA = 0x20, code_points.DOTTED_I, code_points.SIGMA, code_points.FINAL_SIGMA

PADDING = 72  # bytes that a stream is longer than its text needs: the kernels read and write eight at a time
SHINGLES_AT_ONCE = 8  # in `permute`

_jit = njit(nogil=True, cache=True)


@_jit
def sign(data, offsets, points, ngram, multiplier, increment, signatures, words):
    """Fills signatures [documents, num_perm] (preset to the largest value) and words [documents], how many were found.

    A text without a word is left as it is.
    """
    stream, spans, hashes = workspace(offsets)
    for d in range(len(offsets) - 1):
        words[d] = words_of(data, offsets[d], offsets[d + 1], points, stream, spans, hashes)
        if words[d]:
            count = shingles_of(hashes, words[d], ngram)
            permute(hashes, count, multiplier, increment, signatures[d])


@_jit
def shingle(data, offsets, points, ngram, shingles, starts, words):
    """Fills shingles[starts[d]:starts[d + 1]] with the hashes of document d, in order of the text, repeated ones included.

    A text without a word has one, which is left to the caller.
    """
    stream, spans, hashes = workspace(offsets)
    starts[0] = 0
    for d in range(len(offsets) - 1):
        words[d] = words_of(data, offsets[d], offsets[d + 1], points, stream, spans, hashes)
        count = shingles_of(hashes, words[d], ngram) if words[d] else 1
        shingles[starts[d] : starts[d] + count] = hashes[:count]
        starts[d + 1] = starts[d] + count


@_jit
def workspace(offsets):
    """Room for the stream, the word spans and the hashes of the longest text. A stream is at most half longer than its text:
    a small letter may need a byte more than its capital, and a character alone its spaces."""
    longest = 0
    for d in range(len(offsets) - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    room = longest + longest // 2 + PADDING + 64
    return np.empty(room, np.uint8), np.empty(room + 64, np.int64), np.empty(room // 2 + SHINGLES_AT_ONCE, np.uint64)


@_jit
def words_of(data, start, end, points, stream, spans, hashes):
    """Hashes of the words of data[start:end]; returns how many."""
    length = rewrite(data, start, end, points, stream)
    count = find_words(stream, length, spans)
    hash_words(stream, spans, count, hashes)
    return count


@_jit
def rewrite(data, start, end, points, stream):
    """The text as a stream, with spaces at its end up to the next multiple of 64; returns its length."""
    i, o = start, 0
    while i < end:
        if i + 32 <= end and not (load64(data, i) | load64(data, i + 8) | load64(data, i + 16) | load64(data, i + 24)) & HIGH:
            for k in range(32):  # a fixed length becomes vector instructions
                store8(stream, o + k, lower_ascii(load8(data, i + k)))
            i += 32
            o += 32
            continue
        if i + 8 <= end and not load64(data, i) & HIGH:
            for k in range(8):
                store8(stream, o + k, lower_ascii(load8(data, i + k)))
            i += 8
            o += 8
            continue
        stop = min(i + 8, end)
        while i < stop:  # the code points that begin in these eight bytes
            point, size = code_point(data, i, end)
            entry = points[point]
            small = entry & LOWER
            if point == SIGMA and ends_word(data, start, i, end, points):
                small = FINAL_SIGMA
            if entry & ALONE and o > 0 and stream[o - 1] != SPACE:
                stream[o] = SPACE
                o += 1
            if entry & (PART | ALONE):
                o = put(stream, o, small)
            if point == DOTTED_I or not entry & PART:
                stream[o] = SPACE
                o += 1
            i += size
    length = (o + 64) & ~63
    for at in range(o, length, 8):
        store64(stream, at, SPACES)
    return length


@_jit
def squeeze(stream, length, most):
    """Leaves of a stream its first `most` words, with one space between; returns its length."""
    words, o, inside = 0, 0, False
    for i in range(length):
        if stream[i] == SPACE:
            inside = False
            continue
        if not inside:
            if words == most:
                break
            if words:
                stream[o] = SPACE
                o += 1
            words += 1
            inside = True
        stream[o] = stream[i]
        o += 1
    return o


@_jit
def lower_ascii(char):
    """A letter small, a digit or `_` as it is, a space for any other ASCII character."""
    char = np.uint8(char)
    small = np.uint8(char | np.uint8(32))
    letter = np.uint8(small - np.uint8(97)) < np.uint8(26)
    other = (np.uint8(char - np.uint8(48)) < np.uint8(10)) | (char == np.uint8(95))
    return small if letter else char if other else np.uint8(32)


@_jit
def code_point(data, i, end):
    """Code point at byte `i` and its length in bytes. What is no UTF-8 never makes it read past `end`."""
    first = np.int64(data[i])
    if first < 0xC0:
        return (first if first < 0x80 else np.int64(0xFFFD)), 1
    size = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    if i + size > end:
        return np.int64(0xFFFD), end - i
    value = first & (0x7F >> size)
    for k in range(1, size):
        value = value << 6 | (np.int64(data[i + k]) & 0x3F)
    return (value if value < 0x110000 else np.int64(0xFFFD)), size


@_jit
def put(stream, o, point):
    """Writes a code point as UTF-8; returns the place after it."""
    if point < 0x80:
        stream[o] = point
        return o + 1
    size = 2 if point < 0x800 else 3 if point < 0x10000 else 4
    for k in range(size - 1, 0, -1):
        stream[o + k] = 0x80 | (point & 0x3F)
        point >>= 6
    stream[o] = (0xF00 >> size & 0xFF) | point
    return o + size


@_jit
def ends_word(data, start, i, end, points):
    """Whether the capital sigma at byte `i` is a final one: after a letter with case, and not before one (Unicode 3.13)."""
    at = i
    found = False
    while at > start and not found:
        at -= 1
        while at > start and data[at] & 0xC0 == 0x80:
            at -= 1
        entry = points[code_point(data, at, end)[0]]
        if entry & IGNORED:
            continue
        if not entry & CASED:
            return False
        found = True
    if not found:
        return False
    at = i + 2
    while at < end:
        point, size = code_point(data, at, end)
        entry = points[point]
        if not entry & IGNORED:
            return not entry & CASED
        at += size
    return True


@_jit
def find_words(stream, length, spans):
    """Fills spans with where each word starts and ends; returns how many words. `length` is a multiple of 64."""
    edges_found = 0
    inside = ZERO
    for base in range(0, length, 64):
        words = ZERO
        for k in range(8):
            other = load64(stream, base + 8 * k) ^ SPACES
            not_space = ((((other & LOW) + LOW) | other) & HIGH) >> SEVEN
            words |= (not_space * GATHER >> TOP_BYTE) << np.uint64(8 * k)
        edges = words ^ (words << ONE | inside)
        inside = words >> SIXTY_THREE
        while edges != ZERO:
            spans[edges_found] = base + lowest_bit(edges)
            edges_found += 1
            edges &= edges - ONE
    return edges_found >> 1


@_jit
def hash_span(data, start, end, seed):
    """Folds the bytes of data[start:end] into `seed`, sixteen at a time; nothing to fold leaves it."""
    value = seed
    while start < end:
        value = mix(value, few_bytes(data, start, end), few_bytes(data, start + 8, end))
        start += 16
    return value


@_jit
def hash_words(stream, spans, count, hashes):
    """`hash_span` of each word from zero, without a branch up to 16 bytes: which word is longer than 8 no processor can foresee."""
    for w in range(count):
        start, end = spans[2 * w], spans[2 * w + 1]
        bits = 8 * (end - start)
        first = load64(stream, start) & (ALL >> np.uint64(max(0, 64 - bits)))
        second = load64(stream, start + 8) & ((ONE << np.uint64(min(63, max(0, bits - 64)))) - ONE)
        hashes[w] = mix(ZERO, first, second)
        if bits > 120:  # a second half of eight bytes needs a shift of 64, which is none
            hashes[w] = hash_span(stream, start, end, ZERO)


@_jit
def few_bytes(data, start, end):
    """Up to eight bytes of data[start:end] as a little-endian number, without reading past the array."""
    if start + 8 <= min(end, len(data)):
        return load64(data, start)
    value = ZERO
    for i in range(end - 1, start - 1, -1):
        value = value << np.uint64(8) | np.uint64(data[i])
    return value


@_jit
def mix(value, first, second):
    product = (value ^ first) * MULTIPLY
    return product ^ product >> THIRTY_TWO ^ second * RADIX


@_jit
def shingles_of(hashes, words, ngram):
    """Turns the hashes of words into those of their shingles, in place; returns how many. Fewer words than `ngram` are one."""
    size = min(ngram, words)
    total, power = ZERO, ONE
    for w in range(size):
        total = total * RADIX + hashes[w]
        power *= RADIX
    for w in range(size, words):
        first = hashes[w - size]
        hashes[w - size] = mix(total, ZERO, ZERO)
        total = total * RADIX + hashes[w] - first * power
    hashes[words - size] = mix(total, ZERO, ZERO)
    return words - size + 1


@_jit
def permute(hashes, count, multiplier, increment, signature):
    """Lowers each of signature [num_perm] to the smallest multiplier · h + increment (mod 2^32) over the shingles.

    h is the lower half of a shingle's hash after `finalize`, as in datasketch's scheme `affine32`. The last shingle is
    repeated up to a multiple of SHINGLES_AT_ONCE, which changes no minimum; the inner loop is one vector instruction each.
    """
    for extra in range(count, (count + 7) & ~7):
        hashes[extra] = hashes[count - 1]
    for first in range(0, count, SHINGLES_AT_ONCE):
        h0, h1 = finalize(hashes[first]), finalize(hashes[first + 1])
        h2, h3 = finalize(hashes[first + 2]), finalize(hashes[first + 3])
        h4, h5 = finalize(hashes[first + 4]), finalize(hashes[first + 5])
        h6, h7 = finalize(hashes[first + 6]), finalize(hashes[first + 7])
        for p in range(len(signature)):
            a, b = multiplier[p], increment[p]
            low = min(np.uint32(a * h0 + b), np.uint32(a * h1 + b))
            low = min(low, min(np.uint32(a * h2 + b), np.uint32(a * h3 + b)))
            low = min(low, min(np.uint32(a * h4 + b), np.uint32(a * h5 + b)))
            low = min(low, min(np.uint32(a * h6 + b), np.uint32(a * h7 + b)))
            signature[p] = min(low, signature[p])


@_jit
def finalize(value):
    """MurmurHash3's finalizer over the lower 32 bits."""
    h = np.uint32(value)
    h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.uint32(h ^ (h >> np.uint32(16)))


@_jit
def hash_shingle(data):
    """Hash of a shingle's bytes, words with one space between them: what `shingles_of` gives for those words."""
    total, start = ZERO, 0
    for end in range(len(data) + 1):
        if end == len(data) or data[end] == SPACE:
            total = total * RADIX + hash_span(data, start, end, ZERO)
            start = end + 1
    return mix(total, ZERO, ZERO)


@_jit
def band(data, bands, width, seeds, values):
    """Fills values [documents, bands] from signatures as bytes, data [documents, num_perm · 4]: a hash of `width` bytes each.

    The band's number and the document's seed are part of it: equal rows of two bands, or of two seeds, do not meet.
    """
    for d in range(len(values)):
        for b in range(bands):
            start = mix(seeds[d], np.uint64(b + 1), ZERO)
            values[d, b] = mix(hash_span(data[d], b * width, (b + 1) * width, start), ZERO, ZERO)
