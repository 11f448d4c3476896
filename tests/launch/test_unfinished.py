"""What is told of a training that has not finished comes from its folder alone."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from l3_platform.launch.interruptions import ATTEMPTS, recorded
from l3_platform.launch.protocol import State
from l3_platform.launch.unfinished import unfinished
from l3_platform.train import TrainJob

MakeJob = Callable[[Path], TrainJob]


def test_where_it_stands_is_told_with_its_checkpoint_and_its_last_interruption(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(tmp_path / "64-0")
    run = Path(job.folder)
    with recorded(job) as outcome:
        job.write(run / "job.json")
        (run / "metrics.jsonl").write_text(json.dumps({"step": 27, "tokens": 3456}) + "\n")
        (run / "step-00000020").mkdir()
        (run / "step-00000020" / "complete.json").write_text("{}")
        outcome.state = State("stopped", "stopped on request at step 27")
    told = unfinished(run)
    assert told.startswith("step 27, 3,456 of 38,400 tokens; newest checkpoint step-00000020; last interrupted ")
    assert told.endswith("UTC by user's request: stopped on request at step 27")
    assert unfinished(run.parent) == told, "one of several jobs of a stage"


def test_a_training_without_a_step_and_none_at_all(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    assert unfinished(Path(job.folder)) == ""
    job.write(Path(job.folder) / "job.json")
    assert unfinished(Path(job.folder)) == "no step yet; no checkpoint"


def test_an_attempt_that_runs_is_told_from_one_whose_client_is_gone(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    job.write(Path(job.folder) / "job.json")
    with recorded(job) as outcome:
        assert unfinished(Path(job.folder)).endswith(" UTC") and "attempt 1 began" in unfinished(Path(job.folder))
        record = Path(job.folder) / ATTEMPTS
        record.write_text(record.read_text().replace(f'"pid": {os.getpid()}', f'"pid": {2**22 + 1}'))
        assert unfinished(Path(job.folder)).endswith(" UTC, and its client is gone")
        outcome.state = State("finished")
