"""Curated documents to token streams: one little-endian uint32 file a split and domain, and an index of every document.

A document in a stream is `<|begin_of_text|>` tokens `<|end_of_text|>`; nothing is cut or padded, the trainer packs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer as BPE

from l3_platform.engine import Counts, Output
from l3_platform.mix.data_mix import DOMAINS
from l3_platform.store import Dataset, Shard, files
from l3_platform.tokens.split import HELD_OUT, TRAIN, held_out, over_represented
from l3_platform.tokens.tokenizer import BEGIN_OF_TEXT, END_OF_TEXT, encode_texts, open_tokenizer

TOKEN = np.dtype("<u4")
BATCH_CHARS = 4 << 20  # text encoded at a time: bounds memory, not the result
INDEX = pa.schema(
    [
        ("doc_id", pa.uuid()),
        ("domain_group", pa.string()),
        ("split", pa.string()),
        ("file", pa.string()),
        ("start", pa.int64()),  # position of <|begin_of_text|> in the file, tokens
        ("tokens", pa.int32()),  # with begin and end
        ("bytes", pa.int32()),  # of the text in UTF-8: what bits per byte divides by
        ("url", pa.string()),
    ]
)


@dataclass(frozen=True)
class EncodeTask:
    """A shard of `curated_documents`; `tokenizer` is the URL of tokenizer.json."""

    documents: Shard
    name: str
    tokenizer: str
    held_out_share: float
    topic_weights: Mapping[str, float] = field(default_factory=dict)


def encode_shard(task: EncodeTask) -> Output:
    """Token streams and index of one shard: what `map_shards` runs. Counts what `topic_weights` thins out, topic by topic."""
    topic = ["topic"] if task.topic_weights else []
    table = task.documents.read(["doc_id", "url", "domain_group", "text", *topic])
    thinned, dropped = thin_out(table, task) if topic else (table, {})
    output = encode_documents(thinned, open_tokenizer(task.tokenizer), task.name, task.held_out_share)
    counts = Counts(records_in=table.num_rows, kept=thinned.num_rows, dropped=dropped)
    return dataclasses.replace(output, counts=counts)


def thin_out(table: pa.Table, task: EncodeTask) -> tuple[pa.Table, dict[str, int]]:
    """The documents that stay and, by topic, how many leave. What is held out stays whole: evaluation sees the web as it is."""
    surplus = over_represented(table["doc_id"], table["topic"], task.topic_weights)
    surplus &= ~held_out(table["doc_id"], task.held_out_share)
    topics = table.filter(pa.array(surplus))["topic"].to_pylist()
    return table.filter(pa.array(~surplus)), {f"topic_weight {topic}": topics.count(topic) for topic in sorted(set(topics))}


def encode_documents(table: pa.Table, tokenizer: BPE, shard: str, held_out_share: float) -> Output:
    """Index rows in the order of `table` (doc_id, url, domain_group, text); files `{split}-{domain}-{shard}.bin`.

    A split and domain without documents has no file. Special-token strings inside a text become ordinary tokens.
    Raises ValueError on an unknown domain_group.
    """
    domains = table["domain_group"].to_pylist()
    unknown = sorted(set(domains) - set(DOMAINS), key=str)
    if unknown:
        raise ValueError(f"shard {shard}: domain_group {unknown[0]!r} is none of {', '.join(DOMAINS)}")
    splits = [HELD_OUT if held else TRAIN for held in held_out(table["doc_id"], held_out_share)]
    names = [f"{split}-{domain}-{shard}.bin" for split, domain in zip(splits, domains, strict=True)]
    streams: dict[str, list[np.ndarray]] = {name: [] for name in sorted(set(names))}
    length = dict.fromkeys(streams, 0)
    starts, counts = [], []
    for name, ids in zip(names, encoded(table["text"], tokenizer), strict=True):
        streams[name].append(ids)
        starts.append(length[name])
        counts.append(len(ids))
        length[name] += len(ids)
    index = pa.table(
        [table["doc_id"], domains, splits, names, starts, counts, _utf8_bytes(table["text"]), table["url"]],
        schema=INDEX,
    )
    content = {name: np.concatenate(parts).tobytes() for name, parts in streams.items()}
    return Output(index, Counts.annotated(table.num_rows), files=content)


def encoded(texts: pa.ChunkedArray, tokenizer: BPE) -> Iterator[np.ndarray]:
    """Each text as it stands in a stream: uint32 [tokens], begin and end included."""
    begin, end = tokenizer.token_to_id(BEGIN_OF_TEXT), tokenizer.token_to_id(END_OF_TEXT)
    for batch in _batches(texts):
        for ids in encode_texts(tokenizer, batch):
            yield np.array([begin, *ids, end], TOKEN)


def _batches(texts: pa.ChunkedArray) -> Iterator[list[str]]:
    batch, chars = [], 0
    for text in texts:
        batch.append(text.as_py())
        chars += len(batch[-1])
        if chars >= BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def _utf8_bytes(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.call_function("binary_length", [texts]).cast(pa.int32())


def read_tokens(url: str) -> np.ndarray:
    """A whole stream: `[tokens]` uint32."""
    return np.frombuffer(files.read(url), TOKEN)


def stream_urls(shards: Dataset, split: str) -> dict[str, list[str]]:
    """URLs of the streams of a split (`train`, `held_out`) by domain, shards in order; empty domains are absent."""
    return {domain: [shards.file(name) for name in listed] for domain, listed in stream_files(shards, split).items()}


def stream_files(shards: Dataset, split: str) -> dict[str, dict[str, int]]:
    """The same by name, with their tokens: with the index, the place of every document in its domain's stream."""
    sizes = {entry.name.removeprefix("files/"): entry.bytes for account in shards.manifest.shards for entry in account.files}
    found = {
        domain: {name: sizes[name] // TOKEN.itemsize for name in sorted(sizes) if name.startswith(f"{split}-{domain}-")}
        for domain in DOMAINS
    }
    return {domain: listed for domain, listed in found.items() if listed}


def totals(index: pa.Table) -> pa.Table:
    """Documents, tokens and bytes of an index by split and domain_group, sorted."""
    grouped = index.group_by(["split", "domain_group"]).aggregate([("tokens", "count"), ("tokens", "sum"), ("bytes", "sum")])
    names = {"tokens_count": "documents", "tokens_sum": "tokens", "bytes_sum": "bytes"}
    renamed = grouped.rename_columns([names.get(name, name) for name in grouped.column_names])
    return renamed.select(["split", "domain_group", *names.values()]).sort_by(
        [("split", "ascending"), ("domain_group", "ascending")]
    )


def of_split(index: pa.Table, split: str, column: str = "tokens") -> dict[str, int]:
    """`tokens` or `bytes` by domain of one split, every domain named: what `data_mix` and bits per byte need."""
    table = totals(index)
    rows = table.filter(pc.field("split") == split)
    return dict.fromkeys(DOMAINS, 0) | {row["domain_group"]: row[column] for row in rows.to_pylist()}
