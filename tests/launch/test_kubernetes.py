"""The JobSet as its schema has it, and the client against a simulated kubectl: no cluster was within reach."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from l3_platform.launch import run_training
from l3_platform.launch.interruptions import read_attempts, read_interruptions, recorded
from l3_platform.launch.jobset import manifest
from l3_platform.launch.kubernetes import KubernetesJobSet
from l3_platform.launch.protocol import State, job_name
from l3_platform.settings import Kubernetes, SettingsError, Train
from l3_platform.train import TrainingError, TrainJob, TrainResult

MakeJob = Callable[[Path], TrainJob]
Processes = Callable[..., list[psutil.Process]]
Losses = Callable[[Path], dict[int, float]]

TRAIN = Train(nodes=16, processes_per_node=8, max_restarts=20, shutdown_seconds=600.0, launcher="kubernetes")
WHOLE = Kubernetes(
    image="registry.example/l3:1", claim="l3-home", mount="/l3", namespace="llama", gpus=8, cpus="96", memory="900Gi",
    queue="research", priority_class="high", service_account="trainer", node_selector={"gpu": "h100"},
    tolerate=("nvidia.com/gpu",), environment={"NCCL_DEBUG": "WARN"}, exclusive_topology="rack",
)  # fmt: skip
FOLDER = Path("/l3/checkpoints/pretrained-0123456789abcdef")


@pytest.mark.parametrize("kubernetes", [WHOLE, Kubernetes(image="l3", claim="l3-home", mount="/l3")])
def test_the_manifest_is_what_the_schema_of_a_jobset_allows(kubernetes: Kubernetes) -> None:
    models = pytest.importorskip("kubeflow_trainer_api.models", reason="pip install kubeflow-trainer-api, for the JobSet's schema")
    made: dict[str, Any] = json.loads(json.dumps(manifest(FOLDER, FOLDER / "logs" / "attempt-1", TRAIN, kubernetes)))
    read = models.JobsetV1alpha2JobSet.from_dict(made)
    assert read.to_dict() == made, "a key that the schema does not have is lost in it"


def test_every_pod_is_a_node_of_one_rendezvous(tmp_path: Path) -> None:
    made = manifest(FOLDER, FOLDER / "logs" / "attempt-3", TRAIN, WHOLE)
    job = made["spec"]["replicatedJobs"][0]["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    command, name = container["command"], job_name(FOLDER)
    assert job["completions"] == job["parallelism"] == 16 == int(command[command.index("--nnodes") + 1])
    assert command[command.index("--rdzv-endpoint") + 1] == f"{name}-node-0-0.{name}:29400"
    assert len(f"{name}-node-0-99999") <= 63, "a pod's name is its host name, a DNS label"
    assert {"name": "L3_LOG_DIR", "value": f"{FOLDER}/logs/attempt-3.$(L3_RESTART)"} in container["env"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": ""}, "kubernetes.image: empty"),
        ({"claim": ""}, "kubernetes.claim: empty"),
        ({"mount": "/elsewhere"}, "lies outside /elsewhere"),
    ],
)
def test_what_pods_could_not_run_is_refused_in_words(change: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        manifest(FOLDER, FOLDER / "logs" / "attempt-1", TRAIN, WHOLE.model_copy(update=change))


class Simulated:
    """The folder of the simulated kubectl, and what a cluster would do to a JobSet."""

    def __init__(self, folder: Path, settings: Kubernetes) -> None:
        self.folder, self.settings = folder, settings

    def become(self, folder: Path, **status: Any) -> None:
        path = self.folder / f"{job_name(folder / 'run')}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"status": status}))

    def exists(self, folder: Path) -> bool:
        return (self.folder / f"{job_name(folder / 'run')}.json").exists()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Simulated:
    folder = tmp_path / "kubectl"
    (folder / "bin").mkdir(parents=True)
    tool = folder / "bin" / "kubectl"
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("fake_kubectl.py")} "$@"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_KUBECTL", str(folder))
    settings = Kubernetes(image="none", claim="none", mount=str(tmp_path), poll_seconds=0.1, port=29477)
    return Simulated(folder, settings)


def condition(kind: str, message: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": "True", "message": message}]}


def polled(launcher: KubernetesJobSet) -> tuple[str, str]:
    time.sleep(0.11)
    state = launcher.poll()
    return state.name, state.message


def test_the_states_of_a_jobset_become_ours(make_job: MakeJob, tmp_path: Path, settings: Train, cluster: Simulated) -> None:
    launcher = KubernetesJobSet(settings, cluster.settings)
    launcher.submit(make_job(tmp_path))
    assert polled(launcher) == ("running", "")
    cluster.become(tmp_path, **condition("Suspended", "queued by Kueue"))
    assert polled(launcher)[0] == "running" and "is suspended: queued by Kueue" in launcher.logs()[-1]
    (cluster.folder / "unreachable").touch()
    assert polled(launcher) == ("running", ""), "an API server that does not answer ends nothing"
    (cluster.folder / "unreachable").unlink()
    cluster.become(tmp_path, **condition("Failed", "jobset failed due to reaching max restarts"))
    name, message = polled(launcher)
    assert name == "crashed" and "max restarts" in message
    launcher.cancel()
    assert not cluster.exists(tmp_path)


def test_a_jobset_deleted_by_somebody_stops_in_words(
    make_job: MakeJob, tmp_path: Path, settings: Train, cluster: Simulated
) -> None:
    launcher = KubernetesJobSet(settings, cluster.settings)
    launcher.submit(make_job(tmp_path))
    (cluster.folder / f"{job_name(tmp_path / 'run')}.json").unlink()
    name, message = polled(launcher)
    assert name == "stopped" and "was deleted in Kubernetes; run again to resume" in message


def test_another_client_finds_the_living_jobset_and_replaces_a_dead_one(
    make_job: MakeJob, tmp_path: Path, settings: Train, cluster: Simulated
) -> None:
    job = make_job(tmp_path)
    KubernetesJobSet(settings, cluster.settings).submit(job)
    second = KubernetesJobSet(settings, cluster.settings)
    second.submit(job)
    assert "found JobSet" in second.logs()[0]
    cluster.become(tmp_path, **condition("Failed"))
    third = KubernetesJobSet(settings, cluster.settings)
    third.submit(job)
    assert "created JobSet" in third.logs()[0] and polled(third)[0] == "running"


@pytest.mark.exhaustive
def test_a_jobset_with_a_killed_pod_restarts_and_ends_with_the_same_loss(
    make_job: MakeJob,
    undisturbed: TrainResult,
    tmp_path: Path,
    settings: Train,
    cluster: Simulated,
    processes: Processes,
    losses: Losses,
) -> None:
    (cluster.folder / "run-pods").touch()
    lines: list[str] = []

    def kill_once(line: str) -> None:
        first = not any(seen.startswith("step      50") for seen in lines)
        lines.append(line)
        if first and line.startswith("step      50"):
            processes(tmp_path, "l3_platform.launch.agent")[-1].kill()

    on_kubernetes = settings.model_copy(update={"launcher": "kubernetes"})
    assert run_training(make_job(tmp_path), on_kubernetes, cluster.settings, on_line=kill_once) == undisturbed
    assert any("restarted, 1 times by now" in line for line in lines) and processes(tmp_path) == []
    assert sorted(losses(tmp_path)) == list(range(1, 301))
    assert sorted(path.name for path in (tmp_path / "run" / "logs").iterdir()) == ["attempt-1.0", "attempt-1.1"]
    killed, last = read_attempts(tmp_path / "run")
    assert (killed.outcome, last.outcome) == ("restarted", "finished") and killed.last_step is not None
    (row,) = read_interruptions(tmp_path / "run")
    assert row.restarted == last.started and row.step >= 50


@pytest.mark.exhaustive
def test_a_failure_that_would_repeat_fails_the_set_without_a_restart(
    make_job: MakeJob, tmp_path: Path, settings: Train, cluster: Simulated, processes: Processes
) -> None:
    (cluster.folder / "run-pods").touch()
    on_kubernetes = settings.model_copy(update={"launcher": "kubernetes"})
    diverging = make_job(tmp_path).model_copy(update={"learning_rate": 1e30, "warmup_tokens": 0})
    seen: list[str] = []
    with pytest.raises(TrainingError, match=r"step \d+ .*in a new run$"):
        run_training(diverging, on_kubernetes, cluster.settings, on_line=seen.append)
    assert not any("restarted" in line for line in seen) and any("== pods.log" in line for line in seen)
    assert not cluster.exists(tmp_path) and processes(tmp_path) == []


def test_what_a_person_has_yet_to_correct_is_no_interruption(
    make_job: MakeJob, tmp_path: Path, settings: Train, cluster: Simulated
) -> None:
    """Neither a first attempt that could not start, nor one after a training that was lost, whose pause goes on."""
    job, on_kubernetes = make_job(tmp_path), settings.model_copy(update={"launcher": "kubernetes"})
    without_image = cluster.settings.model_copy(update={"image": ""})
    with pytest.raises(SettingsError, match=r"kubernetes\.image: empty"):
        run_training(job, on_kubernetes, without_image)
    (cluster.folder / "unreachable").touch()
    with pytest.raises(
        TrainingError, match=r"^train.launcher=kubernetes: .*Unable to connect to the server; `kubectl get jobsets`"
    ):
        run_training(job, on_kubernetes, cluster.settings)
    assert read_attempts(job.folder) == [] and read_interruptions(job.folder) == []
    with recorded(job) as outcome:
        outcome.state = State("crashed", "training was lost")
    rows = read_attempts(job.folder), read_interruptions(job.folder)
    with pytest.raises(SettingsError):
        run_training(job, on_kubernetes, without_image)
    assert (read_attempts(job.folder), read_interruptions(job.folder)) == rows and rows[1][0].restarted is None
