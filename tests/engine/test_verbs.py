"""The verbs: same bytes on any number of workers, resumed after a kill, a bad shard named."""

import functools
import os
import signal
from pathlib import Path

import pyarrow as pa
import pytest

from l3_platform.engine import Counts, Output, map_actors, map_shards, shuffle
from l3_platform.engine.local import TaskFailed
from l3_platform.settings import Engine
from l3_platform.store import Dataset, Writer, files

ONE, FOUR = Engine(workers=1), Engine(workers=4)


def writer(folder: Path | str) -> Writer:
    return Writer(str(folder), asset="numbers", partition="all", code_version="1", settings={}, inputs={})


def double(number: int) -> Output:
    return Output.annotated(pa.table({"x": [2 * number]}))


def keyed(number: int) -> pa.Table:
    return pa.table({"key": [f"k{(number * step) % 7}" for step in range(20)], "value": [number] * 20})


def sums(connection) -> Output:
    table = connection.sql("SELECT key, sum(value)::BIGINT AS total, list(value) AS parts FROM rows GROUP BY key ORDER BY key")
    return Output(table.to_arrow_table(), Counts.annotated(connection.sql("FROM rows").count("*").fetchall()[0][0]))


def kill_once(flag: str, number: int) -> Output:
    if number == 3 and not os.path.exists(flag):
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return double(number)


def always_killed(number: int) -> Output:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return double(number)


def refuses(number: int) -> Output:
    if number == 3:
        raise ValueError("three is not wanted")
    return double(number)


def count_calls(log: str, number: int) -> Output:
    with open(log, "a") as stream:
        stream.write(f"{number}\n")
    return double(number)


class Model:
    def __init__(self, log: str) -> None:
        with open(log, "a") as stream:
            stream.write("loaded\n")

    def __call__(self, number: int) -> Output:
        return double(number)


TASKS = {f"part-{number:05d}": number for number in range(6)}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_one_and_four_workers_give_the_same_bytes(tmp_path):
    for name, engine in (("one", ONE), ("four", FOUR)):
        out = writer(tmp_path / name)
        out.commit(map_shards(double, TASKS, out, engine))
    assert tree(tmp_path / "one") == tree(tmp_path / "four")


def test_a_shuffle_brings_equal_keys_together_in_the_same_bytes(tmp_path):
    for name, engine in (("one", ONE), ("four", FOUR)):
        out = writer(tmp_path / name)
        out.commit(shuffle(keyed, TASKS, "key", 3, sums, out, engine))
    assert tree(tmp_path / "one") == tree(tmp_path / "four")
    table = Dataset.open(str(tmp_path / "one")).read()
    assert sorted(table["key"].to_pylist()) == [f"k{number}" for number in range(7)]
    assert sum(table["total"].to_pylist()) == 20 * sum(range(6))


def test_a_shuffle_can_send_rows_to_named_shards(tmp_path):
    out = writer(tmp_path)
    names = [f"k{number}" for number in range(8)]
    dataset = out.commit(shuffle(keyed, TASKS, "key", names, sums, out, ONE))
    assert dataset.shard("k3").read()["key"].to_pylist() == ["k3"]
    assert dataset.shard("k7").read().num_rows == 0


def test_a_killed_worker_costs_nothing(tmp_path):
    out = writer(tmp_path / "set")
    names = map_shards(functools.partial(kill_once, str(tmp_path / "flag")), TASKS, out, Engine(workers=2))
    assert out.commit(names).read()["x"].to_pylist() == [0, 2, 4, 6, 8, 10]


def test_a_shard_that_always_kills_its_worker_is_named_and_the_others_are_kept(tmp_path):
    out = writer(tmp_path)
    with pytest.raises(TaskFailed, match="shard part-00003: its worker died"):
        map_shards(always_killed, TASKS, out, Engine(workers=2, attempts=2))
    assert {"part-00000", "part-00001", "part-00002"} <= out.finished()


def test_an_error_names_its_shard(tmp_path):
    with pytest.raises(TaskFailed, match="shard part-00003: ValueError: three is not wanted"):
        map_shards(refuses, TASKS, writer(tmp_path), ONE)


def test_finished_shards_are_not_made_again(tmp_path):
    out, log = writer(tmp_path / "set"), str(tmp_path / "log")
    out.put("part-00002", double(2))
    map_shards(functools.partial(count_calls, log), TASKS, out, Engine(workers=2))
    assert sorted(Path(log).read_text().split()) == ["0", "1", "3", "4", "5"]


def test_an_actor_loads_its_state_once_a_worker(tmp_path):
    out, log = writer(tmp_path / "set"), str(tmp_path / "log")
    names = map_actors(functools.partial(Model, log), TASKS, out, ONE)
    assert out.commit(names).read()["x"].to_pylist() == [0, 2, 4, 6, 8, 10]
    assert Path(log).read_text().split() == ["loaded"]


def test_memory_storage_works_without_processes():
    out = writer("memory://engine/set")
    assert out.commit(shuffle(keyed, TASKS, "key", 2, sums, out, ONE)).read().num_rows == 7
    files.remove("memory://engine")
