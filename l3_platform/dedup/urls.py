"""URL deduplication over all snapshots: the most recent version of a canonical URL stays (Llama 3, section 3.1.1)."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from l3_platform.dedup.shards import Beside, Built, aligned, by_name, read_beside, step, with_place
from l3_platform.engine import Counts, Output, shuffle
from l3_platform.settings import Settings
from l3_platform.store import Dataset, Shard, Writer

SCHEMA = pa.schema([("doc_id", pa.uuid()), ("newest", pa.bool_()), ("newest_doc_id", pa.uuid()), ("versions", pa.int32())])

# A page without a canonical URL is a version of nothing but itself.
VERSIONS = """
SELECT shard, row, doc_id,
       row_number() OVER newest_first = 1      AS newest,
       first_value(doc_id) OVER newest_first   AS newest_doc_id,
       (count(*) OVER (PARTITION BY page))::INT AS versions
FROM rows
WINDOW newest_first AS (PARTITION BY page ORDER BY fetch_time DESC, doc_id, shard, row)
ORDER BY shard, row
"""

HOME = "SELECT doc_id, newest, newest_doc_id, versions FROM rows ORDER BY row"


def build_url_versions(documents: Sequence[Dataset], url_policy: Sequence[Dataset], *, out: Writer, settings: Settings) -> Built:
    """Which version of its URL each document is. Ties of fetch_time go to the smaller doc_id."""
    beside = aligned(documents, url_policy=url_policy)
    tasks = {key: (key, shards) for key, shards in beside.items()}
    versions = step(
        out,
        "versions",
        lambda writer: shuffle(pages, tasks, "page", settings.dedup.buckets, compare, writer, settings.engine),
    )
    return shuffle(Shard.read, by_name(versions), "shard", list(beside), bring_home, out, settings.engine), {}


def pages(task: tuple[str, Beside]) -> pa.Table:
    key, shards = task
    table = read_beside(shards, documents=["fetch_time"], url_policy=["canonical_url"])
    urls = zip(table["canonical_url"].to_pylist(), table["doc_id"].to_pylist(), strict=True)
    page = pa.array([url or f"doc_id:{doc_id}" for url, doc_id in urls], pa.string())
    return with_place(table.drop_columns(["canonical_url"]).append_column("page", page), key)


def compare(rows: pa.Table, connection: duckdb.DuckDBPyConnection) -> Output:
    table = connection.sql(VERSIONS).to_arrow_table()
    return Output(table, Counts.annotated(table.num_rows))


def bring_home(rows: pa.Table, connection: duckdb.DuckDBPyConnection) -> Output:
    return Output.annotated(connection.sql(HOME).to_arrow_table().cast(SCHEMA))
