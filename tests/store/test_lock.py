"""One holder at a time, and a dead holder holds nothing."""

import json
import multiprocessing
import os
import signal
import time

import pytest

from l3_platform.store import Lock, Locked
from l3_platform.store.lock import holder_of


def hold(url: str, ready) -> None:
    with Lock(url, owner="the other"):
        ready.set()
        time.sleep(60)


@pytest.fixture
def other(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(str(tmp_path / "lock"), ready))
    process.start()
    assert ready.wait(20)
    yield process
    process.kill()
    process.join()


def test_a_held_lock_names_its_holder(tmp_path, other):
    with pytest.raises(Locked, match=rf"held by the other \(pid {other.pid}"):
        Lock(str(tmp_path / "lock")).acquire()


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path, other):
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    with Lock(str(tmp_path / "lock"), owner="me"):
        assert holder_of(str(tmp_path / "lock")).startswith("me")
    assert holder_of(str(tmp_path / "lock")) == ""


def test_a_lock_from_another_machine_is_stale_only_without_heartbeat(tmp_path):
    lock = tmp_path / "lock"
    holder = {"token": "t", "owner": "far", "host": "elsewhere", "boot": "b", "pid": 1, "started": 0}
    lock.write_text(json.dumps(holder | {"beat": time.time()}))
    with pytest.raises(Locked):
        Lock(str(lock)).acquire()
    lock.write_text(json.dumps(holder | {"beat": time.time() - 120}))
    with Lock(str(lock), owner="me"):
        pass


def test_the_heartbeat_keeps_the_lock_fresh(tmp_path):
    lock = tmp_path / "lock"
    with Lock(str(lock), heartbeat_seconds=0.05):
        first = json.loads(lock.read_text())["beat"]
        time.sleep(0.3)
        assert json.loads(lock.read_text())["beat"] > first


def test_memory_storage_locks_too():
    with Lock("memory://locks/a", owner="first"), pytest.raises(Locked):
        Lock("memory://locks/a").acquire()
