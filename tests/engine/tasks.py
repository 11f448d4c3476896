"""Small stages for tests of the engine, importable in every worker, and what surrounds them."""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from pathlib import Path

import pyarrow as pa

from l3_platform.engine import Counts, Output, map_shards
from l3_platform.settings import Engine
from l3_platform.store import Writer

TASKS = {f"part-{number:05d}": number for number in range(6)}


def writer(folder: Path | str) -> Writer:
    return Writer(str(folder), asset="numbers", partition="all", code_version="1", settings={}, inputs={})


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def double(number: int) -> Output:
    return Output.annotated(pa.table({"x": [2 * number]}))


def slowly(number: int) -> Output:
    time.sleep(0.3)
    return double(number)


def keyed(number: int) -> pa.Table:
    return pa.table({"key": [f"k{(number * step) % 7}" for step in range(20)], "value": [number] * 20})


def keyed_by_what_no_bucket_has(number: int) -> pa.Table:
    return pa.table({"key": ["k0", None if number % 2 else "k99"], "value": [number, number]})


def keyed_if_even(number: int) -> pa.Table:
    """Half of the tasks have no rows; each row has an id of an extension type."""
    rows = 0 if number % 2 else 3
    ids = pa.array([uuid.uuid5(uuid.NAMESPACE_OID, f"{number} {row}").bytes for row in range(rows)], pa.binary(16))
    key = pa.array([f"k{number}"] * rows, pa.string())
    return pa.table({"id": pa.ExtensionArray.from_storage(pa.uuid(), ids), "key": key})


def as_they_come(rows, connection) -> Output:
    return Output.annotated(rows)


def sums(rows, connection) -> Output:
    table = connection.sql("SELECT key, sum(value)::BIGINT AS total, list(value) AS parts FROM rows GROUP BY key ORDER BY key")
    return Output(table.to_arrow_table(), Counts.annotated(connection.sql("FROM rows").count("*").fetchall()[0][0]))


def kill_once(flag: str, number: int) -> Output:
    if number == 3 and not os.path.exists(flag):
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return double(number)


def keyed_and_kill_once(flag: str, number: int) -> pa.Table:
    kill_once(flag, number)
    return keyed(number)


def always_killed(number: int) -> Output:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return double(number)


def refuses(number: int) -> Output:
    if number == 3:
        raise ValueError("three is not wanted")
    return double(number)


def note_the_node(log: str, number: int) -> Output:
    import ray

    _append(log, ray.get_runtime_context().get_node_id())
    return slowly(number)


def count_calls(log: str, number: int) -> Output:
    _append(log, str(number))
    return double(number)


class Model:
    def __init__(self, log: str) -> None:
        _append(log, "loaded")

    def __call__(self, number: int) -> Output:
        return double(number)


def _append(log: str, line: str) -> None:
    with open(log, "a") as stream:
        stream.write(f"{line}\n")


def loaded_modules(number: int) -> Output:
    return Output.annotated(pa.table({"module": sorted(sys.modules)}))


def a_stage(folder: str) -> None:
    """What a step process does: a stage, then its end."""
    out = writer(folder)
    out.commit(map_shards(double, TASKS, out, Engine(workers=2)))
