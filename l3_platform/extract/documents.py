"""WARC file to `documents`: one row a page, and an account of every record that is none."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

import fsspec
import pyarrow as pa
import xxhash

from l3_platform.crawl.record import Broken, Record
from l3_platform.crawl.warc import read_records
from l3_platform.engine import QUARANTINE_SCHEMA, Counts, Output
from l3_platform.extract.charset import Undecodable, decode
from l3_platform.extract.page import ExtractError, Page, extract
from l3_platform.settings import Extract

DOCUMENTS = pa.schema(
    [
        ("doc_id", pa.uuid()),  # xxh3-128 of URL, fetch time and payload
        ("snapshot", pa.string()),
        ("source", pa.string()),
        ("url", pa.string()),
        ("domain", pa.string()),  # host, lower case, without `www.`
        ("fetch_time", pa.timestamp("us", "UTC")),
        ("warc_file", pa.string()),
        ("warc_offset", pa.int64()),  # of the record's first byte in the compressed file
        ("warc_length", pa.int64()),  # compressed bytes in the file
        ("charset", pa.string()),
        ("title", pa.string()),
        ("text", pa.string()),
        ("formulas", pa.int32()),
        ("code_blocks", pa.int32()),
        ("html_bytes", pa.int64()),
    ]
)

_PAGES = frozenset({"response", "arc"})
_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def documents_from_warc(path: str, *, file: str, snapshot: str, source: str, settings: Extract) -> Output:
    """Documents of one WARC or ARC file. `path` is an fsspec URL, `file` the name under which rows cite it.

    A record is kept; dropped as `not_response`, `redirect`, `status_<code>`, `not_html`, `too_large` or `empty_text`; or failed and
    in quarantine: what the reader could not read, `digest_mismatch`, `undecodable`, `too_deep`, `too_slow`, `extractor_error`.
    """
    rows: list[dict[str, Any]] = []
    broken: list[dict[str, Any]] = []
    dropped: Counter[str] = Counter()
    seen = 0
    with fsspec.open(path, "rb") as stream:
        for record in read_records(cast("BinaryIO", stream), name=file):
            seen += 1
            try:
                row = _row(record, settings)
            except _Dropped as drop:
                dropped[drop.reason] += 1
            except _Failed as failure:
                broken.append({"snapshot": snapshot, "file": file, **failure.row})
            else:
                rows.append(row | {"snapshot": snapshot, "source": source, "warc_file": file})
    counts = Counts(records_in=seen, kept=len(rows), dropped=dict(sorted(dropped.items())), failed=len(broken))
    return Output(_table(rows), counts, pa.Table.from_pylist(broken, schema=QUARANTINE_SCHEMA))


class _Dropped(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Failed(Exception):
    def __init__(self, record: Record | Broken, reason: str, detail: str, bytes_lost: int) -> None:
        super().__init__(detail)
        self.row = {
            "offset": record.offset, "url": record.url or "", "reason": reason, "detail": detail, "bytes_lost": bytes_lost,
        }  # fmt: skip


def _row(record: Record | Broken, settings: Extract) -> dict[str, Any]:
    """Columns of the document in a record. Raises _Dropped or _Failed."""
    if isinstance(record, Broken):
        raise _Failed(record, record.reason, record.detail, record.bytes_lost)
    if record.record_type not in _PAGES:
        raise _Dropped("not_response")
    if record.digest_ok is False:
        raise _Failed(
            record, "digest_mismatch", "the payload does not have the digest that its header declares", len(record.payload)
        )
    status = record.http_status
    if status != 200:
        raise _Dropped("redirect" if status is not None and 300 <= status < 400 else f"status_{status or 'none'}")
    content_type = _header(record.http_headers, "content-type")
    media = _media_type(content_type, record.payload)
    if media not in _HTML_TYPES and media != "text/plain":
        raise _Dropped("not_html")
    if len(record.payload) > settings.max_html_bytes:
        raise _Dropped("too_large")
    page = _page(record, content_type, media, settings)
    if len(page.text) < settings.min_text_chars:
        raise _Dropped("empty_text")
    time = _fetch_time(record.date)
    url = record.url or ""
    return {
        "doc_id": _doc_id(url, time, record.payload),
        "url": url,
        "domain": _host(url),
        "fetch_time": time,
        "warc_offset": record.offset,
        "warc_length": record.length,
        "charset": page.charset,
        "title": page.title,
        "text": page.text,
        "formulas": len(page.formulas),
        "code_blocks": len(page.code_blocks),
        "html_bytes": len(record.payload),
    }


def _page(record: Record, content_type: str, media: str, settings: Extract) -> Page:
    try:
        if media == "text/plain":
            return _plain(record.payload, content_type)
        return extract(record.payload, record.url or "", content_type, settings)
    except ExtractError as error:
        raise _Failed(record, error.reason, str(error), len(record.payload)) from error
    except Undecodable as error:
        raise _Failed(record, "undecodable", str(error), len(record.payload)) from error
    except ImportError:
        raise  # a missing engine is the user's to install, not the page's fault
    except Exception as error:
        # One page must never cost a shard: what no rule foresaw is quarantined by name, to be read and fixed.
        raise _Failed(record, "extractor_error", f"{type(error).__name__}: {error}", len(record.payload)) from error


def _plain(payload: bytes, content_type: str) -> Page:
    """A text/plain page: no markup, no boilerplate; its own line breaks."""
    text, charset = decode(payload, content_type)
    lines = "\n".join(line.rstrip() for line in text.replace("\0", "").splitlines())
    return Page("", re.sub(r"\n{3,}", "\n\n", lines).strip("\n"), (), (), charset)


def _media_type(content_type: str, payload: bytes) -> str:
    """The declared type without parameters; where none is declared, HTML if the payload starts like it."""
    media = content_type.partition(";")[0].strip().lower()
    if media:
        return media
    head = payload[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return "text/html" if head.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<?xml", b"<!--")) else ""


def _header(headers: Mapping[str, str], name: str) -> str:
    return next((value for key, value in headers.items() if key.lower() == name), "")


def _host(url: str) -> str:
    """Host of a URL, lower case, without port and `www.`; empty where there is none."""
    try:
        host = urlsplit(url.strip("<> ")).hostname or ""
    except ValueError:
        return ""
    return host.removeprefix("www.").rstrip(".")


def _fetch_time(date: dt.datetime | None) -> dt.datetime:
    """UTC; 1970 where the record gives no date that can be read."""
    if date is None:
        return _EPOCH
    return date.replace(tzinfo=dt.UTC) if date.tzinfo is None else date.astimezone(dt.UTC)


def _doc_id(url: str, time: dt.datetime, payload: bytes) -> bytes:
    digest = xxhash.xxh3_128()
    for part in (url.encode("utf-8", "replace"), b"\0", time.isoformat().encode(), b"\0", payload):
        digest.update(part)
    return digest.digest()


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    columns: list[pa.Array] = []
    for field in DOCUMENTS:
        values = [row[field.name] for row in rows]
        if field.name == "doc_id":
            columns.append(pa.ExtensionArray.from_storage(pa.uuid(), pa.array(values, pa.binary(16))))
        else:
            columns.append(pa.array(values, field.type))
    return pa.Table.from_arrays(columns, schema=DOCUMENTS)
