"""A real Slurm of two nodes on this machine: munged, slurmctld and two slurmd, with all of their state in one folder."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from filelock import FileLock

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
CONFIGURATION = """
ClusterName=l3
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=15
KillWait=15
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1
SelectType=select/linear
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE GraceTime=20 State=UP
"""


class SlurmCluster:
    """Entering it sets SLURM_CONF for this process and its children; leaving it ends every daemon and step. One at a time on a
    machine: beside another one it waits for its turn."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configuration = folder / "slurm.conf"
        self._turn = FileLock(Path(tempfile.gettempdir()) / "l3-slurm-cluster.lock")

    @staticmethod
    def missing() -> str:
        """Why there can be no cluster here, in words; empty where there can."""
        if os.geteuid() != 0 or sys.platform != "linux":
            return "a Slurm of our own needs root on Linux"
        absent = [daemon for daemon in DAEMONS if not shutil.which(daemon)]
        return f"{', '.join(absent)} not installed: apt-get install slurm-wlm munge" if absent else ""

    def __enter__(self) -> SlurmCluster:
        self._turn.acquire()
        os.environ["SLURM_CONF"] = str(self.configuration)
        munge = self.folder / "munge"
        for name in ("state", "munge"):
            (self.folder / name).mkdir(mode=0o755)
        (munge / "key").write_bytes(secrets.token_bytes(64))
        (munge / "key").chmod(0o400)
        parts = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        run("munged", "--force", *(f"--{option}={munge / name}" for option, name in parts.items()))
        ports = [_free_port() for _ in range(3)]
        self.configuration.write_text(CONFIGURATION.format(host=socket.gethostname(), ports=ports, folder=self.folder))
        try:
            run("slurmctld")
            for node in ("node1", "node2"):
                run("slurmd", "-N", node)
            wait_for(lambda: run("sinfo", "-h", "-N", "-o", "%t").split() == ["idle", "idle"], 60, "two idle nodes")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            run("scancel", "--user=root")
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        del os.environ["SLURM_CONF"]
        self._turn.release()

    def processes(self, node: str = "") -> list[psutil.Process]:
        """Everything that knows of this cluster, or only what runs on a node for a job: steps and what they started."""
        wanted = {"SLURM_CONF": str(self.configuration)} | ({"SLURMD_NODENAME": node} if node else {})
        found = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if wanted.items() <= process.environ().items() and process.pid != os.getpid():
                    found.add(process)
                    parent = process.parent()
                    if node and parent is not None and parent.name() == "slurmstepd":
                        found.add(parent)
        return list(found)

    def kill_node(self, node: str) -> None:
        """As a power cut would: the daemon of the node and everything that runs there."""
        os.kill(int((self.folder / f"slurmd-{node}.pid").read_text()), signal.SIGKILL)
        for process in self.processes(node):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def start_node(self, node: str) -> None:
        run("slurmd", "-N", node)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
