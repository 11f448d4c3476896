"""Loss of exported models on documents that no training saw: nats a token, bits a byte, and the unigram baseline.

Bits a byte compare models with different tokenizers; nats a token do not.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from l3_platform.evaluate.unigram import unigram_nll
from l3_platform.settings import Settings
from l3_platform.tokens.shards import read_tokens
from l3_platform.tokens.split import HELD_OUT

if TYPE_CHECKING:
    from l3_platform.model import Llama

ALL = "all"
LOSSES = pa.schema(
    [
        ("model", pa.string()),
        ("domain_group", pa.string()),  # or "all"
        ("documents", pa.int64()),
        ("tokens", pa.int64()),  # predicted: all of a document but <|begin_of_text|>
        ("bytes", pa.int64()),  # of the documents' texts, UTF-8
        ("loss", pa.float64()),  # nats a token
        ("bits_per_byte", pa.float64()),
        ("unigram_loss", pa.float64()),  # nats a token, on the same tokens
        ("unigram_bits_per_byte", pa.float64()),
    ]
)


def evaluate_models(
    models: Mapping[str, str | Path],
    held_out: Mapping[str, Sequence[str]],
    index: pa.Table,
    train_counts: np.ndarray,
    bos_id: int,
    settings: Settings,
) -> pa.Table:
    """A row of `LOSSES` a model and domain, and one of `all`, in the order of `models` and `held_out`.

    models: name to folder of an exported model. held_out: domain to URLs of its token streams. index: the rows of
    `token_shards` that tell where documents lie in them and how many bytes they have. train_counts: [vocab], see
    `mixture_counts`. A domain is evaluated on whole documents of about `evaluate.max_tokens_per_domain` tokens, in the
    order of doc_id, which is a hash: a fair draw. Raises ValueError when nothing is held out.
    """
    texts = [_documents(domain, urls, index, settings) for domain, urls in held_out.items()]
    texts = [text for text in texts if text.documents]
    if not texts:
        raise ValueError("evaluation: no document is held out; raise mix.held_out_share or bring more documents")
    counts = train_counts.astype(np.float64)
    counts[bos_id] = 0.0  # it is never predicted, so the baseline spends nothing on it
    baseline = [unigram_nll(counts, text.tokens[text.tokens != bos_id]) * text.predicted for text in texts]
    rows = []
    for name, folder in models.items():
        nats = _nats(folder, [text.tokens for text in texts], bos_id, settings)
        measured = list(zip(texts, nats, baseline, strict=True))
        rows += [_row(name, text.domain, [part]) for text, part in zip(texts, measured, strict=True)]
        rows.append(_row(name, ALL, measured))
    return pa.Table.from_pylist(rows, schema=LOSSES)


@dataclass(frozen=True)
class _Text:
    """Held-out documents of a domain, end to end: [tokens] ids, each document beginning with `bos_id`."""

    domain: str
    tokens: np.ndarray
    documents: int
    bytes: int

    @property
    def predicted(self) -> int:
        return len(self.tokens) - self.documents


def _documents(domain: str, urls: Sequence[str], index: pa.Table, settings: Settings) -> _Text:
    chosen = index.filter((pc.field("split") == HELD_OUT) & (pc.field("domain_group") == domain))
    rows = sorted(chosen.to_pylist(), key=lambda row: row["doc_id"].bytes)
    streams = {url.rsplit("/", 1)[-1]: read_tokens(url) for url in urls}
    pieces, used, size = [], 0, 0
    for row in rows:
        if pieces and used + row["tokens"] > settings.evaluate.max_tokens_per_domain:
            break
        if row["file"] not in streams:
            raise ValueError(f"evaluation: the index names {row['file']}, which is none of the streams of {domain}")
        pieces.append(streams[row["file"]][row["start"] : row["start"] + row["tokens"]])
        used, size = used + row["tokens"], size + row["bytes"]
    return _Text(domain, np.concatenate(pieces) if pieces else np.zeros(0, np.uint32), len(pieces), size)


def _row(model: str, domain: str, parts: Sequence[tuple[_Text, float, float]]) -> dict:
    tokens = sum(text.predicted for text, _, _ in parts)
    size = sum(text.bytes for text, _, _ in parts)
    nats = sum(part for _, part, _ in parts)
    unigram = sum(part for _, _, part in parts)
    return {
        "model": model,
        "domain_group": domain,
        "documents": sum(text.documents for text, _, _ in parts),
        "tokens": tokens,
        "bytes": size,
        "loss": nats / tokens,
        "bits_per_byte": nats / math.log(2) / size if size else None,
        "unigram_loss": unigram / tokens,
        "unigram_bits_per_byte": unigram / math.log(2) / size if size else None,
    }


def _nats(folder: str | Path, texts: Sequence[np.ndarray], bos_id: int, settings: Settings) -> list[float]:
    """Summed nats of each text under an exported model. One thread count for all, so that sums are repeatable."""
    import torch

    from l3_platform.model import load_exported

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_exported(folder, device)
    with _threads(settings.train.threads), torch.inference_mode():
        return [_text_nats(model, tokens, bos_id, settings) for tokens in texts]


def _text_nats(model: Llama, tokens: np.ndarray, bos_id: int, settings: Settings) -> float:
    import torch

    sequences = settings.evaluate.batch_sequences
    device = next(model.parameters()).device
    inputs, targets = windows(tokens, max(stage.seq_len for stage in settings.train.ramp), bos_id)
    total = 0.0
    for start in range(0, len(inputs), sequences):
        batch = [torch.from_numpy(part[start : start + sequences]).to(device) for part in (inputs, targets)]
        total += float(model(*batch, bos_id=bos_id if settings.train.document_mask else None))
    return total


def windows(tokens: np.ndarray, seq_len: int, bos_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets, [sequences, seq_len] int64: every token but `bos_id` is a target once, the rest are -100.

    A document that crosses a window's edge goes on without what stood before, as in training.
    """
    count = -(-(len(tokens) - 1) // seq_len)
    inputs = np.full(count * seq_len, bos_id, np.int64)
    targets = np.full(count * seq_len, -100, np.int64)
    inputs[: len(tokens) - 1] = tokens[:-1]
    targets[: len(tokens) - 1] = tokens[1:]
    targets[targets == bos_id] = -100
    return inputs.reshape(count, seq_len), targets.reshape(count, seq_len)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
