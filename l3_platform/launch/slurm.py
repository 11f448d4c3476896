"""Training as one Slurm job that outlives its client and is found again: by its name, which is the folder's.

The job does the work of a client on its first node (`batch.py`); this side submits, watches and cancels.
"""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
import time
from pathlib import Path

from l3_platform.launch.attempts import Attempt, Lines, tail_of
from l3_platform.launch.batch import SETTINGS_FILE, outcome_of
from l3_platform.launch.protocol import NotSubmitted, State, job_name
from l3_platform.launch.sbatch import script
from l3_platform.launch.torchrun import CLIENT_GRACE
from l3_platform.settings import SettingsError, Slurm
from l3_platform.settings import Train as TrainSettings
from l3_platform.train.job import TrainingError, TrainJob, write_text

# Slurm's words for a job that has ended. Any other state means that it runs, waits, or is about to.
ENDED = {
    "CANCELLED": State("stopped", "was cancelled in Slurm; run again to resume"),
    "TIMEOUT": State("crashed", "reached its time limit before it could stop (slurm.stop_seconds)"),
    "PREEMPTED": State("crashed", "was preempted"),
    "NODE_FAIL": State("crashed", "lost a node"),
    "BOOT_FAIL": State("crashed", "had a node that did not boot"),
    "OUT_OF_MEMORY": State("crashed", "ran out of memory"),
    "DEADLINE": State("crashed", "missed its deadline"),
    "REVOKED": State("crashed", "was revoked"),
    "FAILED": State("crashed", "ended without a word of the trainer"),
    "COMPLETED": State("crashed", "ended without a word of the trainer"),
    "GONE": State("crashed", "left Slurm's records"),
}
# After scancel: Slurm kills after KillWait (30 s by default) and gives a dead node SlurmdTimeout (300 s).
GONE_WITHIN = 420.0


class SlurmJob:
    """A `Launcher`. `submit` attaches to the folder's job where one is in the queue or runs."""

    def __init__(self, settings: TrainSettings, slurm: Slurm) -> None:
        for tool in ("sbatch", "squeue", "scancel"):
            if not shutil.which(tool):
                raise SettingsError(f"train.launcher=slurm: there is no {tool} on this machine's PATH; run on a login node")
        self._settings = settings
        self._slurm = slurm
        self._job: TrainJob | None = None
        self._id, self._submitted = "", False
        self._state, self._said, self._asked_at = "", "", 0.0
        self._lines = Lines(Path())
        self._news: list[str] = []

    def submit(self, job: TrainJob) -> None:
        self._job = job
        folder = self._folder
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        self._state, self._said, self._asked_at = "", "", 0.0
        self._id = _living(job_name(folder))
        if self._id:
            self._lines = Lines(folder / "logs" / f"slurm-{self._id}.log")
            self._lines.skip()
            self._news.append(f"found Slurm job {self._id} again ({folder})")
            return
        job.write(folder / "job.json")
        write_text(folder / SETTINGS_FILE, self._settings.model_dump_json(indent=2) + "\n")
        write_text(folder / "sbatch.sh", script(folder, self._settings, self._slurm))
        self._submitted = True
        self._id = _run("sbatch", "--parsable", str(folder / "sbatch.sh")).partition(";")[0]
        self._lines = Lines(folder / "logs" / f"slurm-{self._id}.log")
        self._news.append(f"submitted Slurm job {self._id} ({folder})")

    def poll(self) -> State:
        now = time.monotonic()
        if now - self._asked_at >= self._slurm.poll_seconds or not self._state:
            self._asked_at = now
            self._ask()
        if self._state not in ENDED:
            return State("running")
        said, slurm = outcome_of(self._folder, self._id), ENDED[self._state]
        return said or State(slurm.name, f"Slurm job {self._id} {slurm.message}")

    def cancel(self) -> None:
        """SIGINT first, for a checkpoint within shutdown_seconds whatever the cluster's KillWait; then scancel."""
        if self._submitted and not self._id:  # interrupted while sbatch was at work
            self._id = _living(job_name(self._folder))
        if not self._id or self._gone(0.0):
            return
        try:
            if self._state == "RUNNING":
                _signal("--batch", "--signal=INT", self._id)
                self._gone(self._settings.shutdown_seconds + CLIENT_GRACE + 2.0)
        finally:  # a second interrupt during the wait must still end the job
            _signal(self._id)
        if not self._gone(GONE_WITHIN):
            raise TrainingError(
                f"Slurm job {self._id} is {self._state} {GONE_WITHIN:.0f} s after scancel; end it before you run again"
            )

    def logs(self) -> list[str]:
        """What the job prints, rank 0's lines among it, and how Slurm moves it."""
        news, self._news = self._news, []
        return [*news, *self._lines.new()]

    def tail(self, lines: int = 20) -> str:
        assert self._job is not None
        attempt, own = Attempt.newest(self._job), self._lines.path
        parts = [f"== {own.name}\n{tail_of(own, lines)}"] if own.exists() else []
        return "\n".join([attempt.tail(lines) if attempt else "", *parts]).strip()

    @property
    def _folder(self) -> Path:
        assert self._job is not None
        return Path(self._job.folder).absolute()

    def _ask(self) -> None:
        """Slurm's state of the job; as it was where the controller does not answer, which is no reason to give up."""
        state, reason = _state_of(self._id)
        words = f"Slurm job {self._id} is {state}{f': {reason}' if reason not in ('', 'None') else ''}"
        if state and words != self._said:
            self._news.append(words)
            self._state, self._said = state, words

    def _gone(self, within: float) -> bool:
        deadline = time.monotonic() + within
        while True:
            self._ask()
            if self._state in ENDED:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(min(0.5, self._slurm.poll_seconds))


def _living(name: str) -> str:
    """Id of the job of that name that waits or runs, or is about to again; empty where there is none."""
    found = _run("squeue", "--noheader", "--format=%i %T", "--user", getpass.getuser(), "--name", name)
    ids = [job for job, state in (line.split() for line in found.splitlines()) if state not in ENDED]
    return ids[0] if ids else ""


def _state_of(job: str) -> tuple[str, str]:
    """(state, reason) from the queue, and once the job has left it from the accounting; empty where Slurm cannot say."""
    command = ["squeue", "--noheader", "--states=all", "--format=%T|%r", "--jobs", job]
    asked = subprocess.run(command, capture_output=True, text=True)
    if asked.returncode == 0 and asked.stdout.strip():
        state, _, reason = asked.stdout.strip().partition("|")
        return state, reason
    if asked.returncode and "Invalid job id" not in asked.stderr:
        return "", ""
    command = ["sacct", "--noheader", "--allocations", "--parsable2", "--format=State", "--jobs", job]
    if shutil.which("sacct"):
        accounted = subprocess.run(command, capture_output=True, text=True).stdout.split()
        if accounted and accounted[0] in ENDED:  # `CANCELLED by 1000` is CANCELLED
            return accounted[0], ""
    return "GONE", ""


def _signal(*arguments: str) -> None:
    """A job that has just ended is no error. A Ctrl-C in the terminal does not reach scancel."""
    subprocess.run(["scancel", *arguments], capture_output=True, start_new_session=True)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        said = re.sub(rf"^{command[0]}: ((error|fatal): )?", "", last)
        raise NotSubmitted(f"train.launcher=slurm: {command[0]} said {said!r}; {_NEXT[command[0]]}")
    return done.stdout.strip()


_NEXT = {
    "squeue": "run where `squeue` works, such as on a login node, or set train.launcher=local",
    "sbatch": "correct section slurm of the settings, which names the partition, the account and the time limit",
}
