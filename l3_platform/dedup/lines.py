"""Line deduplication as in ccNet (Llama 3, section 3.1.1): lines seen too often in a bucket of documents are removed.

Buckets are equal ranges of doc_id, which is a hash: every bucket is a fair sample of the crawl, however the crawl was
cut into shards. Within a bucket each language counts apart (section 3.1.1: multilingual data is deduplicated within its
language). Every occurrence counts, those in one document too, and every occurrence goes, the first one too.

Code is left alone: the lines of a paragraph of code (`return x`, `import numpy as np`) are neither counted nor removed.
Nor are lines shorter than `dedup.line_min_chars` anywhere (`}`, `or`).
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterator, Sequence

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from l3_platform.dedup.code import is_code_paragraph
from l3_platform.dedup.shards import Beside, Built, aligned, read_beside, step, with_columns, with_place
from l3_platform.engine import Output, shuffle
from l3_platform.settings import Dedup, Settings
from l3_platform.store import Dataset, Shard, Writer

PLACE = [("shard", pa.string()), ("row", pa.int32())]
OCCURRENCES = pa.schema([("key", pa.uint64()), *PLACE, ("line", pa.int32()), ("chars", pa.int32())])
REPEATED = pa.schema([*PLACE, ("line", pa.int32()), ("chars", pa.int32())])
HOME_ROWS = pa.schema([*REPEATED, ("doc_id", pa.uuid()), ("lines", pa.int32())])
SCHEMA = pa.schema(
    [
        ("doc_id", pa.uuid()),
        ("removed_lines", pa.list_(pa.int32())),  # indices in text.split("\n")
        ("removed_chars", pa.int32()),  # of the removed lines, without their line ends
        ("lines", pa.int32()),
    ]
)

COUNT = """
SELECT shard, row, line, chars
FROM (SELECT *, count(*) OVER (PARTITION BY key) AS seen FROM rows)
WHERE seen > {line_max_count}
ORDER BY shard, row, line
"""

HOME = """
SELECT doc_id,
       coalesce(removed_lines, []) AS removed_lines,
       coalesce(removed_chars, 0)  AS removed_chars,
       document.lines
FROM (FROM rows WHERE doc_id IS NOT NULL) AS document
LEFT JOIN (
    SELECT row, list(line ORDER BY line) AS removed_lines, sum(chars)::INT AS removed_chars
    FROM rows WHERE line IS NOT NULL GROUP BY row
) AS repeated USING (row)
ORDER BY row
"""


def build_repeated_lines(
    documents: Sequence[Dataset],
    languages: Sequence[Dataset],
    url_versions: Sequence[Dataset],
    duplicate_documents: Sequence[Dataset],
    *,
    out: Writer,
    settings: Settings,
) -> Built:
    """Lines to remove from each document that survives URL and document deduplication; the others have none."""
    dedup, engine = settings.dedup, settings.engine
    beside = aligned(documents, languages=languages, url_versions=url_versions, duplicate_documents=duplicate_documents)
    tasks = {key: (key, shards) for key, shards in beside.items()}
    buckets = max(1, -(-sum(dataset.manifest.rows for dataset in documents) // dedup.line_bucket_documents))
    occurrences_here = functools.partial(occurrences, buckets=buckets, min_chars=dedup.line_min_chars)
    count_here = functools.partial(count, dedup=dedup)
    repeated = step(
        out,
        "repeated",
        lambda writer: shuffle(occurrences_here, tasks, "key", dedup.buckets, count_here, writer, engine),
    )
    home = {f"document-{key}": task for key, task in tasks.items()} | {f"line-{shard.name}": shard for shard in repeated.shards}
    names = shuffle(home_rows, home, "shard", list(beside), bring_home, out, engine)
    return names, {"line_buckets": buckets, "removed_lines": repeated.manifest.rows}


def occurrences(task: tuple[str, Beside], buckets: int, min_chars: int) -> pa.Table:
    """OCCURRENCES: every line of the surviving documents of a shard that counts."""
    key, shards = task
    table = read_beside(
        shards,
        documents=["text"],
        languages=["language"],
        url_versions=["newest"],
        duplicate_documents=["representative"],
    )
    table = with_place(table, key)
    table = table.filter(pc.field("newest") & pc.field("representative"))
    keys: list[int] = []
    places: list[tuple[int, int, int]] = []
    columns = (table[name].to_pylist() for name in ("doc_id", "language", "row", "text"))
    for doc_id, language, row, text in zip(*columns, strict=True):
        hasher = xxhash.xxh64(f"{language}\n".encode(), seed=line_bucket(doc_id, buckets))
        for index, line in counted_lines(text or "", min_chars):
            line_hash = hasher.copy()
            line_hash.update(line.strip().encode())
            keys.append(line_hash.intdigest())
            places.append((row, index, len(line)))
    rows, lines, chars = zip(*places, strict=True) if places else ((), (), ())
    arrays = [
        pa.array(keys, pa.uint64()),
        pa.repeat(key, len(keys)),
        *(pa.array(x, pa.int32()) for x in (rows, lines, chars)),
    ]
    return pa.table(arrays, schema=OCCURRENCES)


def line_bucket(doc_id: uuid.UUID, buckets: int) -> int:
    return doc_id.int * buckets >> 128


def counted_lines(text: str, min_chars: int) -> Iterator[tuple[int, str]]:
    """Index and text of the lines that count: those of prose, and long enough once stripped."""
    paragraph: list[tuple[int, str]] = []
    for index, line in enumerate([*text.split("\n"), ""]):
        if line.strip():
            paragraph.append((index, line))
            continue
        if not is_code_paragraph([line for _, line in paragraph]):
            yield from ((index, line) for index, line in paragraph if len(line.strip()) >= min_chars)
        paragraph = []


def count(connection: duckdb.DuckDBPyConnection, dedup: Dedup) -> Output:
    query = COUNT.format(line_max_count=dedup.line_max_count)
    return Output.annotated(connection.sql(query).to_arrow_table().cast(REPEATED))


def home_rows(task: tuple[str, Beside] | Shard) -> pa.Table:
    """Every document of a shard with its number of lines, or the repeated lines of many: `bring_home` joins them."""
    if isinstance(task, Shard):
        return with_columns(task.read(), HOME_ROWS)
    key, shards = task
    table = with_place(read_beside(shards, documents=["text"]), key)
    lines = pa.array([1 + (text or "").count("\n") for text in table["text"].to_pylist()], pa.int32())
    return with_columns(table.append_column("lines", lines), HOME_ROWS)


def bring_home(connection: duckdb.DuckDBPyConnection) -> Output:
    return Output.annotated(connection.sql(HOME).to_arrow_table().cast(SCHEMA))


def without_lines(text: str, removed: Sequence[int]) -> str:
    """The text less the lines at these indices; runs of empty lines that they leave become one."""
    if not removed:
        return text
    gone = set(removed)
    kept: list[str] = []
    for index, line in enumerate(text.split("\n")):
        if index in gone or (not line.strip() and index - 1 in gone and kept and not kept[-1].strip()):
            gone.add(index)
        else:
            kept.append(line)
    return "\n".join(kept).strip("\n")
