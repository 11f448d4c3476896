"""The `demo` crawl source: two snapshots of a small web, made on this machine without a network."""

from __future__ import annotations

import hashlib
import json
import platform
from functools import lru_cache

import pyarrow as pa

from l3_platform.crawl.demo.builder import SNAPSHOTS
from l3_platform.crawl.demo.harvest import provenance
from l3_platform.crawl.demo.web import Snapshot, build, file_names
from l3_platform.crawl.sources import CrawlError, Fetched, WarcFile
from l3_platform.settings import Crawl
from l3_platform.store import files

VERSION = "2"  # of the generator: change it when the same environment gives other bytes


class DemoSource:
    """Implements `l3_platform.crawl.sources.Source`. The first fetch builds both snapshots, others in the process reuse them."""

    def __init__(self, crawl: Crawl) -> None:
        self._key = (crawl.demo_pages, crawl.demo_warc_files, crawl.demo_seed)

    def snapshots(self) -> list[str]:
        return list(SNAPSHOTS)

    def listing(self, snapshot: str) -> list[WarcFile]:
        self._check(snapshot)
        return [WarcFile(name, f"demo://{snapshot}/{name}") for name in file_names(snapshot, self._key[1])]

    def identity(self, snapshot: str) -> str:
        """Hash of the settings, the generator, and the names and versions of the distributions that the text comes from."""
        self._check(snapshot)
        parts = [VERSION, snapshot, *map(str, self._key), platform.python_version(), *provenance()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def fetch(self, snapshot: str, file: WarcFile, folder: str) -> Fetched:
        """Writes a WARC file into `folder`, whole or not at all."""
        contents = self._snapshot(snapshot).files
        if file.name not in contents:
            raise CrawlError(f"{snapshot} has no file {file.name!r}; it has {', '.join(contents)}")
        data = contents[file.name]
        path = files.join(folder, file.name)
        files.write(path, data)
        return Fetched(file.name, path, len(data), hashlib.sha256(data).hexdigest())

    def ledger(self, snapshot: str) -> pa.Table:
        """What was planted in a snapshot; schema `l3_platform.crawl.demo.page.LEDGER`."""
        return self._snapshot(snapshot).ledger

    def _snapshot(self, snapshot: str) -> Snapshot:
        self._check(snapshot)
        return _built(*self._key)[snapshot]

    def _check(self, snapshot: str) -> None:
        if snapshot not in SNAPSHOTS:
            raise CrawlError(f"snapshot {snapshot!r} is not in the demo crawl; it has {', '.join(SNAPSHOTS)}")


@lru_cache(maxsize=1)
def _built(pages: int, warc_files: int, seed: int) -> dict[str, Snapshot]:
    return build(pages, warc_files, seed)
