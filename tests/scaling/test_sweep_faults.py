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

pytestmark = pytest.mark.slow

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


def test_a_killed_sweep_resumes_without_training_finished_points_again(tmp_path):
    kill_in_the_middle(tmp_path)
    before = shards(tmp_path, writer(tmp_path).finished())
    assert 2 <= len(before) < len(LAYERS) * len(BUDGETS), "killed too late: nothing was left to do"
    (tmp_path / "trained").write_text("")
    subprocess.run([*SWEEP, str(tmp_path)], check=True, capture_output=True, timeout=600)
    trained = (tmp_path / "trained").read_text().split()
    names = [shard.name for shard in Dataset.open(str(tmp_path / "sweep")).shards]
    assert sorted([*before, *trained]) == names
    assert shards(tmp_path, before) == before


def test_a_killed_sweep_ends_with_the_bytes_of_an_undisturbed_one(tmp_path):
    for name in ("killed", "undisturbed"):
        (tmp_path / name).mkdir()
    kill_in_the_middle(tmp_path / "killed")
    for name in ("killed", "undisturbed"):
        subprocess.run([*SWEEP, str(tmp_path / name)], check=True, capture_output=True, timeout=600)
    killed, undisturbed = (Dataset.open(str(tmp_path / name / "sweep")) for name in ("killed", "undisturbed"))
    assert killed.digest == undisturbed.digest
