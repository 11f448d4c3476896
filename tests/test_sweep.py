"""A sweep: what other thresholds would keep is what a rebuild with them would keep, and nothing is built."""

import json
from pathlib import Path

import pytest

from l3_platform.grid import MAX_POINTS, grid, split
from l3_platform.lineage import Catalog
from l3_platform.settings import SettingsError, load
from l3_platform.store import MissingDataset
from l3_platform.sweep import as_json, as_text, sweep
from tests.mix.corpus import catalog

WORDS = (10, 30, 60, 90)
PAGES = [
    {"text_heuristics": {"words": words}, "quality_scores": {"score": words / 100}, "documents": {"title": f"Page of {words}"}}
    for words in WORDS
]
FOREIGN = {"languages": {"language": "de"}, "knowledge_domains": {"domain_group": "multilingual"}, "quality_scores": {"score": 0.0}}


def settings(more=()):
    return load("demo", ["engine.workers=1", *more])


@pytest.fixture(scope="module")
def decided(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("L3_HOME", str(tmp_path_factory.mktemp("sweep")))
        yield catalog({"demo-1": PAGES[:2], "demo-2": [*PAGES[2:], FOREIGN]}, settings())


def kept(swept):
    return [point.documents for point in swept.points]


def test_each_value_says_what_it_would_keep(decided):
    swept = sweep(["heuristics.min_words=5,20,50"], decided, settings)
    assert swept.now.documents == 4 and kept(swept) == [5, 4, 3]
    assert [dict(point.settings) for point in swept.points] == [{"heuristics.min_words": words} for words in (5, 20, 50)]


def test_several_settings_are_a_grid(decided):
    swept = sweep(["heuristics.min_words=5,50", "quality.min_score=0.05,0.7"], decided, settings)
    assert kept(swept) == [5, 2, 3, 2]


@pytest.mark.parametrize(
    "variation", ["heuristics.min_words=50", "curate.languages=de", "quality.min_score=0.4", "pii.max_density=0"]
)
def test_a_sweep_keeps_what_a_rebuild_would_keep(decided, variation, tmp_path, monkeypatch):
    (point,) = sweep([variation], decided, settings).points
    monkeypatch.setenv("L3_HOME", str(tmp_path / "rebuilt"))
    rebuilt = catalog({"demo-1": PAGES[:2], "demo-2": [*PAGES[2:], FOREIGN]}, settings([variation])).dataset("curation_decisions")
    assert point.documents == rebuilt.manifest.counts.kept
    assert dict(point.dropped) == rebuilt.manifest.counts.dropped


def test_what_is_kept_is_told_by_language_and_domain_group(decided):
    (point,) = sweep(["heuristics.min_words=50"], decided, settings).points
    assert dict(point.languages) == {"en": 2, "de": 1} and dict(point.domain_groups) == {"general": 2, "multilingual": 1}
    assert point.bytes == 3 * len("Some text.\nOf two lines.") and point.tokens is None


def test_documents_that_change_sides_are_named_with_the_reason(decided):
    fewer, more = sweep(["heuristics.min_words=50,5"], decided, settings).points
    assert [(one.title, one.reason) for one in fewer.lost] == [("Page of 30", "few_words")] and not fewer.gained
    assert [(one.title, one.reason) for one in more.gained] == [("Page of 10", "few_words")] and not more.lost


def test_a_sweep_builds_nothing(decided):
    before = sorted(Path(decided.root).rglob("*"))
    sweep(["heuristics.min_words=5,50"], decided, settings)
    assert before and sorted(Path(decided.root).rglob("*")) == before


def test_of_a_large_corpus_a_sample_is_judged_and_said_so(decided):
    swept = sweep(["heuristics.min_words=5"], decided, settings, max_documents=2)
    assert (swept.judged, swept.documents) == (2, 5)
    assert "2 documents, an even sample of 5" in as_text(swept)


def test_a_setting_of_another_asset_names_what_to_rebuild(decided):
    with pytest.raises(SettingsError, match=r"dedup.threshold changes what .*duplicate_documents.* make.*--set dedup.threshold="):
        sweep(["dedup.threshold=0.7"], decided, settings)


@pytest.mark.parametrize(
    ("variations", "says"),
    [
        (["train.nodes=1,2"], "train.nodes has no say in what is kept; a sweep can vary .*quality.min_score"),
        (["heuristics.min_word=1"], "did you mean 'min_words'"),
        (["heuristics.min_words"], "not of the form section.key=value,value"),
        (["heuristics.min_words=few"], "heuristics.min_words: input should be a valid integer"),
        (
            ["heuristics.min_words=" + ",".join(map(str, range(MAX_POINTS + 1)))],
            f"1 to {MAX_POINTS} points, this one {MAX_POINTS + 1}",
        ),
    ],
)
def test_a_mistake_is_one_sentence(variations, says):
    with pytest.raises(SettingsError, match=says):
        grid(variations, settings)


def test_values_that_are_lists_are_written_in_brackets():
    assert split('["en"],["en","de"], 3') == ['["en"]', '["en","de"]', "3"]
    assert [point["curate.languages"] for point, _ in grid(['curate.languages=["en"],["en","de"]'], settings)] == [
        ("en",),
        ("en", "de"),
    ]


def test_nothing_decided_yet_names_the_asset(tmp_path, monkeypatch):
    monkeypatch.setenv("L3_HOME", str(tmp_path))
    with pytest.raises(MissingDataset, match="materialize"):
        sweep(["heuristics.min_words=5"], Catalog(settings(), ["demo-1"], str), settings)


def test_the_answer_is_a_table_with_the_present_first(decided):
    lines = as_text(sweep(["heuristics.min_words=5,50"], decided, settings)).splitlines()
    assert lines[2].split()[:3] == ["heuristics.min_words", "kept", "change"]
    assert lines[3].split()[:3] == ["20", "(now)", "4"] and lines[4].split()[:3] == ["5", "5", "+1"]
    assert any("Page of 30" in line and "few_words" in line for line in lines)


def test_the_answer_as_json_has_every_number(decided):
    told = json.loads(as_json(sweep(["heuristics.min_words=5"], decided, settings)))
    assert told["now"]["documents"] == 4 and told["points"][0]["gained"][0]["title"] == "Page of 10"
