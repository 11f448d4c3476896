"""From a stage of `l3_platform.lineage` to a Dagster asset: find or build its datasets, check them, show a card.

An asset module says what is particular to it, the function that builds one dataset:

    @stage_asset(group="clean", kinds={"html"}, checks=[...])
    def documents(build: Build) -> Built:
        \"\"\"Becomes the description.\"\"\"
        return map_shards(..., build.out, build.settings.engine), {}

Everything that all assets share happens here, once.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pyarrow as pa

from l3_platform.engine import verbs
from l3_platform.engine.progress import report_to, say
from l3_platform.lineage import EVERYTHING, STAGES, Catalog, inputs_of
from l3_platform.orchestration.card import Card, card
from l3_platform.orchestration.log import careful_log
from l3_platform.orchestration.resources import CANDIDATE_SETS, SNAPSHOTS, Platform, Tracking
from l3_platform.settings import Settings
from l3_platform.store import Dataset, Lock, Writer, files
from l3_platform.store.dataset import read_table

Built = tuple[Sequence[str], Mapping[str, Any]]  # names of the shards, and what is worth knowing of them in numbers
OWNERS = ["team:data-platform"]


@dataclass(frozen=True)
class Build:
    """What the body of an asset works with, for one partition."""

    context: dg.AssetExecutionContext
    catalog: Catalog
    tracking: Tracking
    partition: str
    inputs: Mapping[str, Sequence[Dataset]]
    out: Writer
    notes: dict[str, Any] = field(default_factory=dict)  # kept beside the dataset, outside its identity

    @property
    def settings(self) -> Settings:
        return self.catalog.settings

    @contextlib.contextmanager
    def mlflow_run(self, name: str, parent: str = "") -> Iterator[str]:
        """An MLflow run for the body of the block: its id, or "" where no server answers. Its end sets the final status."""
        tags = {"l3.partition": self.partition, "l3.dataset": self.out.folder.rsplit("/", 1)[-1]}
        run = self.tracking.start_run(self.context, name, tags, parent)
        if run:
            self.notes["mlflow"] = f"/#/experiments/{self.tracking.experiment_id}/runs/{run}"
        status = "FAILED"
        try:
            yield run
            status = "FINISHED"
        except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
            status = "KILLED"
            raise
        finally:
            self.tracking.finish_run(self.context, run, status)

    def track_points(self, names: Sequence[str]) -> None:
        """Each row of the shards already put as an MLflow run, nested under one of the asset's name."""
        from l3_platform.scaling.tracking import log_points

        rows = self.finished_rows(names)
        if rows.num_rows:
            with self.mlflow_run(self.out.asset) as run:
                if run:
                    log_points(rows, self.tracking.client, run, self.tracking.experiment_id)

    def finished_rows(self, names: Sequence[str]) -> pa.Table:
        """Rows of shards already put, before the dataset is committed."""
        return pa.concat_tables([read_table(files.join(self.out.folder, f"{name}.parquet")) for name in names])

    def input(self, stage: str) -> Dataset:
        """The one dataset of an input that has one."""
        (dataset,) = self.inputs[stage]
        return dataset


@dataclass(frozen=True)
class Made:
    """A finished dataset with what a check or a card wants to know of it."""

    catalog: Catalog
    partition: str
    inputs: Mapping[str, Sequence[Dataset]]
    dataset: Dataset
    cost: Mapping[str, Any]

    @property
    def settings(self) -> Settings:
        return self.catalog.settings


@dataclass(frozen=True)
class Verdict:
    """`only_warns`: a blocking check does not stop what is downstream this time."""

    passed: bool
    facts: Mapping[str, Any] = field(default_factory=dict)
    only_warns: bool = False


@dataclass(frozen=True)
class Check:
    """An asset check: `judge(made)` for each partition; `blocking` stops what is downstream."""

    name: str
    judge: Callable[[Made], Verdict]
    blocking: bool = False
    description: str = ""


