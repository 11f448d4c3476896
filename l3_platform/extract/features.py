"""Blocks as rows of numbers: what a block is, where it stands, what holds it, what stands beside it, and what the page is like."""

from __future__ import annotations

import numpy as np

from l3_platform.extract import markup as m
from l3_platform.extract import scan as s
from l3_platform.extract import tags as t
from l3_platform.extract import words as w

LEVELS = 5  # containers above a block that are described, its own element first
STATE_BITS = 26

_PROSE_CHARS = 45  # shorter blocks are hardly ever prose
_PRE, _ARTICLE, _MAIN, _P, _H1, _LI = (t.TAG_ID[name] for name in ("pre", "article", "main", "p", "h1", "li"))
_HEADING_RANK = np.array(
    [int(name[1]) if len(name) == 2 and name[0] == "h" and name[1].isdigit() else 0 for name in t.TAGS], np.int32
)
_TYPE_NAMES = (
    "article", "newsarticle", "blogposting", "product", "itemlist", "collectionpage", "discussionforumposting", "qapage",
    "faqpage", "website", "webpage", "softwareapplication", "techarticle", "recipe", "localbusiness", "service", "blog", "event",
)  # fmt: skip
_TYPES = np.array([t.fnv(name) for name in _TYPE_NAMES], np.uint32)

OWN, STATE, PLACE = 22, STATE_BITS - 1, 16
LEVEL, BRANCH, GROUP, BESIDE = 8, 10, 6, 14
PAGE = 14 + len(_TYPE_NAMES)
FEATURES = OWN + STATE + PLACE + LEVELS * LEVEL + 5 + BRANCH + GROUP + BESIDE + PAGE
SECOND = 27  # more columns, for what a first forest says: see `forest.look_again`


@m.jit
def features(blocks, bits, boxes, names, owners, words, name_sums):
    """Float32 [blocks, FEATURES + SECOND] of the tables that `scan` and `words` make; the last SECOND are 0 still."""
    n = len(blocks)
    x = np.zeros((n, FEATURES + SECOND), np.float32)
    if n == 0:
        return x
    prose = np.zeros(n, np.float32)
    sums = np.zeros((n + 1, 5), np.float64)  # words, characters, of links, prose, blocks of prose
    for i in range(n):
        chars, links = blocks[i, s.CHARS], blocks[i, s.LINK_CHARS]
        tag = boxes[blocks[i, s.CONTAINER], s.TAG]
        if tag == _PRE or (chars - links >= _PROSE_CHARS and 2 * links <= chars):
            prose[i] = chars - links
        sums[i + 1, 0] = sums[i, 0] + words[i, w.WORDS]
        sums[i + 1, 1] = sums[i, 1] + chars
        sums[i + 1, 2] = sums[i, 2] + links
        sums[i + 1, 3] = sums[i, 3] + prose[i]
        sums[i + 1, 4] = sums[i, 4] + (prose[i] > 0)
    main, core = _covering(boxes, sums, 0.9), _covering(boxes, sums, 0.6)
    article, n_articles = _largest(boxes, sums, _ARTICLE)
    main_tag, _ = _largest(boxes, sums, _MAIN)
    page = np.zeros(PAGE, np.float32)
    _page(page, blocks, boxes, names, owners, sums, words, article, n_articles, main_tag)
    group, groups = _groups(blocks, boxes, words)
    headings = np.full(2, -1, np.int64)
    first_h1 = -1
    for i in range(n):
        if boxes[blocks[i, s.CONTAINER], s.TAG] == _H1:
            first_h1 = i
            break
    previous_prose = -1
    for i in range(n):
        at = 0
        _own(x[i], at, blocks, boxes, words, prose, i)
        at += OWN
        for k in range(1, STATE_BITS):
            x[i, at + k - 1] = (bits[i] >> k) & 1
        at += STATE
        _place(x[i], at, blocks, boxes, words, sums, i, headings, first_h1, previous_prose, main, core, article, main_tag)
        at += PLACE
        _above(x[i], at, blocks, boxes, sums, name_sums, i, main)
        at += LEVELS * LEVEL + 5 + BRANCH
        g = groups[group[i]]
        x[i, at] = g[0]
        x[i, at + 1] = g[1] / g[0]
        x[i, at + 2] = g[2] / max(1.0, g[3])
        x[i, at + 3] = (g[5] - g[4] + 1) / n
        x[i, at + 4] = g[0] / (g[5] - g[4] + 1)
        x[i, at + 5] = g[1] / max(1.0, sums[n, 0])
        at += GROUP
        _beside(x[i], at, blocks, boxes, words, prose, sums, i)
        at += BESIDE
        x[i, at : at + PAGE] = page
        rank = _HEADING_RANK[boxes[blocks[i, s.CONTAINER], s.TAG]]
        if rank > 0:
            headings[0], headings[1] = i, rank
        if prose[i] > 0:
            previous_prose = i
    following = -1
    for i in range(n - 1, -1, -1):
        x[i, OWN + STATE + 9] = min(50, following - i) if following >= 0 else 50
        if prose[i] > 0:
            following = i
    return x


