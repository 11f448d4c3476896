import functools
import math
import re
import uuid
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from l3_platform.curate import languages
from l3_platform.curate.languages import SIDECAR, identify, supported
from l3_platform.curate.profiles import GROUPS, stop_words

SENTENCES = {
    "en": "The lake lies under the mountains and its water is cold even in summer.",
    "de": "Der See liegt unter den Bergen und sein Wasser ist auch im Sommer kalt.",
    "fr": "Le lac se trouve sous les montagnes et son eau est froide même en été.",
    "es": "El lago está bajo las montañas y su agua es fría incluso en verano.",
    "pl": "Jezioro leży pod górami, a jego woda jest zimna nawet w lecie.",
    "ru": "Озеро лежит под горами, и вода в нём холодная даже летом.",
    "uk": "Озеро лежить під горами, і вода в ньому холодна навіть улітку.",
    "el": "Η λίμνη βρίσκεται κάτω από τα βουνά.",
    "ja": "湖は山の下にあり、夏でも水は冷たいです。",
    "zh": "湖在山下，夏天水也很冷。",
    "ko": "호수는 산 아래에 있고 여름에도 물이 차갑다.",
    "ar": "تقع البحيرة تحت الجبال وماؤها بارد حتى في الصيف",
}


def documents(*texts: str | None) -> pa.Table:
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([uuid.UUID(int=i).bytes for i in range(len(texts))], pa.binary(16)))
    return pa.table({"doc_id": ids, "text": pa.array(texts, pa.string())})


@pytest.mark.parametrize("code", SENTENCES)
def test_a_sentence_is_recognised(code):
    assert identify(SENTENCES[code])[0] == code


def test_a_chinese_page_with_latin_names_is_chinese():
    assert identify("我们使用 PyTorch 和 NumPy 来训练模型，结果很好。")[0] == "zh"


def test_code_with_english_comments_is_english():
    code = "def f(x):\n    # return the value that was seen first, and none if there is no such value\n    return x.get('a')\n"
    assert identify(code)[0] == "en"


def test_a_text_without_letters_is_undetermined():
    assert identify("1 + 2 = 3; 4.5 | 6 \n ---") == ("und", 0.0)


def test_a_long_text_without_any_known_word_is_undetermined():
    assert identify("xqzt vprk wblg jjkd mnpq rstv " * 10)[0] == "und"


def test_the_sidecar_has_a_row_a_document_in_order():
    sidecar = languages(documents(SENTENCES["de"], None, SENTENCES["fr"]))
    assert sidecar.schema == SIDECAR
    assert sidecar.column("language").to_pylist() == ["de", "und", "fr"]


def test_scores_are_probabilities():
    scores = languages(documents(*SENTENCES.values())).column("score").to_pylist()
    assert all(0.5 < score <= 1 for score in scores)


def test_a_batch_gives_what_single_texts_give():
    texts = [*SENTENCES.values(), "", "1 + 2", "no", "x" * 9000, "Der Hund. " * 900 + "Le chien est là. " * 900]
    sidecar = languages(documents(*texts))
    assert list(zip(*(sidecar.column(name).to_pylist() for name in ("language", "score")), strict=True)) == [
        (code, pytest.approx(score, abs=1e-6)) for code, score in map(identify, texts)
    ]


# ---------------------------------------------------------------- the mixture model, with no word of the kernel's code in it


def plain_scores(text: str, group: str) -> np.ndarray:
    """Log-likelihood of the words of a text under each language of a group, up to a constant: words from lists by Zipf's law,
    others by interpolated character trigrams."""
    lists = [stop_words()[code] for code in GROUPS[group]]
    scores = np.zeros(len(lists))
    for word in re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)*", text.lower()):
        for column, listed in enumerate(lists):
            spelled = 1.0
            for i in range(len(word[:30]) + 1):
                padded = "\x02 " + word[:30] + " "
                spelled *= (
                    sum(
                        weight * share_of(group, column, padded[i + 3 - n : i + 3])
                        for n, weight in ((3, 0.6), (2, 0.3), (1, 0.0999))
                    )
                    + 0.0001 / 200
                )
            ranks = [1 / (rank + 4) for rank in range(len(listed))]
            known = 0.4 * ranks[listed.index(word)] / sum(ranks) if word in listed else 0.0
            scores[column] += math.log(0.6 * spelled + known)
    return scores


@functools.cache
def grams_of(group: str, column: int, n: int) -> Counter:
    words = stop_words()[GROUPS[group][column]]
    return Counter(f"\x02 {word} "[i + 3 - n : i + 3] for word in words for i in range(len(word) + 1))


@functools.cache
def share_of(group: str, column: int, gram: str) -> float:
    counts = grams_of(group, column, len(gram))
    context = sum(count for other, count in counts.items() if other[:-1] == gram[:-1])
    return counts[gram] / context if context else 0.0


@pytest.mark.parametrize(
    "text", ["the lake and gâteau d'automne", "xylo of qwzt", "un lac și marea", "о море і небе", "و در آب سرد"]
)
def test_the_kernel_equals_the_plain_mixture_model(text):
    group = "cyrillic" if "м" in text else "arabic" if "و" in text else "latin"
    scores = plain_scores(text, group)
    words = len(re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)*", text))
    shares = np.exp((scores - scores.max()) / math.sqrt(words))
    assert identify(text) == (GROUPS[group][int(scores.argmax())], pytest.approx(1 / shares.sum(), abs=2e-4))


def test_macro_f1_on_real_sentences_is_over_094(shared_data):
    import pyarrow.parquet as pq

    rows = pq.read_table(shared_data / "language" / "sentences.parquet").to_pylist()[::6]
    gold = [(row["language"].replace("nb", "no"), row["text"]) for row in rows]
    found = [(code, identify(text)[0]) for code, text in gold if code in supported()]
    right = Counter(code for code, answer in found if code == answer)
    wanted, given = Counter(code for code, _ in found), Counter(answer for _, answer in found)
    scores = [2 * right[code] / (wanted[code] + given[code]) for code in wanted]
    assert len(scores) >= 20
    assert sum(scores) / len(scores) > 0.94


class Model:
    """Answers as fastText does, and remembers what it was asked."""

    def __init__(self, *labels: str) -> None:
        self.labels, self.asked = labels, []

    def predict(self, lines: list[str], k: int) -> tuple[list, list]:
        self.asked += lines
        return [(label,) for label in self.labels], [np.array([1.00001])] * len(lines)


@pytest.mark.parametrize(
    ("label", "code"),
    [("en", "en"), ("eng_Latn", "en"), ("cmn_Hani", "zh"), ("arb_Arab", "ar"), ("gsw_Latn", "gsw_Latn"), ("als", "sq")],
)
def test_labels_of_lid176_and_glotlid_become_iso_639_1_codes(label, code):
    sidecar = languages(documents("any text"), given=Model(f"__label__{label}"))
    assert sidecar.column("language").to_pylist() == [code]
    assert sidecar.column("score").to_pylist() == [1.0]


def test_a_given_model_sees_raw_text_and_a_trained_one_letters():
    given, trained = Model("__label__en"), Model("__label__en")
    languages(documents("Über  42\nSeen!"), given=given)
    languages(documents("Über  42\nSeen!"), trained=trained)
    assert given.asked == ["Über 42 Seen!"] and trained.asked == ["über seen"]


def test_a_text_without_letters_is_undetermined_whatever_the_model_says():
    assert languages(documents("4 + 2"), trained=Model("__label__en")).column("language").to_pylist() == ["und"]
