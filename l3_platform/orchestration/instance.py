"""The Dagster instance under L3_HOME: made whole before anyone opens it, since a missing home deletes all history on exit."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import psutil
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from l3_platform.settings import home
from l3_platform.store.lock import Lock, holder_of

TRAINING_POOL = "training"
HEADLESS_TAG = "l3/headless"  # host:pid:start of the process that runs a job without the UI

DAGSTER_YAML = """\
# Written by l3 when the home was made; yours to change.
telemetry:
  enabled: false
concurrency:
  pools:
    default_limit: 1          # one training at a time, in any number of runs
    granularity: op
  runs:
    max_concurrent_runs: 4
run_monitoring:
  enabled: true               # a run whose worker died is failed, and its place in the pool is free again
  poll_interval_seconds: 10
  start_timeout_seconds: 120
  free_slots_after_run_end_seconds: 5
retention:
  schedule: {purge_after_days: 90}
  sensor:
    purge_after_days: {skipped: 7, failure: 30, success: 90}
nux:
  enabled: false
"""


def prepare_home() -> Path:
    """Make L3_HOME with its Dagster home, point DAGSTER_HOME at it, and return L3_HOME."""
    root = home()
    dagster_home = root / "dagster"
    dagster_home.mkdir(parents=True, exist_ok=True)
    if not (dagster_home / "dagster.yaml").exists():
        (dagster_home / "dagster.yaml").write_text(DAGSTER_YAML)
    os.environ["L3_HOME"] = str(root)
    os.environ["DAGSTER_HOME"] = str(dagster_home)
    return root


def register(instance: dg.DagsterInstance, definition: str, partitions: Sequence[str]) -> list[str]:
    """Add snapshots or candidate sets as partitions, in order and side by side, so that one run can span them. Returns the new
    ones."""
    known = list(instance.get_dynamic_partitions(definition))
    new = [partition for partition in partitions if partition not in known]
    if new or not _side_by_side(known, partitions):
        for partition in partitions:
            instance.delete_dynamic_partition(definition, partition)  # history is kept by name
        instance.add_dynamic_partitions(definition, list(partitions))
    return new


def _side_by_side(known: Sequence[str], partitions: Sequence[str]) -> bool:
    start = known.index(partitions[0]) if partitions else 0
    return list(known[start : start + len(partitions)]) == list(partitions)


def spanning(partitions: Sequence[str]) -> dict[str, str]:
    """Run tags that make one run cover all these partitions."""
    return {ASSET_PARTITION_RANGE_START_TAG: partitions[0], ASSET_PARTITION_RANGE_END_TAG: partitions[-1]}


def headless_tag() -> str:
    process = psutil.Process()
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.0f}"


def up_lock() -> Lock:
    """Held by `l3 up`, one on a home: while nobody holds it, no run of the UI can be alive."""
    return Lock(str(home() / "dagster" / "up.lock"), owner="l3 up")


def settle_dead_runs(instance: dg.DagsterInstance) -> int:
    """Runs that a kill left as started end as failed; pool slots of ended runs are free again. Returns how many ended."""
    served = bool(holder_of(up_lock().url))
    ended = 0
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])):
        owner = run.tags.get(HEADLESS_TAG)
        if not (_lives(owner) if owner else served):
            instance.report_run_failed(run, "the process that ran it was killed; the next run resumes what it had finished")
            ended += 1
    storage = instance.event_log_storage
    for run_id in storage.get_concurrency_run_ids():
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            storage.free_concurrency_slots_for_run(run_id)
    return ended


def _lives(owner: str) -> bool:
    host, pid, started = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(started)) < 2.0
    except psutil.NoSuchProcess:
        return False
