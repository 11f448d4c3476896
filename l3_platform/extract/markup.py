"""Readers of serialised markup for the scan: names, attribute values, entities, raw text. All take bytes and a place in them."""

from __future__ import annotations

import numpy as np
from numba import njit

from l3_platform.extract import tags as t
from l3_platform.unaligned import load64, lowest_bit

_PRIME, _OFFSET = np.uint32(t.FNV_PRIME), np.uint32(t.FNV_OFFSET)
_LOOKAHEAD = 30_000  # bytes of a table row that are looked at to see whether it is one of data

_ONES, _TOPS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)

jit = njit(nogil=True, cache=True)


def needle(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


_NONE, _HIDDEN, _AT_TYPE = needle("none"), needle("hidden"), needle('"@type"')
_DISPLAY, _VISIBILITY = needle("display"), needle("visibility")
_TD, _TH, _P, _DIV = (t.TAG_ID[name] for name in ("td", "th", "p", "div"))
_TR = np.uint32(t.fnv("tr"))
# Elements that data tables do not hold in their cells, but tables that lay out a page do.
_LAYOUT_TAGS = ("table", "pre", "h1", "h2", "h3", "h4", "ul", "ol", "form", "blockquote", "article", "section")
_LAYOUT = np.zeros(len(t.TAGS), np.bool_)
_LAYOUT[[t.TAG_ID[name] for name in _LAYOUT_TAGS]] = True


@jit
def look_up(keys, values, key):
    """The value of a hash in an open-addressed table (`tags.table`), 0 where it is absent."""
    mask = np.uint32(len(keys) - 1)
    place = key & mask
    while keys[place] != 0:
        if keys[place] == key:
            return np.int64(values[place])
        place = np.uint32((place + np.uint32(1)) & mask)
    return np.int64(0)


@jit
def lower(c):
    return c + np.uint8(32) if c >= 65 and c <= 90 else c


@jit
def mixed(value, c):
    """One step of the hash, in 32 bits."""
    return np.uint32((value ^ np.uint32(c)) * _PRIME)


@jit
def hash_of(data, start, end):
    value = _OFFSET
    for k in range(start, end):
        value = mixed(value, lower(data[k]))
    return value


@jit
def tag_name(data, i, n):
    """Hash of the tag name at `i`, and the place after it."""
    value = _OFFSET
    while i < n and data[i] > 32 and data[i] != 62 and data[i] != 47:
        value = mixed(value, lower(data[i]))
        i += 1
    return value, i


@jit
def attribute_name(data, i, n):
    """The same of an attribute, whose first byte may be anything."""
    value = _OFFSET
    first = i
    while i < n and data[i] > 32 and data[i] != 62 and (data[i] != 61 or i == first):
        value = mixed(value, lower(data[i]))
        i += 1
    return value, i


@jit
def entity(data, i, n):
    """Byte meant by the `&` at `i`, and its length in the source. A no-break space is a space."""
    if i + 3 < n:
        a, b, c = data[i + 1], data[i + 2], data[i + 3]
        if a == 97 and b == 109 and c == 112:
            return np.uint8(38), 5
        if a == 108 and b == 116 and c == 59:
            return np.uint8(60), 4
        if a == 103 and b == 116 and c == 59:
            return np.uint8(62), 4
        if a == 113 and b == 117 and c == 111:
            return np.uint8(34), 6
        if a == 110 and b == 98 and c == 115:
            return np.uint8(32), 6
    return np.uint8(38), 1


@jit
def wide(data, i, n):
    """Length of a character beyond ASCII, and its kind: 0 text, 1 white space, 2 nothing (private use, soft hyphen, BOM)."""
    a = data[i]
    b = data[i + 1] if i + 1 < n else np.uint8(0)
    c = data[i + 2] if i + 2 < n else np.uint8(0)
    if a < 0xE0:
        if a == 0xC2 and (b == 0xA0 or b == 0x85):
            return 2, 1
        return 2, 2 if a == 0xC2 and b == 0xAD else 0
    if a >= 0xF0:
        return 4, 0
    if a == 0xE2 and b == 0x80 and (c <= 0x8A or c == 0xA8 or c == 0xA9 or c == 0xAF):
        return 3, 1
    if (a == 0xE2 and b == 0x81 and c == 0x9F) or (a == 0xE3 and b == 0x80 and c == 0x80):
        return 3, 1
    private = a == 0xEE or (a == 0xEF and b <= 0xA3)
    return 3, 2 if private or (a == 0xEF and b == 0xBB and c == 0xBF) or (a == 0xE2 and b == 0x81 and c == 0xA0) else 0


@jit
def find(data, start, end, wanted):
    """First place of `wanted` in data[start:end], -1 where it is not."""
    for k in range(start, end - len(wanted) + 1):
        if data[k] == wanted[0]:
            same = True
            for j in range(1, len(wanted)):
                same = same and data[k + j] == wanted[j]
            if same:
                return k
    return -1


@jit
def until(data, i, n, byte):
    """First place from `i` on where `byte` stands, `n` where it does not; eight bytes at a time."""
    wanted = np.uint64(byte) * _ONES
    while i + 8 <= n:
        word = load64(data, i) ^ wanted
        zeros = (word - _ONES) & ~word & _TOPS  # the lowest of these bits is surely of a byte that is 0
        if zeros:
            return i + (lowest_bit(zeros) >> 3)
        i += 8
    while i < n and data[i] != byte:
        i += 1
    return i


@jit
def hides(data, start, end):
    """Whether a style hides its element: `display: none` or `visibility: hidden`."""
    for name, value in ((_DISPLAY, _NONE), (_VISIBILITY, _HIDDEN)):
        place = find(data, start, end, name)
        if place >= 0:
            place += len(name)
            while place < end and (data[place] <= 32 or data[place] == 58):
                place += 1
            if find(data, place, min(end, place + len(value)), value) >= 0:
                return True
    return False


@jit
def words(data, start, end, out, count):
    """Hashes of the words of a class or id, split at signs and camel case; words that begin with a digit are left out."""
    value, length, before, digit = _OFFSET, 0, np.uint8(0), False
    for k in range(start, end + 1):
        c = data[k] if k < end else np.uint8(32)
        letter = (c >= 97 and c <= 122) or (c >= 65 and c <= 90)
        number = c >= 48 and c <= 57
        camel = c >= 65 and c <= 90 and before >= 97 and before <= 122
        if length > 0 and (camel or not (letter or number)):
            if not digit and length > 1 and count < len(out):
                out[count] = value
                count += 1
            value, length = _OFFSET, 0
        if letter or number:
            if length == 0:
                digit = number
            value = mixed(value, lower(c))
            length += 1
        before = c
    return count


@jit
def after_comment(data, i, n):
    """The place after a comment, a doctype or a processing instruction."""
    if i + 3 < n and data[i + 2] == 45 and data[i + 3] == 45:
        i = until(data, i + 6, n, 62)
        while i < n and not (data[i - 1] == 45 and data[i - 2] == 45):
            i = until(data, i + 1, n, 62)
        return i + 1
    return until(data, i, n, 62) + 1


@jit
def raw_end(data, i, n, name_start, name_end):
    """Start of the end tag of raw text at `i`, whose element has the name at data[name_start:name_end]."""
    length = name_end - name_start
    i = until(data, i, n, 60)
    while i + length + 1 < n:
        if data[i + 1] == 47:
            same = True
            for k in range(length):
                same = same and lower(data[i + 2 + k]) == lower(data[name_start + k])
            after = data[i + 2 + length] if i + 2 + length < n else np.uint8(62)
            if same and (after <= 32 or after == 47 or after == 62):
                return i
        i = until(data, i + 1, n, 60)
    return n


@jit
def types(data, start, end, names, owners, count):
    """Hashes of the schema.org types in a JSON-LD script, as names of the page."""
    for _ in range(32):
        start = find(data, start, end, _AT_TYPE)
        if start < 0 or count >= len(names):
            break
        start += 7
        while start < end and (data[start] <= 32 or data[start] == 58 or data[start] == 91 or data[start] == 34):
            start += 1
        stop = start
        while stop < end and data[stop] != 34:
            stop += 1
        names[count], owners[count] = hash_of(data, start, stop), -1
        count += 1
        start = stop
    return count


@jit
def is_data_row(data, i, n, tag_keys, tag_ids):
    """Whether the table row whose content begins at `i` is one of data. Rows that lay out a page hold block elements in cells."""
    paragraphs = divisions = 0
    limit = min(n, i + _LOOKAHEAD)
    while i + 1 < limit:
        if data[i] != 60:
            i += 1
            continue
        if data[i + 1] == 47:
            name, i = tag_name(data, i + 2, n)
            if name == _TR:
                return True
            divisions -= look_up(tag_keys, tag_ids, name) == _DIV
            continue
        name, i = tag_name(data, i + 1, n)
        ident = look_up(tag_keys, tag_ids, name)
        if ident in (_TD, _TH):
            paragraphs = divisions = 0
        paragraphs += ident == _P
        divisions += ident == _DIV
        if _LAYOUT[ident] or paragraphs > 1 or divisions > 1:
            return False
    return i + 1 >= n
