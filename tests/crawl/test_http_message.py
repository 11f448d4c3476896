"""Transfer and content encodings of archived pages."""

import zlib

import pytest
import zstandard

from l3_platform.crawl.http_message import content_decoder
from l3_platform.crawl.record import Broken, Record
from tests.crawl.warc_files import gz, http, one, warc

TEXT = b"<html>" + b"<p>A sentence of the page.</p>" * 60 + b"</html>"


def chunked(body: bytes, size: int, last: bytes = b"0\r\n\r\n") -> bytes:
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x;note=1\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + last


def raw_deflate(body: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(body) + compressor.flush()


def payload(body: bytes, *fields: str, **options: int) -> bytes:
    record = one(warc(http(body, *fields)), **options)
    assert isinstance(record, Record), record
    return record.payload


def fault(body: bytes, *fields: str, in_warc: str = "X-None: 1", **options: int) -> Broken:
    record = one(warc(http(body, *fields), in_warc), **options)
    assert isinstance(record, Broken), record
    return record


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [("gzip", gz), ("x-gzip", gz), ("deflate", zlib.compress), ("deflate", raw_deflate), ("zstd", zstandard.compress)],
)
def test_a_content_encoding_is_undone(encoding, encode):
    assert payload(encode(TEXT), f"Content-Encoding: {encoding}") == TEXT


def test_a_gzip_body_of_several_members_is_read_to_its_end():
    assert payload(gz(TEXT[:500]) + gz(TEXT[500:]), "Content-Encoding: gzip") == TEXT


def test_encodings_are_undone_from_the_last_to_the_first():
    assert payload(gz(zlib.compress(TEXT)), "Content-Encoding: deflate, gzip") == TEXT


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "identity", "utf-8", "none"])
def test_text_under_an_encodings_name_is_taken_as_text(encoding):
    assert payload(TEXT, f"Content-Encoding: {encoding}") == TEXT


def test_chunks_are_joined_and_their_extensions_dropped():
    assert payload(chunked(TEXT, 100), "Transfer-Encoding: chunked") == TEXT


def test_a_chunked_and_compressed_body_is_both():
    assert payload(chunked(gz(TEXT), 17), "Transfer-Encoding: chunked", "Content-Encoding: gzip") == TEXT


def test_a_body_that_only_claims_to_be_chunked_is_taken_as_it_is():
    assert payload(TEXT, "Transfer-Encoding: chunked") == TEXT


def test_a_chunk_cut_short_is_truncated():
    found = fault(chunked(TEXT, 1000)[:1500], "Transfer-Encoding: chunked")
    assert found.reason == "truncated"
    assert found.bytes_lost == (len(TEXT) - 1000) - (1500 - len(b"3e8;note=1\r\n") - 1000 - 2 - len(b"32d;note=1\r\n"))


def test_a_body_without_its_last_chunk_is_truncated():
    assert fault(chunked(TEXT, 1000, last=b""), "Transfer-Encoding: chunked").reason == "truncated"


def test_something_else_where_a_chunk_size_should_be_is_a_bad_chunk():
    assert fault(chunked(TEXT, 1000, last=b"what?"), "Transfer-Encoding: chunked").reason == "bad_chunk"


def test_a_body_shorter_than_its_http_length_is_truncated():
    found = fault(TEXT, f"Content-Length: {len(TEXT) + 25}")
    assert (found.reason, found.bytes_lost) == ("truncated", 25)


def test_a_crawler_that_says_it_truncated_is_believed():
    record = one(warc(http(TEXT, "Content-Length: 99999"), "WARC-Truncated: length"))
    assert isinstance(record, Record) and record.payload == TEXT


def test_a_truncated_gzip_body_is_a_fault_unless_the_crawler_says_so():
    cut = gz(TEXT)[:-20]
    assert fault(cut, "Content-Encoding: gzip").reason == "truncated"
    record = one(warc(http(cut, "Content-Encoding: gzip"), "WARC-Truncated: length"))
    assert isinstance(record, Record) and TEXT.startswith(record.payload) and record.payload


@pytest.mark.parametrize("status", ["304 Not Modified", "204 No Content"])
def test_answers_without_a_body_may_name_a_length(status):
    record = one(warc(http(b"", status=status, length=500)))
    assert isinstance(record, Record) and record.http_status == int(status[:3])


def test_a_revisit_has_headers_and_no_body_to_miss():
    record = one(warc(http(b"", length=500), kind="revisit"))
    assert isinstance(record, Record) and (record.http_status, record.payload) == (200, b"")


def test_damage_inside_a_body_is_a_bad_encoding():
    bad = bytearray(gz(TEXT))
    bad[-6] ^= 1
    assert fault(bytes(bad), "Content-Encoding: gzip").reason == "bad_encoding"


def test_an_encoding_without_a_decoder_is_unsupported():
    found = fault(bytes(range(256)), "Content-Encoding: compress")
    assert (found.reason, found.bytes_lost) == ("unsupported_encoding", 256)


@pytest.mark.skipif(content_decoder("br", b"") is not None, reason="a Brotli binding is installed here")
def test_brotli_is_unsupported_where_no_binding_is_installed():
    assert fault(b"\x0b\x02\x80<p>\x03", "Content-Encoding: br").reason == "unsupported_encoding"


@pytest.mark.parametrize("encode", [gz, zstandard.compress], ids=["gzip", "zstd"])
def test_a_body_that_decodes_to_far_too_much_is_a_bomb(encode):
    encoding = "gzip" if encode is gz else "zstd"
    assert fault(encode(bytes(40 << 20)), f"Content-Encoding: {encoding}").reason == "bomb"


def test_the_neighbours_of_a_bad_body_survive():
    from tests.crawl.warc_files import numbers, page, read

    bad = warc(http(TEXT, "Content-Length: 99999"))
    assert numbers(read(page(1) + bad + page(2))) == [1, 2]


def test_a_block_that_is_no_http_message_is_its_own_payload():
    record = one(warc(b"20080430204825\nwww.example.\t1\tIN\tA\t192.0.2.1\n", url="dns:www.example"))
    assert isinstance(record, Record) and record.http_status is None and record.payload.startswith(b"2008")


def test_header_bytes_that_are_no_utf_8_are_read_as_latin_1():
    record = one(warc(http(b"x").replace(b"charset=utf-8", b"name=\xe9t\xe9")))
    assert isinstance(record, Record) and record.http_headers["content-type"].endswith("été")
