"""Sites of the demo web: which domain carries what, under which path, in which template.

The templates in `sites/` imitate how documentation, wikis, forums, blogs, news, code hosts and hand-made pages are built: main
content between navigation, consent banners, related links, scripts and footers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from string import Template

from l3_platform.crawl.demo.page import Article, draw, pick

_SITES = Path(__file__).parent / "sites"
_AUTHORS = ("Ada Lind", "Ben Okoro", "Chen Wei", "Dana Petrov", "Elif Kaya", "Femi Ade", "Grete Holm", "Hugo Blanc")
MATHJAX = '<script async src="https://cdn.example/mathjax@3/es5/tex-mml-chtml.js" id="MathJax-script"></script>'


@dataclass(frozen=True)
class Site:
    """One domain. `path` is a template over topic, slug and id."""

    domain: str
    name: str
    template: str
    path: str
    title: str = "$name"


DOCS, WIKI, FORUM = "/$topic/$slug.html", "/wiki/$topic/$slug", "/questions/$id/$topic/$slug"
BLOG, NEWS, FORGE, PLAIN = "/$topic/2023/$slug/", "/$topic/$slug-$id.html", "/$topic/blob/main/$file", "/~pages/$topic/$slug.htm"
_ASK = "How do I use $short in $topic?"

SITES: dict[str, tuple[Site, ...]] = {
    "arrays": (Site("numpy-docs.example", "Arrays", "docs", DOCS), Site("ask-arrays.example", "Ask Arrays", "forum", FORUM, _ASK)),
    "science": (Site("science-docs.example", "Science Library", "docs", DOCS), Site("wiki.example", "Open Wiki", "wiki", WIKI, "$short ($topic)")),
    "learning": (Site("learning-docs.example", "Learning", "docs", DOCS), Site("learning-notes.example", "Learning Notes", "blog", BLOG, "Notes on $short")),
    "frames": (Site("frames-docs.example", "Frames", "docs", DOCS), Site("ask-data.example", "Ask Data", "forum", FORUM, _ASK)),
    "graphs": (Site("wiki.example", "Open Wiki", "wiki", WIKI, "$short ($topic)"), Site("graph-pages.example", "Graph Pages", "plain", PLAIN)),
    "algebra": (Site("wiki.example", "Open Wiki", "wiki", WIKI, "$short ($topic)"), Site("algebra-docs.example", "Algebra", "docs", DOCS)),
    "tensors": (Site("tensor-blog.example", "Tensor Blog", "blog", BLOG, "A closer look at $short"), Site("tensor-docs.example", "Tensors", "docs", DOCS)),
    "plotting": (Site("chart-news.example", "Chart News", "news", NEWS, "Charts: $short"), Site("plot-docs.example", "Plotting", "docs", DOCS)),
    "databases": (Site("query-docs.example", "Query", "docs", DOCS), Site("database-journal.example", "Database Journal", "news", NEWS, "Databases: $short")),
    "tracking": (Site("tracking-docs.example", "Tracking", "docs", DOCS), Site("ml-weekly.example", "ML Weekly", "news", NEWS, "This week: $short")),
    "pipelines": (Site("pipeline-blog.example", "Pipeline Blog", "blog", BLOG, "Pipelines: $short"),),
    "numbers": (Site("number-pages.example", "Number Pages", "plain", PLAIN),),
    "models": (Site("model-news.example", "Model News", "news", NEWS, "Models: $short"),),
    "library": (Site("library-docs.example", "Standard Library", "docs", DOCS), Site("ask-library.example", "Ask Library", "forum", FORUM, _ASK)),
    "language": (Site("wiki.example", "Open Wiki", "wiki", WIKI, "$short ($topic)"), Site("language-pages.example", "Language Pages", "plain", PLAIN)),
    "packages": (Site("packages.example", "Package Index", "news", NEWS, "$name"), Site("package-blog.example", "Package Blog", "blog", BLOG, "Package of the day: $name")),
    "code": (Site("forge.example", "Forge", "forge", FORGE),),
}  # fmt: skip
TOPICS = {
    "numpy": "arrays", "scipy": "science", "scikit-learn": "learning", "pandas": "frames", "networkx": "graphs", "sympy": "algebra",
    "torch": "tensors", "matplotlib": "plotting", "sqlalchemy": "databases", "mlflow": "tracking", "dagster": "pipelines",
    "mpmath": "numbers", "hub": "models", "library": "library", "reference": "language", "readmes": "packages",
}  # fmt: skip


@dataclass(frozen=True)
class Placed:
    """Where an article lives."""

    site: Site
    topic: str
    url: str
    title: str
    slug: str
    id: int


def place(article: Article) -> Placed:
    """The site, path and title of an article: a pure function of its collection and name."""
    topic = TOPICS.get(article.collection, "code")
    site = pick(SITES[topic], "site", article.name)
    module = article.name.split(".")
    folder = f"{module[0]}/{module[1]}" if len(module) > 2 else module[0]
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", article.name).strip("-")
    short = ".".join(module[-2:]) if len(module) > 1 and module[-2][:1].isupper() else module[-1]
    if article.collection == "readmes":
        short = module[0]
    number = 10_000 + int(9e7 * draw("id", article.name))
    if topic == "code":
        topic = folder.partition("/")[0]
    path = Template(site.path).substitute(topic=topic, slug=slug, id=number, file=article.name.replace(".", "/") + ".py")
    title = Template(site.title).substitute(name=article.name, short=short, topic=topic)
    return Placed(site, topic, f"https://{site.domain}{path}", title, slug, number)


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
    return Template((_SITES / f"{name}.html").read_text(encoding="utf-8"))
