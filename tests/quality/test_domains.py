"""Topics and groups of real and small texts."""

import pytest

from l3_platform.dedup.code import code_share
from l3_platform.extract import extract
from l3_platform.quality.domains import (
    GROUPS,
    OTHER,
    build_knowledge_domains,
    group_of,
    topic_model,
    topic_of,
)
from l3_platform.settings import Engine, Settings

PROSE = "The committee met on Tuesday to discuss the plans for the new bridge, and decided to wait until spring."
PYTHON = "import os\n\ndef f(x):\n    return x + 1\n\nclass A:\n    value = 3\n\nfor i in range(3):\n    print(f(i))\n"


def test_there_are_about_two_dozen_topics_that_the_mix_can_weigh():
    assert 20 <= len(topic_model().weights) <= 30
    assert {"mathematics", "software_documentation", "arts_and_entertainment"} <= set(topic_model().weights)


@pytest.mark.parametrize(
    "text, topic",
    [
        ("The theorem follows from the lemma: the polynomial has an integer eigenvalue.", "mathematics"),
        ("The band played a song from the album at the concert; a film director sang.", "arts_and_entertainment"),
        ("The patient had symptoms; the doctor at the hospital began treatment with a vaccine.", "medicine_and_health"),
        ("Add to cart, free shipping, and a discount on every product at checkout.", "shopping"),
    ],
)  # fmt: skip
def test_a_topic_is_told_by_its_words(text, topic):
    assert topic_of(text)[0] == topic


def test_too_little_evidence_is_no_topic():
    assert topic_of("A theorem.") == (OTHER, 0.0)


def test_a_topic_score_is_a_share():
    assert 0.0 < topic_of("theorem lemma proof music film")[1] < 1.0


@pytest.mark.parametrize(
    "text, formulas, language, group",
    [
        (PROSE, 0, "en", "general"),
        (PYTHON, 0, "und", "code"),
        (PYTHON, 0, "de", "multilingual"),
        (PROSE, 4, "en", "math"),
        (PROSE * 100, 4, "en", "general"),
        ("By the lemma the polynomial is symmetric, so the theorem holds.", 0, "en", "math"),
    ],
)
def test_the_group_follows_language_code_and_formulas(text, formulas, language, group):
    assert group_of(text, formulas, language) == group


def test_prose_is_not_code_and_code_is():
    assert code_share(PROSE) == 0.0 and code_share(PYTHON) > 0.9


def test_most_real_source_files_are_code(shared_data):
    import pyarrow.parquet as pq

    table = pq.read_table(shared_data / "code/samples.parquet", filters=[("language", "not in", ["Markdown", "HTML"])])
    groups = [group_of(text, 0, "und") for text in table["text"].to_pylist()]
    assert groups.count("code") > 0.8 * len(groups)


def test_almost_no_real_article_is_code(shared_data):
    import pyarrow.parquet as pq

    texts = pq.read_table(shared_data / "extraction/wcxb-dev.parquet", columns=["main_content"])["main_content"]
    groups = [group_of(text or "", 0, "en") for text in texts.to_pylist()[:300]]
    assert groups.count("code") <= 3


def test_a_real_page_of_mathematics_is_math(shared_data):
    page = extract((shared_data / "math/wikipedia-hermitian-matrix.html").read_bytes())
    assert group_of(page.text, len(page.formulas), "en") == "math"
    assert topic_of(page.text)[0] == "mathematics"


def test_rows_lie_beside_their_documents(corpus, id_of):
    pages = [
        {"url": "https://a.example", "text": PROSE},
        {"url": "https://b.example", "text": PROSE, "language": "fr"},
        {"url": "https://c.example", "text": PYTHON},
    ]
    made = corpus(pages[:2], [], pages[2:])
    dataset = made.build("knowledge_domains", build_knowledge_domains, Settings(engine=Engine(workers=1)), languages=made.languages)
    rows = dataset.read().to_pylist()
    assert [row["doc_id"] for row in rows] == [id_of(page) for page in pages]
    assert [row["domain_group"] for row in rows] == ["general", "multilingual", "code"]
    assert {row["domain_group"] for row in rows} <= set(GROUPS)
