"""The story of a page, gathered: every stage's word on it, every score against its threshold, its versions and copies.

The page is looked for in one column of all shards; then one row group of each sidecar is read (`l3_platform.find`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from l3_platform.curate.url_policy import canonical_url, host_of
from l3_platform.engine import connect
from l3_platform.find import Found, find, row_at
from l3_platform.lineage import EVERYTHING, STAGES, Catalog
from l3_platform.mix.decision import KEPT_PAGES, RULED, Judgement, judge, with_kept_domains
from l3_platform.settings import nearest
from l3_platform.store import QUARANTINE_SCHEMA, Dataset, Shard, files

MOST = 20  # versions, copies and removed lines that are told
NEIGHBOURS = 2000  # URLs of the same host among which the nearest is looked for
DOC_ID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True)
class Other:
    """Another document that this one has to do with: a version of its URL, or a near duplicate."""

    doc_id: str
    url: str
    fetch_time: str
    stays: bool
    jaccard: float | None = None  # true, with the one that stays


@dataclass(frozen=True)
class Story:
    """One fetch of the page: its row of `documents`, and what each later stage wrote about it."""

    document: dict[str, Any]
    stages: dict[str, dict[str, Any]]
    judgements: list[Judgement] = field(default_factory=list)
    versions: list[Other] = field(default_factory=list)  # of its URL, newest first, itself among them
    copies: list[Other] = field(default_factory=list)  # of its text, the one that stays first, itself among them
    removed_lines: list[str] = field(default_factory=list)
    emptied: bool = False  # nothing is left without them

    @property
    def dropped_by(self) -> str | None:
        return self.stages.get("curation_decisions", {}).get("dropped_by")


@dataclass(frozen=True)
class Told:
    """The answer: fetches oldest first, then records of the page that never became documents (rows of the quarantine)."""

    asked: str
    url: str  # the spelling under which it was found
    stories: list[Story]
    lost: list[dict[str, Any]]
    hint: str = ""  # where nothing was found: what else there is
    line_max_count: int = 0

    @property
    def found(self) -> bool:
        return bool(self.stories or self.lost)


def of(asked: str, catalog: Catalog) -> Told:
    """The story of a page by URL, or of one fetch by doc_id.

    Spellings of a URL that name the same page (`canonical_url`) are one; where there is none, the other scheme is tried.
    """
    documents = [shard for dataset in catalog.datasets("documents") for shard in dataset.shards]
    if DOC_ID.fullmatch(asked):
        rows = find(documents, "doc_id = ?::UUID", [asked], ["doc_id"], catalog.settings.engine)
        return _told(asked, asked, _stories(rows, catalog), [], catalog)
    for url in _spellings(asked):
        rows = _rows(url, documents, catalog)
        lost = _lost(url, catalog)
        if rows or lost:
            return _told(asked, url, _stories(rows, catalog), lost, catalog)
    return _told(asked, asked, [], [], catalog)


def _spellings(asked: str) -> list[str]:
    """The URL as asked for, then with the other scheme; both schemes where it has none."""
    scheme, separator, rest = asked.strip().partition("://")
    if not separator:
        return [f"https://{scheme}", f"http://{scheme}"]
    other = {"http": "https", "https": "http"}.get(scheme.lower())
    return [asked.strip(), *([f"{other}://{rest}"] if other else [])]


def _rows(url: str, documents: Sequence[Shard], catalog: Catalog) -> list[Found]:
    """Rows of documents: those of the same canonical URL where `url_policy` knows it, else of this very URL."""
    policies = [catalog.find("url_policy", partition) for partition in catalog.snapshots]
    sidecars = [shard for policy in policies if policy for shard in policy.shards]
    if len(sidecars) < len(documents):
        return find(documents, "url = ?", [url], ["doc_id"], catalog.settings.engine)
    at_home = {shard.key: shard for shard in documents}
    found = find(sidecars, "canonical_url = ?", [canonical_url(url)], ["doc_id"], catalog.settings.engine)
    return [Found(at_home[one.shard.key], one.row, one.values) for one in found]


def _lost(url: str, catalog: Catalog) -> list[dict[str, Any]]:
    shards = [shard for dataset in catalog.datasets("documents") for shard in _quarantine(dataset)]
    return [one.values for one in find(shards, "url = ?", [url], QUARANTINE_SCHEMA.names, catalog.settings.engine)]


def _quarantine(dataset: Dataset) -> list[Shard]:
    names = [account.quarantine.name for account in dataset.manifest.shards if account.quarantine]
    return [Shard(dataset.folder, dataset.manifest.partition, name.removesuffix(".parquet")) for name in names]


def _told(asked: str, url: str, stories: list[Story], lost: list[dict[str, Any]], catalog: Catalog) -> Told:
    hint = "" if stories or lost else _hint(asked, catalog)
    return Told(asked, url, stories, lost, hint, catalog.settings.dedup.line_max_count)


def _hint(asked: str, catalog: Catalog) -> str:
    """The nearest URL of the same host, if any, and that not every record becomes a document."""
    documents = [shard for dataset in catalog.datasets("documents") for shard in dataset.shards]
    host = host_of(canonical_url(_spellings(asked)[0]))
    same_host = "regexp_extract(url, '^[a-zA-Z]+://([^/?#:]+)', 1) = ?"
    known = find(documents, same_host, [host], ["url"], catalog.settings.engine, limit=NEIGHBOURS) if host else []
    urls = sorted({one.values["url"] for one in known})
    near = nearest(asked, urls) if urls else ""
    dropped: dict[str, int] = {}
    for dataset in catalog.datasets("documents"):
        for reason, count in dataset.manifest.counts.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    why = ", ".join(f"{reason} {count:,}" for reason, count in sorted(dropped.items(), key=lambda item: -item[1])[:4])
    never = f" (records that are no page leave no trace but their number: {why})" if why else ""
    return (near if "did you mean" in near else "") + never


def _stories(rows: Sequence[Found], catalog: Catalog) -> list[Story]:
    stories = [_story(one.shard, one.row, catalog) for one in rows]
    return sorted(stories, key=lambda story: story.document["fetch_time"])


def _story(shard: Shard, row: int, catalog: Catalog) -> Story:
    columns = [name for name in catalog.dataset("documents", shard.partition).manifest.columns if name != "text"]
    (document,) = row_at(shard, row, columns).to_pylist()
    beside = _sidecars(shard, catalog)
    read = {name: row_at(sidecar, row) for name, sidecar in beside.items()}
    stages = {name: _facts(table) for name, table in read.items() if table["doc_id"].to_pylist() == [document["doc_id"]]}
    stages |= _tokens(shard, document["doc_id"], catalog)
    return Story(
        document,
        stages,
        _judgements(read, catalog) if set(RULED) | {"curation_decisions"} <= set(stages) else [],
        _versions(document, stages, catalog),
        _copies(stages, catalog),
        *_removed(shard, row, stages),
    )


def _facts(table: pa.Table) -> dict[str, Any]:
    """All but doc_id and what is meant for machines, such as a signature."""
    (row,) = table.to_pylist()
    machines = {
        name for name, value in row.items() if isinstance(value, bytes) or (name != "removed_lines" and isinstance(value, list))
    }
    return {name: value for name, value in row.items() if name not in {"doc_id", *machines}}


def _sidecars(shard: Shard, catalog: Catalog) -> dict[str, Shard]:
    """The shard of every stage that annotates documents, where it is made: it has as many rows, in the same order."""
    rows = _rows_of(catalog.dataset("documents", shard.partition), shard.name)
    found = {}
    for name, stage in STAGES.items():
        if "documents" not in stage.inputs or name == "curated_documents":
            continue
        dataset = catalog.find(name, shard.partition if stage.by_snapshot else EVERYTHING)
        beside = shard.name if stage.by_snapshot else shard.key
        if dataset is not None and _rows_of(dataset, beside) == rows and "doc_id" in dataset.manifest.columns:
            found[name] = dataset.shard(beside)
    return found


def _rows_of(dataset: Dataset, name: str) -> int | None:
    return next((account.rows for account in dataset.manifest.shards if account.shard.name == name), None)


def _judgements(read: dict[str, pa.Table], catalog: Catalog) -> list[Judgement]:
    wanted = {**RULED, "curation_decisions": KEPT_PAGES}
    beside = pa.table({name: read[name].select(list(columns)).to_struct_array() for name, columns in wanted.items()})
    (said,) = judge(connect(catalog.settings.engine), with_kept_domains(beside), catalog.settings)
    return said


def _versions(document: dict[str, Any], stages: dict[str, dict[str, Any]], catalog: Catalog) -> list[Other]:
    facts = stages.get("url_versions", {})
    if not facts or facts["versions"] < 2:
        return []
    found = _others("url_versions", "newest_doc_id", facts["newest_doc_id"], ["newest"], catalog)
    others = [Other(*page, stays=values["newest"]) for page, values in found]
    return sorted(others, key=lambda other: (not other.stays, other.fetch_time))


def _copies(stages: dict[str, dict[str, Any]], catalog: Catalog) -> list[Other]:
    facts = stages.get("duplicate_documents", {})
    if (facts.get("cluster_size") or 1) < 2:
        return []
    found = _others("duplicate_documents", "cluster", facts["cluster"], ["representative", "jaccard"], catalog)
    others = [Other(*page, stays=values["representative"], jaccard=values["jaccard"]) for page, values in found]
    return sorted(others, key=lambda other: (not other.stays, -(other.jaccard or 0.0), other.url))


Page = tuple[str, str, str]  # doc_id, url, fetch time


def _others(stage: str, key: str, doc_id: Any, columns: list[str], catalog: Catalog) -> list[tuple[Page, dict[str, Any]]]:
    """Pages whose sidecar over all snapshots has `doc_id` as `key`, the one that stays first, and `columns` of it."""
    at_home = {shard.key: shard for dataset in catalog.datasets("documents") for shard in dataset.shards}
    shards, first = catalog.dataset(stage).shards, f"{columns[0]} DESC"
    found = find(shards, f"{key} = ?::UUID", [str(doc_id)], columns, catalog.settings.engine, first=first, limit=MOST)
    pages = []
    for one in found:
        (page,) = row_at(at_home[one.shard.name], one.row, ["doc_id", "url", "fetch_time"]).to_pylist()
        pages.append(((str(page["doc_id"]), page["url"], f"{page['fetch_time']:%Y-%m-%d %H:%M}"), one.values))
    return pages


def _removed(shard: Shard, row: int, stages: dict[str, dict[str, Any]]) -> tuple[list[str], bool]:
    """The first of its lines that are removed, and whether nothing is left without them all."""
    removed = stages.get("repeated_lines", {}).get("removed_lines")
    if not removed:
        return [], False
    text = row_at(shard, row, ["text"])["text"][0].as_py() or ""
    lines = text.split("\n")
    gone = set(removed)
    emptied = not any(line.strip() for index, line in enumerate(lines) if index not in gone)
    return [lines[index] for index in removed[:MOST]], emptied


def _tokens(shard: Shard, doc_id: Any, catalog: Catalog) -> dict[str, dict[str, Any]]:
    """Its row in the index of the token shards, which hold what was kept."""
    tokenized = catalog.find("token_shards")
    if tokenized is None or not files.exists(tokenized.shard(shard.key).url):
        return {}
    columns = ["domain_group", "split", "file", "start", "tokens"]
    rows = find([tokenized.shard(shard.key)], "doc_id = ?::UUID", [str(doc_id)], columns, catalog.settings.engine)
    return {"token_shards": rows[0].values} if rows else {}
