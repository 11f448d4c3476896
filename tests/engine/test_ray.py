"""Ray on two nodes of this machine: the same bytes as local processes, whatever dies."""

import functools
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time

import psutil
import pytest

from l3_platform.engine import map_actors, map_shards, ray_backend, shuffle
from l3_platform.engine.backend import TaskFailed
from l3_platform.settings import Engine, SettingsError
from tests.engine.tasks import (
    TASKS,
    Model,
    always_killed,
    double,
    keyed,
    keyed_and_kill_once,
    kill_once,
    note_the_node,
    refuses,
    slowly,
    sums,
    tree,
    writer,
)

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed")
LOCAL = Engine(workers=2)


@pytest.fixture(scope="module")
def nodes():
    """A cluster of two nodes with a core each; its folder has a short name, since sockets lie in it."""
    node = {"num_cpus": 1, "object_store_memory": ray_backend.OBJECT_STORE_BYTES, "include_dashboard": False}
    with (
        tempfile.TemporaryDirectory(prefix="l3-ray-", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as environment,
    ):
        os.makedirs(f"{folder}/ray")
        environment.setenv("RAY_TMPDIR", folder)
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args=node)
        cluster.add_node(**node)
        yield cluster
        ray_backend.shutdown()
        cluster.shutdown()


@pytest.fixture
def on_ray(nodes):
    return Engine(backend="ray", ray_address=nodes.address)


@pytest.mark.exhaustive
@needs_ray
def test_two_nodes_give_the_bytes_of_local_processes_also_when_workers_are_killed(on_ray, tmp_path):
    for name, engine in (("local", LOCAL), ("ray", on_ray)):
        flags = tmp_path / f"{name} flags"
        flags.mkdir()

        out = writer(tmp_path / name / "mapped")
        out.commit(map_shards(double, TASKS, out, engine))
        out = writer(tmp_path / name / "mapped by actors")
        out.commit(map_actors(functools.partial(Model, str(flags / "loads")), TASKS, out, engine))
        out = writer(tmp_path / name / "shuffled")
        out.commit(shuffle(keyed, TASKS, "key", 3, sums, out, engine))
        out = writer(tmp_path / name / "mapped, one killed")
        out.commit(map_shards(functools.partial(kill_once, str(flags / "map")), TASKS, out, engine))
        out = writer(tmp_path / name / "shuffled, one killed")
        out.commit(shuffle(functools.partial(keyed_and_kill_once, str(flags / "split")), TASKS, "key", 3, sums, out, engine))

        assert (flags / "map").exists() and (flags / "split").exists()  # so workers really died
        assert len((flags / "loads").read_text().split()) < len(TASKS)
    assert tree(tmp_path / "local") == tree(tmp_path / "ray")
    assert len(tree(tmp_path / "ray")) > 25


@pytest.mark.exhaustive
@needs_ray
def test_both_nodes_take_part(on_ray, tmp_path):
    log = tmp_path / "nodes"
    many = {f"part-{number:05d}": number for number in range(24)}  # time enough for both to start their workers
    map_shards(functools.partial(note_the_node, str(log)), many, writer(tmp_path / "set"), on_ray)
    assert len(set(log.read_text().split())) == 2


@pytest.mark.exhaustive
@needs_ray
def test_a_node_that_dies_costs_nothing(nodes, on_ray, tmp_path):
    import threading

    lost = nodes.add_node(num_cpus=2, object_store_memory=ray_backend.OBJECT_STORE_BYTES)
    out, tasks = writer(tmp_path), {f"part-{number:05d}": number for number in range(24)}
    killer = threading.Timer(1.0, nodes.remove_node, (lost,), {"allow_graceful": False})
    killer.start()
    table = out.commit(map_shards(slowly, tasks, out, on_ray)).read()
    killer.join()
    assert table["x"].to_pylist() == [2 * number for number in range(24)]


@pytest.mark.exhaustive
@needs_ray
def test_what_cannot_be_made_is_named_and_the_rest_is_kept(on_ray, tmp_path):
    out = writer(tmp_path / "killed")
    with pytest.raises(TaskFailed, match="shard part-00003: its worker died 2 times"):
        map_shards(always_killed, TASKS, out, on_ray.model_copy(update={"attempts": 2}))
    assert {"part-00000", "part-00001", "part-00002"} <= out.finished()
    with pytest.raises(TaskFailed, match=r"^shard part-00003: ValueError: three is not wanted$"):
        map_shards(refuses, TASKS, writer(tmp_path / "refused"), on_ray)


@pytest.mark.exhaustive
@needs_ray
def test_a_cluster_of_its_own_ends_with_the_process_that_an_interrupt_ends(tmp_path):
    program = """
        import signal, sys
        from l3_platform.engine import map_shards
        from l3_platform.settings import Engine
        from tests.engine.tasks import slowly, writer

        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        out = writer(sys.argv[1])
        map_shards(slowly, {f"part-{number:05d}": number for number in range(1000)}, out, Engine(backend="ray", workers=1))
    """
    started = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "set")], start_new_session=True)
    try:
        _until(lambda: len(list((tmp_path / "set" / "accounts").glob("*.json"))) > 2, 60)
        children = psutil.Process(started.pid).children(recursive=True)
        assert children
        started.send_signal(signal.SIGINT)
        assert started.wait(30) not in (0, None)
        _until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children), 30)
    finally:
        started.kill()
    made = len(list((tmp_path / "set" / "accounts").glob("*.json")))
    assert 2 < made < 1000


def test_without_the_package_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r"pip install 'l3-platform\[ray\]'"):
        map_shards(double, TASKS, writer(tmp_path), Engine(backend="ray"))


@pytest.mark.exhaustive
@needs_ray
def test_an_address_where_nothing_listens_is_named(tmp_path):
    ray_backend.shutdown()
    with pytest.raises(SettingsError, match=r"engine\.ray_address='127.0.0.1:1': no Ray cluster"):
        map_shards(double, TASKS, writer(tmp_path), Engine(backend="ray", ray_address="127.0.0.1:1"))


def _until(true, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(0.2)
