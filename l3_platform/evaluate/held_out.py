"""Loss of exported models on documents that no training saw: nats a token, bits a byte, and the unigram baseline.

Bits a byte compare models with different tokenizers; nats a token do not.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from l3_platform.allocator import keep_freed_memory
from l3_platform.evaluate.unigram import unigram_nll
from l3_platform.settings import Settings
from l3_platform.tokens.shards import read_tokens
from l3_platform.tokens.split import HELD_OUT

ALL = "all"
LOSSES = pa.schema(
    [
        ("model", pa.string()),
        ("domain_group", pa.string()),  # or "all"
        ("documents", pa.int64()),
        ("tokens", pa.int64()),  # predicted: all but the very first
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

    models: name to folder of an exported model. held_out: domain to token files on this machine, as in training. index:
    the rows of `token_shards` that say where documents lie in them and how many bytes they have. train_counts: [vocab],
    see `mixture_counts`. Of each domain the first whole documents of at most `evaluate.max_tokens_per_domain` tokens
    are read, one at least. Raises ValueError when nothing is held out.
    """
    texts = [_text(domain, files, index, settings) for domain, files in held_out.items()]
    texts = [text for text in texts if text.documents]
    if not texts:
        raise ValueError("evaluation: no document is held out; raise mix.held_out_share or bring more documents")
    baseline = [unigram_nll(train_counts, text.tokens[1:]) * text.predicted for text in texts]
    rows = []
    for name, folder in models.items():
        nats = _nats(folder, texts, bos_id, settings)
        parts = list(zip(texts, nats, baseline, strict=True))
        rows += [_row(name, part[0].domain, [part]) for part in parts]
        rows.append(_row(name, ALL, parts))
    return pa.Table.from_pylist(rows, schema=LOSSES)


@dataclass(frozen=True)
class _Text:
    """The first documents of a domain's files, end to end: tokens [tokens] ids."""

    domain: str
    files: tuple[str, ...]
    tokens: np.ndarray
    documents: int
    bytes: int

    @property
    def predicted(self) -> int:
        return len(self.tokens) - 1


def _text(domain: str, files: Sequence[str], index: pa.Table, settings: Settings) -> _Text:
    chosen = index.filter((pc.field("split") == HELD_OUT) & (pc.field("domain_group") == domain)).to_pylist()
    order = {name: _place(name, domain, files) for name in sorted({row["file"] for row in chosen})}
    used = size = documents = 0
    for row in sorted(chosen, key=lambda row: (order[row["file"]], row["start"])):
        if documents and used + row["tokens"] > settings.evaluate.max_tokens_per_domain:
            break
        used, size, documents = used + row["tokens"], size + row["bytes"], documents + 1
    return _Text(domain, tuple(files), _first_tokens(files, used), documents, size)


def _place(name: str, domain: str, files: Sequence[str]) -> int:
    for place, file in enumerate(files):
        if file.endswith(name):  # a local copy of a remote file has its folders in its name
            return place
    raise ValueError(f"evaluation: the index names {name}, which is none of the files of {domain}")


def _first_tokens(files: Sequence[str], count: int) -> np.ndarray:
    pieces = [np.zeros(0, np.uint32)]
    for file in files:
        if count <= 0:
            break
        pieces.append(read_tokens(file)[:count])
        count -= len(pieces[-1])
    return np.concatenate(pieces)


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


def _nats(folder: str | Path, texts: Sequence[_Text], bos_id: int, settings: Settings) -> list[float]:
    """Summed nats of each text under an exported model."""
    import torch

    from l3_platform.model import load_exported
    from l3_platform.train.held_out import held_out_losses

    keep_freed_memory()
    model = load_exported(folder, "cuda" if torch.cuda.is_available() else "cpu")
    with _threads(settings.train.threads):
        return [
            held_out_losses(
                model,
                {text.domain: text.files},
                seq_len=max(stage.seq_len for stage in settings.train.ramp),
                bos_id=bos_id if settings.train.document_mask else None,
                max_tokens=len(text.tokens),
                batch_sequences=settings.evaluate.batch_sequences,
            )[text.domain][0]
            for text in texts
        ]


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """The same number of threads everywhere: sums of floats depend on it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
