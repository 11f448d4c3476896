"""The kernel against a plain walk over the parser's tree, and what a block is."""

import re

import numpy as np
import pytest
from selectolax.lexbor import LexborHTMLParser

from l3_platform.extract import tags as t
from l3_platform.extract.layout import TooDeep, read


def blocks(html: str) -> list[str]:
    layout = read(html.encode(), 512)
    return [layout.block(i) for i in range(len(layout.blocks))]


@pytest.mark.parametrize(
    ("html", "texts"),
    [
        ("<p>a<p>b", ["a", "b"]),
        ("<div>a<p>b</p>c</div>", ["a", "b", "c"]),
        ("<p>H<sub>2</sub>O <b>wa</b>ter", ["H2O water"]),
        ("<p>a <br> b<br><br>c", ["a\nb\n\nc"]),
        ("<p> a&nbsp;&amp; \n\t b &lt;c&gt; &copy;\u3000d", ["a & b <c> © d"]),
        ("<table><tr><td>a<td> b <td>c d</table>", ["a\tb\tc d"]),
        ("<table><tr><td><p>a</p><p>b</p><td>c</table>", ["a", "b", "c"]),
        ("<table><tr><td><table><tr><td>a<td>b</table><td>c</table>", ["a\tb", "c"]),
        ("<pre>\n\n  a\n\tb  \n</pre>c", ["  a\n\tb", "c"]),
        ("<pre><div>a</div><div>b</div></pre>", ["a\nb"]),
        ("<p>a<script>'<p>x'</script>b<style>p{}</style><svg><text>x</text></svg>c<!-- <p>x -->d", ["abcd"]),
        ("<p>a<span style='color:red;display : none'>x</span>b", ["ab"]),
        ("<p>so\u00adft\ue123 \ufeffend", ["soft end"]),
        ("<noscript><p>a</p></noscript><template><p>x</p></template><button>b</button>", ["a", "b"]),
        ("<p>a<hr>b", ["a", "b"]),
        ("<title>x</title>", []),
        ("", []),
    ],
)
def test_a_block_is_the_text_between_block_boundaries(html, texts):
    assert blocks(html) == texts


def test_blocks_know_what_holds_them():
    layout = read(b"<nav><ul><li><a href=/>Home</a></li></ul></nav><main><h1>A</h1><div hidden>b</div></main>", 512)
    assert [bits & (t.NAV | t.LIST | t.LINK | t.MAIN | t.HEADING | t.HIDDEN) for bits in layout.bits.tolist()] == [
        t.NAV | t.LIST | t.LINK,
        t.MAIN | t.HEADING,
        t.MAIN | t.HIDDEN,
    ]


def test_a_role_is_as_good_as_a_tag():
    assert read(b"<div role=navigation>x</div>", 512).bits.tolist() == [t.NAV]


def test_words_of_class_names_are_split_at_signs_and_camel_case():
    layout = read(b'<div class="siteHeader main-nav2 42">x</div>', 512)
    names = set(layout.names[layout.owners == 1].tolist())
    assert names == {t.fnv(word) for word in ("site", "header", "main", "nav2")}


def test_the_types_that_a_page_declares_are_read():
    head = '<meta property="og:type" content="article"><script type="application/ld+json">{"@type": "NewsArticle"}</script>'
    layout = read(f"<head>{head}</head><p>x".encode(), 512)
    assert set(layout.names[layout.owners < 0].tolist()) == {t.fnv("article"), t.fnv("newsarticle")}


def test_nesting_at_the_limit_is_read_and_beyond_it_refused():
    assert read(b"<div>" * 97 + b"x", 100).block(0) == "x"
    with pytest.raises(TooDeep):
        read(b"<div>" * 99 + b"x", 100)


def test_a_table_of_hashes_finds_what_was_put_in():
    from l3_platform.extract.markup import look_up

    values = {t.fnv(f"w{i}"): i + 1 for i in range(1000)}
    keys, found = t.table(values)
    assert [look_up(keys, found, np.uint32(key)) for key in values] == list(values.values())
    assert look_up(keys, found, np.uint32(t.fnv("absent"))) == 0


def test_the_blocks_of_real_pages_hold_the_text_of_the_tree_in_its_order(shared_data):
    import pyarrow.parquet as pq

    rows = pq.read_table(shared_data / "extraction" / "wcxb-dev.parquet")["html"][:80]
    pages = [re.sub(r" style *=", " data-style=", row.as_py().decode("utf-8", "replace")) for row in rows]
    treated_apart = re.compile(r"<math|katex|mathjax|latex|gutter|linen|line-num", re.IGNORECASE)
    plain = [page for page in pages if not treated_apart.search(page)]
    assert len(plain) > 10
    assert [_dense("".join(blocks(page))) for page in plain] == [_dense(_walked(page)) for page in plain]


LEFT_OUT = [
    "head", "title", "script", "style", "xmp", "iframe", "noembed", "noframes", "plaintext", "template", "svg", "math", "select",
    "textarea", "object", "canvas", "audio", "video", "map", "datalist", "progress", "meter", "applet", "rp",
]  # fmt: skip


def _walked(source: str) -> str:
    """All text that a page shows, by the parser's own means."""
    tree = LexborHTMLParser(source)
    tree.strip_tags(LEFT_OUT, recursive=True)
    for node in tree.css("[hidden]"):
        if not t.TAG_BITS[t.TAG_ID.get(node.tag or "", 0)] & t.BLOCK:
            node.replace_with("")
    return tree.body.text(deep=True) if tree.body else ""


def _dense(text: str) -> str:
    return re.sub("[\u00ad\ue000-\uf8ff\ufeff\u2060\\s\x00-\x20\x85]+", "", text)
