import math

import numpy as np
import pytest

from l3_platform.evaluate.unigram import mixture_counts, unigram_nll


def test_without_counts_every_token_costs_the_logarithm_of_the_vocabulary():
    assert unigram_nll(np.zeros(50), np.array([1, 2, 49])) == pytest.approx(math.log(50))


def test_the_nll_is_that_of_add_one_smoothing():
    counts = np.array([6, 2, 0, 0])
    expected = -(2 * math.log(7 / 12) + math.log(1 / 12)) / 3
    assert unigram_nll(counts, np.array([0, 0, 3])) == pytest.approx(expected)


def test_many_counts_approach_the_entropy_of_the_source():
    tokens = np.random.default_rng(0).choice(4, 200_000, p=[0.5, 0.25, 0.125, 0.125])
    nll = unigram_nll(np.bincount(tokens[:100_000], minlength=4), tokens[100_000:])
    assert nll == pytest.approx(1.75 * math.log(2), rel=0.01)


def test_counts_follow_the_epochs_of_each_domain(tmp_path):
    streams = {}
    for domain, tokens in (("math", [1, 1, 2]), ("code", [3]), ("general", [0] * 9)):
        path = tmp_path / f"{domain}.bin"
        path.write_bytes(np.array(tokens, "<u4").tobytes())
        streams[domain] = [str(path)]
    counts = mixture_counts(streams, {"math": 2.0, "code": 0.5}, 5)
    assert counts.tolist() == [0.0, 4.0, 2.0, 0.5, 0.0]


def test_a_token_beyond_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match="token 7 lies beyond the vocabulary of 4"):
        unigram_nll(np.zeros(4), np.array([7]))


def test_no_held_out_token_is_refused_in_words():
    with pytest.raises(ValueError, match=r"raise mix\.held_out_share"):
        unigram_nll(np.zeros(4), np.zeros(0, np.uint32))
