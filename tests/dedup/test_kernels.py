"""Each kernel equals plain Python bit for bit, on any text that Unicode allows."""

from __future__ import annotations

import itertools
import random
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from l3_platform.dedup import kernels, sets, shingle_hash
from l3_platform.dedup.bands import Shape, band_values
from l3_platform.dedup.clusters import components, place, similarities
from l3_platform.dedup.shingles import shingle_sets, shingle_texts, words
from tests.dedup import references

EXOTIC = [
    *("a", "Z", "_", "9", " ", " ", "\n", ".", "'", "\0"),
    *("İ", "ı", "Σ", "Σ", "ς", "Α", "ß", "ẞ", "Ⱥ", "K", "Å", "ǅ", "ﬁ", "ª", "é", "É", "е", "Ж", "𐐀", "Ა", "Ⓐ", "٣", "Ⅷ"),
    *("機", "か", "ー", "ｱ", "𠀀", "々", "ไ", "ท", "ي", "\u0307", "\u0345", "\u00ad", "\u200d", "\u2019", "😀", "\u3000", "\ufffd"),
]


def strange_texts(count: int, seed: int = 2) -> list[str]:
    draw = random.Random(seed)
    any_char = [chr(point) for point in draw.sample([*range(0xD800), *range(0xE000, sys.maxunicode + 1)], 30_000)]
    return [
        "".join(draw.choice(EXOTIC if draw.random() < 0.7 else any_char) for _ in range(draw.randrange(draw.choice((4, 30, 150)))))
        for _ in range(count)
    ]


def reference_sets(texts: list[str], ngram: int) -> list[list[int]]:
    return [sorted({references.hash_shingle(shingle.encode()) for shingle in shingle_texts(text, ngram)}) for text in texts]


def found_sets(texts: list[str], ngram: int) -> list[list[int]]:
    hashes, starts = shingle_sets(pa.array(texts), ngram)
    return [hashes[start:end].tolist() for start, end in itertools.pairwise(starts)]


@pytest.mark.parametrize("ngram", [1, 3, 5])
def test_shingles_of_strange_texts_are_those_of_python(ngram):
    texts = strange_texts(1500)
    assert found_sets(texts, ngram) == reference_sets(texts, ngram)


def test_every_character_of_unicode_is_cased_and_parted_as_python_does():
    text = "x" + "x x".join(chr(point) for point in range(sys.maxunicode + 1) if not 0xD800 <= point < 0xE000) + "x"
    assert found_sets([text], 1)[0] == sorted({references.hash_shingle(word.encode()) for word in set(words(text))})


@pytest.mark.parametrize("text", ["ΟΔΟΣ", "ΟΔΟΣ.", "ΣΑΣ Σ", "Α'Σ", "ΑΣ'Β", "ΑΣ' Β", "1Σ", "ΑΣ\u0301", "ΑΣ\u0301Β", "İΣ", "\u00adΣ"])
def test_a_capital_sigma_is_final_where_python_says_so(text):
    assert found_sets([text], 1) == reference_sets([text], 1)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 1000])
def test_words_of_any_length_hash_as_in_python(length):
    texts = ["x" * length, "é" * length, f"a {'b' * length} c d e f", " " * length + "end"]
    assert found_sets(texts, 5) == reference_sets(texts, 5)


def test_bytes_that_are_no_text_are_read_to_their_end_and_no_further():
    broken = [b"\xff\xfe", b"abc\xe6\xa9", b"\xf0\x9f\x98", b"\x80" * 40, b"word \xf8\x88\x80\x80\x80 word", b"\xce"]
    texts = pa.array(broken, pa.binary()).cast(pa.large_binary()).view(pa.large_string())
    hashes, starts = shingle_sets(pa.chunked_array([texts.slice(1, 1), texts]).cast(pa.large_string()).combine_chunks(), 5)[0:2]
    assert len(starts) == len(broken) + 2 and len(hashes) >= len(broken)


def test_a_hash_of_bytes_is_that_of_python():
    draw = random.Random(4)
    for size in range(100):
        data = draw.randbytes(size)
        assert shingle_hash(data) == references.hash_shingle(data) & 0xFFFFFFFF
        found = kernels.hash_span(np.frombuffer(data, np.uint8), 0, size, np.uint64(size))
        assert int(found) == references.hash_bytes(data, size)


