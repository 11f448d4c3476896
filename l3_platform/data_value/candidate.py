"""The documents of a candidate set as a token stream a source shard. What is held out never enters one, nor what copies it.

A document copies held-out ones where half of its 13-word shingles, or more, stand in them: a data set from elsewhere may hold
the same pages, and a loss on texts that were trained on is no measure.
"""

from __future__ import annotations

import functools
import glob
import gzip
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from l3_platform.dedup.shards import Beside
from l3_platform.dedup.shingles import Hashes, shingle_sets
from l3_platform.engine import Counts, Output, connect
from l3_platform.mix.curated import CURATED
from l3_platform.settings import Candidate, Engine, SettingsError
from l3_platform.store import QUARANTINE_SCHEMA, Shard, StoreError, files
from l3_platform.store.dataset import read_table
from l3_platform.tokens.shards import encoded
from l3_platform.tokens.split import HELD_OUT, TRAIN
from l3_platform.tokens.tokenizer import open_tokenizer

NGRAM, COPIED = 13, 0.5
EXCERPT_CHARS = 160
DOCUMENTS = pa.schema(
    [
        ("url", pa.string()),  # of the page; of a file's row without one, path:row
        ("tokens", pa.int32()),  # with begin and end
        ("bytes", pa.int32()),  # of the text in UTF-8
        ("in_default_mix", pa.bool_()),  # the default mix has a document of the same words
        ("excerpt", pa.string()),
    ]
)
KNOWN = pa.schema(
    [
        ("split", pa.string()),
        ("fingerprint", pa.uint64()),  # of the words
        ("shingles", pa.list_(pa.uint64())),  # of a held-out document, else empty
    ]
)


@dataclass(frozen=True)
class SelectTask:
    """`source` is a shard of curated_documents or the path of a file; `known` are shards of KNOWN; `tokenizer` is a URL."""

    source: Shard | str
    shard: str
    candidate: Candidate
    known: tuple[Shard, ...]
    tokenizer: str


def known_texts(shards: Beside) -> Output:
    """KNOWN of what token_shards has of one shard of curated_documents: texts that its topic weights thin out are in no split."""
    documents = shards["documents"].read(["doc_id", "text"])
    index = shards["token_shards"].read(["doc_id", "split"])
    split_of = dict(zip(index["doc_id"].to_pylist(), index["split"].to_pylist(), strict=True))
    splits = [split_of.get(doc_id) for doc_id in documents["doc_id"].to_pylist()]
    texts = documents["text"].to_pylist()
    kept = [place for place, split in enumerate(splits) if split]
    held_out = [texts[place] for place in kept if splits[place] == HELD_OUT]
    shingles = iter(_shingles_of_each(held_out))
    rows = [
        {
            "split": splits[place],
            "fingerprint": fingerprint(texts[place]),
            "shingles": next(shingles) if splits[place] == HELD_OUT else [],
        }
        for place in kept
    ]
    counts = Counts(records_in=len(texts), kept=len(rows), dropped={"topic_weight": len(texts) - len(rows)})
    return Output(pa.Table.from_pylist(rows, schema=KNOWN), counts)


def fingerprint(text: str) -> int:
    """Equal for texts of the same words: case and white space do not count."""
    return xxhash.xxh3_64_intdigest(" ".join(text.lower().split()).encode())


def select(task: SelectTask) -> Output:
    """DOCUMENTS of one source and their stream, where it has any: what `map_shards` runs."""
    if isinstance(task.source, Shard):
        curated, broken = task.source.read(), QUARANTINE_SCHEMA.empty_table()
        table = _selected(curated, task.candidate.where)
        others = curated.num_rows - table.num_rows
    else:
        table, broken = read_texts(task.source)
        others = 0
    texts = table["text"].to_pylist()
    train, held_out = _known(task.known)
    dropped = np.array([not (text or "").strip() for text in texts], np.bool_)
    copies = copied([text or "" for text in texts], held_out) & ~dropped
    kept = np.flatnonzero(~dropped & ~copies).tolist()
    chosen = pa.chunked_array([pa.array([texts[place] for place in kept], pa.string())])
    stream = list(encoded(chosen, open_tokenizer(task.tokenizer)))
    prints = np.array([fingerprint(texts[place]) for place in kept], np.uint64)
    urls = table["url"].to_pylist()
    rows = [
        {
            "url": urls[place],
            "tokens": len(ids),
            "bytes": len(texts[place].encode()),
            "in_default_mix": known,
            "excerpt": " ".join(texts[place][: 8 * EXCERPT_CHARS].split())[:EXCERPT_CHARS],
        }
        for place, ids, known in zip(kept, stream, np.isin(prints, train).tolist(), strict=True)
    ]
    reasons = Counter({"not_selected": others, "empty": int(dropped.sum()), "held_out": int(copies.sum())})
    counts = Counts(
        records_in=others + table.num_rows + broken.num_rows,
        kept=len(rows),
        dropped={reason: count for reason, count in sorted(reasons.items()) if count},
        failed=broken.num_rows,
    )
    content = {f"candidate-{task.shard}.bin": np.concatenate(stream).tobytes()} if stream else {}
    return Output(pa.Table.from_pylist(rows, schema=DOCUMENTS), counts, broken, content)


