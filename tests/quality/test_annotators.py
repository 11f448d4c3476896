"""Rules that stand in for an annotator, files of labels, and what is said when they do not do."""

import pyarrow as pa
import pytest

from l3_platform.quality.annotators import ANSWERS, LabelsError, annotator
from l3_platform.quality.label_file import FileLabels
from l3_platform.quality.questions import CODE, QUALITY, REASONING
from l3_platform.quality.simulated import RULES
from l3_platform.settings import Classifier, Quality, Settings

PROSE = "The committee met on Tuesday to discuss the plans for the new bridge, and decided to wait until spring.\n"
PYTHON = "import os\n\ndef f(x):\n    return x + 1\n\nfor i in range(3):\n    print(f(i))\n"
PROOF = "Suppose that n is even. Then n = 2k, hence n squared is 4k squared; therefore it is even, which proves the lemma.\n"


def labels(question, url: str = "", text: str = "", formulas: int = 0) -> list:
    rows = [{"doc_id": b"1", "url": url, "text": text, "formulas": formulas}]
    return RULES[question.name].label(pa.Table.from_pylist(rows))["label"].to_pylist()


@pytest.mark.parametrize("question", [QUALITY, CODE, REASONING], ids=lambda question: question.name)
def test_without_labels_a_rule_answers_and_is_called_simulated(question):
    rule = annotator(question, Settings())
    assert rule.simulated and rule.name.startswith("simulated: ")


@pytest.mark.parametrize("question", [QUALITY, CODE, REASONING], ids=lambda question: question.name)
def test_the_requirements_of_every_question_are_written_down(question):
    assert len(question.requirements.split()) > 100


@pytest.mark.parametrize(
    ("url", "referenced"),
    [
        ("https://en.wikipedia.org/wiki/Graph", True),
        ("https://numpy-docs.example/a/b.html", True),
        ("https://cs.stanford.edu/notes", True),
        ("https://shop.example/docs-bag", True),
        ("https://blog.example/how-to/wiki-style", False),
        ("https://ask-library.example/questions/1", False),
        ("http://[broken", False),
        (None, False),
    ],
)
def test_the_rule_of_references_reads_host_and_first_folder(url, referenced):
    assert labels(QUALITY, url=url) == [referenced]


@pytest.mark.parametrize(("text", "code"), [(PYTHON, True), (PROSE + PYTHON, True), (PROSE * 20 + PYTHON, False), ("", False)])
def test_the_rule_of_code_wants_a_good_part_of_the_text(text, code):
    assert labels(CODE, text=text) == [code]


@pytest.mark.parametrize(
    ("text", "formulas", "reasoning"),
    [(PROOF, 0, True), (PROSE, 0, False), (PROSE, 3, True), (PROOF + PROSE * 100, 0, False), ("", 0, False)],
)
def test_the_rule_of_reasoning_wants_formulas_or_words_of_deduction(text, formulas, reasoning):
    assert labels(REASONING, text=text, formulas=formulas) == [reasoning]


def test_rules_find_code_and_no_code_in_real_text(shared_data):
    import pyarrow.parquet as pq

    files = pq.read_table(shared_data / "code/samples.parquet", filters=[("language", "in", ["Python", "C", "Java", "Go"])])
    pages = pq.read_table(shared_data / "extraction/wcxb-dev.parquet", columns=["main_content"])["main_content"].to_pylist()[:200]
    source = [labels(CODE, text=text) == [True] for text in files["text"].to_pylist()]
    prose = [labels(CODE, text=text or "") == [True] for text in pages]
    assert sum(source) > 0.9 * len(source) and sum(prose) < 0.1 * len(prose)


def test_labels_of_a_file_are_by_url_or_doc_id(tmp_path):
    table = pa.table({"url": ["a", "b"], "doc_id": ["1", "2"]})
    (tmp_path / "urls.csv").write_text("url,label\nb,1\n")
    (tmp_path / "ids.csv").write_text("\ufeffdoc_id,label\n1,false\n", encoding="utf-8")
    assert FileLabels(str(tmp_path / "urls.csv")).label(table)["label"].to_pylist() == [None, True]
    assert FileLabels(str(tmp_path / "ids.csv")).label(table).schema == ANSWERS
    assert FileLabels(str(tmp_path / "ids.csv")).label(table)["label"].to_pylist() == [False, None]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"address,label\nx,1\n", "it needs `url` or `doc_id`, and `label`"),
        (b"", "it needs `url` or `doc_id`, and `label`"),
        (b"url,label\nx,perhaps\n", "line 2: label 'perhaps' is neither 1 nor 0"),
        (b"url,label\nx\n", "line 2: label None is neither 1 nor 0"),
        (b"url,label\n\xff\xfe,1\n", "cannot be read"),
    ],
)
def test_a_bad_label_file_is_one_sentence(tmp_path, content, message):
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(LabelsError, match=message):
        FileLabels(str(tmp_path / "labels.csv")).label(pa.table({"url": ["x"], "doc_id": ["1"]}))


def test_a_missing_label_file_is_named_with_its_setting():
    absent = annotator(CODE, Settings(code=Classifier(labels="/no/such.csv")))
    with pytest.raises(LabelsError, match=r"code\.labels: there is no file /no/such\.csv"):
        absent.label(pa.table({"url": ["x"]}))


def test_an_endpoint_without_an_address_is_one_sentence():
    with pytest.raises(LabelsError, match=r"quality\.labels is endpoint, so annotator\.url must be"):
        annotator(QUALITY, Settings(quality=Quality(labels="endpoint")))
