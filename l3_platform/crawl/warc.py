"""Reads WARC 0.17 to 1.1 and ARC 1 files: every byte is part of a record, of a reported fault, or padding.

The usual readers accept records that are shorter than they declare. This one compares every length, gzip checksum
and digest (ISO 28500:2017; https://archive.org/web/researcher/ArcFileFormat.php), and loses only what is broken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import BinaryIO, NamedTuple

from l3_platform.crawl.digests import digest_ok
from l3_platform.crawl.http_message import Message, Unreadable, parse_headers, parse_message, split_message
from l3_platform.crawl.members import Damage, Piece, pieces
from l3_platform.crawl.record import WARC_LINE, Broken, Record, blank_line, opens_record
from l3_platform.crawl.window import Window

MAX_RECORD_BYTES = 64 << 20  # larger records are reported as `too_large` and passed over
MAX_HEADER_BYTES = 1 << 17

_NEWLINES = re.compile(rb"[\r\n]{0,60}")
_WARC_RECORD = re.compile(WARC_LINE)


def read_records(stream: BinaryIO, *, name: str = "", max_record_bytes: int = MAX_RECORD_BYTES) -> Iterator[Record | Broken]:
    """The records of a file in order, in bounded memory: plain, gzip, LZ4 or Zstandard, told by magic bytes.

    `stream` need not be seekable. `name` only labels what is yielded. Nothing in the data raises; storage errors do.
    """
    window = Window(*pieces(stream, max_record_bytes))
    while here := window.next_record():
        if isinstance(here, Damage):
            lost = here.end - here.offset
            yield Broken(here.offset, lost, here.reason, here.detail, bytes_lost=lost, file=name)
        elif isinstance(here, Piece):
            record = _lone_record(here, name, max_record_bytes)
            if record:
                yield record
            else:
                window.take_in(here)
        else:
            try:
                head = _read_head(window)
                yield _read_record(window, head, name, max_record_bytes)
            except _Fault as fault:
                yield _pass_over(window, fault, name)


class _Head(NamedTuple):
    """What a record says about itself; `end` is where its block begins in the window."""

    end: int
    record_type: str
    url: str
    date: datetime | None
    declared: int  # bytes of the block
    headers: dict[str, str]
    arc: bool


class _Fault(Exception):
    """The current record cannot be taken as it is; where the next one begins must be searched."""

    def __init__(self, reason: str, detail: str, head: _Head | None = None) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.head = reason, detail, head


def _lone_record(member: Piece, name: str, max_record_bytes: int) -> Record | Broken | None:
    """The record that a member consists of to its last byte, as nearly all do; None where anything is unusual.

    Reading it through the window gives the same, in twice the time.
    """
    data = member.data
    line = _WARC_RECORD.match(data) if data.endswith(b"\r\n\r\n") else None
    blank = blank_line(data, line.end() - 1, MAX_HEADER_BYTES) if line else None
    if line is None or blank is None or member.opens is None:
        return None
    try:
        head = _warc_head(data[line.end() : blank[0]], blank[1])
    except _Fault:
        return None
    if head.declared > max_record_bytes or head.end + head.declared + 4 != len(data):
        return None
    block = data[head.end : -4]
    return _record(head, block, _content(head, block, max_record_bytes), member.opens, member.raw_end - member.opens, name)


def _read_head(window: Window) -> _Head:
    size = 2048
    while True:
        reached = window.reach(size)
        if not opens_record(window.buffer):
            raise _Fault("bad_header", f"no WARC or ARC record begins with {bytes(window.buffer[:40])!r}")
        warc = _WARC_RECORD.match(window.buffer)
        if warc is None:
            return _arc_head(window)
        blank = blank_line(window.buffer, warc.end() - 1, reached)
        if blank:
            return _warc_head(bytes(window.buffer[warc.end() : blank[0]]), blank[1])
        if reached < size:
            raise _Fault("truncated", f"the record's header ends after {reached:,} bytes without a blank line")
        if size >= MAX_HEADER_BYTES:
            raise _Fault("bad_header", f"no blank line in the first {size:,} bytes")
        size *= 4


def _warc_head(lines: bytes, end: int) -> _Head:
    headers = parse_headers(lines)
    record_type = headers.get("warc-type", "").lower()
    url = headers.get("warc-target-uri", "").removeprefix("<").removesuffix(">")
    length = headers.get("content-length", "")
    usable = length.isascii() and length.isdecimal() and len(length) < 16
    declared = int(length) if usable else 0
    head = _Head(end, record_type, url, _warc_date(headers.get("warc-date", "")), declared, headers, arc=False)
    if not usable:
        raise _Fault("bad_header", f"Content-Length is {length!r}" if length else "no Content-Length", head)
    if not record_type:
        raise _Fault("bad_header", "no WARC-Type", head)
    return head


def _warc_date(text: str) -> datetime | None:
    """A W3C date, which WARC 1.1 allows to stop after the year or month; None for what is no date."""
    if len(text) in (4, 7):
        text += "-01-01"[len(text) - 10 :]
    try:
        date = datetime.fromisoformat(text)
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _arc_head(window: Window) -> _Head:
    end = window.buffer.index(b"\n") + 1
    line = bytes(window.buffer[:end]).strip()
    url, address, date, media_type, length = line.decode("latin-1").rsplit(" ", 4)
    headers = {"ip-address": address, "archive-date": date, "content-type": media_type, "content-length": length}
    record_type = "warcinfo" if url.startswith("filedesc:") else "arc"
    return _Head(end, record_type, url, _arc_date(date), int(length), headers, arc=True)


def _arc_date(digits: str) -> datetime | None:
    parts = [digits[:4], *(digits[at : at + 2] for at in range(4, 14, 2))]
    try:
        return datetime(*(int(part) for part in parts if part), tzinfo=UTC)
    except ValueError:
        return None


def _read_record(window: Window, head: _Head, name: str, max_record_bytes: int) -> Record | Broken:
    if head.declared > max_record_bytes:
        raise _Fault("too_large", f"declared {head.declared:,} bytes; the limit is {max_record_bytes:,}", head)
    block_end = head.end + head.declared
    # Far enough past the block to see what follows it, or that its member ends well.
    reached = window.reach(block_end + 64)
    if reached < block_end:
        raise _Fault("truncated", "", head)
    block = bytes(memoryview(window.buffer)[head.end : block_end])
    content = _content(head, block, max_record_bytes)
    end = min(_tail_end(window, head, block_end, reached, proven=content.verified is True), reached)
    offset, length = window.offset, window.raw_end(end) - window.offset
    damage = window.damage_at(block_end, end)
    window.advance(end)
    if damage:
        return Broken(offset, damage.end - offset, damage.reason, damage.detail, head.url, head.declared, head.record_type, name)
    return _record(head, block, content, offset, length, name)


class _Content(NamedTuple):
    message: Message | None
    verified: bool | None  # by a digest
    unreadable: Unreadable | None = None


def _content(head: _Head, block: bytes, max_bytes: int) -> _Content:
    try:
        message = _message(head, block, max_bytes)
    except Unreadable as error:
        return _Content(None, None, error)
    return _Content(message, digest_ok(head.headers, head.record_type, block, message))


def _record(head: _Head, block: bytes, content: _Content, offset: int, length: int, name: str) -> Record | Broken:
    error, message = content.unreadable, content.message
    if error:
        return Broken(offset, length, error.reason, error.detail, head.url, error.lost, head.record_type, name)
    return Record(
        head.record_type,
        head.url,
        head.date,
        offset,
        length,
        head.headers,
        message.status if message else None,
        message.headers if message else {},
        message.body if message else block,
        content.verified,
        name,
    )


def _message(head: _Head, block: bytes, max_bytes: int) -> Message | None:
    """The HTTP message of a page, None for other blocks: a request's block is its payload. Raises Unreadable."""
    if head.record_type in ("response", "arc") and block.startswith(b"HTTP/"):
        return parse_message(block, max_bytes=max_bytes, whole="warc-truncated" not in head.headers)
    if head.record_type == "revisit" and head.headers.get("content-type", "").startswith("application/http"):
        status, headers, body = split_message(block)
        return Message(status, headers, body, body, body)
    return None


