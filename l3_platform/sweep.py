"""What other thresholds would keep, answered from the sidecars: nothing is built, the decision alone is made again.

    l3 sweep heuristics.dup_ngram_max=0.1,0.2,0.3 quality.min_score=0.05,0.2

Several settings make a grid. Shards are read one by one and only the columns of the rules, so memory does not grow with the
corpus; of a large one an even sample of shards is judged, and the answer says so.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import duckdb

from l3_platform.dedup.shards import Beside, aligned
from l3_platform.engine import connect
from l3_platform.engine.verbs import workers
from l3_platform.find import row_at
from l3_platform.grid import Load, grid, setting
from l3_platform.lineage import Catalog
from l3_platform.mix.decision import KEPT_PAGES, RULED, decide, side_by_side, with_kept_domains
from l3_platform.settings import Settings

MAX_DOCUMENTS = 1_000_000  # judged, unless more are asked for
EXAMPLES = 5
LANGUAGES = 5  # shown, those with the most documents kept
TOLD_POINTS = 6  # with examples
TOKEN_SHARDS = 8  # read to learn how many tokens a byte of text makes

SUMS = """
SELECT point, decided, languages.language AS language, knowledge_domains.domain_group AS domain_group,
       count(*) AS documents, coalesce(sum(curation_decisions.text_bytes), 0)::BIGINT AS bytes
