"""Document deduplication over all snapshots (Llama 3, section 3.1.1): MinHash bands, true Jaccard, clusters.

    candidates   bands of every newest version meet by value: places that may be duplicates
    lefts        where each pair's left text lies and which shards want it
    verified     it travels as shingles to the right one's shard: pairs whose true Jaccard similarity reaches the threshold
    components   union-find over the verified pairs
    places       where the documents of a component lie
    placed       their shingles meet: in each component the newest stays, and who truly resembles it goes (`clusters.place`)

A document travels as its *place*, the key of its shard and its row; texts are read at home, one shard at a time. Signatures
come from `document_signatures`, a sidecar of each snapshot: a new snapshot signs only its own documents.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from l3_platform.dedup.bands import band_values, shape, sketches
from l3_platform.dedup.candidates import candidate_pairs
from l3_platform.dedup.clusters import components, place, similarities, take_sets
from l3_platform.dedup.shards import (
    BATCH_BYTES,
    Beside,
    Built,
    aligned,
    batches,
    by_name,
    folders,
    read_batch,
    read_beside,
    shard_of,
    step,
    with_columns,
    with_place,
)
from l3_platform.dedup.shingles import Hashes, Indices, Signatures, shingle_sets, signatures
from l3_platform.engine import Output, connect, map_shards, shuffle
from l3_platform.settings import Dedup, Engine, Settings
from l3_platform.store import Dataset, Shard, Writer

BUCKET_DOCUMENTS = 20_000  # whose bands are worth a bucket of their own, up to `dedup.buckets`
COMPONENT_MEMBERS = 4096  # whose shingles are in memory together: a larger component is cut into pieces of so many

PLACE = [("shard", pa.string()), ("row", pa.int32())]
BANDS = pa.schema([("band", pa.uint64()), ("sketch", pa.uint64()), ("place", pa.int64())])  # number of the shard << 32 | row
PAIRS = pa.schema([*PLACE, ("right_shard", pa.string()), ("right_row", pa.int32())])
LEFT = pa.schema([("left_shard", pa.string()), ("left_row", pa.int32()), ("shard", pa.string()), ("rows", pa.list_(pa.int32()))])
SHINGLES = ("shingles", pa.large_list(pa.uint64()))
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


def build_document_signatures(documents: Sequence[Dataset], *, out: Writer, settings: Settings) -> Built:
    """The MinHash signature of every document of a snapshot: doc_id, and uint32 [num_perm], little-endian, as bytes."""
    sign_here = functools.partial(sign, dedup=settings.dedup)
    return map_shards(sign_here, {shard.name: shard for one in documents for shard in one.shards}, out, settings.engine), {}


def sign(documents: Shard, dedup: Dedup) -> Output:
    table = documents.read(["doc_id", "text"])
    signed = signatures(table["text"], num_perm=dedup.num_perm, ngram=dedup.ngram, seed=dedup.seed)
    binary = pa.binary(4 * dedup.num_perm)
    column = pa.Array.from_buffers(binary, len(signed), [None, pa.py_buffer(signed.astype("<u4", copy=False))])
    return Output.annotated(pa.table({"doc_id": table["doc_id"], "signature": column}))


def build_duplicate_documents(
    documents: Sequence[Dataset],
    document_signatures: Sequence[Dataset],
    languages: Sequence[Dataset],
    url_versions: Sequence[Dataset],
    *,
    out: Writer,
    settings: Settings,
) -> Built:
    """Cluster, representative, cluster size and true Jaccard of every newest version; older versions have nulls.

    The newest document of a cluster is its representative, ties to the smaller doc_id. With `dedup.scope` "language" only
    documents of one language are compared.
    """
    dedup, engine = settings.dedup, settings.engine
    beside = aligned(documents, document_signatures=document_signatures, languages=languages, url_versions=url_versions)
    keys, tasks = list(beside), {key: (key, shards) for key, shards in beside.items()}
    text_at_home = {"folders": folders(documents), "ngram": dedup.ngram}

    def shuffled(name: str, map_fn: Any, over: Mapping[str, Any], key: str, buckets: Any, reduce_fn: Any) -> Dataset:
        return step(out, name, lambda writer: shuffle(map_fn, over, key, buckets, reduce_fn, writer, engine))

    banded = functools.partial(bands, dedup=dedup)
    numbered = {key: (number, shards) for number, (key, shards) in enumerate(beside.items())}
    pair_up_here = functools.partial(pair_up, keys=keys)
    total = sum(dataset.manifest.rows for dataset in documents)
    candidates = shuffled("candidates", banded, numbered, "band", min(dedup.buckets, 1 + total // BUCKET_DOCUMENTS), pair_up_here)
    lefts = shuffled("lefts", read_batch, batches(candidates), "shard", keys, group_lefts)
    send_here = functools.partial(send_shingles, **text_at_home)
    verify_here = functools.partial(verify, **text_at_home, threshold=dedup.threshold)
    verified = shuffled("verified", send_here, by_name(lefts), "shard", keys, verify_here)
    linked = step(out, "components", lambda writer: map_shards(link, {"all": (verified, engine)}, writer, engine))
    members = shuffled("places", read_batch, batches(linked), "shard", keys, in_order)
    read_here = functools.partial(read_members, **text_at_home)
    cluster = functools.partial(form_clusters, threshold=dedup.threshold)
    text = sum(dataset.manifest.bytes for dataset in documents) * members.manifest.rows // max(1, total)
    clusters = shuffled("placed", read_here, by_name(members), "component", min(dedup.buckets, 1 + text // BATCH_BYTES), cluster)
    home = {f"document-{key}": task for key, task in tasks.items()} | {
        f"member-{name}": batch for name, batch in batches(clusters).items()
    }
    names = shuffle(home_rows, home, "shard", keys, bring_home, out, engine)
    metrics = {
        "bands": shape(dedup.num_perm, dedup.threshold, dedup.bands).bands,
        "candidate_pairs": candidates.manifest.rows,
        "verified_pairs": verified.manifest.rows,
        "linked_documents": members.manifest.rows,
    }
    return names, metrics


def bands(task: tuple[int, Beside], dedup: Dedup) -> pa.Table:
    """BANDS rows of the newest versions in a shard: one a band and document."""
    number, shards = task
    table = read_beside(shards, document_signatures=["signature"], languages=["language"], url_versions=["newest"])
    rows = np.flatnonzero(table["newest"].to_numpy())
    table = table.take(pa.array(rows))
    signed = _signatures(table["signature"], dedup.num_perm)
    seeds = _language_seeds(table["language"]) if dedup.scope == "language" else None
    values = band_values(signed, shape(dedup.num_perm, dedup.threshold, dedup.bands), seeds)
    columns = [values.reshape(-1), *(np.repeat(column, values.shape[1]) for column in (sketches(signed), number << 32 | rows))]
    return pa.table([pa.array(column) for column in columns], schema=BANDS)


def _signatures(column: pa.ChunkedArray, num_perm: int) -> Signatures:
    parts = [
        np.frombuffer(chunk.buffers()[1], "<u4").reshape(-1, num_perm)[chunk.offset :][: len(chunk)] for chunk in column.chunks
    ]
    return np.concatenate([np.zeros((0, num_perm), np.uint32), *parts])


def _language_seeds(languages: pa.ChunkedArray) -> Hashes:
    found = languages.to_pylist()
    seeds = {language: xxhash.xxh64_intdigest((language or "").encode()) for language in set(found)}
    return np.array([seeds[language] for language in found], np.uint64)


def pair_up(rows: pa.Table, connection: duckdb.DuckDBPyConnection, keys: Sequence[str]) -> Output:
    """PAIRS of places that share a band, each pair once, the smaller place first. `keys` are those of the shards, in order."""
    band, sketch, places = (rows[name].to_numpy() for name in BANDS.names)
    # Equal signatures are neighbours within a band, so that exact copies in a hot band find each other.
    order = np.lexsort((places, sketch, band))
    one, other = (places[order[side]] for side in candidate_pairs(band[order]))
    pairs = np.stack([np.minimum(one, other), np.maximum(one, other)])
    left, right = np.unique(pairs, axis=1) if pairs.size else pairs
    shards = pa.array(keys, pa.string())
    columns = [column for side in (left, right) for column in (shards.take(pa.array(side >> 32)), pa.array(side.astype(np.int32)))]
    return Output.annotated(pa.table(columns, schema=PAIRS))


def group_lefts(rows: pa.Table, connection: duckdb.DuckDBPyConnection) -> Output:
    """LEFT: each left document of one shard, once for each shard in which it has candidates."""
    wanted = connection.sql(
        "SELECT shard AS left_shard, row AS left_row, right_shard AS shard, "
        "list(DISTINCT right_row ORDER BY right_row) AS rows FROM rows GROUP BY ALL ORDER BY left_row, right_shard"
    ).to_arrow_table()
    return Output.annotated(wanted.cast(LEFT))


def send_shingles(lefts: Shard, folders: Mapping[str, str], ngram: int) -> pa.Table:
    return _with_shingles(lefts.read(), "left_shard", "left_row", folders, ngram)


def verify(
    rows: pa.Table, connection: duckdb.DuckDBPyConnection, folders: Mapping[str, str], ngram: int, threshold: float
) -> Output:
    """VERIFIED: the pairs whose right document lies in this shard and whose true Jaccard reaches `threshold`."""
    right_row, starts = _flat(rows["rows"])
    rights = np.unique(right_row)
    shard = rows["shard"][0].as_py() if rows.num_rows else ""
    wanted = pa.table([pa.repeat(shard, len(rights)), pa.array(rights)], schema=pa.schema(PLACE))
    here = _with_shingles(wanted, "shard", "row", folders, ngram)
    left = np.repeat(np.arange(rows.num_rows), np.diff(starts))
    right = np.searchsorted(rights, right_row)
    similarity = similarities(left, _flat(rows["shingles"]), right, _flat(here["shingles"]), threshold)
    found = similarity >= 0
    verified = rows.select(["left_shard", "left_row", "shard"]).take(pa.array(left[found]))
    verified = verified.append_column("row", pa.array(right_row[found]))
    return Output.annotated(verified.append_column("jaccard", pa.array(similarity[found])).cast(VERIFIED))


def link(task: tuple[Dataset, Engine]) -> Output:
    """COMPONENTS of the graph of verified pairs. Holds the places of duplicates in memory, never their texts.

    A component of more than COMPONENT_MEMBERS is cut into pieces, each of which keeps a representative: of a million copies
    of a page 245 stay, and memory is bounded.
    """
    verified, engine = task
    connection = connect(engine)
    connection.register("pairs", verified.read(VERIFIED.names[:-1]))
    connection.sql(
        "CREATE TEMP TABLE nodes AS SELECT shard, row, row_number() OVER (ORDER BY shard, row) - 1 AS node FROM "
        "(SELECT shard, row FROM pairs UNION SELECT left_shard, left_row FROM pairs)"
    )
    edges = connection.sql(
        "SELECT lefts.node AS one, rights.node AS other FROM pairs "
        "JOIN nodes AS lefts ON (left_shard, left_row) = (lefts.shard, lefts.row) "
        "JOIN nodes AS rights ON (pairs.shard, pairs.row) = (rights.shard, rights.row)"
    ).to_arrow_table()
    nodes = connection.sql("SELECT shard, row FROM nodes ORDER BY node").to_arrow_table()
    labels = components(nodes.num_rows, edges["one"].to_numpy(), edges["other"].to_numpy())
    return Output.annotated(nodes.append_column("component", pa.array(pieces(labels, COMPONENT_MEMBERS))).cast(COMPONENTS))


def pieces(labels: Indices, most: int) -> Indices:
    """Labels under which no more than `most` nodes stand: in order of the nodes, each piece is named by its first."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    rank = np.arange(len(labels)) - np.repeat(starts, np.diff(np.r_[starts, len(labels)]))
    result = np.empty_like(labels)
    result[order] = order[np.arange(len(labels)) - rank % most]
    return result


