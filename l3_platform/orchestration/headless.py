"""The rebuild job run from a terminal, and the servers of `l3 up`."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from l3_platform.crawl import sources
from l3_platform.engine.progress import speak
from l3_platform.orchestration import code_location, services
from l3_platform.orchestration.instance import (
    HEADLESS_TAG,
    fail_runs_of_dead_processes,
    headless_tag,
    prepare_home,
    register_snapshots,
    spanning,
)
from l3_platform.orchestration.resources import OVERRIDES, PROFILE, WEB_URL
from l3_platform.settings import Settings, SettingsError, load


@dataclass(frozen=True)
class Outcome:
    success: bool
    run_id: str
    errors: Sequence[str] = ()


def run(profile: str, overrides: Sequence[str], select: str = "*") -> Outcome:
    """Run the job `rebuild` in this process, over all snapshots of the source, with an MLflow server beside it."""
    settings, root = _prepare(profile, overrides)
    snapshots = sources.from_settings(settings.crawl).snapshots()
    signal.signal(signal.SIGTERM, _interrupt)
    if settings.mlflow.tracking_uri:
        os.environ["MLFLOW_TRACKING_URI"] = settings.mlflow.tracking_uri
        return _execute(snapshots, select)
    with services.running_mlflow(root):  # it starts while the first stages run; Tracking waits for it when it is needed
        return _execute(snapshots, select)


def _prepare(profile: str, overrides: Sequence[str]) -> tuple[Settings, Path]:
    settings = load(profile, overrides)
    root = prepare_home()
    os.environ[PROFILE], os.environ[OVERRIDES] = profile, json.dumps(list(overrides))
    return settings, root


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _execute(snapshots: Sequence[str], select: str) -> Outcome:
    import dagster as dg

    speak()
    definitions = code_location.definitions()
    with dg.DagsterInstance.get() as instance:
        fail_runs_of_dead_processes(instance)
        register_snapshots(instance, snapshots)
        job = definitions.resolve_job_def("rebuild")
        result = job.execute_in_process(
            instance=instance,
            tags={**spanning(snapshots), HEADLESS_TAG: headless_tag()},
            asset_selection=_selected(definitions, select),
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )
        return Outcome(result.success, result.run_id, _errors(result))


def _selected(definitions: Any, select: str) -> list[Any] | None:
    """Asset keys of a selection such as `group:mix` or `*annealed,evaluation`. Raises SettingsError."""
    import dagster as dg

    if select == "*":
        return None
    graph = definitions.resolve_asset_graph()
    try:
        chosen = [dg.AssetSelection.from_string(part.strip()).resolve(graph) for part in select.split(",")]
    except dg.DagsterError as error:
        raise SettingsError(f"--select {select!r}: {error}; give asset names, *name for all before it, or group:name") from None
    return sorted(set().union(*chosen))


def _errors(result: Any) -> list[str]:
    """One line a failed step: what our own code raised, in its own words."""
    lines = []
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            raised = error.cause or error  # Dagster wraps it once
            lines.append(f"{event.step_key}: {raised.message.strip()}")
    return lines


def serve(profile: str, overrides: Sequence[str], port: int, mlflow_port: int) -> None:
    """Dagster's UI and MLflow, until SIGINT or SIGTERM; leaves no process behind."""
    import dagster as dg

    settings, root = _prepare(profile, overrides)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with dg.DagsterInstance.get() as instance:
        fail_runs_of_dead_processes(instance)
        register_snapshots(instance, sources.from_settings(settings.crawl).snapshots())
    os.environ[WEB_URL] = f"http://127.0.0.1:{port}"
    services.refuse_used_port("Dagster", port)
    with services.running_mlflow(root, mlflow_port) as mlflow:
        web = services.dagster_web(root, code_location.workspace(), port)
        web.start()
        try:
            for service in (mlflow, web):
                if service is not None and not stop.is_set():
                    service.wait_ready()
            print(f"Dagster  {web.url}\nMLflow   {os.environ['MLFLOW_TRACKING_URI']}\nCtrl-C ends both.", flush=True)
            while not stop.wait(1.0):
                if web.ended():
                    raise services.ServiceError(f"Dagster ended; see {web.log}")
        finally:
            started = time.monotonic()
            web.stop()
            print(f"stopped in {time.monotonic() - started:.0f} s", flush=True)
