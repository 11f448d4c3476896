"""A page's source without what extraction never reads, before it is parsed: code of scripts, styles, comments, most attributes,
and elements that say nothing of the text in them, as the spans by which code is coloured.

Those are two thirds of the bytes of a page, and the parser, its serialiser and the scan would each go through them. The same
pass bounds what the parser will have to do with the rest, for `guard`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from l3_platform.extract import markup as m
from l3_platform.extract import tags as t
from l3_platform.unaligned import load64, store64

_FORMATTING, _IMPLIED, _VOID, _RAW, _CUT, _META, _SOURCED, _LAST, _FOREIGN, _BLOCK, _DROP, _INLINE, _PLAIN = (
    1 << i for i in range(13)
)
_ALWAYS, _STYLE, _CONTENT, _SRC, _WORDS = 1, 2, 3, 4, 5
_MAX_SRC = 2000  # bytes: longer ones hold the image itself

_FORMATTING_TAGS = ("b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u")
_IMPLIED_TAGS = ("p", "li", "dt", "dd", "option", "tr", "td", "th", "tbody", "thead", "tfoot", "path", "use")
_KINDS: dict[str, int] = {name: _FORMATTING for name in _FORMATTING_TAGS} | {name: _IMPLIED for name in _IMPLIED_TAGS}
_KINDS |= {name: _BLOCK | _KINDS.get(name, 0) for name, i in t.TAG_ID.items() if t.TAG_BITS[i] & t.BLOCK}
_KINDS |= {t.TAGS[i]: _VOID for i in np.flatnonzero(t.TAG_BITS & t.VOID)}
_KINDS |= dict.fromkeys(("title", "textarea", "xmp", "iframe", "noembed", "noframes"), _RAW)
_KINDS |= {
    "script": _RAW | _CUT | _SOURCED,
    "style": _RAW | _CUT,
    "meta": _VOID | _META,
    "img": _VOID | _SOURCED,
    "plaintext": _LAST,
}
_KINDS |= {"svg": _FOREIGN | _RAW | _CUT, "math": _FOREIGN} | dict.fromkeys(
    ("link", "source", "base", "track", "wbr", "input"), _VOID | _DROP
)
_INLINE_TAGS = ("a", "b", "em", "i", "label", "mark", "strong")
_PLAIN_TAGS = ("abbr", "cite", "code", "dfn", "font", "kbd", "samp", "small", "span", "sub", "sup", "time", "tt", "u", "var")
_KINDS |= {name: _INLINE | _KINDS.get(name, 0) for name in _INLINE_TAGS + _PLAIN_TAGS}
_KINDS |= {name: _PLAIN | _KINDS[name] for name in _PLAIN_TAGS}
_TAGS = t.table({t.fnv(name): kind for name, kind in _KINDS.items()})
_NAMES = ("hidden", "role", "aria-hidden", "type", "property", "alt", "encoding", "alttext", "display", "open", "close")
_ATTRIBUTES = t.table(
    {t.fnv(name): _ALWAYS for name in _NAMES}
    | {t.fnv(name): _WORDS for name in ("class", "id", "itemprop", "itemtype", "data-testid")}
    | {t.fnv("style"): _STYLE, t.fnv("content"): _CONTENT, t.fnv("src"): _SRC}
)
# Of the names of inline elements only those of formulas and of line numbers are read.
_TELLING_WORDS = (
    "katex", "mathjax", "mjx", "mjxc", "mwe", "tex", "latex", "math", "line", "number", "numbers", "lineno", "linenos", "gutter",
)  # fmt: skip
_TELLING = t.table({t.fnv(word): 1 for word in _TELLING_WORDS})
_MOST_WORDS = 64  # of one attribute
_NESTED = 16  # elements inside one another that may turn out to hold text alone
_LONGEST_ENTITY = 40
_HIDDEN, _JSON, _TEX = m.needle(" hidden"), m.needle("ld+json"), m.needle("math/")


@dataclass(frozen=True)
class Cost:
    """Bounds from above of what a parser has to do with a page."""

    size: int  # bytes of the source
    depth: int  # of nesting
    work: int  # steps, some nanoseconds each
    copies: int  # of formatting elements that are not closed and opened again in each block, some hundred bytes each


def slim(source: str) -> tuple[bytes, Cost]:
    """The source, in UTF-8, without what is never read, and the cost of parsing it."""
    data = np.frombuffer(source.encode("utf-8", "replace"), np.uint8)
    kept, depth, work, copies = _slim(data, *_TAGS, *_ATTRIBUTES, *_TELLING)
    return kept.tobytes(), Cost(len(data), depth, work, copies)


@m.jit
def _slim(data, tag_keys, tag_kinds, attribute_keys, attribute_kinds, telling_keys, telling):
    n = len(data)
    words = np.empty(_MOST_WORDS, np.uint32)
    # Elements that are open, say nothing by themselves and hold no other so far: their names, where they and their text begin.
    plain, plain_at, plain_text = np.empty(_NESTED, np.uint32), np.empty(_NESTED, np.int64), np.empty(_NESTED, np.int64)
    plains = 0
    out = np.empty(n + n // 4 + 16, np.uint8)  # ` hidden` may be longer than the style that it stands for
    depth = deepest = formatting = copies = work = w = 0
    foreign = embedded = 0  # SVG and MathML that are open: surely, for the parser leaves them at some tags; and as they are written
    i = 0
    while i < n:
        begin = i
        i = m.until(data, i, n, 60)
        w = _copy(data, begin, i, out, w)
        if i + 1 >= n:
            w = _copy(data, i, n, out, w)
            break
        c = m.lower(data[i + 1])
        if c == 33 and i + 3 < n and data[i + 2] == 45 and data[i + 3] == 45:
            i = _comment_end(data, i + 4, n)
            continue
        if c == 47:
            start, first = i, w
            name, i = m.tag_name(data, i + 2, n)
            i = m.until(data, i, n, 62)
            w = _copy(data, start, min(i + 1, n), out, w)
            i += 1
            kind = m.look_up(tag_keys, tag_kinds, name)
            if plains and plain[plains - 1] == name and _is_removable(out, plain_at[plains - 1], plain_text[plains - 1], first):
                plains -= 1
                w = _copy(out, plain_text[plains], first, out, plain_at[plains])
            else:
                plains = 0
            if not kind & (_IMPLIED | _VOID | _RAW):
                depth = max(0, depth - 1)
            if kind & _FOREIGN:
                foreign, embedded = max(0, foreign - 1), max(0, embedded - 1)
            if kind & _FORMATTING:
                formatting = max(0, formatting - 1)
            continue
        if c < 97 or c > 122:
            plains = 0
            out[w] = 60
            w += 1
            i += 1
            continue

        start, first = i, w
        name, i = m.tag_name(data, i + 1, n)
        end = i
        kind = m.look_up(tag_keys, tag_kinds, name)
        w = _copy(data, start, i, out, w)
        attributes = 0
        if kind & (_BLOCK | _FORMATTING):
            foreign = 0  # the parser leaves SVG and MathML at these
        elif kind & _FOREIGN:
            foreign, embedded = foreign + 1, embedded + 1
        closed = False
        kept = not kind & _CUT
        while i < n and data[i] != 62:
            if data[i] <= 32 or data[i] == 47:
                closed = data[i] == 47
                i += 1
                continue
            closed = False
            begin = i
            attribute, i = m.attribute_name(data, i, n)
            i, from_, to = _value(data, i, n)
            what = m.look_up(attribute_keys, attribute_kinds, attribute)
            if what == 0:
                continue
            if what == _STYLE:
                if m.hides(data, from_, to):
                    w = _copy(_HIDDEN, 0, len(_HIDDEN), out, w)
                    attributes += 1
                continue
            if (what == _CONTENT and not kind & _META) or (what == _SRC and not (kind & _SOURCED and to - from_ < _MAX_SRC)):
                continue
            if what == _WORDS and kind & _INLINE and not _tells(data, from_, to, words, telling_keys, telling):
                continue
            kept = kept or m.find(data, from_, to, _JSON) >= 0 or m.find(data, from_, to, _TEX) >= 0
            out[w] = 32
            w = _copy(data, begin, min(i, n), out, w + 1)
            attributes += 1
        if i >= n:  # a tag that never ends: the parser knows what becomes of it
            w = _copy(data, start, n, out, first)
            break
        if closed:
            out[w], out[w + 1] = 32, 47
            w += 2
        out[w] = 62
        w += 1
        i += 1
        if closed and kind & _FOREIGN:
            foreign, embedded = foreign - 1, embedded - 1
        if kind & _DROP:
            w = first
            continue
        if kind & _PLAIN and attributes == 0 and embedded == 0 and not closed:
            plains = plains if plains < _NESTED else 0
            plain[plains], plain_at[plains], plain_text[plains] = name, first, w
            plains += 1
        else:
            plains = 0
        if kind & _LAST:
            w = _copy(data, i, n, out, w)
            break
        stop = n
        if kind & _RAW and not (closed and kind & _FOREIGN):
            stop = m.raw_end(data, i, n, start + 1, end)
        if kind & _RAW and (stop < n or not kind & _FOREIGN):
            if kept:
                w = _copy(data, i, stop, out, w)
            i = stop
        elif not kind & (_IMPLIED | _VOID) and not (closed and foreign > 0):
            depth += 1
            deepest = max(deepest, depth)
        # The same element is opened again at most three times: only attributes make many of them.
        formatting += kind & _FORMATTING != 0 and (attributes > 0 or formatting < 3 * len(_FORMATTING_TAGS))
        copies += formatting
        work += depth + attributes * attributes
    return out[:w], deepest, work + 8 * copies, copies


@m.jit
def _tells(data, start, end, words, telling_keys, telling):
    """Whether a class or id has one of the words that are read on inline elements too."""
    telling_ones = 0
    for k in range(m.words(data, start, end, words, 0)):
        telling_ones += m.look_up(telling_keys, telling, words[k])
    return telling_ones > 0


@m.jit
def _is_removable(out, at, start, end):
    """Whether text may lose the tags around it, of which the first is at `at`: not where the parser would then read it otherwise.

    It drops a line break after `<pre>`, moves text out of tables but no white space, and joins `<` or `&` to what follows.
    """
    before = out[at - 1] if at else np.uint8(62)
    if before == 60 or (start == end and before <= 32) or ((start == end or out[start] <= 32) and before == 62):
        return False
    return not _in_entity(out, at) and not _in_entity(out, end)


@m.jit
def _in_entity(out, end):
    """Whether the text up to `end` may be the beginning of a character reference."""
    for k in range(end - 1, max(-1, end - _LONGEST_ENTITY), -1):
        c = out[k]
        if c == 38:
            return True
        if not (c == 35 or (c >= 48 and c <= 57) or (c >= 65 and c <= 90) or (c >= 97 and c <= 122)):
            return False
    return end > _LONGEST_ENTITY


@m.jit
def _copy(data, start, end, out, w):
    """data[start:end] to `w`, which may be the same array further left; the place after it."""
    k = start
    while k + 8 <= end:
        store64(out, w, load64(data, k))
        k += 8
        w += 8
    while k < end:
        out[w] = data[k]
        k += 1
        w += 1
    return w


@m.jit
def _comment_end(data, i, n):
    """The place after a comment whose text begins at `i`; `<!-->` and `<!--->` are whole."""
    if i < n and data[i] == 62:
        return i + 1
    if i + 1 < n and data[i] == 45 and data[i + 1] == 62:
        return i + 2
    end = m.until(data, i + 2, n, 62)
    while end < n:
        if data[end - 1] == 45 and data[end - 2] == 45:
            return end + 1
        if data[end - 1] == 33 and end - 3 >= i and data[end - 2] == 45 and data[end - 3] == 45:
            return end + 1
        end = m.until(data, end + 1, n, 62)
    return n


@m.jit
def _value(data, i, n):
    """The place after an attribute whose name ends at `i`, and the bounds of its value."""
    k = i
    while k < n and data[k] <= 32:
        k += 1
    if k >= n or data[k] != 61:
        return i, i, i
    k += 1
    while k < n and data[k] <= 32:
        k += 1
    if k < n and (data[k] == 34 or data[k] == 39):
        quote = data[k]
        start = k + 1
        k = m.until(data, start, n, quote)
        return k + 1, start, k
    start = k
    while k < n and data[k] > 32 and data[k] != 62:
        k += 1
    return k, start, k
