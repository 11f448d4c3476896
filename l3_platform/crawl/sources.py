"""What a source of raw pages is: snapshots, each a list of WARC files that can be fetched and opened."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from l3_platform import settings


class CrawlError(RuntimeError):
    """A crawl that cannot be listed or fetched; the message names the place and the next step."""


@dataclass(frozen=True, slots=True)
class WarcFile:
    """One file of a snapshot. `name` is unique within it and free of machine paths; `bytes` is None where unknown."""

    name: str
    location: str
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that readers can open: `path` is an fsspec URL or local path, `sha256` hex of the bytes there."""

    name: str
    path: str
    bytes: int
    sha256: str


class Source(Protocol):
    """Snapshots of the web. Implementations: `files`, `common_crawl`, `demo`; all raise CrawlError."""

    def snapshots(self) -> list[str]:
        """Partition names, oldest first."""
        ...

    def listing(self, snapshot: str) -> list[WarcFile]:
        """What the snapshot consists of, sorted by name; cheap, never empty, the same on every machine."""
        ...

    def fetch(self, snapshot: str, file: WarcFile, folder: str) -> Fetched:
        """Make `file` readable, downloading into `folder` (local path or fsspec URL) where it must be. Idempotent."""
        ...

    def identity(self, snapshot: str) -> str:
        """A hash that changes when the snapshot's content does; part of the fingerprint of `raw_crawl`."""
        ...


def from_settings(crawl: settings.Crawl) -> Source:
    """The source that `crawl.source` names."""
    if crawl.source == "files":
        from l3_platform.crawl.files import Files

        return Files(crawl)
    if crawl.source == "common_crawl":
        from l3_platform.crawl.common_crawl import CommonCrawl

        return CommonCrawl(crawl)
    from l3_platform.crawl.demo.source import DemoSource

    return DemoSource(crawl)


def check_snapshot(source: Source, snapshot: str) -> None:
    """Raises CrawlError for a snapshot that the source does not have."""
    known = source.snapshots()
    if snapshot not in known:
        raise CrawlError(f"snapshot {snapshot!r} is not in this crawl; it has {', '.join(known)}")


def sha256_and_size(read: Callable[[int], bytes]) -> tuple[str, int]:
    """Hex SHA-256 and size in bytes of what `read` returns until it is exhausted."""
    digest, size = hashlib.sha256(), 0
    while chunk := read(1 << 20):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size
