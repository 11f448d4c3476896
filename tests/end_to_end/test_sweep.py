"""A sweep killed in the middle, as a user runs it: the next run trains what is missing, and nothing else."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
from pathlib import Path

import pytest

from tests.end_to_end.conftest import TINY, World, wait_for

pytestmark = pytest.mark.slow

# Another seed is another sweep: the tiny home has one already. Its points take long enough to be killed among them.
SWEEP = (*TINY, "train.seed=8", "scaling.budgets=1e9,2e9")


def finished(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of the shard of each finished point: any further write would be another file."""
    states = {path.stem: (folder / f"{path.stem}.parquet").stat() for path in folder.glob("accounts/*.json")}
    return {name: (state.st_ino, state.st_mtime_ns) for name, state in states.items()}


def test_a_sweep_killed_in_the_middle_resumes_without_training_finished_points_again(world):
    sweep = World(world.home, SWEEP, world.started)
    before = {path.parent for path in world.home.glob("data/isoflop_runs/all/*/manifest.json")}

    def begun() -> Path | None:
        folders = [path.parent for path in world.home.glob("data/isoflop_runs/all/*/accounts") if path.parent not in before]
        return folders[0] if folders and len(finished(folders[0])) >= 2 else None

    run = sweep.start("run", "--select", "isoflop_runs")
    folder = wait_for(begun, 120, "two finished points")
    run.send_signal(signal.SIGKILL)
    run.wait()
    wait_for(lambda: not sweep.processes(), 30, "the end of all that the killed run had started")
    kept = finished(folder)
    assert not (folder / "manifest.json").exists(), "killed too late: nothing was left to do"
    done = sweep.l3("run", "--select", "isoflop_runs")
    assert done.returncode == 0, done.stdout + done.stderr
    points = {path.stem: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("flops-*.parquet")}
    assert (folder / "manifest.json").exists() and 2 <= len(kept) < len(points)
    assert {name: points[name] for name in kept} == kept
    with contextlib.closing(sqlite3.connect(world.home / "mlflow" / "mlflow.db")) as database:
        logged = [name for (name,) in database.execute("SELECT name FROM runs ORDER BY start_time DESC LIMIT ?", (len(points),))]
    assert sorted(logged) == sorted(points)
