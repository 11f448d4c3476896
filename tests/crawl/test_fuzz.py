"""Ten thousand broken files: none stops the reader, none makes a byte vanish, none costs more than its share of time and memory."""

import gzip
import io
import random
import time
import tracemalloc
from collections.abc import Iterator

import lz4.frame
import pytest
import zstandard

from l3_platform.crawl import warc as reader
from l3_platform.crawl.record import Broken, Record
from l3_platform.crawl.warc import read_records
from tests.crawl.warc_files import gz, http, page, uncovered, warc

SECONDS_A_FILE = 2.0  # under load; a mutant of some ten kilobytes takes about a millisecond
MAX_RECORD_BYTES = 1 << 20
REASONS = {
    *("truncated", "wrong_length", "bad_header", "too_large", "bomb", "bad_gzip", "bad_lz4", "bad_zstd"),
    *("bad_chunk", "bad_encoding", "unsupported_encoding"),
}


def chunked(body: bytes) -> bytes:
    parts = [body[at : at + 300] for at in range(0, len(body), 300)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def records() -> list[bytes]:
    """One of each kind of record that crawlers write."""
    body = b"<html><p>" + b"a line of a page, and another\n" * 40 + b"</html>"
    return [
        warc(b"software: a crawler\r\n", kind="warcinfo"),
        *(page(number, 900) for number in range(4)),
        warc(http(gz(body), "Content-Encoding: gzip", length=len(gz(body))), url="http://a.example/gz"),
        warc(http(chunked(body), "Transfer-Encoding: chunked"), url="http://a.example/chunked"),
        warc(http(chunked(gz(body)), "Transfer-Encoding: chunked", "Content-Encoding: gzip"), url="http://a.example/both"),
        warc(http(zstandard.compress(body), "Content-Encoding: zstd"), url="http://a.example/zstd"),
        warc(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", kind="request"),
        warc(http(b"", status="301 Moved", length=0), url="http://a.example/moved"),
        warc(http(b"no length at all"), "WARC-Truncated: length", url="http://a.example/cut"),
    ]


def arc() -> list[bytes]:
    block = http(b"<p>old</p>", length=10)
    line = f"http://old.example/a b 192.0.2.1 19961231235959 text/html {len(block)}\n".encode()
    return [b"filedesc://x.arc 0.0.0.0 19970101000000 text/plain 8\n1 0 Test\n\n", *[line + block + b"\n"] * 5]


def built() -> dict[str, bytes]:
    whole = records()
    return {
        "plain": b"".join(whole),
        "gzip": b"".join(map(gz, whole)),
        "gzip as a whole": gz(b"".join(whole)),
        "gzip cut across records": b"".join(gz(b"".join(whole)[at : at + 700]) for at in range(0, len(b"".join(whole)), 700)),
        "lz4": b"".join(lz4.frame.compress(record) for record in whole),
        "lz4 with checksums": b"".join(lz4.frame.compress(record, content_checksum=True) for record in whole),
        "zstd": b"".join(map(zstandard.compress, whole)),
        "arc": b"".join(arc()),
        "arc gzip": b"".join(map(gz, arc())),
    }


def members(data: bytes) -> list[int]:
    """Where members begin, or records of a plain file: places that mutations prefer."""
    starts = [0]
    for mark in (b"\x1f\x8b\x08", b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd", b"WARC/1"):
        at = data.find(mark, 1)
        while at >= 0:
            starts.append(at)
            at = data.find(mark, at + 1)
    return sorted(starts)


def mutant(data: bytes, source: random.Random) -> bytes:
    """`data` with one to four faults of the kinds that disks, networks and bad writers make."""
    changed = bytearray(data)
    for _ in range(source.randint(1, 4)):
        if len(changed) < 64:
            break
        at, size = source.randrange(len(changed)), source.randint(1, 80)
        start = source.choice(members(changed))
        match source.randrange(10):
            case 0:  # a flipped bit
                changed[at] ^= 1 << source.randrange(8)
            case 1:  # noise
                changed[at : at + size] = source.randbytes(size)
            case 2:  # bytes missing
                del changed[at : at + size * source.choice((1, 20))]
            case 3:  # bytes twice
                changed[at:at] = changed[max(at - size, 0) : at]
            case 4:  # the end missing
                del changed[max(at, 20) :]
            case 5:  # zeros, as of a hole in the file
                changed[at : at + size] = bytes(size)
            case 6:  # the head of a member or record
                changed[min(start + source.randrange(30), len(changed) - 1)] = source.randrange(256)
            case 7:  # a member moved elsewhere
                other = source.choice(members(changed))
                changed[other:other] = changed[start : start + 40 * size]
            case 8:  # digits, such as lengths and chunk sizes
                digits = [place for place, byte in enumerate(changed) if 48 <= byte <= 57]
                if digits:
                    changed[source.choice(digits)] = source.randint(48, 57)
            case 9:  # junk between members
                changed[start:start] = source.choice(
                    (b"\r\n", bytes(600), b"WARC/1.0\r\n", b"\x1f\x8b\x08\0", source.randbytes(size))
                )
    return bytes(changed)


def check(data: bytes) -> list[Record | Broken]:
    """Read a file as anything may lie in it, and hold what comes out against what went in."""
    started = time.monotonic()
    found = list(read_records(io.BytesIO(data), name="fuzz.warc", max_record_bytes=MAX_RECORD_BYTES))
    assert time.monotonic() - started < SECONDS_A_FILE
    offsets = [item.offset for item in found]
    assert offsets == sorted(offsets)
    assert all(item.length > 0 and item.offset >= 0 and item.offset + item.length <= len(data) for item in found)
    assert {item.reason for item in found if isinstance(item, Broken)} <= REASONS
    assert all(item.bytes_lost >= 0 and item.detail for item in found if isinstance(item, Broken))
    return found


def accounted(data: bytes, found: list[Record | Broken]) -> bool:
    """Whether every byte lies in a record or a fault, but for padding and skippable frames between them."""
    left = uncovered(data, found)
    return not left.strip(b"\r\n\0") or b"\x2a\x4d\x18" in left


def without_shortcut(data: bytes, monkeypatch: pytest.MonkeyPatch) -> list[Record | Broken]:
    with monkeypatch.context() as patched:
        patched.setattr(reader, "_lone_record", lambda *_: None)
        return list(read_records(io.BytesIO(data), name="fuzz.warc", max_record_bytes=MAX_RECORD_BYTES))


def mutants(seed: str, bases: dict[str, bytes], number: int) -> Iterator[tuple[str, bytes]]:
    source, names = random.Random(seed), sorted(bases)
    for count in range(number):
        name = names[count % len(names)]
        yield f"{seed}, mutant {count} of {name!r}", mutant(bases[name], source)


def hold(cases: Iterator[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch, compare_every: int) -> None:
    for number, (case, data) in enumerate(cases):
        try:
            found = check(data)
            assert accounted(data, found)
            if number % compare_every == 0:
                assert found == without_shortcut(data, monkeypatch)
        except Exception as error:
            raise AssertionError(f"{case}: {type(error).__name__}: {error}") from error


def test_the_bases_are_read_without_a_fault():
    for name, data in built().items():
        found = check(data)
        assert not [item for item in found if isinstance(item, Broken)], name
        assert len(found) == (6 if name.startswith("arc") else len(records())), name


def test_300_mutants_are_accounted_for(monkeypatch):
    hold(mutants("quick", built(), 300), monkeypatch, compare_every=2)


@pytest.mark.exhaustive
def test_10_000_mutants_are_accounted_for(shared_data, monkeypatch):
    real = {path.name: path.read_bytes() for path in sorted((shared_data / "warc").iterdir()) if path.stat().st_size < 20_000}
    assert len(real) > 6
    hold(mutants("built", built(), 7000), monkeypatch, compare_every=10)
    hold(mutants("real", real, 3000), monkeypatch, compare_every=10)


def test_members_that_decode_to_far_more_than_they_are_stay_out_of_memory():
    huge = warc(http(bytes(48 << 20)), url="http://a.example/bomb")
    for compress in (lambda data: gzip.compress(data, 9, mtime=0), lz4.frame.compress, lambda data: zstandard.compress(data, 19)):
        data = compress(page(1)) + compress(huge) + compress(page(2))
        tracemalloc.start()
        found = check(data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert [type(item).__name__ for item in found] == ["Record", "Broken", "Record"]
        assert isinstance(found[1], Broken) and found[1].reason == "bomb"
        assert peak < 32 << 20
