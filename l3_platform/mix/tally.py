"""What curation did to a corpus, in few numbers: documents and bytes by reason, source, language and domain group; and examples.

Both read the columns they need, shard by shard, and hold sums: any corpus fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from l3_platform.curate.pii import mask
from l3_platform.dedup.shards import Beside, read_beside
from l3_platform.engine import connect
from l3_platform.engine.verbs import workers
from l3_platform.find import for_duckdb, reader
from l3_platform.mix.decision import KEPT_PAGES, RULED, judge, side_by_side, with_kept_domains
from l3_platform.mix.rules import REASONS
from l3_platform.settings import Engine, Settings
from l3_platform.store import Dataset

REMOVED_BY = """
WITH reasons AS (
    SELECT {column} AS name, dropped_by, sum(documents) AS documents FROM tally WHERE dropped_by IS NOT NULL GROUP BY ALL
)
SELECT coalesce({column}, 'none')                                                    AS {column},
       sum(documents)::BIGINT                                                        AS documents,
       coalesce(sum(documents) FILTER (dropped_by IS NULL), 0)::BIGINT               AS kept,
       1 - kept / sum(documents)                                                     AS removed,
       coalesce(sum(bytes) FILTER (dropped_by IS NULL), 0) / sum(bytes)              AS text_kept,
       coalesce((SELECT string_agg(dropped_by || ' ' || reasons.documents, ', ' ORDER BY reasons.documents DESC, dropped_by)
        FROM reasons WHERE name IS NOT DISTINCT FROM tally.{column}), '') AS why