FROM decided GROUP BY ALL
"""
MOVED = f"""
SELECT point, row, doc_id::VARCHAR AS doc_id, decided, curation_decisions.dropped_by AS dropped_by
FROM decided
WHERE (decided IS NULL) <> (curation_decisions.dropped_by IS NULL)
QUALIFY row_number() OVER (PARTITION BY point, decided IS NULL ORDER BY doc_id) <= {EXAMPLES}
"""


@dataclass(frozen=True)
class Example:
    """A document that changes sides; `reason` is why it is dropped now, or would be."""

    url: str
    title: str | None
    reason: str


@dataclass(frozen=True)
class Point:
    """What one choice of settings keeps. `bytes` are of text; `tokens` are an estimate, None before there are token shards."""

    settings: Mapping[str, Any]
    documents: int
    bytes: int
    tokens: int | None
    dropped: Mapping[str, int]
    languages: Mapping[str, int]
    domain_groups: Mapping[str, int]
    gained: Sequence[Example] = ()
    lost: Sequence[Example] = ()


@dataclass(frozen=True)
class Sweep:
    """`now` is what the present settings keep; `judged` of `documents` were looked at."""

    now: Point
    points: Sequence[Point]
    judged: int
    documents: int
    varied: Sequence[str] = field(default_factory=list)


def sweep(variations: Sequence[str], catalog: Catalog, load: Load, max_documents: int = MAX_DOCUMENTS) -> Sweep:
    """`variations`: `section.key=value,value`. Raises SettingsError for a setting that the decision does not use, saying which
    asset does; MissingDataset where nothing is decided yet."""
    points = grid(variations, load)
    choices = [{path: setting(catalog.settings, path) for path in points[0][0]}, *(varied for varied, _ in points)]
    beside = _beside(catalog)
    rows = {
        f"{dataset.manifest.partition}.{account.shard.name}": account.rows
        for dataset in catalog.datasets("documents")
        for account in dataset.manifest.shards
    }
    chosen = _evenly(rows, max_documents)
    shards = [beside[key] for key in chosen]
    look = functools.partial(
        _look, connection=connect(catalog.settings.engine), points=[catalog.settings, *(settings for _, settings in points)]
    )
    with ThreadPoolExecutor(workers(catalog.settings.engine)) as pool:
        seen = list(pool.map(look, shards))
    sums = [row for counted, _ in seen for row in counted]
    moved = [{**row, "shards": shards[place]} for place, (_, changed) in enumerate(seen) for row in changed]
    tokens = _tokens_a_byte(catalog)
    told = [_point(number, choice, sums, moved, tokens) for number, choice in enumerate(choices)]
    return Sweep(told[0], told[1:], sum(rows[key] for key in chosen), sum(rows.values()), list(choices[0]))


Row = Mapping[str, Any]


def _beside(catalog: Catalog) -> dict[str, Beside]:
    inputs = catalog.inputs("curation_decisions")
    more = {name: catalog.datasets(name) for name in ("curation_decisions", "knowledge_domains")}
    return aligned(inputs.pop("documents"), **inputs, **more)


def _evenly(rows: Mapping[str, int], limit: int) -> list[str]:
    """Keys of shards that together hold about `limit` documents, taken evenly over the corpus: at least one."""
    keys, total = sorted(rows), sum(rows.values())
    if total <= limit:
        return keys
    count = max(1, len(keys) * limit // total)
    return [keys[place * len(keys) // count] for place in range(count)]


def _look(shards: Beside, connection: duckdb.DuckDBPyConnection, points: Sequence[Settings]) -> tuple[list[Row], list[Row]]:
    """SUMS over a shard, and documents that change sides. All shards share the memory of one DuckDB."""
    wanted = {
        **RULED,
        "languages": tuple({*RULED["languages"], "language"}),
        "knowledge_domains": ("domain_group",),
        "curation_decisions": ("dropped_by", "text_bytes", *KEPT_PAGES),
    }
    documents = with_kept_domains(side_by_side(shards, wanted))
    with connection.cursor() as cursor:
        decide(cursor, documents, points)
        counted, moved = (cursor.sql(query).to_arrow_table().to_pylist() for query in (SUMS, MOVED))
    return counted, moved


def _tokens_a_byte(catalog: Catalog) -> float | None:
    tokenized = catalog.find("token_shards")
    if tokenized is None:
        return None
    read = [shard.read(["tokens", "bytes"]) for shard in tokenized.shards[:TOKEN_SHARDS]]
    tokens, size = (sum(sum(table[name].to_pylist()) for table in read) for name in ("tokens", "bytes"))
    return tokens / size if size else None


def _point(number: int, choice: Row, sums: Sequence[Row], moved: Sequence[Row], tokens_a_byte: float | None) -> Point:
    documents = size = 0
    dropped, languages, groups = Counter[str](), Counter[str](), Counter[str]()
    for row in sums:
        if row["point"] != number:
            continue
        if row["decided"] is not None:
            dropped[row["decided"]] += row["documents"]
            continue
        documents, size = documents + row["documents"], size + row["bytes"]
        languages[row["language"] or "none"] += row["documents"]
        groups[row["domain_group"] or "none"] += row["documents"]
    changed = sorted((row for row in moved if row["point"] == number), key=lambda row: row["doc_id"])
    return Point(
        choice,
        documents,
        size,
        None if tokens_a_byte is None else round(size * tokens_a_byte),
        *(dict(counter.most_common()) for counter in (dropped, languages, groups)),
        gained=[_example(row) for row in [one for one in changed if one["decided"] is None][:EXAMPLES]],
        lost=[_example(row) for row in [one for one in changed if one["decided"] is not None][:EXAMPLES]],
    )


def _example(row: Row) -> Example:
    (page,) = row_at(row["shards"]["documents"], row["row"], ["url", "title"]).to_pylist()
    return Example(page["url"], page["title"], row["decided"] or row["dropped_by"])


def as_text(swept: Sweep) -> str:
    """One line a choice, then documents that change sides with it."""
    groups = sorted({name for point in [swept.now, *swept.points] for name in point.domain_groups})
    languages = list(swept.now.languages)[:LANGUAGES]
    head = [*swept.varied, "kept", "change", "MB of text", "tokens", *groups, *languages]
    rows = [_cells(point, swept, groups, languages) for point in (swept.now, *swept.points)]
    rows[0][0] += " (now)"
    part = "" if swept.judged == swept.documents else f", an even sample of {swept.documents:,}"
    lines = [f"{swept.judged:,} documents{part}; what each choice keeps:", "", *_in_columns([head, *rows], len(swept.varied))]
    if len(swept.points) > TOLD_POINTS:
        return "\n".join(
            [*lines, "", f"Examples of documents that change sides are in --json, and here for up to {TOLD_POINTS} choices."]
        )
    for point in swept.points:
        chosen = " ".join(f"{path}={_shown(value)}" for path, value in point.settings.items())
        for moved, verb in ((point.lost, "drops, such as, and why"), (point.gained, "keeps, such as, and why not now")):
            if moved:
                lines += ["", f"{chosen} {verb}:"]
                lines += [f"  {one.reason:<18}  {_shortened(one.title or '-'):<48}  {one.url}" for one in moved]
    return "\n".join(lines)


def _cells(point: Point, swept: Sweep, groups: Sequence[str], languages: Sequence[str]) -> list[str]:
    change = point.documents - swept.now.documents
    return [
        *(_shown(value) for value in point.settings.values()),
        f"{point.documents:,}",
        f"{change:+,} ({change / max(swept.now.documents, 1):+.1%})" if change else "same",
        f"{point.bytes / 1e6:,.2f}",
        "-" if point.tokens is None else f"~{point.tokens:,}",
        *(f"{point.domain_groups.get(name, 0):,}" for name in groups),
        *(f"{point.languages.get(name, 0):,}" for name in languages),
    ]


def _in_columns(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Cells under each other: the first `left` columns flush left, the others right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _shown(value: Any) -> str:
    return json.dumps(value, separators=(",", ":")) if isinstance(value, tuple | Mapping) else str(value)


def _shortened(title: str) -> str:
    title = " ".join(title.split())
    return title if len(title) <= 48 else title[:47] + "…"


def as_json(swept: Sweep) -> str:
    return json.dumps(asdict(swept), default=list, indent=1)
