"""`tokenizer` and `token_shards` as datasets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from l3_platform.engine import Counts, Output, map_shards
from l3_platform.quality.domains import OTHER, topic_model
from l3_platform.settings import Settings, nearest
from l3_platform.store import Dataset, Writer
from l3_platform.tokens.shards import EncodeTask, encode_shard, of_split
from l3_platform.tokens.split import HELD_OUT, TRAIN, tokenizer_texts
from l3_platform.tokens.tokenizer import (
    BEGIN_OF_TEXT,
    END_OF_TEXT,
    efficiency,
    load_tokenizer,
    open_tokenizer,
    train_tokenizer,
)

TOKENIZER = "tokenizer.json"


def build_tokenizer(
    curated_documents: Sequence[Dataset], *, out: Writer, settings: Settings
) -> tuple[Sequence[str], Mapping[str, Any]]:
    """Train the BPE on a sample of the training split. One shard: characters a token by domain; a file: tokenizer.json."""
    shards = [shard for dataset in curated_documents for shard in dataset.shards]
    total = sum(_text_bytes(shard.read(["text"])) for shard in shards)

    def tables() -> Iterator[pa.Table]:
        for shard in shards:
            yield shard.read(["doc_id", "text"])

    texts = tokenizer_texts(tables(), total, settings.tokenizer.sample_bytes, settings.mix.held_out_share)
    content = train_tokenizer(texts, settings.tokenizer)
    tokenizer = load_tokenizer(content)
    by_domain: dict[str, list[str]] = {}
    for shard in shards[:4]:
        for row in shard.read(["domain_group", "text"]).to_pylist():
            by_domain.setdefault(row["domain_group"], []).append(row["text"])
    table = efficiency(tokenizer, dict(sorted(by_domain.items())))
    documents = sum(dataset.manifest.rows for dataset in curated_documents)
    out.put("part-00000", Output(table, Counts.annotated(documents), files={TOKENIZER: content}))
    overall = table.to_pylist()[-1]
    return ["part-00000"], {"vocabulary": tokenizer.get_vocab_size(), "characters a token": overall["chars_per_token"]}


def _text_bytes(table: pa.Table) -> int:
    return sum(len(text.encode()) for text in table["text"].to_pylist())


def build_token_shards(
    curated_documents: Sequence[Dataset], tokenizer: Sequence[Dataset], *, out: Writer, settings: Settings
) -> tuple[Sequence[str], Mapping[str, Any]]:
    """Token streams by split and domain, and the index of every document in them. Raises ValueError on an unknown topic."""
    url, mix = tokenizer[0].file(TOKENIZER), settings.mix
    known = [*topic_model().weights, OTHER]
    for topic in mix.topic_weights:
        if topic not in known:
            raise ValueError(f"setting mix.topic_weights: {topic!r} is no topic of knowledge_domains{nearest(topic, known)}")
    tasks = {
        shard.name: EncodeTask(shard, shard.name, url, mix.held_out_share, mix.topic_weights)
        for dataset in curated_documents
        for shard in dataset.shards
    }
    names = map_shards(encode_shard, tasks, out, settings.engine)
    return names, {"topic_weights": mix.topic_weights}


def tokens_by_domain(token_shards: Dataset, split: str = TRAIN) -> dict[str, int]:
    """Tokens of a split by domain."""
    return of_split(token_shards.read(["split", "domain_group", "tokens", "bytes"]), split)


def held_out_bytes(token_shards: Dataset) -> dict[str, int]:
    """UTF-8 bytes of the held-out texts by domain: what bits per byte divides by."""
    return of_split(token_shards.read(["split", "domain_group", "tokens", "bytes"]), HELD_OUT, "bytes")


@dataclass(frozen=True)
class Vocabulary:
    size: int
    bos_id: int
    eos_id: int


def vocabulary(tokenizer: Dataset) -> Vocabulary:
    """What a model must know of a tokenizer: size and the two ids that end and begin documents."""
    opened = open_tokenizer(tokenizer.file(TOKENIZER))
    bos_id, eos_id = opened.token_to_id(BEGIN_OF_TEXT), opened.token_to_id(END_OF_TEXT)
    if bos_id is None or eos_id is None:
        raise ValueError(f"{tokenizer.folder}: the tokenizer lacks {BEGIN_OF_TEXT} or {END_OF_TEXT}; materialize tokenizer again")
    return Vocabulary(opened.get_vocab_size(), bos_id, eos_id)
