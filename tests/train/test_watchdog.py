"""A process that makes no step says where it is and ends; one that does is left alone."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from l3_platform.launch.hangs import hung_in, hung_ranks
from l3_platform.train.watchdog import EXIT_HUNG, Watchdog, flights

HANGING = """
import sys, time
from l3_platform.train.watchdog import Watchdog
def waits_for_ever():
    time.sleep(60)
with Watchdog(0.5, sys.argv[1], 3) as dog:
    for _ in range(4):
        time.sleep(0.2)
        dog.step_finished()
    waits_for_ever()
"""

# The interpreter's lock is never given back: no Python thread can act.
STUCK = """
import ctypes, sys
from l3_platform.train import watchdog
watchdog._LAST_RESORT = 0.5
def holds_the_lock():
    ctypes.PyDLL(None).sleep(60)
with watchdog.Watchdog(0.5, sys.argv[1], 3):
    holds_the_lock()
"""


def test_a_process_that_hangs_dumps_its_stacks_and_ends_with_a_code_of_its_own(tmp_path: Path) -> None:
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", HANGING, str(tmp_path)], timeout=50)
    assert ended.returncode == EXIT_HUNG and time.monotonic() - began > 0.8 + 0.5
    dump = (tmp_path / "hang-00003.txt").read_text()
    assert dump.startswith("rank 3: no step finished within 0.5 s (train.hang_seconds), 4 had before")
    assert hung_in(dump).startswith("waits_for_ever (<string>:")


def test_a_process_that_holds_the_interpreter_lock_is_ended_too(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", STUCK, str(tmp_path)], timeout=50)
    assert ended.returncode == 1
    assert hung_in((tmp_path / "hang-00003.txt").read_text()).startswith("holds_the_lock (<string>:")


def test_steps_that_end_in_time_leave_nothing_behind(tmp_path: Path) -> None:
    with Watchdog(1.0, tmp_path, 0) as dog:
        for _ in range(4):
            time.sleep(0.4)
            dog.step_finished()
    assert list(tmp_path.iterdir()) == []


def test_zero_seconds_never_act(tmp_path: Path) -> None:
    with Watchdog(0.0, tmp_path / "absent", 0) as dog:
        dog.step_finished()
    assert not (tmp_path / "absent").exists()


def test_the_rank_that_left_no_stacks_is_the_one_to_look_at(tmp_path: Path) -> None:
    for rank in range(3):
        (tmp_path / f"rank-{rank:05d}.log").touch()
        (tmp_path / f"hang-{rank:05d}.txt").touch()
    assert hung_ranks(tmp_path) == ""
    for rank in (0, 2):
        text = 'Thread 0x1 (most recent call first):\n  File "/x/ranks.py", line 30 in sum\n  File "/x/loop.py", line 2 in _step\n'
        (tmp_path / f"hang-{rank:05d}.txt").write_text(text)
    said = "ranks 0, 2 dumped stacks, rank 0 waited in sum (ranks.py:30) < _step (loop.py:2); rank 1 left none: look there first"
    assert hung_ranks(tmp_path) == said


def test_nccl_and_gloo_have_a_flight_recorder_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """In torch they are two, and a build for CPUs has the one alone; what has recorded nothing leaves no file."""

    def empty() -> bytes:
        raise RuntimeError("nothing was recorded")

    recorders = {"_dump_nccl_trace_json": lambda: b"of nccl", "_dump_fr_trace_json": lambda: b"of gloo"}
    for there, expected in (
        (recorders, {"nccl": b"of nccl", "gloo": b"of gloo"}),
        (recorders | {"_dump_fr_trace_json": empty}, {"nccl": b"of nccl"}),
        ({"_dump_fr_trace_json": lambda: b"of gloo"}, {"gloo": b"of gloo"}),
        ({}, {}),
    ):
        monkeypatch.setitem(sys.modules, "torch._C._distributed_c10d", SimpleNamespace(**there))
        assert flights() == expected
