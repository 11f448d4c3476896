"""Makes pages of articles, one by one, and remembers what it used: the state while a demo web is being built."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from l3_platform.crawl.demo.harvest import articles
from l3_platform.crawl.demo.maths import STYLES
from l3_platform.crawl.demo.page import Article, Page, Truth, draw, pick
from l3_platform.crawl.demo.render import Rendered, render, visible_text
from l3_platform.crawl.demo.sites import Placed, place
from l3_platform.crawl.demo.templates import MATHJAX, wrap
from l3_platform.crawl.sources import CrawlError

SNAPSHOTS = ("demo-1", "demo-2")
SYNTHETIC = '<meta name="synthetic" content="true">'
_LOOKAHEAD = 400  # articles that a search passes over at most
_RELATED = 6
_MIN_WORDS = 110  # visible ones of an article


@dataclass(frozen=True)
class Draft:
    """An article with its place and its main content, before it is wrapped into a page."""

    article: Article
    placed: Placed
    rendered: Rendered
    style: str

    @property
    def words(self) -> int:
        return len(self.article.text.split())


class Builder:
    """Hands out drafts in the order of the harvest and turns them into pages."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._articles: Iterator[Article] = articles(seed)
        self._waiting: deque[Draft] = deque()
        self._neighbours: dict[str, deque[tuple[str, str]]] = defaultdict(lambda: deque(maxlen=_RELATED))
        self._used: set[str] = set()

    def draft(self, wanted: Callable[[Draft], bool] | None = None) -> Draft:
        """The next draft that is `wanted`; those passed over stay in line. Raises CrawlError when the text is used up."""
        for i, waiting in enumerate(self._waiting):
            if wanted is None or wanted(waiting):
                del self._waiting[i]
                return waiting
        for _ in range(_LOOKAHEAD):
            fresh = self._fresh()
            if wanted is None or wanted(fresh):
                return fresh
            self._waiting.append(fresh)
        raise CrawlError(f"demo crawl: none of the next {_LOOKAHEAD} articles suits a planted case; set another crawl.demo_seed")

    def _fresh(self) -> Draft:
        for article in self._articles:
            placed = place(article)
            if placed.url in self._used:
                continue
            style = pick(STYLES, self.seed, "style", article.name)
            rendered = render(article, style)
            if len(visible_text(rendered.html).split()) < _MIN_WORDS:  # its text was directives, such as lists of links
                continue
            self._used.add(placed.url)
            return Draft(article, placed, rendered, style)
        raise CrawlError(
            f"demo crawl: the installed packages hold text for about {len(self._used):,} pages only; lower crawl.demo_pages"
        )

    def page(self, draft: Draft, snapshot: str, *, body: str | None = None, url: str = "", order: float | None = None,
             truth: Truth | None = None, synthetic: bool = False) -> Page:  # fmt: skip
        """The draft as a page, with another body or at another URL where given."""
        placed = draft.placed
        head = MATHJAX if draft.rendered.formulas and draft.style in ("mathjax", "script") else ""
        neighbours = self._neighbours[placed.site.domain]
        related = tuple(link for link in neighbours if link[1] != placed.url)
        html = wrap(placed, draft.rendered.html if body is None else body, related=related, head=head + SYNTHETIC * synthetic)
        if not url and (placed.title, placed.url) not in neighbours:
            neighbours.append((placed.title, placed.url))
        url = url or placed.url
        order = self.order(snapshot, url) if order is None else order
        travel = draw(self.seed, "encoding", url)
        encoding = "chunked" if travel < 0.04 else "gzip" if travel < 0.08 else ""
        return Page(snapshot, url, order, html.encode(), encoding=encoding, truth=truth)

    def order(self, snapshot: str, url: str) -> float:
        return draw(self.seed, "order", snapshot, url)

    def older_and_newer(self, key: str, number: int) -> tuple[tuple[str, float], tuple[str, float]]:
        """(snapshot, order) of two pages, the first fetched earlier: two times in one snapshot, the third across both."""
        low, high = sorted((draw(self.seed, key, number, 0), draw(self.seed, key, number, 1)))
        if number % 3 == 2:
            return (SNAPSHOTS[0], high), (SNAPSHOTS[1], low)
        return (SNAPSHOTS[number % 2], low), (SNAPSHOTS[number % 2], high)

    def snapshot(self, key: str) -> str:
        return pick(SNAPSHOTS, self.seed, "snapshot", key)
