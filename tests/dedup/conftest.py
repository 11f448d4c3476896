"""Small corpora on disk, with the sidecars that deduplication reads."""

from __future__ import annotations

import datetime as dt
import itertools
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from l3_platform.dedup.minhash import build_document_signatures, build_duplicate_documents
from l3_platform.dedup.urls import build_url_versions
from l3_platform.settings import Dedup, Engine, Settings
from l3_platform.store import Dataset, Output, Writer

Page = Mapping[str, Any]
NUMBERS = itertools.count()
DAY = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


class Corpus:
    """Pages are dicts of url, text, day and language; each inner list is a shard, each outer one a snapshot."""

    def __init__(self, folder: str, snapshots: Sequence[Sequence[Sequence[Page]]]) -> None:
        self.folder = folder
        self.pages = [page for shards in snapshots for shard in shards for page in shard]
        self.documents = [self._dataset("documents", number, shards, _documents) for number, shards in enumerate(snapshots)]
        self.url_policy = [self._dataset("url_policy", number, shards, _policy) for number, shards in enumerate(snapshots)]
        self.languages = [self._dataset("languages", number, shards, _language) for number, shards in enumerate(snapshots)]

    def _dataset(
        self, asset: str, number: int, shards: Sequence[Sequence[Page]], table: Callable[[Sequence[Page]], pa.Table]
    ) -> Dataset:
        out = self.writer(asset, f"demo-{number + 1}")
        names = [f"part-{shard:05d}" for shard in range(len(shards))]
        for name, pages in zip(names, shards, strict=True):
            out.put(name, Output.annotated(table(pages)))
        return out.commit(names)

    def writer(self, asset: str, partition: str = "all") -> Writer:
        return Writer(f"{self.folder}/{asset}/{partition}", asset, partition, code_version="1", settings={}, inputs={})

    def signatures(self, settings: Settings) -> list[Dataset]:
        """Of each snapshot its own, as the lineage has it."""
        made = []
        for dataset in self.documents:
            out = self.writer("document_signatures", dataset.manifest.partition)
            names, metrics = build_document_signatures([dataset], out=out, settings=settings)
            made.append(out.commit(names, metrics))
        return made

    def duplicates(self, settings: Settings, **inputs: Sequence[Dataset]) -> Dataset:
        versions = inputs.get("url_versions") or [self.build(build_url_versions, settings, url_policy=self.url_policy)]
        signed = inputs.get("document_signatures") or self.signatures(settings)
        return self.build(
            build_duplicate_documents,
            settings,
            document_signatures=signed,
            languages=self.languages,
            url_versions=versions,
        )

    def build(self, stage: Callable[..., Any], settings: Settings, **inputs: Sequence[Dataset]) -> Dataset:
        name = stage.__name__.removeprefix("build_")
        out = self.writer(name)
        names, metrics = stage(documents=self.documents, **inputs, out=out, settings=settings)
        return out.commit(names, metrics)


def settings(workers: int = 1, **dedup: Any) -> Settings:
    return Settings(dedup=Dedup(**{"buckets": 3} | dedup), engine=Engine(workers=workers))


def doc_id(page: Page) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{page['url']} {page.get('day', 0)} {page['text']}")


def _ids(pages: Sequence[Page]) -> pa.Array:
    raw = pa.array([doc_id(page).bytes for page in pages], pa.binary(16))
    return pa.ExtensionArray.from_storage(pa.uuid(), raw)


def _documents(pages: Sequence[Page]) -> pa.Table:
    times = [DAY + dt.timedelta(days=page.get("day", 0)) for page in pages]
    return pa.table(
        {
            "doc_id": _ids(pages),
            "url": [page["url"] for page in pages],
            "fetch_time": pa.array(times, pa.timestamp("us", "UTC")),
            "text": pa.array([page["text"] for page in pages], pa.string()),
        }
    )


def _policy(pages: Sequence[Page]) -> pa.Table:
    return pa.table({"doc_id": _ids(pages), "canonical_url": [page["url"].lower() for page in pages]})


def _language(pages: Sequence[Page]) -> pa.Table:
    return pa.table({"doc_id": _ids(pages), "language": [page.get("language", "en") for page in pages]})


@pytest.fixture(scope="session")
def corpus() -> Callable[..., Corpus]:
    """`corpus(shards of demo-1, shards of demo-2, ...)`, in memory: stages then run in this process."""
    return lambda *snapshots: Corpus(f"memory://dedup/{next(NUMBERS)}", snapshots)


@pytest.fixture
def corpus_on_disk(tmp_path: Path) -> Callable[..., Corpus]:
    """As `corpus`, in a folder: stages then run in worker processes."""
    return lambda *snapshots: Corpus(str(tmp_path / str(next(NUMBERS))), snapshots)


@pytest.fixture(scope="session")
def dedup_settings() -> Callable[..., Settings]:
    return settings


@pytest.fixture(scope="session")
def id_of() -> Callable[[Page], uuid.UUID]:
    return doc_id
