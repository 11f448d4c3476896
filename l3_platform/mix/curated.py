"""What is kept: the rules over the sidecars decide, then the text of what they keep.

Every threshold is a setting and every score lies in a sidecar, so another decision costs one query: see `l3_platform.sweep`.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from l3_platform.curate.pii import KINDS, mask
from l3_platform.dedup.lines import without_lines
from l3_platform.dedup.shards import Beside, Built, aligned, read_beside, step
from l3_platform.engine import Counts, Output, connect, map_shards
from l3_platform.mix.decision import DOMAINS, KEPT_PAGES, PAGES, RULED, decide, side_by_side, with_domains
from l3_platform.mix.rules import PII_DOMAINS
from l3_platform.settings import Engine, Settings
from l3_platform.store import Dataset, Writer

COUNT_DOMAINS = f"""
SELECT domain, count(*) AS pages, count(*) FILTER ({" + ".join(KINDS)} > 0) AS pages_with_pii
FROM pages GROUP BY domain ORDER BY domain
"""
ADD_UP = """
SELECT domain, sum(pages)::BIGINT AS pages, sum(pages_with_pii)::BIGINT AS pages_with_pii
FROM parts GROUP BY domain ORDER BY domain
"""

DECISIONS = pa.schema(
    [
        ("doc_id", pa.uuid()),
        ("dropped_by", pa.string()),  # one of rules.REASONS; null: kept
        ("text_bytes", pa.int64()),  # of the text in UTF-8, before lines are removed
        ("domain_pages", pa.int64()),  # documents of the same domain in the corpus
        ("domain_pages_with_pii", pa.int64()),
    ]
)
CURATED = pa.schema(
    [
        ("doc_id", pa.uuid()),
        ("snapshot", pa.string()),
        ("url", pa.string()),
        ("title", pa.string()),
        ("text", pa.string()),  # without repeated lines, personal data masked
        ("language", pa.string()),
        ("topic", pa.string()),
        ("domain_group", pa.string()),
        ("quality", pa.float32()),
        ("fetch_time", pa.timestamp("us", "UTC")),
    ]
)


def build_curation_decisions(
    documents: Sequence[Dataset], *, out: Writer, settings: Settings, **sidecars: Sequence[Dataset]
) -> Built:
    """DECISIONS of every document. `sidecars` are those that the rules read (`rules.SIDECARS`), by name."""
    beside = aligned(documents, **sidecars)
    count_here = functools.partial(count_domains, engine=settings.engine)
    add_here = functools.partial(add_up, engine=settings.engine)
    by_shard = step(out, "domains", lambda writer: map_shards(count_here, beside, writer, settings.engine))
    domains = step(out, "all-domains", lambda writer: map_shards(add_here, {"all": by_shard}, writer, settings.engine))
    decide_here = functools.partial(decisions, domains=domains, settings=settings)
    return map_shards(decide_here, beside, out, settings.engine), {"domains": domains.manifest.rows}


def build_curated_documents(
    documents: Sequence[Dataset], *, out: Writer, settings: Settings, **sidecars: Sequence[Dataset]
) -> Built:
    """The text of the documents that `curation_decisions` keeps. `sidecars`: that, languages, repeated_lines,
    quality_scores and knowledge_domains. Counts drops by their reason, and `empty_after_lines`."""
    beside = aligned(documents, **sidecars)
    return map_shards(curate, beside, out, settings.engine), {}


def count_domains(shards: Beside, engine: Engine) -> Output:
    connection = connect(engine)
    connection.register("pages", read_beside(shards, url_policy=["domain"], pii=KINDS))
    return Output.annotated(connection.sql(COUNT_DOMAINS).to_arrow_table().cast(DOMAINS))


def add_up(by_shard: Dataset, engine: Engine) -> Output:
    connection = connect(engine)
    connection.register("parts", pa.concat_tables([DOMAINS.empty_table(), *(shard.read() for shard in by_shard.shards)]))
    return Output.annotated(connection.sql(ADD_UP).to_arrow_table().cast(DOMAINS))


def decisions(shards: Beside, domains: Dataset, settings: Settings) -> Output:
    """DECISIONS of one shard."""
    names = read_beside(shards, url_policy=["domain"])["domain"]
    documents = with_domains(side_by_side(shards, RULED), names, domains.read())
    decided = decide(connect(settings.engine), documents, [settings]).order("row").select("decided").to_arrow_table()
    counts = documents[PII_DOMAINS].combine_chunks()
    texts = shards["documents"].read(["text"])["text"].cast(pa.large_string())
    columns = {
        "doc_id": documents["doc_id"],
        "dropped_by": decided["decided"],
        "text_bytes": pc.call_function("binary_length", [texts]),
        **{kept: counts.field(name) for name, kept in zip(PAGES, KEPT_PAGES, strict=True)},
    }
    table = pa.table(columns).cast(DECISIONS)
    return Output(table, _counts(table["dropped_by"].to_pylist()))


def curate(shards: Beside) -> Output:
    """CURATED rows of one shard."""
    table = read_beside(
        shards,
        documents=["snapshot", "url", "title", "text", "fetch_time"],
        curation_decisions=["dropped_by"],
        languages=["language"],
        repeated_lines=["removed_lines"],
        quality_scores=["score"],
        knowledge_domains=["topic", "domain_group"],
    ).rename_columns({"score": "quality"})
    kept = table.filter(pc.field("dropped_by").is_null())
    texts = zip(kept["text"].to_pylist(), kept["removed_lines"].to_pylist(), strict=True)
    columns = {name: kept[name] for name in CURATED.names} | {
        "title": pa.array([title and mask(title) for title in kept["title"].to_pylist()], pa.string()),
        "text": pa.array([mask(without_lines(text or "", lines)) for text, lines in texts], pa.string()),
    }
    curated = pa.table(columns, schema=CURATED)
    empty = [not text.strip() for text in curated["text"].to_pylist()]
    curated = curated.filter(pa.array([not each for each in empty], pa.bool_()))
    dropped = [*table["dropped_by"].drop_null().to_pylist(), *["empty_after_lines"] * sum(empty)]
    return Output(curated, _counts([*dropped, *[None] * curated.num_rows]))


def _counts(reasons: Sequence[str | None]) -> Counts:
    dropped = Counter(reason for reason in reasons if reason is not None)
    return Counts(records_in=len(reasons), kept=reasons.count(None), dropped=dict(sorted(dropped.items())))
