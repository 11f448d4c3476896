"""`python -m benchmarks.reading`: WARC files read to their payloads, beside warcio, which checks neither lengths nor digests."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import debian_crawl, ratios
from l3_platform.crawl.demo.source import DemoSource
from l3_platform.crawl.record import Record
from l3_platform.crawl.warc import read_records
from l3_platform.settings import Crawl
from l3_platform.store import files

ROUNDS = 7
SHARED = Path("../shared/data/warc")  # real archives, where they lie beside the repository


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    table = Table("archive", "MB", "l3 MB/s", "warcio MB/s", "ratio", title="WARC reading: every record with its payload, one core")
    peer = f"warcio {metadata.version('warcio')}"
    for name, archive in _archives().items():
        ours, theirs = _fastest(archive, _read, _read_by_warcio)
        megabytes = len(archive) / 1e6
        cells = (megabytes, megabytes / ours, megabytes / theirs, theirs / ours)
        table.add_row(name, *(f"{cell:,.2f}" for cell in cells))
        ratios.note(f"WARC reading, {name}: {peer}", theirs / ours, bar=1.0, aim=1.5)
    Console().print(table)


def _archives() -> dict[str, bytes]:
    found = {"demo web": _whole_records(_demo())}
    try:
        found["Debian documentation"] = b"".join(path.read_bytes() for path in debian_crawl.build(450, Path(".bench").absolute()))
    except debian_crawl.NoDebian as error:
        print(f"WARC reading of a real crawl: skipped, {error}")
    if SHARED.is_dir():
        found["archive.org, 2008"] = (SHARED / "aut-example.warc.gz").read_bytes()
    else:
        print("WARC reading of an archive of 2008: skipped, there is no shared/data beside the repository")
    return found


def _demo() -> bytes:
    source = DemoSource(Crawl(demo_pages=600, demo_warc_files=1))
    (file,) = source.listing("demo-1")
    return files.read(source.fetch("demo-1", file, "memory://bench").path)


def _whole_records(archive: bytes) -> bytes:
    """Without the records that the demo breaks on purpose: peers stop at them."""
    whole = (record for record in read_records(io.BytesIO(archive)) if isinstance(record, Record))
    return b"".join(archive[record.offset : record.offset + record.length] for record in whole)


def _read(archive: bytes) -> int:
    return sum(len(record.payload) for record in read_records(io.BytesIO(archive)) if isinstance(record, Record))


def _read_by_warcio(archive: bytes) -> int:
    from warcio.archiveiterator import ArchiveIterator

    return sum(len(record.content_stream().read()) for record in ArchiveIterator(io.BytesIO(archive)))


def _fastest(archive: bytes, *ways: Callable[[bytes], int]) -> list[float]:
    """Seconds of the fastest of ROUNDS, taken in turn."""
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(ROUNDS):
        for way, times in zip(ways, seconds, strict=True):
            started = time.perf_counter()
            way(archive)
            times.append(time.perf_counter() - started)
    return [min(times) for times in seconds]


if __name__ == "__main__":
    main()
