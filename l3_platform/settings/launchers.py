"""Where training runs when not on this machine: the sections that `train.launcher` names."""

from __future__ import annotations

from pydantic import Field

from l3_platform.settings.section import Section


class Hosts(Section):
    """train.launcher=hosts: machines without a scheduler, which see this package and `L3_HOME` under the same paths."""

    names: tuple[str, ...] = Field(default=(), description="train.nodes machines; the first carries the rendezvous")
    command: str = Field(
        default="ssh -o BatchMode=yes -o ServerAliveInterval=15 {host} {command}",
        description="runs `{command}`, one line of shell, on `{host}`, and passes its standard input on",
    )
    rendezvous: str = Field(default="", description="address of the first host as the others reach it; empty: its name")
    port: int = Field(default=29400, description="of the rendezvous")
    interface: str = Field(default="", description="network interface of the collectives, the same on all; empty: theirs to choose")
    silence_seconds: float = Field(default=120.0, gt=0, description="agents that do not hear from the client for so long end")


class Slurm(Section):
    """train.launcher=slurm: what sbatch asks for. `L3_HOME` and this package must be on storage that all nodes see."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    time_limit: str = Field(default="", description="as sbatch takes it, such as 2-00:00:00; empty: the partition's")
    gpus_per_node: int = Field(default=0, ge=0, description="0: none asked for")
    cpus_per_node: int = Field(default=0, ge=0, description="0: none asked for")
    exclusive: bool = Field(default=False, description="whole nodes")
    stop_seconds: int = Field(default=0, ge=0, description="before the time limit, to save and be requeued; 0: as shutdown needs")
    options: tuple[str, ...] = Field(default=(), description="further options of sbatch, such as --reservation=llama")
    setup: tuple[str, ...] = Field(default=(), description="lines of shell before training, such as `module load cuda`")
    poll_seconds: float = Field(default=10.0, gt=0, description="between questions to Slurm's controller")


class Kubernetes(Section):
    """train.launcher=kubernetes: a JobSet (jobset.x-k8s.io), one pod a node, by kubectl."""

    image: str = Field(default="", description="with this package installed; required")
    namespace: str = "default"
    context: str = Field(default="", description="of kubectl's configuration; empty: its current one")
    claim: str = Field(default="", description="PersistentVolumeClaim (ReadWriteMany) that holds L3_HOME; required")
    mount: str = Field(default="", description="where pods mount the claim; empty: at L3_HOME as it is here")
    gpus: int = Field(default=0, ge=0, description="a pod, as nvidia.com/gpu")
    cpus: str = Field(default="", description="requested a pod, such as 64 or 500m")
    memory: str = Field(default="", description="requested a pod and its limit, such as 900Gi")
    shared_memory: str = Field(default="16Gi", description="size of /dev/shm, at most")
    service_account: str = ""
    queue: str = Field(default="", description="Kueue's LocalQueue; empty: no Kueue")
    priority_class: str = ""
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerate: tuple[str, ...] = Field(default=(), description="keys of taints that pods tolerate, such as nvidia.com/gpu")
    environment: dict[str, str] = Field(default_factory=dict, description="variables of every pod, such as NCCL's")
    exclusive_topology: str = Field(default="", description="node label that one JobSet has for itself, such as a rack's")
    port: int = Field(default=29400, description="of the rendezvous")
    poll_seconds: float = Field(default=10.0, gt=0, description="between questions to the API server")
