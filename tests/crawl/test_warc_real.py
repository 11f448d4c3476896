"""Real archives of several crawlers and their known defects."""

from collections import Counter

import pytest

from l3_platform.crawl.record import Broken, Record
from l3_platform.crawl.warc import read_records
from tests.crawl.warc_files import faults, uncovered


@pytest.fixture(scope="module")
def archives(shared_data):
    def read(name: str) -> list[Record | Broken]:
        with open(shared_data / "warc" / name, "rb") as stream:
            return list(read_records(stream, name=name))

    return read


def test_every_file_is_covered_by_what_was_read(archives, shared_data):
    for path in sorted((shared_data / "warc").iterdir()):
        found = archives(path.name)
        assert not uncovered(path.read_bytes(), found), path.name
        assert [item.offset for item in found] == sorted(item.offset for item in found), path.name


def test_the_2008_crawl_has_its_299_responses_and_every_checkable_digest_holds(archives):
    found = archives("aut-example.warc.gz")
    assert Counter(item.record_type for item in found) == {
        "warcinfo": 1,
        "response": 299,
        "request": 261,
        "metadata": 261,
    }
    assert not faults(found)
    assert not [item for item in found if isinstance(item, Record) and item.digest_ok is False]


def test_the_2024_crawls_have_37_responses_whose_digests_hold(archives):
    found = archives("sample-0000.warc.gz") + archives("sample-0001.warc.gz")
    responses = [item for item in found if isinstance(item, Record) and item.record_type == "response"]
    assert len(responses) == 37
    assert all(item.digest_ok for item in responses)
    assert not any(item.url.startswith("<") for item in responses)


def test_the_clipped_record_is_reported_with_what_is_missing(archives):
    (fault,) = archives("resiliparse-clipped.warc.gz")
    assert isinstance(fault, Broken)
    assert (fault.reason, fault.bytes_lost, fault.length) == ("truncated", 88_275 - 75_207, 18_184)
    assert fault.detail.startswith("declared 88,275 bytes, got 75,207")
    assert fault.url.startswith("http://www.houstonpress.com/music/")


def test_lz4_holds_the_records_of_its_gzip_twin(archives):
    def content(name: str) -> list[tuple[str, str, bytes]]:
        return [(item.record_type, item.url, item.payload) for item in archives(name)]

    assert content("resiliparse-warcfile.warc.lz4") == content("resiliparse-warcfile.warc.gz")


def test_clueweb_pages_that_claim_gzip_are_read_as_the_text_they_are(archives):
    pages = [item for item in archives("resiliparse-clueweb-quirk.warc.gz") if item.record_type == "response"]
    assert len(pages) == 29
    claiming = [item for item in pages if item.http_headers.get("content-encoding") == "gzip"]
    assert claiming and all(b"<html" in item.payload.lower() for item in claiming)
    assert {item.date for item in pages} == {None}


def test_records_of_just_the_readers_block_size_are_whole(archives):
    payloads = [item.payload for item in archives("resiliparse-block-sized-records.warc.gz")]
    assert payloads == [letter * 16_229 for letter in (b"a", b"b", b"c")]


def test_a_chunked_page_loses_its_chunk_sizes(archives):
    (response,) = [item for item in archives("warcio-example-iana.org-chunked.warc") if item.record_type == "response"]
    assert response.payload.startswith(b"<!doctype html>")
    assert response.payload.rstrip().endswith(b"</html>")
    assert response.digest_ok is True


def test_a_gzip_body_is_decoded_and_its_digest_holds_before_that(archives):
    (response,) = [item for item in archives("warcio-example-bad-non-chunked.warc.gz") if item.record_type == "response"]
    assert response.payload.startswith(b"<!doctype html>")
    assert response.digest_ok is True


def test_a_block_two_bytes_longer_than_declared_costs_only_its_record(archives):
    found = archives("warcio-example-trunc.warc")
    (fault,) = faults(found)
    assert (fault.reason, fault.offset, fault.detail) == ("wrong_length", 1197, "declared 973 bytes, got 975")
    assert [item.record_type for item in found] == ["warcinfo", "warcinfo", "response", "request"]


def test_a_record_over_two_members_with_a_wrong_length_leaves_the_request_readable(archives):
    fault, request = archives("warcio-example-wrong-chunks.warc.gz")
    assert (fault.reason, fault.bytes_lost) == ("wrong_length", 1614)
    assert request.digest_ok is True


def test_digests_in_hex_and_base64_hold_and_the_wrong_one_does_not(archives):
    assert [item.digest_ok for item in archives("warcio-example-digest.warc")] == [False, True, True, True]


def test_the_arc_file_gives_its_page(archives):
    version, page = archives("warcio-example.arc.gz")
    assert (version.record_type, page.record_type, page.url) == ("warcinfo", "arc", "http://example.com/")
    assert (page.http_status, page.date.year, len(page.payload)) == (200, 2014, 1270)


def test_a_url_with_spaces_is_kept_as_it_is(archives):
    assert archives("warcio-example-space-in-target-uri.warc.gz")[1].url == "file:///example with spaces.png"
