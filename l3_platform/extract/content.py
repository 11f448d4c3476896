"""Which blocks of a page are its main content.

Three steps, each a rule that can be read off the page: drop the containers that call themselves boilerplate (unless they hold
most of the page), find the smallest container that covers nearly all prose, and drop what stands in it without being prose:
blocks of links, calls to action, headings above nothing.
"""

from __future__ import annotations

import re
from itertools import accumulate

from l3_platform.extract.blocks import Block, Container, Layout

_CHROME_KINDS = frozenset({"nav", "aside", "footer", "header", "form", "chrome"})
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
# Never the whole of the content.
_PARTS = frozenset({"p", "li", "ul", "ol", "span", "tr", "blockquote", "figure", "table", "tbody"})
_PROSE_CHARS = 45  # shorter blocks are hardly ever prose
_MAX_CHROME_SHARE = 0.25  # a container with more of the prose is content, whatever its name
_COVERAGE = 0.9  # of the prose that the main container must hold

_CALL = re.compile(
    r"""^(?:share|tweet|print|email|e-mail|save|reply|report|like|follow(?:\ us)?|subscribe|sign\ (?:in|up)|log\ ?in|register|
    read\ more|learn\ more|see\ (?:more|all)|view\ (?:more|all)|show\ (?:more|less|all)|load\ more|more|next|previous|
    prev|back(?:\ to\ top)?|advertisement|sponsored|skip\ to\ .{3,30}|add\ to\ (?:cart|bag|wishlist)|buy\ now|
    shop\ now|get\ started|contact\ us|download|close|menu|search|home|copy\ link|click\ to\ .{3,40}|leave\ a\ (?:comment|reply)|
    no\ comments(?:\ yet)?|comments?|related(?:\ (?:posts|articles|stories|content|topics))?|table\ of\ contents|
    on\ this\ page|\d+\ (?:comments?|shares?|likes?|views?)|(?:©|copyright\b|\(c\)).{0,120}|all\ rights\ reserved\.?|
    .{0,60}(?:cookie\ policy|privacy\ policy|terms\ of\ (?:use|service)).{0,60})[\s.:!»›→>…]*$""",
    re.IGNORECASE | re.VERBOSE,
)


def main_content(page: Layout) -> list[Block]:
    """The blocks of the main content, in page order."""
    blocks, containers = page.blocks, page.containers
    if not blocks:
        return []
    prose = [_prose(block) for block in blocks]
    dropped = _boilerplate(containers, prose)
    kept_prose = [0 if out else value for value, out in zip(prose, dropped, strict=True)]
    if not any(kept_prose):
        kept_prose = [0 if out else len(block.text) for block, out in zip(blocks, dropped, strict=True)]
    start, end = _main_range(containers, kept_prose)
    chosen = [i for i in range(start, end) if not dropped[i]]
    return _cleaned([blocks[i] for i in chosen])


def _prose(block: Block) -> int:
    """Characters of a block that read like running text or code."""
    chars = len(block.text) - block.link_chars
    if block.tag == "pre":
        return chars
    if chars < _PROSE_CHARS or 2 * block.link_chars > len(block.text):
        return 0
    return chars


def _boilerplate(containers: list[Container], prose: list[int]) -> list[bool]:
    """For each block, whether a container around it is boilerplate by tag, role or name."""
    sums = [0, *accumulate(prose)]
    total = sums[-1]
    dropped = [False] * len(prose)
    for box in containers:
        if box.kind in _CHROME_KINDS and box.end > box.start:
            inside = sums[box.end] - sums[box.start]
            if inside <= _MAX_CHROME_SHARE * total or not total:
                dropped[box.start : box.end] = [True] * (box.end - box.start)
    return dropped


def _main_range(containers: list[Container], prose: list[int]) -> tuple[int, int]:
    """Blocks of the innermost container that still covers the prose; named content areas may cover less."""
    sums = [0, *accumulate(prose)]
    total = sums[-1]
    best, best_size = (0, len(prose)), len(prose) + 1
    for box in containers:
        if box.tag in _PARTS:
            continue
        inside, size = sums[box.end] - sums[box.start], box.end - box.start
        named = box.tag in ("article", "main") or box.kind == "content"
        if inside >= (0.6 if named else _COVERAGE) * total and size <= best_size:
            best, best_size = (box.start, box.end), size
    return best


def _cleaned(blocks: list[Block]) -> list[Block]:
    kept = [block for block in blocks if not _is_noise(block)]
    return [block for i, block in enumerate(kept) if not _is_empty_heading(kept, i)]


def _is_noise(block: Block) -> bool:
    if block.tag == "pre":
        return False
    text = block.text
    if len(text) < 140 and _CALL.match(text):
        return True
    if block.tag in _HEADINGS:
        return False
    return block.link_chars > 0.5 * len(text) and len(text) < 200


def _is_empty_heading(blocks: list[Block], i: int) -> bool:
    """A heading with nothing under it before the next one of its level or above."""
    tag = blocks[i].tag
    if tag not in _HEADINGS:
        return False
    following = blocks[i + 1].tag if i + 1 < len(blocks) else "h1"
    return following in _HEADINGS and following <= tag and tag != "h1"
