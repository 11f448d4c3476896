"""The `files` source: WARC and ARC files that already lie somewhere, as one snapshot."""

from __future__ import annotations

import collections
import hashlib
import json
import posixpath
import re
from datetime import datetime
from functools import cached_property
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from l3_platform import settings
from l3_platform.crawl import download
from l3_platform.crawl.sources import CrawlError, Fetched, WarcFile, check_snapshot, sha256_and_size
from l3_platform.store import files as storage

_WARC_NAME = re.compile(r"\.w?arc(\.(gz|lz4|zst|zstd))?$", re.IGNORECASE)
_GLOB = re.compile(r"[*?\[]")


class Files:
    """`crawl.paths`: files, folders and globs on any fsspec storage, and http(s) URLs, as snapshot `crawl.snapshot`."""

    def __init__(self, crawl: settings.Crawl) -> None:
        self.crawl = crawl

    def snapshots(self) -> list[str]:
        return [self.crawl.snapshot]

    def listing(self, snapshot: str) -> list[WarcFile]:
        check_snapshot(self, snapshot)
        return [file for file, _ in self._found]

    def fetch(self, snapshot: str, file: WarcFile, folder: str) -> Fetched:
        check_snapshot(self, snapshot)
        if _is_http(file.location):
            return download.into_folder(file, folder, retries=self.crawl.retries)
        try:
            with fsspec.open(file.location, "rb") as stream:
                sha256, size = sha256_and_size(stream.read)  # type: ignore[union-attr]
        except FileNotFoundError:
            raise CrawlError(f"{file.location}: the file was listed and is gone; bring it back or list again") from None
        return Fetched(file.name, file.location, size, sha256)

    def identity(self, snapshot: str) -> str:
        check_snapshot(self, snapshot)
        described = json.dumps([[file.name, file.bytes, version] for file, version in self._found])
        return hashlib.sha256(described.encode()).hexdigest()

    @cached_property
    def _found(self) -> list[tuple[WarcFile, str]]:
        """Files with what tells their versions apart, sorted by name. Raises CrawlError where there is none."""
        if not self.crawl.paths:
            raise CrawlError("crawl.source is `files` and crawl.paths is empty: name WARC files, folders or globs there")
        found: dict[str, tuple[int | None, str]] = {}
        for pattern in self.crawl.paths:
            found.update(_http_file(pattern, self.crawl.retries) if _is_http(pattern) else _stored_files(pattern))
        names = _short_names(list(found))
        files = [(WarcFile(names[place], place, size), version) for place, (size, version) in found.items()]
        return sorted(files, key=lambda item: item[0].name)


def _is_http(location: str) -> bool:
    return location.startswith(("http://", "https://"))


def _http_file(url: str, retries: int) -> dict[str, tuple[int | None, str]]:
    remote = download.describe(url, retries=retries)
    return {url: (remote.bytes, remote.version)}


def _stored_files(pattern: str) -> dict[str, tuple[int | None, str]]:
    fs, path = storage.filesystem(pattern)
    several = bool(_GLOB.search(path)) and not fs.exists(path)
    if several:
        matches = fs.glob(path, detail=True)
    elif fs.isdir(path):
        several, matches = True, fs.find(path, detail=True)
    else:
        matches = {path: fs.info(path)} if fs.exists(path) else {}
    matches = {place: info for place, info in matches.items() if info["type"] == "file"}
    if not matches:
        raise CrawlError(f"crawl.paths: nothing matches {pattern!r}; check the path, or quote the glob for the shell")
    chosen = {place: info for place, info in matches.items() if not several or _WARC_NAME.search(place)}
    if not chosen:
        raise CrawlError(
            f"crawl.paths: none of the {len(matches):,} files of {pattern!r} is named like a WARC or ARC file "
            "(.warc, .arc, then .gz, .lz4 or .zst); name such files one by one"
        )
    local = isinstance(fs, LocalFileSystem)
    return {place if local else fs.unstrip_protocol(place): (info["size"], _version(info)) for place, info in chosen.items()}


def _version(info: dict[str, Any]) -> str:
    """What changes with a file's content, as far as its storage tells without reading it."""
    for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "updated", "created"):
        value = info.get(key)
        if value is not None:
            return value.isoformat() if isinstance(value, datetime) else str(value)
    return ""


def _short_names(locations: list[str]) -> dict[str, str]:
    """File names, with as many parent folders as it takes to tell them apart."""
    parts = {place: place.split("?")[0].replace("\\", "/").strip("/").split("/") for place in locations}
    depth, names = 1, {place: split[-1] for place, split in parts.items()}
    while clashes := {name for name, count in collections.Counter(names.values()).items() if count > 1}:
        depth += 1
        for place, split in parts.items():
            if names[place] in clashes:
                names[place] = posixpath.join(*split[-depth:])
        if depth > max(len(split) for split in parts.values()):
            raise CrawlError(f"crawl.paths: {sorted(clashes)[0]!r} is listed at URLs that differ only in their query")
    return names
