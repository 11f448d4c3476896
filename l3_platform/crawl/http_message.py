"""An archived HTTP message as status, headers and body, with transfer and content encodings undone."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from l3_platform.crawl.members import MAX_RATIO
from l3_platform.crawl.record import blank_line

_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
_FOLD = re.compile(rb"\r?\n[ \t]+")
_PLAIN_ENCODINGS = frozenset({"", "identity", "none", "utf-8", "utf8", "binary", "8bit", "7bit", "text/html", "chunked"})
_TEXT_BYTES = bytes([9, 10, 12, 13, 27, *range(32, 256)])
_SMALL = 8 << 20  # bytes: below it no ratio makes a bomb


class Unreadable(ValueError):
    """A body that is cut short or cannot be decoded; `lost` in bytes."""

    def __init__(self, reason: str, detail: str, lost: int) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.lost = reason, detail, lost


@dataclass(frozen=True, slots=True)
class Message:
    """`status` is None for a request. `stored` are the body's bytes as archived, `unchunked` without chunk sizes."""

    status: int | None
    headers: Mapping[str, str]
    stored: bytes
    unchunked: bytes
    body: bytes


def parse_message(block: bytes, *, max_bytes: int, whole: bool = True) -> Message:
    """The message in a record's block. With `whole`, a body shorter than it claims is an error.

    Raises Unreadable: `truncated`, `bad_chunk`, `bad_encoding`, `unsupported_encoding`, `bomb`.
    """
    status, headers, stored = split_message(block)
    has_body = status is None or not (status < 200 or status in (204, 304))
    body, chunked = stored, False
    if "chunked" in headers.get("transfer-encoding", "").lower():
        unchunked = _unchunk(stored, whole)
        chunked = unchunked is not None
        body = stored if unchunked is None else unchunked
    decoded = _decode(body, headers.get("content-encoding", ""), max_bytes, whole) if body else body
    declared = headers.get("content-length", "").strip()
    # A crawler that stored the decoded body left the encoded one's length in the headers.
    as_sent = decoded is not body or not headers.get("content-encoding")
    if whole and has_body and not chunked and as_sent and declared.isdecimal() and len(body) < int(declared):
        missing = int(declared) - len(body)
        raise Unreadable("truncated", f"HTTP declared {int(declared):,} bytes, got {len(body):,}", missing)
    return Message(status, headers, stored, body, decoded)


def split_message(block: bytes) -> tuple[int | None, dict[str, str], bytes]:
    """Status, headers and the body as stored."""
    blank = blank_line(block, 0, len(block))
    head, body = (block[: blank[0]], block[blank[1] :]) if blank else (block, b"")
    first, _, rest = head.partition(b"\n")
    words = first.split(None, 2)
    status = int(words[1]) if first.startswith(b"HTTP/") and len(words) > 1 and words[1].isdigit() else None
    return status, parse_headers(rest), body


def parse_headers(lines: bytes) -> dict[str, str]:
    """Named fields, names in lower case. Folded lines are joined; of repeated fields the first counts."""
    if b"\n " in lines or b"\n\t" in lines:
        lines = _FOLD.sub(b" ", lines)
    try:
        text = lines.decode()
    except UnicodeDecodeError:
        text = lines.decode("latin-1")
    headers: dict[str, str] = {}
    for line in text.split("\n"):
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    return headers


def _unchunk(body: bytes, whole: bool) -> bytes | None:
    """The body without chunk sizes; None where it never had them, since many crawlers take them out."""
    parts, at = [], 0
    while size := _CHUNK_SIZE.match(body, at):
        length, start = int(size[1], 16), size.end()
        if length == 0:
            return b"".join(parts)
        parts.append(body[start : start + length])
        if start + length > len(body):
            if whole:
                missing = start + length - len(body)
                raise Unreadable("truncated", f"a chunk of {length:,} bytes lacks {missing:,}", missing)
            return b"".join(parts)
        at = start + length
        at += 2 if body[at : at + 2] == b"\r\n" else 1 if body[at : at + 1] == b"\n" else 0
    if at == 0:
        return None
    if not whole:
        return b"".join(parts)
    if at >= len(body):
        raise Unreadable("truncated", "the body ends before its last chunk", 0)
    raise Unreadable("bad_chunk", f"no chunk size after {at:,} bytes of the body: {body[at : at + 20]!r}", len(body) - at)


