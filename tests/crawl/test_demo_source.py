"""The demo source: the same bytes everywhere, whole files, and real text enough to train on."""

import hashlib
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest

from l3_platform.crawl.demo.source import DemoSource
from l3_platform.crawl.sources import CrawlError, Source, WarcFile
from l3_platform.crawl.warc import read_records
from l3_platform.extract import extract
from l3_platform.settings import Crawl

SMALL = Crawl(demo_pages=150, demo_warc_files=2)
_DIGESTS = """
import hashlib
from l3_platform.crawl.demo.web import build
for name, snapshot in build(50, 2, 1).items():
    for file, data in snapshot.files.items():
        print(name, file, hashlib.sha256(data).hexdigest(), snapshot.ledger.to_pylist())
"""


@pytest.fixture(scope="module")
def source() -> DemoSource:
    return DemoSource(SMALL)


def responses(source: DemoSource, folder: Path):
    for snapshot in source.snapshots():
        for file in source.listing(snapshot):
            data = Path(source.fetch(snapshot, file, str(folder)).path).read_bytes()
            yield from (record for record in read_records(BytesIO(data)) if record.record_type in ("response", ""))


def test_another_process_with_another_hash_seed_makes_the_same_bytes():
    printed = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        printed.append(subprocess.run([sys.executable, "-c", _DIGESTS], env=environment, check=True, capture_output=True).stdout)
    assert printed[0] == printed[1]
    assert printed[0].count(b".warc.gz") > 4


def test_it_is_a_source(source):
    typed: Source = source
    assert typed.snapshots() == ["demo-1", "demo-2"]


def test_every_listed_file_can_be_fetched_and_matches_its_digest(source, tmp_path):
    for snapshot in source.snapshots():
        assert len(source.listing(snapshot)) == SMALL.demo_warc_files
        for file in source.listing(snapshot):
            fetched = source.fetch(snapshot, file, str(tmp_path))
            data = Path(fetched.path).read_bytes()
            assert (fetched.bytes, fetched.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"demo-{s}-{n:05d}.warc.gz" for s in (1, 2) for n in (0, 1)]


def test_both_snapshots_together_hold_the_wanted_number_of_pages(source, tmp_path):
    assert len(list(responses(source, tmp_path))) == SMALL.demo_pages


def test_the_identity_tells_snapshots_and_settings_apart(source):
    other = DemoSource(Crawl(demo_pages=151, demo_warc_files=2))
    identities = [source.identity("demo-1"), source.identity("demo-2"), other.identity("demo-1")]
    assert len(set(identities)) == 3
    assert DemoSource(SMALL).identity("demo-1") == identities[0]


def test_an_unknown_snapshot_is_named_with_those_there_are(source):
    with pytest.raises(CrawlError, match=r"'demo-3' is not in the demo crawl; it has demo-1, demo-2"):
        source.listing("demo-3")


def test_an_unknown_file_is_named(source, tmp_path):
    with pytest.raises(CrawlError, match=r"no file 'x\.warc\.gz'"):
        source.fetch("demo-1", WarcFile("x.warc.gz", ""), str(tmp_path))


@pytest.mark.exhaustive
def test_three_thousand_pages_hold_eight_megabytes_of_text(tmp_path):
    source = DemoSource(Crawl(demo_pages=3000))
    pages = [r for r in responses(source, tmp_path) if getattr(r, "http_status", None) == 200]
    html = [r for r in pages if r.http_headers["content-type"].startswith("text/html")]
    texts = [extract(r.payload, r.url, r.http_headers["content-type"].partition("charset=")[2]).text for r in html]
    assert sum(len(text.encode()) for text in texts) > 8e6
