import io
import uuid

import pyarrow as pa
import pytest

from l3_platform.extract.documents import DOCUMENTS, documents_from_warc
from l3_platform.settings import Extract

PROSE = b"<p>The moraine lake lies under a ring of grey peaks, and its water keeps the colour of old glass through the summer.</p>"


def response(body: bytes, *, status: str = "200 OK", media: str = "text/html", url: str = "http://www.lake.org/a") -> bytes:
    http = f"HTTP/1.1 {status}\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    return record("response", http, url, "application/http; msgtype=response")


def record(kind: str, block: bytes, url: str = "", media: str = "text/plain", extra: str = "") -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{uuid.UUID(int=7)}>\r\nWARC-Date: 2024-03-01T12:00:00Z\r\n"
        f"WARC-Target-URI: {url}\r\nContent-Type: {media}\r\n{extra}Content-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


@pytest.fixture
def run(tmp_path):
    def documents(*records: bytes, settings: Extract | None = None):
        path = tmp_path / "x.warc"
        path.write_bytes(b"".join(records))
        output = documents_from_warc(str(path), file="x.warc", snapshot="s1", source="files", settings=settings or Extract())
        output.check("test")
        return output

    return documents


def test_a_page_becomes_a_row_of_the_contract(run):
    row = run(response(PROSE)).table
    assert row.schema == DOCUMENTS
    assert row.select(["snapshot", "source", "domain", "warc_file", "warc_offset", "charset"]).to_pylist() == [
        {"snapshot": "s1", "source": "files", "domain": "lake.org", "warc_file": "x.warc", "warc_offset": 0, "charset": "utf-8"}
    ]


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (record("warcinfo", b"software: x"), "not_response"),
        (response(PROSE, status="404 Not Found"), "status_404"),
        (response(PROSE, status="301 Moved"), "redirect"),
        (response(b"%PDF-1.4", media="application/pdf"), "not_html"),
        (response(b"<p></p>"), "empty_text"),
        (response(b"x" * 2000), "too_large"),
    ],
)
def test_what_is_no_document_is_dropped_by_reason(run, made, reason):
    output = run(made, settings=Extract(max_html_bytes=1000))
    assert (output.counts.dropped, output.table.num_rows) == ({reason: 1}, 0)


def test_plain_text_counts_as_a_document(run):
    output = run(response(b"a <b> c\r\n  d", media="text/plain; charset=utf-8"))
    assert output.table["text"].to_pylist() == ["a <b> c\n  d"]


def test_a_wrong_digest_is_quarantined_with_its_place(run):
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + PROSE
    bad = record(
        "response", http, "http://a.org/", "application/http; msgtype=response", "WARC-Block-Digest: sha1:" + "A" * 32 + "\r\n"
    )
    good = response(PROSE)
    output = run(good, bad)
    assert output.quarantine is not None
    (row,) = output.quarantine.to_pylist()
    assert (row["reason"], row["offset"], row["file"]) == ("digest_mismatch", len(good), "x.warc")


def test_a_page_too_deep_is_quarantined_and_the_next_one_kept(run):
    output = run(response(b"<div>" * 600 + b"x"), response(PROSE))
    assert output.quarantine is not None
    assert (output.quarantine["reason"].to_pylist(), output.counts.kept) == (["too_deep"], 1)


def test_an_unforeseen_failure_of_one_page_costs_one_page(run, monkeypatch):
    monkeypatch.setattr("l3_platform.extract.documents.extract", lambda *_: 1 / 0)
    output = run(response(PROSE))
    assert output.quarantine is not None
    assert output.quarantine["detail"].to_pylist() == ["ZeroDivisionError: division by zero"]


def test_doc_id_depends_on_url_time_and_payload(run):
    ids = (
        run(response(PROSE), response(PROSE), response(PROSE + b" "), response(PROSE, url="http://b.org/"))
        .table["doc_id"]
        .to_pylist()
    )
    assert len(set(ids)) == 3


def test_a_truncated_real_file_reports_what_it_lost(shared_data):
    path = shared_data / "warc" / "resiliparse-clipped.warc.gz"
    output = documents_from_warc(str(path), file=path.name, snapshot="s", source="files", settings=Extract())
    assert output.quarantine is not None
    assert output.quarantine.select(["reason", "bytes_lost"]).to_pylist() == [{"reason": "truncated", "bytes_lost": 13_068}]


def test_real_files_balance_and_are_the_same_twice(shared_data):
    def run_all() -> pa.Table:
        paths = sorted((shared_data / "warc").glob("*"))
        outputs = [documents_from_warc(str(p), file=p.name, snapshot="s", source="files", settings=Extract()) for p in paths]
        for path, output in zip(paths, outputs, strict=True):
            output.check(path.name)
        return pa.concat_tables(output.table for output in outputs)

    first = run_all()
    assert first.num_rows > 150
    assert _bytes(first) == _bytes(run_all())


def _bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
