"""Which documents are for what: a hash of `doc_id` decides, so a document's fate is the same in every run and shard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import xxhash

TRAIN, HELD_OUT = "train", "held_out"


def held_out(doc_ids: pa.ChunkedArray, share: float) -> np.ndarray:
    """True for the documents kept for evaluation, `share` of all: `[documents]` bool."""
    return _uniform(doc_ids, salt=b"held out") < share


def tokenizer_texts(tables: Iterable[pa.Table], total_bytes: int, sample_bytes: int, held_out_share: float) -> Iterator[str]:
    """Texts that the tokenizer learns from: about `sample_bytes` of `total_bytes`, spread evenly over all tables.

    Held-out documents are never among them: a vocabulary that has seen them would flatter bits per byte. `tables` hold
    doc_id and text.
    """
    wanted = min(1.0, sample_bytes / max(total_bytes, 1) / max(1.0 - held_out_share, 1e-9))
    for table in tables:
        ids = table["doc_id"]
        chosen = (_uniform(ids, salt=b"tokenizer") < wanted) & ~held_out(ids, held_out_share)
        yield from table.filter(pa.array(chosen))["text"].to_pylist()


def over_represented(doc_ids: pa.ChunkedArray, topics: pa.ChunkedArray, weights: Mapping[str, float]) -> np.ndarray:
    """True for the documents that leave so that of each topic in `weights` that share stays: `[documents]` bool."""
    weight = np.array([weights.get(topic, 1.0) for topic in topics.to_pylist()], np.float64)
    return _uniform(doc_ids, salt=b"topic") >= weight


def _uniform(doc_ids: pa.ChunkedArray, salt: bytes) -> np.ndarray:
    """A number in [0, 1) a document, independent for each salt."""
    storage = doc_ids.cast(pa.binary(16)).to_pylist()
    hashes = np.fromiter((xxhash.xxh3_64_intdigest(salt + key) for key in storage), np.uint64, len(storage))
    return (hashes >> np.uint64(11)) * 2.0**-53
