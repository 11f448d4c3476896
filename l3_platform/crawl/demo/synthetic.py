"""Planted cases of invented text: personal data, spam, logs, other languages, misdeclared charsets, and the web's usual noise.

All of it is marked `<meta name="synthetic" content="true">`. Personal data comes from Faker, seeded, with right check digits;
telephone numbers are of the ranges that are kept free for fiction.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from html import escape
from string import ascii_letters, ascii_lowercase, digits
from typing import TYPE_CHECKING

from l3_platform.crawl.demo.builder import SYNTHETIC, Builder
from l3_platform.crawl.demo.edits import insert_paragraphs
from l3_platform.crawl.demo.languages import LANGUAGES, sentences, title
from l3_platform.crawl.demo.page import Page, Truth, draw, pick
from l3_platform.crawl.demo.sites import BLOG, NEWS, PLAIN, WIKI, Placed, Site
from l3_platform.crawl.demo.templates import wrap

if TYPE_CHECKING:
    from faker import Faker

_PII_SENTENCES = (
    "Questions about this chapter reach {name} by email at {email} on working days.",
    "{name} looks after the printed copies and can be called on {phone} before noon.",
    "Orders of the book are paid to the account {iban} in the name of {name}.",
    "The old server answered at {ip} until {name} moved the files elsewhere.",
    "{name} paid the fee with the card {card} and asked for a receipt.",
    "Send corrections to {email}, where {name} collects them for the next edition.",
)
_CONTACTS = (
    "{name} leads the {job} desk in {city} and can be reached on {phone} or by email at {email} during the week.",
    "For everything about the {city} office please write to {name}, {job}, at {email}, or dial {phone}.",
    "In {city} the {job} on duty is {name}, whose direct line is {phone} and whose mailbox is {email}.",
)
_SPAM = ("free", "hot", "girls", "tonight", "click", "here", "watch", "live", "amateur", "best", "private", "members", "only",
         "join", "now", "no", "credit", "card", "needed", "instant", "access", "real", "new")  # fmt: skip
_DIRTY = ("porn", "xxx", "milf", "hentai", "orgy")
_CHARSETS = (  # declared in the HTTP header, written, languages whose letters the written one has
    ("utf-8", "cp1252", ("fr", "de", "es")),
    ("iso-8859-1", "utf-8", ("fr", "de", "es", "it")),
)


def personal_data(web: Builder, count: int) -> list[Page]:
    """Articles with a few personal values; `detail` lists them."""
    pages = []
    for _ in range(count):
        draft = web.draft(lambda d: d.article.collection != "readmes" and d.article.markup == "rst" and d.words >= 330)
        fake = _faker(web.seed, draft.placed.url)
        values, paragraphs = [], []
        first = int(draw(draft.placed.url) * len(_PII_SENTENCES))
        for i in range(min(5, draft.words // 110)):
            filled, found = _fill(_PII_SENTENCES[(first + i) % len(_PII_SENTENCES)], fake)
            paragraphs.append(filled)
            values += found
        body = insert_paragraphs(draft.rendered.html, paragraphs, draft.placed.url)
        truth = Truth("pii", "pii", "mask", detail=json.dumps(values))
        pages.append(web.page(draft, web.snapshot(draft.placed.url), body=body, truth=truth, synthetic=True))
    return pages


def contact_lists(web: Builder, count: int) -> list[Page]:
    """Pages that are little else than people and how to reach them; `detail` lists the values."""
    site = Site("staff-directory.example", "Staff Directory", "plain", PLAIN)
    pages = []
    for number in range(count):
        fake = _faker(web.seed, f"contacts {number}")
        values, rows = [], []
        for i in range(18 + number % 9):
            filled, found = _fill(_CONTACTS[i % len(_CONTACTS)], fake)
            rows.append(f"<p>{escape(filled, quote=False)}</p>")
            values += found
        placed = _placed(site, "staff", f"Who to ask in {fake.city()}", f"contacts-{number}")
        truth = Truth("pii_dense", "pii", "drop", detail=json.dumps(values))
        pages.append(_page(web, placed, "\n".join(rows), truth))
    return pages


def _fill(sentence: str, fake: Faker) -> tuple[str, list[str]]:
    """A sentence with invented values, and those of them that are personal data by rule (names are not)."""
    name, digits = fake.name(), fake.numerify
    phone = fake.random_element(
        (digits("(###) 555-01##").replace("(0", "(2").replace("(1", "(3"), digits("+44 20 7946 0###"), digits("+49 30 23125 ###"))
    )
    card = fake.credit_card_number(fake.random_element(("visa16", "mastercard")))
    iban = fake.iban()
    values = {
        "email": f"{fake.user_name()}@{fake.domain_word()}-post.net",
        "phone": phone,
        "iban": " ".join(iban[at : at + 4] for at in range(0, len(iban), 4)) if fake.boolean() else iban,
        "ip": _address(fake),
        "card": " ".join(card[at : at + 4] for at in range(0, 16, 4)) if fake.boolean() else card,
    }
    found = [values[kind] for kind in values if f"{{{kind}}}" in sentence]
    return sentence.format(name=name, job=fake.job().lower().split(",")[0], city=fake.city(), **values), found


def _address(fake: Faker) -> str:
    """A public IPv4 address that nobody could take for a version number."""
    while True:
        address = fake.ipv4_public()
        if sum(int(part) < 30 for part in address.split(".")) == 0:
            return address


def spam(web: Builder, count: int) -> list[Page]:
    """Adult spam in words of common lists, under an innocent address."""
    site = Site("cheap-hosting.example", "Cheap Hosting", "blog", BLOG)
    pages = []
    for number in range(count):
        lines = []
        for line in range(12):
            words = [pick(_DIRTY if draw("spam", number, line, i) < 0.15 else _SPAM, "word", number, line, i) for i in range(24)]
            lines.append(f"<p>{' '.join(words).capitalize()}!</p>")
        placed = _placed(site, "offers", f"Special offer number {number + 1}", f"special-offer-{number}")
        pages.append(_page(web, placed, "\n".join(lines), Truth("spam", "text_heuristics", "drop")))
    return pages


def log_dumps(web: Builder, count: int) -> list[Page]:
    """Logs of a service that says the same thing all day: repeated word n-grams."""
    site = Site("ops-notes.example", "Ops Notes", "plain", PLAIN)
    pages = []
    for number in range(count):
        service = pick(("gateway", "scheduler", "indexer", "mailer"), "service", number)
        lines = []
        for i in range(80 + number % 40):
            second = i * 30 + int(30 * draw("log", number, i))
            lines.append(
                f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d} INFO {service} finished the scheduled check "
                f"of all workers without errors and waits for the next round ({int(90 * draw('ms', number, i))} ms)"
            )
        placed = _placed(site, "logs", f"Log of {service}, day {number + 1}", f"{service}-{number}")
        pages.append(_page(web, placed, f"<pre>{chr(10).join(lines)}</pre>", Truth("log_dump", "text_heuristics", "drop")))
    return pages


def token_dumps(web: Builder, count: int) -> list[Page]:
    """Keys, digests and random names, none of them twice: what gives them away is only that nobody else says them."""
    site = Site("paste-bin.example", "Pastes", "plain", PLAIN)
    pages = []
    for number in range(count):
        letters = pick(("0123456789abcdef", ascii_lowercase, ascii_letters + digits), "letters", number)
        lines = []
        for line in range(20 + number % 30):
            tokens = []
            for i in range(12):
                size = 6 + int(6 * draw("token", number, line, i))
                tokens.append("".join(pick(letters, "sign", number, line, i, place) for place in range(size)))
            lines.append(f"<p>{' '.join(tokens)}</p>")
        placed = _placed(site, "pastes", f"Paste number {number + 1}", f"paste-{number}")
        pages.append(_page(web, placed, "\n".join(lines), Truth("token_dump", "outlier_tokens", "drop")))
    return pages


def foreign_pages(web: Builder, count: int) -> list[Page]:
    """Pages in each language of LANGUAGES in turn; `detail` is the ISO 639-1 code."""
    pages = []
    for number in range(count):
        language = LANGUAGES[number % len(LANGUAGES)]
        template, path = pick((("news", NEWS), ("wiki", WIKI), ("blog", BLOG)), "template", number)
        site = Site(f"{language.code}-{template}.example", f"{language.code.upper()} {template.capitalize()}", template, path)
        key = f"{web.seed}:{language.code}:{number}"
        text = sentences(language, 40 + int(30 * draw(key)), key)
        body = _paragraphs(text, language.gap)
        placed = _placed(site, "general", title(language, key), f"{language.code}-{number}")
        truth = Truth("language", "languages", "keep", detail=language.code)
        pages.append(_page(web, placed, body, truth, lang=language.code))
    return pages


def wrong_charsets(web: Builder, count: int) -> list[Page]:
    """Pages whose bytes are in another charset than the server says; `detail` is a sentence that must come out right."""
    by_code = {language.code: language for language in LANGUAGES}
    pages = []
    for number in range(count):
        declared, written, codes = _CHARSETS[number % len(_CHARSETS)]
        language = by_code[codes[number // len(_CHARSETS) % len(codes)]]
        key = f"{web.seed}:charset:{number}"
        text = sentences(language, 36, key)
        phrase = next(s for s in text if sum(not char.isascii() for char in s) >= 2)
        site = Site(f"old-{language.code}.example", "Old pages", "plain", PLAIN)
        placed = _placed(site, "pages", title(language, key), f"{language.code}-page-{number}")
        page = _page(
            web, placed, _paragraphs(text, " "), Truth("charset", "documents", "keep", detail=phrase), language.code, declared
        )
        html = page.body.decode().encode(written)
        pages.append(replace(page, body=html, content_type=f"text/html; charset={declared}", encoding="plain"))
    return pages


def noise(web: Builder, count: int) -> list[Page]:
    """What crawls hold besides pages: missing ones, redirects, files, empty pages, errors. None becomes a document."""
    truth = Truth("noise", "documents", "drop")
    missing = "<html><head><title>404 Not Found</title></head><body><center><h1>404 Not Found</h1></center><hr>nginx</body></html>"
    image = b"\x89PNG\r\n\x1a\n" + bytes(64)
    pdf = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
    html = "text/html; charset=utf-8"
    cases = (
        ("old-page.html", 404, html, missing.encode(), ()),
        ("moved.html", 301, html, b"", (("Location", "https://library-docs.example/"),)),
        ("manual.pdf", 200, "application/pdf", pdf, ()),
        ("empty.html", 200, html, b"<!DOCTYPE html><html><head><title></title></head><body></body></html>", ()),
        ("figure.png", 200, "image/png", image, ()),
        ("temporary.html", 302, html, b"", (("Location", "/login"),)),
        ("broken.html", 500, html, missing.replace("404 Not Found", "500 Internal Server Error").encode(), ()),
        ("gone.html", 410, html, missing.replace("404 Not Found", "410 Gone").encode(), ()),
    )
    pages = []
    for number in range(count):
        name, status, content_type, body, headers = cases[number % len(cases)]
        url = f"https://{pick(('library-docs', 'wiki', 'forge', 'chart-news'), 'noise', number)}.example/misc/{number}/{name}"
        snapshot = web.snapshot(url)
        pages.append(Page(snapshot, url, web.order(snapshot, url), body, status, content_type, headers, "plain", "", truth))
    return pages


def _placed(site: Site, topic: str, heading: str, slug: str) -> Placed:
    number = 1_000 + int(1e6 * draw("id", site.domain, slug))
    path = site.path.replace("$topic", topic).replace("$slug", slug).replace("$id", str(number))
    return Placed(site, topic, f"https://{site.domain}{path}", heading, slug, number)


def _page(web: Builder, placed: Placed, body: str, truth: Truth, lang: str = "en", charset: str = "utf-8") -> Page:
    html = wrap(placed, body, head=SYNTHETIC, lang=lang, charset=charset)
    snapshot = web.snapshot(placed.url)
    return Page(snapshot, placed.url, web.order(snapshot, placed.url), html.encode(), truth=truth)


def _paragraphs(text: list[str], gap: str) -> str:
    return "\n".join(f"<p>{gap.join(text[at : at + 5])}</p>" for at in range(0, len(text), 5))


@cache
def _faker_of(locale: str) -> Faker:
    from faker import Faker

    return Faker(locale)


def _faker(seed: int, key: str) -> Faker:
    """Faker in one of two locales, reset to a state that the key decides."""
    fake = _faker_of(pick(("en_GB", "de_DE"), "locale", key))
    fake.seed_instance(int(draw(seed, "faker", key) * 2**53))
    return fake
