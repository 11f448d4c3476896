"""The `common_crawl` source: the first WARC files of public snapshots, over HTTP."""

from __future__ import annotations

import gzip
import hashlib
import json
import posixpath

from l3_platform import settings
from l3_platform.crawl import download
from l3_platform.crawl.sources import CrawlError, Fetched, WarcFile, check_snapshot


class CommonCrawl:
    """`crawl.warc_files` files of each of `crawl.snapshots`, as `{base_url}/crawl-data/{id}/warc.paths.gz` lists them.

    Snapshots are immutable once published, so their lists identify them.
    """

    def __init__(self, crawl: settings.Crawl) -> None:
        if not crawl.snapshots:
            raise CrawlError("crawl.source is `common_crawl` and crawl.snapshots is empty: name ids such as CC-MAIN-2024-10")
        self.crawl = crawl
        self.base_url = crawl.base_url.rstrip("/")
        self._paths: dict[str, list[str]] = {}

    def snapshots(self) -> list[str]:
        # An id holds its year and week, so that order is age.
        return sorted(set(self.crawl.snapshots))

    def listing(self, snapshot: str) -> list[WarcFile]:
        files = [WarcFile(posixpath.basename(path), f"{self.base_url}/{path}") for path in self._chosen(snapshot)]
        return sorted(files, key=lambda file: file.name)

    def fetch(self, snapshot: str, file: WarcFile, folder: str) -> Fetched:
        check_snapshot(self, snapshot)
        return download.into_folder(file, folder, retries=self.crawl.retries)

    def identity(self, snapshot: str) -> str:
        described = json.dumps([snapshot, self._chosen(snapshot)])
        return hashlib.sha256(described.encode()).hexdigest()

    def _chosen(self, snapshot: str) -> list[str]:
        check_snapshot(self, snapshot)
        if snapshot not in self._paths:
            url = f"{self.base_url}/crawl-data/{snapshot}/warc.paths.gz"
            try:
                listed = gzip.decompress(download.get(url, retries=self.crawl.retries)).decode().split()
            except (EOFError, OSError, UnicodeDecodeError) as error:
                raise CrawlError(f"{url} is no gzip list of paths: {error}; check crawl.base_url") from None
            if not listed:
                raise CrawlError(f"{url} lists no WARC file; check the snapshot id")
            self._paths[snapshot] = listed[: self.crawl.warc_files]
        return self._paths[snapshot]
