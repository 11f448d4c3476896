"""Small corpora of made-up scores: an ordinary page, what is particular to others, and all the stages before the decision."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from l3_platform.lineage import STAGES, Catalog
from l3_platform.mix.curated import build_curated_documents, build_curation_decisions
from l3_platform.settings import Engine, Settings
from l3_platform.store import QUARANTINE_SCHEMA, Counts, Dataset, Output, Writer

Page = dict[str, Any]  # stage to {column: value}; `id` is the integer of its doc_id

# What an ordinary page scores, by sidecar; a test says only what is different.
ORDINARY: dict[str, dict[str, Any]] = {
    "documents": {
        "snapshot": "demo-1",
        "source": "demo",
        "url": "",
        "fetch_time": dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
        "warc_file": "a.warc.gz",
        "warc_offset": 1234,
        "warc_length": 567,
        "title": "A title",
        "text": "Some text.\nOf two lines.",
    },
    "url_policy": {"canonical_url": "", "domain": "a.example", "blocked_by": None},
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
    "outlier_tokens": {"kl": 1.0, "outlier_share": 0.0},
    "pii": {"emails": 0, "phones": 0, "ips": 0, "ibans": 0, "cards": 0, "density": 0.0},
    "url_versions": {"newest": True, "newest_doc_id": None, "versions": 1},
    "duplicate_documents": {"representative": True, "cluster": None, "cluster_size": 1, "jaccard": 1.0},
    "quality_scores": {"score": 0.8, "code_share": 0.0, "bucket": 5},
    "repeated_lines": {"removed_lines": [], "removed_chars": 0, "lines": 2},
    "knowledge_domains": {"topic": "physics", "topic_score": 0.5, "domain_group": "general"},
}
TYPES = {
    "blocked_by": pa.string(),
    "newest": pa.bool_(),
    "newest_doc_id": pa.uuid(),
    "representative": pa.bool_(),
    "cluster": pa.uuid(),
    "score": pa.float32(),
    "code_share": pa.float32(),
    "removed_lines": pa.list_(pa.int32()),
    "fetch_time": pa.timestamp("us", "UTC"),
}
SETTINGS = Settings(engine=Engine(workers=1))


def doc_id(number: int) -> uuid.UUID:
    return uuid.UUID(int=number)


def rows(stage: str, pages: Sequence[Page], first: int) -> pa.Table:
    """The table of a stage over `pages`, which are numbered from `first`."""
    numbers = [page.get("id", first + place) for place, page in enumerate(pages)]
    filled = [_row(stage, page, number) for page, number in zip(pages, numbers, strict=True)]
    columns = {name: _column([row[name] for row in filled], TYPES.get(name)) for name in ORDINARY[stage]}
    return pa.table({"doc_id": _column([doc_id(number) for number in numbers], pa.uuid()), **columns})


def _row(stage: str, page: Page, number: int) -> dict[str, Any]:
    url = page.get("documents", {}).get("url", f"https://a.example/{number}")
    own = {"url_versions": {"newest_doc_id": doc_id(number)}, "duplicate_documents": {"cluster": doc_id(number)}}
    return ORDINARY[stage] | {"url": url, "canonical_url": url} | own.get(stage, {}) | page.get(stage, {})


def _column(values: Sequence[Any], kind: pa.DataType | None) -> pa.Array:
    if kind != pa.uuid():
        return pa.array(values, kind)
    return pa.ExtensionArray.from_storage(pa.uuid(), pa.array([value and value.bytes for value in values], pa.binary(16)))


class Corpus:
    """Pages, each list a shard of one snapshot, with all that the decision reads, in memory."""

    def __init__(self, *shards: list[Page]) -> None:
        self.folder = f"memory://curated/{uuid.uuid4().hex}"
        self.datasets = {name: [self._dataset(name, shards)] for name in ORDINARY}

    def _dataset(self, name: str, shards: Sequence[list[Page]]) -> Dataset:
        out = self.writer(name, "demo-1")
        first = 0
        for shard, pages in enumerate(shards):
            out.put(f"part-{shard:05d}", Output.annotated(rows(name, pages, first)))
            first += len(pages)
        return out.commit([f"part-{shard:05d}" for shard in range(len(shards))])

    def writer(self, asset: str, partition: str = "all") -> Writer:
        return Writer(f"{self.folder}/{asset}/{partition}", asset, partition, code_version="1", settings={}, inputs={})

    def inputs(self, stage: str) -> dict[str, list[Dataset]]:
        """Of those that this corpus has."""
        return {name: self.datasets[name] for name in STAGES[stage].inputs if name in self.datasets}

    def decisions(self, settings: Settings = SETTINGS) -> Dataset:
        out = self.writer("curation_decisions")
        return out.commit(*build_curation_decisions(**self.inputs("curation_decisions"), out=out, settings=settings))

    def curated(self) -> Dataset:
        out = self.writer("curated_documents")
        inputs = self.inputs("curated_documents") | {"curation_decisions": [self.decisions()]}
        return out.commit(*build_curated_documents(**inputs, out=out, settings=SETTINGS))


def catalog(snapshots: Mapping[str, list[Page]], settings: Settings = SETTINGS, lost: Sequence[dict[str, Any]] = ()) -> Catalog:
    """A home with every stage up to `curated_documents`: one shard a snapshot; `lost` are broken records of the first."""
    made = Catalog(settings, list(snapshots), lambda snapshot: snapshot)
    builds = {"curation_decisions": build_curation_decisions, "curated_documents": build_curated_documents}
    for stage in before("curated_documents"):
        for partition in made.partitions(stage):
            out, inputs = made.writer(stage, partition), made.inputs(stage, partition)
            if stage in builds:
                out.commit(*builds[stage](**inputs, out=out, settings=settings))
            else:
                names = [_put(out, stage, partition, snapshot, snapshots, lost) for snapshot in snapshots]
                out.commit([name for name in names if name])
    return Catalog(settings, list(snapshots), lambda snapshot: snapshot)


def _put(
    out: Writer, stage: str, partition: str, snapshot: str, snapshots: Mapping[str, list[Page]], lost: Sequence[dict[str, Any]]
) -> str:
    """The shard of `snapshot`, where the partition has it; of a stage without scores here, a table of nothing."""
    if partition not in ("all", snapshot):
        return ""
    name = f"{snapshot}.part-00000" if partition == "all" else "part-00000"
    pages = [page | {"documents": {"snapshot": snapshot} | page.get("documents", {})} for page in snapshots[snapshot]]
    first = sum(len(snapshots[earlier]) for earlier in list(snapshots)[: list(snapshots).index(snapshot)])
    output = Output.annotated(rows(stage, pages, first) if stage in ORDINARY else pa.table({"nothing": [0]}))
    if stage == "documents":
        broken = list(lost) if snapshot == next(iter(snapshots)) else []
        counts = Counts(records_in=len(pages) + len(broken) + 3, kept=len(pages), dropped={"not_html": 3}, failed=len(broken))
        output = Output(output.table, counts, pa.Table.from_pylist(broken, QUARANTINE_SCHEMA) if broken else None)
    out.put(name, output)
    return name


def before(stage: str) -> list[str]:
    """`stage` and all that lies before it, in the order in which they are made."""
    needed = {stage}
    for name in reversed(STAGES):
        needed |= set(STAGES[name].inputs) if name in needed else set()
    return [name for name in STAGES if name in needed]
