"""Where the agents of a job are started: here, on hosts by a command such as ssh, or in a Slurm allocation by srun."""

from __future__ import annotations

import os
import shlex
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import l3_platform
from l3_platform.allocator import HUGE_PAGES
from l3_platform.settings import Hosts, SettingsError
from l3_platform.settings import Train as TrainSettings


@dataclass(frozen=True)
class Start:
    """One process of the client that becomes, or stands for, one agent or more. `environment` is beside the client's."""

    name: str
    command: list[str]
    environment: dict[str, str]


Place = Callable[[TrainSettings, Path, Path], list[Start]]  # settings, job file, folder of logs


def here(settings: TrainSettings, job_file: Path, logs: Path) -> list[Start]:
    """As many agents as there are nodes, all on this machine, joined on the loopback."""
    endpoint = f"127.0.0.1:{_free_port()}"
    command = [sys.executable, *agent_command(settings, endpoint, job_file)]
    command[3:3] = ["--local-addr", "127.0.0.1"]
    loopback = "lo" if sys.platform == "linux" else "lo0"
    shared = agent_environment(settings, logs, "0") | {"L3_CLIENT_PID": str(os.getpid()), "GLOO_SOCKET_IFNAME": loopback}
    return [Start(f"agent-{node:05d}", command, shared | {"L3_NODE": str(node)}) for node in range(settings.nodes)]


def on_hosts(hosts: Hosts, nodes: int) -> Place:
    """An agent on each of the first `nodes` hosts. Raises SettingsError where there are too few, or no way to run it there."""
    words = shlex.split(hosts.command)
    if "{command}" not in words:
        raise SettingsError(f"setting hosts.command: {hosts.command!r} has no word {{command}}, which stands for what is to run")
    names = hosts.names[:nodes]
    if len(names) < nodes:
        raise SettingsError(f"setting hosts.names: {len(names)} hosts for train.nodes={nodes}; name as many")

    def place(settings: TrainSettings, job_file: Path, logs: Path) -> list[Start]:
        command = agent_command(settings, f"{hosts.rendezvous or names[0]}:{hosts.port}", job_file)
        shared = agent_environment(settings, logs, str(hosts.silence_seconds)) | {"L3_INTERFACE": hosts.interface}
        starts = []
        for node, name in enumerate(names):
            variables = [f"{key}={value}" for key, value in (shared | {"L3_NODE": str(node)}).items()]
            line = "exec " + shlex.join(["env", *variables, sys.executable, *command])
            there = [line if word == "{command}" else word.replace("{host}", name) for word in words]
            starts.append(Start(f"agent-{node:05d}", there, {}))
        return starts

    return place


def within_slurm(settings: TrainSettings, job_file: Path, logs: Path) -> list[Start]:
    """One srun, called on the first node of an allocation, that starts an agent on every node."""
    port = 20_000 + int(os.environ["SLURM_JOB_ID"]) % 10_000  # jobs that share a node do not meet
    srun = [
        "srun", f"--nodes={settings.nodes}", f"--ntasks={settings.nodes}", "--ntasks-per-node=1",
        "--cpu-bind=none",  # else a task, and all its ranks, may be bound to one core
        "--overlap",  # a step whose node went and came back may count as running for ever
        "--input=all", f"--output={logs}/agent-%5t.log",
        f"--wait={max(1, round(settings.shutdown_seconds))}",  # the others' time once one agent has ended
    ]  # fmt: skip
    command = [*srun, sys.executable, *agent_command(settings, f"{socket.gethostname()}:{port}", job_file)]
    return [Start("srun", command, agent_environment(settings, logs, "0"))]


def agent_command(settings: TrainSettings, endpoint: str, job_file: Path | str) -> list[str]:
    """What Python is to run on each node. torchrun's own restarts are off: the client relaunches the whole job."""
    return [
        "-m", "l3_platform.launch.agent",
        "--nnodes", str(settings.nodes), "--nproc-per-node", str(settings.processes_per_node),
        "--rdzv-backend", "static", "--rdzv-endpoint", endpoint, "--rdzv-id", "l3", "--max-restarts", "0",
        "--shutdown-timeout", str(max(1, round(settings.shutdown_seconds))),
        "-m", "l3_platform.train", "--job", str(job_file),
    ]  # fmt: skip


def agent_environment(settings: TrainSettings, logs: Path, silence: str) -> dict[str, str]:
    root = str(Path(l3_platform.__file__).parents[1])
    return {
        "L3_LIFELINE": silence,
        "L3_SHUTDOWN_SECONDS": str(settings.shutdown_seconds),
        "L3_LOG_DIR": str(logs),
        **rank_environment(settings.threads),
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")])),
    }


def rank_environment(threads: int) -> dict[str, str]:
    """What a training process computes with, wherever it runs."""
    # Of numba's threads those that a rank does not use would spin on the cores of the others.
    return {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads), **HUGE_PAGES}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
