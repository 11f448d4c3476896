"""What every launcher can do: start the processes of a job, say how they are, end them, hand over their lines."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from l3_platform.train.job import TrainingError, TrainJob


@dataclass(frozen=True)
class State:
    """`stopped`: on request, resumable. `failed`: would fail again. `crashed`: killed or lost; worth another start."""

    name: Literal["running", "finished", "stopped", "failed", "crashed"]
    message: str = ""


class NotSubmitted(TrainingError):
    """Nothing was started, since a cluster did not answer or refused the job; the message says what to look at."""


class Launcher(Protocol):
    """One attempt at a time. Starting a job again resumes it: checkpoints are the trainer's affair."""

    def submit(self, job: TrainJob) -> None:
        """Starts all processes of the job and returns. Raises SettingsError or NotSubmitted where none was started."""
        ...

    def poll(self) -> State:
        """How the attempt stands, without waiting. Any state but `running` means that no process is left."""
        ...

    def cancel(self) -> None:
        """Asks all processes to stop, kills those that do not in time, returns when none is left. May be repeated."""
        ...

    def logs(self) -> list[str]:
        """Lines of rank 0 since the last call."""
        ...

    def tail(self, lines: int = 20) -> str:
        """The last lines of every process of the attempt, each under its name: what to read after a failure."""
        ...


def job_name(folder: Path) -> str:
    """What a scheduler calls the job of a folder: the same for every client, no other folder's, and a DNS label."""
    readable = re.sub(r"[^a-z0-9]+", "-", folder.name.lower())[:24].strip("-")
    return f"l3-{readable}-{hashlib.blake2b(str(folder).encode(), digest_size=5).hexdigest()}"
