"""Document deduplication over shards and snapshots."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from l3_platform.dedup.minhash import pieces
from l3_platform.dedup.shingles import jaccard, shingles
from l3_platform.dedup.urls import build_url_versions
from l3_platform.lineage import Catalog
from l3_platform.settings import load
from l3_platform.store import Dataset, Output


def text(start: int, end: int) -> str:
    return " ".join(f"w{n}" for n in range(start, end))


def page(name: str, body: str, day: int = 0) -> dict:
    return {"url": f"http://{name}.example", "text": body, "day": day}


def deduplicated(corpus, settings) -> Dataset:
    return corpus.duplicates(settings)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*")) if path.is_file()}


ORIGINAL, COPY = page("a", text(0, 300), 1), page("b", text(2, 302), 5)
OTHER, SHORT = page("c", text(5000, 5300), 2), page("d", "three short words", 3)
STALE = page("B", text(0, 301), 0)  # an older version of COPY's URL
SPREAD = ([[ORIGINAL, OTHER], [STALE]], [[], [SHORT, COPY]])


@pytest.fixture(scope="module")
def spread(corpus, dedup_settings):
    dataset = deduplicated(corpus(*SPREAD), dedup_settings())
    return dataset, {row["doc_id"]: row for row in dataset.read().to_pylist()}


def test_the_newest_document_of_a_cluster_stays(spread, id_of):
    _, rows = spread
    assert rows[id_of(ORIGINAL)]["cluster"] == id_of(COPY)
    assert [rows[id_of(p)]["representative"] for p in (ORIGINAL, COPY)] == [False, True]


def test_the_similarity_with_the_representative_is_the_true_one(spread, id_of):
    _, rows = spread
    assert rows[id_of(ORIGINAL)]["jaccard"] == jaccard(shingles(ORIGINAL["text"]), shingles(COPY["text"]))


def test_a_document_like_no_other_represents_itself(spread, id_of):
    _, rows = spread
    assert rows[id_of(SHORT)] == {
        "doc_id": id_of(SHORT),
        "cluster": id_of(SHORT),
        "representative": True,
        "cluster_size": 1,
        "jaccard": 1.0,
    }


def test_an_older_version_of_a_url_takes_no_part(spread, id_of):
    _, rows = spread
    assert set(rows[id_of(STALE)].values()) == {id_of(STALE), None}
    assert rows[id_of(COPY)]["cluster_size"] == 2


def test_rows_lie_beside_their_documents(spread, id_of):
    dataset, _ = spread
    assert [shard.read()["doc_id"].to_pylist() for shard in dataset.shards] == [
        [id_of(p) for p in shard] for snapshot in SPREAD for shard in snapshot
    ]


def test_metrics_say_how_much_was_compared(spread):
    dataset, _ = spread
    assert dataset.manifest.metrics["verified_pairs"] == 1
    assert dataset.manifest.metrics["linked_documents"] == 2


def test_a_chain_over_shards_keeps_what_does_not_resemble_its_representative(corpus, dedup_settings, id_of):
    chain = [page(f"p{n}", text(n * 60, n * 60 + 604), day=9 - n) for n in range(6)]  # neighbours 0.82, others below
    dataset = deduplicated(corpus([chain[0::2]], [chain[1::2]]), dedup_settings(bands=64))
    clusters = {row["doc_id"]: row["cluster"] for row in dataset.read().to_pylist()}
    assert [clusters[id_of(p)] for p in chain] == [id_of(chain[n]) for n in (0, 0, 2, 2, 4, 4)]


def test_every_removed_document_names_a_representative_that_stays(corpus, dedup_settings):
    pages = [page(f"p{n}", text(start, start + 200), n) for n, start in enumerate((7 * k * k) % 900 for k in range(60))]
    dataset = deduplicated(corpus([pages[:20], pages[20:40]], [pages[40:]]), dedup_settings())
    rows = dataset.read().to_pylist()
    stays = {row["doc_id"] for row in rows if row["representative"]}
    removed = [row for row in rows if not row["representative"]]
    assert len(removed) > 10
    assert {row["cluster"] for row in rows} == stays
    assert min(row["jaccard"] for row in removed) >= 0.8


def test_one_and_four_workers_give_the_same_bytes(corpus_on_disk, dedup_settings):
    pages = [page(f"p{n}", text(n * 9, n * 9 + 200), n) for n in range(24)]
    trees = []
    for workers in (1, 4):
        made = corpus_on_disk([pages[:8], pages[8:12]], [pages[12:]])
        deduplicated(made, dedup_settings(workers=workers))
        trees.append(tree(Path(made.folder)))
    assert trees[0] == trees[1]


def test_no_documents_give_an_empty_dataset(corpus, dedup_settings):
    assert deduplicated(corpus([[]]), dedup_settings()).read().num_rows == 0


def test_a_sidecar_of_other_documents_is_refused(corpus, dedup_settings):
    mine, other = corpus([[ORIGINAL]]), corpus([[OTHER]])
    versions = other.build(build_url_versions, dedup_settings(), url_policy=other.url_policy)
    with pytest.raises(Exception, match=re.escape("its doc_ids are not those of")):
        mine.duplicates(dedup_settings(), url_versions=[versions])


def test_within_a_language_only_documents_of_it_are_compared(corpus, dedup_settings, id_of):
    same = [
        page(name, text(0, 300), day) | {"language": code} for name, day, code in (("a", 1, "en"), ("b", 2, "de"), ("c", 3, "en"))
    ]
    for scope, expected in (("global", [2, 2, 2]), ("language", [2, 1, 2])):
        rows = deduplicated(corpus([same]), dedup_settings(scope=scope)).read().to_pylist()
        assert [row["cluster"] for row in rows] == [id_of(same[index]) for index in expected]


def test_a_new_snapshot_signs_only_its_own_documents(corpus, dedup_settings):
    grown = corpus(*SPREAD)
    settings = dedup_settings()
    old = corpus(SPREAD[0]).signatures(settings)
    both = grown.signatures(settings)
    assert both[0].digest == old[0].digest
    from_old_index = grown.duplicates(settings, document_signatures=[old[0], both[1]])
    assert from_old_index.digest == deduplicated(corpus(*SPREAD), settings).digest


def test_the_lineage_lets_signatures_of_old_snapshots_stand(monkeypatch, tmp_path):
    monkeypatch.setenv("L3_HOME", str(tmp_path))

    def catalog(*snapshots: str) -> Catalog:
        return Catalog(load("demo"), snapshots, lambda snapshot: snapshot)

    for stage in ("raw_crawl", "documents"):
        out = catalog("s1").writer(stage, "s1")
        out.put("part-00000", Output.annotated(pa.table({"x": [1]})))
        out.commit(["part-00000"])
    assert catalog("s1").folder("document_signatures", "s1") == catalog("s1", "s2").folder("document_signatures", "s1")


def test_a_component_too_large_for_memory_is_cut_into_pieces(corpus, dedup_settings, monkeypatch):
    monkeypatch.setattr("l3_platform.dedup.minhash.COMPONENT_MEMBERS", 10)
    copies = [page(f"p{n}", text(0, 50), n) for n in range(35)]
    rows = deduplicated(corpus([copies[:20], copies[20:]]), dedup_settings()).read().to_pylist()
    assert sum(row["representative"] for row in rows) == 4
    assert max(row["cluster_size"] for row in rows) == 10


def test_pieces_are_named_by_their_first_node_and_hold_no_more_than_they_may():
    labels = np.array([0, 1, 0, 0, 1, 0, 0, 7])
    assert pieces(labels, 2).tolist() == [0, 1, 0, 3, 1, 3, 6, 7]
    assert pieces(labels, 100).tolist() == labels.tolist()


def test_many_buckets_and_small_batches_change_no_row(corpus, dedup_settings, monkeypatch):
    pages = [page(f"p{n}", text(n * 9, n * 9 + 200), n) for n in range(24)]
    whole = deduplicated(corpus([pages[:8], pages[8:12]], [pages[12:]]), dedup_settings())
    monkeypatch.setattr("l3_platform.dedup.minhash.BUCKET_DOCUMENTS", 5)
    monkeypatch.setattr("l3_platform.dedup.minhash.BATCH_BYTES", 1)
    monkeypatch.setattr("l3_platform.dedup.shards.BATCH_BYTES", 1)
    parted = deduplicated(corpus([pages[:8], pages[8:12]], [pages[12:]]), dedup_settings(buckets=7))
    assert parted.read().equals(whole.read())
    assert 0 < whole.manifest.metrics["linked_documents"] == parted.manifest.metrics["linked_documents"]