def in_order(rows: pa.Table, connection: duckdb.DuckDBPyConnection) -> Output:
    return Output.annotated(rows.sort_by("row"))


def read_members(members: Shard, folders: Mapping[str, str], ngram: int) -> pa.Table:
    """Shingles, doc_id and fetch_time of the documents of one shard that belong to a component."""
    return _with_shingles(members.read(), "shard", "row", folders, ngram, dated=True)


def form_clusters(rows: pa.Table, connection: duckdb.DuckDBPyConnection, threshold: float) -> Output:
    """PLACE and CLUSTER of each document of the components in this bucket."""
    order = connection.sql(
        "SELECT place FROM (SELECT *, row_number() OVER () - 1 AS place FROM rows) "
        "ORDER BY component, fetch_time DESC, doc_id, shard, row"
    ).to_arrow_table()["place"]
    members = rows.drop_columns(["shingles"]).take(order)
    shingles = take_sets(*_flat(rows["shingles"]), order.to_numpy())
    representative, similarity = place(members["component"].to_numpy(), *shingles, threshold)
    sizes = np.bincount(representative, minlength=members.num_rows)[representative]
    columns = [
        *(members[name] for name in ("shard", "row")),
        members["doc_id"].take(pa.array(representative)),
        pa.array(representative == np.arange(members.num_rows)),
        pa.array(sizes.astype(np.int32)),
        pa.array(similarity),
    ]
    return Output.annotated(pa.table(columns, names=[name for name, _ in [*PLACE, *CLUSTER]]))


