"""The baseline every language model must beat: how often each token occurs, whatever stands before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from l3_platform.tokens.shards import read_tokens


def unigram_nll(train_counts: np.ndarray, held_out_tokens: np.ndarray) -> float:
    """Nats a token of an add-one smoothed unigram model. train_counts: [vocab]; held_out_tokens: [tokens] ids.

    Counts may be fractions, since a mix trains on parts of epochs. Raises ValueError on no token or one beyond the
    vocabulary.
    """
    if not len(held_out_tokens):
        raise ValueError("unigram: there is no held-out token; raise mix.held_out_share or bring more data")
    if int(held_out_tokens.max()) >= len(train_counts):
        raise ValueError(
            f"unigram: token {int(held_out_tokens.max())} lies beyond the vocabulary of {len(train_counts)}; "
            "counts and tokens must come from one tokenizer"
        )
    log_probability = np.log(train_counts + 1.0) - np.log(train_counts.sum() + len(train_counts))
    seen = np.bincount(held_out_tokens, minlength=len(train_counts))
    return float(-(seen * log_probability).sum() / len(held_out_tokens))


def mixture_counts(streams: Mapping[str, Sequence[str]], epochs: Mapping[str, float], vocab_size: int) -> np.ndarray:
    """How often training saw each token: [vocab] float64.

    `streams` are URLs of token files by domain; `epochs` says how often each domain was repeated, as in `data_mix`.
    """
    counts = np.zeros(vocab_size)
    for domain in sorted(streams):
        for url in streams[domain]:
            counts += epochs.get(domain, 0.0) * np.bincount(read_tokens(url), minlength=vocab_size)
    return counts
