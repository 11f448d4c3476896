"""What the words of blocks and the class names of containers say: counts, and sums of learned weights."""

from __future__ import annotations

import numpy as np

from l3_platform.extract import markup as m
from l3_platform.extract import tags as t
from l3_platform.extract.scan import END, PARENT, START

# Columns of the words of a block [blocks, WORD_COLUMNS].
WORDS, SENTENCES, COMMAS, DIGITS, UPPER, ENDING, REPEAT, SAME, IN_TITLE, SUM, LEAST, MOST, FIRST_WORD, KNOWN = range(14)
WORD_COLUMNS = 14
# Columns of the names of a container [containers, NAME_COLUMNS]: of its own words, and over all that hold it.
OWN, WORST, BEST, TOTAL = range(4)
NAME_COLUMNS = 4

_OFFSET = np.uint32(t.FNV_OFFSET)
_TITLE_PLACES = 256


@m.jit
def word_statistics(text, blocks, title, keys, weights, pair_hashes, pair_blocks):
    """Words of the blocks: [blocks, WORD_COLUMNS] and the number of pairs.

    `title` is the text of `<title>`; `keys` and `weights` are a table (`tags.table`). Into `pair_hashes` and `pair_blocks`, unless
    they are empty, goes each word with its block.
    """
    n = len(blocks)
    out = np.zeros((n, WORD_COLUMNS), np.float32)
    in_title = np.zeros(_TITLE_PLACES, np.uint32)
    _collect(title, in_title)
    seen = np.zeros(1 << (int(np.log2(n + 1)) + 2), np.uint32)
    counted = np.zeros(len(seen), np.int32)
    places = np.zeros(n, np.int64)
    pairs = 0
    for i in range(n):
        row = out[i]
        value, length, whole, number = _OFFSET, 0, np.uint32(17), 0
        upper = False
        start, end = blocks[i, START], blocks[i, END]
        k = start
        while k <= end:
            c = text[k] if k < end else np.uint8(32)
            step = 1
            word, alone = False, False
            if c < 128:
                word = (c >= 97 and c <= 122) or (c >= 48 and c <= 57) or (c >= 65 and c <= 90) or c == 95
                if c >= 48 and c <= 57:
                    row[DIGITS] += 1
                elif c == 44:
                    row[COMMAS] += 1
                elif (c == 46 or c == 33 or c == 63) and (k + 1 >= end or text[k + 1] <= 34):
                    row[SENTENCES] += 1
                if length == 0:
                    upper = c >= 65 and c <= 90
            elif c >= 0xE3 and c <= 0xED:
                word = alone = not (c == 0xE3 and text[k + 1] == 0x80)
                step = 3
                row[SENTENCES] += c == 0xE3 and text[k + 1] == 0x80 and text[k + 2] == 0x82
            elif c == 0xE2 and text[k + 1] <= 0x8F:
                step = 3
            elif c == 0xC2:
                step = 2
                word = text[k + 1] == 0xAA or text[k + 1] == 0xB5 or text[k + 1] == 0xBA
            else:
                word = True
                step = 2 if c < 0xE0 else 3 if c < 0xF0 else 4
            if length > 0 and (not word or alone):
                number += 1
                row[UPPER] += upper
                whole = m.mixed(np.uint32(whole ^ value), np.uint8(length & 255))
                weight = m.look_up(keys, weights, value)
                row[KNOWN] += weight != 0
                row[SUM] += weight
                row[LEAST], row[MOST] = min(row[LEAST], weight), max(row[MOST], weight)
                if number == 1:
                    row[FIRST_WORD] = weight
                row[IN_TITLE] += _holds(in_title, value)
                if pairs < len(pair_hashes):
                    pair_hashes[pairs], pair_blocks[pairs] = value, i
                    pairs += 1
                value, length = _OFFSET, 0
            if word:
                for j in range(k, min(k + step, end)):
                    value = m.mixed(value, m.lower(text[j]))
                length += step
            k += step
        row[WORDS] = number
        last = text[end - 1]
        row[ENDING] = 2 if last == 46 or last == 33 or last == 63 or last == 0x82 else 1 if last == 58 else 0
        whole |= np.uint32(1)
        place = whole & np.uint32(len(seen) - 1)
        while seen[place] != 0 and seen[place] != whole:
            place = np.uint32((place + np.uint32(1)) & np.uint32(len(seen) - 1))
        seen[place] = whole
        row[REPEAT] = counted[place]
        counted[place] += 1
        places[i] = place
    for i in range(n):
        out[i, SAME] = counted[places[i]]
    return out, pairs


@m.jit
def name_statistics(boxes, names, owners, keys, weights):
    """Learned weights of class words, [containers, NAME_COLUMNS]."""
    out = np.zeros((len(boxes), NAME_COLUMNS), np.float32)
    for k in range(len(names)):
        if owners[k] >= 0:
            out[owners[k], OWN] += m.look_up(keys, weights, names[k])
    for k in range(len(boxes)):
        parent = boxes[k, PARENT]
        own = out[k, OWN]
        out[k, WORST] = min(own, out[parent, WORST]) if parent >= 0 else min(own, 0)
        out[k, BEST] = max(own, out[parent, BEST]) if parent >= 0 else max(own, 0)
        out[k, TOTAL] = own + out[parent, TOTAL] if parent >= 0 else own
    return out


@m.jit
def _collect(title, places):
    """The words of the title, as a set of hashes."""
    value, length, held = _OFFSET, 0, 0
    for k in range(len(title) + 1):
        c = title[k] if k < len(title) else np.uint8(32)
        if (c >= 97 and c <= 122) or (c >= 48 and c <= 57) or (c >= 65 and c <= 90) or c == 95 or c >= 0xC3:
            value = m.mixed(value, m.lower(c))
            length += 1
        elif c >= 0x80:
            value = m.mixed(value, c)
        else:
            if length > 2 and held < len(places) // 2:
                place = value & np.uint32(len(places) - 1)
                while places[place] != 0 and places[place] != value:
                    place = np.uint32((place + np.uint32(1)) & np.uint32(len(places) - 1))
                places[place] = value
                held += 1
            value, length = _OFFSET, 0


@m.jit
def _holds(places, value):
    place = value & np.uint32(len(places) - 1)
    while places[place] != 0:
        if places[place] == value:
            return True
        place = np.uint32((place + np.uint32(1)) & np.uint32(len(places) - 1))
    return False
