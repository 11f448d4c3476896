"""Why a page is, or is not, in the training data: every stage's word on it, in the order of the walk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from l3_platform.lineage import STAGES, Catalog

SIDECARS = (
    "url_policy",
    "languages",
    "text_heuristics",
    "pii",
    "url_versions",
    "duplicate_documents",
    "repeated_lines",
    "quality_scores",
    "knowledge_domains",
    "curation_decisions",
    "token_shards",
)


@dataclass(frozen=True)
class Story:
    """One fetch of the page: its row of `documents`, and what each later stage wrote about it."""

    document: dict[str, Any]
    stages: dict[str, dict[str, Any]]
    twin: str = ""  # URL of the document that it duplicates
    newer: str = ""  # fetch time of the version that replaced it

    @property
    def dropped_by(self) -> str | None:
        return self.stages.get("curation_decisions", {}).get("dropped_by")


@dataclass(frozen=True)
class Lost:
    """A record of the page that never became a document."""

    quarantine: dict[str, Any]


def of(url: str, catalog: Catalog) -> list[Story | Lost]:
    """Every fetch of `url` over all snapshots, oldest first, then its broken records. Empty for a page never seen."""
    stories: list[Story | Lost] = []
    for partition in catalog.snapshots:
        documents = catalog.dataset("documents", partition)
        for shard in documents.shards:
            rows = shard.read([name for name in documents.manifest.columns if name != "text"])
            for row in rows.filter(pc.field("url") == url).to_pylist():
                stories.append(_story(row, shard.name, shard.key, partition, catalog))
    for partition in catalog.snapshots:
        lost = catalog.dataset("documents", partition).quarantine()
        stories += [Lost(row) for row in lost.filter(pc.field("url") == url).to_pylist()]
    return stories


def _story(row: dict[str, Any], shard: str, key: str, partition: str, catalog: Catalog) -> Story:
    stages = {}
    for stage in SIDECARS:
        dataset = catalog.find(stage, partition if STAGES[stage].by_snapshot else "all")
        names = {entry.name for entry in dataset.shards} if dataset else set()
        name = shard if STAGES[stage].by_snapshot else key
        if dataset is not None and name in names:
            stages[stage] = _row(dataset.shard(name).read(), row["doc_id"])
    cluster = stages.get("duplicate_documents", {}).get("cluster")
    newest = stages.get("url_versions", {}).get("newest_doc_id")
    twin = _document(cluster, catalog) if cluster and cluster != row["doc_id"] else {}
    newer = _document(newest, catalog) if newest and newest != row["doc_id"] else {}
    return Story(row, stages, twin.get("url", ""), str(newer.get("fetch_time", "")))


def _row(table: pa.Table, doc_id: Any) -> dict[str, Any]:
    for row in table.to_pylist():
        if row.get("doc_id") == doc_id:
            return {name: value for name, value in row.items() if name not in ("doc_id", "text")}
    return {}


def _document(doc_id: Any, catalog: Catalog) -> dict[str, Any]:
    for dataset in catalog.datasets("documents"):
        for row in dataset.read(["doc_id", "url", "fetch_time"]).to_pylist():
            if row["doc_id"] == doc_id:
                return row
    return {}


def as_text(url: str, stories: list[Story | Lost]) -> str:
    if not stories:
        return f"{url}: never seen in this crawl (is it spelled as the crawl has it? `l3 report` names the snapshots)"
    return "\n\n".join(_told(story) for story in stories)


def _told(story: Story | Lost) -> str:
    if isinstance(story, Lost):
        row = story.quarantine
        return (
            f"{row['url']}\n  {row['snapshot']}: the record at offset {row['offset']} of {row['file']} is broken "
            f"({row['reason']}): {row['detail']}; quarantined, {row['bytes_lost']:,} bytes lost"
        )
    page = story.document
    lines = [
        f"{page['url']}",
        f"  {page['snapshot']}: fetched {page['fetch_time']:%Y-%m-%d %H:%M}, {page['warc_file']} at offset {page['warc_offset']:,}",
        f"  {'title':<20} {page['title']}",
        *(f"  {stage:<20} {_facts(facts)}" for stage, facts in story.stages.items() if facts),
    ]
    lines.append(f"  => {_verdict(story)}")
    return "\n".join(lines)


def _verdict(story: Story) -> str:
    if story.newer:
        return f"dropped: a newer version of this URL was fetched {story.newer}"
    if story.twin:
        jaccard = story.stages["duplicate_documents"].get("jaccard") or 0.0
        return f"dropped: duplicates {story.twin} (true Jaccard {jaccard:.3f})"
    if story.dropped_by:
        return f"dropped by {story.dropped_by}"
    tokens = story.stages.get("token_shards", {}).get("tokens")
    return f"kept, {tokens:,} tokens of {story.stages['token_shards'].get('split')} data" if tokens else "kept"


def _facts(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in facts.items())


def as_json(stories: list[Story | Lost]) -> str:
    return json.dumps([vars(story) for story in stories], default=str, indent=1)
