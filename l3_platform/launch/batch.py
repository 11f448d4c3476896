"""What runs on the first node of a Slurm allocation: `python -m l3_platform.launch.batch FOLDER`.

It supervises training as a client does on one machine, so a lost rank is relaunched within the allocation, with nobody
watching from outside. SIGTERM means that the allocation ends (time limit, preemption, `scancel --signal=TERM`): the
trainers save, and the job goes back into the queue. SIGINT means stop for good. What it leaves behind for the client is
`outcome.json`; a job that waits in the queue again leaves none.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from l3_platform.launch.places import within_slurm
from l3_platform.launch.protocol import State
from l3_platform.launch.sbatch import WARNED_SECONDS
from l3_platform.launch.supervise import supervise
from l3_platform.launch.torchrun import Torchrun
from l3_platform.settings import Train as TrainSettings
from l3_platform.train.job import TrainingError, TrainingStopped, TrainJob, write_text

SETTINGS_FILE, OUTCOME_FILE = "launch.json", "outcome.json"
ANSWER_SECONDS = 5.0  # of Slurm's controller, while the allocation may be about to end


def main(folder: Path) -> int:
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: asked.append(number))
    slurm_job = os.environ["SLURM_JOB_ID"]
    job = TrainJob.read(folder / "job.json")
    settings = TrainSettings.model_validate_json((folder / SETTINGS_FILE).read_text())
    try:
        supervise(
            Torchrun(settings, within_slurm), job, settings.max_restarts, print, lambda: bool(asked),
            scheduler=lambda: "" if signal.SIGINT in asked else _reason(slurm_job, warned=bool(asked)),
        )  # fmt: skip
        outcome = State("finished")
    except TrainingStopped as stopped:
        outcome = State("stopped", str(stopped))
        if signal.SIGINT not in asked:
            if _facts(slurm_job).get("JobState", "RUNNING") != "RUNNING":
                return 1  # being cancelled, or a node was lost: Slurm has ended the job, or requeues it
            words = _requeued(slurm_job)
            if not words:
                print(f"{stopped}; back in the queue", flush=True)
                return 0
            outcome = State("crashed", f"Slurm job {slurm_job} was asked to stop, and could not be requeued: {words}")
    except TrainingError as error:
        outcome = State("failed", str(error))
    write_text(folder / OUTCOME_FILE, json.dumps({"job": slurm_job, "state": outcome.name, "message": outcome.message}))
    print(f"{outcome.name}: {outcome.message}", flush=True)
    return 0 if outcome.name in ("finished", "stopped") else 1


def outcome_of(folder: Path, slurm_job: str) -> State | None:
    """What this Slurm job left behind."""
    path = folder / OUTCOME_FILE
    if not path.exists():
        return None
    left = json.loads(path.read_text())
    return State(left["state"], left["message"]) if left["job"] == slurm_job else None


def _reason(slurm_job: str, warned: bool) -> str:
    """Why Slurm ends the job or is about to, where its daemons print no reason into the logs; empty where it does not. `warned`:
    by SIGTERM, which a person can send too."""
    facts = _facts(slurm_job)
    if facts.get("PreemptTime", "").isdigit():
        return f"Slurm job {slurm_job} was preempted"
    ends = float(facts["EndTime"]) if facts.get("EndTime", "").isdigit() else math.inf
    if warned and facts.get("JobState") == "RUNNING" and ends - time.time() <= float(os.environ.get(WARNED_SECONDS, "0")):
        return f"Slurm job {slurm_job} reached its time limit, of {facts['TimeLimit']}"
    return ""


def _facts(slurm_job: str) -> dict[str, str]:
    """What Slurm knows of the job, its times in seconds; empty where it does not answer, which is no reason to give up."""
    command, environment = ["scontrol", "--oneliner", "show", "job", slurm_job], os.environ | {"SLURM_TIME_FORMAT": "%s"}
    try:
        asked = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=ANSWER_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(re.findall(r"(\w+)=(\S*)", asked.stdout))


def _requeued(slurm_job: str) -> str:
    """Empty on success, else why not."""
    done = subprocess.run(["scontrol", "requeue", slurm_job], capture_output=True, text=True)
    return done.stderr.strip() if done.returncode else ""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
