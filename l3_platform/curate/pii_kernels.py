"""Where in a text personal data could stand at all, compiled by numba, without the GIL: most of a text has no digits close
together.

Everything that a kernel here calls is in this file: numba's cache would not notice a change elsewhere.
"""

from __future__ import annotations

import numpy as np
from numba import njit

DIGIT, JOINS, CAPITAL, AT = 1, 2, 4, 8  # marks of a code point; JOINS may stand between the digits of one number

MOST_BETWEEN = 4  # signs between two digits of a number
LEAST_DIGITS = 6  # of a number: fewer are no phone number, and no address that `_is_ip` takes

NUMBER, IBAN, EMAIL = 0, 1, 2  # kinds of places

_jit = njit(nogil=True, cache=True)


@_jit
def places(data, marks, found):
    """Fills found [.., 4] with (kind, start, end, digits), in code points, and returns how many: runs of digits that could be a
    number, two capitals and two digits that could begin an IBAN, and at signs. `found` has a row for every second byte and one
    more."""
    count = 0
    first, last, digits = 0, 0, 0
    state = 0  # 1: a capital; 2: two or more; 3: and a digit
    point_at, i = -1, 0
    while i < len(data):
        byte = np.int64(data[i])
        if byte < 0x80:
            point, size = byte, 1
        elif byte < 0xE0:
            point, size = (byte & 0x1F) << 6 | (np.int64(data[i + 1]) & 0x3F), 2
        elif byte < 0xF0:
            point, size = (byte & 0x0F) << 12 | (np.int64(data[i + 1]) & 0x3F) << 6 | (np.int64(data[i + 2]) & 0x3F), 3
        else:
            point, size = 0xFFFD, 4
        i += size
        point_at += 1
        mark = marks[point]
        if mark & DIGIT:
            if digits and point_at - last > MOST_BETWEEN + 1:
                count = close(found, count, first, last, digits)
                digits = 0
            if not digits:
                first = point_at
            digits += 1
            last = point_at
            if state == 3:
                count = put(found, count, IBAN, point_at - 3, point_at + 1, 2)
            state = 3 if state == 2 else 0
            continue
        if digits and not mark & JOINS:
            count = close(found, count, first, last, digits)
            digits = 0
        if mark & AT:
            count = put(found, count, EMAIL, point_at, point_at + 1, 0)
        state = (1 if state % 3 == 0 else 2) if mark & CAPITAL else 0
    return close(found, count, first, last, digits)


@_jit
def close(found, count, first, last, digits):
    return count if digits < LEAST_DIGITS else put(found, count, NUMBER, first, last + 1, digits)


@_jit
def put(found, count, kind, start, end, digits):
    found[count, 0], found[count, 1], found[count, 2], found[count, 3] = kind, start, end, digits
    return count + 1
