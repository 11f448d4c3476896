"""`make bench`: side by side with named peers, one process, one core, the same pages, ratios from one run."""

from __future__ import annotations

import argparse
import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata

from rich.console import Console
from rich.table import Table

from l3_platform.crawl.demo.source import DemoSource
from l3_platform.crawl.record import Record
from l3_platform.crawl.warc import read_records
from l3_platform.extract import extract
from l3_platform.settings import Crawl, Extract
from l3_platform.store import files

ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=600, help="pages of the demo web")
    options = parser.parse_args()
    warc = demo_warc(options.pages)
    pages = [record.payload for record in good_records(warc) if record.record_type == "response"]
    html = [page for page in pages if b"<html" in page[:2000].lower()]
    show("Extraction: HTML to main text", "pages/s", len(html), extraction(html))
    show("WARC reading: records with payload", "MB/s", len(warc) / 1e6, reading(warc))


def demo_warc(pages: int) -> bytes:
    """One snapshot of the demo web as one WARC file, without the records that are broken on purpose: peers stop at them."""
    source = DemoSource(Crawl(demo_pages=pages, demo_warc_files=1))
    (file,) = source.listing("demo-1")
    content = files.read(source.fetch("demo-1", file, "memory://bench").path)
    return b"".join(content[record.offset : record.offset + record.length] for record in good_records(content))


def good_records(warc: bytes) -> Iterator[Record]:
    return (record for record in read_records(io.BytesIO(warc)) if isinstance(record, Record))


def extraction(html: Sequence[bytes]) -> dict[str, Callable[[], object]]:
    engines = {f"l3 {metadata.version('l3-platform')}": Extract()}
    for peer in ("trafilatura", "resiliparse"):
        try:
            engines[f"{peer} {metadata.version(peer)}"] = Extract(engine=peer)
        except metadata.PackageNotFoundError:
            print(f"{peer} is not installed: pip install 'l3-platform[bench]'")
    return {
        name: (lambda settings=settings: [extract(page, settings=settings) for page in html]) for name, settings in engines.items()
    }


def reading(warc: bytes) -> dict[str, Callable[[], object]]:
    ways: dict[str, Callable[[], object]] = {f"l3 {metadata.version('l3-platform')}": lambda: list(read_records(io.BytesIO(warc)))}
    try:
        from warcio.archiveiterator import ArchiveIterator

        ways[f"warcio {metadata.version('warcio')}"] = lambda: [
            record.content_stream().read() for record in ArchiveIterator(io.BytesIO(warc))
        ]
    except ImportError:
        print("warcio is not installed: pip install 'l3-platform[bench]'")
    return ways


def show(title: str, unit: str, amount: float, ways: dict[str, Callable[[], object]]) -> None:
    """Rates of the fastest of ROUNDS, taken in turn, and how many times the peer's ours is."""
    seconds = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    rates = {name: amount / min(times) for name, times in seconds.items()}
    ours = next(iter(rates.values()))
    table = Table("who", unit, "l3 is so many times as fast", title=title)
    for name, rate in rates.items():
        table.add_row(name, f"{rate:,.1f}", f"{ours / rate:.2f}")
    Console().print(table)


if __name__ == "__main__":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    main()
