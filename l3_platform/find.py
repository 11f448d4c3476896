"""Where a document lies: DuckDB looks for it in the columns of all shards, then one row group is read of each sidecar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from l3_platform.engine.verbs import open_database, workers
from l3_platform.settings import Engine
from l3_platform.store import Shard, files


@dataclass(frozen=True)
class Found:
    """A row of a shard that a predicate holds of, and the columns asked for."""

    shard: Shard
    row: int
    values: dict[str, Any]


def find(
    shards: Sequence[Shard],
    predicate: str,
    values: Sequence[Any],
    columns: Sequence[str],
    engine: Engine,
    *,
    first: str = "filename",
    limit: int = 1000,
) -> list[Found]:
    """Up to `limit` rows that `predicate` holds of (SQL, `?` for each of `values`): by the SQL order `first`, then as they lie.

    Only the columns named in it are read of every shard, and those of `columns` where it holds.
    """
    if not shards:
        return []
    by_url = {for_duckdb(shard.url): shard for shard in shards}
    with reader(shards, engine) as connection:
        query = (
            f"SELECT filename, file_row_number, {', '.join(map(_quoted, columns))} "
            f"FROM read_parquet(?, filename = true, file_row_number = true) WHERE {predicate} "
            f"ORDER BY {first}, filename, file_row_number LIMIT {limit}"
        )
        rows = connection.sql(query, params=[list(by_url), *values]).to_arrow_table().to_pylist()
    return [Found(by_url[row.pop("filename")], row.pop("file_row_number"), row) for row in rows]


def _quoted(column: str) -> str:
    return f'"{column}"'


def reader(shards: Sequence[Shard], engine: Engine) -> duckdb.DuckDBPyConnection:
    """A DuckDB that reads these shards where they are (`read_parquet` of their `for_duckdb`), within the engine's memory limit."""
    connection = open_database(engine.memory_limit)
    connection.execute(f"SET threads = {workers(engine)}")
    if shards and not files.is_local(shards[0].url):
        connection.register_filesystem(files.filesystem(shards[0].url)[0])
    return connection


def for_duckdb(url: str) -> str:
    """Local paths as they are; elsewhere the scheme by which DuckDB finds the registered filesystem."""
    fs, path = files.filesystem(url)
    return path if files.is_local(url) else str(fs.unstrip_protocol(path))


def row_at(shard: Shard, row: int, columns: Sequence[str] | None = None) -> pa.Table:
    """One row of a shard as a table; only its row group is read. Raises IndexError beyond the last."""
    fs, path = files.filesystem(shard.url)
    with pq.ParquetFile(path, filesystem=fs) as file:
        first = 0
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < first + rows:
                return file.read_row_group(group, columns=list(columns) if columns is not None else None).slice(row - first, 1)
            first += rows
    raise IndexError(f"{shard.url}: there is no row {row}, it has {first:,}")
