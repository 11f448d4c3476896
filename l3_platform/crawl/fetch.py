"""`raw_crawl`: the WARC files of a snapshot, fetched, measured and digested. One shard a file."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.parquet as pq

from l3_platform import settings
from l3_platform.crawl.sources import CrawlError, Source, WarcFile, from_settings
from l3_platform.engine import Counts, Output, map_shards
from l3_platform.settings import Settings
from l3_platform.store import Dataset, Writer, files

RAW_CRAWL = pa.schema(
    [
        ("snapshot", pa.string()),
        ("source", pa.string()),
        ("file", pa.string()),  # unique in the snapshot
        ("location", pa.string()),  # where readers open it; empty: in the dataset's folder `warc/`
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
    ]
)
LEDGER = "ledger.parquet"


@runtime_checkable
class KnowsTruth(Protocol):
    """A source that planted cases and knows them: the demo."""

    def ledger(self, snapshot: str) -> pa.Table: ...


def build_raw_crawl(snapshot: str, out: Writer, settings: Settings) -> Sequence[str]:
    """Fetch every file of the snapshot; returns the names of the shards. Raises CrawlError for an empty crawl."""
    listing = from_settings(settings.crawl).listing(snapshot)
    if not listing:
        raise CrawlError(
            f"{settings.crawl.source}/{snapshot}: the crawl is empty, no WARC file is listed; check crawl.paths or crawl.snapshots"
        )
    tasks = {f"part-{number:05d}": (file, number == 0) for number, file in enumerate(listing)}
    fetch = functools.partial(_fetch, settings.crawl, snapshot, files.join(out.folder, "warc"))
    # The demo makes its web once for all files; workers, still compiling their kernels on a fresh machine, would make one each.
    return map_shards(fetch, tasks, out, settings.engine, here=settings.crawl.source == "demo")


def _fetch(crawl: settings.Crawl, snapshot: str, folder: str, task: tuple[WarcFile, bool]) -> Output:
    file, first = task
    source = _source(crawl.model_dump_json())
    fetched = source.fetch(snapshot, file, folder)
    inside = fetched.path == files.join(folder, fetched.name)
    row = {
        "snapshot": snapshot,
        "source": crawl.source,
        "file": fetched.name,
        "location": "" if inside else fetched.path,
        "bytes": fetched.bytes,
        "sha256": fetched.sha256,
    }
    extra = {LEDGER: _parquet(source.ledger(snapshot))} if first and isinstance(source, KnowsTruth) else {}
    return Output(pa.Table.from_pylist([row], schema=RAW_CRAWL), Counts.annotated(1), files=extra)


@functools.lru_cache(maxsize=2)
def _source(crawl: str) -> Source:
    """One a process: the demo source keeps the web it has made. `crawl` is the section as JSON."""
    return from_settings(settings.Crawl.model_validate_json(crawl))


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def warc_files(raw_crawl: Dataset) -> dict[str, tuple[str, str]]:
    """Shard name to (file name, URL to open) of a fetched snapshot."""
    found = {}
    for shard in raw_crawl.shards:
        (row,) = shard.read(["file", "location"]).to_pylist()
        found[shard.name] = (row["file"], row["location"] or files.join(raw_crawl.folder, "warc", row["file"]))
    return found


def ledger(raw_crawl: Dataset) -> pa.Table | None:
    """The truth about planted cases, where the source knows it (the demo crawl)."""
    try:
        return pq.read_table(io.BytesIO(files.read(raw_crawl.file(LEDGER))))
    except KeyError:
        return None
