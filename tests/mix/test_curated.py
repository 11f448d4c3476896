"""The decision: the first reason wins, everything adds up, and what stays is cleaned."""

from __future__ import annotations

from typing import Any

import pytest

from l3_platform.mix.curated import DECISIONS
from l3_platform.mix.rules import REASONS
from l3_platform.settings import Curate, Engine, Languages, Settings
from tests.mix.corpus import SETTINGS, Corpus


def reason(page: dict[str, dict[str, Any]], settings: Settings = SETTINGS) -> str | None:
    return Corpus([page]).decisions(settings).read()["dropped_by"].to_pylist()[0]


BAD: list[tuple[str, dict[str, dict[str, Any]]]] = [
    ("url_policy", {"url_policy": {"blocked_by": "word:casino"}}),
    ("language_score", {"languages": {"score": 0.1}}),
    ("few_words", {"text_heuristics": {"words": 3}}),
    ("many_words", {"text_heuristics": {"words": 1_000_000}}),
    ("short_words", {"text_heuristics": {"mean_word_length": 1.0}}),
    ("long_words", {"text_heuristics": {"mean_word_length": 30.0}}),
    ("symbol_word_ratio", {"text_heuristics": {"symbol_word_ratio": 0.5}}),
    ("bullet_lines", {"text_heuristics": {"bullet_lines": 0.95}}),
    ("ellipsis_lines", {"text_heuristics": {"ellipsis_lines": 0.5}}),
    ("alpha_words", {"text_heuristics": {"alpha_words": 0.1}}),
    ("duplicate_lines", {"text_heuristics": {"dup_line_char_fraction": 0.6}}),
    ("duplicate_ngrams", {"text_heuristics": {"dup_ngram_max": 0.6}}),
    ("dirty_words", {"text_heuristics": {"dirty_words": 0.2}}),
    ("outlier_tokens", {"outlier_tokens": {"kl": 9.0}}),
    ("pii_density", {"pii": {"density": 0.1}}),
    ("url_version", {"url_versions": {"newest": False}, "duplicate_documents": {"representative": None}}),
    ("duplicate", {"duplicate_documents": {"representative": False}}),
    ("quality", {"quality_scores": {"score": 0.01}}),
]


def test_each_rule_drops_for_its_own_reason():
    reasons = Corpus([page for _, page in BAD]).decisions().read()["dropped_by"].to_pylist()
    assert reasons == [reason for reason, _ in BAD]


def test_every_rule_but_those_of_settings_and_of_the_corpus_is_tried_here():
    assert set(REASONS) - {reason for reason, _ in BAD} == {"language", "pii_domain"}


def test_an_ordinary_document_is_kept():
    assert reason({}) is None


def test_the_first_reason_of_the_funnel_wins():
    everything = [page for _, page in BAD]
    pages = [{key: value for bad in reversed(everything[start:]) for key, value in bad.items()} for start in range(len(BAD))]
    reasons = Corpus(pages).decisions().read()["dropped_by"].to_pylist()
    assert reasons[0] == "url_policy" and reasons[1] == "language_score" and reasons[-3:] == ["url_version", "duplicate", "quality"]


def test_only_wanted_languages_are_kept():
    settings = Settings(engine=Engine(workers=1), curate=Curate(languages=("de", "fr")))
    assert reason({}, settings) == "language"
    assert reason({"languages": {"language": "fr"}}, settings) is None


def test_a_language_may_have_a_threshold_of_its_own():
    settings = Settings(engine=Engine(workers=1), languages=Languages(min_scores={"de": 0.95}))
    assert reason({"languages": {"language": "de"}}, settings) == "language_score"
    assert reason({}, settings) is None and reason({"languages": {"language": "de"}}) is None


def test_a_rule_judges_only_what_it_knows():
    pages = [
        {"languages": {"language": "und", "score": 0.0}},
        {"languages": {"language": "zh"}, "text_heuristics": {"mean_word_length": 1.0}},
        {"languages": {"language": "de"}, "quality_scores": {"score": 0.0}},
        {"quality_scores": {"score": 0.0, "code_share": 0.9}},
        {"outlier_tokens": {"kl": None}},
    ]
    assert Corpus(pages).decisions().read()["dropped_by"].null_count == len(pages)


def test_a_domain_with_much_personal_data_is_dropped_wherever_its_pages_lie():
    with_pii = {"url_policy": {"domain": "people.example"}, "pii": {"emails": 1}}
    without = {"url_policy": {"domain": "people.example"}}
    corpus = Corpus([with_pii] * 11 + [{}], [without] * 9 + [{}])
    reasons = corpus.decisions().read()["dropped_by"].to_pylist()
    assert reasons == ["pii_domain"] * 11 + [None] + ["pii_domain"] * 9 + [None]


def test_a_domain_of_few_pages_is_not_judged():
    assert reason({"pii": {"emails": 1}}) is None


def test_decisions_add_up_to_the_documents():
    counts = Corpus([page for _, page in BAD], [{}, {}]).decisions().manifest.counts
    assert (counts.records_in, counts.kept) == (len(BAD) + 2, 2)
    assert counts.dropped == {reason: 1 for reason, _ in BAD} and counts.balanced


def test_a_record_that_was_read_twice_has_two_decisions():
    assert Corpus([{"id": 7}, {"id": 7}]).decisions().read().num_rows == 2


def test_kept_documents_lose_repeated_lines_and_personal_data():
    page = {
        "documents": {"text": "Subscribe now!\nWrite to jane.doe@uni-test.org today.", "title": "By jane.doe@uni-test.org"},
        "repeated_lines": {"removed_lines": [0]},
    }
    row = Corpus([page]).curated().read().to_pylist()[0]
    assert (row["text"], row["title"]) == ("Write to [EMAIL] today.", "By [EMAIL]")


def test_a_document_that_lines_leave_empty_is_dropped():
    corpus = Corpus([{"documents": {"text": "Subscribe now!"}, "repeated_lines": {"removed_lines": [0]}}, {}])
    dataset = corpus.curated()
    assert dataset.manifest.counts.dropped == {"empty_after_lines": 1}
    assert dataset.read()["url"].to_pylist() == ["https://a.example/1"]


def test_curated_counts_balance_with_the_documents():
    counts = Corpus([page for _, page in BAD], [{}, {}], []).curated().manifest.counts
    assert (counts.records_in, counts.kept, sum(counts.dropped.values())) == (len(BAD) + 2, 2, len(BAD))


def test_a_curated_document_carries_what_the_mix_needs():
    table = Corpus([{}]).curated().read()
    row = table.to_pylist()[0]
    assert (row["language"], row["topic"], row["domain_group"]) == ("en", "physics", "general")
    assert row["quality"] == pytest.approx(0.8) and row["snapshot"] == "demo-1"


def test_a_decision_carries_what_another_one_would_have_to_count_again():
    with_pii = {"documents": {"text": "Grüße"}, "pii": {"emails": 1}}
    table = Corpus([with_pii], [{}]).decisions().read()
    assert table.schema.equals(DECISIONS)
    assert table.select(["text_bytes", "domain_pages", "domain_pages_with_pii"]).to_pylist()[0] == {
        "text_bytes": 7,
        "domain_pages": 2,
        "domain_pages_with_pii": 1,
    }
