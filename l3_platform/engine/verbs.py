"""map_shards, shuffle and map_actors: what runs over shards; where it runs is the backend's business."""

from __future__ import annotations

import bisect
import functools
import io
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from l3_platform.engine import local, ray_backend
from l3_platform.engine.backend import Backend
from l3_platform.engine.progress import progress
from l3_platform.settings import Engine
from l3_platform.store import Output, StoreError, Writer, files

Task = Any
MapFn = Callable[[Task], Output]
RowsFn = Callable[[Task], pa.Table]
ReduceFn = Callable[[pa.Table, duckdb.DuckDBPyConnection], Output]

_BUCKETS = b"buckets"
_MOST_HOLDERS = 1_000_000
_AT_ONCE = 16  # files of an object store whose list of buckets is read


def map_shards(fn: MapFn, tasks: Mapping[str, Task], out: Writer, settings: Engine, *, here: bool = False) -> list[str]:
    """Make one shard of `out` from each task: `fn(task) -> Output`, picklable. Returns the shards' names, sorted.

    Finished shards are not made again. Raises TaskFailed when a shard cannot be made; the others are kept. `here`: one by one
    in this process, where the tasks share what each worker would have to make for itself; errors are then `fn`'s own.
    """
    finished = out.finished()
    todo = {name: (name, task) for name, task in sorted(tasks.items()) if name not in finished}
    _run(functools.partial(_make, fn, out), todo, f"{out.asset} {out.partition}", out, settings, here=here)
    return sorted(tasks)


def _make(fn: MapFn, out: Writer, named: tuple[str, Task]) -> None:
    name, task = named
    out.put(name, fn(task))


def map_actors(model: Callable[[], MapFn], tasks: Mapping[str, Task], out: Writer, settings: Engine) -> list[str]:
    """As map_shards, with state that is costly to load: `model()` runs once a worker and returns what maps a task.

    `model` is a picklable callable, such as `functools.partial(Classifier, path)`; equal pickles share the state.
    """
    return map_shards(_Actor(model), tasks, out, settings)


@dataclass(frozen=True)
class _Actor:
    model: Callable[[], MapFn]

    def __call__(self, task: Task) -> Output:
        import pickle

        return _load(pickle.dumps(self.model))(task)


@functools.lru_cache(maxsize=2)
def _load(pickled: bytes) -> MapFn:
    import pickle

    return pickle.loads(pickled)()


def shuffle(
    map_fn: RowsFn,
    tasks: Mapping[str, Task],
    key: str,
    buckets: int | Sequence[str],
    reduce_fn: ReduceFn,
    out: Writer,
    settings: Engine,
) -> list[str]:
    """Bring rows with an equal `key` together, then reduce bucket by bucket. Returns the shards' names.

    `map_fn(task)` gives rows; they meet in the bucket of their key's hash or, where `buckets` is a sequence of names, in
    the bucket that `key` names. `reduce_fn(rows, connection)` has them in the order of (task, row), also as the view `rows` of
    a DuckDB with `settings.memory_limit`, and returns the Output of shard `bucket-00000` (or of that name). Empty
    buckets are reduced too, so that every name has its shard.
    """
    if not tasks:
        raise StoreError(f"{out.asset}/{out.partition}: there is nothing to shuffle, its inputs have no shards")
    names = [f"bucket-{number:05d}" for number in range(buckets)] if isinstance(buckets, int) else list(buckets)
    scratch = out.scratch("rows")
    sources = [files.join(scratch, f"{task}.arrow") for task in sorted(tasks)]
    holders: Sequence[Sequence[str]] = [sources] * len(names)
    if set(names) - out.finished():
        written = set(files.names(scratch))
        todo = {task: (files.join(scratch, f"{task}.arrow"), tasks[task]) for task in sorted(tasks)}
        todo = {task: item for task, item in todo.items() if f"{task}.arrow" not in written}
        by_name = None if isinstance(buckets, int) else names
        split = functools.partial(_split, map_fn, key, len(names), by_name, out)
        _run(split, todo, f"{out.asset} {out.partition} split", out, settings)
        holders = _holders(sources, len(names))
    numbered = {name: (number, holders[number]) for number, name in enumerate(names)}
    return map_shards(functools.partial(_reduce, reduce_fn, settings), numbered, out, settings)


