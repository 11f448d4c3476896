"""Torchrun agents that this process starts and holds: on this machine, on hosts, or by srun (`places.py`).

Nothing outlives the client: agents stop when their lifeline ends (`agent.py`), ranks get SIGKILL when their agent goes
(`lifeline.py`). torchrun's own restarts are off: with two agents on one host a lost rank did not recover by them,
so the whole job is relaunched.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from l3_platform.launch.attempts import Attempt, read_logs
from l3_platform.launch.causes import refused_by_ssh
from l3_platform.launch.hangs import hung_ranks
from l3_platform.launch.places import Place, Start
from l3_platform.launch.protocol import State
from l3_platform.settings import Train as TrainSettings
from l3_platform.train.job import TrainJob

# What the client grants beyond torchrun's shutdown timeout, which in turn covers a checkpoint: the outer waits longer.
CLIENT_GRACE = 3.0
# Between the first agent's failure and the end of the others, which mostly notice by themselves.
SETTLE = 2.0
# Imports, compilation and the loading of a checkpoint come before the first step, averaging, held-out losses and the export
# after the last: so many times train.stall_seconds.
NOT_STEPPING = 10
EXIT_OF_SSH = 255  # of its own, not of what it runs


class Torchrun:
    """A `Launcher`. `beat_seconds`: how often the agents are told that the client lives; 0: never."""

    def __init__(self, settings: TrainSettings, place: Place, beat_seconds: float = 0.0) -> None:
        self._settings = settings
        self._place = place
        self._beat_seconds = beat_seconds
        self._agents: list[subprocess.Popen[bytes]] = []
        self._names: list[str] = []
        self._ranks: set[psutil.Process] = set()
        self._attempt: Attempt | None = None
        self._failed_at: float | None = None
        self._ended = threading.Event()

    def submit(self, job: TrainJob) -> None:
        self._attempt = Attempt.new(job)
        job_file = Path(job.folder).absolute() / "job.json"
        job.write(job_file)
        self._failed_at, self._ranks, self._agents, self._ended = None, set(), [], threading.Event()
        starts = self._place(self._settings, job_file, self._attempt.path)
        # PR_SET_PDEATHSIG fires when the thread that started a process ends: this one lasts as long as the agents.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="torchrun")
        self._names = [start.name for start in starts]
        for start in starts:
            self._agents.append(self._starter.submit(_started, start, self._attempt.path / f"{start.name}.log").result())
        if self._beat_seconds:
            threading.Thread(target=self._beat, args=(self._agents, self._ended), daemon=True).start()

    def poll(self) -> State:
        codes = [agent.poll() for agent in self._agents]
        if all(code == 0 for code in codes):
            self.cancel()
            return State("finished")
        if not any(codes):
            assert self._attempt is not None
            stalled, limit = self._attempt.stalled_seconds, self._settings.stall_seconds
            if not limit or stalled < limit * (1 if self._attempt.stepping else NOT_STEPPING):
                return State("running")
            self.cancel()
            return State("crashed", f"training stalled: no progress for {stalled:.0f} s (train.stall_seconds)")
        self._failed_at = self._failed_at or time.monotonic()
        if None in codes and time.monotonic() - self._failed_at < SETTLE:
            return State("running")
        self.cancel()
        return self._verdict([agent.returncode for agent in self._agents])

    def cancel(self) -> None:
        self._remember_ranks()
        self._ended.set()
        try:
            for agent in self._agents:
                with contextlib.suppress(OSError):
                    agent.stdin.close()  # type: ignore[union-attr]
            self._wait(self._settings.shutdown_seconds + CLIENT_GRACE)
        finally:  # a second interrupt during the wait must still leave nothing alive
            self._remember_ranks()
            self._kill_agents()
            for rank in self._ranks:
                with contextlib.suppress(psutil.NoSuchProcess):
                    rank.kill()
            for agent in self._agents:
                agent.wait()
            psutil.wait_procs(self._ranks, timeout=5)
            if self._agents:
                self._starter.shutdown()

    def logs(self) -> list[str]:
        return self._attempt.lines() if self._attempt else []

    def tail(self, lines: int = 20) -> str:
        return self._attempt.tail(lines) if self._attempt else ""

    def _verdict(self, codes: list[int]) -> State:
        """Of an attempt that is over: what rank 0 left in words, else that processes hung or were lost."""
        assert self._attempt is not None
        if said := self._attempt.said():
            return said
        if hung := hung_ranks(self._attempt.path):
            return State("crashed", f"training hung ({hung})")
        if EXIT_OF_SSH in codes and (refused := refused_by_ssh(read_logs(self._attempt.path))):
            return State("failed", f"{refused}; correct hosts.names or hosts.command, or ssh's settings, and run again")
        words = [f"{name} ended with {_code(code)}" for name, code in zip(self._names, codes, strict=True) if code]
        return State("crashed", f"training was lost ({', '.join(words)})")

    def _beat(self, agents: list[subprocess.Popen[bytes]], ended: threading.Event) -> None:
        while not ended.wait(self._beat_seconds):
            for agent in agents:
                with contextlib.suppress(OSError, ValueError):  # gone, or closed by now
                    agent.stdin.write(b".")  # type: ignore[union-attr]

    def _remember_ranks(self) -> None:
        for agent in self._agents:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._ranks.update(psutil.Process(agent.pid).children(recursive=True))

    def _kill_agents(self) -> None:
        for agent in self._agents:
            if agent.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(agent.pid, signal.SIGKILL)

    def _wait(self, seconds: float) -> None:
        """Until every agent and rank is gone, at most so long."""
        deadline = time.monotonic() + seconds
        while any(agent.poll() is None for agent in self._agents) or any(map(_alive, self._ranks)):
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)


def _started(start: Start, log: Path) -> subprocess.Popen[bytes]:
    """In a session of its own: a Ctrl-C in the terminal is the client's to act on."""
    with open(log, "ab") as stream:
        return subprocess.Popen(
            start.command, env=os.environ | start.environment, bufsize=0, stdin=subprocess.PIPE, stdout=stream,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _code(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
