"""The record of a run, and its mirror in MLflow."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from l3_platform.train import mlflow_client
from l3_platform.train.job import write_text
from l3_platform.train.metrics import FILE, Metrics, read


def rows(first: int, last: int) -> list[dict[str, float]]:
    return [{"step": step, "tokens": step * 10, "loss": 5.0 / step} for step in range(first, last + 1)]


def write(folder: Path, steps: list[dict[str, float]], resumed: int = 0, uri: str = "", run_id: str = "") -> None:
    metrics = Metrics(folder, resumed, uri, run_id)
    for row in steps:
        metrics.log(row)
    metrics.flush()
    metrics.close({"held_out_loss/web": 1.5}, patience=30.0)


def test_a_resumed_run_drops_the_steps_past_its_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, rows(1, 7))
    write(tmp_path, rows(5, 9), resumed=4)
    assert read(tmp_path) == rows(1, 9)


def test_a_line_that_a_crash_cut_short_is_dropped(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("".join(json.dumps(row) + "\n" for row in rows(1, 3)) + '{"step": 4, "lo')
    write(tmp_path, rows(4, 5), resumed=3)
    assert read(tmp_path) == rows(1, 5)


def test_without_an_address_mlflow_is_not_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from l3_platform.train.metrics import Metrics; m = Metrics(sys.argv[1], 0); "
        "m.log({'step': 1}); m.close(); assert 'mlflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_a_tracking_server_that_is_away_costs_a_step_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{probe.getsockname()[1]}"
    metrics = Metrics(tmp_path, 0, uri, "run")
    slowest = 0.0
    for row in rows(1, 200):
        began = time.monotonic()
        metrics.log(row)
        metrics.flush()
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.005)
    metrics.close(patience=1.0)
    assert read(tmp_path) == rows(1, 200) and slowest < 1.0
    assert "they are in" in caplog.text


@pytest.fixture(params=["server", "database"])
def tracking_uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "database":
        yield f"sqlite:///{tmp_path}/mlflow.db"
        return
    from l3_platform.orchestration.services import running_mlflow

    with running_mlflow(tmp_path / "home") as server:
        assert server is not None
        server.wait_ready()
        yield server.url


@pytest.mark.slow
def test_mlflow_gets_each_step_once_whatever_was_interrupted(tmp_path: Path, tracking_uri: str) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri)
    run_id = client.create_run(client.create_experiment("test")).info.run_id
    broken = [{**row, "grad_norm": number} for row, number in zip(rows(1, 2), (float("nan"), float("inf")), strict=True)]
    write(tmp_path, [*broken, *rows(3, 7)], uri=tracking_uri, run_id=run_id)
    write(tmp_path, rows(5, 9), resumed=4, uri=tracking_uri, run_id=run_id)
    history = client.get_metric_history(run_id, "loss")
    assert sorted((metric.step, metric.value) for metric in history) == [(row["step"], row["loss"]) for row in rows(1, 9)]
    assert client.get_run(run_id).data.metrics["held_out_loss/web"] == 1.5
    assert [metric.step for metric in client.get_metric_history(run_id, "grad_norm")] == [1, 2]


@pytest.fixture
def asked_of_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Addresses for which MLflow's own client is taken, at a home without credentials."""
    asked: list[str] = []
    monkeypatch.setattr(mlflow_client, "Library", lambda uri: asked.append(uri))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("MLFLOW_") or name == "NETRC"]:
        monkeypatch.delenv(name)
    return asked


@pytest.mark.parametrize(
    "uri", ["sqlite:///mlflow.db", "databricks", "http://user:word@tracking.example", "https://tracking.example"]
)
def test_mlflows_own_client_is_asked_where_an_address_is_not_enough(uri: str, asked_of_library: list[str]) -> None:
    mlflow_client.client_for(uri)
    assert asked_of_library == [uri]


@pytest.mark.parametrize("more", ["", "MLFLOW_TRACKING_TOKEN", "MLFLOW_WORKSPACE", ".mlflow/credentials", ".netrc"])
def test_credentials_are_left_to_mlflows_own_client(
    more: str, asked_of_library: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if more.isupper():
        monkeypatch.setenv(more, "secret")
    elif more:
        write_text(tmp_path / more, "secret")
    mlflow_client.client_for("http://127.0.0.1:1")
    assert asked_of_library == (["http://127.0.0.1:1"] if more else [])


def test_a_server_that_refuses_is_quoted(tmp_path: Path) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(400)
            self.end_headers()
            self.wfile.write(b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "no such run"}')

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(OSError, match=r"400.*no such run"):
            mlflow_client.Http(f"http://127.0.0.1:{server.server_port}").log("run", [("loss", 1.0, 1)])
