"""The lines of a batch of texts, compiled by numba, without the GIL: where each begins and ends, what it may be, its hash.

A line is what `text.split("\\n")` gives, stripped as `str.strip` does; a paragraph is a run of lines that are not blank.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from l3_platform.dedup.kernels import ZERO, code_point, hash_span, mix

PROMPT, MAYBE_CODE = np.uint8(1), np.uint8(2)

_jit = njit(nogil=True, cache=True)


@_jit
def find_lines(data, offsets, keywords, openers, kind, document, index, start, end, chars, stripped_chars, paragraph):
    """Fills one entry a line that is not blank; returns how many, which is at most one more a text than it has line ends.

    `start` and `end` are bytes of `data`, stripped; `chars` counts the whole line in characters. `paragraph` numbers the
    paragraphs of all texts. `kind` is PROMPT where the line begins as only code does, MAYBE_CODE where `code.is_code` may say yes;
    `keywords` and `openers` are the words that lines of code begin with, those of the latter only where a colon ends the line,
    sorted, as `first_letters` makes them.
    """
    count, paragraphs = 0, -1
    for d in range(len(offsets) - 1):
        at, number, blank = offsets[d], 0, True
        while at <= offsets[d + 1]:
            stop = at
            while stop < offsets[d + 1] and data[stop] != 10:
                stop += 1
            left, right = strip(data, at, stop)
            if left == right:
                blank = True
            else:
                paragraphs += blank
                blank = False
                document[count], index[count], paragraph[count] = d, number, paragraphs
                start[count], end[count] = left, right
                stripped_chars[count] = characters(data, left, right)
                chars[count] = stripped_chars[count] + characters(data, at, left) + characters(data, right, stop)
                kind[count] = kind_of(data, at, stop, right, keywords, openers)
                count += 1
            at = stop + 1
            number += 1
    return count


@_jit
def hash_lines(data, start, end, seed, keys):
    """Fills keys [lines] with a hash of each line's bytes, its length and its seed."""
    for i in range(len(keys)):
        keys[i] = mix(hash_span(data, start[i], end[i], seed[i]), np.uint64(end[i] - start[i]), ZERO)


@_jit
def strip(data, start, end):
    """Bounds of data[start:end] without the white space around it."""
    while start < end:
        point, size = code_point(data, start, end)
        if not is_white(point):
            break
        start += size
    while end > start:
        last = end - 1
        while last > start and data[last] & 0xC0 == 0x80:
            last -= 1
        if not is_white(code_point(data, last, end)[0]):
            break
        end = last
    return start, end


@_jit
def is_white(point):
    """What `str.isspace` says of a code point."""
    if point < 0x80:
        return point == 32 or 9 <= point <= 13 or 28 <= point <= 31
    return (
        point in (0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)  # spaces and line ends outside ASCII
        or 0x2000 <= point <= 0x200A
    )


@_jit
def characters(data, start, end):
    found = 0
    for i in range(start, end):
        found += data[i] & 0xC0 != 0x80
    return found


