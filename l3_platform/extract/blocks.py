"""A page as a flat list of blocks, in one walk over its tree.

A block is a run of text between two block-level boundaries: a paragraph, a heading, a list item, a table row, a `<pre>`. Around
the blocks stand the containers that hold them, each a contiguous range of blocks, so that every question about a part of the
page ("how much of it is links?") is a sum over a range. `content` decides on this form; no tree is needed after the walk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from selectolax.lexbor import LexborHTMLParser, LexborNode

BREAK = "\ue000"  # a `<br>` between the walk and the flush of a block

# Never text of a page. `head` is read for the title before the walk.
DROPPED: list[str] = [
    "head", "script", "style", "noscript", "template", "svg", "iframe", "button", "select", "input", "textarea", "object",
    "embed", "canvas", "audio", "video", "map", "dialog", "datalist", "progress", "meter", "applet", "frameset", "rp",
]  # fmt: skip

_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_BLOCKS = _HEADINGS | frozenset({
    "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "dir", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "footer", "form", "header", "hgroup", "hr", "html", "legend", "li", "main",
    "menu", "nav", "ol", "option", "p", "pre", "search", "section", "summary", "table", "tbody", "td", "tfoot", "th",
    "thead", "tr", "ul",
})  # fmt: skip
# Elements that can hold the whole content: candidates, and the unit in which boilerplate is dropped.
_CONTAINERS = frozenset({
    "article", "aside", "blockquote", "body", "center", "dd", "details", "div", "dl", "fieldset", "figure", "footer",
    "form", "header", "main", "menu", "nav", "ol", "search", "section", "span", "table", "tbody", "td", "tr", "ul", "li",
    "p",
})  # fmt: skip
_LANDMARKS = {
    "nav": "nav",
    "aside": "aside",
    "footer": "footer",
    "header": "header",
    "form": "form",
    "menu": "nav",
    "search": "nav",
}
_ROLES = {
    "navigation": "nav", "banner": "header", "contentinfo": "footer", "complementary": "aside", "search": "nav", "menu": "nav",
    "menubar": "nav", "dialog": "hidden", "alertdialog": "hidden", "alert": "hidden", "tooltip": "hidden", "tablist": "nav",
}  # fmt: skip
# Tags that must be closed to end: void elements and those that HTML closes by itself do not nest.
_TAG = re.compile(
    r"<(/)?(?!(?:area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr|p|li|dt|dd|option|tr|td|th|tbody|thead|tfoot|path|use)\b)"
    r"[a-z][^<>]*(?<!/)>",
    re.IGNORECASE,
)
_PARSABLE_DEPTH = 5000
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)

_CHROME = re.compile(
    r"""(?:^|[\s_-])(?:
    nav|navbar|navigation|navbox|subnav|menu|submenu|megamenu|breadcrumbs?|crumbs?|footer|foot|colophon|masthead|topbar|toolbar|
    sidebar|side-bar|sidenav|rail|offcanvas|drawer|cookies?|consent|gdpr|onetrust|banner|popup|modal|overlay|lightbox|
    newsletter|subscribe|subscription|signup|sign-up|optin|opt-in|login|paywall|
    share|sharing|sharedaddy|shares|social|socials|addtoany|addthis|
    related|recommended|recommendations|recirc|recirculation|you-may-like|read-more|readmore|more-stories|trending|popular|
    latest-posts|next-prev|prev-next|post-navigation|pagination|pager|paging|
    ads?|advert|adverts|advertisement|advertising|sponsor|sponsored|promo|promotion|taboola|outbrain|adsbygoogle|dfp|
    skip-link|skip|screen-reader-text|sr-only|visually-hidden|visuallyhidden|print-only|noprint|
    author-bio|author-box|about-author|authorbox|bio|byline|meta|entry-meta|post-meta|postmeta|tags|tagcloud|tag-list|
    widget|widgets|disclaimer|copyright|printfooter|catlinks|editsection|toc|table-of-contents|
    comment-form|comment-respond|respond|commentlist|disqus|cart|minicart|wishlist|quickview|
    search-form|searchform|search-box|language-switcher|lang-switcher|site-header|site-footer|page-header-nav
    )(?=$|[\s_-])""",
    re.IGNORECASE | re.VERBOSE,
)
_CONTENT = re.compile(
    r"""(?:^|[\s_-])(?:article-?body|post-?body|entry-?content|post-?content|article-?content|page-?content|main-?content|
    body-?content|story-?body|article__body|rich-?text|markdown-?body|mw-parser-output|post-?text|s-prose|hentry|message-?body|
    postbody|bbwrapper)(?=$|[\s_-])""",
    re.IGNORECASE | re.VERBOSE,
)


class TooDeep(ValueError):
    """Elements nest deeper than the limit: a trap or a broken generator."""


@dataclass(slots=True)
class Block:
    text: str
    tag: str  # of the block-level element that opened it: p, li, h2, tr, pre, div ...
    link_chars: int
    container: int  # index of the innermost container
    in_list: bool = False


@dataclass(slots=True)
class Container:
    tag: str
    parent: int
    start: int  # first block in it
    end: int = 0  # one after the last
    kind: str = ""  # nav, aside, footer, header, form, hidden, chrome, content; empty: nothing known


@dataclass(slots=True)
class Layout:
    blocks: list[Block] = field(default_factory=list)
    containers: list[Container] = field(default_factory=list)


def layout(tree: LexborHTMLParser, max_depth: int, *, lenient: bool = False) -> Layout:
    """Blocks and containers of a parsed page. Raises TooDeep. Changes `tree`: elements without text of the page go.

    `lenient` reads hidden elements and `<noscript>` too, and believes no class name: for pages that show their text by script.
    """
    body = tree.body
    if body is None:
        return Layout()
    for node in tree.css("pre br"):
        node.replace_with("\n")
    tree.strip_tags([tag for tag in DROPPED if tag != "noscript"] if lenient else DROPPED, recursive=True)
    return _Walk(max_depth, lenient).run(body)


def refuse_deep(source: str, max_depth: int) -> None:
    """Raises TooDeep for a source that would take minutes to parse: lexbor's time grows with the square of the depth.

    Only sources with very many tags are looked at, and only nesting far beyond the limit counts; `layout` finds the rest exactly.
    """
    limit = max(max_depth, _PARSABLE_DEPTH)
    if source.count("<") <= limit:
        return
    depth = 0
    for match in _TAG.finditer(source):
        depth = max(0, depth - 1) if match.group(1) else depth + 1
        if depth > limit:
            raise TooDeep(f"elements nest deeper than {limit:,}")


class _Walk:
    """State of one walk: the block being filled, the open containers, the depth of links and tables."""

    def __init__(self, max_depth: int, lenient: bool) -> None:
        self.max_depth = max_depth
        self.lenient = lenient
        self.layout = Layout()
        self.pieces: list[str] = []
        self.link_chars = 0
        self.tag = "body"
        self.container = -1
        self.links = 0
        self.rows = 0  # open cells of data tables: block elements in them do not end the block
        self.lists = 0

    def run(self, body: LexborNode) -> Layout:
        """Iterative, since recursion in Python would end where nesting is deep. An exit is what to undo at the end."""
        stack: list[tuple[LexborNode | None, tuple[int, str, int, int, int, int]]] = []
        node: LexborNode | None = body
        while True:
            if node is None:
                if not stack:
                    break
                node, state = stack.pop()
                self._leave(state)
                continue
            tag = node.tag
            if tag == "-text":
                text = node.text_content
                if text:
                    self.pieces.append(text)
                    if self.links:
                        self.link_chars += len(text.strip())
                node = node.next
                continue
            child = node.first_child
            if tag is None or tag == "-comment" or (child is None and tag not in ("br", "hr", "wbr")):
                node = node.next
                continue
            state = self._enter(node, tag)
            if state is None:
                node = node.next
                continue
            if len(stack) >= self.max_depth:
                raise TooDeep(f"elements nest deeper than {self.max_depth} at <{tag}>")
            stack.append((node.next if stack else None, state))  # not past the body
            node = child
        self._flush()
        return self.layout

    def _enter(self, node: LexborNode, tag: str) -> tuple[int, str, int, int, int, int] | None:
        """Opens an element; None where nothing of it is walked."""
        if tag == "br":
            self.pieces.append(" " if self.rows else BREAK)
            return None
        if tag == "pre":
            return self._preformatted(node)
        state = (self.container, self.tag, self.links, self.rows, self.lists, 0)
        attributes = node.attributes
        kind = _LANDMARKS.get(tag, "")
        if attributes:
            kind = kind if self.lenient else _kind(attributes, tag) or kind
            if kind == "hidden":
                return None
        if tag == "a":
            self.links += 1
            return state
        if tag in ("td", "th") and self.rows:
            self.pieces.append("\t" if self.pieces else "")
            return state
        if tag not in _BLOCKS:
            if not kind or tag != "span":
                return state
        elif self.rows:
            self.pieces.append(" ")
            return state
        elif tag == "hr":
            self._flush()
            return None
        self._flush()
        self.tag = tag
        if tag == "tr" and _is_data_row(node):
            self.rows = 1
        if tag in ("ul", "ol", "dl", "menu"):
            self.lists += 1
        if tag in _CONTAINERS or kind:
            containers = self.layout.containers
            containers.append(Container(tag, self.container, len(self.layout.blocks), kind=kind))
            self.container = len(containers) - 1
        return (*state[:5], 1)

    def _leave(self, state: tuple[int, str, int, int, int, int]) -> None:
        container, tag, links, rows, lists, is_block = state
        if is_block:
            self._flush()
            if self.container != container:
                self.layout.containers[self.container].end = len(self.layout.blocks)
        self.container, self.tag, self.links, self.rows, self.lists = container, tag, links, rows, lists

    def _flush(self) -> None:
        """Ends the current block: white space collapses, line breaks stay, empty blocks vanish."""
        if not self.pieces:
            return
        raw = "".join(self.pieces)
        if BREAK in raw:
            lines = [" ".join(line.split()) for line in raw.split(BREAK)]
            text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
        elif self.rows:
            text = "\t".join(cell for cell in (" ".join(cell.split()) for cell in raw.split("\t")) if cell)
        else:
            text = " ".join(raw.split())
        if text:
            self.layout.blocks.append(Block(text, self.tag, min(self.link_chars, len(text)), self.container, self.lists > 0))
        self.pieces, self.link_chars = [], 0

    def _preformatted(self, node: LexborNode) -> None:
        """A `<pre>`: its text as it stands, line numbers of highlighters left out."""
        if self.rows and not any(piece.strip() for piece in self.pieces):
            self.rows = 0  # a table that lays out code
        self._flush()
        for gutter in node.css(".linenos, .lineno, .line-numbers-rows, .gutter, .hljs-ln-numbers"):
            gutter.decompose()
        text = node.text(deep=True).replace("\r\n", "\n").replace("\r", "\n").strip("\n").rstrip()
        if text.strip():
            self.layout.blocks.append(Block(text, "pre", 0, self.container))


def _is_data_row(row: LexborNode) -> bool:
    """A row of a table of data, to be one line; rows that lay out a page hold block elements in their cells."""
    return row.css_first("table, pre, h1, h2, h3, h4, ul, ol, form, blockquote, article, section, p + p, div div") is None


def _kind(attributes: dict[str, str | None], tag: str) -> str:
    if "hidden" in attributes:
        return "hidden"
    style = attributes.get("style")
    if style and _HIDDEN_STYLE.search(style):
        return "hidden"
    role = _ROLES.get(attributes.get("role") or "", "")
    if role:
        return role
    hint = f"{attributes.get('class') or ''} {attributes.get('id') or ''}"
    return "" if hint == " " or tag in ("body", "html") else _hint(hint)


@lru_cache(maxsize=1 << 16)
def _hint(names: str) -> str:
    """What the class and id names of an element say about it: `chrome`, `content` or nothing."""
    if _CONTENT.search(names):
        return "content"
    return "chrome" if _CHROME.search(names) else ""
