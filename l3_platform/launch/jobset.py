"""The JobSet (jobset.x-k8s.io/v1alpha2) of a training job: one Indexed Job, a pod a node, joined through a headless service.

Any lost pod restarts the whole set, after all old pods are gone (BlockingRecreate), so two never train in one folder. A
failure that would repeat has an exit code of its own and fails the set at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

from l3_platform.launch.agent import EXIT_FAILED
from l3_platform.launch.places import agent_command, rank_environment
from l3_platform.launch.protocol import job_name
from l3_platform.launch.torchrun import CLIENT_GRACE
from l3_platform.settings import Kubernetes, SettingsError, home
from l3_platform.settings import Train as TrainSettings


class Metadata(TypedDict):
    name: str
    namespace: str
    labels: dict[str, str]
    annotations: dict[str, str]


class Manifest(TypedDict):
    apiVersion: str
    kind: str
    metadata: Metadata
    spec: dict[str, Any]


ROLE = "node"  # the replicated job; its pods are NAME-node-0-INDEX
RESTART = "jobset.sigs.k8s.io/restart-attempt"
DAY = 86_400


def manifest(folder: Path, logs: Path, settings: TrainSettings, kubernetes: Kubernetes) -> Manifest:
    """Of the job in `folder`; `logs` is the folder of this submission, to which restarts add their number.

    Raises SettingsError where the image or the claim is not named, or the folder lies outside the claim.
    """
    for key in ("image", "claim"):
        if not getattr(kubernetes, key):
            raise SettingsError(f"setting kubernetes.{key}: empty; train.launcher=kubernetes needs it")
    mount = Path(kubernetes.mount or home())
    if not folder.is_relative_to(mount):
        raise SettingsError(f"setting kubernetes.mount: {folder} lies outside {mount}, so pods could not see it")
    name = job_name(folder)
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": round(settings.shutdown_seconds + CLIENT_GRACE),
        "nodeSelector": kubernetes.node_selector,
        "tolerations": [{"key": key, "operator": "Exists"} for key in kubernetes.tolerate],
        "serviceAccountName": kubernetes.service_account,
        "priorityClassName": kubernetes.priority_class,
        "containers": [_container(name, folder, logs, settings, kubernetes, mount)],
        "volumes": [
            {"name": "home", "persistentVolumeClaim": {"claimName": kubernetes.claim}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": kubernetes.shared_memory}},
        ],
    }
    job = {
        "completionMode": "Indexed",
        "completions": settings.nodes,
        "parallelism": settings.nodes,
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [{"action": "FailJob", "onExitCodes": {"containerName": "agent", "operator": "In", "values": [EXIT_FAILED]}}]
        },
        "template": {"spec": {key: value for key, value in pod.items() if value}},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": name,
            "namespace": kubernetes.namespace,
            "labels": {"kueue.x-k8s.io/queue-name": kubernetes.queue} if kubernetes.queue else {},
            "annotations": {
                "l3.folder": str(folder),
                **(
                    {"alpha.jobset.sigs.k8s.io/exclusive-topology": kubernetes.exclusive_topology}
                    if kubernetes.exclusive_topology
                    else {}
                ),
            },
        },
        "spec": {
            "failurePolicy": {
                "maxRestarts": settings.max_restarts,
                "restartStrategy": "BlockingRecreate",
                "rules": [{"name": "wouldFailAgain", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
            },
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "ttlSecondsAfterFinished": DAY,
            "replicatedJobs": [{"name": ROLE, "replicas": 1, "template": {"spec": job}}],
        },
    }


def _container(name: str, folder: Path, logs: Path, settings: TrainSettings, kubernetes: Kubernetes, mount: Path) -> dict[str, Any]:
    endpoint = f"{name}-{ROLE}-0-0.{name}:{kubernetes.port}"
    requests = {"cpu": kubernetes.cpus, "memory": kubernetes.memory, "nvidia.com/gpu": str(kubernetes.gpus or "")}
    limits = {key: value for key, value in requests.items() if key != "cpu"}
    variables = {
        "L3_HOME": str(home()),
        "L3_LOG_DIR": f"{logs}.$(L3_RESTART)",
        "L3_WORD_SECONDS": "5",
        **rank_environment(settings.threads),
        **kubernetes.environment,
    }
    return {
        "name": "agent",
        "image": kubernetes.image,
        "command": ["python", *agent_command(settings, endpoint, folder / "job.json")],
        "env": [
            {"name": "L3_RESTART", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{RESTART}']"}}},
            *({"name": key, "value": value} for key, value in variables.items()),
        ],
        "ports": [{"containerPort": kubernetes.port, "name": "rendezvous", "protocol": "TCP"}],
        "resources": {
            "requests": {key: value for key, value in requests.items() if value},
            "limits": {key: value for key, value in limits.items() if value},
        },
        "volumeMounts": [
            {"name": "home", "mountPath": str(mount)},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
        ],
    }
