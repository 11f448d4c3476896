"""The record of a job's attempts, and of every interruption with its cause: `attempts.json`, `interruptions.jsonl`.

The client of a job is the one writer, under its lock. What a killed client could not write, the next one finds and settles.
Both files are replaced whole, so a kill leaves the old one or the new one. No clock of theirs ever enters a dataset.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict

from l3_platform.launch.attempts import read_logs
from l3_platform.launch.causes import Cause, Finding, Logs, classify, explained, of_scheduler
from l3_platform.launch.protocol import NotSubmitted, State
from l3_platform.settings import SettingsError
from l3_platform.train.job import TrainingStopped, TrainJob, write_text
from l3_platform.train.metrics import Row
from l3_platform.train.metrics import read as read_metrics

ATTEMPTS, INTERRUPTIONS = "attempts.json", "interruptions.jsonl"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a record of another version must not stop a training


class Attempt(_Record):
    """One start of all processes. `ended` is None while it runs. Seconds of `lost` are those of steps past the newest checkpoint
    at its end, which the next attempt repeats."""

    number: int
    restart: int = 0  # by Kubernetes, of the same JobSet
    host: str
    pid: int
    started: datetime
    stepping: datetime | None = None  # its first step began
    last_step: datetime | None = None  # its last logged step ended
    ended: datetime | None = None
    outcome: str = ""
    lost_seconds: float = 0.0


class Interruption(_Record):
    """One attempt that ended otherwise than finished. `step`: the last that was logged; `checkpoint`: the step from which the next
    attempt resumes."""

    attempt: int
    cause: Cause
    planned: bool
    evidence: str
    started: datetime
    lost: datetime
    restarted: datetime | None
    step: int
    checkpoint: int
    steps_lost: int


@dataclass
class Outcome:
    """To be filled inside the block of `recorded`."""

    state: State | None = None
    look: Callable[[], object] = lambda: None  # now and then, for restarts that a cluster makes by itself


@contextmanager
def recorded(job: TrainJob, scheduler: Callable[[], str] = lambda: "") -> Iterator[Outcome]:
    """Around one attempt: its start is on disk before anything runs, its end and the cause of it afterwards, whatever ends it.

    One that `settle` has left open goes on: its processes outlived the client that started them. `scheduler` is asked
    at the end why it ended the attempt, in words that `causes.py` knows; empty where it did not. Where settings or a cluster
    let nothing start there was no attempt, and nothing is left of it: what a person has yet to correct is no interruption.
    """
    folder = Path(job.folder)
    before = read_attempts(folder), read_interruptions(folder)
    attempt = next((one for one in before[0] if one.ended is None), None) or _begin(folder, _next_number(folder))

    def newest() -> Attempt:
        nonlocal attempt
        attempt = _follow_restarts(folder, attempt)
        return attempt

    def logs() -> Logs:
        words = scheduler()
        return _read_logs(folder, attempt) | ({"scheduler": [words]} if words else {})

    outcome = Outcome(look=newest)
    try:
        yield outcome
    except (SettingsError, NotSubmitted):
        _write_attempts(folder, before[0])
        _write_interruptions(folder, before[1])
        raise
    except BaseException as error:
        _end(folder, newest(), _now(), "client stopped", _of_client(error, logs()))
        raise
    state = outcome.state or State("crashed", "the launcher said nothing")
    _end(folder, newest(), _now(), state.name, None if state.name == "finished" else _of_attempt(logs(), state))


def settle(job: TrainJob, alive: bool = False) -> None:
    """Ends on paper what a client that was killed could not: its attempt ended when the last of its files was written.

    `alive`: the processes of the newest attempt are still there, as on a cluster with a scheduler. Under the client's lock,
    or when the job has finished.
    """
    folder = Path(job.folder)
    for attempt in read_attempts(folder):
        if attempt.ended is None and not alive:
            finished = (Path(job.output) / "result.json").exists()
            client = f"the client (process {attempt.pid} on {attempt.host}) ended without a word"
            attempt = _follow_restarts(folder, attempt)
            if attempt.host == socket.gethostname() and psutil.boot_time() > attempt.started.timestamp():
                up = datetime.fromtimestamp(psutil.boot_time(), UTC)
                finding = Finding(Cause.HOST_MAINTENANCE, f"{client}; the host was started again at {up:%Y-%m-%d %H:%M:%S} UTC")
            else:
                finding = explained(_read_logs(folder, attempt)) or Finding(Cause.UNKNOWN, "")
                if finding.cause in (Cause.NETWORK, Cause.UNKNOWN):  # its death broke the connections
                    finding = Finding(Cause.UNKNOWN, "; ".join(filter(None, [client, finding.evidence])))
            ended = _last_written(folder, attempt)
            _end(folder, attempt, ended, "finished" if finished else "client lost", None if finished else finding)


def read_attempts(folder: str | Path) -> list[Attempt]:
    path = Path(folder) / ATTEMPTS
    return [Attempt.model_validate(row) for row in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


def read_interruptions(folder: str | Path) -> list[Interruption]:
    path = Path(folder) / INTERRUPTIONS
    if not path.exists():
        return []
    return [Interruption.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _follow_restarts(folder: Path, attempt: Attempt) -> Attempt:
    """The attempt that runs now. Kubernetes restarts a set by itself, in folders `attempt-3.1`, `attempt-3.2`: each is an attempt
    of its own, and the one before it ended. Where no client watched, the times are those of its files."""
    for number, restart in _numbers(folder):
        if (number, restart) > (attempt.number, attempt.restart):
            ended = _last_written(folder, attempt)
            _end(folder, attempt, ended, "restarted", classify(_read_logs(folder, attempt), "all pods were restarted"))
            attempt = _begin(folder, number, restart, max(ended, _first_written(folder, number, restart)))
    return attempt


def _numbers(folder: Path) -> list[tuple[int, int]]:
    """Of the folders of logs: (3, 1) is `attempt-3.1`, and (3, 0) both `attempt-3` and `attempt-3.0`."""
    names = (path.name.removeprefix("attempt-").partition(".") for path in folder.glob("logs/attempt-*"))
    return sorted((int(number), int(restart or 0)) for number, _, restart in names)


def _next_number(folder: Path) -> int:
    return max((number for number, _ in _numbers(folder)), default=0) + 1


def _begin(folder: Path, number: int, restart: int = 0, started: datetime | None = None) -> Attempt:
    attempt = Attempt(number=number, restart=restart, host=socket.gethostname(), pid=os.getpid(), started=started or _now())
    _write_attempts(folder, [*read_attempts(folder), attempt])
    _mark_restart(folder, attempt.started)
    return attempt


def _end(folder: Path, attempt: Attempt, ended: datetime, outcome: str, finding: Finding | None) -> None:
    until = ended.timestamp() + 1.0  # times of files are coarse
    rows = [row for row in read_metrics(folder) if attempt.started.timestamp() <= row.get("time", 0.0) <= until]
    checkpoint = _newest_checkpoint(folder)
    lost = [] if finding is None else [row for row in rows if row["step"] > checkpoint]
    closed = attempt.model_copy(
        update={
            "ended": ended,
            "outcome": outcome,
            "stepping": _moment(rows[0]["time"] - rows[0]["seconds"]) if rows else None,
            "last_step": _moment(rows[-1]["time"]) if rows else None,
            "lost_seconds": round(sum(row["seconds"] for row in lost), 3),
        }
    )
    _write_attempts(folder, [closed if old == attempt else old for old in read_attempts(folder)])
    if finding is not None:
        row = Interruption(
            attempt=attempt.number,
            cause=finding.cause,
            planned=finding.cause.planned,
            evidence=finding.evidence,
            started=attempt.started,
            lost=ended,
            restarted=None,
            step=_last_step(rows, checkpoint),
            checkpoint=checkpoint,
            steps_lost=_last_step(rows, checkpoint) - checkpoint,
        )
        _write_interruptions(folder, [*read_interruptions(folder), row])


def _of_attempt(logs: Logs, state: State) -> Finding:
    """Of an attempt that ended while its client watched."""
    if state.name == "stopped":
        return of_scheduler(logs) or Finding(Cause.USERS_REQUEST, state.message)
    found = classify(logs, state.message)
    if state.name == "failed" and found.cause in (Cause.UNKNOWN, Cause.SOFTWARE_BUG, Cause.NETWORK):
        return Finding(Cause.TRAINING_FAILED, state.message)
    if found.cause is Cause.NCCL_WATCHDOG_TIMEOUT:
        return Finding(found.cause, f"{found.evidence}; {state.message}")
    return found


def _of_client(error: BaseException, logs: Logs) -> Finding:
    """Of an attempt that its client ended: asked to, by a person (Ctrl-C, Terminate) or the scheduler, or by a fault of its own."""
    name = type(error).__name__
    said = f"{name}: {error}".rstrip(": ")
    if isinstance(error, TrainingStopped) and (found := of_scheduler(logs)):
        return found
    if isinstance(error, KeyboardInterrupt) or "Interrupt" in name:
        return Finding(Cause.USERS_REQUEST, "Ctrl-C or Terminate")
    if isinstance(error, TrainingStopped | SystemExit):
        return Finding(Cause.USERS_REQUEST, said)
    found = classify({"client": [said]})
    return Finding(found.cause if found.cause is not Cause.UNKNOWN else Cause.SOFTWARE_BUG, f"client: {said}")


def _logs(folder: Path, number: int, restart: int) -> Path:
    of_set = folder / "logs" / f"attempt-{number}.{restart}"
    return of_set if of_set.exists() else folder / "logs" / f"attempt-{number}"


def _last_written(folder: Path, attempt: Attempt) -> datetime:
    times = (_moment(path.stat().st_mtime) for path in _logs(folder, attempt.number, attempt.restart).glob("*"))
    return max(times, default=attempt.started)


def _first_written(folder: Path, number: int, restart: int) -> datetime:
    times = (_moment(path.stat().st_mtime) for path in _logs(folder, number, restart).glob("*"))
    return min(times, default=_now())


def _read_logs(folder: Path, attempt: Attempt) -> dict[str, Sequence[str]]:
    return read_logs(_logs(folder, attempt.number, attempt.restart))


def _mark_restart(folder: Path, moment: datetime) -> None:
    rows = read_interruptions(folder)
    if rows and rows[-1].restarted is None:
        _write_interruptions(folder, [*rows[:-1], rows[-1].model_copy(update={"restarted": moment})])


def _write_attempts(folder: Path, attempts: Sequence[Attempt]) -> None:
    write_text(folder / ATTEMPTS, json.dumps([one.model_dump(mode="json") for one in attempts], indent=1) + "\n")


def _write_interruptions(folder: Path, rows: Sequence[Interruption]) -> None:
    write_text(folder / INTERRUPTIONS, "".join(row.model_dump_json() + "\n" for row in rows))


def _newest_checkpoint(folder: Path) -> int:
    names = (path.parent.name.removeprefix("step-") for path in folder.glob("step-*/complete.json"))
    return max((int(name) for name in names if name.isdigit()), default=0)


def _last_step(rows: Sequence[Row], checkpoint: int) -> int:
    return max(checkpoint, int(rows[-1]["step"])) if rows else checkpoint


def _now() -> datetime:
    return datetime.now(UTC)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
