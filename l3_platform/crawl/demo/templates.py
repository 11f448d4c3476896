"""Whole pages around main content, as documentation, wikis, forums, blogs, news, code hosts and hand-made pages are built.

The files in `html/` put it between navigation, consent banners, related links, scripts, comments and footers.
"""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path
from string import Template

from l3_platform.crawl.demo.page import draw, pick
from l3_platform.crawl.demo.sites import Placed

MATHJAX = '<script async src="https://cdn.example/mathjax@3/es5/tex-mml-chtml.js" id="MathJax-script"></script>'
_TEMPLATES = Path(__file__).parent / "html"
_AUTHORS = ("Ada Lind", "Ben Okoro", "Chen Wei", "Dana Petrov", "Elif Kaya", "Femi Ade", "Grete Holm", "Hugo Blanc")


def wrap(
    placed: Placed,
    body: str,
    *,
    related: tuple[tuple[str, str], ...] = (),
    head: str = "",
    lang: str = "en",
    charset: str = "utf-8",
) -> str:
    """The whole page around main content. `related` are (title, url) of other pages; `head` is HTML for `<head>`."""
    links = "\n".join(f'<li><a href="{escape(url)}">{escape(title)}</a></li>' for title, url in related)
    return _template(placed.site.template).substitute(
        title=escape(placed.title),
        site=placed.site.name,
        topic=placed.topic,
        url=escape(placed.url),
        slug=escape(placed.slug),
        id=placed.id,
        body=body,
        related=links,
        head=head,
        lang=lang,
        dir="rtl" if lang in ("ar", "fa", "he") else "ltr",
        charset=charset,
        author=pick(_AUTHORS, "author", placed.url),
        votes=int(120 * draw("votes", placed.url)),
        date=f"2023-{1 + int(12 * draw('month', placed.url)):02d}-{1 + int(28 * draw('day', placed.url)):02d}",
    )


@cache
def _template(name: str) -> Template:
    return Template((_TEMPLATES / f"{name}.html").read_text(encoding="utf-8"))
