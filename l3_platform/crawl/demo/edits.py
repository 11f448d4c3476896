"""Copies of a text at a measured distance: words of its prose replaced until the Jaccard similarity is the wanted one."""

from __future__ import annotations

import re
from html import escape

from l3_platform.crawl.demo.page import draw
from l3_platform.crawl.demo.render import visible_text

_NGRAM = 5
_TAG = re.compile(r"(?s)(<(pre|script|math|code|h\d)\b.*?</\2>|<[^>]*>)")
_WORD = re.compile(r"&\w+;|(?<![\w\\.])[A-Za-z]{4,}(?![\w(.])")


def jaccard(a: str, b: str) -> float:
    """Similarity of the word 5-gram sets of two texts, lower-cased `\\w+` tokens, as duplicate documents are defined."""
    left, right = _shingles(a), _shingles(b)
    return len(left & right) / len(left | right)


def edited(title: str, html: str, target: float, key: str) -> tuple[str, float]:
    """Main content with words replaced, at a similarity with the original as near to `target` as words allow; and that similarity.

    Both are taken over the visible main text: the page's heading `title` and the content.
    """
    original = f"{title}\n{visible_text(html)}"
    places = _places(html)
    best: tuple[float, str, float] | None = None
    low, high = 1, len(places)
    while low <= high:
        count = (low + high) // 2
        candidate = replace_words(html, count, key)
        reached = jaccard(original, f"{title}\n{visible_text(candidate)}")
        if best is None or abs(reached - target) < best[0]:
            best = (abs(reached - target), candidate, reached)
        if reached > target:
            low = count + 1
        else:
            high = count - 1
    if best is None:
        raise ValueError(f"{title}: there is no prose to edit")
    return best[1], best[2]


def replace_words(html: str, count: int, key: str) -> str:
    """`count` words of the prose, evenly spread, replaced by other words of the same text."""
    places = _places(html)
    words = sorted({html[start:end].lower() for start, end in places})
    out, last = [], 0
    for i in range(min(count, len(places))):
        start, end = places[i * len(places) // count]
        word = words[int(draw(key, count, i) * len(words))]
        if word == html[start:end].lower():
            word = words[(words.index(word) + 1) % len(words)]
        out += [html[last:start], word.capitalize() if html[start].isupper() else word]
        last = end
    return "".join([*out, html[last:]])


def prose_words(html: str) -> int:
    """How many words could be replaced."""
    return len(_places(html))


def insert_paragraphs(html: str, paragraphs: list[str], key: str) -> str:
    """Main content with further paragraphs of plain text between its own, at drawn places."""
    ends = [found.end() for found in re.finditer(r"</p>\n(?=<(?:p|h\d|dl|ul|div)\b)", html)] or [len(html)]
    at = sorted((ends[int(draw(key, i) * len(ends))], i) for i in range(len(paragraphs)))
    out, last = [], 0
    for place, i in at:
        out += [html[last:place], f"<p>{escape(paragraphs[i], quote=False)}</p>\n"]
        last = place
    return "".join([*out, html[last:]])


def _places(html: str) -> list[tuple[int, int]]:
    """Spans of plain words of four letters or more, outside tags, code, maths and headings."""
    places, at = [], 0
    for tag in [*_TAG.finditer(html), None]:
        end = tag.start() if tag else len(html)
        places += [found.span() for found in _WORD.finditer(html, at, end) if html[found.start()] != "&"]
        at = tag.end() if tag else end
    return places


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + _NGRAM]) for i in range(max(1, len(words) - _NGRAM + 1))}
