"""One holder at a time, and a dead holder holds nothing."""

import json
import multiprocessing
import os
import signal
import threading
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


FAR = {"token": "t", "owner": "far", "host": "elsewhere", "boot": "b", "pid": 1, "started": 0}


def test_a_lock_from_another_machine_that_beats_is_held(tmp_path):
    lock, ended = tmp_path / "lock", threading.Event()
    lock.write_text(json.dumps(FAR | {"beat": time.time()}))

    def beat() -> None:
        while not ended.wait(0.1):
            (tmp_path / "new").write_text(json.dumps(FAR | {"beat": time.time()}))
            os.replace(tmp_path / "new", lock)

    threading.Thread(target=beat).start()
    with pytest.raises(Locked, match="held by far"):
        Lock(str(lock), stale_seconds=30).acquire()
    ended.set()


def test_a_lock_from_another_machine_is_taken_over_once_its_heartbeat_is_old(tmp_path):
    lock = tmp_path / "lock"
    lock.write_text(json.dumps(FAR | {"beat": time.time()}))
    with Lock(str(lock), owner="me", stale_seconds=1.0):
        assert holder_of(str(lock)).startswith("me")


def test_the_heartbeat_keeps_the_lock_fresh(tmp_path):
    lock = tmp_path / "lock"
    with Lock(str(lock), heartbeat_seconds=0.05):
        first = json.loads(lock.read_text())["beat"]
        time.sleep(0.3)
        assert json.loads(lock.read_text())["beat"] > first


def test_memory_storage_locks_too():
    with Lock("memory://locks/a", owner="first"), pytest.raises(Locked):
        Lock("memory://locks/a").acquire()
