"""Dagster's databases kept open: what a run has written is there for others at once, and after a kill."""

import os
import signal
import subprocess
import sys

import dagster as dg

CODE = """
import os, signal
import dagster as dg
from l3_platform.orchestration import history, instance

instance.prepare_home()
history.keep_open()

@dg.asset
def numbers():
    return dg.MaterializeResult(metadata={"rows": 3})

with dg.DagsterInstance.get() as opened:
    dg.materialize([numbers], instance=opened)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_wrote_is_read_by_the_next(tmp_path, monkeypatch):
    done = subprocess.run([sys.executable, "-c", CODE], env={**os.environ, "L3_HOME": str(tmp_path)}, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    with dg.DagsterInstance.get() as instance:
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.SUCCESS]
        event = instance.get_latest_materialization_event(dg.AssetKey("numbers"))
        assert event is not None and event.asset_materialization.metadata["rows"].value == 3
