"""Planted faults: each is reported with what it cost, and its neighbours survive."""

import gzip
import random

import lz4.frame
import pytest
import zstandard

from l3_platform.crawl.record import Broken, Record
from tests.crawl.warc_files import faults, gz, http, numbers, one, page, read, sha1, uncovered, warc


def test_a_file_cut_inside_its_last_member_loses_that_record():
    first, last = gz(page(1)), gz(page(2))
    found = read(first + last[:-400])
    (fault,) = faults(found)
    assert numbers(found) == [1]
    assert (fault.reason, fault.offset, fault.length) == ("truncated", len(first), len(last) - 400)
    assert fault.url == "http://a.example/2"
    assert fault.bytes_lost > 0


def test_a_plain_file_cut_inside_its_last_record_says_how_much_is_missing():
    whole = page(1) + page(2)
    (fault,) = faults(read(whole[:-504]))
    assert (fault.reason, fault.bytes_lost) == ("truncated", 500)
    assert str(fault) == (
        f"test.warc: response record of http://a.example/2 at offset {len(page(1))} is truncated ({fault.detail})"
    )


def test_a_block_that_ends_early_in_a_whole_member_is_truncated():
    found = read(gz(page(1)) + gz(page(2)[:-300]) + gz(page(3)))
    (fault,) = faults(found)
    assert numbers(found) == [1, 3]
    assert (fault.reason, fault.bytes_lost) == ("truncated", 296)


@pytest.mark.parametrize("compress", [bytes, gz], ids=["plain", "gzip"])
@pytest.mark.parametrize("error", [-1500, -2, -1, 1, 2, 4, 1500, 10**9])
def test_a_wrong_length_costs_one_record(compress, error):
    block = http(b"<p>a line of a page</p>\n" * 100)
    wrong = warc(block, declared=len(block) + error)
    data = compress(page(1)) + compress(wrong) + compress(page(2)) + compress(page(3))
    found = read(data)
    (fault,) = faults(found)
    assert numbers(found) == [1, 2, 3]
    assert fault.reason in (("too_large",) if error == 10**9 else ("wrong_length", "truncated"))
    assert (fault.offset, fault.length) == (len(compress(page(1))), len(compress(wrong)))
    assert not uncovered(data, found)


def test_a_matching_digest_forgives_a_missing_blank_line():
    body = b"<p>whole</p>"
    record = warc(http(body), f"WARC-Payload-Digest: {sha1(body)}")
    assert numbers(read(gz(record.replace(b"a.example/", b"a.example/7")[:-2]) + gz(page(2)))) == [7, 2]


def test_a_matching_digest_keeps_a_record_whose_end_is_overwritten():
    data = bytearray(page(1) + page(2) + page(3))
    data[len(page(1)) - 1] = 0x08
    assert numbers(read(bytes(data)))[0] == 1


def test_a_whole_member_before_one_that_holds_no_record_survives():
    undigested = warc(http(b"<p>x</p>"), url="http://a.example/1")
    found = read(gz(undigested) + gz(b"something else\r\n") + gz(page(2)))
    assert numbers(found) == [1, 2]
    assert (faults(found)[0].reason, faults(found)[0].offset) == ("bad_header", len(gz(undigested)))


def test_a_record_in_very_many_members_takes_time_in_proportion():
    whole = warc(http(b"x" * 40_000), url="http://a.example/1")
    assert numbers(read(b"".join(gz(whole[at : at + 2]) for at in range(0, len(whole), 2)) + gz(page(2)))) == [1, 2]


@pytest.mark.parametrize("where", [0, 1, 3, 12, 300, 700, -9, -7, -2])
def test_a_bad_gzip_member_in_the_middle_costs_only_itself(where):
    bad = bytearray(gz(page(2)))
    bad[where] ^= 0x55
    before = gz(page(1))
    data = before + bytes(bad) + gz(page(3)) + gz(page(4))
    found = read(data)
    (fault,) = faults(found)
    assert numbers(found) == [1, 3, 4]
    assert (fault.offset, fault.length) == (len(before), len(bad))
    # With other flags in its header the rest of the member may be a file name that never ends.
    assert fault.reason in (("bad_gzip", "truncated") if where == 3 else ("bad_gzip",))


def test_a_damaged_member_is_named_by_its_url_where_its_head_still_reads():
    bad = bytearray(gz(page(2)))
    bad[-3] ^= 1
    assert faults(read(gz(page(1)) + bytes(bad)))[0].url == "http://a.example/2"


def test_bytes_missing_inside_a_member_do_not_cost_the_next_record():
    bad = gz(page(2))
    found = read(gz(page(1)) + bad[:500] + gz(page(3)) + gz(page(4)))
    assert numbers(found) == [1, 3, 4]
    assert len(faults(found)) == 1


def test_junk_between_members_is_a_fault_of_its_own():
    before = gz(page(1))
    found = read(before + b"junk that is no member" + gz(page(2)))
    (fault,) = faults(found)
    assert numbers(found) == [1, 2]
    assert (fault.offset, fault.length, fault.bytes_lost) == (len(before), 22, 22)


