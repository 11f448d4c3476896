"""How far a training has come that has not finished, and what stopped it last: from its folder, whoever trains there now."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil

from l3_platform.launch.interruptions import Attempt, read_attempts, read_interruptions
from l3_platform.train.branch import complete, read_origin
from l3_platform.train.data_order import whole_units
from l3_platform.train.job import TrainJob
from l3_platform.train.metrics import read as read_metrics


def unfinished(folder: Path) -> str:
    """In words; empty where no training was started. `folder` is that of a job, or of several, of which the last counts."""
    jobs = sorted([*folder.glob("job.json"), *folder.glob("*/job.json")], key=lambda path: path.stat().st_mtime)
    if not jobs:
        return ""
    run = jobs[-1].parent
    rows, checkpoints, interruptions = read_metrics(run), complete(run), read_interruptions(run)
    words = ["no step yet"]
    if rows:
        words = [f"step {int(rows[-1]['step']):,}, {int(rows[-1]['tokens']):,}{_of_total(jobs[-1])} tokens"]
    words.append(f"newest checkpoint {checkpoints[0].name}" if checkpoints else "no checkpoint")
    if interruptions:
        last = interruptions[-1]
        words.append(f"last interrupted {last.lost:%m-%d %H:%M} UTC by {last.cause}: {last.evidence}")
    if (attempts := read_attempts(run)) and attempts[-1].ended is None:
        words.append(_open(attempts[-1]))
    return "; ".join(words)


def _open(attempt: Attempt) -> str:
    """Of an attempt whose end nobody has written down: on this machine its client may be gone."""
    gone = attempt.host == socket.gethostname() and not psutil.pid_exists(attempt.pid)
    return f"attempt {attempt.number} began {attempt.started:%m-%d %H:%M} UTC" + (", and its client is gone" if gone else "")


def _of_total(path: Path) -> str:
    try:
        job = TrainJob.read(path)
        start = read_origin(job.branch_from).position.tokens if job.branch_from else 0
    except ValueError:  # of another version, or its parent's checkpoint is gone: how far it came is known all the same
        return ""
    return f" of {whole_units(job.ramp, job.total_tokens, start):,}"