def check_condition(name: str, where: str) -> None:
    """Raises SettingsError where `where` is no condition over curated_documents."""
    try:
        _selected(CURATED.empty_table(), where)
    except duckdb.Error as error:
        raise SettingsError(
            f"setting data_value.candidates: `where` of {name} is no condition ({str(error).splitlines()[0]}); the columns are "
            f"{', '.join(CURATED.names)}"
        ) from None


def matching(name: str, pattern: str) -> list[str]:
    """The files of a path or glob, sorted. Raises SettingsError."""
    found = sorted(glob.glob(pattern, recursive=True))
    wrong = [path for path in found if not path.endswith((".parquet", ".jsonl", ".jsonl.gz"))]
    if wrong:
        raise SettingsError(f"setting data_value.candidates: `files` of {name}: {wrong[0]} is no .parquet, .jsonl or .jsonl.gz")
    if not found:
        raise SettingsError(f"setting data_value.candidates: `files` of {name}: nothing matches {pattern!r}")
    return found


def read_texts(path: str) -> tuple[pa.Table, pa.Table]:
    """`text` and `url` of each record, and a quarantine of the lines that hold none. Raises StoreError."""
    if path.endswith(".parquet"):
        table = read_table(path)
        if "text" not in table.column_names:
            raise StoreError(f"{path} has no column `text`, it has {', '.join(table.column_names)}; rename the one with the texts")
        texts = table["text"].cast(pa.string())
        urls = table["url"].to_pylist() if "url" in table.column_names else [None] * table.num_rows
        named = [url or f"{path}:{row}" for row, url in enumerate(urls)]
        return pa.table({"url": pa.array(named, pa.string()), "text": texts}), QUARANTINE_SCHEMA.empty_table()
    rows, broken = [], []
    for number, (offset, line) in enumerate(_lines(path)):
        try:
            record = json.loads(line)
            if not isinstance(record["text"], str):
                raise ValueError(f"`text` is {type(record['text']).__name__}")
            rows.append({"url": str(record.get("url") or f"{path}:{number}"), "text": record["text"]})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            place = {"file": path, "offset": offset, "reason": "no_text", "bytes_lost": len(line)}
            broken.append(place | {"detail": f"line {number + 1}: {type(error).__name__}: {error}"})
    schema = pa.schema([("url", pa.string()), ("text", pa.string())])
    return pa.Table.from_pylist(rows, schema=schema), pa.Table.from_pylist(broken, schema=QUARANTINE_SCHEMA)


def copied(texts: Sequence[str], held_out: Hashes) -> npt.NDArray[np.bool_]:
    """True for the texts of whose shingles half or more are among `held_out`, sorted hashes: [texts]."""
    if not texts or not len(held_out):
        return np.zeros(len(texts), np.bool_)
    hashes, starts = shingle_sets(pa.array(texts, pa.string()), NGRAM)
    place = np.minimum(np.searchsorted(held_out, hashes), len(held_out) - 1)
    seen = np.add.reduceat(held_out[place] == hashes, starts[:-1], dtype=np.int64)
    return seen >= COPIED * np.diff(starts)


def _selected(table: pa.Table, where: str) -> pa.Table:
    """`url` and `text` of the documents for which the condition holds."""
    connection = connect(Engine())
    connection.register("curated", table.append_column("__row", pa.array(np.arange(table.num_rows))))
    rows = connection.sql(f"SELECT __row FROM curated WHERE ({where}) ORDER BY __row").to_arrow_table()["__row"]
    return table.take(rows).select(["url", "text"])


@functools.lru_cache(maxsize=1)
def _known(shards: tuple[Shard, ...]) -> tuple[Hashes, Hashes]:
    """Fingerprints of the training texts and shingles of the held-out ones, sorted: once a worker."""
    table = pa.concat_tables([KNOWN.empty_table(), *(shard.read() for shard in shards)])
    train = table.filter(pc.field("split") == TRAIN)["fingerprint"].to_numpy()
    shingles = table["shingles"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.unique(train), np.unique(shingles)


def _shingles_of_each(texts: Sequence[str]) -> Iterator[npt.NDArray[np.uint64]]:
    hashes, starts = shingle_sets(pa.array(texts, pa.string()), NGRAM)
    yield from np.split(hashes, starts[1:-1]) if texts else []


def _lines(path: str) -> Iterator[tuple[int, bytes]]:
    """Of a JSONL file, with their offset in what it holds; blank ones are left out."""
    content = files.read(path)
    offset = 0
    for line in (gzip.decompress(content) if path.endswith(".gz") else content).splitlines(keepends=True):
        if line.strip():
            yield offset, line
        offset += len(line)
