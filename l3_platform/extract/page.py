"""One page: bytes in, title, text, formulas and code out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module

import numpy as np

from l3_platform.extract import markup as m
from l3_platform.extract import scan as s
from l3_platform.extract import tags as t
from l3_platform.extract.charset import Undecodable, decode
from l3_platform.extract.forest import content, shipped
from l3_platform.extract.formulas import unmark
from l3_platform.extract.guard import TooSlow, guarded
from l3_platform.extract.layout import Layout, TooDeep, read
from l3_platform.extract.slim import slim
from l3_platform.settings import Extract

# Blocks that follow each other as lines, not as paragraphs.
_LINES = np.isin(t.TAGS, ["li", "tr", "dt", "dd", "option"])
_Parts = tuple[str, str, tuple[str, ...], tuple[str, ...]]  # title, text, formulas, code
_TEX_LOADERS = ("athJax", "athjax", "KaTeX", "katex")


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
    if len(html) > settings.max_html_bytes:
        raise ExtractError("too_large", f"{url}: {len(html):,} bytes; extract.max_html_bytes is {settings.max_html_bytes:,}")
    try:
        source, name = decode(html, charset)
        read_page = _ready() if settings.engine == "l3" else _peer(settings.engine)
        slimmed, cost = slim(source)
        title, text, formulas, code = guarded(lambda: read_page(slimmed, source, settings.max_depth), cost, settings)
    except Undecodable as error:
        raise ExtractError("undecodable", f"{url}: {error}") from None
    except TooDeep as error:
        raise ExtractError("too_deep", f"{url}: {error}; extract.max_depth sets the limit") from None
    except TooSlow as error:
        raise ExtractError("too_slow", f"{url}: {error}") from None
    return Page(title, text, formulas, code, name)


@cache
def _ready() -> Callable[[bytes, str, int], _Parts]:
    """Our extractor, its kernels compiled: the first page of a process must not pay for that out of its time."""
    _ours(slim("<p>one</p>")[0], "", 8)
    return _ours


def _ours(slimmed: bytes, source: str, max_depth: int) -> _Parts:
    """Title, text, formulas and code of a page."""
    layout, weights = read(slimmed, max_depth), shipped()
    words = layout.words(weights.words)
    x = layout.features(words, weights.names)
    chosen = np.flatnonzero(content(x, layout.blocks, layout.boxes, words, weights))
    joined = render(layout, chosen)
    text, formulas = unmark(joined, dollars="$" in joined and any(name in source for name in _TEX_LOADERS))
    tags = layout.tags()
    code = tuple(unmark(layout.block(i), dollars=False)[0] for i in chosen[tags[chosen] == t.TAG_ID["pre"]].tolist())
    title = layout.title or next((layout.block(i) for i in np.flatnonzero(tags == t.TAG_ID["h1"]).tolist()), "")
    return title, text, tuple(formulas), code


def render(layout: Layout, chosen: np.ndarray) -> str:
    """The text of the chosen blocks, int64 [chosen], in order."""
    return _joined(layout.text, layout.blocks, layout.tags(), chosen, _LINES).tobytes().decode("utf-8", "replace")


@m.jit
def _joined(text, blocks, tags, chosen, lines):
    """uint8: the blocks one after another, a line break between lines of a kind, else an empty line."""
    size = 2 * len(chosen)
    for i in chosen:
        size += blocks[i, s.END] - blocks[i, s.START]
    out = np.empty(size, np.uint8)
    at = 0
    for k in range(len(chosen)):
        i = chosen[k]
        if k:
            breaks = 1 if lines[tags[i]] and tags[i] == tags[chosen[k - 1]] else 2
            out[at : at + breaks] = 10
            at += breaks
        start, end = blocks[i, s.START], blocks[i, s.END]
        out[at : at + end - start] = text[start:end]
        at += end - start
    return out[:at]


def _peer(engine: str) -> Callable[[bytes, str, int], _Parts]:
    """Another extractor, for comparison. Needs the extra `bench`."""
    modules = {"trafilatura": "trafilatura", "resiliparse": "resiliparse.extract.html2text"}
    try:
        module = import_module(modules[engine])
    except ImportError:
        raise ImportError(f"extract.engine={engine} needs the package {engine}: pip install 'l3-platform[bench]'") from None
    if engine == "trafilatura":
        return lambda _, source, __: ("", module.extract(source, include_comments=True, include_tables=True) or "", (), ())
    return lambda _, source, __: ("", module.extract_plain_text(source, main_content=True, alt_texts=True), (), ())
