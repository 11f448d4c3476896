"""A sweep that survives: after SIGKILL in the middle it goes on, and no finished point is trained again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from l3_platform.store import Dataset
from tests.scaling.sweep_process import BUDGETS, LAYERS, writer

pytestmark = pytest.mark.exhaustive  # of the slow ones, tests/end_to_end/test_sweep.py kills a sweep

SWEEP = [sys.executable, "-m", "tests.scaling.sweep_process"]


def kill_in_the_middle(folder: Path) -> None:
    """SIGKILL for the process, once two points are finished and others are being trained."""
    process = subprocess.Popen([*SWEEP, str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(writer(folder).finished()) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()


def shards(folder: Path, names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Inode and time of change of points' shards: any further write would be another file."""
    states = {name: (folder / "sweep" / f"{name}.parquet").stat() for name in names}
    return {name: (state.st_ino, state.st_mtime_ns) for name, state in states.items()}


def test_a_killed_sweep_goes_on_without_training_a_finished_point_again_to_the_bytes_of_an_undisturbed_one(tmp_path):
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    killed.mkdir()
    undisturbed.mkdir()
    kill_in_the_middle(killed)
    before = shards(killed, writer(killed).finished())
    assert 2 <= len(before) < len(LAYERS) * len(BUDGETS), "killed too late: nothing was left to do"
    (killed / "trained").write_text("")
    for folder in (killed, undisturbed):
        subprocess.run([*SWEEP, str(folder)], check=True, capture_output=True, timeout=600)
    ended = Dataset.open(str(killed / "sweep"))
    assert sorted([*before, *(killed / "trained").read_text().split()]) == [shard.name for shard in ended.shards]
    assert shards(killed, before) == before
    assert ended.digest == Dataset.open(str(undisturbed / "sweep")).digest
