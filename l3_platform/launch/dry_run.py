"""What a launcher would submit, as text, with no cluster at hand."""

from __future__ import annotations

import shlex
from pathlib import Path

import yaml

from l3_platform.launch.jobset import manifest
from l3_platform.launch.places import here, on_hosts
from l3_platform.launch.sbatch import script
from l3_platform.settings import Settings


def submission(settings: Settings, folder: Path) -> str:
    """Of the job in `folder`: the script for sbatch, the JobSet for kubectl, else a command line for every agent.

    Raises SettingsError where the section of the launcher leaves out what it needs.
    """
    train, logs = settings.train, folder / "logs" / "attempt-1"
    if train.launcher == "slurm":
        return script(folder, train, settings.slurm)
    if train.launcher == "kubernetes":
        return yaml.safe_dump(manifest(folder, logs, train, settings.kubernetes), sort_keys=False)
    place = on_hosts(settings.hosts, train.nodes) if train.launcher == "hosts" else here
    return "".join(f"{shlex.join(start.command)}\n" for start in place(train, folder / "job.json", logs))
