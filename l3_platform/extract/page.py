"""One page: bytes in, title, text, formulas and code out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from selectolax.lexbor import LexborHTMLParser

from l3_platform.extract.blocks import Block, TooDeep, layout, refuse_deep
from l3_platform.extract.charset import Undecodable, decode
from l3_platform.extract.content import main_content
from l3_platform.extract.formulas import mark_formulas, unmark
from l3_platform.settings import Extract

_LINES = frozenset({"li", "tr", "dt", "dd", "option"})  # blocks that follow each other as lines, not as paragraphs
_THIN_CHARS = 800  # less text than this is worth a second reading, which has to find
_GAIN = 3  # times as much, and no mere crumb
_CRUMB_CHARS = 200


@dataclass(frozen=True)
class Page:
    """What `extract` found. `formulas` are LaTeX without delimiters, `code_blocks` the `<pre>` blocks; both are in `text` too."""

    title: str
    text: str
    formulas: tuple[str, ...]
    code_blocks: tuple[str, ...]
    charset: str = "utf-8"


class ExtractError(ValueError):
    """A page that cannot be extracted. `reason` is its quarantine reason: undecodable, too_large, too_deep or too_slow."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def extract(html: bytes, url: str = "", charset: str = "", settings: Extract | None = None) -> Page:
    """Main content of a page as plain text: paragraphs apart by an empty line, list items and table rows as lines.

    `charset` is what the HTTP header declares; `url` only names the page in errors. Raises ExtractError.
    """
    settings = settings or Extract()
    clock = _Clock(settings.max_seconds, url)
    if len(html) > settings.max_html_bytes:
        raise ExtractError("too_large", f"{url}: {len(html):,} bytes; extract.max_html_bytes is {settings.max_html_bytes:,}")
    try:
        source, name = decode(html, charset)
    except Undecodable as error:
        raise ExtractError("undecodable", f"{url}: {error}") from None
    clock.check("decoding")
    if settings.engine != "l3":
        return Page("", _peer(settings.engine)(source), (), (), name)
    try:
        refuse_deep(source, settings.max_depth)
        tree = LexborHTMLParser(source)
    except TooDeep as error:
        raise ExtractError("too_deep", f"{url}: {error}; extract.max_depth sets the limit") from None
    clock.check("parsing")
    title = _title(tree)
    loads_tex = mark_formulas(tree, source)
    clock.check("the maths pass")
    try:
        chosen = main_content(layout(tree, settings.max_depth))
        clock.check("the walk")
        if _chars(chosen) < _THIN_CHARS:
            again = _leniently(source, settings.max_depth)
            chosen = again if _chars(again) > max(_CRUMB_CHARS, _GAIN * _chars(chosen)) else chosen
            clock.check("the second walk")
    except TooDeep as error:
        raise ExtractError("too_deep", f"{url}: {error}; extract.max_depth sets the limit") from None
    text, formulas = unmark(_joined(chosen), dollars=loads_tex)
    code = tuple(unmark(block.text, dollars=False)[0] for block in chosen if block.tag == "pre")
    return Page(title, text, tuple(formulas), code, name)


def _leniently(source: str, max_depth: int) -> list[Block]:
    """A second reading, of a page that gave next to nothing."""
    tree = LexborHTMLParser(source)
    mark_formulas(tree, source)
    return main_content(layout(tree, max_depth, lenient=True))


def _chars(blocks: list[Block]) -> int:
    return sum(len(block.text) for block in blocks)


class _Clock:
    """Time since the page began, checked between passes: a pass of C code cannot be interrupted."""

    def __init__(self, limit: float, url: str) -> None:
        self.limit, self.url, self.start = limit, url, time.monotonic()

    def check(self, after: str) -> None:
        seconds = time.monotonic() - self.start
        if seconds > self.limit:
            raise ExtractError("too_slow", f"{self.url}: over extract.max_seconds = {self.limit:g} s after {after}")


def _title(tree: LexborHTMLParser) -> str:
    """The `<title>`, or where there is none the first heading, as one line."""
    for selector in ("title", "h1"):
        node = tree.css_first(selector)
        text = " ".join(node.text(deep=True).split()) if node is not None else ""
        if text:
            return text
    return ""


def _joined(blocks: list[Block]) -> str:
    parts: list[str] = []
    for i, block in enumerate(blocks):
        if i:
            together = block.tag in _LINES and blocks[i - 1].tag == block.tag
            parts.append("\n" if together else "\n\n")
        parts.append(block.text)
    return "".join(parts)


def _peer(engine: str) -> Callable[[str], str]:
    """Another extractor, for comparison. Needs the extra `bench`."""
    modules = {"trafilatura": "trafilatura", "resiliparse": "resiliparse.extract.html2text"}
    try:
        module = import_module(modules[engine])
    except ImportError:
        raise ImportError(f"extract.engine={engine} needs the package {engine}: pip install 'l3-platform[bench]'") from None
    if engine == "trafilatura":
        return lambda source: module.extract(source, include_comments=True, include_tables=True) or ""
    return lambda source: module.extract_plain_text(source, main_content=True, alt_texts=True)
