"""Whole files: formats, compressions, positions, headers, digests."""

import io
from datetime import UTC, datetime

import lz4.frame
import pytest
import zstandard

from l3_platform.crawl.record import Broken, Record
from l3_platform.crawl.warc import read_records
from tests.crawl.warc_files import faults, gz, http, numbers, one, page, read, sha1, uncovered, warc

PAGES = [page(number, 400 * (number + 1)) for number in range(12)]


def zstd_with_dictionary() -> bytes:
    dictionary = zstandard.train_dictionary(2048, [PAGES[number % 12][:600] for number in range(200)])
    frame = zstandard.compress(dictionary.as_bytes())
    skippable = b"\x5d\x2a\x4d\x18" + len(frame).to_bytes(4, "little") + frame
    compressor = zstandard.ZstdCompressor(dict_data=dictionary)
    return skippable + b"".join(compressor.compress(record) for record in PAGES)


FILES = {
    "plain": b"".join(PAGES),
    "gzip": b"".join(map(gz, PAGES)),
    "gzip as a whole": gz(b"".join(PAGES)),
    "lz4": b"".join(lz4.frame.compress(record) for record in PAGES),
    "zstd": b"".join(zstandard.compress(record) for record in PAGES),
    "zstd with a dictionary": zstd_with_dictionary(),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_compression_gives_the_same_records(kind):
    found = read(FILES[kind])
    assert numbers(found) == list(range(12))
    assert all(isinstance(item, Record) and item.digest_ok for item in found)


@pytest.mark.parametrize("kind", [kind for kind in FILES if "whole" not in kind and "dictionary" not in kind])
def test_a_records_range_of_the_file_reads_as_that_record_alone(kind):
    for item in read(FILES[kind]):
        again = one(FILES[kind][item.offset : item.offset + item.length])
        assert isinstance(again, Record) and again.url == item.url


@pytest.mark.parametrize("kind", FILES)
def test_ranges_cover_the_file_but_for_the_dictionary(kind):
    left = uncovered(FILES[kind], read(FILES[kind]))
    assert not left or (kind == "zstd with a dictionary" and left.startswith(b"\x5d\x2a\x4d\x18"))


def test_records_of_one_member_are_reached_by_reading_on_from_its_start():
    data = FILES["gzip as a whole"]
    for item in read(data):
        assert item.offset == 0
        reread = [again.url for again in read(data[: item.length]) if isinstance(again, Record)]
        assert item.url in reread or item.length == len(data)


def test_a_stream_that_gives_few_bytes_a_call_and_cannot_seek_reads_the_same():
    class Slow(io.RawIOBase):
        def __init__(self, data):
            self.rest = data

        def read(self, size=-1):
            taken, self.rest = self.rest[:37], self.rest[37:]
            return taken

    found = list(read_records(Slow(FILES["gzip"])))  # type: ignore[arg-type]
    assert [item.offset for item in found] == [item.offset for item in read(FILES["gzip"])]


def test_a_record_split_over_gzip_members_is_one_record():
    whole = page(1)
    found = read(gz(whole[:900]) + gz(whole[900:2000]) + gz(whole[2000:]) + gz(page(2)))
    assert numbers(found) == [1, 2]


def test_zero_bytes_between_members_are_padding():
    assert numbers(read(gz(page(1)) + bytes(512) + gz(page(2)) + bytes(9000))) == [1, 2]


def test_a_file_whose_first_gzip_member_is_damaged_is_still_read_as_gzip():
    data = bytearray(gz(page(1)) + gz(page(2)))
    data[0] ^= 0xFF
    found = read(bytes(data))
    assert (numbers(found), faults(found)[0].offset) == ([2], 0)


def test_an_empty_file_holds_nothing():
    assert read(b"") == []


def test_a_file_that_is_no_archive_is_one_fault_of_its_size():
    (fault,) = read(b"%PDF-1.7 and so on\n" * 50)
    assert isinstance(fault, Broken)
    assert (fault.reason, fault.length) == ("bad_header", 950)


def test_headers_are_lower_case_and_folded_lines_are_joined():
    record = one(warc(http(b"x"), "X-Note: one\r\n  two", "X-NOTE: three"))
    assert record.headers["x-note"] == "one two"  # type: ignore[union-attr]


def test_a_url_keeps_its_spaces_and_loses_its_angle_brackets():
    assert one(warc(b"x", url="<file:///with some spaces.png>", kind="resource")).url == "file:///with some spaces.png"


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2024-05-06T07:08:09Z", datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
        ("2024-05-06T07:08:09.123456789Z", datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)),
        ("2024-05-06T07:08:09+02:00", datetime(2024, 5, 6, 5, 8, 9, tzinfo=UTC)),
        ("2024-05", datetime(2024, 5, 1, tzinfo=UTC)),
        ("2024", datetime(2024, 1, 1, tzinfo=UTC)),
        ("2008-10-294T05:21:46-0700", None),
        ("", None),
    ],
)
def test_dates_become_utc_and_impossible_ones_none(text, date):
    data = warc(http(b"x")).replace(b"2024-05-06T07:08:09Z", text.encode())
    assert one(data).date == date  # type: ignore[union-attr]


def test_line_feeds_alone_end_header_lines_as_well():
    block = http(b"<p>x</p>")
    head = warc(block).split(b"\r\n\r\n", 1)[0].replace(b"\r\n", b"\n")
    assert one(head + b"\n\n" + block + b"\r\n\r\n").payload == b"<p>x</p>"  # type: ignore[union-attr]


def test_an_arc_record_gives_url_date_and_body():
    body = http(b"<p>old</p>", length=10)
    line = f"http://old.example/a b 192.0.2.1 19961231235959 text/html {len(body)}\n".encode()
    version = b"filedesc://x.arc 0.0.0.0 19970101000000 text/plain 8\n1 0 Test\n\n"
    _, record = read(gz(version) + gz(line + body + b"\n"))
    assert isinstance(record, Record)
    assert (record.record_type, record.url, record.payload) == ("arc", "http://old.example/a b", b"<p>old</p>")
    assert record.date == datetime(1996, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize("written", [sha1(b"<p>x</p>"), "sha1:" + "0" * 40, "sha1:" + "A" * 32, "sha1:?", "crc:12"])
def test_a_digest_is_compared_where_its_algorithm_is_known(written):
    record = one(warc(http(b"<p>x</p>"), f"WARC-Payload-Digest: {written}"))
    expected = None if written.startswith("crc") else written == sha1(b"<p>x</p>")
    assert record.digest_ok is expected  # type: ignore[union-attr]


def test_a_hexadecimal_sha256_is_a_digest_too():
    import hashlib

    digest = hashlib.sha256(b"<p>x</p>").hexdigest()
    assert one(warc(http(b"<p>x</p>"), f"WARC-Payload-Digest: sha256:{digest}")).digest_ok is True  # type: ignore[union-attr]


def test_the_block_digest_counts_where_no_payload_digest_is_given():
    block = http(b"x")
    assert one(warc(block, f"WARC-Block-Digest: {sha1(block)}")).digest_ok is True  # type: ignore[union-attr]
    assert one(warc(block, f"WARC-Block-Digest: {sha1(b'other')}")).digest_ok is False  # type: ignore[union-attr]


def test_a_digest_given_for_both_block_and_payload_proves_nothing():
    digest = sha1(b"something else")
    record = one(warc(http(b"x"), f"WARC-Block-Digest: {digest}", f"WARC-Payload-Digest: {digest}"))
    assert record.digest_ok is None  # type: ignore[union-attr]
