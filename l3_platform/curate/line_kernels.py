"""Loops over the lines of a batch of documents, compiled by numba, without the GIL.

What a kernel here calls is in this file, but for reading, counting and hashing UTF-8: numba's cache would not notice a change
elsewhere."""

from __future__ import annotations

import numpy as np

from l3_platform.curate.characters import BREAK, BULLET, TERMINAL, WHITE
from l3_platform.curate.kernels import EACH, HALF, characters, code_point, hash_bytes, jit
from l3_platform.unaligned import load8, load64, lowest_bit

LINE_FEED, CARRIAGE_RETURN, HASH, FULL_STOP, ELLIPSIS = 0x0A, 0x0D, 0x23, 0x2E, 0x2026
HIGHEST, SPACES, LINE_FEEDS = EACH * np.uint64(0x80), EACH * np.uint64(0x20), EACH * np.uint64(LINE_FEED)
HASHES, FULL_STOPS = EACH * np.uint64(HASH), EACH * np.uint64(FULL_STOP)

SEGMENT_COLUMNS = ("chars", "paragraphs", "dup_paragraphs", "dup_paragraph_chars", "segments", "dup_segments", "dup_segment_chars")
LINE_COLUMNS = ("lines", "filled_lines", "bullet_lines", "ellipsis_lines", "terminal_lines", "hashes", "ellipses")


@jit
def segment_statistics(data, offsets, signs, counts):
    """Fills counts [documents, 7] (SEGMENT_COLUMNS). Segments are the text split at runs of line feeds; paragraphs the text without
    white space around it, split at runs of two and more. `signs` are marks of code points (`characters.line_signs`)."""
    most = 1
    for d in range(len(offsets) - 1):
        most = max(most, 1 + line_feeds(data, offsets[d], offsets[d + 1]))
    hashes, bounds = np.empty(most, np.uint64), np.empty((most, 2), np.int64)
    slots = np.empty(4 * most + 16, np.int64)
    for d in range(len(offsets) - 1):
        start, end = offsets[d], offsets[d + 1]
        counts[d, 0] = characters(data, start, end)
        first, last = stripped(data, start, end, signs)
        found = segments_of(data, first, last, 2, hashes, bounds)
        counts[d, 1] = found
        counts[d, 2], counts[d, 3] = repeated(data, hashes, bounds, found, slots)
        found = segments_of(data, start, end, 1, hashes, bounds)
        counts[d, 4] = found
        counts[d, 5], counts[d, 6] = repeated(data, hashes, bounds, found, slots)


@jit
def segments_of(data, start, end, breaks, hashes, bounds):
    """Splits data[start:end] at runs of at least `breaks` line feeds, as `re.split` does. Returns how many segments."""
    segments, first = 0, start
    while True:
        i, run = first, 0
        while i < end:
            i = next_line_feed(data, i, end)
            if i < end:
                run = 1
                while i + run < end and data[i + run] == LINE_FEED:
                    run += 1
                if run >= breaks:
                    break
                i += run
        hashes[segments], bounds[segments, 0], bounds[segments, 1] = hash_bytes(data, first, i), first, i
        segments += 1
        if i >= end:
            return segments
        first = i + run


@jit
def next_line_feed(data, i, end):
    """Where the next line feed is, or the end; eight bytes at a time while there is none."""
    while i + 8 <= end:
        found = zero_bytes(load64(data, i) ^ LINE_FEEDS)
        if found:
            return i + (lowest_bit(found) >> 3)
        i += 8
    while i < end and load8(data, i) != LINE_FEED:
        i += 1
    return i


@jit
def zero_bytes(word):
    """The highest bit of the lowest byte that is 0 is the lowest one set; 0: no byte is."""
    return (word - EACH) & ~word & HIGHEST


