"""Where metrics go: to the server that a setting names, to the home's own, of which there is never a second, or nowhere."""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.definitions import definitions
from l3_platform.orchestration import services
from l3_platform.orchestration.resources import OVERRIDES, TRACKING_URI
from l3_platform.orchestration.services import Service, free_port, known_mlflow, running_mlflow, wait_for_mlflow

SLOW_TO_START = """
import http.server, sys, time

class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

time.sleep(float(sys.argv[2]))
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Healthy).serve_forever()
"""


def slow_server(home: Path, port: int, seconds: float) -> Service:
    command = [sys.executable, "-c", SLOW_TO_START, str(port), str(seconds)]
    return Service("MLflow", command, f"http://127.0.0.1:{port}", "/", home / "server.log")


@pytest.fixture
def slow_start(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Service]]:
    """MLflow's place is taken by a server that answers after two seconds; the list has those that were made."""
    made: list[Service] = []
    monkeypatch.setenv(TRACKING_URI, "")
    monkeypatch.setattr(services, "mlflow_server", lambda home, port: made.append(slow_server(home, port, 2.0)) or made[-1])
    yield made
    for service in made:
        service.stop()


@pytest.mark.parametrize(("given", "address"), [("http://tracking.example:5000", "http://tracking.example:5000"), ("none", "")])
def test_a_server_that_the_settings_name_is_used_and_none_is_started(tmp_path, monkeypatch, given, address):
    monkeypatch.setenv(TRACKING_URI, "http://another.example")
    with running_mlflow(tmp_path, given) as started:
        assert started is None and os.environ[TRACKING_URI] == address
    assert not list(tmp_path.iterdir())


def test_runs_go_to_the_experiment_of_the_settings(monkeypatch):
    monkeypatch.setenv(OVERRIDES, '["mlflow.experiment=ablations"]')
    assert definitions().resources["tracking"].experiment == "ablations"


def test_a_server_that_is_still_starting_is_shared_and_no_second_one_is_started(tmp_path, slow_start):
    with running_mlflow(tmp_path) as first:
        assert first is not None and known_mlflow(tmp_path) == first.url == os.environ[TRACKING_URI]
        with running_mlflow(tmp_path) as second:
            assert second is None and os.environ[TRACKING_URI] == first.url
        assert known_mlflow(tmp_path) == first.url  # who shares it does not end it
    assert known_mlflow(tmp_path) == "" and len(slow_start) == 1 and slow_start[0].ended()


def test_the_homes_own_server_is_waited_for_as_long_as_it_starts(tmp_path, slow_start):
    with running_mlflow(tmp_path) as server:
        assert server is not None and not services.wait_until_up(server.url, 0.1)
        started = time.monotonic()
        wait_for_mlflow(tmp_path, server.url)
        assert time.monotonic() - started < 30 and services.wait_until_up(server.url, 0.1)


def test_nobody_waits_for_a_server_that_has_ended_or_is_another_ones(tmp_path, slow_start):
    with running_mlflow(tmp_path) as server:
        assert server is not None
        started = time.monotonic()
        wait_for_mlflow(tmp_path, f"http://127.0.0.1:{free_port()}")
        server.stop()
        wait_for_mlflow(tmp_path, server.url)
        assert time.monotonic() - started < 15


@pytest.mark.parametrize("note", [{"url": "http://127.0.0.1:1", "pid": os.getpid()}, {"url": "http://127.0.0.1:1"}, "cut sho"])
def test_a_note_that_a_kill_left_is_no_server(tmp_path, note):
    """The number of its process may be another's by now."""
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "server.json").write_text(note if isinstance(note, str) else json.dumps(note))
    assert known_mlflow(tmp_path) == ""


def test_a_guard_that_is_told_to_stop_says_nothing(tmp_path):
    """A thread that reads its standard input must not hold up its end."""
    server = slow_server(tmp_path, free_port(), 0.0)
    server.start()
    server.wait_ready(30.0)
    server.stop()
    assert "Fatal" not in server.log.read_text()
