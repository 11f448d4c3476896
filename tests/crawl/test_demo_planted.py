"""The ledger of the demo crawl tells the truth: each page is what its row says, seen through the real reader and extractor."""

import json
import re
from collections import Counter
from io import BytesIO
from itertools import combinations

import pytest

from l3_platform.crawl.demo.planted import LISTED_DOMAINS, NEAR_DUPLICATES
from l3_platform.crawl.demo.web import build
from l3_platform.crawl.record import Broken, Record
from l3_platform.crawl.warc import read_records
from l3_platform.extract import extract

KINDS = {
    "newer_version", "exact_duplicate", "near_duplicate", "repeated_line", "log_dump", "spam", "listed_domain", "blocked_word",
    "pii", "pii_dense", "language", "math", "broken", "charset", "noise", "token_dump",
}  # fmt: skip


class Web:
    """A small demo web: records by snapshot and URL, texts as extracted, the ledger."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], Record] = {}
        self.found: dict[tuple[str, int], Record | Broken] = {}
        self.ledger: list[dict] = []
        for name, snapshot in build(150, 2, 1).items():
            self.ledger += snapshot.ledger.to_pylist()
            for file, data in snapshot.files.items():
                for record in read_records(BytesIO(data), name=file):
                    self.found[file, record.offset] = record
                    if isinstance(record, Record) and record.record_type == "response":
                        self.records[name, record.url] = record

    def text(self, snapshot: str, url: str) -> str:
        record = self.records[snapshot, url]
        return extract(record.payload, url, record.http_headers["content-type"].partition("charset=")[2]).text

    def rows(self, kind: str, **fields: str) -> list[dict]:
        return [r for r in self.ledger if r["kind"] == kind and all(r[name] == value for name, value in fields.items())]

    def twin(self, row: dict) -> dict:
        """The row of the other page of a pair."""
        return next(r for r in self.rows(row["kind"]) if r["url"] == row["twin_url"] and r is not row)


@pytest.fixture(scope="module")
def web() -> Web:
    return Web()


def test_every_kind_is_planted_even_in_a_small_web(web):
    assert {row["kind"] for row in web.ledger} == KINDS


def test_snapshot_and_url_identify_a_page(web):
    assert Counter((r["snapshot"], r["url"]) for r in web.ledger).most_common(1)[0][1] == 1


def test_every_row_names_the_offset_of_its_record(web):
    for row in web.ledger:
        found = web.found[row["warc_file"], row["warc_offset"]]
        assert row["kind"] == "broken" or found.url == row["url"]


def test_broken_records_are_broken_and_no_others(web):
    broken = {(r["warc_file"], r["warc_offset"]) for r in web.rows("broken")}
    assert broken == {place for place, r in web.found.items() if isinstance(r, Broken) or r.digest_ok is False}


def test_the_newer_version_is_fetched_later_and_differs_a_little(web):
    for older in web.rows("newer_version", expect="drop"):
        newer = web.twin(older)
        assert web.records["demo-2", newer["url"]].date > web.records["demo-1", older["url"]].date
        assert 0.5 < older["jaccard"] <= 1.0


def test_a_copy_that_must_go_is_older_than_its_original(web):
    for copy in [*web.rows("exact_duplicate", expect="drop"), *web.rows("near_duplicate", expect="drop")]:
        original = web.twin(copy)
        dates = [web.records[row["snapshot"], row["url"]].date for row in (copy, original)]
        assert dates[0] < dates[1]


def test_exact_duplicates_have_the_same_text(web):
    for copy in web.rows("exact_duplicate", expect="drop"):
        original = web.twin(copy)
        assert web.text(copy["snapshot"], copy["url"]) == web.text(original["snapshot"], original["url"])


@pytest.mark.parametrize(("target", "expect"), NEAR_DUPLICATES)
def test_near_duplicates_have_the_similarity_of_the_ledger(web, target, expect):
    copies = web.rows("near_duplicate", detail=str(target), expect=expect)
    assert copies
    for copy in copies:
        twin = web.twin(copy)
        true = jaccard(*(shingles(web.text(row["snapshot"], row["url"])) for row in (copy, twin)))
        assert copy["jaccard"] == pytest.approx(target, abs=0.02)
        assert true == pytest.approx(copy["jaccard"], abs=0.02)


def test_no_other_pages_resemble_each_other(web):
    planted = {(r["snapshot"], r["url"]) for r in web.ledger if r["kind"] != "repeated_line"}
    pages = [shingles(web.text(*key)) for key, r in web.records.items() if key not in planted and r.http_status == 200]
    assert len(pages) > 80
    assert max(jaccard(a, b) for a, b in combinations(pages, 2)) < 0.4


def test_a_repeated_line_stands_alone_in_more_than_six_pages(web):
    rows = web.rows("repeated_line")
    for line in {row["detail"] for row in rows}:
        holding = [row for row in rows if line in web.text(row["snapshot"], row["url"]).split("\n")]
        assert len(holding) > 6


def test_the_formulas_of_the_ledger_are_in_the_text(web):
    for row in web.rows("math"):
        text = web.text(row["snapshot"], row["url"])
        assert [tex for tex in json.loads(row["detail"]) if tex not in text] == []


def test_a_misdeclared_charset_is_read_right(web):
    for row in web.rows("charset"):
        assert not row["detail"].isascii()
        assert row["detail"] in web.text(row["snapshot"], row["url"])


def test_personal_data_is_in_the_text_and_passes_its_check_digits(web):
    values = [(row, value) for kind in ("pii", "pii_dense") for row in web.rows(kind) for value in json.loads(row["detail"])]
    for row, value in values:
        assert value in web.text(row["snapshot"], row["url"])
        bare = value.replace(" ", "")
        if bare.isdigit():
            assert luhn(bare), value
        elif re.fullmatch(r"[A-Z]{2}\d{2}[A-Z0-9]+", bare):
            assert int("".join(str(int(char, 36)) for char in bare[4:] + bare[:4])) % 97 == 1, value
    assert len(values) > 10


def test_synthetic_pages_say_so(web):
    for kind in ("pii", "pii_dense", "language", "charset", "spam", "log_dump", "token_dump"):
        for row in web.rows(kind):
            assert b'<meta name="synthetic" content="true">' in web.records[row["snapshot"], row["url"]].payload


def test_listed_pages_are_at_listed_domains(web):
    assert all(row["url"].split("/")[2] in LISTED_DOMAINS for row in web.rows("listed_domain"))


def test_noise_is_no_page(web):
    for row in web.rows("noise"):
        record = web.records[row["snapshot"], row["url"]]
        html = record.http_status == 200 and record.http_headers["content-type"].startswith("text/html")
        assert not html or not web.text(row["snapshot"], row["url"])


def shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def jaccard(a: set, b: set) -> float:
    return len(a & b) / len(a | b)


def luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0