def test_different_shingles_of_real_text_have_different_hashes_that_fill_all_bits(shared_data):
    pages = pq.read_table(shared_data / "extraction" / "wcxb-dev.parquet", columns=["main_content"])["main_content"]
    whole = {shingle for text in pages.to_pylist()[:400] for shingle in shingle_texts(text, 5)}
    hashes = np.unique(shingle_sets(pages.slice(0, 400), 5)[0])
    assert len(hashes) == len(whole) > 300_000
    ones = [np.mean(hashes >> np.uint64(bit) & np.uint64(1)) for bit in range(64)]
    assert max(abs(share - 0.5) for share in ones) < 5 * 0.5 / len(hashes) ** 0.5
    low = np.bincount((hashes & np.uint64(0xFF)).astype(np.int64), minlength=256)  # 256 cells: chi-squared 255 ± 22.6
    assert 255 - 5 * 22.6 < np.sum((low - low.mean()) ** 2) / low.mean() < 255 + 5 * 22.6


def test_bands_are_hashes_of_their_rows_number_and_seed():
    signed = np.random.default_rng(1).integers(0, 2**32, (20, 24), np.uint32)
    seeds = np.random.default_rng(2).integers(0, 2**64, 20, np.uint64)
    for shape in (Shape(4, 6), Shape(3, 7), Shape(1, 24)):
        expected = [
            [
                references.mix(
                    references.hash_bytes(
                        row[band * shape.rows : (band + 1) * shape.rows].tobytes(), references.mix(int(seed), band + 1, 0)
                    ),
                    0,
                    0,
                )
                for band in range(shape.bands)
            ]
            for row, seed in zip(signed, seeds, strict=True)
        ]
        assert band_values(signed, shape, seeds).tolist() == expected


@pytest.fixture(scope="module")
def random_sets() -> list[set[int]]:
    draw = random.Random(3)
    base = [draw.getrandbits(64) for _ in range(60)]
    return [set(draw.sample(base, draw.randrange(1, 60))) for _ in range(120)]


def packed(sets: list[set[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([x for one in sets for x in sorted(one)], np.uint64), np.cumsum([0, *map(len, sets)])


def test_similarity_is_that_of_python_sets_and_none_below_the_threshold(random_sets):
    pairs = [(i, j) for i in range(120) for j in range(i)]
    left, right = np.array(pairs).T
    for threshold in (0.0, 0.5):
        true = [references.jaccard(random_sets[i], random_sets[j]) for i, j in pairs]
        found = similarities(left, packed(random_sets), right, packed(random_sets), threshold)
        assert found.tolist() == [value if value >= threshold else -1.0 for value in true]


def test_components_are_named_by_the_smallest_node_that_they_reach():
    draw = random.Random(6)
    for nodes, edges in ((1, 0), (30, 12), (30, 40), (80, 60)):
        pairs = [(draw.randrange(nodes), draw.randrange(nodes)) for _ in range(edges)]
        left, right = np.array(pairs, np.int64).reshape(-1, 2).T
        assert components(nodes, left, right).tolist() == references.components(nodes, pairs)


def test_members_are_placed_with_the_first_representative_that_they_resemble(random_sets):
    labels = np.sort(np.random.default_rng(7).integers(0, 4, 120))
    placed, similarity = place(labels, *packed(random_sets), 0.4)
    assert placed.tolist() == references.place(labels.tolist(), random_sets, 0.4)
    assert similarity.tolist() == [references.jaccard(random_sets[i], random_sets[j]) for i, j in enumerate(placed)]


def test_repeated_hashes_are_dropped_and_the_gaps_closed():
    hashes, starts = np.array([1, 1, 2, 2, 3, 3, 3, 3], np.uint64), np.array([0, 3, 3, 8])
    sets.drop_repeated(hashes, starts)
    assert (hashes[: starts[-1]].tolist(), starts.tolist()) == ([1, 2, 2, 3], [0, 2, 2, 4])
