import random

import pytest

from l3_platform.extract.slim import slim


@pytest.mark.parametrize(
    ("html", "left"),
    [
        ("<p>a<!-- <b> -->b<!-->c<!--->d", "<p>abcd"),
        ("<script>var a = '</scr' + 'ipt>'</script>x", "<script></script>x"),
        ("<style>p {}</style>", "<style></style>"),
        ('<script type="math/tex">x<y</script>', '<script type="math/tex">x<y</script>'),
        ("<div href='/x>' class=\"y z\" onclick=f()>b</div>", '<div class="y z">b</div>'),
        ("<a href='/x>' class=\"y z\" id=i>b</a>", "<a>b</a>"),
        ("<span class='katex-html'>b</span>", "<span class='katex-html'>b</span>"),
        ("<span class=lineno>7</span>", "<span class=lineno>7</span>"),
        ("<div style='display: none'>a</div>", "<div hidden>a</div>"),
        ("<div style='color: red'>a</div>", "<div>a</div>"),
        ("<svg><path d='M0'/><svg/></svg>x", "<svg></svg>x"),
        ("<svg><path d='M0' />x", "<svg><path />x"),
        ("<textarea><!-- a --><b></textarea>", "<textarea><!-- a --><b></textarea>"),
        ("<img src=data:" + "x" * 3000 + " alt=y>", "<img alt=y>"),
        ("a < b <3 </ <", "a < b <3 </ <"),
        ("<p class='never ends", "<p class='never ends"),
        ("<plaintext><b class=x y=z>", "<plaintext><b class=x y=z>"),
    ],
)
def test_what_is_never_read_is_cut(html, left):
    assert slim(html)[0].decode() == left


@pytest.mark.parametrize(
    ("html", "left"),
    [
        ("x <span class=k>def</span> <CODE><span>f</span>()</CODE>", "x def f()"),
        ("<pre>a<span class=w> </span>b", "<pre>a b"),
        ("<em>a <span>b</span></em>", "<em>a b</em>"),  # it may stand out
        ("<span>a<em>b</em></span>", "<span>a<em>b</em></span>"),
        ("<span hidden>a</span><span aria-hidden=true>b</span>", "<span hidden>a</span><span aria-hidden=true>b</span>"),
        ("<span>a<code>b</span>c</code>", "<span>a<code>b</span>c</code>"),
        # What the parser would read otherwise: a line break after <pre>, white space in a table, what follows & or <.
        ("<pre><span>\na</span></pre>", "<pre><span>\na</span></pre>"),
        ("<pre><span></span>\na</pre>", "<pre><span></span>\na</pre>"),
        ("<table><span> </span>", "<table><span> </span>"),
        ("&am<span>p;lt</span>", "&am<span>p;lt</span>"),
        ("<span>&am</span>p;lt", "<span>&am</span>p;lt"),
        ("a <<span>b</span>>c", "a <<span>b</span>>c"),
        ("<svg2><math><span>a</span></math>", "<svg2><math><span>a</span></math>"),
    ],
)
def test_elements_that_only_hold_text_leave_it(html, left):
    assert slim(html)[0].decode() == left


def test_however_deep_they_nest_what_the_parser_reads_is_the_same():
    from l3_platform.extract.layout import read

    for depth in (1, 15, 16, 17, 40):
        html = "<p>x " + "<span class=a>y" * depth + "z" + "</span>" * depth + " w"
        assert read(slim(html)[0], 512).block(0) == read(html.encode(), 512).block(0) == "x " + "y" * depth + "z w"


_WRITTEN = "span code b a p td table tr pre li div tt ul h1 button select option math br font nobr"
_PARTS = [tag for name in _WRITTEN.split() for tag in (f"<{name}>", f"<{name} class=x>", f"</{name}>")]
_PARTS += [
    " ",
    " ",
    "\n",
    "x",
    "y ",
    "&am",
    "p;",
    "lt;",
    "<",
    "a<",
    "<span/>",
    "<sub class=line>",
    "</sub>",
    "<script>1</script>",
] * 2


def test_however_broken_the_markup_the_text_is_the_same():
    from l3_platform.extract.layout import read

    for seed in range(3000):
        dice = random.Random(seed)
        html = "".join(dice.choice(_PARTS) for _ in range(dice.randint(3, 25)))
        assert read(slim(html)[0], 512).text.tobytes() == read(html.encode(), 512).text.tobytes(), html


def test_real_pages_have_the_same_text_slimmed(shared_data):
    import pyarrow.parquet as pq

    from l3_platform.extract.layout import read

    for row in pq.read_table(shared_data / "extraction" / "wcxb-dev.parquet")["html"][:60]:
        source = row.as_py().decode("utf-8", "replace")
        assert read(slim(source)[0], 512).text.tobytes() == read(source.encode(), 512).text.tobytes()


def test_slimming_twice_changes_nothing_more():
    html = "<main class=x onclick=f()><svg><path d=x></svg><p style='visibility:hidden'>a<br/>b</main>"
    assert slim(slim(html)[0].decode())[0] == slim(html)[0]