def _decode(body: bytes, encodings: str, max_bytes: int, whole: bool) -> bytes:
    for encoding in reversed([name.strip().lower() for name in encodings.split(",")]):
        if encoding in _PLAIN_ENCODINGS:
            continue
        try:
            body = _inflate(body, encoding, max_bytes, whole)
        except Unreadable as error:
            # Crawlers that decode bodies may leave the header; text is no output of any of these encodings.
            if error.reason not in ("bad_encoding", "unsupported_encoding") or not _is_text(body):
                raise
    return body


def _inflate(body: bytes, encoding: str, max_bytes: int, whole: bool) -> bytes:
    known = content_decoder(encoding, body)
    if known is None:
        raise Unreadable("unsupported_encoding", f"content encoding {encoding!r} has no decoder here", len(body))
    new_decoder, feed, errors = known
    limit = min(max_bytes, max(_SMALL, MAX_RATIO * len(body)))
    decoder, parts, produced, at = new_decoder(), [], 0, 0
    while at < len(body):
        portion = body[at : at + feed]
        at += len(portion)
        try:
            parts.append(decoder.decompress(portion))
        except errors as error:
            raise Unreadable("bad_encoding", f"content encoding {encoding}: {error}", len(body)) from None
        produced += len(parts[-1])
        if produced > limit:
            raise Unreadable("bomb", f"{at:,} bytes of {encoding} decode to more than {limit:,}", len(body))
        if decoder.eof:
            at -= len(decoder.unused_data)
            if not body.startswith(b"\x1f\x8b", at):
                break
            decoder = new_decoder()  # gzip bodies may have several members
    if whole and not decoder.eof:
        raise Unreadable("truncated", f"the {encoding} body ends early, after {produced:,} decoded bytes", 0)
    return b"".join(parts)


_Decoding = tuple[Callable[[], Any], int, tuple[type[Exception], ...]]


def content_decoder(encoding: str, body: bytes) -> _Decoding | None:
    """How to decode an encoding: a new decoder, encoded bytes to give it a time, its errors. None where unsupported."""
    if encoding in ("gzip", "x-gzip"):
        return lambda: zlib.decompressobj(31), 16 << 10, (zlib.error,)
    if encoding == "deflate":
        # Servers send raw deflate as often as zlib's format, whose header is a multiple of 31.
        wrapped = len(body) > 1 and body[0] & 15 == 8 and int.from_bytes(body[:2]) % 31 == 0
        return lambda: zlib.decompressobj(15 if wrapped else -15), 16 << 10, (zlib.error,)
    if encoding == "zstd":
        import zstandard

        # The largest window that a content encoding may ask for is 8 MB (RFC 9659).
        return zstandard.ZstdDecompressor(max_window_size=8 << 20).decompressobj, 1 << 10, (zstandard.ZstdError,)
    return _brotli() if encoding == "br" else None


@functools.cache
def _brotli() -> _Decoding | None:
    """Brotli, where one of its bindings happens to be installed."""
    for name in ("brotli", "brotlicffi"):
        if importlib.util.find_spec(name):
            module = importlib.import_module(name)
            return functools.partial(_BrotliDecoder, module), 256, (module.error,)
    return None


class _BrotliDecoder:
    unused_data = b""

    def __init__(self, module: Any) -> None:
        self.decompressor = module.Decompressor()

    def decompress(self, data: bytes) -> bytes:
        return self.decompressor.process(data)

    @property
    def eof(self) -> bool:
        return self.decompressor.is_finished()


def _is_text(body: bytes) -> bool:
    """Whether a body begins like text: encoded ones hold control characters within a few bytes."""
    return not body[:512].translate(None, _TEXT_BYTES)
