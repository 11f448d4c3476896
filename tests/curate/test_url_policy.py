import uuid

import pyarrow as pa
import pytest

from l3_platform.curate import canonical_url, registered_domain, url_policy
from l3_platform.curate.url_policy import SIDECAR
from l3_platform.settings import UrlPolicy


def documents(*urls: str) -> pa.Table:
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([uuid.UUID(int=i).bytes for i in range(len(urls))], pa.binary(16)))
    return pa.table({"doc_id": ids, "url": list(urls)})


def blocked(*urls: str, settings: UrlPolicy | None = None) -> list[str | None]:
    return url_policy(documents(*urls), settings or UrlPolicy()).column("blocked_by").to_pylist()


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("HTTP://Example.COM:80/A", "http://example.com/A"),
        ("https://a.org:443/", "https://a.org/"),
        ("https://a.org:8443", "https://a.org:8443/"),
        ("http://a.org/x/#part", "http://a.org/x"),
        ("http://a.org/?b=2&a=1&utm_source=mail&fbclid=z", "http://a.org/?a=1&b=2"),
        ("http://a.org/x/index.html", "http://a.org/x"),
        ("http://a.org/a/../b//c/./d", "http://a.org/b/c/d"),
        ("http://a.org/%7Eme/caf%c3%a9", "http://a.org/~me/caf%C3%A9"),
        ("http://a.org/x;jsessionid=12AB", "http://a.org/x"),
        ("<http://user:secret@a.org/x>", "http://a.org/x"),
        ("http://bücher.de/", "http://xn--bcher-kva.de/"),
        ("not a url", "not a url"),
        ("http://[broken/", "http://[broken/"),
    ],
)
def test_one_page_has_one_spelling(url, canonical):
    assert canonical_url(url) == canonical


def test_canonicalisation_is_idempotent():
    urls = ["http://a.org/?q=a%20b&q=c%2Bd", "http://a.org/a%2Fb?x=%26", "http://a.org/x/?", "http://a.org/%25"]
    assert [canonical_url(canonical_url(url)) for url in urls] == [canonical_url(url) for url in urls]


def test_an_escaped_slash_does_not_become_a_path_separator():
    assert canonical_url("http://a.org/a%2Fb") != canonical_url("http://a.org/a/b")


def test_queries_that_differ_stay_apart():
    assert canonical_url("http://a.org/?id=1") != canonical_url("http://a.org/?id=2")


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("a.b.example.co.uk", "example.co.uk"),
        ("www.lake.org", "lake.org"),
        ("10.0.0.1", "10.0.0.1"),
        ("me.github.io", "me.github.io"),
    ],
)
def test_the_registered_domain_knows_second_level_suffixes(host, domain):
    assert registered_domain(host) == domain


def test_a_listed_domain_blocks_its_subdomains_but_no_longer_name(tmp_path):
    path = tmp_path / "bad.txt"
    path.write_text("evil.com\n")
    urls = ("http://evil.com/", "http://www.x.evil.com/a", "http://notevil.com/")
    settings = UrlPolicy(domain_lists=(str(path),))
    assert blocked(*urls, settings=settings) == ["domain_list:bad", "domain_list:bad", None]


def test_a_listed_url_blocks_the_pages_under_it_at_whole_segments(tmp_path):
    path = tmp_path / "urls.txt"
    path.write_text("a.org/forum/bad\n")
    urls = ("https://www.a.org/forum/bad/7?x=1", "https://a.org/forum/badge", "https://a.org/forum/bad/")
    assert blocked(*urls, settings=UrlPolicy(url_lists=(str(path),))) == ["url_list", None, "url_list"]


def test_a_category_of_ut1_blocks_by_domains_urls_and_expressions(tmp_path):
    (tmp_path / "games").mkdir()
    (tmp_path / "games" / "domains").write_text("evil.com\n")
    (tmp_path / "games" / "urls").write_text("a.org/forum/bad\n")
    (tmp_path / "games" / "expressions").write_text("(^|[-.?+=/_0-9])(poker|roulette)([-.?+=/_0-9]|$)\n")
    urls = ("http://x.evil.com/", "http://a.org/forum/bad/7", "http://b.org/free-Poker/", "http://b.org/pokers")
    settings = UrlPolicy(ut1_folders=(str(tmp_path / "games"),))
    assert blocked(*urls, settings=settings) == ["domain_list:games", "url_list", "expression:games", None]


def test_a_folder_without_lists_and_a_broken_expression_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="ut1_folders"):
        blocked("http://a.org/", settings=UrlPolicy(ut1_folders=(str(tmp_path),)))
    (tmp_path / "expressions").write_text("(poker\n")
    with pytest.raises(ValueError, match=r"\(poker"):
        blocked("http://a.org/", settings=UrlPolicy(ut1_folders=(str(tmp_path),)))


def test_a_listed_word_blocks_as_a_whole_word_only():
    assert blocked("http://a.org/best-casino-2024", "http://a.org/casinos", "http://xxx.a.org/") == [
        "word:casino",
        None,
        "word:xxx",
    ]


def test_the_sidecar_has_the_documents_order_and_schema():
    table = documents("http://b.org/", "http://a.org/")
    sidecar = url_policy(table, UrlPolicy())
    assert sidecar.schema == SIDECAR
    assert sidecar.column("doc_id").to_pylist() == table.column("doc_id").to_pylist()


def test_real_block_lists_block_what_they_list(shared_data):
    folder = shared_data / "wordlists"
    settings = UrlPolicy(
        domain_lists=(str(folder / "ut1-gambling-domains.txt"), str(folder / "ut1-mixed-adult-domains.txt")),
        url_lists=(str(folder / "ut1-adult-urls.txt"),),
        words=(),
    )
    listed = [f"https://{line}/page" for line in (folder / "ut1-gambling-domains.txt").read_text().split()[:500]]
    urls = [f"http://{line}" for line in (folder / "ut1-adult-urls.txt").read_text().split()[:500]]
    assert all(blocked(*listed, *urls, settings=settings))
    assert blocked("https://docs.python.org/3/library/os.html", "https://en.wikipedia.org/wiki/Lake", settings=settings) == [
        None,
        None,
    ]


def test_a_missing_list_is_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt"):
        blocked("http://a.org/", settings=UrlPolicy(domain_lists=("nowhere.txt",)))


def test_the_built_in_list_blocks_every_listed_domain_of_the_demo():
    planted = pytest.importorskip("l3_platform.crawl.demo.planted")
    urls = [f"http://www.{domain}/page" for domain in planted.LISTED_DOMAINS]
    assert blocked(*urls) == ["domain_list:listed_domains"] * len(urls)
