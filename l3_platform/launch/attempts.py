"""The folder of one attempt, `logs/attempt-3` in a job's folder: the lines of its ranks and agents, and what rank 0 said last."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from l3_platform.launch.protocol import State
from l3_platform.train.job import TrainJob

FINISHING = "INFO finishing: "  # rank 0's word, as it is logged, once the steps are over
_TAIL_BYTES = 1 << 20  # of each log: a fault is reported at its end


class Lines:
    """A file that grows, read line by whole line; it need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0

    def new(self) -> list[str]:
        """Since the last call."""
        if not self.path.exists():
            return []
        with open(self.path, "rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole.decode(errors="replace").splitlines()

    def skip(self) -> None:
        """Whoever comes later does not get what was there before."""
        self._read = self.path.stat().st_size if self.path.exists() else 0


class Attempt:
    """Reads what the processes of an attempt write; they may be on other machines that share the folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._first_rank = Lines(path / "rank-00000.log")
        self._progress_at = time.monotonic()
        self.stepping = False  # after the first step, until training says that it finishes

    @classmethod
    def new(cls, job: TrainJob) -> Attempt:
        """The next attempt's folder, made."""
        path = next_path(job)
        path.mkdir(parents=True)
        return cls(path)

    @classmethod
    def newest(cls, job: TrainJob) -> Attempt | None:
        paths = sorted(_folder(job).glob("attempt-*"), key=_order)
        return cls(paths[-1]) if paths else None

    def lines(self) -> list[str]:
        """Rank 0's, since the last call."""
        lines = self._first_rank.new()
        for line in lines:  # others, such as retries of MLflow, are no progress
            if line.startswith(("step ", FINISHING)):
                self._progress_at, self.stepping = time.monotonic(), not line.startswith(FINISHING)
        return lines

    def skip(self) -> None:
        self._first_rank.skip()

    @property
    def stalled_seconds(self) -> float:
        """Since rank 0's last step among the lines, since it began to finish, or since the attempt was opened."""
        return time.monotonic() - self._progress_at

    def said(self) -> State | None:
        """Rank 0's last word, from its status.json; None where it left none."""
        path = self.path / "status.json"
        if not path.exists():
            return None
        said = json.loads(path.read_text())
        return State(said["state"], said["message"])

    def tail(self, lines: int) -> str:
        """The last lines of every process, each under its name."""
        return "\n".join(f"== {path.name} of {self.path.name}\n{tail_of(path, lines)}" for path in sorted(self.path.glob("*.log")))


def next_path(job: TrainJob) -> Path:
    newest = Attempt.newest(job)
    return _folder(job) / f"attempt-{_order(newest.path)[0] + 1 if newest else 1}"


def read_logs(folder: Path) -> dict[str, Sequence[str]]:
    """The last lines of every log in the folder of an attempt, by its name."""
    found: dict[str, Sequence[str]] = {}
    for path in sorted(folder.glob("*")):
        if path.suffix in (".log", ".txt", ".out", ".err"):
            with open(path, "rb") as file:
                file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
                found[path.name] = file.read().decode(errors="replace").splitlines()
    return found


def tail_of(path: Path, lines: int) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def _folder(job: TrainJob) -> Path:
    return Path(job.folder).absolute() / "logs"


def _order(path: Path) -> tuple[int, ...]:
    """`attempt-3` is the third; `attempt-3.1` its first restart by Kubernetes."""
    return tuple(int(part) for part in path.name.rpartition("-")[2].split("."))
