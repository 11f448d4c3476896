"""A crawl file as decoded pieces: plain bytes, gzip members, LZ4 or Zstandard frames, and what is damaged of them.

The compression is told by magic bytes, never by name. After damage, reading goes on at the next member that decodes
to the first line of a record, so one bad member costs one member.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, Protocol, cast

from l3_platform.crawl.record import OPENING_BYTES, find_record, opens_record

READ = 1 << 20  # bytes read from the file at a time
FIRST_PIECE = 4 << 20  # decoded bytes of a member that are waited for; more than OPENING_BYTES
KEEP = 8 << 20  # compressed bytes kept behind the reading position, to search again after damage
MAX_RATIO = 200  # decoded bytes a compressed byte, above which a member over the size limit is a bomb
ZSTD_WINDOW = 1 << 27  # bytes of history a Zstandard frame may ask for


class Piece(NamedTuple):
    """Decoded bytes. `opens` is the file position of the member that begins with them, None inside a member.

    `raw_end` is how far into the file decoding had to go for them; an empty piece only moves it (a member's trailer).
    `whole` says that the member both begins and ends with these bytes, checksum and all.
    """

    data: bytes
    raw_end: int
    opens: int | None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Damage:
    """The member at `offset` cannot be decoded any further; reading goes on at `end`."""

    offset: int
    end: int
    reason: str
    detail: str


def pieces(stream: BinaryIO, max_member_bytes: int) -> tuple[Iterator[Piece | Damage], bool]:
    """Decoded pieces of a file in order, in bounded memory, with a `Damage` in place of what cannot be decoded.

    Also whether the file is plain, so that positions in the decoded bytes are positions in the file.
    """
    raw = _Raw(stream)
    codec = _detect(raw)
    return (_plain(raw), True) if codec is None else (_members(raw, codec, max_member_bytes), False)


class _Raw:
    """The file's own bytes around the reading position."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.ended = stream, False
        self.data = bytearray()
        self.base = self.at = 0  # file position of data[0]; index of the next byte in data

    @property
    def position(self) -> int:
        return self.base + self.at

    def peek(self, size: int) -> bytes:
        while len(self.data) - self.at < size and not self.ended:
            chunk = self.stream.read(READ)
            self.ended = not chunk
            self.data += chunk
        with memoryview(self.data) as data:
            return bytes(data[self.at : self.at + size])

    def take(self, size: int) -> bytes:
        if self.at > 2 * KEEP:
            self.forget(self.at - KEEP)
        taken = self.peek(size)
        self.at += len(taken)
        return taken

    def forget(self, count: int | None = None) -> None:
        """Drop the first `count` bytes; by default all behind the reading position, once that is worth it."""
        if count is None:
            count = self.at if self.at >= READ else 0
        del self.data[:count]
        self.base += count
        self.at -= count

    def move_to(self, position: int) -> None:
        """To a file position, or the nearest one still kept."""
        self.at = min(max(position - self.base, 0), len(self.data))


class _Decoder(Protocol):
    @property
    def eof(self) -> bool | None: ...
    @property
    def unused_data(self) -> bytes | bytearray | None: ...
    def decompress(self, data: bytes, /) -> bytes: ...


@dataclass(frozen=True)
class _Codec:
    name: str  # `gzip`, `lz4`, `zstd`
    magic: bytes
    feed: int  # compressed bytes a call: bounds what one call can decode to, and what `unused_data` copies
    decoder: Callable[[], _Decoder]
    errors: tuple[type[Exception], ...]


def _gzip() -> _Codec:
    from isal import isal_zlib  # twice as fast as zlib

    errors = (cast("type[Exception]", isal_zlib.error),)  # its stub calls the class an instance
    return _Codec("gzip", b"\x1f\x8b\x08", 8 << 10, lambda: isal_zlib.decompressobj(31), errors)


def _lz4() -> _Codec:
    import lz4.frame

    # lz4's bindings report damage as RuntimeError.
    return _Codec("lz4", b"\x04\x22\x4d\x18", 8 << 10, lz4.frame.LZ4FrameDecompressor, (RuntimeError, EOFError))


def _zstd(frame: bytes | None) -> _Codec:
    import zstandard

    dictionary = _dictionary(frame)
    known = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
    context = zstandard.ZstdDecompressor(dict_data=known, max_window_size=ZSTD_WINDOW)
    # A kilobyte of Zstandard can hold 32 MB, so it is fed little by little.
    return _Codec("zstd", b"\x28\xb5\x2f\xfd", 1 << 10, context.decompressobj, (zstandard.ZstdError,))


def _detect(raw: _Raw) -> _Codec | None:
    """The file's compression, None for plain. A file whose first bytes are damaged is told by what comes later."""
    dictionary = _skippable(raw)
    codecs = {b"\x1f\x8b\x08": _gzip, b"\x04\x22\x4d\x18": _lz4, b"\x28\xb5\x2f\xfd": lambda: _zstd(dictionary)}
    start = raw.peek(4)
    for magic, codec in codecs.items():
        if start.startswith(magic):
            return codec()
    head = raw.peek(READ)
    if opens_record(head):
        return None
    plain = find_record(head, 0, len(head))
    nearest, found = len(head) if plain is None else plain, None
    for codec in (make() for make in codecs.values()):
        at = _find_member(codec, head, 0)
        if at is not None and at < nearest:
            nearest, found = at, codec
    return found


def _skippable(raw: _Raw) -> bytes | None:
    """Step over a skippable frame of LZ4 or Zstandard; its content, or None where there is none."""
    head = raw.peek(8)
    if len(head) < 8 or head[1:4] != b"\x2a\x4d\x18" or head[0] >> 4 != 5:
        return None
    size = int.from_bytes(head[4:], "little")
    kept = raw.take(8 + min(size, KEEP))[8:]
    left = size - len(kept)
    while left > 0 and (passed := raw.take(min(left, READ))):
        left -= len(passed)
    return kept


def _dictionary(frame: bytes | None) -> bytes:
    """The dictionary that .warc.zst files carry in a first skippable frame, itself compressed or not."""
    if not frame or not frame.startswith(b"\x28\xb5\x2f\xfd"):
        return frame or b""
    import zstandard

    try:
        return zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).stream_reader(frame).read(KEEP)
    except zstandard.ZstdError:
        return b""  # every frame then fails by itself, with its own reason