@pytest.mark.parametrize("compress", [lz4.frame.compress, zstandard.compress], ids=["lz4", "zstd"])
def test_a_bad_frame_of_other_compressions_costs_only_itself(compress):
    frames = [bytearray(compress(page(number))) for number in range(4)]
    frames[1][5] ^= 0xFF
    frames[2] = frames[2][:700]
    found = read(b"".join(map(bytes, frames)))
    assert set(numbers(found)) == {0, 3}
    assert faults(found)


def test_a_zstd_file_without_its_dictionary_says_so():
    dictionary = zstandard.train_dictionary(1024, [page(number)[:300] + bytes([number]) * 40 for number in range(200)])
    data = zstandard.ZstdCompressor(dict_data=dictionary).compress(page(1))
    (fault,) = read(data)
    assert isinstance(fault, Broken)
    assert (fault.reason, fault.bytes_lost) == ("bad_zstd", len(data))
    assert "ictionary" in fault.detail


def test_damage_in_a_file_compressed_as_a_whole_keeps_what_came_before():
    data = bytearray(gz(b"".join(page(number) for number in range(60))))
    data[len(data) // 2] ^= 0xFF
    found = read(bytes(data))
    verified = [item for item in found if isinstance(item, Record) and item.digest_ok]
    assert numbers(verified)[:20] == list(range(20))
    assert faults(found)[-1].reason == "bad_gzip"
    assert not uncovered(bytes(data), found)


def test_a_record_without_a_length_is_passed_over():
    nameless = page(2).replace(b"Content-Length", b"Content-Longth", 1)
    found = read(page(1) + nameless + page(3))
    (fault,) = faults(found)
    assert numbers(found) == [1, 3]
    assert (fault.reason, fault.detail) == ("bad_header", "no Content-Length")


def test_a_header_that_never_ends_is_bounded():
    found = read(b"WARC/1.1\r\n" + b"X-A: b\r\n" * 50_000 + b"\r\n" + page(1))
    assert faults(found)[0].reason == "bad_header"
    assert numbers(found) == [1]


def test_a_member_that_decodes_to_far_too_much_is_a_bomb():
    bomb = gz(warc(http(bytes(3 << 20)), url="http://a.example/9"))
    found = read(gz(page(1)) + bomb + gz(page(2)), max_record_bytes=1 << 20)
    (fault,) = faults(found)
    assert numbers(found) == [1, 2]
    assert (fault.reason, fault.url) == ("bomb", "http://a.example/9")


def test_a_record_over_the_limit_that_is_no_bomb_is_too_large():
    body = random.Random(1).randbytes(3 << 20)
    found = read(gz(page(1)) + gz(warc(http(body))) + gz(page(2)), max_record_bytes=1 << 20)
    assert (numbers(found), faults(found)[0].reason) == ([1, 2], "too_large")


def test_large_records_do_not_stay_in_memory():
    import io
    import tracemalloc

    from l3_platform.crawl.warc import read_records

    data = gz(page(1)) + b"".join(gzip.compress(warc(http(b"ab" * (12 << 20))), 1, mtime=0) for _ in range(3))
    tracemalloc.start()
    reasons = [item.reason for item in read_records(io.BytesIO(data), max_record_bytes=1 << 20) if isinstance(item, Broken)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(reasons) == 3
    assert peak < 24 << 20


def _mutant(data: bytes, random: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at, size = random.randrange(len(changed)), random.randint(1, 60)
        match random.randrange(5):
            case 0:
                changed[at] ^= 1 << random.randrange(8)
            case 1:
                changed[at : at + size] = random.randbytes(size)
            case 2:
                del changed[at : at + size]
            case 3:
                changed[at:at] = changed[max(at - size, 0) : at]
            case 4:
                del changed[max(at, 20) :]
    return bytes(changed)


@pytest.mark.parametrize("kind", ["plain", "gzip", "whole", "lz4", "zstd"])
def test_no_mutation_stops_the_reader_or_makes_bytes_vanish(kind):
    pages = [page(number, 700) for number in range(6)]
    compress = {"gzip": gz, "lz4": lz4.frame.compress, "zstd": zstandard.compress}.get(kind, bytes)
    data = b"".join(map(compress, pages))
    data = gz(data) if kind == "whole" else data
    source = random.Random(kind)
    for _ in range(120):
        mutant = _mutant(data, source)
        found = read(mutant)
        offsets = [item.offset for item in found]
        assert offsets == sorted(offsets)
        assert all(item.length > 0 and item.offset + item.length <= len(mutant) for item in found)
        assert not uncovered(mutant, found).strip(b"\r\n\0")


def test_what_a_mutant_still_yields_as_verified_is_what_was_written():
    pages = [page(number, 700) for number in range(6)]
    bodies = {one(record).payload for record in pages}  # type: ignore[union-attr]
    source = random.Random(5)
    for _ in range(150):
        for item in read(_mutant(b"".join(pages), source)):
            if isinstance(item, Record) and item.digest_ok:
                assert item.payload in bodies
