"""The classifier: labels of several kinds, held-out scores, one file on every run."""

import pyarrow as pa
import pytest

from l3_platform.dedup.shards import aligned
from l3_platform.quality import fasttext_model
from l3_platform.quality.annotators import LabelsError
from l3_platform.quality.fasttext_model import FastText
from l3_platform.quality.learners import LearnerError
from l3_platform.quality.questions import CODE, QUALITY
from l3_platform.quality.sample import sample, smallest
from l3_platform.quality.simulated import RULES
from l3_platform.settings import Annotator, Classifier, Engine, Quality, Settings
from l3_platform.store import files
from tests.quality.model_server import serve

MODEL_FILE = "quality.bin"


def settings(**quality) -> Settings:
    return Settings(quality=Quality(**quality), engine=Engine(workers=1))


@pytest.fixture(scope="module")
def trained(corpus, labelled_pages):
    pages = labelled_pages(200)
    return corpus(pages[:90], pages[90:]).classifier(QUALITY, settings())


def test_held_out_documents_are_told_apart(trained):
    assert trained.manifest.metrics["roc_auc"] > 0.95


def test_simulated_labels_are_called_so(trained):
    assert trained.manifest.metrics["simulated"] is True
    assert trained.manifest.metrics["labels"].startswith("simulated")


def test_every_labelled_document_has_a_score_of_a_model_that_did_not_see_it(trained):
    table = trained.read()
    assert table.num_rows == 200
    assert sorted(set(table["fold"].to_pylist())) == [0, 1, 2]


def test_the_calibration_covers_every_held_out_score(trained):
    metrics = trained.manifest.metrics
    assert sum(row["documents"] for row in metrics["calibration"]) == 200 == metrics["referenced"] + metrics["other"]
    assert 0.0 <= metrics["calibration_error"] < 0.25


def test_the_model_is_the_same_bytes_on_every_run_and_small(trained, corpus, labelled_pages):
    pages = labelled_pages(200)
    again = corpus(pages[:90], pages[90:]).classifier(QUALITY, settings())
    model = files.read(trained.file(MODEL_FILE))
    assert files.read(again.file(MODEL_FILE)) == model and len(model) < 10_000_000


def sampled(corpus, quota: int, question=QUALITY) -> pa.Table:
    sidecars = {"url_versions": corpus.url_versions, "duplicate_documents": corpus.duplicate_documents}
    beside = aligned(corpus.documents, **sidecars).values()
    learner = FastText(question, 4, 1)
    return smallest(
        pa.concat_tables([sample(shards, question, RULES[question.name], learner, 1000).table for shards in beside]), quota
    )


def test_copies_and_texts_without_words_take_no_part(corpus, labelled_pages, id_of):
    pages = labelled_pages(20)
    pages[0] |= {"representative": False}
    pages[1] |= {"newest": False, "representative": None}
    pages[2] |= {"text": " \n"}
    pages[3] |= {"text": None}
    ids = sampled(corpus(pages), 100)["doc_id"].to_pylist()
    assert sorted(ids) == sorted(id_of(page) for page in pages[4:])


def test_pages_of_code_are_asked_about_code_only(corpus, labelled_pages, id_of):
    code = {"url": "https://code-docs.example/", "text": "import os\ndef f(x):\n    return x\nfor i in y:\n    f(i)\n"}
    pages = [*labelled_pages(9), code]
    assert id_of(code) not in sampled(corpus(pages), 100)["doc_id"].to_pylist()
    assert id_of(code) in sampled(corpus(pages), 100, CODE)["doc_id"].to_pylist()


def test_the_sample_is_bounded_and_does_not_depend_on_shards(corpus, labelled_pages):
    pages = labelled_pages(100)
    one, many = (sampled(corpus(*shards), 20) for shards in ([pages], [pages[:30], pages[30:]]))
    assert one["doc_id"].to_pylist() == many["doc_id"].to_pylist()
    assert one["label"].to_pylist().count(True) == 20 and one.num_rows == 40


def test_labels_can_come_from_a_file(corpus, labelled_pages, tmp_path):
    pages = labelled_pages(60)
    rows = [f"{page['url']},{int('shop' in page['url'])}" for page in pages[:50]]
    (tmp_path / "labels.csv").write_text("\n".join(["url,label", *rows]))
    metrics = corpus(pages).classifier(QUALITY, settings(labels=str(tmp_path / "labels.csv"))).manifest.metrics
    assert (metrics["labels"], metrics["simulated"]) == ("file: labels.csv", False)
    assert metrics["referenced"] + metrics["other"] == 50


