"""What is kept: one SQL statement over the sidecars, then the text of what it keeps.

Every threshold is a setting and every score lies in a sidecar, so another decision costs one query: see `decide`.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from l3_platform.curate.pii import mask
from l3_platform.dedup.code import CODE_SHARE
from l3_platform.dedup.lines import without_lines
from l3_platform.dedup.shards import Beside, Built, aligned, read_beside, step
from l3_platform.engine import Counts, Output, connect, map_shards
from l3_platform.settings import Engine, Settings
from l3_platform.store import Dataset, Writer

# The first reason that applies is the one a document is dropped for: the order is that of the funnel.
DECISION = """
SELECT
    documents.doc_id,
    documents.url,
    CASE
        -- the page's address, and domains that give away people (Llama 3, section 3.1.1)
        WHEN url_policy.blocked_by IS NOT NULL                            THEN 'url_policy'
        WHEN domains.pages >= $pii_domain_pages
         AND domains.pages_with_pii > $max_pii_share * domains.pages      THEN 'pii_domain'

        -- language; a text without one, such as code, has no score to fail
        WHEN len($languages) > 0
         AND NOT list_contains($languages, languages.language)            THEN 'language'
        WHEN languages.language <> 'und'
         AND languages.score < $min_language_score                        THEN 'language_score'

        -- heuristics (Rae et al. 2021, table A1; Raffel et al. 2020)
        WHEN heuristics.words < $min_words                                THEN 'few_words'
        WHEN heuristics.words > $max_words                                THEN 'many_words'
        WHEN heuristics.mean_word_length < $mean_word_length_min
         AND NOT list_contains($unspaced_languages, languages.language)   THEN 'mean_word_length'
        WHEN heuristics.mean_word_length > $mean_word_length_max          THEN 'mean_word_length'
        WHEN heuristics.symbol_word_ratio > $max_symbol_word_ratio        THEN 'symbol_word_ratio'
        WHEN heuristics.bullet_lines > $max_bullet_lines                  THEN 'bullet_lines'
        WHEN heuristics.ellipsis_lines > $max_ellipsis_lines              THEN 'ellipsis_lines'
        WHEN heuristics.alpha_words < $min_alpha_words                    THEN 'alpha_words'
        WHEN heuristics.dup_line_char_fraction > $dup_line_max            THEN 'duplicate_lines'
        WHEN heuristics.dup_ngram_max > $dup_ngram_max                    THEN 'duplicate_ngrams'
        WHEN heuristics.dirty_words > $dirty_words_max                    THEN 'dirty_words'

        -- personal data; what stays is masked
        WHEN pii.density > $max_pii_density                               THEN 'pii_density'

        -- another version or copy of it stays
        WHEN NOT versions.newest                                          THEN 'url_version'
        WHEN NOT duplicates.representative                                THEN 'duplicate'

        -- quality, where the classifier knows the language and there is prose to judge
        WHEN list_contains($quality_languages, languages.language)
         AND quality.code_share < $code_share
         AND quality.score < $min_quality                                 THEN 'quality'
    END AS dropped_by
FROM documents
JOIN url_policy                         USING (row)
JOIN languages                          USING (row)
JOIN text_heuristics     AS heuristics  USING (row)
JOIN pii                                USING (row)
JOIN url_versions        AS versions    USING (row)
JOIN duplicate_documents AS duplicates  USING (row)
JOIN quality_scores      AS quality     USING (row)
LEFT JOIN pii_domains    AS domains     ON domains.domain = url_policy.domain
ORDER BY row
"""

PII_DOMAINS = """
SELECT domain,
       count(*)                                                         AS pages,
       count(*) FILTER (emails + phones + ips + ibans + cards > 0)      AS pages_with_pii
