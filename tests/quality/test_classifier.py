"""The classifier: labels of two kinds, held-out scores, one file on every run."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from l3_platform.dedup.shards import aligned
from l3_platform.quality.annotators import FileLabels, LabelsError, SimulatedReferences
from l3_platform.quality.classifier import MODEL_FILE, build_quality_classifier, roc_auc, sample, smallest
from l3_platform.settings import Engine, Quality, Settings
from l3_platform.store import files


def settings(workers: int = 1, **quality) -> Settings:
    return Settings(quality=Quality(**quality), engine=Engine(workers=workers))


def classifier(corpus, **quality):
    sidecars = {"url_versions": corpus.url_versions, "duplicate_documents": corpus.duplicate_documents}
    return corpus.build(build_quality_classifier, settings(**quality), **sidecars)


@pytest.fixture(scope="module")
def trained(corpus, labelled_pages):
    pages = labelled_pages(200)
    return classifier(corpus(pages[:90], pages[90:]))


def test_held_out_documents_are_told_apart(trained):
    assert trained.manifest.metrics["roc_auc"] > 0.95


def test_simulated_labels_are_called_so(trained):
    assert trained.manifest.metrics["simulated"] is True
    assert trained.manifest.metrics["labels"].startswith("simulated")


def test_every_labelled_document_has_a_score_of_a_model_that_did_not_see_it(trained):
    table = trained.read()
    assert table.num_rows == 200
    assert sorted(set(table["fold"].to_pylist())) == [0, 1, 2]


def test_the_model_is_the_same_bytes_on_every_run_and_small(trained, corpus, labelled_pages):
    pages = labelled_pages(200)
    again = classifier(corpus(pages[:90], pages[90:]))
    model = files.read(trained.file(MODEL_FILE))
    assert files.read(again.file(MODEL_FILE)) == model and len(model) < 10_000_000


def sampled(corpus, quota: int) -> pa.Table:
    sidecars = {"url_versions": corpus.url_versions, "duplicate_documents": corpus.duplicate_documents}
    beside = aligned(corpus.documents, **sidecars).values()
    parts = [sample(shards, SimulatedReferences(), quota=1000).table for shards in beside]
    return smallest(pa.concat_tables(parts), quota)


def test_copies_take_no_part(corpus, labelled_pages, id_of):
    pages = labelled_pages(20)
    pages[0] |= {"representative": False}
    pages[1] |= {"newest": False, "representative": None}
    ids = sampled(corpus(pages), 100)["doc_id"].to_pylist()
    assert sorted(ids) == sorted(id_of(page) for page in pages[2:])


def test_the_sample_is_bounded_and_does_not_depend_on_shards(corpus, labelled_pages):
    pages = labelled_pages(100)
    one, many = (sampled(corpus(*shards), 20) for shards in ([pages], [pages[:30], pages[30:]]))
    assert one["doc_id"].to_pylist() == many["doc_id"].to_pylist()
    assert one["label"].to_pylist().count(True) == 20 and one.num_rows == 40


def test_labels_can_come_from_a_file(corpus, labelled_pages, tmp_path):
    pages = labelled_pages(60)
    rows = [f"{page['url']},{int('shop' in page['url'])}" for page in pages[:50]]
    (tmp_path / "labels.csv").write_text("\n".join(["url,label", *rows]))
    dataset = classifier(corpus(pages), labels=str(tmp_path / "labels.csv"))
    metrics = dataset.manifest.metrics
    assert (metrics["labels"], metrics["simulated"]) == ("file: labels.csv", False)
    assert metrics["referenced"] + metrics["other"] == 50


def test_labels_can_be_by_doc_id(corpus, labelled_pages, id_of, tmp_path):
    pages = labelled_pages(3)
    (tmp_path / "labels.csv").write_text(f"doc_id,label\n{id_of(pages[1])},1\n")
    table = corpus(pages).documents[0].read()
    assert FileLabels(str(tmp_path / "labels.csv")).label(table).to_pylist() == [None, True, None]


@pytest.mark.parametrize(
    "content, message",
    [
        ("address,label\nx,1\n", "it needs `url` or `doc_id`, and `label`"),
        ("url,label\nx,perhaps\n", "line 2: label 'perhaps' is neither 1 nor 0"),
    ],
)
def test_a_bad_label_file_is_one_sentence(tmp_path, content, message):
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(LabelsError, match=message):
        FileLabels(str(tmp_path / "labels.csv")).label(pa.table({"url": ["x"], "doc_id": ["1"]}))


def test_a_missing_label_file_is_named(tmp_path):
    with pytest.raises(LabelsError, match=r"there is no file .*absent\.csv"):
        FileLabels(str(tmp_path / "absent.csv")).label(pa.table({"url": ["x"]}))


@pytest.mark.parametrize(
    "url, referenced",
    [
        ("https://en.wikipedia.org/wiki/Graph", True),
        ("https://numpy-docs.example/a/b.html", True),
        ("https://cs.stanford.edu/notes", True),
        ("https://shop.example/docs-bag", True),
        ("https://blog.example/how-to/wiki-style", False),
        ("https://ask-library.example/questions/1", False),
    ],
)
def test_the_simulated_rule_reads_host_and_first_folder(url, referenced):
    assert SimulatedReferences().label(pa.table({"url": [url]})).to_pylist() == [referenced]


def test_labels_of_one_kind_only_are_refused(corpus, labelled_pages):
    shop = [page for page in labelled_pages(60) if "shop" in page["url"]]
    with pytest.raises(LabelsError, match=r"0 of .* are labelled referenced by simulated"):
        classifier(corpus(shop))


def test_a_given_model_is_used_instead(trained, corpus, labelled_pages, tmp_path):
    (tmp_path / "mine.bin").write_bytes(files.read(trained.file(MODEL_FILE)))
    dataset = classifier(corpus(labelled_pages(3)), model=str(tmp_path / "mine.bin"))
    assert files.read(dataset.file(MODEL_FILE)) == (tmp_path / "mine.bin").read_bytes()


def test_a_given_model_that_is_missing_is_named(corpus, labelled_pages):
    with pytest.raises(LabelsError, match=r"there is no file absent\.bin; give a fastText model"):
        classifier(corpus(labelled_pages(3)), model="absent.bin")


def test_roc_auc_is_that_of_scikit_learn():
    random = np.random.default_rng(1)
    truth, scores = random.random(500) < 0.3, np.round(random.random(500), 1)
    assert roc_auc(truth, scores) == pytest.approx(roc_auc_score(truth, scores))