FROM tally GROUP BY ALL ORDER BY documents DESC, 1
"""
LOST_WITH_NEWEST = """
WITH older AS (
    SELECT versions.newest_doc_id
    FROM read_parquet($decisions) AS decisions JOIN read_parquet($versions) AS versions USING (doc_id)
    WHERE decisions.dropped_by = 'url_version' AND NOT versions.newest
)
SELECT count(*) FROM older JOIN read_parquet($decisions) AS decided ON decided.doc_id = older.newest_doc_id
WHERE decided.dropped_by IS NOT NULL AND decided.dropped_by <> 'duplicate'
"""
EXAMPLES = pa.schema([(name, pa.string()) for name in ("dropped_by", "evidence", "url", "title", "text")])
EXCERPT_CHARS = 160


def tally(beside: Mapping[str, Beside], engine: Engine) -> pa.Table:
    """source, language, domain_group, dropped_by (null: kept), documents, bytes (of text). `beside` holds documents, languages,
    knowledge_domains and curation_decisions."""
    with ThreadPoolExecutor(workers(engine)) as pool:
        parts = list(pool.map(_count, beside.values()))
    summed = pa.concat_tables([_COUNTED.empty_table(), *parts]).group_by(_BY).aggregate([("documents", "sum"), ("bytes", "sum")])
    return summed.rename_columns(_COUNTED.names).sort_by([(name, "ascending") for name in _BY])


_BY = ["source", "language", "domain_group", "dropped_by"]
_COUNTED = pa.schema([*((name, pa.string()) for name in _BY), ("documents", pa.int64()), ("bytes", pa.int64())])


def _count(shards: Beside) -> pa.Table:
    pages = read_beside(
        shards,
        documents=["source", "snapshot"],
        languages=["language"],
        knowledge_domains=["domain_group"],
        curation_decisions=["dropped_by", "text_bytes"],
    )
    source = pc.call_function("binary_join_element_wise", [pages["source"], pages["snapshot"], pa.scalar(", ")])
    pages = pages.set_column(pages.column_names.index("source"), "source", source)
    counted = pages.group_by(_BY).aggregate([([], "count_all"), ("text_bytes", "sum")])
    return counted.rename_columns(_COUNTED.names).cast(_COUNTED)


def removed_by(tallied: pa.Table, column: str) -> pa.Table:
    """Of each source or language: documents, kept, the shares (of 1) of documents removed and of text kept, and the reasons."""
    connection = connect(Engine())
    connection.register("tally", tallied)
    return connection.sql(REMOVED_BY.format(column=column)).to_arrow_table()


def lost_with_newest(decisions: Dataset, url_versions: Dataset, engine: Engine) -> int:
    """Older versions of pages that pass every rule of their own, while the newest version, which stands for them, fails one.

    They are gone: they were never compared with the other documents, so the decision cannot fall back on them.
    """
    sources = {
        name: [for_duckdb(shard.url) for shard in dataset.shards]
        for name, dataset in {"decisions": decisions, "versions": url_versions}.items()
    }
    with reader(decisions.shards, engine) as connection:
        return connection.sql(LOST_WITH_NEWEST, params=sources).fetchall()[0][0] if decisions.shards else 0


def examples(beside: Sequence[Beside], settings: Settings, each: int = 5) -> pa.Table:
    """EXAMPLES: up to `each` kept documents (dropped_by is null), then as many of each reason, with what decided.

    `beside` holds documents, curation_decisions and what the rules read; give it few shards, their texts are read. Personal data
    are masked in all of them.
    """
    connection = connect(settings.engine)
    found = pa.concat_tables([_FOUND.empty_table(), *(_pick(shards, connection, settings, each) for shards in beside)])
    ordered = found.sort_by("hash").select(EXAMPLES.names)
    parts = [_first(ordered, reason, each) for reason in (None, *REASONS)]
    return pa.concat_tables([EXAMPLES.empty_table(), *parts])


_FOUND = pa.schema([("hash", pa.binary(16)), *EXAMPLES])


def _pick(shards: Beside, connection: duckdb.DuckDBPyConnection, settings: Settings, each: int) -> pa.Table:
    """The documents with the smallest doc_id, which is a hash: a fair sample, the same one whenever it is drawn."""
    wanted = {"curation_decisions": ("dropped_by", *KEPT_PAGES), **RULED}
    documents = with_kept_domains(side_by_side(shards, wanted))
    reasons = documents["curation_decisions"].combine_chunks().field("dropped_by")
    ids = documents["doc_id"].cast(pa.binary(16)).combine_chunks()
    order = pa.table({"hash": ids, "row": pa.array(range(len(ids)), pa.int64())}).sort_by("hash")["row"].combine_chunks()
    rows = order.take(pa.array(_first_of_each(reasons.take(order).to_pylist(), each), pa.int64()))
    judged = judge(connection, documents.take(rows), settings)
    texts = shards["documents"].read(["url", "title", "text"]).take(rows)
    chosen = reasons.take(rows)
    evidence = [
        next((said.evidence for said in sayings if said.rule.reason == reason), None)
        for sayings, reason in zip(judged, chosen.to_pylist(), strict=True)
    ]
    excerpts = [" ".join(mask((text or "")[: 4 * EXCERPT_CHARS]).split())[:EXCERPT_CHARS] for text in texts["text"].to_pylist()]
    titles = [title and mask(title) for title in texts["title"].to_pylist()]
    shown = [pa.array(part, pa.string()) for part in (evidence, texts["url"].to_pylist(), titles, excerpts)]
    return pa.table([ids.take(rows), chosen, *shown], schema=_FOUND)


def _first_of_each(reasons: Sequence[str | None], each: int) -> list[int]:
    """Places of the first `each` of every reason."""
    seen: dict[str | None, int] = {}
    places = []
    for place, reason in enumerate(reasons):
        seen[reason] = seen.get(reason, 0) + 1
        if seen[reason] <= each:
            places.append(place)
    return places


def _first(table: pa.Table, reason: str | None, each: int) -> pa.Table:
    matches = pc.field("dropped_by").is_null() if reason is None else pc.field("dropped_by") == reason
    return table.filter(matches).slice(0, each)