@m.jit
def _own(x, at, blocks, boxes, words, prose, i):
    chars = blocks[i, s.CHARS]
    count = max(np.float32(1), words[i, w.WORDS])
    x[at] = np.log1p(words[i, w.WORDS])
    x[at + 1] = chars / count
    x[at + 2] = blocks[i, s.LINK_CHARS] / max(1, chars)
    x[at + 3] = blocks[i, s.LINKS]
    x[at + 4] = words[i, w.SENTENCES]
    x[at + 5] = words[i, w.COMMAS] / count
    x[at + 6] = words[i, w.DIGITS] / max(1, chars)
    x[at + 7] = words[i, w.UPPER] / count
    x[at + 8] = words[i, w.ENDING]
    x[at + 9] = blocks[i, s.STRONG_CHARS] / max(1, chars)
    x[at + 10] = blocks[i, s.IMAGES]
    before = blocks[i - 1, s.SOURCE] if i else 0
    x[at + 11] = chars / max(1, blocks[i, s.SOURCE] - before)
    x[at + 12] = words[i, w.SUM]
    x[at + 13] = words[i, w.SUM] / np.sqrt(max(np.float32(1), words[i, w.KNOWN]))
    x[at + 14] = words[i, w.LEAST]
    x[at + 15] = words[i, w.MOST]
    x[at + 16] = words[i, w.FIRST_WORD]
    x[at + 17] = words[i, w.REPEAT]
    x[at + 18] = words[i, w.SAME]
    x[at + 19] = words[i, w.IN_TITLE] / count
    x[at + 20] = boxes[blocks[i, s.CONTAINER], s.TAG]
    x[at + 21] = prose[i] > 0


@m.jit
def _place(x, at, blocks, boxes, words, sums, i, headings, first_h1, previous_prose, main, core, article, main_tag):
    n = len(blocks)
    x[at] = i / n
    x[at + 1] = sums[i, 0] / max(1.0, sums[n, 0])
    x[at + 2] = np.log1p(i)
    x[at + 3] = np.log1p(n - 1 - i)
    x[at + 4] = sums[i, 3] / max(1.0, sums[n, 3])
    x[at + 5] = max(-50, min(200, i - first_h1)) if first_h1 >= 0 else -51
    x[at + 6] = headings[1] if headings[0] >= 0 else 7
    x[at + 7] = min(50, i - headings[0]) if headings[0] >= 0 else 51
    x[at + 8] = min(50, i - previous_prose) if previous_prose >= 0 else 50
    # at + 9: distance to the next prose, filled from behind
    if headings[0] >= 0:
        x[at + 10] = words[headings[0], w.SUM]
        x[at + 11] = words[headings[0], w.WORDS]
    x[at + 12] = _side(boxes, main, i)
    x[at + 13] = _side(boxes, core, i)
    x[at + 14] = _side(boxes, article, i)
    x[at + 15] = _side(boxes, main_tag, i)


