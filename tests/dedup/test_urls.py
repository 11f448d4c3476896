"""The most recent version of a URL stays, wherever the versions lie."""

from l3_platform.dedup.urls import build_url_versions


def page(url: str, day: int, text: str = "text") -> dict:
    return {"url": url, "day": day, "text": text}


def versions_of(corpus, settings) -> dict:
    dataset = corpus.build(build_url_versions, settings, url_policy=corpus.url_policy)
    return {row["doc_id"]: row for row in dataset.read().to_pylist()}


def test_a_newer_version_of_a_url_wins(corpus, dedup_settings, id_of):
    old, new = page("http://a.example/x", 1), page("http://A.example/X", 9)
    rows = versions_of(corpus([[old]], [[new]]), dedup_settings())
    assert [(rows[id_of(p)]["newest"], rows[id_of(p)]["versions"]) for p in (old, new)] == [(False, 2), (True, 2)]


def test_an_older_version_names_the_newest(corpus, dedup_settings, id_of):
    old, new = page("http://a.example/x", 1), page("http://a.example/x", 9)
    rows = versions_of(corpus([[new], [old]]), dedup_settings())
    assert rows[id_of(old)]["newest_doc_id"] == id_of(new)


def test_versions_of_the_same_moment_are_decided_by_doc_id(corpus, dedup_settings, id_of):
    twins = [page("http://a.example/x", 1, text) for text in ("one", "two", "three")]
    rows = versions_of(corpus([[*twins]]), dedup_settings())
    assert [key for key, row in rows.items() if row["newest"]] == [min(id_of(twin) for twin in twins)]


def test_the_same_record_read_twice_stays_once(corpus, dedup_settings):
    twice = page("http://a.example/x", 1)
    made = corpus([[twice, page("http://b.example", 1)], [twice]])
    dataset = made.build(build_url_versions, dedup_settings(), url_policy=made.url_policy)
    assert sorted(dataset.read()["newest"].to_pylist()) == [False, True, True]


def test_rows_lie_beside_their_documents(corpus, dedup_settings, id_of):
    made = corpus([[page(f"http://a.example/{n % 3}", n) for n in range(7)], []], [[page("http://a.example/0", 0)]])
    dataset = made.build(build_url_versions, dedup_settings(), url_policy=made.url_policy)
    assert [shard.name for shard in dataset.shards] == ["demo-1.part-00000", "demo-1.part-00001", "demo-2.part-00000"]
    assert dataset.read()["doc_id"].to_pylist() == [id_of(p) for p in made.pages]
