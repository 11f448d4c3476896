"""Every attempt that did not finish is a row with its cause and its times, whoever was killed; and the times add up."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from l3_platform.launch.causes import Cause
from l3_platform.launch.effective_time import STEPS, effective_time
from l3_platform.launch.interruptions import (
    ATTEMPTS,
    INTERRUPTIONS,
    Attempt,
    Interruption,
    read_attempts,
    read_interruptions,
    recorded,
    settle,
)
from l3_platform.launch.protocol import State
from l3_platform.train import TrainingStopped, TrainJob

MakeJob = Callable[[Path], TrainJob]
Processes = Callable[..., list[psutil.Process]]


def attempt_of(job: TrainJob, log: str, state: State, **logs: str) -> Interruption:
    """One attempt that leaves these logs and ends in that state."""
    with recorded(job) as outcome:
        folder = Path(job.folder) / "logs" / f"attempt-{len(read_attempts(job.folder))}"
        folder.mkdir(parents=True)
        (folder / "rank-00000.log").write_text(log)
        for name, text in logs.items():
            (folder / f"{name}-00000.log").write_text(text)
        outcome.state = state
    return read_interruptions(job.folder)[-1]


KILLED_CLIENT = """
import os, sys
from l3_platform.launch.interruptions import recorded
from l3_platform.train import TrainJob
with recorded(TrainJob.read(sys.argv[1])):
    os.kill(os.getpid(), 9)
"""
CRASHED = State("crashed", "training was lost (agent 0 ended with exit code 1)")


def test_an_attempt_that_finishes_leaves_no_row(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    with recorded(job) as outcome:
        assert read_attempts(job.folder)[0].ended is None  # it is on disk before anything runs
        outcome.state = State("finished")
    assert read_interruptions(job.folder) == []
    assert [attempt.outcome for attempt in read_attempts(job.folder)] == ["finished"]


def test_rows_name_the_cause_and_when_training_was_back(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    first = attempt_of(job, "step 1\n", CRASHED, kernel="NVRM: Xid (PCI:0000:9b:00): 79, GPU has fallen off the bus.\n")
    assert (first.cause, first.restarted) == (Cause.FAULTY_GPU, None) and not first.planned
    attempt_of(job, "OSError: [Errno 28] No space left on device\n", State("failed", "a checkpoint could not be written"))
    back, second = read_interruptions(job.folder)
    assert back.restarted == second.started and back.started < back.lost < second.started
    assert second.cause is Cause.DEPENDENCY and (back.attempt, second.attempt) == (1, 2)


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        (State("failed", "step 9 (tokens 2,048 to 2,304): loss nan"), Cause.TRAINING_FAILED),
        (State("stopped", "stopped on request at step 9"), Cause.USERS_REQUEST),
        (CRASHED, Cause.UNKNOWN),
    ],
)
def test_without_a_line_that_explains_it_the_state_does(make_job: MakeJob, tmp_path: Path, state: State, cause: Cause) -> None:
    row = attempt_of(make_job(tmp_path), "step 1\n", state)
    assert row.cause is cause and state.message in row.evidence


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TrainingStopped("stopped on request")])
def test_an_attempt_that_its_client_was_asked_to_end_is_a_planned_one(
    make_job: MakeJob, tmp_path: Path, error: BaseException
) -> None:
    job = make_job(tmp_path)
    with pytest.raises(type(error)), recorded(job):
        raise error
    (row,) = read_interruptions(job.folder)
    assert row.cause is Cause.USERS_REQUEST and row.planned


class DagsterExecutionInterruptedError(BaseException):
    """As Dagster's, which this package does not import."""


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DagsterExecutionInterruptedError()])
def test_an_interrupt_is_told_as_what_a_person_did(make_job: MakeJob, tmp_path: Path, error: BaseException) -> None:
    job = make_job(tmp_path)
    with pytest.raises(type(error)), recorded(job):
        raise error
    (row,) = read_interruptions(job.folder)
    assert (row.cause, row.evidence) == (Cause.USERS_REQUEST, "Ctrl-C or Terminate")


SLURM_SAYS = "slurmstepd-n1: error: *** STEP 12.0 ON n1 CANCELLED AT 2026-11-21T17:00:00"