@_jit
def kind_of(data, start, end, right, keywords, openers):
    """PROMPT, MAYBE_CODE, both or neither: MAYBE_CODE leaves out only what `code.is_code` never says yes to."""
    first, last = data[start], data[end - 1]
    if begins(data, start, end, 62, 62, 62) or first == 9 or begins(data, start, end, 32, 32, 0):  # `>>>`, tab, two spaces
        return PROMPT | MAYBE_CODE
    if begins(data, start, end, 73, 110, 32) and start + 3 < end and data[start + 3] == 91:  # `In [`
        return PROMPT | MAYBE_CODE
    if first == 35 or first == 36 or first == 47 or first == 64 or first == 123 or first == 125:  # # $ / @ { }
        return MAYBE_CODE
    if (first <= 32 or first >= 128) and is_white(code_point(data, start, end)[0]):
        return MAYBE_CODE
    if begins(data, start, end, 46, 46, 46) or begins(data, start, end, 34, 34, 34):  # `...`, three quotation marks
        return MAYBE_CODE
    if ends_code(data[right - 1]):
        return MAYBE_CODE
    at = start  # behind the name that an assignment or a call begins with
    while at < end and is_of_name(data[at]):
        at += 1
    if start < at < end:
        behind = data[at + 1] if at + 1 < end else np.uint8(0)
        if data[at] == 40 and last == 41:  # `name(…)`
            return MAYBE_CODE
        if data[at] == 32 and (behind == 61 or (at + 2 < end and data[at + 2] == 61)):  # `name =`, `name +=`
            return MAYBE_CODE
        if data[at] == 58 and behind == 32:  # `name: type = …`
            for i in range(at, end):
                if data[i] == 61:
                    return MAYBE_CODE
    word = first_letters(data, start, end)
    if last == 58 and among(openers, word):  # `if …:`
        return MAYBE_CODE
    return MAYBE_CODE if among(keywords, word) else np.uint8(0)


@_jit
def is_call(data, start, end):
    """Whether all of a line is `name(…)`, with a name of ASCII: `code.is_code` says yes."""
    at = start
    while at < end and data[at] < 128 and data[at] != 91 and data[at] != 93 and is_of_name(data[at]):
        at += 1
    return start < at < end - 1 and data[at] == 40 and data[end - 1] == 41


@_jit
def is_of_name(byte):
    """Of what `code` takes for a name: letters and digits, those beyond ASCII too, and `_.[]`."""
    return (
        97 <= byte <= 122
        or 65 <= byte <= 90
        or 48 <= byte <= 57
        or byte >= 128
        or byte == 95
        or byte == 46
        or byte == 91
        or byte == 93
    )


@_jit
def among(words, word):
    at = np.searchsorted(words, word)
    return at < len(words) and words[at] == word


@_jit
def weigh_code(data, offsets, most, keywords, openers, code, total, document, start, end, chars):
    """What is sure of the share of code in each text's first `most` characters, white space left out (`code.code_share`).

    Fills total [texts], the characters of all lines, and code [texts], those of lines that `code.is_code` says yes to; and one
    entry a line that it must be asked about: text, bytes start:end of `data`, chars. Returns how many those are.
    """
    count = 0
    for d in range(len(offsets) - 1):
        at, left = offsets[d], most
        code[d] = total[d] = 0
        while at < offsets[d + 1] and left > 0:
            stop, weight = at, 0
            while stop < offsets[d + 1] and data[stop] != 10:
                if data[stop] & 0xC0 != 0x80:
                    if left == 0:
                        break
                    left -= 1
                    weight += data[stop] != 32
                stop += 1
            if weight:
                total[d] += weight
                stripped, right = strip(data, at, stop)
                kind = kind_of(data, at, stop, right, keywords, openers) if stripped < right else MAYBE_CODE
                if stripped < right and (kind & PROMPT or ends_code(data[right - 1]) or is_call(data, at, stop)):
                    code[d] += weight
                elif kind:
                    document[count], start[count], end[count], chars[count] = d, at, stop, weight
                    count += 1
            if stop < offsets[d + 1] and data[stop] != 10:
                break
            at, left = stop + 1, left - 1
    return count


@_jit
def begins(data, start, end, first, second, third):
    """Whether a line begins with these two bytes, or three where `third` is not 0."""
    if start + 2 > end or data[start] != first or data[start + 1] != second:
        return False
    return third == 0 or (start + 2 < end and data[start + 2] == third)


@_jit
def ends_code(byte):
    return byte == 59 or byte == 123 or byte == 125  # ; { }


@_jit
def first_letters(data, start, end):
    """Up to eight small ASCII letters that a line begins with, as one number."""
    word = ZERO
    for i in range(start, min(start + 8, end)):
        if not 97 <= data[i] <= 122:
            break
        word = word << np.uint64(8) | np.uint64(data[i])
    return word
