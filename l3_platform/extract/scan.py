"""A page as a flat list of blocks, in one pass over its bytes.

The parser has already put the page in order: what is scanned is its serialisation, in which every element is closed, attributes
are quoted and only `&amp; &lt; &gt; &quot; &nbsp;` are escaped. A block is a run of text between two block-level boundaries: a
paragraph, a heading, a list item, a row of a table of data, a `<pre>`. Every block-level element is a container, a contiguous
range of blocks, so that any question about a part of the page is a difference of running sums.
"""

from __future__ import annotations

import numpy as np

from l3_platform.extract import markup as m
from l3_platform.extract import tags as t

# Columns of a block [blocks, BLOCK_COLUMNS]: its text is text[START:END] of the buffer; SOURCE is where it ended in the page,
# not counting inline tags.
START, END, CONTAINER, CHARS, LINK_CHARS, STRONG_CHARS, LINKS, IMAGES, SOURCE = range(9)
BLOCK_COLUMNS = 9
# Columns of a container [containers, CONTAINER_COLUMNS]. SIGN hashes tag and class; RUN counts neighbours of the same sign.
TAG, PARENT, FIRST, LAST, SIGN, RUN, RUNS, BEFORE, DEPTH = range(9)
CONTAINER_COLUMNS = 9
# Columns of what is known of the page as a whole.
STATUS, TITLE_START, TITLE_END, MATHS, DATA_SCRIPTS = range(5)
PAGE_COLUMNS = 5

MAX_NAMES = 24  # words of class and id names read of one element

_INHERITED = (1 << 26) - 1 - t.ROW
_A, _BODY, _IMG, _MATH, _META, _SCRIPT, _TD, _TH, _TITLE, _TR = (
    t.TAG_ID[name] for name in ["a", "body", "img", "math", "meta", "script", "td", "th", "title", "tr"]
)
_LINE, _NUMBER, _NUMBERS, _LINENO, _LINENOS, _GUTTER, _OG_TYPE = (
    np.uint32(t.fnv(word)) for word in ["line", "number", "numbers", "lineno", "linenos", "gutter", "og:type"]
)
_MATHS = np.array([t.fnv(word) for word in ["katex", "mathjax", "mjx", "mwe", "tex", "latex", "math"]], np.uint32)
_LATEX, _RENDER, _CODECOGS, _JSON, _TEX_SCRIPT, _TRUE = (
    m.needle(text) for text in ("latex", "render/math", "codecogs", "ld+json", "math/", "true")
)


