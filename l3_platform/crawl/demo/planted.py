"""Planted cases made of real articles: versions, duplicates at a known similarity, repeated lines, blocked URLs, maths, damage.

Each function takes the builder and the number of cases and returns pages that carry their truth.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice

from l3_platform.crawl.demo.builder import SNAPSHOTS, Builder, Draft
from l3_platform.crawl.demo.edits import edited, insert_paragraphs, jaccard, prose_words, replace_words
from l3_platform.crawl.demo.maths import STYLES
from l3_platform.crawl.demo.page import Page, Truth, pick
from l3_platform.crawl.demo.render import render, visible_text
from l3_platform.crawl.demo.warc_writer import FAULTS

LISTED_DOMAINS = (
    "lucky-slots.example",
    "betting-palace.example",
    "adult-pictures.example",
    "dating-tonight.example",
    "free-pills.example",
    "people-finder.example",
)
NEAR_DUPLICATES = ((0.95, "drop"), (0.8, "any"), (0.5, "keep"))  # Jaccard similarity, what must happen to the older page
BLOCKED_PATHS = ("casino-guide", "online-casino", "xxx-archive", "cheap-viagra", "porn-free")
REPEATED_LINES = (
    "Readers who found this chapter helpful often continue with the exercises at the end of the book.",
    "Every example in this collection was run by hand on the day before it was published here.",
    "Please mention the name of the collection and the number of the page when you quote this text.",
    "The printed edition of this text is available in most public libraries of the region.",
    "Corrections are welcome at any time and appear in the next yearly edition with a word of thanks.",
    "This explanation was prepared for the evening course and may be used freely in class.",
)


def newer_versions(web: Builder, count: int) -> list[Page]:
    """URLs crawled in both snapshots: mostly with changed text, some unchanged, some under a tracking parameter."""
    pages = []
    for number in range(count):
        draft = web.draft(_is_prose)
        html, url = draft.rendered.html, draft.placed.url
        newer_html = html if number % 4 == 3 else replace_words(html, 2 + prose_words(html) // 60, url)
        newer_url = f"{url}?utm_source=newsletter&utm_medium=email" if number % 4 == 2 else url
        similarity = jaccard(*(f"{draft.placed.title}\n{visible_text(text)}" for text in (html, newer_html)))
        older = Truth("newer_version", "url_versions", "drop", newer_url, similarity)
        newer = Truth("newer_version", "url_versions", "keep", url, similarity)
        pages.append(web.page(draft, SNAPSHOTS[0], truth=older))
        # The same arguments but for the body: the address of the page and its frame do not change.
        pages.append(replace(web.page(draft, SNAPSHOTS[1], body=newer_html, truth=newer), url=newer_url))
    return pages


def exact_duplicates(web: Builder, count: int) -> list[Page]:
    """The same page under another address; the copy is the older one, so the original is what stays."""
    pages = []
    for number in range(count):
        draft = web.draft(_is_prose)
        pages += _pair(web, draft, draft.rendered.html, 1.0, "exact_duplicate", "drop", number)
    return pages


def near_duplicates(web: Builder, count: int) -> list[Page]:
    """`count` pairs at each similarity of NEAR_DUPLICATES; `detail` is the similarity aimed at, `jaccard` the one reached."""
    pages = []
    for target, expect in NEAR_DUPLICATES:
        for number in range(count):
            draft = web.draft(_is_editable)
            html, reached = edited(draft.placed.title, draft.rendered.html, target, draft.placed.url)
            pages += _pair(web, draft, html, reached, "near_duplicate", expect, number, detail=str(target))
    return pages


def _pair(
    web: Builder, draft: Draft, copy: str, similarity: float, kind: str, expect: str, number: int, detail: str = ""
) -> list[Page]:
    """The copy at a mirror, fetched earlier, and the original."""
    (snapshot, order), (newer_snapshot, newer_order) = web.older_and_newer(f"{kind}{detail}", number)
    url = draft.placed.url
    mirror = url.replace(draft.placed.site.domain, pick(("mirror.example", "archive-copy.example", "reprints.example"), url), 1)
    stage = "" if expect == "keep" else "duplicate_documents"
    older = Truth(kind, stage, expect, url, similarity, detail)
    newer = Truth(kind, stage, "keep", mirror, similarity, detail)
    return [
        web.page(draft, snapshot, body=copy, url=mirror, order=order, truth=older),
        web.page(draft, newer_snapshot, order=newer_order, truth=newer),
    ]


def repeated_lines(web: Builder, lines: int, pages_a_line: int) -> list[Page]:
    """Clean pages with a line in their main content that stands in many others; the line goes, the page stays."""
    pages = []
    for line in islice(REPEATED_LINES, lines):
        for _ in range(pages_a_line):
            draft = web.draft(_is_prose)
            body = insert_paragraphs(draft.rendered.html, [line], draft.placed.url)
            truth = Truth("repeated_line", "repeated_lines", "mask", detail=line)
            pages.append(web.page(draft, web.snapshot(draft.placed.url), body=body, truth=truth))
    return pages


def listed_domains(web: Builder, count: int) -> list[Page]:
    """Harmless text at listed domains: only the list can drop it."""
    truth = Truth("listed_domain", "url_policy", "drop")
    drafts = [web.draft() for _ in range(count)]
    pages = [web.page(draft, web.snapshot(draft.placed.url), truth=truth) for draft in drafts]
    return [replace(page, url=_moved(page.url, LISTED_DOMAINS[i % len(LISTED_DOMAINS)])) for i, page in enumerate(pages)]


def blocked_words(web: Builder, count: int) -> list[Page]:
    """Harmless text under a URL with a blocked word."""
    truth = Truth("blocked_word", "url_policy", "drop")
    drafts = [web.draft() for _ in range(count)]
    pages = [web.page(draft, web.snapshot(draft.placed.url), truth=truth) for draft in drafts]
    return [
        replace(page, url=_moved(page.url, f"travel-guides.example/{BLOCKED_PATHS[i % len(BLOCKED_PATHS)]}"))
        for i, page in enumerate(pages)
    ]


def formulas(web: Builder, count: int) -> list[Page]:
    """Pages with at least three formulas, the four styles in turn; `detail` lists LaTeX that the text must hold."""
    pages = []
    for number in range(count):
        draft = web.draft(lambda d: len(_long_formulas(d)) >= 3)
        style = STYLES[number % len(STYLES)]
        draft = replace(draft, style=style, rendered=render(draft.article, style))
        truth = Truth("math", "", "keep", detail=json.dumps(_long_formulas(draft)[:6], ensure_ascii=False))
        pages.append(web.page(draft, web.snapshot(draft.placed.url), truth=truth))
    return pages


def _long_formulas(draft: Draft) -> list[str]:
    return [tex for tex in dict.fromkeys(draft.rendered.formulas) if 4 <= len(tex) <= 160]


def broken_records(web: Builder, count: int) -> list[Page]:
    """Records damaged in each way of FAULTS in turn; `detail` names the damage."""
    pages = []
    for number in range(count):
        draft = web.draft()
        fault = FAULTS[number % len(FAULTS)]
        page = web.page(draft, web.snapshot(draft.placed.url), truth=Truth("broken", "documents", "quarantine", detail=fault))
        pages.append(replace(page, fault=fault, encoding="plain"))
    return pages


def _is_prose(draft: Draft) -> bool:
    """Documentation: no code, and no README, which may hold its authors' addresses."""
    documentation = draft.article.markup == "rst" and draft.article.collection != "readmes"
    return documentation and draft.words >= 200 and prose_words(draft.rendered.html) >= 80


def _is_editable(draft: Draft) -> bool:
    """Prose enough that a word changes the similarity by 0.01 only; no formulas, which extractors write differently."""
    long = _is_prose(draft) and draft.words >= 450
    return long and prose_words(draft.rendered.html) >= 0.3 * draft.words and not draft.rendered.formulas


def _moved(url: str, host: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{host}/{rest.partition('/')[2]}"