@jit
def repeated(data, hashes, bounds, count, slots):
    """How many of hashes[:count] have an equal before them, and the characters of those. Open addressing in `slots`."""
    size = 16
    while size < 2 * count:
        size *= 2
    slots[:size] = -1
    copies, copied = 0, 0
    for k in range(count):
        at = np.int64((hashes[k] ^ hashes[k] >> HALF) & np.uint64(size - 1))
        while slots[at] >= 0 and hashes[slots[at]] != hashes[k]:
            at = (at + 1) & (size - 1)
        if slots[at] < 0:
            slots[at] = k
        else:
            copies += 1
            copied += characters(data, bounds[k, 0], bounds[k, 1])
    return copies, copied


@jit
def line_feeds(data, start, end):
    found = 0
    for i in range(start, end):
        found += load8(data, i) == LINE_FEED
    return found


@jit
def stripped(data, start, end, signs):
    """data[start:end] less the white space around it, as `str.strip` has it."""
    while start < end:
        point, size = code_point(data, start, end)
        if point >= len(signs) or not signs[point] & WHITE:
            break
        start += size
    while end > start:
        last = last_start(data, start, end)
        point, _ = code_point(data, last, end)
        if point >= len(signs) or not signs[point] & WHITE:
            break
        end = last
    return start, end


@jit
def line_statistics(data, offsets, signs, special, counts):
    """Fills counts [documents, 7] (LINE_COLUMNS). Lines are those of `str.splitlines`; a filled one has more than white space, and
    its first and last sign other than that tell what it is. An ellipsis is `…` or three full stops.

    `special[byte]` says whether a code point that begins with it may end a line or be counted.
    """
    for d in range(len(offsets) - 1):
        i, end = offsets[d], offsets[d + 1]
        counts[d, :] = 0
        line, dots = i, 0
        while True:
            i = next_special(data, i, end, special)
            if i >= end:  # past it where its last character is cut short
                break
            point, size = code_point(data, i, end)
            dots = dots + 1 if point == FULL_STOP and i > line and data[i - 1] == FULL_STOP else 1
            counts[d, 5] += point == HASH
            counts[d, 6] += point == ELLIPSIS or (point == FULL_STOP and dots % 3 == 0)
            following = i + size
            if point < len(signs) and signs[point] & BREAK:
                close_line(data, line, i, signs, counts[d])
                following += point == CARRIAGE_RETURN and following < end and data[following] == LINE_FEED
                line = following
            i = following
        if line < end:
            close_line(data, line, end, signs, counts[d])


@jit
def next_special(data, i, end, special):
    """Where the next byte is for which `special` is set, or the end. Such a byte is a control character, a hash sign, a full stop
    or none of ASCII: eight at a time while there is none of these."""
    while i + 8 <= end:
        word = load64(data, i)
        found = zero_bytes(word ^ HASHES) | zero_bytes(word ^ FULL_STOPS) | ((word - SPACES) & ~word | word) & HIGHEST
        if not found:
            i += 8
            continue
        i += lowest_bit(found) >> 3
        while i < end and load8(data, i) >= 0x80 and not special[load8(data, i)]:  # a script of its own
            i += 1
        if i == end or special[load8(data, i)]:
            return i
        i += load8(data, i) < 0x80
    while i < end and not special[load8(data, i)]:
        i += 1
    return i


@jit
def close_line(data, start, end, signs, counts):
    start, end = stripped(data, start, end, signs)
    counts[0] += 1
    if start == end:
        return
    first, last = code_point(data, start, end)[0], code_point(data, last_start(data, start, end), end)[0]
    counts[1] += 1
    counts[2] += first < len(signs) and (signs[first] & BULLET) != 0
    dots = end - start >= 3 and data[end - 1] == FULL_STOP and data[end - 2] == FULL_STOP and data[end - 3] == FULL_STOP
    counts[3] += dots or last == ELLIPSIS
    counts[4] += last < len(signs) and (signs[last] & TERMINAL) != 0


@jit
def last_start(data, start, end):
    """Where the last code point of data[start:end] begins."""
    last = end - 1
    while last > start and (data[last] & 0xC0) == 0x80:
        last -= 1
    return last
