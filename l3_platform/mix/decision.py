"""The rules applied: documents beside all that sidecars say of them, and SQL over that.

`side_by_side` gives one row a document with a struct column a sidecar, so that `languages.score` reads the same in a rule and
in SQL. Nothing is joined: sidecars lie in the order of their documents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from l3_platform.dedup.shards import Beside, read_beside
from l3_platform.mix.rules import COLUMNS, PII_DOMAINS, RULES, SIDECARS, Rule, decision, judgements, settings_table
from l3_platform.settings import Settings

DOMAINS = pa.schema([("domain", pa.string()), ("pages", pa.int64()), ("pages_with_pii", pa.int64())])
PAGES = ("pages", "pages_with_pii")

# What the decision keeps of the counts of a document's domain: whoever decides again need not count again.
KEPT_PAGES = ("domain_pages", "domain_pages_with_pii")

RULED: Mapping[str, tuple[str, ...]] = {stage: COLUMNS[stage] for stage in SIDECARS}
_STAGE = re.compile(r"\b[a-z_]+\.(?=[a-z_])")


@dataclass(frozen=True)
class Judgement:
    """What a rule says of a document: its score and the rule's limit, as text; None where there is none."""

    rule: Rule
    score: str | None
    limit: str | None
    judged: bool
    failed: bool

    @property
    def measured(self) -> str:
        """Such as `dup_ngram_max 0.4121`."""
        return f"{_STAGE.sub('', self.rule.score)} {_number(self.score)}"

    @property
    def evidence(self) -> str:
        """Of a document that failed: `dup_ngram_max 0.4121 > 0.35`."""
        return f"{self.measured} {self.rule.comparison} {self.shown_limit}" if self.rule.fails else self.measured

    @property
    def shown_limit(self) -> str:
        return _number(self.limit)


def decide(connection: duckdb.DuckDBPyConnection, documents: pa.Table, points: Sequence[Settings]) -> duckdb.DuckDBPyRelation:
    """The relation `decided`, also as a view: all columns of `documents` (see `side_by_side`) with `point`, the number of the
    settings, and `decided`, the reason for which they drop the document; null where they keep it."""
    return _applied(connection, documents, points, f"{decision()} AS decided", "decided")


def judge(connection: duckdb.DuckDBPyConnection, documents: pa.Table, settings: Settings) -> list[list[Judgement]]:
    """What every rule says of each document, in the order of the funnel."""
    judged = _applied(connection, documents, [settings], f"{judgements()} AS judgements", "judged")
    rows = judged.order("row").select("judgements").to_arrow_table()["judgements"].to_pylist()
    return [[Judgement(rule, **said) for rule, said in zip(RULES, row, strict=True)] for row in rows]


def _number(text: str | None) -> str:
    """A score as a person reads it: four digits are enough."""
    try:
        return f"{int(text or ''):,}"
    except ValueError:
        pass
    try:
        return f"{float(text or ''):.4g}"
    except ValueError:
        return text or "none"


def _applied(
    connection: duckdb.DuckDBPyConnection, documents: pa.Table, points: Sequence[Settings], expression: str, view: str
) -> duckdb.DuckDBPyRelation:
    if "row" not in documents.column_names:
        documents = documents.append_column("row", pa.array(range(documents.num_rows), pa.int64()))
    connection.register("documents_beside", documents)
    connection.register("settings", settings_table(points))
    query = f"SELECT documents_beside.*, point, {expression} FROM documents_beside CROSS JOIN settings"
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS {query}")
    return connection.view(view)


def side_by_side(shards: Beside, columns: Mapping[str, Sequence[str]]) -> pa.Table:
    """doc_id, and for each dataset of `columns` a struct column of those of its columns; a row a document of the shard."""
    table = read_beside(shards, **columns)
    beside, at = {"doc_id": table["doc_id"]}, 1
    for name, wanted in sorted(columns.items(), key=lambda item: item[0] != "documents"):
        part = pa.Table.from_arrays(table.columns[at : at + len(wanted)], names=list(wanted))
        beside[name] = part.to_struct_array()
        at += len(wanted)
    return pa.table(beside)


def with_domains(documents: pa.Table, names: pa.ChunkedArray, domains: pa.Table) -> pa.Table:
    """Adds what is known of each document's domain; `names` are the domains, `domains` the counts (DOMAINS)."""
    known = pc.SetLookupOptions(value_set=domains["domain"].combine_chunks(), skip_nulls=True)
    places = pc.call_function("index_in", [names.cast(pa.string())], known)
    counts = pa.table({name: domains[name].take(places) for name in PAGES})
    return documents.append_column(PII_DOMAINS, counts.to_struct_array())


def with_kept_domains(documents: pa.Table) -> pa.Table:
    """The same from KEPT_PAGES of `curation_decisions`."""
    decided = documents["curation_decisions"].combine_chunks()
    counts = pa.table({name: decided.field(kept) for name, kept in zip(PAGES, KEPT_PAGES, strict=True)})
    return documents.append_column(PII_DOMAINS, counts.to_struct_array())