def _holders(sources: Sequence[str], buckets: int) -> Sequence[Sequence[str]]:
    """For each bucket the files to look into: those that hold rows of it, at least one; simply all where that were a long list."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        present = list(pool.map(_present, sources))
    if sum(map(len, present)) > _MOST_HOLDERS:
        return [sources] * buckets
    holders: list[list[str]] = [[] for _ in range(buckets)]
    for source, held in zip(sources, present, strict=True):
        for number in held:
            holders[number].append(source)
    return [found or sources[:1] for found in holders]


def _present(url: str) -> list[int]:
    with files.random_access(url) as source, pa.ipc.open_file(source) as file:
        return json.loads(file.metadata[_BUCKETS])


def _split(map_fn: RowsFn, key: str, buckets: int, names: Sequence[str] | None, out: Writer, item: tuple[str, Task]) -> None:
    """What `map_fn` makes of a task, as an Arrow file of a record batch a bucket: each bucket then reads its own and no other's.

    The file's metadata lists the buckets that have rows here, in the order of their batches.
    """
    url, task = item
    rows = map_fn(task)
    number = _hashed(rows[key], buckets) if names is None else _named(rows[key], names)
    if names is not None and np.isnan(number).any():
        raise StoreError(f"{out.asset}: a row's {key!r} names none of the {buckets} buckets")
    order = np.argsort(number, kind="stable")
    present, starts = np.unique(number[order].astype(np.int64), return_index=True)
    ordered = rows.take(pa.array(order)).combine_chunks()
    if len(ordered.to_batches()) > 1:  # a column of strings has no more room
        raise StoreError(
            f"{out.asset}: a task gave over 2 GiB of text to shuffle; make its shards smaller (fewer pages a WARC file)"
        )
    sink, options = io.BytesIO(), pa.ipc.IpcWriteOptions(compression=None if _mostly_hashes(rows) else "lz4")
    with pa.ipc.new_file(sink, rows.schema, options=options, metadata={_BUCKETS: json.dumps(present.tolist())}) as file:
        for first, last in itertools.pairwise([*starts.tolist(), len(order)]):
            (batch,) = ordered.slice(first, last - first).to_batches()
            file.write_batch(batch)
    files.write(url, sink.getvalue())


def _mostly_hashes(rows: pa.Table) -> bool:
    """Whether there is nothing to compress: whoever tries takes as long as all the rest of a split."""
    kinds = [getattr(field.type, "value_type", field.type) for field in rows.schema]
    hashes = sum(column.nbytes for column, kind in zip(rows.columns, kinds, strict=True) if kind == pa.uint64())
    return 2 * hashes > rows.nbytes


def _hashed(keys: pa.ChunkedArray, buckets: int) -> npt.NDArray[np.int64]:
    connection = connect(Engine())
    connection.register("keys", pa.table({"key": keys}))
    return connection.sql(f"SELECT (hash(key) % {buckets})::BIGINT AS bucket FROM keys").to_arrow_table()["bucket"].to_numpy()


def _named(keys: pa.ChunkedArray, names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Not a number where a key is none of the names."""
    return pc.call_function("index_in", [keys], pc.SetLookupOptions(value_set=pa.array(names, keys.type))).to_numpy()


def _reduce(reduce_fn: ReduceFn, settings: Engine, numbered: tuple[int, Sequence[str]]) -> Output:
    number, sources = numbered
    rows = pa.Table.from_batches([_bucket_rows(source, number) for source in sources])
    connection = connect(settings)
    connection.register("rows", rows)
    return reduce_fn(rows, connection)


def _bucket_rows(url: str, number: int) -> pa.RecordBatch:
    with files.random_access(url) as source, pa.ipc.open_file(source) as file:
        present = json.loads(file.metadata[_BUCKETS])
        place = bisect.bisect_left(present, number)
        if place < len(present) and present[place] == number:
            return file.get_batch(place)
        return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in file.schema], schema=file.schema)


def connect(settings: Engine) -> duckdb.DuckDBPyConnection:
    """A connection to this process's DuckDB with the engine's limits: opening one takes longer than most queries here.

    What it registers, and its temporary tables and views, are its own; make no others.
    """
    return _database(settings.memory_limit).cursor()


@functools.lru_cache(maxsize=2)
def _database(memory_limit: str) -> duckdb.DuckDBPyConnection:
    return open_database(memory_limit)


def open_database(memory_limit: str) -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory, to set up as one likes: one thread (order and sums are then repeatable), uuids kept as such."""
    return duckdb.connect(
        config={
            "memory_limit": memory_limit,
            "threads": 1,
            "arrow_lossless_conversion": True,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
    )


def _run(
    fn: Callable[[Any], None], tasks: Mapping[str, Any], label: str, out: Writer, settings: Engine, *, here: bool = False
) -> None:
    if not tasks:
        return
    with progress(label, total=len(tasks)) as advance:
        if not here and files.shared_between_processes(out.folder):
            backend: Backend = ray_backend.run if settings.backend == "ray" else local.run
            backend(fn, tasks, settings, lambda name: advance(1))
        else:
            for task in tasks.values():
                fn(task)
                advance(1)


def workers(settings: Engine) -> int:
    """Tasks that run at a time, on the backend that the settings choose."""
    return ray_backend.workers(settings) if settings.backend == "ray" else local.workers(settings)
