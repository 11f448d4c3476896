"""Words that are given: equal to datatrove, whatever the words and the texts are made of."""

import random

import numpy as np
import pyarrow as pa
import pytest

from l3_platform.curate.given_words import REPETITION, quality, repetition
from tests.curate.reference import reference_repetition

WORDS = pa.list_(pa.string())
ALPHABETS = ("ab", "abc ", " a\n", "aé漢😀 \n", "the cat sat \n\n")


def made_up(seed: int, count: int) -> tuple[list[str], list[list[str]]]:
    """Texts that repeat themselves in every way: few letters, words with spaces in them, empty words, white space of all kinds."""
    chance = random.Random(seed)
    texts, words = [], []
    for _ in range(count):
        letters, longest, most = chance.choice(ALPHABETS), chance.choice([1, 2, 4, 9]), chance.choice([0, 5, 30, 120])
        bag = ["".join(chance.choices(letters, k=chance.randint(0, longest))) for _ in range(chance.randint(0, most))]
        words.append(bag if chance.random() < 0.3 else [word.strip() or "a" for word in bag])
        texts.append("".join(word + chance.choice([" ", "\n", "\n\n", " \u2003\n", "\r\n"]) for word in words[-1]))
    return texts, words


def prose(shared_data) -> list[str]:
    articles = (shared_data / "quality" / "wikitext-2-valid.txt").read_text()[:300_000].split("\n = ")
    return ["\n".join(articles[i : i + 3]) for i in range(0, len(articles), 3)]


@pytest.mark.parametrize("seed", range(3))
def test_repetition_equals_the_plain_reference_bit_for_bit(seed):
    texts, words = made_up(seed, 400)
    rows = repetition(pa.array(texts), pa.array(words, WORDS)).to_pylist()
    assert rows == [reference_repetition(text, bag) for text, bag in zip(texts, words, strict=True)]


def test_repetition_of_real_prose_equals_the_plain_reference(shared_data):
    texts = prose(shared_data)
    rows = repetition(pa.array(texts), pa.array([text.split() for text in texts], WORDS)).to_pylist()
    assert rows == [reference_repetition(text, text.split()) for text in texts]


def test_words_cut_otherwise_are_equal_joined_by_nothing():
    words = ["a", "b", "cd", "e", "f", "g", "ab", "c", "d", "e", "fg"]
    row = repetition(pa.array(["x" * 20]), pa.array([words], WORDS)).to_pylist()[0]
    assert row["dup_5_gram"] == 0.0
    words = ["a", "b", "cd", "e", "fg", "ab", "c", "d", "e", "fg"]
    assert repetition(pa.array(["x" * 20]), pa.array([words], WORDS)).to_pylist()[0]["dup_5_gram"] == 7 / 20


def test_of_equally_frequent_ngrams_the_first_one_counts():
    row = repetition(pa.array(["x" * 40]), pa.array([["aaaa", "b", "c", "dd", "aaaa", "b", "c", "dd"]], WORDS)).to_pylist()[0]
    assert row["top_2_gram"] == 2 * len("aaaa b") / 40


def test_slices_chunks_and_nulls_give_the_same_rows():
    texts, words = made_up(9, 20)
    whole = repetition(pa.array(texts), pa.array(words, WORDS))
    sliced = repetition(
        pa.array(["x", *texts])[1:], pa.chunked_array([pa.array(words[:7], WORDS), pa.array([["y"], *words[7:]], WORDS)[1:]])
    )
    assert sliced.equals(whole)
    assert set(repetition(pa.array([None], pa.string()), pa.array([None], WORDS)).to_pylist()[0].values()) == {0.0}


def test_no_text_gives_no_row():
    assert repetition(pa.array([], pa.string()), pa.array([], WORDS)).num_rows == 0


def test_texts_and_words_must_be_as_many():
    with pytest.raises(ValueError, match="2 texts but 1 lists"):
        repetition(pa.array(["a", "b"]), pa.array([["a"]], WORDS))