def test_labels_can_come_from_a_model_behind_http_and_their_cost_is_told(corpus, labelled_pages, monkeypatch, tmp_path):
    monkeypatch.setenv("L3_HOME", str(tmp_path))
    pages = labelled_pages(60)
    with serve(lambda document: "unsure" if "trouble" in document else "yes" if "parameter" in document else "no") as server:
        pages[0]["text"] = "trouble with the axis"
        asks = settings(labels="endpoint").model_copy(update={"annotator": Annotator(url=server.url, model="judge")})
        first = corpus(pages[:20], pages[20:]).classifier(QUALITY, asks).manifest.metrics
        again = corpus(pages[:20], pages[20:]).classifier(QUALITY, asks).manifest.metrics
        assert len(server.requests) == 60
    assert (first["labels"], first["simulated"], first["asked"]) == ("endpoint: judge", False, 60)
    assert (first["unanswered"], first["prompt_tokens"], first["completion_tokens"]) == ({"malformed": 1}, 6000, 120)
    assert first["referenced"] + first["other"] == 59
    assert again == first


def test_a_costly_annotator_is_asked_about_the_sample_and_no_more(corpus, labelled_pages, monkeypatch, tmp_path):
    monkeypatch.setenv("L3_HOME", str(tmp_path))
    pages = labelled_pages(100)
    with serve(lambda document: "yes" if "parameter" in document else "no") as server:
        asks = settings(labels="endpoint", sample_documents=30)
        asks = asks.model_copy(update={"annotator": Annotator(url=server.url, model="judge")})
        metrics = corpus(pages[:50], pages[50:]).classifier(QUALITY, asks).manifest.metrics
        assert len(server.requests) == 30 == metrics["asked"]


def test_labels_of_one_kind_only_are_refused(corpus, labelled_pages):
    shop = [page for page in labelled_pages(60) if "shop" in page["url"]]
    with pytest.raises(LabelsError, match=r"0 of .* are labelled referenced by simulated"):
        corpus(shop).classifier(QUALITY, settings())


def test_a_question_that_decides_nothing_and_has_no_answers_leaves_the_documents_without_a_score(corpus, labelled_pages):
    few = corpus(labelled_pages(9))
    classifier = few.classifier(CODE, settings())
    assert classifier.manifest.metrics["untrained"].startswith(
        "code_classifier: 0 of 9 sampled documents are labelled code by simulated"
    )
    assert "give code.labels, or a model with code.model" in classifier.manifest.metrics["untrained"]
    scores = few.scores(CODE, settings(), classifier).read()
    assert scores.num_rows == 9 == scores["score"].null_count == scores["bucket"].null_count == scores["model"].null_count
    assert scores["code_share"].null_count == 0


def test_no_documents_at_all_are_too_few(corpus):
    with pytest.raises(LabelsError, match=r"0 of 0 sampled documents are labelled referenced"):
        corpus([]).classifier(QUALITY, settings())


def test_a_given_model_is_used_instead(trained, corpus, labelled_pages, tmp_path):
    (tmp_path / "mine.bin").write_bytes(files.read(trained.file(MODEL_FILE)))
    dataset = corpus(labelled_pages(3)).classifier(QUALITY, settings(model=str(tmp_path / "mine.bin")))
    assert files.read(dataset.file(MODEL_FILE)) == (tmp_path / "mine.bin").read_bytes()


def test_a_given_model_that_is_missing_is_named(corpus, labelled_pages):
    with pytest.raises(LabelsError, match=r"quality\.model: there is no file .*absent\.bin; give a trained model"):
        corpus(labelled_pages(3)).classifier(QUALITY, settings(model="absent.bin"))


def test_a_given_model_of_another_question_is_refused(trained, corpus, labelled_pages, tmp_path):
    (tmp_path / "mine.bin").write_bytes(files.read(trained.file(MODEL_FILE)))
    other = Settings(code=Classifier(model=str(tmp_path / "mine.bin")))
    with pytest.raises(LearnerError, match=r"the code model has labels .*; it needs __label__code"):
        corpus(labelled_pages(3)).classifier(CODE, other)


def test_a_file_that_is_no_model_is_refused(corpus, labelled_pages, tmp_path):
    (tmp_path / "mine.bin").write_bytes(b"not a model")
    with pytest.raises(LearnerError, match=r"quality\.model: not a fastText model"):
        corpus(labelled_pages(3)).classifier(QUALITY, settings(model=str(tmp_path / "mine.bin")))


def test_where_fasttext_meets_nan_smaller_steps_are_tried(monkeypatch):
    monkeypatch.setattr(fasttext_model, "LEARNING_RATES", (1e6, 0.5))
    model = FastText(QUALITY, 4, 5)
    texts, labels = ["a b c d e f"] * 20 + ["u v w x y z"] * 20, [True] * 20 + [False] * 20
    scores = model.load(model.train(texts, labels)).probabilities(["a b c", "x y z"])
    assert scores[0] > 0.5 > scores[1]


def test_where_fasttext_learns_nothing_its_own_words_are_told(monkeypatch):
    monkeypatch.setattr(fasttext_model, "LEARNING_RATES", (1e6,))
    with pytest.raises(LearnerError, match=r"could not learn from 40 texts \(.*NaN.*\); give it more documents \(quality\.sample"):
        FastText(QUALITY, 4, 5).train(["a b c d e f"] * 20 + ["u v w x y z"] * 20, [True] * 20 + [False] * 20)
