"""The `common_crawl` source and its downloads, against a server that serves the same layout and misbehaves."""

import gzip
import hashlib
import time

import fsspec
import pytest

from l3_platform import settings
from l3_platform.crawl import download
from l3_platform.crawl.sources import CrawlError, from_settings
from tests.crawl.crawl_server import Server, serve
from tests.crawl.warc_files import gz, numbers, page, read

SNAPSHOT, OLDER = "CC-MAIN-2024-10", "CC-MAIN-2023-50"
PATHS = [f"crawl-data/{SNAPSHOT}/segments/1/warc/CC-MAIN-0000{number}.warc.gz" for number in range(3)]
FIRST = PATHS[0]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    files = {path: b"".join(gz(page(at)) for at in range(8)) for path in PATHS}
    files[f"crawl-data/{SNAPSHOT}/warc.paths.gz"] = gzip.compress("\n".join(PATHS).encode() + b"\n")
    with serve(files) as running:
        yield running


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """The seconds that were waited, without waiting."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def source(server: Server, **options):
    crawl = {"source": "common_crawl", "snapshots": (SNAPSHOT,), "base_url": server.url, "warc_files": 2, "retries": 3}
    return from_settings(settings.Crawl(**(crawl | options)))


def fetch(server: Server, folder, **options):
    chosen = source(server, **options)
    return chosen.fetch(SNAPSHOT, chosen.listing(SNAPSHOT)[0], str(folder))


def test_snapshots_are_given_oldest_first(server):
    assert source(server, snapshots=(SNAPSHOT, OLDER)).snapshots() == [OLDER, SNAPSHOT]


def test_the_listing_is_the_first_files_of_the_snapshot(server):
    listed = source(server).listing(SNAPSHOT)
    assert [(file.name, file.location) for file in listed] == [
        (path.rsplit("/", 1)[1], f"{server.url}/{path}") for path in PATHS[:2]
    ]


def test_a_fetched_file_is_the_servers_file(server, tmp_path):
    fetched = fetch(server, tmp_path)
    data = server.files[FIRST]
    assert (fetched.bytes, fetched.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    with open(fetched.path, "rb") as stream:
        assert numbers(read(stream.read())) == list(range(8))


def test_a_cut_connection_is_resumed_where_it_broke(server, tmp_path):
    server.cut[FIRST] = 4
    fetched = fetch(server, tmp_path)
    assert fetched.sha256 == hashlib.sha256(server.files[FIRST]).hexdigest()
    assert [asked for _, path, asked in server.requests if path == FIRST] == [
        "",
        "bytes=2000-",
        "bytes=4000-",
        "bytes=6000-",
        "bytes=8000-",
    ]


def test_a_part_left_by_an_earlier_process_is_gone_on_with(server, tmp_path):
    server.cut[FIRST] = 1
    server.refuse[FIRST] = 0
    target = tmp_path / "CC-MAIN-00000.warc.gz"
    with pytest.raises(CrawlError):
        download.download(f"{server.url}/{FIRST}", target, retries=0)
    assert not target.exists()
    assert fetch(server, tmp_path).bytes == len(server.files[FIRST])
    assert server.requests[-1][2] == "bytes=2000-"
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_a_part_of_another_version_is_thrown_away(server, tmp_path):
    server.cut[FIRST] = 1
    target = tmp_path / "CC-MAIN-00000.warc.gz"
    with pytest.raises(CrawlError):
        download.download(f"{server.url}/{FIRST}", target, retries=0)
    server.files[FIRST] = gz(page(99)) * 3
    assert fetch(server, tmp_path).sha256 == hashlib.sha256(server.files[FIRST]).hexdigest()


def test_a_server_without_ranges_is_read_from_the_start_again(server, tmp_path):
    server.ranges = False
    server.cut[FIRST] = 2
    assert fetch(server, tmp_path).sha256 == hashlib.sha256(server.files[FIRST]).hexdigest()


def test_refusals_are_waited_out_as_the_server_asks(server, tmp_path, waits):
    server.refuse[FIRST] = 3
    assert fetch(server, tmp_path).bytes == len(server.files[FIRST])
    assert waits == [3.0, 3.0, 3.0]


def test_waits_double_where_the_server_asks_for_none(tmp_path, waits, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve({}) as gone:
        url = gone.url
    with pytest.raises(CrawlError, match="gave up after 5 attempts"):
        download.download(f"{url}/x.warc.gz", tmp_path / "x.warc.gz", retries=4)
    assert waits == [1.0, 2.0, 4.0, 8.0]


def test_giving_up_names_the_place_and_the_next_step(server, tmp_path):
    server.refuse[FIRST] = 100
    with pytest.raises(CrawlError, match=rf"{FIRST}: gave up after 4 attempts \(HTTP 503 .*raise crawl.retries"):
        fetch(server, tmp_path)
    assert not (tmp_path / "CC-MAIN-00000.warc.gz").exists()


def test_bytes_that_do_not_match_the_servers_digest_are_fetched_again(server, tmp_path):
    server.corrupt[FIRST] = 1
    assert fetch(server, tmp_path).sha256 == hashlib.sha256(server.files[FIRST]).hexdigest()


def test_bytes_that_never_match_end_in_an_error_and_no_file(server, tmp_path):
    server.corrupt[FIRST] = 100
    with pytest.raises(CrawlError, match="the md5 of the file is"):
        fetch(server, tmp_path)
    assert not (tmp_path / "CC-MAIN-00000.warc.gz").exists()


def test_a_file_already_there_is_not_fetched_again(server, tmp_path):
    fetch(server, tmp_path)
    before = len(server.requests)
    assert fetch(server, tmp_path).bytes == len(server.files[FIRST])
    assert [path for _, path, _ in server.requests[before:]] == [f"crawl-data/{SNAPSHOT}/warc.paths.gz"]


def test_files_are_fetched_to_object_storage_too(server):
    fetched = fetch(server, "memory://bucket/warc")
    assert fetched.path == "memory://bucket/warc/CC-MAIN-00000.warc.gz"
    with fsspec.open(fetched.path, "rb") as stream:
        assert stream.read() == server.files[FIRST]  # type: ignore[union-attr]


def test_an_unknown_id_is_one_clear_error_without_retries(server, waits):
    with pytest.raises(CrawlError, match=f"{OLDER}/warc.paths.gz: HTTP 404 .*check"):
        source(server, snapshots=(OLDER,)).listing(OLDER)
    assert not waits


def test_a_snapshot_that_is_not_configured_is_named(server):
    with pytest.raises(CrawlError, match=f"'{OLDER}' is not in this crawl; it has {SNAPSHOT}"):
        source(server).listing(OLDER)


def test_a_list_that_is_no_gzip_is_one_clear_error(server):
    server.files[f"crawl-data/{SNAPSHOT}/warc.paths.gz"] = b"<html>captive portal</html>"
    with pytest.raises(CrawlError, match="is no gzip list of paths"):
        source(server).listing(SNAPSHOT)


def test_an_empty_list_is_one_clear_error(server):
    server.files[f"crawl-data/{SNAPSHOT}/warc.paths.gz"] = gzip.compress(b"\n")
    with pytest.raises(CrawlError, match="lists no WARC file"):
        source(server).listing(SNAPSHOT)


def test_no_snapshots_at_all_is_one_clear_error():
    with pytest.raises(CrawlError, match=r"crawl\.snapshots is empty"):
        from_settings(settings.Crawl(source="common_crawl"))


def test_identity_changes_with_the_files_taken_and_nothing_else(server):
    assert source(server).identity(SNAPSHOT) == source(server, retries=1).identity(SNAPSHOT)
    assert source(server).identity(SNAPSHOT) != source(server, warc_files=3).identity(SNAPSHOT)
