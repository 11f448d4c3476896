"""Source text of the demo web as HTML, and the WARC records around it."""

from datetime import UTC, datetime
from io import BytesIO

import pytest

from l3_platform.crawl.demo.edits import edited, jaccard, replace_words
from l3_platform.crawl.demo.maths import STYLES, presentation
from l3_platform.crawl.demo.originality import Originality
from l3_platform.crawl.demo.page import Article, Page
from l3_platform.crawl.demo.render import render, visible_text
from l3_platform.crawl.demo.warc_writer import FAULTS, warc_file
from l3_platform.crawl.record import Broken
from l3_platform.crawl.warc import read_records
from l3_platform.extract import extract

PROSE = " ".join(
    f"The {word} of the {word}s is described by a long sentence about {word}ing." for word in map("word{}x".format, range(80))
)


def rst(text: str, style: str = "mathjax") -> str:
    return render(Article("demo", "demo.page", "rst", (("", text),)), style).html


def test_sections_become_headings():
    assert rst("Notes\n-----\nSome text.") == "<h3>Notes</h3>\n<p>Some text.</p>"


def test_parameters_become_a_definition_list():
    html = rst("Parameters\n----------\na : int\n    The first\n    number.\nb : float\n    The other.")
    assert "<dl><dt>a : int</dt><dd><p>The first number.</p></dd><dt>b : float</dt><dd><p>The other.</p></dd></dl>" in html


def test_google_style_arguments_become_a_definition_list():
    html = rst("Args:\n    name (str): What it\n        is called.\n    size: How long.")
    items = "<dt>name (str)</dt><dd><p>What it is called.</p></dd><dt>size</dt><dd><p>How long.</p></dd>"
    assert html == f"<h3>Args</h3><dl>{items}</dl>"


def test_doctests_and_literal_blocks_keep_their_lines():
    assert "<pre>&gt;&gt;&gt; 1 + 1\n2</pre>" in rst(">>> 1 + 1\n2\n\nText.")
    assert rst("As in::\n\n    if x &lt; 1:\n        pass\n\nEnd.").startswith("<p>As in:</p><pre>if x &amp;lt; 1:\n    pass</pre>")


def test_bullets_become_a_list():
    assert rst("* one\n  thing\n* two") == "<ul><li>one thing</li><li>two</li></ul>"


def test_inline_markup_becomes_elements():
    html = rst("See ``a < b``, *this*, **that**, :func:`~x.y` and `docs <https://a.example>`_.")
    assert html == (
        "<p>See <code>a &lt; b</code>, <em>this</em>, <strong>that</strong>, <code>x.y</code> "
        'and <a href="https://a.example">docs</a>.</p>'
    )


@pytest.mark.parametrize("style", STYLES)
def test_formulas_of_each_style_are_found_by_the_extractor(style):
    html = f"<html><body><main>{rst('The sum :math:`a < b_i` holds.' + chr(10) * 2 + PROSE, style)}</main></body></html>"
    assert "a < b_i" in extract(html.encode(), "https://a.example/").text


def test_mathml_nests_fractions_and_scripts():
    assert presentation(r"\frac{1}{x^2}") == "<mfrac><mrow><mn>1</mn></mrow><mrow><msup><mi>x</mi><mn>2</mn></msup></mrow></mfrac>"


def test_an_edited_copy_reaches_the_wanted_similarity():
    html = f"<p>{PROSE}</p>"
    for target in (0.95, 0.8, 0.5):
        copy, reached = edited("Title", html, target, "key")
        assert reached == pytest.approx(target, abs=0.02)
        assert reached == jaccard(f"Title\n{PROSE}", f"Title\n{visible_text(copy)}")


def test_code_and_maths_are_never_edited():
    html = "<pre>keep these words</pre><p>change words here</p><script type='math/tex'>alpha beta</script>"
    copy = replace_words(html, 10, "key")
    assert "keep these words" in copy
    assert "alpha beta" in copy
    assert "<p>change words here</p>" not in copy


def test_a_text_is_original_only_once():
    seen = Originality()
    text = " ".join(f"the word{i}x is for" for i in range(60))
    assert seen.accept(text)
    assert not seen.accept("another beginning " + text)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_record_is_found_and_its_neighbours_survive(fault):
    body = f"<html><body><p>{PROSE}</p></body></html>".encode()
    faults = ("", fault, "")
    pages = [Page("demo-1", f"https://a.example/{i}", 0.1 * i, body, encoding="plain", fault=f) for i, f in enumerate(faults)]
    time = datetime(2024, 1, 1, tzinfo=UTC)
    data, offsets = warc_file("a.warc.gz", "demo-1", [(page, time) for page in pages])
    found = {record.offset: record for record in read_records(BytesIO(data))}
    damaged = found[offsets[1]]
    assert isinstance(damaged, Broken) or damaged.digest_ok is False
    for neighbour in (found[offsets[0]], found[offsets[2]]):
        assert not isinstance(neighbour, Broken)
        assert neighbour.payload == body


@pytest.mark.parametrize("encoding", ["", "plain", "gzip", "chunked"])
def test_every_encoding_comes_back_as_the_body(encoding):
    page = Page("demo-1", "https://a.example/", 0.5, PROSE.encode(), encoding=encoding)
    data, offsets = warc_file("a.warc.gz", "demo-1", [(page, datetime(2024, 1, 1, tzinfo=UTC))])
    (record,) = [r for r in read_records(BytesIO(data)) if r.offset == offsets[0]]
    assert not isinstance(record, Broken)
    assert (record.payload, record.digest_ok) == (PROSE.encode(), True)
