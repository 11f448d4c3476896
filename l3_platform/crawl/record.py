"""What reading a WARC or ARC file gives: a `Record`, or a `Broken` that says what was lost and where."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

WARC_LINE = rb"WARC/[01]\.\d{1,2}\r?\n"
# URL (which may hold spaces), IP address, date, media type, length: the one-line header of ARC 1.
_ARC_LINE = rb"[A-Za-z][A-Za-z0-9+.-]{1,15}:[^\r\n]{1,8192}? [0-9A-Fa-f.:]{3,45} \d{8,17} [^ \r\n]{1,256} \d{1,15}\r?\n"
_OPENING = re.compile(rb"[\r\n]*(?:" + WARC_LINE + rb"|" + _ARC_LINE + rb")")
_NEXT = re.compile(rb"\n(?=" + WARC_LINE + rb"|" + _ARC_LINE + rb")")

OPENING_BYTES = 8448  # the longest first line of a record


@dataclass(frozen=True, slots=True)
class Record:
    """One record. `payload` is a page's HTTP body with its transfer and content encodings undone, else the whole block.

    `file[offset:offset + length]` decodes to the record. Where a compressed member holds several records, `offset` is
    the member's start and the earlier ones come first. `record_type` is the WARC-Type, or `arc`. `digest_ok` is None
    where no digest that can be checked is declared.
    """

    record_type: str
    url: str
    date: datetime | None
    offset: int
    length: int
    headers: Mapping[str, str]
    http_status: int | None
    http_headers: Mapping[str, str]
    payload: bytes
    digest_ok: bool | None
    file: str = ""


@dataclass(frozen=True, slots=True)
class Broken:
    """A range of the file that is no whole record.

    `bytes_lost` counts missing bytes of content for `truncated`, else the bytes that are there but cannot be used
    (compressed ones where nothing could be decoded). `length` is the range's size in the file.
    """

    offset: int
    length: int
    reason: str
    detail: str
    url: str = ""
    bytes_lost: int = 0
    record_type: str = ""
    file: str = ""

    def __str__(self) -> str:
        what = f"{self.record_type or 'unreadable'} record" + (f" of {self.url}" if self.url else "")
        return f"{self.file or 'stream'}: {what} at offset {self.offset} is {self.reason} ({self.detail})"


def opens_record(data: bytes | bytearray, at: int = 0) -> bool:
    """Whether the first line of a WARC or ARC record begins at `at`, or after blank lines there."""
    return _OPENING.match(data, at) is not None


def find_record(data: bytes | bytearray, start: int, stop: int) -> int | None:
    """Position after `start` of the first record in `data[start:stop]` that begins on a line of its own."""
    found = _NEXT.search(data, start, stop)
    return found.end() if found else None


def blank_line(data: bytes | bytearray, start: int, stop: int) -> tuple[int, int] | None:
    """Where the first empty line of `data[start:stop]` and the line end before it begin and end: `\\r?\\n\\r?\\n`.

    Searching for the two spellings is ten times as fast as that pattern. None where there is no empty line.
    """
    at = data.find(b"\n\r\n", start, stop)
    end = at + 3
    feeds = data.find(b"\n\n", start, stop if at < 0 else at + 1)
    if feeds >= 0:
        at, end = feeds, feeds + 2
    if at < 0:
        return None
    return at - (at > start and data[at - 1] == 13), end
