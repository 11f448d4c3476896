"""WARC 1.1 files as a crawler writes them (ISO 28500:2017): warcinfo, then request and response of each page.

A gzip member a record. Deterministic: members carry no time, record ids are hashes. `FAULTS` damages a response on purpose.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import uuid
import zlib
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import urlsplit

from l3_platform.crawl.demo.page import Page

FAULTS = ("cut_short", "wrong_length", "bad_gzip", "cut_member", "short_body", "wrong_digest")
_STATUS = {200: "OK", 301: "Moved Permanently", 302: "Found", 404: "Not Found", 410: "Gone", 500: "Internal Server Error"}
_LEVEL = 6
_CHUNK = 3_000  # bytes of a chunk in chunked transfer


def warc_file(name: str, snapshot: str, pages: Sequence[tuple[Page, datetime]]) -> tuple[bytes, list[int]]:
    """The bytes of a file and the offset of each page's response record, in order."""
    start = pages[0][1] if pages else datetime.min
    out = bytearray(_member(_warcinfo(name, snapshot, start)))
    offsets = []
    for page, time in pages:
        out += _member(_request(page, time))
        offsets.append(len(out))
        out += response(page, time)
    return bytes(out), offsets


def response(page: Page, time: datetime) -> bytes:
    """The compressed response record of a page, damaged as `page.fault` says."""
    body = _travelled(page)
    digest = _digest(body)
    if page.fault == "wrong_digest":
        body = body.replace(b"e", b"a", 40)
    head = _http_head(page, time, len(body))
    block = head + (body[: 2 * len(body) // 3] if page.fault == "short_body" else body)
    declared = len(block)
    if page.fault == "cut_short":
        block = block[: 2 * len(block) // 3]
    elif page.fault == "wrong_length":
        declared = 2 * len(block) // 3
    fields = {"WARC-IP-Address": _address(page.url), "Content-Type": "application/http; msgtype=response"}
    if page.fault != "short_body":  # its digest would prove the body whole
        fields["WARC-Payload-Digest"] = digest
    member = _member(_record("response", page.url, time, fields, block, declared))
    if page.fault == "cut_member":
        return member[: 2 * len(member) // 3]
    if page.fault == "bad_gzip":
        middle = len(member) // 2
        return member[:middle] + bytes(byte ^ 0xA5 for byte in member[middle : middle + 64]) + member[middle + 64 :]
    return member


def _travelled(page: Page) -> bytes:
    """The body as the server sent it."""
    if page.encoding == "gzip":
        return gzip.compress(page.body, _LEVEL, mtime=0)
    if page.encoding == "chunked":
        chunks = [page.body[at : at + _CHUNK] for at in range(0, len(page.body), _CHUNK)]
        return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])
    return page.body


def _http_head(page: Page, time: datetime, length: int) -> bytes:
    lines = [
        f"HTTP/1.1 {page.status} {_STATUS[page.status]}",
        f"Date: {time:%a, %d %b %Y %H:%M:%S} GMT",
        "Server: nginx/1.24.0",
        f"Content-Type: {page.content_type}",
        *(f"{name}: {value}" for name, value in page.headers),
        "Cache-Control: max-age=600",
        "Set-Cookie: session=demo; Path=/; HttpOnly",
    ]
    if page.encoding == "gzip":
        lines.append("Content-Encoding: gzip")
    lines.append("Transfer-Encoding: chunked" if page.encoding == "chunked" else f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _request(page: Page, time: datetime) -> bytes:
    parts = urlsplit(page.url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    block = (
        f"GET {target} HTTP/1.1\r\nUser-Agent: l3-demo-crawler/1.0\r\nAccept: text/html,*/*;q=0.8\r\n"
        f"Accept-Encoding: gzip\r\nHost: {parts.netloc}\r\nConnection: Keep-Alive\r\n\r\n"
    ).encode()
    return _record("request", page.url, time, {"Content-Type": "application/http; msgtype=request"}, block, len(block))


def _warcinfo(name: str, snapshot: str, time: datetime) -> bytes:
    block = (
        "software: l3-demo-crawler/1.0\r\nformat: WARC File Format 1.1\r\n"
        "conformsTo: https://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/\r\n"
        f"isPartOf: {snapshot}\r\ndescription: a small web made of installed documentation, with planted cases\r\n"
    ).encode()
    fields = {"WARC-Filename": name, "Content-Type": "application/warc-fields"}
    return _record("warcinfo", "", time, fields, block, len(block))


def _record(kind: str, url: str, time: datetime, fields: dict[str, str], block: bytes, declared: int) -> bytes:
    identity = uuid.UUID(bytes=hashlib.md5(f"{kind} {url} {time.isoformat()}".encode(), usedforsecurity=False).digest(), version=4)
    lines = ["WARC/1.1", f"WARC-Type: {kind}", f"WARC-Date: {time:%Y-%m-%dT%H:%M:%SZ}", f"WARC-Record-ID: <urn:uuid:{identity}>"]
    if url:
        lines.append(f"WARC-Target-URI: {url}")
    lines += [f"{name}: {value}" for name, value in fields.items()]
    lines.append(f"Content-Length: {declared}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + block + b"\r\n\r\n"


def _member(record: bytes) -> bytes:
    """A gzip member with time 0 and an unknown system, so that the bytes do not depend on either."""
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    data = packer.compress(record) + packer.flush()
    trailer = zlib.crc32(record).to_bytes(4, "little") + len(record).to_bytes(4, "little")
    return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" + data + trailer


def _digest(data: bytes) -> str:
    return "sha1:" + base64.b32encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()


def _address(url: str) -> str:
    """An address from the range for documentation (RFC 5737), the same for a host."""
    return f"203.0.113.{1 + zlib.crc32(urlsplit(url).netloc.encode()) % 254}"
