"""The report: how many records became how many tokens, what every check said, and how well the model predicts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Column, Table

from l3_platform.launch.effective_time import EffectiveTime
from l3_platform.launch.unfinished import unfinished
from l3_platform.lineage import EVERYTHING, Catalog, stages_of
from l3_platform.orchestration.code_location import check_keys
from l3_platform.orchestration.resources import Platform
from l3_platform.orchestration.stage import cost_of
from l3_platform.orchestration.training_card import times_of
from l3_platform.store import Counts, Dataset, MissingDataset
from l3_platform.train.job import run_folder


@dataclass(frozen=True)
class AssetReport:
    """One asset over its partitions: rows in and out of the last build, in records."""

    name: str
    materialized: bool
    records_in: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    balanced: bool = False
    rows: int = 0
    bytes: int = 0
    partitions: dict[str, str] = field(default_factory=dict)  # partition to digest
    metrics: dict[str, Any] = field(default_factory=dict)
    unfinished: str = ""  # how far its training has come


@dataclass(frozen=True)
class CheckReport:
    asset: str
    name: str
    passed: bool
    ran: bool
    facts: dict[str, Any]


@dataclass(frozen=True)
class Report:
    profile: str
    source: str
    snapshots: list[str]
    data: str
    assets: list[AssetReport]
    checks: list[CheckReport]
    losses: list[dict[str, Any]]
    training: dict[str, dict[str, EffectiveTime]]  # asset to job to where its time went
    links: dict[str, str]


def collect(profile: str, overrides: Sequence[str]) -> Report:
    """Read manifests and the newest result of every check. Builds nothing."""
    catalog = Platform(profile=profile, overrides=list(overrides)).catalog()
    stages = stages_of(catalog.settings)
    assets = [_asset(catalog, stage) for stage in stages]
    with dg.DagsterInstance.get() as instance:
        checks = _checks(instance, stages)
        links = _links(instance, catalog.settings.mlflow.tracking_uri)
    evaluation = catalog.find("evaluation")
    training = {stage: _times(catalog.find(stage)) for stage in stages if catalog.partitions(stage) == [EVERYTHING]}
    return Report(
        profile=profile,
        source=catalog.settings.crawl.source,
        snapshots=list(catalog.snapshots),
        data=catalog.root,
        assets=assets,
        checks=checks,
        losses=evaluation.read().to_pylist() if evaluation else [],
        training={stage: jobs for stage, jobs in training.items() if jobs},
        links=links,
    )


def _times(dataset: Dataset | None) -> dict[str, EffectiveTime]:
    return times_of(cost_of(dataset)) if dataset else {}


def _asset(catalog: Catalog, stage: str) -> AssetReport:
    found: dict[str, Dataset | None] = {partition: catalog.find(stage, partition) for partition in catalog.partitions(stage)}
    datasets = [dataset for dataset in found.values() if dataset is not None]
    if len(datasets) < len(found):
        return AssetReport(stage, materialized=False, unfinished=_unfinished(catalog, stage))
    counts = Counts.total(dataset.manifest.counts for dataset in datasets)
    return AssetReport(
        stage,
        materialized=True,
        records_in=counts.records_in,
        kept=counts.kept,
        dropped=counts.dropped,
        failed=counts.failed,
        balanced=counts.balanced,
        rows=sum(dataset.manifest.rows for dataset in datasets),
        bytes=sum(dataset.manifest.bytes for dataset in datasets),
        partitions={partition: dataset.digest for partition, dataset in found.items() if dataset},
        metrics=datasets[-1].manifest.metrics,
    )


def _unfinished(catalog: Catalog, stage: str) -> str:
    if catalog.partitions(stage) != [EVERYTHING]:
        return ""
    try:
        return unfinished(run_folder(stage, catalog.fingerprint(stage)))
    except MissingDataset:  # of an input, so nothing can have begun
        return ""


def _checks(instance: dg.DagsterInstance, stages: Sequence[str]) -> list[CheckReport]:
    """The newest result of every check of the stages, in their order; a check that never ran has not passed."""
    keys = [key for key in check_keys() if key.asset_key.to_user_string() in stages]
    newest = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    keys.sort(key=lambda key: (stages.index(key.asset_key.to_user_string()), key.name))
    return [_check(key, newest.get(key)) for key in keys]


def _check(key: dg.AssetCheckKey, record: AssetCheckExecutionRecord | None) -> CheckReport:
    asset = key.asset_key.to_user_string()
    event = record.event.asset_check_evaluation if record and record.event else None
    if event is None:
        return CheckReport(asset, key.name, passed=False, ran=False, facts={})
    facts = {name: value.value for name, value in event.metadata.items()}
    return CheckReport(asset, key.name, event.passed, ran=True, facts=facts)


def _links(instance: dg.DagsterInstance, mlflow: str) -> dict[str, str]:
    runs = instance.get_runs(limit=1)
    links = {"Dagster": "l3 up, then http://127.0.0.1:3000" + (f"/runs/{runs[0].run_id}" if runs else "")}
    return links | {"MLflow": mlflow or "l3 up, then http://127.0.0.1:5000"}


def as_json(report: Report) -> str:
    return json.dumps(asdict(report), default=_plain, indent=1)


def _plain(value: Any) -> Any:
    return value.told() if isinstance(value, EffectiveTime) else str(value)


def show(report: Report, out: TextIO) -> None:
    """The report for a person, on a terminal."""
    from rich.console import Console

    console = Console(file=out, width=None if out.isatty() else 120, highlight=False)
    console.rule(f"[bold]L3 report[/]  profile {report.profile}, source {report.source}: {', '.join(report.snapshots)}")
    console.print(_funnel(report))
    console.print(_verdicts(report))
    if report.losses:
        console.print(_losses(report))
    if report.training:
        console.print(_training(report))
    if interruptions := _interruptions(report):
        console.print(interruptions)
    for asset in report.assets:
        if asset.unfinished:
            console.print(f"{asset.name}: not finished: {escape(asset.unfinished)}")
    passed, ran = sum(check.passed for check in report.checks), sum(check.ran for check in report.checks)
    missing = [asset.name for asset in report.assets if not asset.materialized]
    console.print(f"{len(report.assets) - len(missing)} of {len(report.assets)} assets materialized", end="")
    console.print(f"; missing: {', '.join(missing)}" if missing else "", end="")
    console.print(f"; {passed} of {len(report.checks)} checks pass, {len(report.checks) - ran} have not run.\nData: {report.data}")
    for name, link in report.links.items():
        console.print(f"{name}: {link}")


def _funnel(report: Report) -> Table:
    table = Table(
        "asset",
        *(Column(name, justify="right") for name in ("in", "kept", "dropped", "quarantined", "MB")),
        "largest reasons",
        box=SIMPLE,
    )
    for asset in report.assets:
        if not asset.materialized:
            table.add_row(asset.name, "", "", "", "", "", "not finished" if asset.unfinished else "not materialized", style="dim")
            continue
        largest = sorted(asset.dropped.items(), key=lambda item: -item[1])[:3]
        numbers = (asset.records_in, asset.kept, sum(asset.dropped.values()), asset.failed)
        table.add_row(
            asset.name,
            *(f"{number:,}" for number in numbers),
            f"{asset.bytes / 1e6:.1f}",
            ", ".join(f"{reason} {count:,}" for reason, count in largest) + ("" if asset.balanced else "  DOES NOT BALANCE"),
        )
    return table


def _verdicts(report: Report) -> Table:
    """Checks that say something: not those that have not run, nor accounts that balance."""
    table = Table("", "check", "what it saw", box=SIMPLE)
    for check in report.checks:
        if not check.ran or (check.passed and check.name == "account_balances"):
            continue
        facts = ", ".join(f"{name} {_short(value)}" for name, value in check.facts.items())
        verdict, style = ("ok", "") if check.passed else ("FAIL", "red")
        table.add_row(verdict, f"{check.asset}: {check.name}", facts, style=style)
    return table


def _losses(report: Report) -> Table:
    columns = list(report.losses[0])
    table = Table(*columns, box=SIMPLE, title="held-out loss (nats a token), bits per byte")
    for row in report.losses:
        table.add_row(*(_short(value) for value in row.values()))
    return table


def _training(report: Report) -> Table:
    table = Table(
        "training",
        *(
            Column(name, justify="right")
            for name in ("effective", "seconds", "attempts", "interruptions", "tokens/s", "a device", "MFU", "memory, MB")
        ),
        box=SIMPLE,
        title="effective training time: steps that counted, of the wall clock",
    )
    for asset, jobs in report.training.items():
        for job, time in jobs.items():
            table.add_row(
                asset if len(jobs) == 1 else f"{asset}: {job}",
                f"{time.share:.1%}",
                f"{time.wall_seconds:,.1f}",
                f"{time.attempts}",
                f"{len(time.interruptions)}",
                _told(time.metrics, "tokens_per_second", ",.0f"),
                _told(time.metrics, "tokens_per_second_per_device", ",.0f"),
                _told(time.metrics, "mfu", ".1%"),
                f"{time.metrics.get('peak_memory_bytes', 0.0) / 1e6:,.0f}",
            )
    return table


def _told(metrics: Mapping[str, float], name: str, how: str) -> str:
    return format(metrics[name], how) if name in metrics else "–"


def _interruptions(report: Report) -> Table | None:
    table = Table("training", "attempt", "cause", "lost at", "steps lost", "evidence", box=SIMPLE, title="interruptions")
    for asset, jobs in report.training.items():
        for row in (row for time in jobs.values() for row in time.interruptions):
            evidence = row.evidence if len(row.evidence) <= 120 else f"{row.evidence[:119]}…"
            table.add_row(
                asset, str(row.attempt), str(row.cause), f"{row.lost:%m-%d %H:%M:%S}", f"{row.steps_lost:,}", escape(evidence)
            )
    return table if table.rows else None


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
