"""Document deduplication over all snapshots (Llama 3, section 3.1.1): MinHash bands, true Jaccard, clusters.

    candidates   bands of every newest version meet by value: places that may be duplicates
    shingles     each pair's left text, read where it lies, travels as shingles to the shard of the right one
    verified     pairs whose true Jaccard similarity reaches the threshold
    components   union-find over the verified pairs
    members      shingles of the documents in a component, read where they lie
    clusters     in each component the newest stays, and who truly resembles it goes (`clusters.place`)

A document travels as its *place*, the key of its shard and its row; texts are read at home, one shard at a time.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from l3_platform.dedup.candidates import candidate_pairs
from l3_platform.dedup.clusters import alike, components, place
from l3_platform.dedup.shards import (
    Beside,
    Built,
    aligned,
    folders,
    read_beside,
    shard_of,
    step,
    with_columns,
    with_place,
)
from l3_platform.dedup.shingles import Hashes, band_values, shingles, signatures, sketches
from l3_platform.engine import Output, connect, map_shards, shuffle
from l3_platform.settings import Dedup, Engine, Settings
from l3_platform.store import Dataset, Shard, Writer

PLACE = [("shard", pa.string()), ("row", pa.int32())]
BANDS = pa.schema([("band", pa.uint64()), ("sketch", pa.uint64()), *PLACE])
PAIRS = pa.schema([*PLACE, ("right_shard", pa.string()), ("right_row", pa.int32())])
LEFT = pa.schema([("left_shard", pa.string()), ("left_row", pa.int32()), ("shard", pa.string()), ("rows", pa.list_(pa.int32()))])
SHINGLES = ("shingles", pa.list_(pa.uint64()))
VERIFIED = pa.schema([("left_shard", pa.string()), ("left_row", pa.int32()), *PLACE, ("jaccard", pa.float64())])
COMPONENTS = pa.schema([*PLACE, ("component", pa.int64())])
DATED = [("doc_id", pa.uuid()), ("fetch_time", pa.timestamp("us", "UTC"))]
CLUSTER = [
    ("cluster", pa.uuid()),
    ("representative", pa.bool_()),
    ("cluster_size", pa.int32()),
    ("jaccard", pa.float64()),
]

HOME = """
SELECT document.doc_id,
       CASE WHEN document.newest THEN coalesce(member.cluster, document.doc_id) END AS cluster,
       CASE WHEN document.newest THEN coalesce(member.representative, true) END     AS representative,
       CASE WHEN document.newest THEN coalesce(member.cluster_size, 1) END          AS cluster_size,
       CASE WHEN document.newest THEN coalesce(member.jaccard, 1.0) END             AS jaccard
