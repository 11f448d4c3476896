import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from l3_platform.extract.labels import gold_shares
from l3_platform.extract.layout import read
from l3_platform.extract.train import Example, f1, read_examples


def test_a_block_counts_by_the_share_of_its_tokens_in_the_gold():
    share, tokens = gold_shares(["Home news", "The lake is cold today", "and deep"], "The lake is cold.\n\nAnd deep")
    assert (share.tolist(), tokens.tolist()) == ([0.0, 0.8, 1.0], [2, 5, 2])


def test_the_same_words_in_a_menu_and_in_the_text_go_to_the_text():
    share, _ = gold_shares(["boots", "rope", "maps", "you need boots and a rope and maps"], "you need boots and a rope and maps")
    assert share.tolist() == [0, 0, 0, 1]


def test_a_page_without_gold_has_no_content():
    assert gold_shares(["a b"], "")[0].tolist() == [0]


def test_f1_counts_tokens_as_often_as_they_occur():
    assert f1("a a b", "A b c") == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("url", "site"),
    [("https://www.a.org/x", "a.org"), ("http://b.a.co.uk", "a.co.uk"), ("https://docs.a.com:80/", "a.com"), ("a", "")],
)
def test_pages_of_one_registrable_domain_are_one_site(url, site):
    none = np.zeros(0)
    assert Example(url, read(b"", 10), "", none, none).site == site


def test_examples_are_read_as_pages_are(tmp_path):
    row = {"url": "http://a.org", "html": b"<nav>Home</nav><p>The lake<script>x</script></p>", "main_content": "The lake"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "pages.parquet")
    (example,) = read_examples(tmp_path / "pages.parquet")
    assert (example.share.tolist(), example.score(example.share > 0.5)) == ([0.0, 1.0], 1.0)
