"""Sites of the demo web: which domain carries what, under which path, in which template, and under which title."""

from __future__ import annotations

import re
from dataclasses import dataclass
from string import Template

from l3_platform.crawl.demo.page import Article, draw, pick


@dataclass(frozen=True)
class Site:
    """One domain. `path` is a template over topic, slug, id and file, `title` over name, short and topic."""

    domain: str
    name: str
    template: str  # a file in `html/`
    path: str
    title: str = "$name"


@dataclass(frozen=True)
class Placed:
    """Where a page lives."""

    site: Site
    topic: str
    url: str
    title: str
    slug: str
    id: int


BLOG, NEWS, PLAIN, WIKI = "/$topic/2023/$slug/", "/$topic/$slug-$id.html", "/~pages/$topic/$slug.htm", "/wiki/$topic/$slug"


def _docs(domain: str, name: str) -> Site:
    return Site(f"{domain}-docs.example", name, "docs", "/$topic/$slug.html")


def _forum(domain: str, name: str) -> Site:
    return Site(f"ask-{domain}.example", name, "forum", "/questions/$id/$topic/$slug", "How do I use $short in $topic?")


def _blog(domain: str, name: str, title: str) -> Site:
    return Site(f"{domain}.example", name, "blog", BLOG, title)


def _news(domain: str, name: str, title: str) -> Site:
    return Site(f"{domain}.example", name, "news", NEWS, title)


def _plain(domain: str, name: str) -> Site:
    return Site(f"{domain}-pages.example", name, "plain", PLAIN)


_WIKI = Site("wiki.example", "Open Wiki", "wiki", WIKI, "$short ($topic)")
_FORGE = Site("forge.example", "Forge", "forge", "/$topic/blob/main/$file")
_TOPICS = {  # collection: topic, and the sites that carry it
    "numpy": ("arrays", (_docs("numpy", "Arrays"), _forum("arrays", "Ask Arrays"))),
    "scipy": ("science", (_docs("science", "Science Library"), _WIKI)),
    "scikit-learn": ("learning", (_docs("learning", "Learning"), _blog("learning-notes", "Learning Notes", "Notes on $short"))),
    "pandas": ("frames", (_docs("frames", "Frames"), _forum("data", "Ask Data"))),
    "networkx": ("graphs", (_WIKI, _plain("graph", "Graph Pages"))),
    "sympy": ("algebra", (_WIKI, _docs("algebra", "Algebra"))),
    "torch": ("tensors", (_blog("tensor-blog", "Tensor Blog", "A closer look at $short"), _docs("tensor", "Tensors"))),
    "matplotlib": ("plotting", (_news("chart-news", "Chart News", "Charts: $short"), _docs("plot", "Plotting"))),
    "sqlalchemy": ("databases", (_docs("query", "Query"), _news("database-journal", "Database Journal", "Databases: $short"))),
    "mlflow": ("tracking", (_docs("tracking", "Tracking"), _news("ml-weekly", "ML Weekly", "This week: $short"))),
    "dagster": ("pipelines", (_blog("pipeline-blog", "Pipeline Blog", "Pipelines: $short"),)),
    "mpmath": ("numbers", (_plain("number", "Number Pages"),)),
    "hub": ("models", (_news("model-news", "Model News", "Models: $short"),)),
    "library": ("library", (_docs("library", "Standard Library"), _forum("library", "Ask Library"))),
    "reference": ("language", (_WIKI, _plain("language", "Language Pages"))),
    "readmes": ("packages", (_news("packages", "Package News", "$name"), _blog("package-blog", "Package Blog", "About $name"))),
}


def place(article: Article) -> Placed:
    """The site, path and title of an article: a pure function of its collection and name."""
    module = article.name.split(".")
    topic, sites = _TOPICS.get(article.collection, (module[0], (_FORGE,)))
    site = pick(sites, "site", article.name)
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", article.name).strip("-")
    method = len(module) > 1 and module[-2][:1].isupper()
    short = module[0] if article.collection == "readmes" else ".".join(module[-2:] if method else module[-1:])
    number = 10_000 + int(9e7 * draw("id", article.name))
    file = article.name.replace(".", "/") + ".py"
    path = Template(site.path).substitute(topic=topic, slug=slug, id=number, file=file)
    title = Template(site.title).substitute(name=article.name, short=short, topic=topic)
    return Placed(site, topic, f"https://{site.domain}{path}", title, slug, number)
