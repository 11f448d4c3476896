"""Documents and their sidecars, shard beside shard: which shards belong together, reading them, and steps between.

A sidecar has one row a document in the order of the documents shard. One that is partitioned as the documents are has
shards of the same key; one that spans all snapshots names each shard after the key, such as `demo-1.part-00003`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from l3_platform.store import Dataset, MissingDataset, Shard, StoreError, Writer, files

BATCH_BYTES = 32 << 20  # of compressed shards that one task reads

Beside = Mapping[str, Shard]  # name of a dataset, `documents` first, to its shard
Built = tuple[list[str], dict[str, Any]]  # what a stage gives to `Writer.commit`: names of its shards, metrics


def aligned(documents: Sequence[Dataset], **sidecars: Sequence[Dataset]) -> dict[str, Beside]:
    """Key of each documents shard to the shards that describe its documents. Raises StoreError, naming one missing."""
    beside: dict[str, dict[str, Shard]] = {shard.key: {"documents": shard} for dataset in documents for shard in dataset.shards}
    for name, datasets in sidecars.items():
        found = {shard.key if shard.key in beside else shard.name: shard for dataset in datasets for shard in dataset.shards}
        for key, shards in beside.items():
            if key not in found:
                raise StoreError(f"{name}: no shard for documents {key}; materialize {name} again")
            shards[name] = found[key]
    return dict(sorted(beside.items()))


def read_beside(shards: Beside, **columns: Sequence[str]) -> pa.Table:
    """doc_id and the named columns of each dataset, one row a document. Raises StoreError when rows do not match."""
    table = shards["documents"].read(["doc_id", *columns.pop("documents", ())])
    for name, wanted in columns.items():
        sidecar = shards[name].read(["doc_id", *wanted])
        if not sidecar["doc_id"].equals(table["doc_id"]):
            raise StoreError(
                f"{shards[name].url}: its doc_ids are not those of {shards['documents'].url}; materialize {name} again"
            )
        for column in wanted:
            table = table.append_column(sidecar.schema.field(column), sidecar[column])
    return table


def with_place(table: pa.Table, key: str) -> pa.Table:
    """Adds `shard` (the key) and `row` (i32), by which a row finds home after shuffles."""
    rows = pa.array(np.arange(table.num_rows, dtype=np.int32))
    return table.append_column("shard", pa.repeat(key, table.num_rows)).append_column("row", rows)


def with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of `schema`, null where `table` lacks one: tables of two kinds then travel through one shuffle."""
    known = set(table.column_names)
    columns = [table[field.name] if field.name in known else pa.nulls(table.num_rows, field.type) for field in schema]
    return pa.table(columns, schema=schema)


def step(out: Writer, name: str, make: Callable[[Writer], Sequence[str]]) -> Dataset:
    """An intermediate dataset in the scratch of `out`: opened where an earlier try finished it, else made."""
    writer = dataclasses.replace(out, folder=files.join(out.scratch("steps"), name))
    try:
        return Dataset.open(writer.folder)
    except MissingDataset:
        return writer.commit(make(writer))


def batches(dataset: Dataset) -> dict[str, tuple[Shard, ...]]:
    """Neighbouring shards in tasks of up to BATCH_BYTES: small intermediate results cost no task a shard."""
    found: list[list[Shard]] = []
    room = 0
    for shard, account in zip(dataset.shards, dataset.manifest.shards, strict=True):
        if account.shard.bytes > room:
            found.append([])
            room = BATCH_BYTES
        found[-1].append(shard)
        room -= account.shard.bytes
    return {batch[0].name: tuple(batch) for batch in found}


def by_name(dataset: Dataset) -> dict[str, Shard]:
    return {shard.name: shard for shard in dataset.shards}


def read_batch(batch: Sequence[Shard]) -> pa.Table:
    return pa.concat_tables([shard.read() for shard in batch])


def folders(documents: Sequence[Dataset]) -> dict[str, str]:
    """Folder of each partition: all that a worker needs to find a documents shard by its key."""
    return {dataset.manifest.partition: dataset.folder for dataset in documents}


def shard_of(key: str, folders: Mapping[str, str]) -> Shard:
    partition, _, name = key.rpartition(".")
    return Shard(folders[partition], partition, name)