def stage_asset(
    *,
    group: str,
    kinds: set[str],
    checks: Sequence[Check] = (),
    show: Callable[[Made], Card] | None = None,
    pool: str | None = None,
    freshness: dg.FreshnessPolicy | None = None,
    retry: Callable[[Settings], bool] = lambda settings: False,
) -> Callable[[Callable[[Build], Built]], dg.AssetsDefinition]:
    """Decorates the function that builds a stage's dataset; its name is the stage's, its docstring the description.

    Where `retry` says so, shards of a finished dataset in which something failed are made again, and no others.
    """

    def decorate(body: Callable[[Build], Built]) -> dg.AssetsDefinition:
        stage = STAGES[body.__name__]  # type: ignore[attr-defined]
        partitioned = SNAPSHOTS if stage.by_snapshot else CANDIDATE_SETS if stage.by_candidate else None
        all_checks = [ACCOUNT_BALANCES, *checks]

        def asset(context: dg.AssetExecutionContext, platform: Platform, tracking: Tracking) -> dg.MaterializeResult:
            catalog = platform.catalog()
            partitions = list(context.partition_keys) if partitioned else [EVERYTHING]
            with report_to(careful_log(context)):
                made = [_made(context, catalog, tracking, stage.name, partition, body, retry) for partition in partitions]
            cards = {one.partition: card(one, show(one) if show else Card(), tracking) for one in made}
            if partitioned:
                for partition, metadata in cards.items():
                    context.add_asset_metadata(metadata, partition_key=partition)
            return dg.MaterializeResult(
                metadata=cards.get(EVERYTHING),
                data_version=dg.DataVersion("+".join(one.dataset.digest for one in made)),
                check_results=[_judge(check, made) for check in all_checks],
            )

        asset.__name__ = stage.name
        return dg.asset(
            name=stage.name,
            description=body.__doc__,
            deps=list(stage.inputs),
            partitions_def=partitioned,
            backfill_policy=dg.BackfillPolicy.single_run() if partitioned else None,
            group_name=group,
            kinds=kinds,
            owners=OWNERS,
            code_version=stage.version,
            pool=pool,
            freshness_policy=freshness,
            check_specs=[
                dg.AssetCheckSpec(check.name, asset=stage.name, blocking=check.blocking, description=check.description)
                for check in all_checks
            ],
        )(asset)

    return decorate


def with_settings(assets: Iterable[Any], settings: Settings) -> Sequence[Any]:
    """The assets with the arrows that the settings turn on: what Dagster waits for is what `inputs_of` says is read."""
    return dg.map_asset_specs(lambda spec: spec.replace_attributes(deps=inputs_of(spec.key.to_user_string(), settings)), assets)


def _made(
    context: dg.AssetExecutionContext,
    catalog: Catalog,
    tracking: Tracking,
    stage: str,
    partition: str,
    body: Callable[[Build], Built],
    retry: Callable[[Settings], bool],
) -> Made:
    """The dataset of a partition: found where it is finished, else built under its lock and committed."""
    if partition not in catalog.partitions(stage):
        raise dg.Failure(_unknown_partition(catalog, stage, partition), allow_retries=False)
    inputs = catalog.inputs(stage, partition)
    dataset = catalog.find(stage, partition)
    label = stage if partition == EVERYTHING else f"{stage} {partition}"
    again = dataset is not None and bool(dataset.manifest.counts.failed) and retry(catalog.settings)
    if dataset is None or again:
        out = catalog.writer(stage, partition)
        with Lock(f"{out.folder}.lock", owner=f"run {context.run_id[:8]}, {stage}/{partition}", wait_seconds=5.0):
            if again:
                out.reopen()
            found = None if again else catalog.find(stage, partition)
            dataset = found or _build(context, catalog, tracking, partition, inputs, out, body)
        say(f"{label:<28} {_summary(dataset)}  {cost_of(dataset).get('seconds', 0.0):6.1f} s")
    else:
        dataset.remove_leftovers()
        say(f"{label:<28} {_summary(dataset)}  unchanged")
        careful_log(context)(f"{stage}/{partition}: unchanged inputs and settings, nothing recomputed ({dataset.folder})")
    return Made(catalog, partition, inputs, dataset, cost_of(dataset))


