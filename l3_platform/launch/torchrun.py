"""Torchrun on this machine: so many agents, as if each were a node, joined by a c10d rendezvous on the loopback.

Each agent leads a session of its own. Nothing outlives the client: agents get SIGTERM when it goes (`agent.py`), ranks
SIGKILL when their agent goes (`train/lifeline.py`). torchrun's own restarts are off: with two agents on one host a lost
rank did not recover by them, so the whole job is relaunched by the client.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

import l3_platform
from l3_platform.launch.hangs import hung_ranks
from l3_platform.launch.protocol import State
from l3_platform.settings import Train as TrainSettings
from l3_platform.train.job import TrainJob

# What the client grants beyond torchrun's shutdown timeout, which in turn covers a checkpoint: the outer waits longer.
CLIENT_GRACE = 3.0
# Between the first agent's failure and the end of the others, which mostly notice by themselves.
SETTLE = 2.0


class LocalTorchrun:
    """A `Launcher`. One attempt at a time; logs go to `logs/attempt-3/` in the job's folder."""

    def __init__(self, settings: TrainSettings) -> None:
        self._settings = settings
        self._agents: list[subprocess.Popen[bytes]] = []
        self._ranks: set[psutil.Process] = set()
        self._watch = -1
        self._logs = Path()
        self._read = 0
        self._failed_at: float | None = None

    def submit(self, job: TrainJob) -> None:
        folder = Path(job.folder)
        attempts = [int(path.name.rpartition("-")[2]) for path in folder.glob("logs/attempt-*")]
        self._logs = folder / "logs" / f"attempt-{max(attempts, default=0) + 1}"
        self._logs.mkdir(parents=True)
        job.write(folder / "job.json")
        self._read, self._failed_at, self._ranks, self._agents = 0, None, set(), []
        port = _free_port()
        inner, self._watch = os.pipe()
        # PR_SET_PDEATHSIG fires when the thread that started a process ends: this one lasts as long as the agents.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="torchrun")
        try:
            for node in range(self._settings.nodes):
                self._agents.append(self._starter.submit(self._start, node, port, folder / "job.json", inner).result())
        finally:
            os.close(inner)

    def poll(self) -> State:
        codes = [agent.poll() for agent in self._agents]
        if all(code == 0 for code in codes):
            self.cancel()
            return State("finished")
        if not any(codes):
            return State("running")
        self._failed_at = self._failed_at or time.monotonic()
        if None in codes and time.monotonic() - self._failed_at < SETTLE:
            return State("running")
        self.cancel()
        return self._verdict([agent.returncode for agent in self._agents])

    def cancel(self) -> None:
        self._remember_ranks()
        try:
            self._signal_agents(signal.SIGTERM)
            self._wait(self._settings.shutdown_seconds + CLIENT_GRACE)
        finally:  # a second interrupt during the wait must still leave nothing alive
            self._remember_ranks()
            self._signal_agents(signal.SIGKILL)
            for rank in self._ranks:
                with contextlib.suppress(psutil.NoSuchProcess):
                    rank.kill()
            for agent in self._agents:
                agent.wait()
            psutil.wait_procs(self._ranks, timeout=5)
            if self._watch >= 0:
                os.close(self._watch)
                self._watch = -1
                self._starter.shutdown()

    def logs(self) -> list[str]:
        path = self._logs / "rank-00000.log"
        if not path.exists():
            return []
        with open(path, "rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole.decode(errors="replace").splitlines()

    def tail(self, lines: int = 20) -> str:
        parts = []
        for path in sorted(self._logs.glob("*.log")):
            last = path.read_text(errors="replace").splitlines()[-lines:]
            parts.append("\n".join([f"== {path.name} of {self._logs.name}", *last]))
        return "\n".join(parts)

    def _start(self, node: int, port: int, job_file: Path, watch: int) -> subprocess.Popen[bytes]:
        settings = self._settings
        command = [
            sys.executable, "-m", "l3_platform.launch.agent",
            "--nnodes", str(settings.nodes), "--nproc-per-node", str(settings.processes_per_node),
            "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "l3",
            "--local-addr", "127.0.0.1", "--max-restarts", "0",
            "--shutdown-timeout", str(max(1, round(settings.shutdown_seconds))),
            "-m", "l3_platform.train", "--job", str(job_file),
        ]  # fmt: skip
        root = str(Path(l3_platform.__file__).parents[1])
        environment = os.environ | {
            "L3_CLIENT_PID": str(os.getpid()),
            "L3_WATCH_FD": str(watch),
            "L3_SHUTDOWN_SECONDS": str(settings.shutdown_seconds),
            "L3_LOG_DIR": str(self._logs.absolute()),
            "L3_NODE": str(node),
            "OMP_NUM_THREADS": str(settings.threads),
            "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
            "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")])),
        }
        with open(self._logs / f"agent-{node:05d}.log", "ab") as log:
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                pass_fds=(watch,), start_new_session=True,
            )  # fmt: skip

    def _verdict(self, codes: list[int]) -> State:
        """Of an attempt that is over: what rank 0 left in words, else that processes were lost."""
        status = self._logs / "status.json"
        if status.exists():
            said = json.loads(status.read_text())
            return State(said["state"], said["message"])
        words = [f"agent {node} ended with {_code(code)}" for node, code in enumerate(codes) if code]
        if hung := hung_ranks(self._logs):
            return State("crashed", f"training hung ({hung})")
        return State("crashed", f"training was lost ({', '.join(words)})")

    def _remember_ranks(self) -> None:
        for agent in self._agents:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._ranks.update(psutil.Process(agent.pid).children(recursive=True))

    def _signal_agents(self, number: signal.Signals) -> None:
        for agent in self._agents:
            if agent.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(agent.pid, number)

    def _wait(self, seconds: float) -> None:
        """Until every agent and rank is gone, at most so long."""
        deadline = time.monotonic() + seconds
        while any(agent.poll() is None for agent in self._agents) or any(map(_alive, self._ranks)):
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _code(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