def home_rows(task: tuple[str, Beside] | tuple[Shard, ...]) -> pa.Table:
    """Every document of a shard, or every member of a cluster: the two sides that `bring_home` joins."""
    schema = pa.schema([*PLACE, ("doc_id", pa.uuid()), ("newest", pa.bool_()), *CLUSTER])
    if isinstance(task[0], str):
        key, shards = cast("tuple[str, Beside]", task)
        table = with_place(read_beside(shards, url_versions=["newest"]), key)
    else:
        table = read_batch(cast("tuple[Shard, ...]", task))
    return with_columns(table, schema)


def bring_home(rows: pa.Table, connection: duckdb.DuckDBPyConnection) -> Output:
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
    texts, which = np.unique(table[row].to_numpy(), return_inverse=True)
    hashes, starts = take_sets(*shingle_sets(documents["text"].take(pa.array(texts)), ngram), which)
    column = pa.LargeListArray.from_arrays(pa.array(starts), pa.array(hashes))
    documents = documents.take(table[row])
    return pa.table([*table.columns, *(documents[name] for name, _ in extra), column], schema=schema)


def _flat(column: pa.ChunkedArray) -> tuple[npt.NDArray[Any], Indices]:
    """A column of lists as their values, one list after another, and where each begins, [rows + 1]: see `shingle_sets`."""
    lists = column.combine_chunks()
    return lists.flatten().to_numpy(), np.r_[0, np.cumsum(lists.value_lengths().to_numpy())]
