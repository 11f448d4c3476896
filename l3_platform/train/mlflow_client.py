"""What a trainer asks of an MLflow server: how far a run is logged, and to log more of it.

Over plain HTTP where that is enough (MLflow's REST API, version 2.0), since the import of MLflow's own client takes a trainer
over a second. Whatever needs more than an address is left to that client: credentials, TLS, a workspace, a plugin, a database.
"""

from __future__ import annotations

import json
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

TIMEOUT = 5.0  # seconds
_HEADERS = "mlflow.request_header_provider"  # entry points of plugins
BATCH = 1000  # MLflow's limit of metrics a call

Value = tuple[str, float, int]  # name, value, step


class Client(Protocol):
    def last_step(self, run_id: str) -> int:
        """The last step at which the run has a loss; -1: none."""
        ...

    def log(self, run_id: str, values: list[Value]) -> None:
        """Raises where the server is away or refuses them; what came before is then logged."""
        ...


def client_for(uri: str) -> Client:
    return Http(uri) if _needs_only_an_address(uri) else Library(uri)


def _needs_only_an_address(uri: str) -> bool:
    parts = urlsplit(uri)
    if parts.scheme != "http" or "@" in parts.netloc:
        return False
    asks_for_more = any(
        name.startswith(("MLFLOW_TRACKING_", "MLFLOW_WORKSPACE")) for name in os.environ.keys() - {"MLFLOW_TRACKING_URI"}
    )
    files = ("~/.mlflow/credentials", "~/.netrc", os.environ.get("NETRC", "~/.netrc"))
    return not (asks_for_more or any(map(os.path.exists, map(os.path.expanduser, files))) or entry_points(group=_HEADERS))


class Http:
    def __init__(self, uri: str) -> None:
        self._api = f"{uri.rstrip('/')}/api/2.0/mlflow/runs"

    def last_step(self, run_id: str) -> int:
        run = _answer(f"{self._api}/get?{urlencode({'run_id': run_id})}")["run"]
        return max((int(metric["step"]) for metric in run["data"].get("metrics", []) if metric["key"] == "loss"), default=-1)

    def log(self, run_id: str, values: list[Value]) -> None:
        now = int(time.time() * 1000)
        for batch in _batches(values):
            metrics = [{"key": name, "value": _number(value), "timestamp": now, "step": step} for name, value, step in batch]
            _answer(f"{self._api}/log-batch", {"run_id": run_id, "metrics": metrics})


def _answer(address: str, body: Any = None) -> Any:
    """JSON to JSON; a POST where there is a body. Raises OSError with what the server says."""
    data = None if body is None else json.dumps(body, allow_nan=False).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            raise OSError(f"{error}: {error.read(500).decode(errors='replace')}") from None
    except ValueError:
        raise OSError(f"what answers at {address} is no MLflow server") from None


def _number(value: float) -> float | str:
    """As protobuf writes it in JSON, which itself has no NaN and no infinity."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


class Library:
    def __init__(self, uri: str) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", f"{TIMEOUT:.0f}")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=uri)

    def last_step(self, run_id: str) -> int:
        return max((metric.step for metric in self._client.get_metric_history(run_id, "loss")), default=-1)

    def log(self, run_id: str, values: list[Value]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for batch in _batches(values):
            self._client.log_batch(
                run_id, metrics=[Metric(name, value, now, step) for name, value, step in batch], synchronous=True
            )


def _batches(values: list[Value]) -> Iterator[list[Value]]:
    for start in range(0, len(values), BATCH):
        yield values[start : start + BATCH]
