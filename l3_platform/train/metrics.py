"""Metrics of a run: `metrics.jsonl` in its folder is the record, MLflow a mirror that may fall behind or be away.

The mirror's thread reads the record, so an outage costs nothing: no queue grows, no step waits, and what was missed is
sent when the server is back or the run is resumed. What speaks to MLflow is imported only in that thread, and only with an address.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from l3_platform.train.job import write_text

if TYPE_CHECKING:
    from l3_platform.train.mlflow_client import Client, Value

log = logging.getLogger(__name__)

FILE = "metrics.jsonl"
_NO_METRIC = ("step", "time")
Row = dict[str, float]


class Metrics:
    """Rank 0's. Rows past `resumed_step` are dropped first, so that no step appears twice."""

    def __init__(self, folder: str | Path, resumed_step: int, tracking_uri: str = "", run_id: str = "") -> None:
        path = Path(folder) / FILE
        kept = [row for row in read(folder) if row["step"] <= resumed_step]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - held for the life of the run
        self._mirror = Mirror(path, tracking_uri, run_id) if tracking_uri and run_id else None
        if self._mirror:
            self._mirror.start()

    def log(self, row: Row) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def flush(self) -> None:
        """The record to disk; the mirror is asked to catch up, and not waited for."""
        os.fsync(self._file.fileno())
        if self._mirror:
            self._mirror.kick()

    def close(self, final: Row | None = None, patience: float = 10.0) -> None:
        """`final` goes to MLflow alone, at the last step; a server that is away is given up after `patience` s."""
        self._file.close()
        if self._mirror:
            self._mirror.finish(final or {}, patience)


def read(folder: str | Path) -> list[Row]:
    """The rows of a run, in order; a line that a crash cut short is left out."""
    path = Path(folder) / FILE
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            log.warning("%s: a line was cut short and is left out", path)
    return rows


def values_of(row: Row) -> list[Value]:
    """What MLflow gets of a row."""
    return [(name, value, int(row["step"])) for name, value in row.items() if name not in _NO_METRIC]


class Mirror(threading.Thread):
    """Sends new lines of the record to an MLflow run, in batches, until told to finish."""

    SECONDS = 10.0  # between calls, 16 ms of the server each: on a laptop it shares the trainers' cores

    def __init__(self, path: Path, tracking_uri: str, run_id: str) -> None:
        super().__init__(name="mlflow mirror", daemon=True)
        self._path, self._uri, self._run_id = path, tracking_uri, run_id
        self._wake, self._done = threading.Event(), threading.Event()
        self._final: Row | None = None
        self._deadline = float("inf")
        self._offset = 0

    def kick(self) -> None:
        self._wake.set()

    def finish(self, final: Row, patience: float) -> None:
        self._deadline = time.monotonic() + patience
        self._final = final
        self._wake.set()
        if not self._done.wait(patience):
            log.warning(
                "MLflow at %s did not take the last metrics within %g s; they are in %s",
                self._uri,
                patience,
                self._path,
            )

    def run(self) -> None:
        pause, client, sent_step, away = 1.0, None, -1, False  # a first look soon
        while True:
            self._wake.wait(pause)
            self._wake.clear()
            final = self._final  # read before the record: what was written before `finish` is then in it
            try:
                if client is None:
                    from l3_platform.train.mlflow_client import client_for

                    client = client_for(self._uri)
                    sent_step = client.last_step(self._run_id)  # of what an earlier attempt has sent
                sent_step = self._send_new(client, sent_step)
                if final is not None:
                    client.log(self._run_id, [(name, value, int(sent_step)) for name, value in sorted(final.items())])
                    break
                pause, away = self.SECONDS, False
            except Exception as error:  # whatever a tracking server does, training goes on
                if not away:
                    log.warning("MLflow at %s is away (%s); training goes on and metrics will follow", self._uri, error)
                away = True
                pause = min(30.0, pause * 2) if final is None else 0.5
                if time.monotonic() > self._deadline:
                    return
        self._done.set()

    def _send_new(self, client: Client, sent_step: int) -> int:
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            lines = file.read().splitlines(keepends=True)
        lines = [line for line in lines if line.endswith(b"\n")]
        rows = [row for row in map(json.loads, lines) if row["step"] > sent_step]
        client.log(self._run_id, [value for row in rows for value in values_of(row)])
        self._offset += sum(map(len, lines))
        return max([sent_step, *(int(row["step"]) for row in rows)])