@m.jit
def _side(boxes, box, i):
    """-1 before a container, 0 in it, 1 after it; 2 where there is none."""
    if box < 0:
        return 2
    return -1 if i < boxes[box, s.FIRST] else 0 if i < boxes[box, s.LAST] else 1


@m.jit
def _above(x, at, blocks, boxes, sums, name_sums, i, main):
    """The containers of a block, from its own element up, then what lies between it and the main container."""
    n = len(blocks)
    box = blocks[i, s.CONTAINER]
    total, prose = max(1.0, sums[n, 0]), max(1.0, sums[n, 3])
    level = 0
    runs = 1
    widest, branch, under = -1, -1, 0
    up = box
    while up >= 0:
        first, last = boxes[up, s.FIRST], boxes[up, s.LAST]
        if level < LEVELS:
            x[at] = np.log1p(sums[last, 0] - sums[first, 0])
            x[at + 1] = (sums[last, 2] - sums[first, 2]) / max(1.0, sums[last, 1] - sums[first, 1])
            x[at + 2] = last - first
            x[at + 3] = (sums[last, 3] - sums[first, 3]) / prose
            x[at + 4] = boxes[up, s.RUNS]
            x[at + 5] = name_sums[up, w.OWN]
            x[at + 6] = boxes[up, s.TAG]
            x[at + 7] = (i - first) / max(1, last - first)
            at += LEVEL
        if boxes[up, s.RUNS] > runs:
            runs, widest = boxes[up, s.RUNS], up
        if up == main:
            branch = under
        under = up
        level += 1
        up = boxes[up, s.PARENT]
    at += (LEVELS - min(level, LEVELS)) * LEVEL
    x[at] = level
    x[at + 1] = name_sums[box, w.WORST]
    x[at + 2] = name_sums[box, w.BEST]
    x[at + 3] = name_sums[box, w.TOTAL]
    x[at + 4] = runs
    at += 5
    if widest >= 0:
        first, last = boxes[widest, s.FIRST], boxes[widest, s.LAST]
        x[at] = np.log1p(sums[last, 0] - sums[first, 0])
        x[at + 1] = (sums[last, 2] - sums[first, 2]) / max(1.0, sums[last, 1] - sums[first, 1])
        x[at + 2] = last - first
        x[at + 3] = boxes[widest, s.RUN] / boxes[widest, s.RUNS]
    if branch >= 0:
        first, last = boxes[branch, s.FIRST], boxes[branch, s.LAST]
        x[at + 4] = np.log1p(sums[last, 0] - sums[first, 0])
        x[at + 5] = (sums[last, 2] - sums[first, 2]) / max(1.0, sums[last, 1] - sums[first, 1])
        x[at + 6] = (sums[last, 0] - sums[first, 0]) / total
        x[at + 7] = (sums[last, 3] - sums[first, 3]) / prose
        x[at + 8] = name_sums[branch, w.OWN]
        x[at + 9] = boxes[branch, s.TAG]


@m.jit
def _beside(x, at, blocks, boxes, words, prose, sums, i):
    n = len(blocks)
    for k, step in enumerate((-2, -1, 1, 2)):
        j = i + step
        if 0 <= j < n:
            x[at + 3 * k] = np.log1p(words[j, w.WORDS])
            x[at + 3 * k + 1] = blocks[j, s.LINK_CHARS] / max(1, blocks[j, s.CHARS])
            x[at + 3 * k + 2] = boxes[blocks[j, s.CONTAINER], s.TAG]
        else:
            x[at + 3 * k + 1] = -1
    low, high = max(0, i - 6), min(n, i + 7)
    x[at + 12] = sums[high, 3] - sums[low, 3]
    x[at + 13] = (sums[high, 2] - sums[low, 2]) / max(1.0, sums[high, 1] - sums[low, 1])


