"""A dataset: a folder of Parquet shards with `manifest.json`, written last. Without a manifest it does not exist.

root/asset/partition/fingerprint/
    part-00000.parquet          the shards
    quarantine/part-00000.parquet
    files/...                   what is not a table: models, token streams
    accounts/part-00000.json    while it is built: which shards are finished, and their counts
    manifest.json               at the end: shards, digests, counts, settings, inputs; no clock, no host
    cost.json                   beside it: seconds, workers, time of day
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from l3_platform.store import files
from l3_platform.store.account import Counts, Output

QUARANTINE_SCHEMA = pa.schema(
    [
        ("snapshot", pa.string()),
        ("file", pa.string()),
        ("offset", pa.int64()),
        ("url", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("bytes_lost", pa.int64()),
    ]
)


class MissingDataset(RuntimeError):
    """A dataset that was never finished; the message says which asset to materialize."""


class Entry(BaseModel):
    """A file of a dataset: bytes and sha256 of what it holds."""

    model_config = ConfigDict(frozen=True)

    name: str
    bytes: int
    digest: str


class ShardAccount(BaseModel):
    model_config = ConfigDict(frozen=True)

    shard: Entry
    rows: int
    counts: Counts
    quarantine: Entry | None = None
    files: tuple[Entry, ...] = ()


class Manifest(BaseModel):
    """What a dataset is and what it was made from. Its bytes are the dataset's identity: see `digest`."""

    model_config = ConfigDict(frozen=True)

    asset: str
    partition: str
    code_version: str
    settings: dict[str, Any]
    inputs: dict[str, str]
    columns: dict[str, str]
    shards: tuple[ShardAccount, ...]
    counts: Counts
    metrics: dict[str, Any] = {}

    @property
    def rows(self) -> int:
        return sum(account.rows for account in self.shards)

    @property
    def bytes(self) -> int:
        return sum(account.shard.bytes + sum(entry.bytes for entry in account.files) for account in self.shards)

    @cached_property
    def content(self) -> bytes:
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=1).encode()

    @cached_property
    def digest(self) -> str:
        """sha256 of the manifest, which holds the digests of all shards: Dagster's data version."""
        return hashlib.sha256(self.content).hexdigest()[:32]


@dataclass(frozen=True)
class Shard:
    """One shard of a finished dataset; cheap to send to a worker."""

    folder: str
    partition: str
    name: str

    @property
    def key(self) -> str:
        """Unique over the partitions of an asset, such as `demo-1.part-00003`."""
        return f"{self.partition}.{self.name}"

    @property
    def url(self) -> str:
        return files.join(self.folder, f"{self.name}.parquet")

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        return read_table(self.url, columns)


