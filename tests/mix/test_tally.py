"""What curation did, in few numbers and a few documents to read."""

from l3_platform.dedup.shards import aligned
from l3_platform.mix.tally import EXAMPLES, examples, lost_with_newest, removed_by, tally
from l3_platform.settings import Engine
from tests.mix.corpus import SETTINGS, Corpus, doc_id

ENGINE = Engine(workers=2)
SPAM = {"text_heuristics": {"dirty_words": 0.5}, "documents": {"text": "Write to jane.doe@uni-test.org now", "title": "Spam"}}
FOREIGN = {"languages": {"language": "de"}}
OLD = {"documents": {"snapshot": "demo-2"}, "text_heuristics": {"words": 3}}


def beside(corpus, decisions=None):
    inputs = corpus.inputs("curation_decisions") | corpus.inputs("curated_documents")
    documents = inputs.pop("documents")
    return aligned(documents, **inputs, curation_decisions=[decisions or corpus.decisions()])


def test_a_tally_adds_up_to_the_documents_and_their_text():
    corpus = Corpus([{}, SPAM, FOREIGN], [OLD, {}])
    rows = tally(beside(corpus), ENGINE).to_pylist()
    assert {(row["source"], row["language"], row["dropped_by"]): row["documents"] for row in rows} == {
        ("demo, demo-1", "en", None): 2,
        ("demo, demo-1", "en", "dirty_words"): 1,
        ("demo, demo-1", "de", None): 1,
        ("demo, demo-2", "en", "few_words"): 1,
    }
    assert sum(row["bytes"] for row in rows) == 4 * len("Some text.\nOf two lines.") + len(SPAM["documents"]["text"])


def test_removal_is_told_by_group_with_the_reasons():
    tallied = tally(beside(Corpus([{}, SPAM, FOREIGN], [OLD, {}])), ENGINE)
    english, german = removed_by(tallied, "language").to_pylist()
    assert (english["language"], english["documents"], english["kept"], english["removed"]) == ("en", 4, 2, 0.5)
    assert english["why"] == "dirty_words 1, few_words 1"
    assert (german["language"], german["removed"], german["why"]) == ("de", 0.0, "")


def test_examples_of_each_side_name_the_score_that_decided():
    shown = examples(list(beside(Corpus([{}] * 9 + [SPAM], [SPAM, OLD])).values()), SETTINGS)
    assert shown.schema.equals(EXAMPLES)
    rows = shown.to_pylist()
    assert [row["dropped_by"] for row in rows] == [None] * 5 + ["few_words", "dirty_words", "dirty_words"]
    assert [row["evidence"] for row in rows[4:]] == [None, "words 3 < 20", *["dirty_words 0.5 > 0.01"] * 2]


def test_examples_show_no_personal_data():
    row = examples(list(beside(Corpus([SPAM])).values()), SETTINGS).to_pylist()[0]
    assert row["text"] == "Write to [EMAIL] now"


def test_examples_of_nothing_are_an_empty_table():
    assert examples([], SETTINGS).schema.equals(EXAMPLES)


def test_a_shard_without_a_document_gives_no_example():
    assert examples(list(beside(Corpus([{}], [])).values()), SETTINGS).num_rows == 1


def version(newest: int, *, stays: bool = False, **scores):
    """A version of a page whose newest one has this doc_id; older ones were compared with no other document."""
    return {
        "url_versions": {"newest": stays, "newest_doc_id": doc_id(newest), "versions": 2},
        "duplicate_documents": {} if stays else {"representative": None, "cluster": None, "jaccard": None},
        **scores,
    }


def test_older_versions_lost_with_a_newest_one_of_low_quality_are_counted():
    bad, good, copy = {"quality_scores": {"score": 0.0}}, {}, {"duplicate_documents": {"representative": False, "jaccard": 0.9}}
    pages = [version(1), version(1, stays=True, **bad), version(3), version(3, stays=True, **good), version(5)]
    corpus = Corpus(pages, [version(5, stays=True, **copy)])
    assert lost_with_newest(corpus.decisions(), corpus.datasets["url_versions"][0], ENGINE) == 1