@pytest.mark.parametrize(
    ("agent", "scheduler", "cause"),
    [
        (f"{SLURM_SAYS} DUE TO TIME LIMIT ***\n", "", Cause.TIME_LIMIT),
        (f"{SLURM_SAYS} DUE TO PREEMPTION ***\n", "", Cause.PREEMPTION),
        (f"{SLURM_SAYS} DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***\n", "", Cause.HOST_MAINTENANCE),
        (f"{SLURM_SAYS} ***\n", "Slurm job 12 was preempted", Cause.PREEMPTION),
        (f"{SLURM_SAYS} ***\n", "", Cause.USERS_REQUEST),
    ],
)
@pytest.mark.parametrize("ranks_first", [False, True])
def test_a_stop_that_the_scheduler_asked_for_is_not_a_users_request(
    make_job: MakeJob, tmp_path: Path, agent: str, scheduler: str, cause: Cause, ranks_first: bool
) -> None:
    """And the wait in the queue is lost time, whether the ranks or their client heard of it first."""
    job = make_job(tmp_path)
    with suppress(TrainingStopped), recorded(job, lambda: scheduler) as outcome:
        folder = Path(job.folder) / "logs" / "attempt-1"
        folder.mkdir(parents=True)
        (folder / "agent-00000.log").write_text(agent)
        outcome.state = State("stopped", "stopped on request at step 9")
        if not ranks_first:
            raise TrainingStopped("stopped on request")
    time.sleep(0.1)
    with recorded(job) as outcome:
        outcome.state = State("finished")
    (row,) = read_interruptions(job.folder)
    assert row.cause is cause and row.planned == (cause is not Cause.HOST_MAINTENANCE)
    told = effective_time(job.folder)
    assert told is not None and (told.parts["between attempts"] > 0.09) == (cause is not Cause.USERS_REQUEST)


