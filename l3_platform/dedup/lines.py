"""Line deduplication as in ccNet (Llama 3, section 3.1.1): lines seen too often in a bucket of documents are removed.

Buckets are equal ranges of doc_id, which is a hash: every bucket is a fair sample of the crawl, however the crawl was
cut into shards. Within a bucket each language counts apart (section 3.1.1: multilingual data is deduplicated within its
language). Every occurrence counts, those in one document too, and every occurrence goes, the first one too.

Code is left alone: the lines of a paragraph of code (`return x`, `import numpy as np`) are neither counted nor removed.
Nor are lines shorter than `dedup.line_min_chars` anywhere (`}`, `or`).
"""

from __future__ import annotations

import functools
import itertools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from l3_platform.dedup import line_kernels
from l3_platform.dedup.code import first_words, is_code
from l3_platform.dedup.shards import Beside, Built, aligned, read_beside, step, with_columns, with_place
from l3_platform.dedup.shingles import utf8
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
    found = counted_lines(table["text"], min_chars)
    hashed = np.empty(len(found.start), np.uint64)
    line_kernels.hash_lines(found.data, found.start, found.end, _seeds(table, buckets)[found.document], hashed)
    columns = {
        "key": pa.array(hashed),
        "shard": pa.repeat(key, len(hashed)),
        "row": table["row"].take(pa.array(found.document)),
        "line": pa.array(found.line.astype(np.int32)),
        "chars": pa.array(found.chars.astype(np.int32)),
    }
    return pa.table(columns, schema=OCCURRENCES)


def _seeds(table: pa.Table, buckets: int) -> npt.NDArray[np.uint64]:
    """What the hashes of each document's lines begin with: those of its language and line bucket only meet their like."""
    places = [
        (language or "", line_bucket(doc_id, buckets))
        for doc_id, language in zip(table["doc_id"].to_pylist(), table["language"].to_pylist(), strict=True)
    ]
    seeds = {place: xxhash.xxh64_intdigest(place[0].encode(), seed=place[1]) for place in set(places)}
    return np.array([seeds[place] for place in places], np.uint64)


def line_bucket(doc_id: uuid.UUID, buckets: int) -> int:
    return doc_id.int * buckets >> 128


@dataclass(frozen=True)
class Lines:
    """Lines of a batch of texts: arrays [lines], and the bytes of the texts."""

    data: npt.NDArray[np.uint8]
    document: npt.NDArray[np.int64]
    line: npt.NDArray[np.int64]  # index in text.split("\n")
    start: npt.NDArray[np.int64]  # bytes of `data`, stripped
    end: npt.NDArray[np.int64]
    chars: npt.NDArray[np.int64]  # of the line before it is stripped


def counted_lines(texts: pa.ChunkedArray, min_chars: int) -> Lines:
    """The lines that count: those of prose, and long enough once stripped.

    A paragraph is code when one of its lines is indented, as only the text of a `<pre>` is, or has a prompt, or when most of
    them read as code.
    """
    whole = texts.cast(pa.large_string()).combine_chunks()
    data, offsets = utf8(whole)
    most = int(np.count_nonzero(data[offsets[0] : offsets[-1]] == ord("\n"))) + len(texts)
    fields = [np.empty(most, np.int64) for _ in range(7)]
    kind = np.empty(most, np.uint8)
    keywords, openers = first_words()
    count = line_kernels.find_lines(data, offsets, keywords, openers, kind, *fields)
    document, line, start, end, chars, stripped_chars, paragraph = (each[:count] for each in fields)
    prompts, maybe = (kind[:count] & flag != 0 for flag in (line_kernels.PROMPT, line_kernels.MAYBE_CODE))
    paragraphs = int(paragraph[-1]) + 1 if count else 0
    is_code_paragraph = np.bincount(paragraph[prompts], minlength=paragraphs) > 0
    reads_as_code = np.zeros(count, bool)
    asked = np.flatnonzero(maybe & ~is_code_paragraph[paragraph])
    for number, lines in itertools.groupby(asked.tolist(), key=lambda each: int(document[each])):
        split = whole[number].as_buffer().to_pybytes().decode(errors="replace").split("\n")
        for each in lines:
            reads_as_code[each] = is_code(split[line[each]])
    code_lines = np.bincount(paragraph[reads_as_code], minlength=paragraphs)
    is_code_paragraph |= 2 * code_lines > np.bincount(paragraph, minlength=paragraphs)
    kept = (stripped_chars >= min_chars) & ~is_code_paragraph[paragraph]
    return Lines(data, document[kept], line[kept], start[kept], end[kept], chars[kept])


def count(rows: pa.Table, connection: duckdb.DuckDBPyConnection, dedup: Dedup) -> Output:
    query = COUNT.format(line_max_count=dedup.line_max_count)
    return Output.annotated(connection.sql(query).to_arrow_table().cast(REPEATED))


def home_rows(task: tuple[str, Beside] | Shard) -> pa.Table:
    """Every document of a shard with its number of lines, or the repeated lines of many: `bring_home` joins them."""
    if isinstance(task, Shard):
        return with_columns(task.read(), HOME_ROWS)
    key, shards = task
    table = with_place(read_beside(shards, documents=["text"]), key)
    data, offsets = utf8(table["text"])
    lines = 1 + np.diff(np.searchsorted(np.flatnonzero(data == ord("\n")), offsets))
    return with_columns(table.append_column("lines", pa.array(lines.astype(np.int32))), HOME_ROWS)


def bring_home(rows: pa.Table, connection: duckdb.DuckDBPyConnection) -> Output:
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
