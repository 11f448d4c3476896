"""Damaged pages: bytes flipped, cut, doubled, swapped, traps put in. Never a crash, always a page or a named reason, in time."""

import io
import random
import time

import pytest

from l3_platform.crawl.demo.source import DemoSource
from l3_platform.crawl.record import Record
from l3_platform.crawl.warc import read_records
from l3_platform.extract import ExtractError, Page, extract
from l3_platform.settings import Crawl, Extract
from l3_platform.store import files

REASONS = {"undecodable", "too_large", "too_deep", "too_slow"}
SETTINGS = Extract(max_html_bytes=1 << 21, max_seconds=5.0)
TRAPS = [
    b"<div>", b"</div>", b"<li>" * 200, b"<table><tr><td>", b"<b><i>", b"</b>", b"<pre>", b"</pre>", b"<script>", b"<!--",
    b"-->", b"<svg><title>", b"<math><mi>x</mi>", b"<select><option>", b"<template>", b"<plaintext>", b"<a href='",
    b"&#x110000;", b"&nbsp;", b"&", b"\0", b"<", b"</", b"<p", b"\xff\xfe", b"\xef\xb7\x90", b"\xed\xa0\x80", b"<![CDATA[",
    b"<?xml ", b"<frameset>", b"<form><button>", b'<span class="katex"><math><annotation encoding="tex">x',
    b"<script type='math/tex'>\\(", b'" onclick="', b"<td><tr><ul>", b"<br>" * 50, b"<div " + b"a " * 200 + b">", b"<noscript>",
    b"<title>", b"</body></html>", b"<html hidden>",
]  # fmt: skip


@pytest.fixture(scope="module")
def pages() -> list[bytes]:
    """Pages of the demo web, and one with everything that extraction treats apart."""
    source = DemoSource(Crawl(demo_pages=50, demo_warc_files=1))
    (file,) = source.listing("demo-1")
    warc = io.BytesIO(files.read(source.fetch("demo-1", file, "memory://fuzz").path))
    found = [record.payload for record in read_records(warc, name=file) if isinstance(record, Record)]
    everything = (
        b"<html><head><title>All</title><meta property='og:type' content='article'></head><body class='single post'>"
        b"<nav><a href=/>Home</a></nav><main><h1>All</h1><p>Text with <b>bold</b>, <a href=x>a link</a> and \\(x^2\\).</p>"
        b"<pre>a\n  b</pre><table><tr><td>1<td>2</table><math><mfrac><mi>a</mi><mi>b</mi></mfrac></math>"
        b"<img class=tex alt='x_1' src=latex.png></main></body>"
    )
    return [everything, *(page for page in found if b"<html" in page[:2000].lower())]


def test_300_damaged_pages_give_a_page_or_a_reason(pages):
    _fuzz(pages, 300)


@pytest.mark.exhaustive
def test_10000_damaged_pages_give_a_page_or_a_reason(pages, shared_data):
    import pyarrow.parquet as pq

    real = [page.as_py() for page in pq.read_table(shared_data / "extraction" / "wcxb-dev.parquet")["html"][:100]]
    maths = [path.read_bytes() for path in sorted((shared_data / "math").glob("*.html"))]
    _fuzz([*pages, *(page for page in [*real, *maths] if len(page) < 200_000)], 10_000)


def _fuzz(pages: list[bytes], mutations: int) -> None:
    dice = random.Random(1)
    extract(pages[0])  # what it compiles counts for no page
    for number in range(mutations):
        damaged = _damaged(dice.choice(pages), pages, dice)
        started = time.monotonic()
        try:
            page = extract(damaged, settings=SETTINGS)
            assert isinstance(page, Page)
            page.text.encode()  # what the table of documents will hold
        except ExtractError as error:
            assert error.reason in REASONS, number
        assert time.monotonic() - started < SETTINGS.max_seconds + 2, number


def _damaged(page: bytes, pages: list[bytes], dice: random.Random) -> bytes:
    data = bytearray(page)
    for _ in range(dice.randint(1, 12)):
        at = dice.randrange(len(data) + 1)
        length = dice.choice((1, 4, 30, 300, 3000))
        match dice.randrange(7):
            case 0:
                data[at : at + 1] = bytes([dice.randrange(256)])
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[at : at + length] * dice.randint(1, 4)
            case 3:
                other = dice.choice(pages)
                start = dice.randrange(len(other) + 1)
                data[at:at] = other[start : start + length]
            case 4:
                data[at:at] = dice.choice(TRAPS)
            case 5:
                data[at:at] = dice.choice(TRAPS) * dice.choice((10, 100, 2000))
            case _:
                del data[at:]
    return bytes(data)
