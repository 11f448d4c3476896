"""The `files` source: local files, globs, folders, object storage and URLs."""

import hashlib
import os

import fsspec
import pytest

from l3_platform import settings
from l3_platform.crawl.sources import CrawlError, from_settings
from tests.crawl.crawl_server import serve
from tests.crawl.warc_files import gz, page


def source(*paths):
    return from_settings(settings.Crawl(source="files", paths=tuple(map(str, paths)), snapshot="mine"))


@pytest.fixture
def folder(tmp_path):
    for name in ("b.warc.gz", "a.warc", "c.arc.lz4", "notes.txt", "sub/d.WARC.zst"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(gz(page(len(name))))
    return tmp_path


def names(*paths):
    return [file.name for file in source(*paths).listing("mine")]


def test_a_folder_gives_the_archives_under_it_sorted_by_name(folder):
    assert names(folder) == ["a.warc", "b.warc.gz", "c.arc.lz4", "d.WARC.zst"]


def test_a_glob_gives_its_matches_that_are_named_like_archives(folder):
    assert names(folder / "*") == ["a.warc", "b.warc.gz", "c.arc.lz4"]


def test_a_file_named_outright_may_have_any_name(folder):
    assert names(folder / "notes.txt") == ["notes.txt"]


def test_a_file_that_two_patterns_match_is_listed_once(folder):
    assert names(folder / "*.warc*", folder / "a.warc") == ["a.warc", "b.warc.gz"]


def test_equal_names_are_told_apart_by_their_folders(folder):
    for place in ("x", "y"):
        (folder / place).mkdir()
        (folder / place / "a.warc").write_bytes(b"")
    assert names(folder / "?" / "a.warc", folder / "b.warc.gz") == ["b.warc.gz", "x/a.warc", "y/a.warc"]


def test_a_name_with_brackets_is_no_glob_where_the_file_exists(folder):
    (folder / "odd[1].warc").write_bytes(b"")
    assert names(folder / "odd[1].warc") == ["odd[1].warc"]


def test_a_pattern_that_matches_nothing_is_one_clear_error(folder):
    with pytest.raises(CrawlError, match=r"nothing matches '.*absent-\*.warc.gz'"):
        source(folder / "a.warc", folder / "absent-*.warc.gz").listing("mine")


def test_a_glob_without_archives_is_one_clear_error(folder):
    with pytest.raises(CrawlError, match="none of the 1 files"):
        source(folder / "*.txt").listing("mine")


def test_no_paths_at_all_is_one_clear_error():
    with pytest.raises(CrawlError, match=r"crawl\.paths is empty"):
        source().listing("mine")


def test_the_snapshot_bears_the_configured_name(folder):
    assert source(folder).snapshots() == ["mine"]
    with pytest.raises(CrawlError, match="'other' is not in this crawl"):
        source(folder).listing("other")


def test_local_files_stay_where_they_are(folder, tmp_path):
    chosen = source(folder / "a.warc")
    fetched = chosen.fetch("mine", chosen.listing("mine")[0], str(tmp_path / "warc"))
    data = (folder / "a.warc").read_bytes()
    assert (fetched.path, fetched.bytes) == (str(folder / "a.warc"), len(data))
    assert fetched.sha256 == hashlib.sha256(data).hexdigest()
    assert not (tmp_path / "warc").exists()


def test_a_listed_file_that_is_gone_is_named(folder, tmp_path):
    chosen = source(folder / "a.warc")
    (file,) = chosen.listing("mine")
    (folder / "a.warc").unlink()
    with pytest.raises(CrawlError, match="was listed and is gone"):
        chosen.fetch("mine", file, str(tmp_path))


def test_identity_changes_when_a_file_is_rewritten(folder):
    before = source(folder).identity("mine")
    assert source(folder).identity("mine") == before
    os.utime(folder / "a.warc", (1, 1))
    assert source(folder).identity("mine") != before


def test_identity_changes_when_a_file_is_added(folder):
    before = source(folder).identity("mine")
    (folder / "new.warc").write_bytes(b"")
    assert source(folder).identity("mine") != before


def test_object_storage_is_read_in_place():
    with fsspec.open("memory://crawl/one.warc.gz", "wb") as stream:
        stream.write(gz(page(1)))  # type: ignore[union-attr]
    chosen = source("memory://crawl/*.warc.gz")
    fetched = chosen.fetch("mine", chosen.listing("mine")[0], "memory://elsewhere")
    with fsspec.open(fetched.path, "rb") as stream:
        assert stream.read() == gz(page(1))  # type: ignore[union-attr]
    assert fetched.path.startswith("memory://")


def test_a_url_is_listed_with_its_size_and_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    data = gz(page(1))
    with serve({"some/x.warc.gz": data}) as server:
        chosen = source(f"{server.url}/some/x.warc.gz")
        (file,) = chosen.listing("mine")
        assert (file.name, file.bytes) == ("x.warc.gz", len(data))
        before = chosen.identity("mine")
        fetched = chosen.fetch("mine", file, str(tmp_path / "warc"))
        assert (tmp_path / "warc" / "x.warc.gz").read_bytes() == data
        assert fetched.path == f"{tmp_path}/warc/x.warc.gz"
        server.files["some/x.warc.gz"] = gz(page(2))
        assert source(f"{server.url}/some/x.warc.gz").identity("mine") != before
