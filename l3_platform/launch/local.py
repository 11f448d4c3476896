"""Runs a training job to its end, wherever the settings say, and blocks until it is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from l3_platform.launch.protocol import Launcher
from l3_platform.launch.supervise import supervise
from l3_platform.settings import Hosts, Kubernetes, SettingsError, Slurm
from l3_platform.settings import Train as TrainSettings
from l3_platform.store.lock import Lock
from l3_platform.train.job import TrainJob, TrainResult

Cluster = Hosts | Slurm | Kubernetes


def run_training(
    job: TrainJob,
    settings: TrainSettings,
    cluster: Cluster | None = None,
    *,
    on_line: Callable[[str], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainResult:
    """Blocks until the job has finished; a finished job returns at once, an interrupted one resumes.

    `cluster` is the section of the settings that `settings.launcher` names, where there is one. `on_line` gets rank 0's
    lines. Lost processes mean a relaunch of all from the newest complete checkpoint, at most `settings.max_restarts` times
    without a new checkpoint in between. Any exception here, KeyboardInterrupt and `should_stop` included, ends all
    processes first. The death of this process ends them too, but not on Slurm and Kubernetes: there the next client finds
    the job again. Raises TrainingStopped where training was asked to stop, TrainingError in the trainer's words where it
    failed (the last lines of every process go to `on_line`), or with those lines where it was lost too often, Locked where
    another client runs the job.
    """
    if (finished := TrainResult.read(job.output)) and finished.fingerprint == job.fingerprint:
        return finished
    job.mesh(settings.nodes * settings.processes_per_node)
    launcher = launcher_for(settings, cluster)
    with Lock(str(Path(job.folder) / "client-lock"), owner="the client of a training job"):
        return supervise(
            launcher, job, settings.max_restarts, on_line or (lambda line: None), should_stop or (lambda: False),
            record=settings.launcher != "slurm",  # whose job is its own client
            outlived=settings.launcher == "kubernetes",
        )  # fmt: skip


def launcher_for(settings: TrainSettings, cluster: Cluster | None = None) -> Launcher:
    """The launcher that the settings name. Raises SettingsError where they leave out what it needs."""
    from l3_platform.launch.places import here, on_hosts
    from l3_platform.launch.torchrun import Torchrun

    if settings.launcher == "local":
        return Torchrun(settings, here)
    if settings.launcher == "hosts" and isinstance(cluster, Hosts):
        return Torchrun(settings, on_hosts(cluster, settings.nodes), beat_seconds=cluster.silence_seconds / 4)
    if settings.launcher == "slurm" and isinstance(cluster, Slurm):
        from l3_platform.launch.slurm import SlurmJob

        return SlurmJob(settings, cluster)
    if settings.launcher == "kubernetes" and isinstance(cluster, Kubernetes):
        from l3_platform.launch.kubernetes import KubernetesJobSet

        return KubernetesJobSet(settings, cluster)
    raise SettingsError(f"setting train.launcher: {settings.launcher!r} needs the section of that name, got {cluster!r}")
