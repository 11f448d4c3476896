"""`l3 why`: every stage's word on a page, its twins, its lines and each score against its threshold."""

import json
import uuid

import pytest

from l3_platform.settings import load
from l3_platform.why import as_json, as_text, of
from tests.mix.corpus import catalog, doc_id

TEXT = "Subscribe now!\nWrite to us.\nThe rest."
LOST = {
    "snapshot": "demo-1",
    "file": "a.warc.gz",
    "offset": 77,
    "url": "https://a.example/broken",
    "reason": "truncated",
    "detail": "declared 9 bytes, got 4",
    "bytes_lost": 5,
}
OLD, NEW, TWIN, COPY, DIRTY, KEPT = range(6)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("L3_HOME", str(tmp_path_factory.mktemp("why")))
        page = "https://a.example/page"
        first = [
            {
                "documents": {"url": f"{page}/?utm_source=x"},
                "url_policy": {"canonical_url": page},
                "url_versions": {"newest": False, "versions": 2, "newest_doc_id": doc_id(NEW)},
                "duplicate_documents": {"representative": None, "cluster": None, "cluster_size": None, "jaccard": None},
            },
            {"documents": {"url": page}, "url_versions": {"versions": 2}},
            {"documents": {"url": "https://a.example/twin"}, "duplicate_documents": {"cluster_size": 2}},
        ]
        second = [
            {
                "documents": {"url": "https://b.example/copy", "snapshot": "demo-2"},
                "duplicate_documents": {"representative": False, "cluster": doc_id(TWIN), "cluster_size": 2, "jaccard": 0.912},
            },
            {"documents": {"url": "https://b.example/dirty"}, "text_heuristics": {"dirty_words": 0.5}, "pii": {"emails": 2}},
            {
                "documents": {"url": "https://b.example/kept", "text": TEXT},
                "repeated_lines": {"removed_lines": [0, 1], "removed_chars": 26, "lines": 3},
            },
        ]
        yield catalog({"demo-1": first, "demo-2": second}, load("demo", ["engine.workers=1"]), [LOST])


def test_a_duplicate_names_its_twin_and_their_jaccard(home):
    text = as_text(of("https://b.example/copy", home))
    assert "=> dropped: duplicates https://a.example/twin (true Jaccard 0.912)" in text
    assert "Jaccard 0.912" in text and "(this one)" in text


def test_a_document_that_stays_names_the_copies_it_stands_for(home):
    (story,) = of("https://a.example/twin", home).stories
    assert [(copy.url, copy.stays) for copy in story.copies] == [
        ("https://a.example/twin", True),
        ("https://b.example/copy", False),
    ]


def test_every_version_of_a_page_is_told_whatever_its_spelling(home):
    told = of("https://A.example/page/index.html#part", home)
    assert [story.document["url"] for story in told.stories] == ["https://a.example/page/?utm_source=x", "https://a.example/page"]
    assert "=> dropped: a newer version of this URL was fetched 2024-01-01 00:00" in as_text(told)
    assert [version.stays for version in told.stories[0].versions] == [True, False]


@pytest.mark.parametrize("asked", ["http://a.example/twin", "a.example/twin"])
def test_another_scheme_or_none_is_tried_and_said(home, asked):
    text = as_text(of(asked, home))
    assert text.startswith(f"{asked}: told of https://a.example/twin\n")


def test_a_page_is_found_by_its_doc_id(home):
    (story,) = of(str(doc_id(DIRTY)), home).stories
    assert story.document["url"] == "https://b.example/dirty"


def test_every_score_stands_beside_its_threshold(home):
    text = as_text(of("https://b.example/dirty", home))
    assert "FAILED  dirty_words         dirty_words 0.5 > 0.01  (heuristics.dirty_words_max)" in text
    assert "passed  few_words           words 100, drops < 20  (heuristics.min_words)" in text
    assert "=> dropped by dirty_words: dirty_words 0.5 > 0.01" in text
    assert "2 emails: masked in the text" in text


def test_the_lines_that_go_are_shown_and_why(home):
    text = as_text(of("https://b.example/kept", home))
    assert "2 of 3 removed, 26 characters, each seen more than 6 times" in text
    assert "- Subscribe now!\n" in text and "- Write to us.\n" in text and text.endswith("=> kept")


def test_the_place_in_the_archive_is_told(home):
    assert "demo-1      fetched 2024-01-01 00:00, a.warc.gz at offset 1,234, 567 bytes" in as_text(
        of("https://a.example/twin", home)
    )


def test_a_broken_record_is_told_with_what_was_lost(home):
    text = as_text(of("https://a.example/broken", home))
    assert "the record at offset 77 of a.warc.gz is broken (truncated): declared 9 bytes, got 4; quarantined, 5 bytes lost" in text


def test_a_page_never_seen_is_one_sentence_with_the_nearest_one(home):
    told = of("https://b.example/cpoy", home)
    assert not told.found and as_text(told).count("\n") == 0
    assert "never seen in this crawl; did you mean 'https://b.example/copy'?" in as_text(told)
    assert "no page leave no trace but their number: not_html 6" in as_text(told)


@pytest.mark.parametrize("asked", ["", "not a url", "https://", str(uuid.UUID(int=99)), "'; DROP TABLE x; --"])
def test_nonsense_is_never_seen(home, asked):
    assert "never seen in this crawl" in as_text(of(asked, home))


def test_the_story_as_json_has_rules_copies_and_stages(home):
    (story,) = json.loads(as_json(of("https://b.example/copy", home)))["stories"]
    assert story["copies"][0]["url"] == "https://a.example/twin" and story["stages"]["languages"]["language"] == "en"
    assert [said["rule"]["reason"] for said in story["judgements"] if said["failed"]] == ["duplicate"]


def test_a_page_is_told_of_before_anything_is_decided(home, tmp_path, monkeypatch):
    other = load("demo", ["engine.workers=1", "heuristics.min_words=1"])
    undecided = type(home)(other, home.snapshots, home.identity)
    monkeypatch.setenv("L3_HOME", home.root.removesuffix("/data"))
    assert as_text(of("https://a.example/twin", undecided)).endswith("=> not decided yet: materialize curation_decisions")
