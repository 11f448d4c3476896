"""Files over HTTP, whole or not at all: resumed with Range, tried again with back-off, checked, then renamed."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import re
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from l3_platform.crawl.sources import CrawlError, Fetched, WarcFile, sha256_and_size
from l3_platform.store import files as storage

TIMEOUT = 60.0  # seconds without a byte
LONGEST_WAIT = 60.0  # seconds between two attempts
_MD5_ETAG = re.compile(r'"([0-9a-f]{32})"')
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


@dataclass(frozen=True, slots=True)
class Remote:
    """What a server says of a file before it is read; `version` changes with its content where the server tells."""

    bytes: int | None
    version: str


def into_folder(file: WarcFile, folder: str, *, retries: int) -> Fetched:
    """Bring a file into a folder on any storage, under its name. A file already there is taken as it is."""
    place = storage.join(folder, file.name)
    fs, path = storage.filesystem(place)
    if storage.is_local(place):
        download(file.location, Path(path), retries=retries)
    elif not fs.exists(path):
        with tempfile.TemporaryDirectory() as scratch:
            downloaded = Path(scratch) / "file"
            download(file.location, downloaded, retries=retries)
            fs.put_file(str(downloaded), path)
    with fs.open(path, "rb") as stream:
        sha256, size = sha256_and_size(stream.read)
    return Fetched(file.name, place, size, sha256)


def download(url: str, target: Path, *, retries: int) -> None:
    """Write `url` to `target`, going on from `target`.part where an earlier attempt left one.

    `retries` counts attempts in a row that brought the file no further. Raises CrawlError.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    furthest, failures = _size(part), 0
    while True:
        try:
            _check(part, *_append(url, part))
            break
        except _Again as again:
            failures = 1 if _size(part) > furthest else failures + 1
            furthest = max(furthest, _size(part))
            _give_up_or_wait(url, again, failures, retries)
    os.replace(part, target)
    _validator_file(part).unlink(missing_ok=True)


def get(url: str, *, retries: int) -> bytes:
    """A small file's bytes. Raises CrawlError."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "file"
        download(url, target, retries=retries)
        return target.read_bytes()


def describe(url: str, *, retries: int) -> Remote:
    """Size and version by a HEAD request. Raises CrawlError."""
    failures = 0
    while True:
        try:
            with _open(url, {}, method="HEAD") as response:
                version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
                return Remote(_length(response.headers), version)
        except _Again as again:
            failures += 1
            _give_up_or_wait(url, again, failures, retries)


class _Again(Exception):
    """An attempt failed in a way that another may not; `after` is how long the server asks to wait, seconds."""

    def __init__(self, why: str, after: float = 0.0) -> None:
        super().__init__(why)
        self.after = after


def _give_up_or_wait(url: str, again: _Again, failures: int, retries: int) -> None:
    if failures > retries:
        raise CrawlError(
            f"{url}: gave up after {failures} attempts ({again}); what was read is kept, so run it again when the "
            "server is back, or raise crawl.retries"
        ) from None
    time.sleep(min(again.after or 2.0 ** (failures - 1), LONGEST_WAIT))


def _append(url: str, part: Path) -> tuple[Message, bool]:
    """Read the rest of a file, or all where the server has another version: its headers, and if it came in one go."""
    have, headers = _size(part), {}
    validator = _validator_file(part)
    if have and validator.exists():
        headers = {"Range": f"bytes={have}-", "If-Range": validator.read_text()}
    with _open(url, headers) as response:
        resumed = response.status == 206
        found = _RANGE.match(response.headers.get("Content-Range", "")) if resumed else None
        if resumed and (found is None or int(found[1]) != have):
            part.unlink()
            raise _Again(f"asked for the bytes from {have:,} on, got {response.headers.get('Content-Range')}")
        total = int(found[2]) if found else _length(response.headers)
        etag = response.headers.get("ETag", "")
        validator.write_text(etag if etag.startswith('"') else response.headers.get("Last-Modified", ""))
        if not validator.read_text():
            validator.unlink()
        with open(part, "ab" if resumed else "wb") as out:
            for chunk in _chunks(response):
                out.write(chunk)
    if total is not None and _size(part) != total:
        raise _Again(f"the connection closed after {_size(part):,} of {total:,} bytes")
    return response.headers, not resumed


def _open(url: str, headers: dict[str, str], method: str = "GET") -> Any:
    sent = {"User-Agent": "l3-platform", "Accept-Encoding": "identity", "x-amz-checksum-mode": "ENABLED"} | headers
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=sent, method=method), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (408, 416, 429) or error.code >= 500:
            after = error.headers.get("Retry-After", "")
            raise _Again(f"HTTP {error.code} {error.reason}", float(after) if after.isdecimal() else 0.0) from None
        raise CrawlError(f"{url}: HTTP {error.code} {error.reason}; check crawl.base_url, the id or the path") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Again(str(getattr(error, "reason", "") or error or type(error).__name__)) from None


def _chunks(response: Any) -> Iterator[bytes]:
    try:
        while chunk := response.read(1 << 20):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _Again(f"the connection broke: {error or type(error).__name__}") from None


def _check(part: Path, headers: Message, in_one_go: bool) -> None:
    """Compare with the digest that the server declares of the whole file, where it declares one."""
    declared = dict(_declared_digests(headers, in_one_go))
    for algorithm, digest in declared.items():
        with open(part, "rb") as stream:
            actual = hashlib.file_digest(stream, algorithm).digest()
        if actual != digest:
            part.unlink()
            raise _Again(f"the {algorithm} of the file is {actual.hex()}, the server says {digest.hex()}")


def _declared_digests(headers: Message, in_one_go: bool) -> Iterator[tuple[str, bytes]]:
    # Only object stores promise that an ETag of 32 hex digits is an MD5, and not for encrypted objects.
    of_s3 = any(name.lower().startswith("x-amz-") for name in headers) or "AmazonS3" in headers.get("Server", "")
    md5 = _MD5_ETAG.fullmatch(headers.get("ETag", ""))
    if md5 and of_s3 and not headers.get("x-amz-server-side-encryption", "").startswith("aws:kms"):
        yield "md5", bytes.fromhex(md5[1])
    for algorithm in ("sha256", "sha1"):
        value = headers.get(f"x-amz-checksum-{algorithm}", "")
        # With `-N` it is a digest of the digests of N parts.
        if value and "-" not in value and in_one_go:
            yield algorithm, base64.b64decode(value)


def _length(headers: Message) -> int | None:
    value = headers.get("Content-Length", "")
    return int(value) if value.isdecimal() else None


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _validator_file(part: Path) -> Path:
    """Beside a part: the ETag or date of the version that it is of."""
    return part.with_name(part.name + ".of")