def test_restarts_by_kubernetes_are_attempts_each_with_its_cause(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    logs, fault = Path(job.folder) / "logs", "NVRM: Xid (PCI:0000:9b:00): 79, GPU has fallen off the bus.\n"
    with recorded(job) as outcome:
        for restart, line in enumerate([fault, "step 8\n", "OSError: [Errno 28] No space left on device\n"]):
            (logs / f"attempt-1.{restart}").mkdir(parents=True)
            (logs / f"attempt-1.{restart}" / "kernel-00000.log").write_text(line)
            outcome.look()
        outcome.state = CRASHED
    rows, attempts = read_interruptions(job.folder), read_attempts(job.folder)
    assert [row.cause for row in rows] == [Cause.FAULTY_GPU, Cause.UNKNOWN, Cause.DEPENDENCY]
    assert [(one.number, one.restart, one.outcome) for one in attempts] == [
        (1, 0, "restarted"),
        (1, 1, "restarted"),
        (1, 2, "crashed"),
    ]
    assert [row.started for row in rows] == [one.started for one in attempts]
    assert [row.restarted for row in rows] == [attempts[1].started, attempts[2].started, None]


def test_restarts_that_no_client_saw_are_found_by_the_next_one(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    job.write(tmp_path / "job.json")
    subprocess.run([sys.executable, "-c", KILLED_CLIENT, str(tmp_path / "job.json")])
    for second, name in enumerate(["attempt-1.0", "attempt-1.1"], start=1):
        log = Path(job.folder) / "logs" / name / "rank-00000.log"
        log.parent.mkdir(parents=True)
        log.write_text("step 8\n")
        moment = time.time() + 10 * second
        os.utime(log, (moment, moment))
    settle(job, alive=True)
    with recorded(job) as outcome:
        outcome.state = State("finished")
    first, second = read_attempts(job.folder)
    assert (first.outcome, second.outcome) == ("restarted", "finished")
    assert first.ended is not None and 9 < (first.ended - first.started).total_seconds() < 11 and second.started > first.ended
    (row,) = read_interruptions(job.folder)
    assert row.restarted == second.started


def test_the_steps_past_the_newest_checkpoint_are_the_ones_lost(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    folder = Path(job.folder)
    with recorded(job) as outcome:
        now = time.time()
        rows = [{"step": step, "time": now + step / 100, "seconds": 1.0, "tokens_per_second": 128.0} for step in range(1, 28)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "step-00000020").mkdir()
        (folder / "step-00000020" / "complete.json").write_text("{}")
        (folder / "step-00000040.partial").mkdir()
        outcome.state = CRASHED
    (row,) = read_interruptions(folder)
    assert (row.step, row.checkpoint, row.steps_lost) == (27, 20, 7)
    assert read_attempts(folder)[0].lost_seconds == 7.0


def test_the_parts_of_the_wall_clock_add_up_and_the_share_is_that_of_steps_that_counted(tmp_path: Path) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    at = [start + timedelta(seconds=second) for second in range(1000)]
    first = Attempt(number=1, host="a", pid=1, started=at[0], stepping=at[10], last_step=at[110], ended=at[130], outcome="crashed",
                    lost_seconds=20.0)  # fmt: skip
    asked = Attempt(
        number=2, host="a", pid=1, started=at[140], stepping=at[150], last_step=at[160], ended=at[161], outcome="stopped"
    )
    last = Attempt(
        number=3, host="a", pid=1, started=at[500], stepping=at[505], last_step=at[545], ended=at[550], outcome="finished"
    )
    facts: dict[str, Any] = {"planned": False, "evidence": "", "step": 1, "checkpoint": 1, "steps_lost": 0, "restarted": None}
    rows = [
        Interruption(attempt=1, cause=Cause.UNKNOWN, started=at[0], lost=at[130], **facts),
        Interruption(attempt=2, cause=Cause.USERS_REQUEST, started=at[140], lost=at[161], **facts),
    ]
    (tmp_path / ATTEMPTS).write_text(json.dumps([one.model_dump(mode="json") for one in (first, asked, last)]))
    (tmp_path / INTERRUPTIONS).write_text("".join(row.model_dump_json() + "\n" for row in rows))
    # 130 s of steps that were not lost: 10 of them waited for a checkpoint, 5 were skipped, 15 were rolled back.
    steps = [{"step": 80, "seconds": 80.0, "checkpoint_seconds": 10.0}, {"step": 81, "seconds": 5.0, "skipped_steps": 1},
             {"step": 96, "seconds": 15.0}, {"step": 97, "seconds": 0.0, "rolled_back_to_step": 81},
             {"step": 127, "seconds": 30.0}]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps(row | {"tokens_per_second": 1.0, "mfu": 0.4 if row["step"] == 127 else 0.5}) + "\n" for row in steps)
    )
    told = effective_time(tmp_path)
    assert told is not None and told.attempts == 3
    assert told.parts == {
        STEPS: 80 + 10 + 40 - 10 - 5 - 15,
        "steps skipped or rolled back": 20.0,
        "steps repeated after a restart": 20.0,
        "checkpoint stalls": 10.0,
        "start-up": 10 + 10 + 5,
        "until a loss or hang was noticed": 20 + 1,
        "between attempts": 10.0,  # the pause that was asked for is not part of the clock
        "held-out loss and export": 5.0,
    }
    assert told.wall_seconds == sum(told.parts.values()) == 550 - (500 - 161)
    assert told.share == pytest.approx(100 / 211, abs=1e-4)
    assert told.metrics["mfu"] == pytest.approx((100 * 0.5 + 30 * 0.4) / 130, abs=1e-4)
    assert "tokens_per_second_per_device" not in told.metrics  # a record from before it was written


def test_a_client_that_was_killed_is_found_at_the_next_start(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    job.write(tmp_path / "job.json")
    assert subprocess.run([sys.executable, "-c", KILLED_CLIENT, str(tmp_path / "job.json")]).returncode == -signal.SIGKILL
    assert read_interruptions(job.folder) == [] and read_attempts(job.folder)[0].ended is None
    settle(job)
    settle(job)  # once is enough
    (row,) = read_interruptions(job.folder)
    assert row.cause is Cause.UNKNOWN and "ended without a word" in row.evidence
    assert read_attempts(job.folder)[0].outcome == "client lost"


def test_no_line_that_explains_nothing_is_evidence_of_a_client_s_end(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    job.write(tmp_path / "job.json")
    subprocess.run([sys.executable, "-c", KILLED_CLIENT, str(tmp_path / "job.json")])
    logs = Path(job.folder) / "logs" / "attempt-1"
    logs.mkdir(parents=True)
    (logs / "rank-00000.log").write_text("step      12  tokens         3,072  loss 4.1250\n")
    settle(job)
    assert read_interruptions(job.folder)[0].evidence.endswith("ended without a word")


def test_an_attempt_that_outlives_its_client_is_one_attempt(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(tmp_path)
    job.write(tmp_path / "job.json")
    subprocess.run([sys.executable, "-c", KILLED_CLIENT, str(tmp_path / "job.json")])
    settle(job, alive=True)
    with recorded(job) as outcome:
        outcome.state = State("finished")
    assert read_interruptions(job.folder) == []
    assert [attempt.outcome for attempt in read_attempts(job.folder)] == ["finished"]
