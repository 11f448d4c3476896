"""What a launcher would submit, as text, with no cluster at hand."""

from __future__ import annotations

import shlex
from pathlib import Path

import yaml

from l3_platform.launch.jobset import manifest
from l3_platform.launch.places import here, on_hosts
from l3_platform.launch.sbatch import script
from l3_platform.model.preset import preset
from l3_platform.parallel.mesh import mesh_for
from l3_platform.settings import Settings, SettingsError, Stage
from l3_platform.train.job import TrainJob


def submission(settings: Settings, folder: Path) -> str:
    """Of the job in `folder`: the script for sbatch, the JobSet for kubectl, else a command line for every agent.

    Raises SettingsError where the section of the launcher leaves out what it needs, or for a mesh that would be refused.
    """
    check_mesh(settings)
    train, logs = settings.train, folder / "logs" / "attempt-1"
    if train.launcher == "slurm":
        return script(folder, train, settings.slurm)
    if train.launcher == "kubernetes":
        return yaml.safe_dump(manifest(folder, logs, train, settings.kubernetes), sort_keys=False)
    place = on_hosts(settings.hosts, train.nodes) if train.launcher == "hosts" else here
    return "".join(f"{shlex.join(start.command)}\n" for start in place(train, folder / "job.json", logs))


def check_mesh(settings: Settings) -> None:
    """Raises SettingsError where training would refuse its mesh, as far as is known before there is a plan: the model only where
    a preset gives it."""
    train = settings.train
    ranks = train.nodes * train.processes_per_node
    try:
        mesh_for(
            ranks, train.data_parallel_shard,
            tp=train.tensor_parallel, cp=train.context_parallel, pp=train.pipeline_parallel,
        )  # fmt: skip
        for ramp, degrees in _phases(settings) if settings.model.preset else ():
            job = TrainJob.from_settings(
                train, folder="", output="", model=preset(settings, settings.tokenizer.vocab_size), data={"any": ("tokens",)},
                shares={"any": 1.0}, bos_id=0, eos_id=1, total_tokens=ramp[-1].batch_tokens, ramp=ramp, **degrees,
            )  # fmt: skip
            job.mesh(ranks)
    except ValueError as error:
        raise SettingsError(str(error)) from None


def _phases(settings: Settings) -> list[tuple[tuple[Stage, ...], dict[str, int]]]:
    """Batches and degrees of parallelism of pre-training, then of each longer length."""
    longer = settings.long_context.stages
    grown = [((Stage(batch_tokens=stage.batch_tokens, seq_len=stage.seq_len),), stage.degrees) for stage in longer]
    return [(settings.train.ramp, {}), *grown]
