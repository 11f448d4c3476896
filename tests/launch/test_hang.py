"""A rank that stands still: the others say where they waited, all are relaunched, and nothing is lost but time."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from l3_platform.launch import run_training
from l3_platform.launch.causes import Cause
from l3_platform.launch.effective_time import effective_time
from l3_platform.launch.hangs import hung_in
from l3_platform.launch.interruptions import read_interruptions
from l3_platform.settings import Train
from l3_platform.train import TrainJob, TrainResult
from tests.launch.test_faults import RANK, step_of

HANG_SECONDS = 5.0
NOTICED_SECONDS = HANG_SECONDS + 15.0  # the grace after a dump, torchrun's shutdown of six seconds, the client's


@pytest.mark.slow
def test_a_stopped_rank_means_stacks_a_relaunch_within_the_limit_and_the_same_loss(
    make_job: Callable[[Path], TrainJob],
    undisturbed: TrainResult,
    tmp_path: Path,
    settings: Train,
    processes: Callable[..., list[psutil.Process]],
) -> None:
    job = make_job(tmp_path).model_copy(update={"hang_seconds": HANG_SECONDS})
    stopped: list[psutil.Process] = []
    moments: dict[str, float] = {}

    def stop_once(line: str) -> None:
        if step_of(line) >= 50 and not stopped:
            stopped.append(max(processes(tmp_path, RANK), key=rank_of))
            stopped[0].send_signal(signal.SIGSTOP)
            moments["stopped"] = time.monotonic()
        if "relaunching" in line:
            moments["relaunched"] = time.monotonic()

    result = run_training(job, settings, on_line=stop_once)
    assert result == undisturbed and processes(tmp_path) == []
    assert HANG_SECONDS < moments["relaunched"] - moments["stopped"] < NOTICED_SECONDS
    logs = tmp_path / "run" / "logs" / "attempt-1"
    dump = (logs / "hang-00000.txt").read_text()
    assert "rank 0: no step finished within 5 s" in dump
    assert "in _step" in dump and "distributed" in hung_in(dump) and "in " in dump
    flight = json.loads((logs / "flight-gloo-00000.json").read_text())
    assert flight["entries"][-1]["profiling_name"].startswith("gloo:")
    (row,) = read_interruptions(tmp_path / "run")
    assert row.cause is Cause.NCCL_WATCHDOG_TIMEOUT and "rank 1 left none: look there first" in row.evidence
    told = effective_time(tmp_path / "run")
    assert told is not None and told.parts["until a loss or hang was noticed"] > HANG_SECONDS


def rank_of(process: psutil.Process) -> int:
    return int(process.environ()["RANK"])
