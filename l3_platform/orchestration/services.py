"""Servers that the command line starts on 127.0.0.1 and always ends: MLflow's and Dagster's."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from l3_platform.store import files
from l3_platform.store.lock import Lock

GUARD = "l3_platform.orchestration.guard"
STARTING_SECONDS = 180.0  # ten core seconds on an idle machine, and machines are not idle
NO_MLFLOW = "none"  # as mlflow.tracking_uri: nothing is tracked


class ServiceError(RuntimeError):
    """A server did not start; the message says why and what to do."""


@dataclass
class Service:
    """A server under a guard, so that neither `stop` nor our own death leaves a process of it alive."""

    name: str
    command: list[str]
    url: str
    health: str
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    polite: signal.Signals = signal.SIGTERM  # the request to stop that the server understands
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        port = int(self.url.rsplit(":", 1)[1])
        refuse_used_port(self.name, port)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", GUARD, self.polite.name, *self.command],
                stdin=subprocess.PIPE,  # its end, should we be killed, ends the server
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone; we end the others in order
                env=os.environ | dict(self.environment),
            )

    def wait_ready(self, seconds: float = STARTING_SECONDS) -> None:
        """Raises ServiceError when the server ends or does not answer in time."""
        if wait_until_up(self.url + self.health, seconds, unless=self.ended):
            return
        if self.ended():
            raise ServiceError(f"{self.name} ended while starting; the end of {self.log}:\n{_tail(self.log)}")
        raise ServiceError(f"{self.name} did not answer on {self.url} within {seconds:.0f} s; see {self.log}")

    @property
    def pid(self) -> int:
        """Of the guard, which ends with the server."""
        assert self.process is not None
        return self.process.pid

    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None


def wait_until_up(address: str, seconds: float, unless: Callable[[], bool] = lambda: False) -> bool:
    """Whether something answers there within the time; gives up at once when `unless` turns true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not unless():
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(address, timeout=2).read()
            return True
        time.sleep(0.2)
    return False


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def refuse_used_port(name: str, port: int) -> None:
    """Raises ServiceError, naming who listens, when the port is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            option = "--mlflow-port" if name == "MLflow" else "--port"
            raise ServiceError(
                f"{name}: port {port} on 127.0.0.1 is in use{_listener(port)}; stop that, or choose another with {option}"
            ) from None


def _listener(port: int) -> str:
    with contextlib.suppress(psutil.AccessDenied):
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def mlflow_server(home: Path, port: int) -> Service:
    """The tracking server; it alone owns its database (several openers of a fresh one break it for good)."""
    folder = home / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
        *("--artifacts-destination", (folder / "artifacts").as_uri()),
    ]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    environment = quiet | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # its job workers are for GenAI evaluation
    return Service("MLflow", command, f"http://127.0.0.1:{port}", "/health", folder / "server.log", environment)


def dagster_web(home: Path, workspace: Path, port: int) -> Service:
    """`dg dev`: web server, daemon and code location."""
    command = [
        *(str(Path(sys.executable).with_name("dg")), "dev", "-w", str(workspace)),
        *("--host", "127.0.0.1", "--port", str(port), "--no-check-yaml"),
    ]
    return Service(
        "Dagster", command, f"http://127.0.0.1:{port}", "/server_info", home / "dagster" / "server.log", polite=signal.SIGINT
    )


@contextlib.contextmanager
def running_mlflow(home: Path, given: str = "", port: int = 0) -> Iterator[Service | None]:
    """The MLflow server for as long as the block runs, its address in the environment: that of the setting `given`, or the home's.

    The home's is started here (what is yielded) where none is up or starting; its address stands in `mlflow/server.json`
    meanwhile. Returns before the server answers: use `wait_ready`, or `wait_for_mlflow` in another process.
    """
    note = home / "mlflow" / "server.json"
    service = None
    if not given:
        with Lock(str(note.with_name("start.lock")), owner="who starts MLflow", wait_seconds=30.0):
            if not (given := known_mlflow(home)):
                service = mlflow_server(home, port or free_port())
                service.start()
                given = service.url
                files.write(str(note), json.dumps({"url": given, "pid": service.pid}).encode())
    os.environ["MLFLOW_TRACKING_URI"] = "" if given == NO_MLFLOW else given
    try:
        yield service
    finally:
        if service is not None:
            note.unlink(missing_ok=True)
            service.stop()


def known_mlflow(home: Path) -> str:
    """The address of this home's server, up or still starting; else empty. Two servers on one fresh database would break it."""
    try:
        note = json.loads((home / "mlflow" / "server.json").read_text())
        return note["url"] if GUARD in psutil.Process(note["pid"]).cmdline() else ""
    except (OSError, ValueError, KeyError, psutil.Error):
        return ""


def wait_for_mlflow(home: Path, url: str) -> None:
    """Until the server at `url` answers, where it is this home's and still starting; any other is not waited for."""
    wait_until_up(url + "/health", STARTING_SECONDS, unless=lambda: known_mlflow(home) != url)