def test_quality_of_a_text_that_can_be_counted_by_hand():
    text = "• one # two\n- the 3rd...\n\nand … of"
    words = ["•", "one", "#", "two", "-", "the", "3rd", "...", "and", "…", "of"]
    row = quality(pa.array([text]), pa.array([words], WORDS)).to_pylist()[0]
    assert row == {
        "words": 7,  # `•` is no punctuation to datatrove
        "mean_word_length": (1 + 3 + 3 + 3 + 3 + 3 + 2) / 7,
        "hash_ratio": 1 / 11,
        "ellipsis_ratio": 2 / 11,
        "bullet_lines": 2 / 4,
        "ellipsis_lines": 1 / 4,
        "alpha_words": 6 / 11,
        "stop_words": 3,
    }


def test_the_repetition_filter_of_datatrove_says_the_same(shared_data):
    module = pytest.importorskip("datatrove.pipeline.filters.gopher_repetition_filter")
    texts = prose(shared_data) + [text for text in made_up(4, 300)[0] if text]
    words = [text.split() for text in texts]
    rows = repetition(pa.array(texts), pa.array(words, WORDS)).to_pylist()
    for text, bag, row in zip(texts, words, rows, strict=True):
        for n in (2, 3, 4):
            grams = module.get_n_grams(bag, n)
            assert row[f"top_{n}_gram"] == (module.find_top_duplicate(grams) / len(text) if grams else 0.0)
        for n in range(5, 11):
            assert row[f"dup_{n}_gram"] == module.find_all_duplicate(bag, n) / len(text)


def test_every_decision_of_datatrove_follows_from_our_numbers(shared_data, monkeypatch):
    """Each threshold is set just above and just below our number, for each filter of datatrove."""
    data = pytest.importorskip("datatrove.data")
    repetition_filter = pytest.importorskip("datatrove.pipeline.filters.gopher_repetition_filter")
    quality_filter = pytest.importorskip("datatrove.pipeline.filters.gopher_quality_filter")
    for module in (repetition_filter, quality_filter):
        monkeypatch.setattr(module, "split_into_words", lambda text, language: text.split())
    texts = [*prose(shared_data)[:40], "• one # two ... three\n- # and…\n" * 8]
    words = pa.array([text.split() for text in texts], WORDS)
    rows = zip(texts, repetition(pa.array(texts), words).to_pylist(), quality(pa.array(texts), words).to_pylist(), strict=True)
    off = dict.fromkeys(("dup_line_frac", "dup_para_frac", "dup_line_char_frac", "dup_para_char_frac")) | {
        "top_n_grams": (),
        "dup_n_grams": (),
    }
    limits = {
        "hash_ratio": "max_symbol_word_ratio", "bullet_lines": "max_bullet_lines_ratio",
        "ellipsis_lines": "max_ellipsis_lines_ratio", "mean_word_length": "max_avg_word_length", "words": "max_doc_words",
    }  # fmt: skip
    none = dict.fromkeys((
        "min_doc_words", "max_doc_words", "min_avg_word_length", "max_avg_word_length", "max_symbol_word_ratio",
        "max_bullet_lines_ratio", "max_ellipsis_lines_ratio", "max_non_alpha_words_ratio", "min_stop_words",
    ))  # fmt: skip
    tried = 0
    for text, repeated, said in rows:
        document = data.Document(text=text, id="0")
        for name in REPETITION:
            kind, _, n = name.partition("_")
            for limit, kept in ((np.nextafter(repeated[name], 2), True), (np.nextafter(repeated[name], -1), False)):
                if limit > 0:
                    gram = {f"{kind}_n_grams": ((int(n.partition("_")[0]), limit),)} if name.endswith("gram") else {name: limit}
                    answer = repetition_filter.GopherRepetitionFilter(**off | gram).filter(document)
                    assert (answer is True) == kept, (name, limit)
                    tried += 1
        for name, setting in limits.items():
            for limit, kept in ((np.nextafter(said[name], 1e9), True), (np.nextafter(said[name], -1), False)):
                if limit > 0 and (name != "hash_ratio" or said["ellipsis_ratio"] <= said["hash_ratio"]):
                    assert (quality_filter.GopherQualityFilter(**none | {setting: limit}).filter(document) is True) == kept, name
                    tried += 1
        for setting, name in (("max_non_alpha_words_ratio", "alpha_words"), ("min_stop_words", "stop_words")):
            assert quality_filter.GopherQualityFilter(**none | {setting: said[name]}).filter(document) is True
            above = said[name] + 1 if name == "stop_words" else np.nextafter(said[name], 2)
            assert quality_filter.GopherQualityFilter(**none | {setting: above}).filter(document) is not True
    assert tried > 1000
