"""The cards of curation: the funnel adds up, charts are small pictures, and every reason has documents to read."""

import struct
from types import SimpleNamespace

import dagster as dg
import pytest

from l3_platform.orchestration.card import card
from l3_platform.orchestration.charts import funnel, removed
from l3_platform.orchestration.curation_card import funnel_steps, show_curated, show_decisions
from l3_platform.orchestration.stage import Made
from l3_platform.settings import load
from tests.mix.corpus import catalog

SPAM = {"text_heuristics": {"dirty_words": 0.5}}
SHORT = {"text_heuristics": {"words": 3}, "languages": {"language": "de"}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("L3_HOME", str(tmp_path_factory.mktemp("card")))
        home = catalog({"demo-1": [{}, {}, SPAM], "demo-2": [{}, SHORT, SHORT]}, load("demo", ["engine.workers=1"]))
        yield lambda stage: Made(home, "all", home.inputs(stage), home.dataset(stage), {})


def size(picture: bytes) -> tuple[int, int]:
    """Width and height of a PNG, in pixels."""
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", picture[16:24])


def test_the_funnel_leads_from_records_to_curated_documents(made):
    assert funnel_steps(made("curated_documents")) == [
        ("records", 12),
        ("not a page", 6),
        ("documents", 6),
        ("few_words", 4),
        ("dirty_words", 3),
        ("curated", 3),
    ]


def test_removal_is_shown_by_reason_source_and_language(made):
    samples = show_curated(made("curated_documents")).samples
    first = samples["removed by reason"].to_pylist()[0]
    assert (first["reason"], first["documents"], first["of those left"]) == ("few_words", 2, "33.33%")
    assert first["MB"] == pytest.approx(48e-6)
    assert [row["removed"] for row in samples["removed by source"].to_pylist()] == ["33.3%", "66.7%"]
    assert [(row["language"], row["removed"]) for row in samples["removed by language"].to_pylist()] == [
        ("en", "25.0%"),
        ("de", "100.0%"),
    ]


def test_both_cards_have_documents_of_each_side(made):
    for shown in (show_decisions(made("curation_decisions")), show_curated(made("curated_documents"))):
        assert shown.samples["five kept"].num_rows == 3
        evidence = shown.samples["five dropped of each reason"]["evidence"].to_pylist()
        assert evidence == ["words 3 < 20", "words 3 < 20", "dirty_words 0.5 > 0.01"]


def test_a_card_holds_three_charts_as_markdown_under_100_kilobytes(made):
    one = made("curated_documents")
    charts = {name: value for name, value in card(one, show_curated(one), SimpleNamespace(uri="")).items() if "chart" in name}
    assert len(charts) == 3
    for value in charts.values():
        assert isinstance(value, dg.MarkdownMetadataValue) and len(value.value or "") < 100_000


def test_a_funnel_grows_with_its_steps_and_holds_tiny_and_empty_ones():
    few = funnel([("records", 10), ("curated", 10)])
    many = funnel([("records", 10**9), *((f"reason {number}", 10**9 - number) for number in range(1, 25)), ("curated", 10**9 - 24)])
    assert size(many)[1] > size(few)[1] and len(many) < 75_000
    assert size(funnel([("records", 0), ("curated", 0)]))


def test_a_chart_of_shares_keeps_its_height_to_the_groups():
    shares = {f"group {number}": {f"reason {reason}": 0.01 for reason in range(12)} for number in range(10)}
    picture = removed(shares, dict.fromkeys(shares, 100))
    assert size(picture)[1] > size(removed({"one": {"a": 0.5}}, {"one": 2}))[1] and len(picture) < 75_000


def test_a_corpus_of_which_nothing_is_removed_has_a_chart_too():
    assert size(removed({"en": {}}, {"en": 5}))
