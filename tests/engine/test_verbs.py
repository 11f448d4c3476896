"""The verbs: same bytes on any number of workers, resumed after a kill, a bad shard named."""

import functools
import multiprocessing
import os
from pathlib import Path

import pytest

from l3_platform.engine import local, map_actors, map_shards, shuffle
from l3_platform.engine.backend import TaskFailed
from l3_platform.settings import Engine
from l3_platform.store import StoreError, files
from tests.engine.tasks import (
    TASKS,
    Model,
    a_stage,
    always_killed,
    as_they_come,
    count_calls,
    double,
    keyed,
    keyed_by_what_no_bucket_has,
    keyed_if_even,
    kill_once,
    loaded_modules,
    refuses,
    sums,
    tree,
    writer,
)

ONE, TWO, EIGHT = Engine(workers=1), Engine(workers=2), Engine(workers=8)


def test_one_two_and_eight_workers_give_the_same_bytes(tmp_path):
    for name, engine in (("one", ONE), ("two", TWO), ("eight", EIGHT)):
        out = writer(tmp_path / name / "mapped")
        out.commit(map_shards(double, TASKS, out, engine))
        out = writer(tmp_path / name / "shuffled")
        out.commit(shuffle(keyed, TASKS, "key", 3, sums, out, engine))
        local.shutdown()
    assert tree(tmp_path / "one") == tree(tmp_path / "two") == tree(tmp_path / "eight")


def test_a_shuffle_brings_equal_keys_together(tmp_path):
    out = writer(tmp_path)
    table = out.commit(shuffle(keyed, TASKS, "key", 3, sums, out, ONE)).read()
    assert sorted(table["key"].to_pylist()) == [f"k{number}" for number in range(7)]
    assert sum(table["total"].to_pylist()) == 20 * sum(range(6))


def test_a_shuffle_can_send_rows_to_named_shards(tmp_path):
    out = writer(tmp_path)
    names = [f"k{number}" for number in range(8)]
    dataset = out.commit(shuffle(keyed, TASKS, "key", names, sums, out, ONE))
    assert dataset.shard("k3").read()["key"].to_pylist() == ["k3"]
    assert dataset.shard("k7").read().num_rows == 0


def test_rows_for_no_bucket_are_refused_by_name(tmp_path):
    with pytest.raises(TaskFailed, match="a row's 'key' names none of the 2 buckets"):
        shuffle(keyed_by_what_no_bucket_has, TASKS, "key", ["k0", "k1"], sums, writer(tmp_path), ONE)


def test_tasks_and_buckets_without_rows_lose_nothing(tmp_path):
    out = writer(tmp_path)
    dataset = out.commit(shuffle(keyed_if_even, TASKS, "key", [f"k{number}" for number in range(9)], as_they_come, out, ONE))
    assert dataset.read()["key"].to_pylist() == ["k0"] * 3 + ["k2"] * 3 + ["k4"] * 3
    assert dataset.shard("k8").read().schema.equals(dataset.shard("k0").read().schema)
    assert len(set(dataset.read()["id"].to_pylist())) == 9


def test_a_shuffle_works_on_object_storage(s3_folder, monkeypatch):
    monkeypatch.setattr(files, "shared_between_processes", lambda url: False)  # workers would not know of the server
    out = writer(s3_folder)
    table = out.commit(shuffle(keyed, TASKS, "key", 3, sums, out, ONE)).read()
    assert sum(table["total"].to_pylist()) == 20 * sum(range(6))


def test_nothing_to_shuffle_is_told_in_words(tmp_path):
    with pytest.raises(StoreError, match="there is nothing to shuffle"):
        shuffle(keyed, {}, "key", 3, sums, writer(tmp_path), ONE)


def test_a_killed_worker_costs_nothing(tmp_path):
    out = writer(tmp_path / "set")
    names = map_shards(functools.partial(kill_once, str(tmp_path / "flag")), TASKS, out, TWO)
    assert out.commit(names).read()["x"].to_pylist() == [0, 2, 4, 6, 8, 10]


def test_a_shard_that_always_kills_its_worker_is_named_and_the_others_are_kept(tmp_path):
    out = writer(tmp_path)
    with pytest.raises(TaskFailed, match="shard part-00003: its worker died"):
        map_shards(always_killed, TASKS, out, Engine(workers=2, attempts=2))
    assert {"part-00000", "part-00001", "part-00002"} <= out.finished()


def test_a_dead_worker_is_told_also_where_there_is_only_one_attempt(tmp_path):
    with pytest.raises(TaskFailed, match=r"part-00003.*its worker died 1 times"):
        map_shards(always_killed, TASKS, writer(tmp_path), Engine(workers=1, attempts=1))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_process_that_multiprocessing_started_ends_although_it_has_workers(tmp_path, method):
    """Dagster's steps are such processes; multiprocessing waits for their children before it ends their threads."""
    step = multiprocessing.get_context(method).Process(target=a_stage, args=(str(tmp_path),))
    step.start()
    step.join(30)
    ended = step.exitcode
    step.kill()
    assert ended == 0


def test_many_more_tasks_than_workers_are_all_made(tmp_path):
    out = writer(tmp_path)
    assert len(map_shards(double, {f"part-{number:05d}": number for number in range(300)}, out, TWO)) == 300
    assert len(out.finished()) == 300


def test_an_error_names_its_shard(tmp_path):
    with pytest.raises(TaskFailed, match="shard part-00003: ValueError: three is not wanted"):
        map_shards(refuses, TASKS, writer(tmp_path), ONE)


def test_finished_shards_are_not_made_again(tmp_path):
    out, log = writer(tmp_path / "set"), str(tmp_path / "log")
    out.put("part-00002", double(2))
    map_shards(functools.partial(count_calls, log), TASKS, out, TWO)
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


def test_tasks_that_share_what_is_costly_to_make_run_here(tmp_path):
    made_by = []

    def note(task):
        made_by.append(os.getpid())
        return double(task)

    out = writer(tmp_path / "set")
    out.commit(map_shards(note, TASKS, out, EIGHT, here=True))
    assert made_by == [os.getpid()] * len(TASKS)


def test_a_worker_makes_arrow_tables_without_pandas(tmp_path):
    out = writer(tmp_path)
    made = out.commit(map_shards(loaded_modules, {"one": 1}, out, ONE))
    modules = made.read()["module"].to_pylist()
    assert "pyarrow" in modules and "pandas" not in modules