def _unknown_partition(catalog: Catalog, stage: str, partition: str) -> str:
    if STAGES[stage].by_candidate:
        known = ", ".join(catalog.settings.data_value.candidates) or "none"
        return (
            f"{stage}/{partition}: data_value.candidates has no set {partition!r}, it has {known}; say what it consists of, with "
            f"--set or among the overrides of resource `platform` in the launchpad: "
            f'data_value.candidates={{"{partition}": {{"where": "quality > 0.95"}}}}'
        )
    return (
        f"{stage}/{partition}: source {catalog.settings.crawl.source!r} has no snapshot {partition!r}, it has "
        f"{', '.join(catalog.snapshots)}; run with the settings of the other source (crawl.source)"
    )


def _build(
    context: dg.AssetExecutionContext,
    catalog: Catalog,
    tracking: Tracking,
    partition: str,
    inputs: Mapping[str, Sequence[Dataset]],
    out: Writer,
    body: Callable[[Build], Built],
) -> Dataset:
    started = time.monotonic()
    build = Build(context, catalog, tracking, partition, inputs, out)
    names, metrics = body(build)
    cost = {
        "seconds": round(time.monotonic() - started, 3),
        "workers": verbs.workers(catalog.settings.engine),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "dagster_run": context.run_id,
        **build.notes,
    }
    files.write(files.join(out.folder, "cost.json"), json.dumps(cost).encode())
    return out.commit(names, metrics)


def cost_of(dataset: Dataset) -> dict[str, Any]:
    """What lies beside a dataset and outside its identity: seconds, workers, the runs that made it, notes of its stage."""
    try:
        return json.loads(files.read(files.join(dataset.folder, "cost.json")))
    except (FileNotFoundError, ValueError):
        return {}


def _summary(dataset: Dataset) -> str:
    counts = dataset.manifest.counts
    dropped = sum(counts.dropped.values())
    losses = f", {dropped:,} dropped" if dropped else ""
    losses += f", {counts.failed:,} quarantined" if counts.failed else ""
    return f"{counts.records_in:>8,} in {counts.kept:>8,} kept{losses}"


def _judge(check: Check, made: Iterable[Made]) -> dg.AssetCheckResult:
    verdicts = {one.partition: check.judge(one) for one in made}
    alone = len(verdicts) == 1
    facts = {
        (name if alone else f"{partition}: {name}"): value
        for partition, verdict in verdicts.items()
        for name, value in verdict.facts.items()
    }
    passed = all(verdict.passed for verdict in verdicts.values())
    mild = not passed and all(verdict.only_warns for verdict in verdicts.values() if not verdict.passed)
    severity = dg.AssetCheckSeverity.ERROR if check.blocking and not mild else dg.AssetCheckSeverity.WARN
    expected = None if passed else f"expected: {check.description}"
    return dg.AssetCheckResult(check_name=check.name, passed=passed, severity=severity, metadata=facts, description=expected)


def _balances(made: Made) -> Verdict:
    counts = made.dataset.manifest.counts
    quarantined = made.dataset.quarantine().num_rows
    facts = {
        "records_in": counts.records_in,
        "kept": counts.kept,
        "dropped": sum(counts.dropped.values()),
        "failed": counts.failed,
        "quarantine rows": quarantined,
    }
    return Verdict(counts.balanced and quarantined == counts.failed, facts)


ACCOUNT_BALANCES = Check(
    "account_balances",
    _balances,
    blocking=True,
    description="records in = kept + dropped + failed; each failure is in quarantine",
)
