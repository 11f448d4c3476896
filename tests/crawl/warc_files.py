"""Builds WARC and ARC files for tests, whole and broken."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io

from l3_platform.crawl.record import Broken, Record
from l3_platform.crawl.warc import read_records


def http(body: bytes, *fields: str, status: str = "200 OK", length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Content-Type: text/html; charset=utf-8", *fields]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def warc(block: bytes, *fields: str, url: str = "http://a.example/", declared: int | None = None, kind="response") -> bytes:
    """One WARC record; `declared` is a false Content-Length."""
    lines = [
        "WARC/1.1",
        f"WARC-Type: {kind}",
        f"WARC-Target-URI: {url}",
        "WARC-Date: 2024-05-06T07:08:09Z",
        f"Content-Type: application/http; msgtype={kind}",
        *fields,
        f"Content-Length: {len(block) if declared is None else declared}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + block + b"\r\n\r\n"


def page(number: int, size: int = 3000) -> bytes:
    """A response of about `size` bytes that does not compress to nothing."""
    text = b"".join(hashlib.sha1(f"{number} {at}".encode()).hexdigest().encode() + b"\n" for at in range(size // 41))
    body = b"<html>" + text + b"</html>"
    return warc(http(body, length=len(body)), f"WARC-Payload-Digest: {sha1(body)}", url=f"http://a.example/{number}")


def sha1(body: bytes) -> str:
    return "sha1:" + base64.b32encode(hashlib.sha1(body).digest()).decode()


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def read(data: bytes, **options: int) -> list[Record | Broken]:
    return list(read_records(io.BytesIO(data), name="test.warc", **options))


def one(data: bytes, **options: int) -> Record | Broken:
    (only,) = read(data, **options)
    return only


def numbers(found: list[Record | Broken]) -> list[int]:
    """The numbers of the pages that were read whole."""
    return [int(item.url.rsplit("/", 1)[1]) for item in found if isinstance(item, Record)]


def faults(found: list[Record | Broken]) -> list[Broken]:
    return [item for item in found if isinstance(item, Broken)]


def uncovered(data: bytes, found: list[Record | Broken]) -> bytes:
    """The bytes of a file that no record and no fault covers."""
    covered = bytearray(len(data))
    for item in found:
        covered[item.offset : item.offset + item.length] = b"\1" * len(covered[item.offset : item.offset + item.length])
    return bytes(byte for byte, seen in zip(data, covered, strict=True) if not seen)
