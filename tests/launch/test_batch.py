"""What the batch script makes of a request to stop: whose it was, as Slurm tells it, and that the job goes back into the queue."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from l3_platform.launch import batch
from l3_platform.launch.causes import Cause
from l3_platform.launch.interruptions import read_interruptions, recorded
from l3_platform.launch.sbatch import WARNED_SECONDS
from l3_platform.settings import Train
from l3_platform.train import TrainingStopped, TrainJob

MakeJob = Callable[[Path], TrainJob]


class Controller:
    """A scontrol that answers `show job` with these facts, not at all where there are none, and notes what else it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def says(self, facts: str) -> None:
        (self.folder / "facts").write_text(f"JobId=12 JobName=l3 Requeue=1 TimeLimit=1-00:00:00 {facts}\n")

    @property
    def requeued(self) -> bool:
        return (self.folder / "requeue").exists()


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Controller]:
    folder = tmp_path / "slurm"
    (folder / "bin").mkdir(parents=True)
    tool = folder / "bin" / "scontrol"
    silent = "echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1"
    tool.write_text(
        f'#!/bin/sh\n[ "$1" = requeue ] && exec touch {folder}/requeue\n[ "$SLURM_TIME_FORMAT" = %s ] || exit 2\n'
        f"cat {folder}/facts 2>/dev/null || {{ {silent}; }}\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv(WARNED_SECONDS, "120")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield Controller(folder)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def stopped_by(number: signal.Signals, job: TrainJob, monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit code of a batch script whose training ends on that signal."""

    def supervise(launcher: object, job: TrainJob, *settings: object, scheduler: Callable[[], str]) -> None:
        with recorded(job, scheduler):
            os.kill(os.getpid(), number)
            time.sleep(0.01)
            raise TrainingStopped("stopped on request")

    monkeypatch.setattr(batch, "supervise", supervise)
    folder = Path(job.folder)
    job.write(folder / "job.json")
    (folder / batch.SETTINGS_FILE).write_text(Train().model_dump_json())
    return batch.main(folder)


def ends_in(seconds: float, facts: str = "JobState=RUNNING PreemptTime=None") -> str:
    return f"{facts} EndTime={time.time() + seconds:.0f}"


@pytest.mark.parametrize(
    ("ends", "facts", "cause"),
    [
        (80, "PreemptTime=None", Cause.TIME_LIMIT),
        (-20, "PreemptTime=None", Cause.TIME_LIMIT),  # Slurm looks twice a minute
        (30, "PreemptTime={now:.0f}", Cause.PREEMPTION),
        (1e6, "PreemptTime=None", Cause.USERS_REQUEST),  # scancel --batch --signal=TERM
        (None, "PreemptTime=None EndTime=Unknown", Cause.USERS_REQUEST),
    ],
)
def test_a_request_to_stop_is_booked_as_whose_it_was_and_the_job_goes_back_into_the_queue(
    make_job: MakeJob, tmp_path: Path, controller: Controller, monkeypatch: pytest.MonkeyPatch, ends: float | None, facts: str,
    cause: Cause,
) -> None:  # fmt: skip
    facts = "JobState=RUNNING " + facts.format(now=time.time())
    controller.says(facts if ends is None else ends_in(ends, facts))
    job = make_job(tmp_path)
    assert stopped_by(signal.SIGTERM, job, monkeypatch) == 0 and controller.requeued
    assert [row.cause for row in read_interruptions(job.folder)] == [cause]


def test_a_job_that_somebody_cancels_is_a_users_request_and_stays_out_of_the_queue(
    make_job: MakeJob, tmp_path: Path, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.says(ends_in(0, "JobState=COMPLETING PreemptTime=None"))
    job = make_job(tmp_path)
    assert stopped_by(signal.SIGTERM, job, monkeypatch) == 1 and not controller.requeued
    assert [row.cause for row in read_interruptions(job.folder)] == [Cause.USERS_REQUEST]


def test_a_client_that_asks_for_a_stop_is_a_user_even_shortly_before_the_time_limit(
    make_job: MakeJob, tmp_path: Path, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.says(ends_in(80))
    job = make_job(tmp_path)
    assert stopped_by(signal.SIGINT, job, monkeypatch) == 0 and not controller.requeued
    assert [row.cause for row in read_interruptions(job.folder)] == [Cause.USERS_REQUEST]
    assert batch.outcome_of(Path(job.folder), "12") is not None


def test_a_controller_that_does_not_answer_keeps_no_job_out_of_the_queue(
    make_job: MakeJob, tmp_path: Path, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stopped_by(signal.SIGTERM, make_job(tmp_path), monkeypatch) == 0
    assert controller.requeued
