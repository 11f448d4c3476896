"""The script that sbatch gets: what is asked of Slurm, and one line that runs `batch.py` on the first node."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import l3_platform
from l3_platform.launch.protocol import job_name
from l3_platform.launch.torchrun import CLIENT_GRACE
from l3_platform.settings import Slurm
from l3_platform.settings import Train as TrainSettings

TICK = 60  # seconds: Slurm may send a signal so much earlier than it was asked to
WARNED_SECONDS = "L3_WARNED_SECONDS"  # variable: the signal comes within so many seconds of the time limit


def script(folder: Path, settings: TrainSettings, slurm: Slurm) -> str:
    """Of the job in `folder`, an absolute path that all nodes see."""
    before = slurm.stop_seconds or round(settings.shutdown_seconds + CLIENT_GRACE) + TICK
    options = {
        "job-name": job_name(folder),
        "dependency": "singleton",  # two jobs of one folder never run at a time, whoever submits them
        "nodes": str(settings.nodes),
        "ntasks-per-node": "1",
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "time": slurm.time_limit,
        "gpus-per-node": str(slurm.gpus_per_node or ""),
        "cpus-per-task": str(slurm.cpus_per_node or ""),
        "signal": f"B:TERM@{before}",
        "output": str(folder / "logs" / "slurm-%j.log"),
        "open-mode": "append",
    }
    lines = [f"--{name}={_quoted(value)}" for name, value in options.items() if value]
    lines += ["--requeue", *(["--exclusive"] if slurm.exclusive else []), *slurm.options]
    root = str(Path(l3_platform.__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH {line}" for line in lines),
            *slurm.setup,
            f"export PYTHONPATH={shlex.quote(path)}",
            f"export {WARNED_SECONDS}={before + TICK}",
            f"exec {shlex.join([sys.executable, '-u', '-m', 'l3_platform.launch.batch', str(folder)])}",
            "",
        ]
    )


def _quoted(value: str) -> str:
    return f'"{value}"' if re.search(r"\s", value) else value
