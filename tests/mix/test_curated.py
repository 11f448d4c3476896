"""The decision: the first reason wins, everything adds up, and what stays is cleaned."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pyarrow as pa
import pytest

from l3_platform.dedup.shards import aligned
from l3_platform.engine import connect
from l3_platform.mix.curated import build_curated_documents, build_curation_decisions, decide, open_views
from l3_platform.settings import Curate, Engine, Heuristics, Quality, Settings
from l3_platform.store import Dataset, Output, Writer

# What an ordinary page scores, by sidecar; a test says only what is different.
ORDINARY: dict[str, dict[str, Any]] = {
    "documents": {
        "snapshot": "demo-1",
        "url": "",
        "title": "A title",
        "text": "Some text.\nOf two lines.",
        "fetch_time": dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
    },
    "url_policy": {"domain": "a.example", "blocked_by": None},
    "languages": {"language": "en", "score": 0.9},
    "text_heuristics": {
        "words": 100,
        "mean_word_length": 5.0,
        "symbol_word_ratio": 0.0,
        "bullet_lines": 0.0,
        "ellipsis_lines": 0.0,
        "alpha_words": 0.9,
        "dup_line_char_fraction": 0.0,
        "dup_ngram_max": 0.0,
        "dirty_words": 0.0,
    },
    "pii": {"emails": 0, "phones": 0, "ips": 0, "ibans": 0, "cards": 0, "density": 0.0},
    "url_versions": {"newest": True},
    "duplicate_documents": {"representative": True},
    "quality_scores": {"score": 0.8, "code_share": 0.0},
    "repeated_lines": {"removed_lines": []},
    "knowledge_domains": {"topic": "physics", "domain_group": "general"},
}
TYPES = {
    "blocked_by": pa.string(),
    "newest": pa.bool_(),
    "representative": pa.bool_(),
    "score": pa.float32(),
    "code_share": pa.float32(),
    "removed_lines": pa.list_(pa.int32()),
    "fetch_time": pa.timestamp("us", "UTC"),
}
DECIDED_BY = [name for name in ORDINARY if name not in ("documents", "repeated_lines", "knowledge_domains")]
CURATED_FROM = ["languages", "repeated_lines", "quality_scores", "knowledge_domains"]
SETTINGS = Settings(engine=Engine(workers=1))


class Corpus:
    """Pages as `{sidecar: {column: value}}`, each list a shard, in memory."""

    def __init__(self, *shards: list[dict[str, Any]]) -> None:
        self.folder = f"memory://curated/{uuid.uuid4().hex}"
        self.datasets = {name: [self._dataset(name, shards)] for name in ORDINARY}

    def _dataset(self, name: str, shards: tuple[list[dict[str, Any]], ...]) -> Dataset:
        out = self.writer(name, "demo-1")
        number = 0
        for shard, pages in enumerate(shards):
            ids = [uuid.UUID(int=page.get("id", number + place)).bytes for place, page in enumerate(pages)]
            urls = [{"url": f"https://a.example/{number + page}"} if name == "documents" else {} for page in range(len(pages))]
            rows = [ORDINARY[name] | url | page.get(name, {}) for url, page in zip(urls, pages, strict=True)]
            columns = {key: pa.array([row[key] for row in rows], TYPES.get(key)) for key in ORDINARY[name]}
            doc_id = pa.ExtensionArray.from_storage(pa.uuid(), pa.array(ids, pa.binary(16)))
            out.put(f"part-{shard:05d}", Output.annotated(pa.table({"doc_id": doc_id, **columns})))
            number += len(pages)
        return out.commit([f"part-{shard:05d}" for shard in range(len(shards))])

    def writer(self, asset: str, partition: str = "all") -> Writer:
        return Writer(f"{self.folder}/{asset}/{partition}", asset, partition, code_version="1", settings={}, inputs={})

    def decisions(self, settings: Settings = SETTINGS) -> Dataset:
        out = self.writer("curation_decisions")
        sidecars = {name: self.datasets[name] for name in DECIDED_BY}
        return out.commit(*build_curation_decisions(self.datasets["documents"], **sidecars, out=out, settings=settings))

    def curated(self) -> Dataset:
        sidecars = {name: self.datasets[name] for name in CURATED_FROM} | {"curation_decisions": [self.decisions()]}
        out = self.writer("curated_documents")
        return out.commit(*build_curated_documents(self.datasets["documents"], **sidecars, out=out, settings=SETTINGS))


def reason(page: dict[str, dict[str, Any]], settings: Settings = SETTINGS) -> str | None:
    return Corpus([page]).decisions(settings).read()["dropped_by"].to_pylist()[0]


BAD: list[tuple[str, dict[str, dict[str, Any]]]] = [
    ("url_policy", {"url_policy": {"blocked_by": "word:casino"}}),
    ("language_score", {"languages": {"score": 0.1}}),
    ("few_words", {"text_heuristics": {"words": 3}}),
    ("many_words", {"text_heuristics": {"words": 1_000_000}}),
    ("mean_word_length", {"text_heuristics": {"mean_word_length": 1.0}}),
    ("mean_word_length", {"text_heuristics": {"mean_word_length": 30.0}}),
    ("symbol_word_ratio", {"text_heuristics": {"symbol_word_ratio": 0.5}}),
    ("bullet_lines", {"text_heuristics": {"bullet_lines": 0.95}}),
    ("ellipsis_lines", {"text_heuristics": {"ellipsis_lines": 0.5}}),
    ("alpha_words", {"text_heuristics": {"alpha_words": 0.1}}),
    ("duplicate_lines", {"text_heuristics": {"dup_line_char_fraction": 0.6}}),
    ("duplicate_ngrams", {"text_heuristics": {"dup_ngram_max": 0.6}}),
    ("dirty_words", {"text_heuristics": {"dirty_words": 0.2}}),
    ("pii_density", {"pii": {"density": 0.1}}),
    ("url_version", {"url_versions": {"newest": False}, "duplicate_documents": {"representative": None}}),
    ("duplicate", {"duplicate_documents": {"representative": False}}),
    ("quality", {"quality_scores": {"score": 0.01}}),
]


@pytest.mark.parametrize("expected, page", BAD)
def test_each_rule_drops_for_its_own_reason(expected, page):
    assert reason(page) == expected


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


@pytest.mark.parametrize(
    "page",
    [
        {"languages": {"language": "und", "score": 0.0}},
        {"languages": {"language": "zh"}, "text_heuristics": {"mean_word_length": 1.0}},
        {"languages": {"language": "de"}, "quality_scores": {"score": 0.0}},
        {"quality_scores": {"score": 0.0, "code_share": 0.9}},
    ],
)
def test_a_rule_judges_only_what_it_knows(page):
    assert reason(page) is None


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
    assert counts.dropped["mean_word_length"] == 2 and counts.balanced


def test_a_record_that_was_read_twice_has_two_decisions():
    assert Corpus([{"id": 7}, {"id": 7}]).decisions().read().num_rows == 2


def test_a_sweep_over_thresholds_is_one_query_each():
    pages = [{"text_heuristics": {"words": words}, "quality_scores": {"score": words / 100}} for words in (10, 30, 60, 90)]
    corpus = Corpus(pages[:3], pages[3:])
    connection = connect(SETTINGS.engine)
    sidecars = {name: corpus.datasets[name] for name in DECIDED_BY}
    open_views(connection, aligned(corpus.datasets["documents"], **sidecars).values())
    kept = [
        decide(connection, SETTINGS.model_copy(update=update))["dropped_by"].null_count
        for update in ({}, {"heuristics": Heuristics(min_words=50)}, {"quality": Quality(min_score=0.7)})
    ]
    assert kept == [3, 2, 1]


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
