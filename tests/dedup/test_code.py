"""The share of code in a text: what the kernel settles and what it asks about give what each line alone gives."""

import random
import sys

import pyarrow as pa
import pyarrow.parquet as pq

from l3_platform.dedup.code import KEYWORDS, MAX_CHARS, OPENERS, code_share, code_shares, is_code

PIECES = [
    *KEYWORDS, *OPENERS, "def f(x):", "if", "x = 1", "call(a, b)", "prose, and more", "  ", " ", "\t", "\n", "\n\n", ";", "{",
    "}", ":", ">>> ", "In [1]: ", "...", '"""', "# ", "$ ", "//", "@name", "é", "日本", "\u00a0", "\u2028", "\x1c", "==", "a.b = c",
    "f(", "(", ")", "g[0]", " += ", " * ", "x: int", "",
]  # fmt: skip


def expected(text: str) -> float:
    lines = text[:MAX_CHARS].split("\n")
    weights = [len(line.replace(" ", "")) for line in lines]
    code = sum(weight for line, weight in zip(lines, weights, strict=True) if weight and is_code(line))
    return code / max(1, sum(weights))


def test_random_texts_have_the_share_of_their_lines():
    draw = random.Random(3)
    texts = ["".join(draw.choice(PIECES) for _ in range(draw.randrange(40))) for _ in range(12_000)]
    assert code_shares(pa.array([*texts, None])).tolist() == [*map(expected, texts), 0.0]
    assert list(map(code_share, texts)) == list(map(expected, texts))


def test_a_long_text_is_cut_where_it_is_cut_in_python():
    for length in range(MAX_CHARS - 3, MAX_CHARS + 4):
        text = "é" * length + "\nimport os;\nprose"
        assert code_shares(pa.array([text]))[0] == expected(text)
    lines = "日本 = 1\nprose\n" * MAX_CHARS
    assert code_shares(pa.array([lines]))[0] == expected(lines)


def test_every_character_alone_is_judged_as_python_judges_it():
    texts = [f"{chr(point)}a\n{chr(point)}\nb{chr(point)}" for point in range(sys.maxunicode) if not 0xD800 <= point < 0xE000]
    assert code_shares(pa.array(texts)).tolist() == [expected(text) for text in texts]


def test_real_sources_have_the_share_of_their_lines(shared_data):
    texts = pq.read_table(shared_data / "code" / "samples.parquet")["text"].cast(pa.string())
    assert code_shares(texts).tolist() == list(map(expected, texts.to_pylist()))