def _tail_end(window: Window, head: _Head, block_end: int, reached: int, *, proven: bool) -> int:
    """Where the blank lines after a block end. Raises _Fault where they, and no digest, prove the declared length."""
    if window.buffer.startswith(b"\r\n\r\n", block_end) and window.member_begins(block_end + 4):
        return block_end + 4  # whatever the next member is, this record is whole
    tail = _NEWLINES.match(window.buffer, block_end)
    end = tail.end() if tail else block_end
    blank = bytes(window.buffer[block_end:end]) == b"\r\n\r\n"
    followed = end >= reached or opens_record(window.buffer, end)
    if followed and (blank or head.arc):
        return end
    if proven and (followed or window.plain):
        return end
    raise _Fault("wrong_length", "", head)


def _pass_over(window: Window, fault: _Fault, name: str) -> Broken:
    """Moves to the next record, and says of the current one what is wrong with its length."""
    head, offset = fault.head, window.offset
    gap = window.skip()
    reason, detail = fault.reason, fault.detail
    got = max(gap.passed - (head.end if head else 0) - (4 if gap.whole else 0), 0)
    lost = got
    if head and not detail:
        found = f"declared {head.declared:,} bytes, got {got:,}"
        reason = "wrong_length" if gap.whole or got > head.declared else "truncated"
        detail, lost = found, max(head.declared - got, 0) if reason == "truncated" else got
    if gap.damage:
        reason = gap.damage.reason
        detail = f"{detail}; {gap.damage.detail}" if detail else gap.damage.detail
    if head is None:
        return Broken(offset, gap.raw_end - offset, reason, detail, bytes_lost=lost, file=name)
    return Broken(offset, gap.raw_end - offset, reason, detail, head.url, lost, head.record_type, name)
