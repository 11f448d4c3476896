import pytest

from l3_platform.extract.slim import slim


@pytest.mark.parametrize(
    ("html", "left"),
    [
        ("<p>a<!-- <b> -->b<!-->c<!--->d", "<p>abcd"),
        ("<script>var a = '</scr' + 'ipt>'</script>x", "<script></script>x"),
        ("<style>p {}</style>", "<style></style>"),
        ('<script type="math/tex">x<y</script>', '<script type="math/tex">x<y</script>'),
        ("<a href='/x>' class=\"y z\" onclick=f()>b</a>", '<a class="y z">b</a>'),
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


def test_real_pages_have_the_same_text_slimmed(shared_data):
    import pyarrow.parquet as pq

    from l3_platform.extract.layout import read

    for row in pq.read_table(shared_data / "extraction" / "wcxb-dev.parquet")["html"][:60]:
        source = row.as_py().decode("utf-8", "replace")
        assert read(slim(source)[0], 512).text.tobytes() == read(source.encode(), 512).text.tobytes()


def test_slimming_twice_changes_nothing_more():
    html = "<main class=x onclick=f()><svg><path d=x></svg><p style='visibility:hidden'>a<br/>b</main>"
    assert slim(slim(html)[0].decode())[0] == slim(html)[0]