def _plain(raw: _Raw) -> Iterator[Piece]:
    opens: int | None = 0
    while chunk := raw.take(READ):
        raw.forget(raw.at)
        yield Piece(chunk, raw.position, opens)
        opens = None


def _members(raw: _Raw, codec: _Codec, max_bytes: int) -> Iterator[Piece | Damage]:
    while _skip_padding(raw, codec):
        begin = raw.position
        damage = yield from _member(raw, codec, begin, max_bytes)
        if damage is not None:
            raw.move_to(begin + 1)
            _to_next_member(raw, codec)
            yield Damage(begin, raw.position, *damage)


def _skip_padding(raw: _Raw, codec: _Codec) -> bool:
    """Step over zero bytes and skippable frames between members; False at the end of the file."""
    if raw.at < len(raw.data) and raw.data[raw.at] == codec.magic[0]:
        return True
    while head := raw.peek(4096):
        zeros = len(head) - len(head.lstrip(b"\0"))
        if zeros:
            raw.take(zeros)
        elif codec.name == "gzip" or _skippable(raw) is None:
            return True
        raw.forget()
    return False


def _member(raw: _Raw, codec: _Codec, begin: int, max_bytes: int) -> Generator[Piece, None, tuple[str, str] | None]:
    """One member's pieces; returns what is wrong with it as (reason, detail), None where it is whole."""
    decoder, produced, opens = codec.decoder(), 0, begin
    held: list[bytes] = []  # decoded and not given yet
    while True:
        fed_from = raw.position
        fed = raw.take(codec.feed)
        try:
            held.append(decoder.decompress(fed))
        except codec.errors as error:
            if saved := _salvage(raw, codec, begin, fed_from, b"".join(held)):
                yield Piece(saved, raw.position, opens)
            return f"bad_{codec.name}", f"{error}, in the {codec.name} member at {begin:,}"
        produced += len(held[-1])
        if decoder.eof:
            raw.at -= len(decoder.unused_data or b"")
        if produced > max_bytes and produced > MAX_RATIO * (raw.position - begin):
            yield Piece(b"".join(held)[:OPENING_BYTES], raw.position, opens)
            return "bomb", f"{raw.position - begin:,} bytes decode to {produced:,} and more"
        if decoder.eof:
            yield Piece(b"".join(held), raw.position, opens, whole=opens is not None)
            return None
        if not fed:
            if saved := b"".join(held):
                yield Piece(saved, raw.position, opens)
            return "truncated", f"the file ends inside the {codec.name} member at {begin:,}"
        if opens is None or produced >= FIRST_PIECE:
            yield Piece(b"".join(held), raw.position, opens)
            held, opens = [], None


def _salvage(raw: _Raw, codec: _Codec, begin: int, fed_from: int, held: bytes) -> bytes:
    """What a member gives before the place where it fails; the decoder had thrown away its last call's output."""
    if begin < raw.base:
        return held
    decoder, failing = codec.decoder(), fed_from - raw.base
    for at in range(begin - raw.base, failing, codec.feed):
        decoder.decompress(bytes(raw.data[at : min(at + codec.feed, failing)]))
    saved = bytearray(held)
    try:
        for at in range(failing, raw.at):
            saved += decoder.decompress(bytes(raw.data[at : at + 1]))
    except codec.errors:
        pass  # the failure that brought us here
    return bytes(saved)


def _to_next_member(raw: _Raw, codec: _Codec) -> None:
    """Move to the next member that begins with a record, or to the end of the file."""
    while raw.peek(READ):
        at = _find_member(codec, raw.data, raw.at)
        if at is not None:
            raw.at = at
            return
        # The last bytes may be the beginning of a member, unless the file ends with them.
        raw.at = len(raw.data) if raw.ended else max(len(raw.data) - OPENING_BYTES, raw.at + 1)
        raw.forget()
        raw.peek(READ)


def _find_member(codec: _Codec, data: bytes | bytearray, start: int) -> int | None:
    at = data.find(codec.magic, start)
    while at >= 0:
        # Small portions, since a failing call gives nothing: the member found may itself be damaged further on.
        decoder, opening = codec.decoder(), b""
        try:
            for portion in range(at, min(at + OPENING_BYTES, len(data)), 256):
                opening += decoder.decompress(bytes(data[portion : portion + 256]))
                if opens_record(opening):
                    return at
                if decoder.eof or len(opening) > OPENING_BYTES:
                    break
        except codec.errors:
            pass  # these bytes only look like a member
        at = data.find(codec.magic, at + 1)
    return None
