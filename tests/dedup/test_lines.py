"""Lines seen too often go; prose only, within a language and a bucket."""

import random
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from l3_platform.dedup.code import is_code
from l3_platform.dedup.lines import build_repeated_lines, counted_lines, line_bucket, without_lines
from l3_platform.dedup.urls import build_url_versions

PROMPTS = (">>>", "In [", "\t", "  ")


def reference(text: str, min_chars: int) -> list[tuple[int, str]]:
    """Index and text of the lines that count, in plain Python."""
    found: list[tuple[int, str]] = []
    paragraph: list[tuple[int, str]] = []
    for index, line in enumerate([*text.split("\n"), ""]):
        if line.strip():
            paragraph.append((index, line))
            continue
        lines = [line for _, line in paragraph]
        is_code_paragraph = any(line.startswith(PROMPTS) for line in lines) or 2 * sum(map(is_code, lines)) > len(lines)
        found += [(index, line) for index, line in paragraph if len(line.strip()) >= min_chars and not is_code_paragraph]
        paragraph = []
    return found


def counted(*texts: str | None, min_chars: int = 3) -> list[list[tuple[int, str]]]:
    """What the kernel finds in each text; its bytes and characters are those of the line."""
    lines = counted_lines(pa.chunked_array([pa.array(texts, pa.string())]), min_chars)
    found: list[list[tuple[int, str]]] = [[] for _ in texts]
    for document, index, start, end, chars in zip(lines.document, lines.line, lines.start, lines.end, lines.chars, strict=True):
        line = (texts[document] or "").split("\n")[index]
        assert lines.data[start:end].tobytes().decode() == line.strip() and chars == len(line)
        found[document].append((int(index), line))
    return found


BANNER = "Subscribe to our newsletter"


def page(number: int, *extra: str, language: str = "en", body: str = "") -> dict:
    own = body or "\n\n".join(f"sentence {number} {part} of its own text" for part in range(3))
    return {"url": f"http://{number}.example", "text": "\n\n".join([own, *extra]), "language": language}


def repeated(corpus, settings) -> dict[str, list[str]]:
    """Lines removed from each URL."""
    versions = corpus.build(build_url_versions, settings, url_policy=corpus.url_policy)
    duplicates = corpus.duplicates(settings, url_versions=[versions])
    lines = corpus.build(
        build_repeated_lines,
        settings,
        languages=corpus.languages,
        url_versions=[versions],
        duplicate_documents=[duplicates],
    )
    rows = lines.read().to_pylist()
    for row, each in zip(rows, corpus.pages, strict=True):
        removed = [each["text"].split("\n")[line] for line in row["removed_lines"]]
        assert row["removed_chars"] == sum(map(len, removed)) and row["lines"] == each["text"].count("\n") + 1
    return {
        each["url"]: [each["text"].split("\n")[line] for line in row["removed_lines"]]
        for row, each in zip(rows, corpus.pages, strict=True)
    }


@pytest.mark.parametrize("times, removed", [(6, 0), (7, 7)])
def test_a_line_seen_more_than_six_times_is_removed_everywhere(corpus, dedup_settings, times, removed):
    pages = [page(n, *[BANNER] * (n < times)) for n in range(9)]
    found = repeated(corpus([pages[:4]], [pages[4:]]), dedup_settings())
    assert [line for lines in found.values() for line in lines] == [BANNER] * removed


def test_occurrences_in_one_document_count(corpus, dedup_settings):
    found = repeated(corpus([[page(1, *[BANNER] * 4), page(2, *[BANNER] * 3), page(3)]]), dedup_settings())
    assert [len(lines) for lines in found.values()] == [4, 3, 0]


def test_languages_count_apart(corpus, dedup_settings):
    pages = [page(n, BANNER, language="en" if n < 4 else "de") for n in range(8)]
    assert not any(repeated(corpus([pages]), dedup_settings()).values())


def test_copies_that_are_dropped_do_not_count(corpus, dedup_settings):
    copies = [page(1, BANNER) | {"url": f"http://copy{n}.example"} for n in range(8)]
    assert not any(repeated(corpus([[*copies, page(2, BANNER)]]), dedup_settings()).values())


def test_buckets_count_apart(corpus, dedup_settings, id_of):
    pages = [page(n, BANNER) for n in range(14)]
    found = repeated(corpus([pages]), dedup_settings(line_bucket_documents=7))
    sides = [line_bucket(id_of(each), 2) for each in pages]
    crowded = {side for side in (0, 1) if sides.count(side) > 6}
    assert [bool(lines) for lines in found.values()] == [side in crowded for side in sides]


@pytest.mark.parametrize("code", ["def f(x):\n    return x", ">>> f(1)\nTrue\n2", "import numpy as np\nx = 1", "f(1);\ng(2);"])
def test_lines_of_code_are_left_alone(code):
    text = f"Prose counts.\n\n{code}\n\nMore of it."
    assert [line for _, line in counted(text)[0]] == ["Prose counts.", "More of it."]


@pytest.mark.parametrize(
    "line", ["Subscribe to our newsletter", "For more, see the guide", "(c) 2024 Example Ltd.", "From our partners"]
)
def test_a_banner_is_not_code(line):
    assert [found for _, found in counted(line)[0]] == [line]


def test_lines_of_real_pages_and_of_programs_are_those_of_the_reference(shared_data):
    pages = pq.read_table(shared_data / "extraction" / "wcxb-dev.parquet", columns=["main_content"])["main_content"].to_pylist()[
        :300
    ]
    programs = [str(text) for text in pq.read_table(shared_data / "code" / "samples.parquet")["text"].to_pylist()]
    texts = [*pages, *programs, None, ""]
    assert counted(*texts) == [reference(text or "", 3) for text in texts]


def test_lines_of_any_characters_are_those_of_the_reference():
    random.seed(5)
    white = [char for char in map(chr, range(sys.maxunicode)) if char.isspace()]
    pieces = [
        *white,
        "\n",
        "\n",
        "\n",
        *"aAzé機😀=;{}():.#$/@'\"_0",
        "import",
        "return",
        "from",
        "In [",
        ">>>",
        "  ",
        "x = 1",
        "\0",
    ]
    texts = ["".join(random.choices(pieces, k=random.randrange(30))) for _ in range(5000)]
    assert counted(*texts) == [reference(text, 3) for text in texts]


def test_short_lines_never_count():
    assert counted("or\n }") == [[]]


def test_an_index_is_that_of_the_line_in_the_text():
    text = "one line\n\n\ttab\n\nlast line"
    assert [(index, text.split("\n")[index]) for index, _ in counted(text)[0]] == [
        (0, "one line"),
        (4, "last line"),
    ]


def test_removing_lines_leaves_no_holes():
    assert without_lines("a\n\nbanner\n\nb\nfooter", [2, 5]) == "a\n\nb"


def test_removing_all_lines_leaves_nothing():
    assert without_lines("banner\n\nfooter", [0, 2]) == ""


def test_a_text_without_removed_lines_is_untouched():
    assert without_lines("\n a \n\n\n b \n", []) == "\n a \n\n\n b \n"