FROM url_policy JOIN pii USING (row)
GROUP BY domain
ORDER BY domain
"""

# What the decision reads, by the name of its view; each view also has `row`, a document's place, which all share.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "documents": ("url",),
    "url_policy": ("domain", "blocked_by"),
    "languages": ("language", "score"),
    "text_heuristics": (
        *("words", "mean_word_length", "symbol_word_ratio", "bullet_lines", "ellipsis_lines", "alpha_words"),
        *("dup_line_char_fraction", "dup_ngram_max", "dirty_words"),
    ),
    "pii": ("emails", "phones", "ips", "ibans", "cards", "density"),
    "url_versions": ("newest",),
    "duplicate_documents": ("representative",),
    "quality_scores": ("score", "code_share"),
}
UNSPACED_LANGUAGES = ("zh", "ja", "th", "lo", "my", "km")  # every character counts as a word there

DECISIONS = pa.schema([("doc_id", pa.uuid()), ("url", pa.string()), ("dropped_by", pa.string())])
DOMAINS = pa.schema([("domain", pa.string()), ("pages", pa.int64()), ("pages_with_pii", pa.int64())])
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
    """doc_id, url and dropped_by (null: kept) of every document. `sidecars` are those of COLUMNS, by name."""
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


def decide(connection: duckdb.DuckDBPyConnection, settings: Settings) -> pa.Table:
    """DECISIONS for the documents of the views that `open_views` made: a sweep calls it once for each setting."""
    return connection.sql(DECISION, params=_thresholds(settings)).to_arrow_table().cast(DECISIONS)


def open_views(connection: duckdb.DuckDBPyConnection, shards: Iterable[Beside], domains: pa.Table | None = None) -> None:
    """Views of these shards' documents and sidecars, for `decide`.

    `domains` counts the pages of each domain (DOMAINS); without it they are counted over these shards alone.
    """
    parts: dict[str, list[pa.Table]] = {name: [] for name in COLUMNS}
    for beside in shards:
        for name, columns in COLUMNS.items():
            parts[name].append(read_beside(beside, **{name: columns}))
    for name, tables in parts.items():
        table = pa.concat_tables(tables)
        connection.register(name, table.append_column("row", pa.array(range(table.num_rows), pa.int64())))
    if domains is None:
        domains = connection.sql(PII_DOMAINS).to_arrow_table()
    connection.register("pii_domains", domains)


def count_domains(shards: Beside, engine: Engine) -> Output:
    connection = connect(engine)
    for name in ("url_policy", "pii"):
        table = read_beside(shards, **{name: COLUMNS[name]})
        connection.register(name, table.append_column("row", pa.array(range(table.num_rows), pa.int64())))
    return Output.annotated(connection.sql(PII_DOMAINS).to_arrow_table().cast(DOMAINS))


def add_up(by_shard: Dataset, engine: Engine) -> Output:
    connection = connect(engine)
    connection.register("parts", pa.concat_tables([DOMAINS.empty_table(), *(s.read() for s in by_shard.shards)]))
    query = "SELECT domain, sum(pages)::BIGINT, sum(pages_with_pii)::BIGINT FROM parts GROUP BY domain ORDER BY domain"
    return Output.annotated(connection.sql(query).to_arrow_table().rename_columns(DOMAINS.names).cast(DOMAINS))


def decisions(shards: Beside, domains: Dataset, settings: Settings) -> Output:
    connection = connect(settings.engine)
    open_views(connection, [shards], domains.read())
    table = decide(connection, settings)
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


def _thresholds(settings: Settings) -> dict[str, Any]:
    heuristics = settings.heuristics.model_dump(exclude={"dirty_word_list"})
    return heuristics | {
        "max_pii_share": settings.url_policy.max_pii_share,
        "pii_domain_pages": settings.curate.pii_domain_pages,
        "languages": list(settings.curate.languages),
        "min_language_score": settings.languages.min_score,
        "unspaced_languages": list(UNSPACED_LANGUAGES),
        "max_pii_density": settings.pii.max_density,
        "quality_languages": list(settings.curate.quality_languages),
        "code_share": CODE_SHARE,
        "min_quality": settings.quality.min_score,
    }
