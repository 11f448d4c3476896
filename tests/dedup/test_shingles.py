"""Signatures are datasketch's; similarity is that of sets of words."""

from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasketch import MinHash, MinHashLSH

from l3_platform.dedup import shingle_hash, signatures
from l3_platform.dedup.bands import Shape, band_values, shape
from l3_platform.dedup.shingles import first_words, jaccard, shingle_texts, shingles, words

TEXTS = pa.array(
    [
        "The quick brown fox jumps over the lazy dog, and then it sleeps.",
        "two words",
        "",
        "!!! ???",
        "機械学習は面白いです。とても。",
        "L'été dernier, à Paris, il faisait très chaud pour la saison " * 50,
    ]
)


@pytest.mark.parametrize("num_perm, seed, ngram", [(128, 1, 5), (64, 7, 3)])
def test_signatures_are_those_of_datasketch(num_perm, seed, ngram):
    signed = signatures(TEXTS, num_perm=num_perm, ngram=ngram, seed=seed)
    for row, text in zip(signed, TEXTS.to_pylist(), strict=True):
        reference = MinHash(num_perm=num_perm, seed=seed, hashfunc=shingle_hash, scheme="affine32")
        reference.update_batch([shingle.encode() for shingle in shingle_texts(text, ngram)])
        np.testing.assert_array_equal(row, reference.hashvalues)


def test_signatures_of_ten_thousand_documents_are_those_of_datasketch(shared_data):
    table = pq.read_table(shared_data / "language" / "sentences.parquet")
    sentences = table["text"].to_pylist()
    texts = [" ".join(sentences[start : start + 4]) for start in range(0, 40_000, 4)]  # 67 languages
    signed = signatures(pa.array(texts))
    for row, text in zip(signed, texts, strict=True):
        reference = MinHash(num_perm=128, hashfunc=shingle_hash, scheme="affine32")
        reference.update_batch([shingle.encode() for shingle in shingle_texts(text)])
        assert np.array_equal(row, reference.hashvalues), text


def test_chunks_slices_and_nulls_change_nothing():
    whole = signatures(TEXTS)
    assert np.array_equal(signatures(pa.chunked_array([TEXTS.slice(0, 2), TEXTS.slice(2, 0), TEXTS.slice(2)])), whole)
    assert np.array_equal(signatures(TEXTS.slice(3, 2)), whole[3:5])
    assert np.array_equal(signatures(TEXTS.cast(pa.large_string())), whole)
    assert np.array_equal(signatures(pa.array([None, ""], pa.string())), whole[[2, 2]])


def test_signatures_load_into_the_index_of_datasketch():
    index = MinHashLSH(threshold=0.5, num_perm=128)
    for row, signed in enumerate(signatures(TEXTS)):
        index.insert(row, MinHash(num_perm=128, hashvalues=signed, scheme="affine32"))
    similar = signatures(pa.array([TEXTS[0].as_py() + " Then it wakes."]))[0]
    assert index.query(MinHash(num_perm=128, hashvalues=similar, scheme="affine32")) == [0]


def test_estimated_similarity_is_near_the_true_one():
    one = " ".join(f"word{n}" for n in range(1000))
    other = one.replace("word50 ", "other ").replace("word700 ", "another ")
    left, right = signatures(pa.array([one, other]), num_perm=512)
    assert np.mean(left == right) == pytest.approx(jaccard(shingles(one), shingles(other)), abs=0.05)


def test_jaccard_counts_shared_shingles():
    assert jaccard(shingles("a b c d e f", 5), shingles("a b c d e g", 5)) == pytest.approx(1 / 3)


def test_case_and_punctuation_do_not_matter():
    assert jaccard(shingles("One, two: THREE. four (five) six!"), shingles("one two three four five six")) == 1.0


def test_characters_of_chinese_are_words():
    assert shingle_texts("机器学习很有趣", 5) == ["机 器 学 习 很", "器 学 习 很 有", "学 习 很 有 趣"]


@pytest.mark.parametrize("most", [0, 3, 1000])
def test_the_first_words_are_those_of_plain_python(most):
    random = Random(0)
    for _ in range(2000):
        chars = [random.choice("aΣσ'ςİ\u0301 _.-Ab9漢字かéß\ud800\0\u2028\xa0") for _ in range(random.randint(0, 40))]
        text = "".join([*chars, chr(random.randrange(0x110000)), "Σ"])
        assert first_words(text, most) == " ".join(words(text)[:most])


def test_a_short_text_is_one_shingle():
    assert shingle_texts("Hello, World", 5) == ["hello world"]


def test_texts_without_words_are_not_alike():
    assert jaccard(shingles("!!!"), shingles("???")) == 0.0


def test_equal_rows_of_different_bands_do_not_meet():
    values = band_values(np.zeros((1, 128), np.uint32), Shape(16, 8))
    assert len(np.unique(values)) == 16


def test_bands_that_do_not_divide_the_permutations_are_refused():
    with pytest.raises(ValueError, match=r"dedup\.bands is 10, which does not divide dedup\.num_perm, 128"):
        shape(128, 0.8, bands=10)


def test_bands_are_chosen_for_the_threshold():
    assert shape(128, 0.8) == Shape(16, 8)
    assert [shape(128, threshold).rows for threshold in (0.5, 0.7, 0.9)] == [3, 6, 13]


@pytest.mark.parametrize("threshold", [0.7, 0.8, 0.9])
def test_chosen_bands_propose_nine_in_ten_pairs_at_the_threshold_and_few_far_below(threshold):
    chosen = shape(128, threshold)
    assert chosen.proposed(threshold) >= 0.92
    assert chosen.proposed(threshold / 2) < 0.05


def test_too_few_permutations_for_a_threshold_are_refused():
    with pytest.raises(ValueError, match=r"dedup\.num_perm is 1: too few to find pairs of Jaccard 0\.5"):
        shape(1, 0.5)