@m.jit
def scan(data, max_depth, tag_keys, tag_ids, tag_bits, attribute_keys, attribute_kinds, role_keys, role_bits):
    """Blocks of a serialised page, uint8 [bytes].

    Returns int64 [PAGE_COLUMNS] of the page, the text of all blocks (uint8), blocks [n, BLOCK_COLUMNS] and the state bits of each,
    containers [m, CONTAINER_COLUMNS], the hashed class words and the container of each (-1: a type of the page). STATUS is 1
    where elements nest deeper than `max_depth`. The tables are those of `tags`.
    """
    n = len(data)
    tags = 2
    for k in range(n):
        tags += data[k] == 60
    page = np.zeros(PAGE_COLUMNS, np.int64)
    text = np.empty(n + 16, np.uint8)
    blocks = np.zeros((tags, BLOCK_COLUMNS), np.int32)
    block_bits = np.zeros(tags, np.int64)
    boxes = np.zeros((tags, CONTAINER_COLUMNS), np.int32)
    last_child = np.full(tags, -1, np.int32)
    names = np.empty(n // 2 + 64, np.uint32)
    owners = np.empty(n // 2 + 64, np.int32)
    stack_tag = np.zeros(max_depth + 2, np.uint32)
    stack_bits = np.zeros(max_depth + 2, np.int64)
    stack_box = np.zeros(max_depth + 2, np.int32)
    stack_kind = np.zeros(max_depth + 2, np.int64)
    words = np.empty(MAX_NAMES, np.uint32)

    n_blocks = n_boxes = n_names = depth = w = start = inline = 0
    bits, box = np.int64(t.SKIP), -1  # nothing is text before the body
    pending = 0  # white space not yet written: 1 space, 2 tab, 3 line break, 4 empty line
    i = 0
    while i < n:
        c = data[i]
        if c != 60:
            if bits & t.SKIP:
                i = m.until(data, i, n, 60)
                continue
            verbatim = bits & t.PRE != 0
            chars = 0
            while i < n:
                c = data[i]
                if c == 60:
                    break
                length = 1
                if c == 38:
                    c, length = m.entity(data, i, n)
                if c > 32 and c < 127:
                    pass
                elif c <= 32:
                    i += length
                    if verbatim:
                        if c != 10 or w > start:
                            if w == start:
                                blocks[n_blocks, START], blocks[n_blocks, CONTAINER], block_bits[n_blocks] = w, box, bits
                            text[w] = c
                            w += 1
                    elif pending == 0:
                        pending = 1
                    continue
                elif c >= 0xC2:
                    length, kind = m.wide(data, i, n)
                    if kind == 1 and not verbatim:
                        i += length
                        pending = max(pending, 1)
                        continue
                    if kind == 2:
                        i += length
                        continue
                if w == start:
                    blocks[n_blocks, START], blocks[n_blocks, CONTAINER], block_bits[n_blocks], pending = w, box, bits, 0
                elif pending:
                    text[w] = 32 if pending == 1 else 9 if pending == 2 else 10
                    w += 1
                    if pending == 4:
                        text[w] = 10
                        w += 1
                    chars += 1
                    pending = 0
                chars += 1
                text[w] = c
                w += 1
                if c >= 0xC2:
                    for k in range(1, length):
                        text[w] = data[i + k]
                        w += 1
                i += length
                begin = i
                while i < n and data[i] > 32 and data[i] < 127 and data[i] != 60 and data[i] != 38:  # the rest of a word
                    text[w] = data[i]
                    w += 1
                    i += 1
                chars += i - begin
            blocks[n_blocks, CHARS] += chars
            if bits & t.LINK:
                blocks[n_blocks, LINK_CHARS] += chars
            if bits & t.STRONG:
                blocks[n_blocks, STRONG_CHARS] += chars
            continue

        if i + 1 >= n:
            break
        c = data[i + 1]
        if c == 33 or c == 63:  # a comment, the doctype, a processing instruction
            i = m.after_comment(data, i, n)
            continue

        opening = i
        if c == 47:  # an end tag
            tag, i = m.tag_name(data, i + 2, n)
            i = m.until(data, i, n, 62) + 1
            level = depth
            while level > 0 and stack_tag[level - 1] != tag:
                level -= 1
            if level == 0:
                continue
            while depth >= level:
                depth -= 1
                kind = stack_kind[depth]
                if kind & t.BLOCK and not bits & t.SKIP and box != stack_box[depth]:
                    w, n_blocks = _flush(blocks, text, start, w, i - inline, n_blocks)
                    start, pending = w, 0
                    boxes[box, LAST] = n_blocks
                elif kind & t.BLOCK and bits & t.ROW:
                    pending = max(pending, 1)
                bits, box = stack_bits[depth], stack_box[depth]
            if not stack_kind[depth] & t.BLOCK:
                inline += i - opening
            continue

        tag, i = m.tag_name(data, i + 1, n)
        name_end = i
        ident = m.look_up(tag_keys, tag_ids, tag)
        kind = tag_bits[ident]
        own = kind & _INHERITED
        sign = tag
        count = 0
        no_show, maths = False, False
        value_kind = value_start = value_end = np.int64(0)
        while i < n and data[i] != 62:
            if data[i] <= 32 or data[i] == 47:
                i += 1
                continue
            attribute, i = m.attribute_name(data, i, n)
            from_, to = i, i
            if i + 1 < n and data[i] == 61 and data[i + 1] == 34:
                from_ = i + 2
                to = m.until(data, from_, n, 34)
                i = to + 1
            elif i < n and data[i] == 61:
                i += 1
            what = m.look_up(attribute_keys, attribute_kinds, attribute)
            if what == 0:
                continue
            if what <= t.NAMES:
                previous = count
                count = m.words(data, from_, to, words, count)
                if what == t.CLASS:
                    for k in range(previous, min(count, previous + 6)):
                        sign = m.mixed(sign, words[k])
            elif what == t.STYLE:
                no_show = no_show or m.hides(data, from_, to)
            elif what == t.NO_SHOW:
                no_show = True
            elif what == t.ROLE:
                own |= m.look_up(role_keys, role_bits, m.hash_of(data, from_, to))
            elif what == t.UNSEEN_BY_READERS:
                if m.find(data, from_, to, _TRUE) >= 0:
                    own |= t.UNSEEN
            elif what == t.KIND:
                value_kind, value_start, value_end = m.hash_of(data, from_, to), from_, to
            elif ident == _IMG:
                maths = (
                    maths
                    or m.find(data, from_, to, _LATEX) >= 0
                    or m.find(data, from_, to, _RENDER) >= 0
                    or m.find(data, from_, to, _CODECOGS) >= 0
                )
            elif ident == _META and value_kind == _OG_TYPE:
                names[n_names], owners[n_names] = m.hash_of(data, from_, to), -1
                n_names += 1
        i += 1
        if not kind & (t.BLOCK | t.VOID | t.RAW):
            inline += i - opening
        for k in range(count):
            for known in _MATHS:
                maths = maths or words[k] == known
        if (
            maths
            or ident == _MATH
            or (ident == 0 and data[opening + 1] == 109 and data[opening + 2] == 106 and data[opening + 3] == 120)
        ):
            page[MATHS] = 1

        if kind & t.RAW:
            end = m.raw_end(data, i, n, opening + 1, name_end)
            if ident == _SCRIPT and value_end > value_start:
                if m.find(data, value_start, min(value_end, value_start + 5), _TEX_SCRIPT) >= 0:
                    page[MATHS] = 1
                elif m.find(data, value_start, value_end, _JSON) >= 0:
                    n_names = m.types(data, i, end, names, owners, n_names)
            i = end
            continue
        if kind & t.VOID:
            if bits & t.SKIP:
                continue
            if kind & t.BREAK:
                if bits & t.PRE:
                    if w > start:
                        text[w] = 10
                        w += 1
                elif bits & t.ROW:
                    pending = max(pending, 1)
                else:
                    pending = 4 if pending >= 3 else 3
            elif kind & t.RULE and not bits & (t.PRE | t.ROW):
                w, n_blocks = _flush(blocks, text, start, w, i - inline, n_blocks)
                start, pending = w, 0
            elif ident == _IMG:
                blocks[n_blocks, IMAGES] += 1
            continue
        if ident == _TITLE and page[TITLE_END] == 0 and depth <= 2:
            page[TITLE_START] = i
            page[TITLE_END] = i
            while page[TITLE_END] < n and data[page[TITLE_END]] != 60:
                page[TITLE_END] += 1

        if depth >= max_depth:
            page[STATUS] = 1
            break
        stack_tag[depth], stack_bits[depth], stack_box[depth], stack_kind[depth] = tag, bits, box, kind
        depth += 1
        if ident == _BODY and box < 0:
            bits = np.int64(0)
        if bits & t.SKIP:
            continue
        if kind & t.LEFT_OUT or _is_gutter(words, count, bits, ident):
            bits |= t.SKIP
            continue
        if no_show:
            if not kind & t.BLOCK:
                bits |= t.SKIP
                continue
            own |= t.HIDDEN
        if ident == _A:
            blocks[n_blocks, LINKS] += 1
        if bits & t.PRE:
            if kind & t.BLOCK and w > start and text[w - 1] != 10:
                text[w] = 10
                w += 1
            bits |= own
            continue
        if bits & t.ROW:
            if kind & t.BLOCK:
                pending = 2 if ident in (_TD, _TH) else max(pending, 1)
            bits |= own
            continue
        if kind & t.BLOCK:
            w, n_blocks = _flush(blocks, text, start, w, opening - inline, n_blocks)
            start, pending = w, 0
            row = boxes[n_boxes]
            row[TAG], row[PARENT], row[FIRST], row[LAST] = ident, box, n_blocks, n_blocks
            row[SIGN] = np.int32(sign & np.uint32(0x7FFFFFFF))
            row[BEFORE], row[RUN] = -1, 1
            if box >= 0:
                row[DEPTH] = boxes[box, DEPTH] + 1
                other = last_child[box]
                if other >= 0:
                    row[BEFORE] = other
                    if boxes[other, SIGN] == row[SIGN]:
                        row[RUN] = boxes[other, RUN] + 1
                last_child[box] = n_boxes
            box = n_boxes
            n_boxes += 1
            for k in range(count):
                if n_names < len(names):
                    names[n_names], owners[n_names] = words[k], box
                    n_names += 1
            if ident == _TR and m.is_data_row(data, i, n, tag_keys, tag_ids):
                own |= t.ROW
        bits |= own
    w, n_blocks = _flush(blocks, text, start, w, n - inline, n_blocks)
    while depth > 0:
        depth -= 1
        if box >= 0 and box != stack_box[depth]:
            boxes[box, LAST] = n_blocks
        box = stack_box[depth]
    for k in range(n_boxes - 1, -1, -1):
        boxes[k, RUNS] = max(boxes[k, RUNS], boxes[k, RUN])
        other = boxes[k, BEFORE]
        if boxes[k, RUN] > 1:
            boxes[other, RUNS] = boxes[k, RUNS]
    return page, text[:w], blocks[:n_blocks], block_bits[:n_blocks], boxes[:n_boxes], names[:n_names], owners[:n_names]


@m.jit
def _flush(blocks, text, start, w, source, count):
    """Ends a block at `w`: the new write place and number of blocks. Blocks without text vanish, but not the images seen."""
    while w > start and text[w - 1] <= 32:
        w -= 1
    row = blocks[count]
    if w == start:
        row[CHARS], row[LINK_CHARS], row[STRONG_CHARS], row[LINKS] = 0, 0, 0, 0
        return w, count
    row[END], row[SOURCE] = w, source
    return w, count + 1


@m.jit
def _is_gutter(words, count, bits, ident):
    """Whether an element holds the line numbers of a highlighter."""
    if not (bits & t.PRE or ident == _TD):
        return False
    line, number = False, False
    for k in range(count):
        if words[k] == _LINENO or words[k] == _LINENOS or words[k] == _GUTTER:
            return True
        line = line or words[k] == _LINE
        number = number or words[k] == _NUMBER or words[k] == _NUMBERS
    return line and number