@dataclass(frozen=True)
class Dataset:
    """A finished dataset, opened for reading."""

    folder: str
    manifest: Manifest

    @classmethod
    def open(cls, folder: str) -> Dataset:
        """Raises MissingDataset where there is no manifest, StoreError where it does not parse."""
        url = files.join(folder, "manifest.json")
        try:
            content = files.read(url)
        except FileNotFoundError:
            raise MissingDataset(f"{folder}: no manifest, the dataset is not finished; materialize it first") from None
        try:
            return cls(folder, Manifest.model_validate_json(content))
        except ValueError as error:
            raise files.StoreError(f"{url}: not a manifest ({error}); delete the folder and materialize it again") from None

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def shards(self) -> list[Shard]:
        return [Shard(self.folder, self.manifest.partition, account.shard.name) for account in self.manifest.shards]

    def shard(self, name: str) -> Shard:
        return Shard(self.folder, self.manifest.partition, name)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The whole dataset as one table: for small ones."""
        return pa.concat_tables([shard.read(columns) for shard in self.shards])

    def quarantine(self) -> pa.Table:
        urls = [files.join(self.folder, account.quarantine.name) for account in self.manifest.shards if account.quarantine]
        return pa.concat_tables([QUARANTINE_SCHEMA.empty_table(), *(read_table(url) for url in urls)])

    @property
    def files(self) -> list[str]:
        return [entry.name for account in self.manifest.shards for entry in account.files]

    def file(self, name: str) -> str:
        """URL of a file of the dataset, `name` as the stage named it. Raises KeyError."""
        stored = f"files/{name}"
        if stored not in self.files:
            raise KeyError(f"{self.folder} has no file {name!r}; it has {', '.join(self.files) or 'none'}")
        return files.join(self.folder, stored)

    def verify(self) -> list[str]:
        """Names of files whose bytes are not those of the manifest: empty when all is well."""
        entries = [
            entry
            for account in self.manifest.shards
            for entry in (_named(account.shard), account.quarantine, *account.files)
            if entry is not None
        ]
        return [entry.name for entry in entries if not _holds(self.folder, entry)]

    def remove_leftovers(self) -> None:
        """What building it left behind; a process killed right after the manifest was written has not come to this."""
        for leftover in ("scratch", "accounts"):
            files.remove(files.join(self.folder, leftover))


def _named(shard: Entry) -> Entry:
    return shard.model_copy(update={"name": f"{shard.name}.parquet"})


def _holds(folder: str, entry: Entry) -> bool:
    try:
        return _digest(files.read(files.join(folder, entry.name))) == entry.digest
    except FileNotFoundError:
        return False


@dataclass(frozen=True)
class Writer:
    """A dataset being built. `put` may run in any process and for any shard, again and again: the bytes are the same."""

    folder: str
    asset: str
    partition: str
    code_version: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    compression_level: int = 3
    rows_per_group: int = 8192

    def finished(self) -> set[str]:
        """Names of shards that need not be made again."""
        return {name.removesuffix(".json") for name in files.names(files.join(self.folder, "accounts")) if name.endswith(".json")}

    def put(self, shard: str, output: Output) -> None:
        """Write a shard, its quarantine and files, then its account: the account makes it finished. Raises Unbalanced."""
        output.check(f"{self.asset}/{self.partition}/{shard}")
        account = ShardAccount(
            shard=self._entry(shard, f"{shard}.parquet", self.encode(output.table)),
            rows=output.table.num_rows,
            counts=output.counts,
            quarantine=self._quarantine(shard, output.quarantine),
            files=tuple(self._entry(f"files/{name}", f"files/{name}", data) for name, data in sorted(output.files.items())),
        )
        files.write(files.join(self.folder, "accounts", f"{shard}.json"), account.model_dump_json().encode())

    def _quarantine(self, shard: str, table: pa.Table | None) -> Entry | None:
        if table is None or table.num_rows == 0:
            return None
        name = f"quarantine/{shard}.parquet"
        return self._entry(name, name, self.encode(table.cast(QUARANTINE_SCHEMA)))

    def _entry(self, name: str, place: str, data: bytes) -> Entry:
        files.write(files.join(self.folder, place), data)
        return Entry(name=name, bytes=len(data), digest=_digest(data))

    def encode(self, table: pa.Table) -> bytes:
        buffer = io.BytesIO()
        pq.write_table(
            table,
            buffer,
            compression="zstd",
            compression_level=self.compression_level,
            row_group_size=self.rows_per_group,
        )
        return buffer.getvalue()

    def scratch(self, name: str) -> str:
        """A folder for intermediate results; `commit` removes it."""
        return files.join(self.folder, "scratch", name)

    def commit(self, shards: Sequence[str], metrics: Mapping[str, Any] | None = None) -> Dataset:
        """Write the manifest over exactly `shards`. Raises StoreError when one of them is not finished."""
        accounts = []
        for shard in sorted(shards):
            url = files.join(self.folder, "accounts", f"{shard}.json")
            try:
                accounts.append(ShardAccount.model_validate_json(files.read(url)))
            except FileNotFoundError:
                raise files.StoreError(f"{self.asset}/{self.partition}: shard {shard} is not finished, nothing committed") from None
        manifest = Manifest(
            asset=self.asset,
            partition=self.partition,
            code_version=self.code_version,
            settings=dict(self.settings),
            inputs=dict(sorted(self.inputs.items())),
            columns=self._columns(accounts),
            shards=tuple(accounts),
            counts=Counts.total(account.counts for account in accounts),
            metrics=dict(metrics or {}),
        )
        files.remove_partial(self.folder)
        files.write(files.join(self.folder, "manifest.json"), manifest.content)
        dataset = Dataset(self.folder, manifest)
        dataset.remove_leftovers()
        return dataset

    def reopen(self) -> None:
        """Take back `commit`: shards in which something failed can be made again, the others are finished."""
        for account in Dataset.open(self.folder).manifest.shards:
            if not account.counts.failed:
                files.write(files.join(self.folder, "accounts", f"{account.shard.name}.json"), account.model_dump_json().encode())
        files.remove(files.join(self.folder, "manifest.json"))

    def _columns(self, accounts: Sequence[ShardAccount]) -> dict[str, str]:
        if not accounts:
            return {}
        schema = read_schema(files.join(self.folder, f"{accounts[0].shard.name}.parquet"))
        return {field.name: str(field.type) for field in schema}


def read_table(url: str, columns: Sequence[str] | None = None) -> pa.Table:
    fs, path = files.filesystem(url)
    return pq.ParquetFile(path, filesystem=fs).read(columns=list(columns) if columns is not None else None)


def read_schema(url: str) -> pa.Schema:
    fs, path = files.filesystem(url)
    return pq.read_schema(path, filesystem=fs)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