@m.jit
def _covering(boxes, sums, share):
    """The innermost container that holds this share of the prose."""
    n = len(sums) - 1
    best, size = -1, n + 1
    for k in range(len(boxes)):
        first, last = boxes[k, s.FIRST], boxes[k, s.LAST]
        if sums[last, 3] - sums[first, 3] >= share * sums[n, 3] and last - first <= size and last > first:
            best, size = k, last - first
    return best


@m.jit
def _largest(boxes, sums, tag):
    """The container of a tag with the most prose, and how many there are."""
    best, most, count = -1, -1.0, 0
    for k in range(len(boxes)):
        if boxes[k, s.TAG] == tag:
            count += 1
            inside = sums[boxes[k, s.LAST], 3] - sums[boxes[k, s.FIRST], 3]
            if inside > most:
                best, most = k, inside
    return best, count


@m.jit
def same_kind(blocks, boxes, levels):
    """For each block its group: blocks whose innermost containers have the same tags and classes. And how many groups."""
    n = len(blocks)
    size = 1 << (int(np.log2(n)) + 2)
    keys = np.zeros(size, np.uint32)
    index = np.zeros(size, np.int64)
    of_block = np.zeros(n, np.int64)
    count = 0
    for i in range(n):
        box = blocks[i, s.CONTAINER]
        key = np.uint32(7)
        for _ in range(levels):
            if box >= 0:
                key = m.mixed(np.uint32(key ^ np.uint32(boxes[box, s.SIGN])), np.uint8(11))
                box = boxes[box, s.PARENT]
        key |= np.uint32(1)
        place = key & np.uint32(size - 1)
        while keys[place] != 0 and keys[place] != key:
            place = np.uint32((place + np.uint32(1)) & np.uint32(size - 1))
        if keys[place] == 0:
            keys[place], index[place] = key, count
            count += 1
        of_block[i] = index[place]
    return of_block, count


@m.jit
def _groups(blocks, boxes, words):
    """Groups of `same_kind` two levels up: [groups, 6] count, words, link characters, characters, first, last."""
    of_block, count = same_kind(blocks, boxes, 2)
    out = np.zeros((count, 6), np.float64)
    for i in range(len(blocks)):
        row = out[of_block[i]]
        if row[0] == 0:
            row[4] = i
        row[0] += 1
        row[1] += words[i, w.WORDS]
        row[2] += blocks[i, s.LINK_CHARS]
        row[3] += blocks[i, s.CHARS]
        row[5] = i
    return of_block, out


@m.jit
def _page(x, blocks, boxes, names, owners, sums, words, article, n_articles, main_tag):
    n = len(blocks)
    x[0] = np.log1p(n)
    x[1] = np.log1p(sums[n, 0])
    x[2] = sums[n, 2] / max(1.0, sums[n, 1])
    x[3] = sums[n, 3] / max(1.0, sums[n, 1])
    x[4] = sums[n, 4]
    x[5] = n_articles
    if article >= 0:
        x[6] = (sums[boxes[article, s.LAST], 3] - sums[boxes[article, s.FIRST], 3]) / max(1.0, sums[n, 3])
    if main_tag >= 0:
        x[7] = (sums[boxes[main_tag, s.LAST], 3] - sums[boxes[main_tag, s.FIRST], 3]) / max(1.0, sums[n, 3])
    longest = 0.0
    for i in range(n):
        tag = boxes[blocks[i, s.CONTAINER], s.TAG]
        x[8] += tag == _P
        x[9] += tag == _LI
        x[10] += tag == _PRE
        x[11] += _HEADING_RANK[tag] > 0
        longest = max(longest, words[i, w.WORDS])
    x[12] = longest
    x[13] = sums[n, 3] / max(1.0, sums[n, 4])
    for k in range(len(names)):
        if owners[k] < 0:
            for j in range(len(_TYPES)):
                if names[k] == _TYPES[j]:
                    x[14 + j] = 1
