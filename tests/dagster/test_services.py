"""Where metrics go: to the server that a setting names, or nowhere, without one being started."""

import os

import pytest

from jobs.definitions import definitions
from l3_platform.orchestration.resources import OVERRIDES, TRACKING_URI
from l3_platform.orchestration.services import running_mlflow


@pytest.mark.parametrize(("given", "address"), [("http://tracking.example:5000", "http://tracking.example:5000"), ("none", "")])
def test_a_server_that_the_settings_name_is_used_and_none_is_started(tmp_path, monkeypatch, given, address):
    monkeypatch.setenv(TRACKING_URI, "http://another.example")
    with running_mlflow(tmp_path, given) as started:
        assert started is None and os.environ[TRACKING_URI] == address
    assert not list(tmp_path.iterdir())


def test_runs_go_to_the_experiment_of_the_settings(monkeypatch):
    monkeypatch.setenv(OVERRIDES, '["mlflow.experiment=ablations"]')
    assert definitions().resources["tracking"].experiment == "ablations"
