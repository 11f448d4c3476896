"""The rebuild job run from a terminal, and the servers of `l3 up`."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from l3_platform.crawl import sources
from l3_platform.engine.backend import leave_pandas_out
from l3_platform.engine.progress import speak
from l3_platform.orchestration import code_location, history, services
from l3_platform.orchestration.instance import (
    HEADLESS_TAG,
    headless_tag,
    prepare_home,
    register,
    settle_dead_runs,
    spanning,
    up_lock,
)
from l3_platform.orchestration.resources import OVERRIDES, PROFILE, WEB_URL
from l3_platform.settings import Settings, SettingsError, load, nearest
from l3_platform.store.files import AFTER_FULL, DISK_IS_FULL
from l3_platform.trained import ASSETS as TRAININGS

JOBS = {"rebuild": "snapshots", "judge_candidates": "candidate_sets"}  # in order, each with its kind of partition
SETTING = re.compile(rf"\b({'|'.join(Settings.model_fields)})\.[a-z]\w*")


@dataclass(frozen=True)
class Outcome:
    success: bool
    run_id: str
    errors: Sequence[str] = ()


def run(profile: str, overrides: Sequence[str], select: str = "*") -> Outcome:
    """Run the job `rebuild` in this process, over all snapshots of the source, then `judge_candidates` over all candidate sets; an
    MLflow server beside them where one is needed."""
    settings, root = _prepare(profile, overrides)
    partitions = {
        "snapshots": sources.from_settings(settings.crawl).snapshots(),
        "candidate_sets": list(settings.data_value.candidates),
    }
    signal.signal(signal.SIGTERM, _interrupt)
    definitions = code_location.definitions()
    selected = _selected(definitions, select)
    _refuse_wrong_mesh(selected, settings)
    _refuse_without_candidates(definitions, selected or [], settings)
    if not _any_tracked(definitions, selected):
        return _execute(definitions, partitions, selected)
    with services.running_mlflow(
        root, settings.mlflow.tracking_uri
    ):  # it starts while the first stages run; Tracking waits for it when it is needed
        code_location.definitions.cache_clear()  # resources read the environment, which names the server only now
        return _execute(code_location.definitions(), partitions, selected)


def _prepare(profile: str, overrides: Sequence[str]) -> tuple[Settings, Path]:
    settings = load(profile, overrides)
    root = prepare_home()
    os.environ[PROFILE], os.environ[OVERRIDES] = profile, json.dumps(list(overrides))
    return settings, root


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _execute(definitions: Any, partitions: Mapping[str, Sequence[str]], selected: list[Any] | None) -> Outcome:
    """Each job over its kind of partition, as far as something of it is selected; the first that fails is the last."""
    import dagster as dg

    speak()
    leave_pandas_out()
    history.keep_open()
    with dg.DagsterInstance.get() as instance:
        settle_dead_runs(instance)
        for definition, names in partitions.items():
            register(instance, definition, names)
        outcome = Outcome(success=True, run_id="")
        for name, definition in JOBS.items():
            job = definitions.resolve_job_def(name)
            wanted = None if selected is None else sorted(job.asset_layer.executable_asset_keys & set(selected))
            if outcome.success and wanted != [] and partitions[definition]:
                outcome = _run(job, instance, partitions[definition], wanted)
        return outcome


def _run(job: Any, instance: Any, partitions: Sequence[str], wanted: list[Any] | None) -> Outcome:
    result = job.execute_in_process(
        instance=instance,
        tags={**spanning(partitions), HEADLESS_TAG: headless_tag()},
        asset_selection=wanted,
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
    chosen: set[Any] = set()
    for part in select.split(","):
        try:
            found = dg.AssetSelection.from_string(part.strip()).resolve(graph)
        except dg.DagsterError:
            found = set()
        if not found:  # an empty selection would run everything
            known = sorted(key.to_user_string() for key in graph.get_all_asset_keys())
            raise SettingsError(
                f"--select {select!r}: {part.strip()!r} selects nothing; give asset names, *name for one with all before it, "
                f"or group:name, with commas between{nearest(part.strip(' *+'), known)}"
            )
        chosen |= found
    return sorted(chosen)


def _refuse_without_candidates(definitions: Any, selected: Sequence[Any], settings: Settings) -> None:
    asked = definitions.resolve_job_def("judge_candidates").asset_layer.executable_asset_keys & set(selected)
    if asked and not settings.data_value.candidates:
        raise SettingsError(
            f"--select: {min(asked).to_user_string()} is made of candidate sets, and data_value.candidates names none; give one: "
            """--set 'data_value.candidates={"good": {"where": "quality > 0.95"}}'"""
        )


def _refuse_wrong_mesh(selected: Sequence[Any] | None, settings: Settings) -> None:
    """Before hours of curation rather than after them."""
    if selected is None or set(TRAININGS) & {key.to_user_string() for key in selected}:
        from l3_platform.launch.dry_run import check_mesh

        check_mesh(settings)


def _any_tracked(definitions: Any, selected: list[Any] | None) -> bool:
    """Whether an asset is among them that logs to MLflow, which its kinds say."""
    graph = definitions.resolve_asset_graph()
    return any("mlflow" in graph.get(key).kinds for key in selected or graph.get_all_asset_keys())


def _errors(result: Any) -> list[str]:
    """One line a failed step: what our own code raised, in its own words. A full disk is told once."""
    lines = [f"{event.step_key}: {_in_words(event, result)}" for event in result.all_events if event.is_step_failure]
    full = [line for line in lines if DISK_IS_FULL in line]
    return [line for line in lines if line not in full[1:]]


def _in_words(event: Any, result: Any) -> str:
    error = event.step_failure_data.error
    if error.cls_name == "DagsterAssetCheckFailedError":
        return _failed_checks(event.step_key, result)
    raised = error.cause or error  # Dagster wraps it once
    message = raised.message.strip()
    if any(name in message for name in ("DagsterExecutionInterruptedError", "KeyboardInterrupt")):
        return "interrupted; what is finished is kept, and the same command goes on from there"
    if raised.cls_name == "OSError" and f"[Errno {errno.ENOSPC}]" in message:
        return f"{message.removeprefix('OSError: ')}: {DISK_IS_FULL}; {AFTER_FULL}"
    if raised.cls_name == "MissingDataset":
        message += f" (with --select: '*{event.step_key}' makes what it needs first)"
    if raised.cls_name == "ValueError" and "\n" not in message and SETTING.search(message):
        message = message.removeprefix("ValueError: ")  # a sentence for a person
    return re.sub(r"^(l3_platform[\w.]*|dagster\._core\.definitions\.events\.Failure): ", "", message)


def _failed_checks(step: str, result: Any) -> str:
    """The blocking checks of a step that did not pass, with what they saw."""
    said = []
    for check in result.get_asset_check_evaluations():
        if check.asset_key.to_user_string() == step and check.blocking and not check.passed:
            facts = ", ".join(f"{name} {fact.value}" for name, fact in check.metadata.items())
            said.append(f"{check.check_name} ({check.description}; found: {facts})")
    return f"the data did not pass the check {' and '.join(said)}; nothing that depends on it was made"


def serve(profile: str, overrides: Sequence[str], port: int, mlflow_port: int) -> None:
    """Dagster's UI and MLflow, until SIGINT or SIGTERM; leaves no process behind."""
    import dagster as dg

    settings, root = _prepare(profile, overrides)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with dg.DagsterInstance.get() as instance:
        settle_dead_runs(instance)
        register(instance, "snapshots", sources.from_settings(settings.crawl).snapshots())
        register(instance, "candidate_sets", list(settings.data_value.candidates))
    os.environ[WEB_URL] = f"http://127.0.0.1:{port}"
    services.refuse_used_port("Dagster", port)
    with up_lock(), services.running_mlflow(root, settings.mlflow.tracking_uri, mlflow_port) as mlflow:
        web = services.dagster_web(root, code_location.workspace(), port)
        web.start()
        try:
            for service in (mlflow, web):
                if service is not None and not stop.is_set():
                    service.wait_ready()
            print(
                f"Dagster  {web.url}\nMLflow   {os.environ['MLFLOW_TRACKING_URI'] or services.NO_MLFLOW}\nCtrl-C ends both.",
                flush=True,
            )
            while not stop.wait(1.0):
                if web.ended():
                    raise services.ServiceError(f"Dagster ended; see {web.log}")
        finally:
            started = time.monotonic()
            web.stop()
            print(f"stopped in {time.monotonic() - started:.0f} s", flush=True)