FROM (FROM rows WHERE doc_id IS NOT NULL) AS document
LEFT JOIN (FROM rows WHERE cluster IS NOT NULL) AS member USING (row)
ORDER BY row
"""


def build_duplicate_documents(
    documents: Sequence[Dataset], url_versions: Sequence[Dataset], *, out: Writer, settings: Settings
) -> Built:
    """Cluster, representative, cluster size and true Jaccard of every newest version; older versions have nulls.

    The newest document of a cluster is its representative, ties to the smaller doc_id.
    """
    dedup, engine = settings.dedup, settings.engine
    beside = aligned(documents, url_versions=url_versions)
    keys, tasks = list(beside), {key: (key, shards) for key, shards in beside.items()}
    text_at_home = {"folders": folders(documents), "ngram": dedup.ngram}

    def shuffled(name: str, map_fn: Any, over: Mapping[str, Any], key: str, buckets: Any, reduce_fn: Any) -> Dataset:
        return step(out, name, lambda writer: shuffle(map_fn, over, key, buckets, reduce_fn, writer, engine))

    banded = functools.partial(bands, dedup=dedup)
    candidates = shuffled("candidates", banded, tasks, "band", dedup.buckets, pair_up)
    left = shuffled("shingles", Shard.read, _shards(candidates), "shard", keys, functools.partial(send_shingles, **text_at_home))
    verify_here = functools.partial(verify, **text_at_home, threshold=dedup.threshold)
    verified = shuffled("verified", Shard.read, _shards(left), "shard", keys, verify_here)
    linked = step(out, "components", lambda writer: map_shards(link, {"all": (verified, engine)}, writer, engine))
    members = shuffled("members", Shard.read, _shards(linked), "shard", keys, functools.partial(read_members, **text_at_home))
    cluster = functools.partial(form_clusters, threshold=dedup.threshold)
    clusters = shuffled("clusters", Shard.read, _shards(members), "component", dedup.buckets, cluster)
    home = {f"document-{key}": task for key, task in tasks.items()} | {
        f"member-{name}": shard for name, shard in _shards(clusters).items()
    }
    names = shuffle(home_rows, home, "shard", keys, bring_home, out, engine)
    metrics = {
        "candidate_pairs": candidates.manifest.rows,
        "verified_pairs": verified.manifest.rows,
        "linked_documents": members.manifest.rows,
    }
    return names, metrics


def _shards(dataset: Dataset) -> dict[str, Shard]:
    return {shard.name: shard for shard in dataset.shards}


def bands(task: tuple[str, Beside], dedup: Dedup) -> pa.Table:
    """BANDS rows of the newest versions in a shard: one a band and document."""
    key, shards = task
    table = with_place(read_beside(shards, documents=["text"], url_versions=["newest"]), key)
    table = table.filter(table["newest"])
    signed = signatures(table["text"], num_perm=dedup.num_perm, ngram=dedup.ngram, seed=dedup.seed)
    values = band_values(signed, dedup.bands)
    columns = {
        "band": pa.array(values.reshape(-1)),
        "sketch": pa.array(np.repeat(sketches(signed), dedup.bands)),
        "shard": pa.repeat(key, values.size),
        "row": pa.array(np.repeat(table["row"].to_numpy(), dedup.bands)),
    }
    return pa.table(columns, schema=BANDS)


def pair_up(connection: duckdb.DuckDBPyConnection) -> Output:
    """PAIRS of places that share a band, each pair once, the smaller place first."""
    # Equal signatures are neighbours within a band, so that exact copies in a hot band find each other.
    ordered = connection.sql(
        "SELECT *, dense_rank() OVER (ORDER BY shard, row) - 1 AS place FROM rows ORDER BY band, sketch, shard, row"
    ).to_arrow_table()
    places = ordered["place"].to_numpy()
    one, other = candidate_pairs(ordered["band"].to_numpy())
    pairs = np.sort(np.stack([places[one], places[other]]), axis=0)
    left, right = np.unique(pairs, axis=1)
    first_row = np.zeros(places.max(initial=-1) + 1, np.int64)
    first_row[places] = np.arange(len(places))
    columns = [ordered[name].take(pa.array(first_row[side])) for side in (left, right) for name in ("shard", "row")]
    return Output.annotated(pa.table(columns, schema=PAIRS))


def send_shingles(connection: duckdb.DuckDBPyConnection, folders: Mapping[str, str], ngram: int) -> Output:
    """The shingles of the left documents of one shard, once for each shard in which they have candidates."""
    wanted = connection.sql(
        "SELECT shard AS left_shard, row AS left_row, right_shard AS shard, "
        "list(DISTINCT right_row ORDER BY right_row) AS rows FROM rows GROUP BY ALL ORDER BY left_row, right_shard"
    ).to_arrow_table()
    wanted = wanted.cast(LEFT)
    return Output.annotated(_with_shingles(wanted, "left_shard", "left_row", folders, ngram))


def verify(connection: duckdb.DuckDBPyConnection, folders: Mapping[str, str], ngram: int, threshold: float) -> Output:
    """VERIFIED: the pairs whose right document lies in this shard and whose true Jaccard reaches `threshold`."""
    pairs = connection.sql("SELECT * FROM rows ORDER BY left_shard, left_row").to_arrow_table()
    rows = connection.sql("SELECT DISTINCT shard, unnest(rows) AS row FROM rows ORDER BY row").to_arrow_table()
    here = _with_shingles(rows.cast(pa.schema(PLACE)), "shard", "row", folders, ngram)
    right = dict(zip(here["row"].to_pylist(), _arrays(here["shingles"]), strict=True))
    lefts = zip(_arrays(pairs["shingles"]), pairs["rows"].to_pylist(), strict=True)
    found = [
        (index, row, similarity)
        for index, (left, candidates) in enumerate(lefts)
        for row in candidates
        if (similarity := alike(left, right[row], threshold)) is not None
    ]
    index, row, similarity = zip(*found, strict=True) if found else ((), (), ())
    verified = pairs.select(["left_shard", "left_row", "shard"]).take(pa.array(index, pa.int64()))
    verified = verified.append_column("row", pa.array(row, pa.int32()))
    return Output.annotated(verified.append_column("jaccard", pa.array(similarity, pa.float64())).cast(VERIFIED))


def link(task: tuple[Dataset, Engine]) -> Output:
    """COMPONENTS of the graph of verified pairs. Holds the places of duplicates in memory, never their texts."""
    verified, engine = task
    connection = connect(engine)
    connection.register("pairs", verified.read(VERIFIED.names[:-1]))
    connection.sql(
        "CREATE TABLE nodes AS SELECT shard, row, row_number() OVER (ORDER BY shard, row) - 1 AS node FROM "
        "(SELECT shard, row FROM pairs UNION SELECT left_shard, left_row FROM pairs)"
    )
    edges = connection.sql(
        "SELECT lefts.node AS one, rights.node AS other FROM pairs "
        "JOIN nodes AS lefts ON (left_shard, left_row) = (lefts.shard, lefts.row) "
        "JOIN nodes AS rights ON (pairs.shard, pairs.row) = (rights.shard, rights.row)"
    ).to_arrow_table()
    nodes = connection.sql("SELECT shard, row FROM nodes ORDER BY node").to_arrow_table()
    labels = components(nodes.num_rows, edges["one"].to_numpy(), edges["other"].to_numpy())
    return Output.annotated(nodes.append_column("component", pa.array(labels)).cast(COMPONENTS))


def read_members(connection: duckdb.DuckDBPyConnection, folders: Mapping[str, str], ngram: int) -> Output:
    """Shingles, doc_id and fetch_time of the documents of one shard that belong to a component."""
    rows = connection.sql("SELECT shard, row, component FROM rows ORDER BY row").to_arrow_table().cast(COMPONENTS)
    return Output.annotated(_with_shingles(rows, "shard", "row", folders, ngram, dated=True))


def form_clusters(connection: duckdb.DuckDBPyConnection, threshold: float) -> Output:
    """PLACE and CLUSTER of each document of the components in this bucket."""
    members = connection.sql("SELECT * FROM rows ORDER BY component, fetch_time DESC, doc_id, shard, row").to_arrow_table()
    component = members["component"].to_numpy()
    bounds = [*np.flatnonzero(np.diff(component, prepend=-1)).tolist(), len(component)]
    hashes = _arrays(members["shingles"])
    representative, similarity = np.arange(len(component)), np.ones(len(component))
    for start, end in itertools.pairwise(bounds):
        for offset, placed in enumerate(place(hashes[start:end], threshold)):
            representative[start + offset] = start + placed.representative
            similarity[start + offset] = placed.jaccard
    sizes = np.bincount(representative, minlength=len(component))[representative]
    columns = [
        *(members[name] for name in ("shard", "row")),
        members["doc_id"].take(pa.array(representative)),
        pa.array(representative == np.arange(len(component))),
        pa.array(sizes.astype(np.int32)),
        pa.array(similarity),
    ]
    return Output.annotated(pa.table(columns, names=[name for name, _ in [*PLACE, *CLUSTER]]))


def home_rows(task: tuple[str, Beside] | Shard) -> pa.Table:
    """Every document of a shard, or every member of a cluster: the two sides that `bring_home` joins."""
    schema = pa.schema([*PLACE, ("doc_id", pa.uuid()), ("newest", pa.bool_()), *CLUSTER])
    if isinstance(task, Shard):
        table = task.read()
    else:
        key, shards = task
        table = with_place(read_beside(shards, url_versions=["newest"]), key)
    return with_columns(table, schema)


def bring_home(connection: duckdb.DuckDBPyConnection) -> Output:
    schema = pa.schema([("doc_id", pa.uuid()), *CLUSTER])
    return Output.annotated(connection.sql(HOME).to_arrow_table().cast(schema))


def _with_shingles(
    table: pa.Table, shard: str, row: str, folders: Mapping[str, str], ngram: int, *, dated: bool = False
) -> pa.Table:
    """Adds the shingles of the texts at (`shard`, `row`), and doc_id and fetch_time; all rows are of one shard."""
    extra = DATED if dated else []
    schema = pa.schema([*table.schema, *extra, SHINGLES])
    if table.num_rows == 0:
        return schema.empty_table()
    documents = shard_of(table[shard][0].as_py(), folders).read([*(name for name, _ in extra), "text"])
    documents = documents.take(table[row])
    hashed: dict[int, Hashes] = {}
    for number, text in zip(table[row].to_pylist(), documents["text"].to_pylist(), strict=True):
        if number not in hashed:
            hashed[number] = shingles(text or "", ngram)
    lists = [hashed[number] for number in table[row].to_pylist()]
    offsets = np.r_[0, np.cumsum([len(hashes) for hashes in lists])].astype(np.int32)
    column = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(lists)))
    return pa.table([*table.columns, *(documents[name] for name, _ in extra), column], schema=schema)


def _arrays(column: pa.ChunkedArray) -> list[Hashes]:
    """A column of lists as numpy arrays that share its memory."""
    result: list[Hashes] = []
    for chunk in column.chunks:
        values, offsets = chunk.values.to_numpy(), chunk.offsets.to_numpy()
        result.extend(values[start:end] for start, end in itertools.pairwise(offsets))
    return result
